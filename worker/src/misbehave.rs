//! Cheating, for tests and demonstrations: an honest run with one divergence, which the worker then defends.

use crate::records::Divergence;
use gainsay_commitment::{ModelId, tensor::tensor_commitment};
use gainsay_engine::{Fault, LoadError, RunError};
use gainsay_participant::models::LoadedModel;
use gainsay_program::{Dtype, JobInput, OpKind, OpPlace, Operand, ValidatedModel};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

/// How a worker cheats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Flips this bit, whether or not it changes anything.
    FlipAt {
        /// The layer.
        layer: u32,
        /// The op.
        op: u32,
        /// The element, modulo the number that the op has in the job.
        element: u64,
        /// The bit.
        bit: u8,
    },
    /// Flips a bit drawn from seed and job, such that the answer changes.
    Flip {
        /// The seed.
        seed: u64,
    },
    /// Takes a layer's input for its output.
    SkipLayer {
        /// The layer.
        layer: u32,
    },
    /// Computes with other weights.
    OtherWeights {
        /// What they are drawn from.
        seed: u64,
    },
    /// Takes another token than was drawn, and goes on from there.
    Token {
        /// Its index in the answer, modulo the answer's length.
        answer: u32,
    },
    /// Answers with the tokens of a model with other weights, under the layers of the right one.
    OtherTokens {
        /// What they are drawn from.
        seed: u64,
    },
    /// Draws tokens with another seed, and with a temperature where none is asked for.
    OtherSampling {
        /// The seed.
        seed: u64,
    },
    /// Ends answers a token early.
    Truncate,
    /// Goes on for a token after an answer's end.
    Pad,
    /// Streams another token than it claims.
    OtherStream,
    /// Flips like [`Misbehaviour::Flip`], and answers no dispute.
    Silent {
        /// The seed.
        seed: u64,
    },
}

/// A text that names no misbehaviour.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no way to cheat: expected flip, flip:SEED, flip:LAYER:OP:ELEMENT:BIT (bit 0 to 31), skip-layer:LAYER, \
     other-weights, other-weights:SEED, silent or silent:SEED; for generations also token, token:INDEX, other-tokens, \
     other-tokens:SEED, other-sampling, other-sampling:SEED, truncate, pad or other-stream"
)]
pub struct ParseMisbehaviourError(String);

impl FromStr for Misbehaviour {
    type Err = ParseMisbehaviourError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseMisbehaviourError(text.to_owned());
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let numbers: Vec<u64> =
            parts.map(|part| part.parse().map_err(|_| refused())).collect::<Result<_, _>>()?;
        let narrow = |number: u64| u32::try_from(number).map_err(|_| refused());
        match (name, numbers.as_slice()) {
            ("flip", []) => Ok(Self::Flip { seed: 0 }),
            ("flip", &[seed]) => Ok(Self::Flip { seed }),
            ("flip", &[layer, op, element, bit @ 0..=31]) => {
                Ok(Self::FlipAt { layer: narrow(layer)?, op: narrow(op)?, element, bit: bit as u8 })
            }
            ("skip-layer", &[layer]) => Ok(Self::SkipLayer { layer: narrow(layer)? }),
            ("other-weights", []) => Ok(Self::OtherWeights { seed: 0 }),
            ("other-weights", &[seed]) => Ok(Self::OtherWeights { seed }),
            ("token", []) => Ok(Self::Token { answer: 0 }),
            ("token", &[answer]) => Ok(Self::Token { answer: narrow(answer)? }),
            ("other-tokens", []) => Ok(Self::OtherTokens { seed: 0 }),
            ("other-tokens", &[seed]) => Ok(Self::OtherTokens { seed }),
            ("other-sampling", []) => Ok(Self::OtherSampling { seed: 0 }),
            ("other-sampling", &[seed]) => Ok(Self::OtherSampling { seed }),
            ("truncate", []) => Ok(Self::Truncate),
            ("pad", []) => Ok(Self::Pad),
            ("other-stream", []) => Ok(Self::OtherStream),
            ("silent", []) => Ok(Self::Silent { seed: 0 }),
            ("silent", &[seed]) => Ok(Self::Silent { seed }),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FlipAt { layer, op, element, bit } => write!(f, "flip:{layer}:{op}:{element}:{bit}"),
            Self::Flip { seed } => write!(f, "flip:{seed}"),
            Self::SkipLayer { layer } => write!(f, "skip-layer:{layer}"),
            Self::OtherWeights { seed } => write!(f, "other-weights:{seed}"),
            Self::Token { answer } => write!(f, "token:{answer}"),
            Self::OtherTokens { seed } => write!(f, "other-tokens:{seed}"),
            Self::OtherSampling { seed } => write!(f, "other-sampling:{seed}"),
            Self::Truncate => f.write_str("truncate"),
            Self::Pad => f.write_str("pad"),
            Self::OtherStream => f.write_str("other-stream"),
            Self::Silent { seed } => write!(f, "silent:{seed}"),
        }
    }
}

impl Misbehaviour {
    /// Whether disputes go unanswered.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Silent { .. })
    }

    /// The divergence for one job, of which `job` is the honest run. `salt` makes seeded ones differ from job to job, and the
    /// same again after a restart.
    ///
    /// # Errors
    /// The job cannot be run.
    pub(crate) fn divergence(
        &self,
        model: &LoadedModel,
        job: &JobInput,
        salt: &[u8],
    ) -> Result<Divergence, RunError> {
        match *self {
            Self::FlipAt { layer, op, element, bit } => Ok(Divergence::Flip { layer, op, element, bit }),
            Self::SkipLayer { layer } => Ok(Divergence::SkipLayer { layer }),
            Self::OtherWeights { seed } => Ok(Divergence::OtherWeights { seed }),
            Self::Token { answer } => other_token(model, job, answer),
            Self::OtherTokens { seed } => Ok(Divergence::OtherTokens { seed }),
            Self::OtherSampling { seed } => Ok(Divergence::OtherSampling { seed }),
            Self::Truncate | Self::Pad => Ok(Divergence::Length),
            Self::OtherStream => Ok(Divergence::Stream),
            Self::Flip { seed } | Self::Silent { seed } => draw_flip(model, job, seed, salt),
        }
    }
}

/// Another token than was drawn, and none that ends the answer.
fn other_token(model: &LoadedModel, job: &JobInput, answer: u32) -> Result<Divergence, RunError> {
    let drawn = model.engine().run(std::slice::from_ref(job), None)?.remove(0).output;
    let tokens = drawn.as_chunks::<4>().0;
    let answer = answer % tokens.len().max(1) as u32;
    let drawn = tokens.get(answer as usize).map_or(0, |token| u32::from_le_bytes(*token));
    let manifest = model.model().manifest();
    let ends = |token: &u32| {
        manifest.generation.as_ref().is_some_and(|generation| generation.stop_ids.contains(token))
    };
    let others = (1..manifest.vocabulary).map(|step| (drawn + step) % manifest.vocabulary);
    let token = others.into_iter().find(|token| !ends(token)).unwrap_or(drawn);
    Ok(Divergence::Token { answer, token })
}

/// Draws before the flip of the answer itself is taken, which changes it for certain.
const DRAWS: u64 = 32;

/// Draws flips until one changes the answer: many low bits are lost in later roundings.
fn draw_flip(model: &LoadedModel, job: &JobInput, seed: u64, salt: &[u8]) -> Result<Divergence, RunError> {
    let honest = model.engine().run(std::slice::from_ref(job), None)?.remove(0).output;
    for draw in 0..DRAWS {
        let Some(flip) = flip_at(model.model(), job, &mut Draw::new(seed, salt, draw)) else { continue };
        let fault = flip.fault();
        if model.engine().run(std::slice::from_ref(job), fault.as_ref())?.remove(0).output != honest {
            return Ok(flip);
        }
    }
    let layer = model.model().layer_count() - 1;
    let op = model.model().ops(layer).len() as u32 - 1;
    Ok(Divergence::Flip { layer, op, element: 0, bit: 22 })
}

fn flip_at(model: &ValidatedModel, job: &JobInput, draw: &mut Draw) -> Option<Divergence> {
    let layer = draw.below(model.layer_count().into()) as u32;
    let op = draw.below(model.ops(layer).len() as u64) as u32;
    let shape = model.op_shape(job, OpPlace::in_layer(layer, op))?;
    Some(Divergence::Flip { layer, op, element: draw.below(shape.elements()), bit: draw.below(32) as u8 })
}

/// A few numbers from a seed: the words of one hash.
struct Draw {
    words: std::vec::IntoIter<u64>,
}

impl Draw {
    fn new(seed: u64, salt: &[u8], draw: u64) -> Self {
        let input = [&seed.to_le_bytes(), &draw.to_le_bytes(), salt].concat();
        let hash = tensor_commitment(&input).to_bytes();
        let words: Vec<u64> = hash.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        Self { words: words.into_iter() }
    }

    /// A number below `limit`, near enough to uniform.
    fn below(&mut self, limit: u64) -> u64 {
        self.words.next().expect("one hash gives four numbers") % limit.max(1)
    }
}

/// Models with other weights, made when first needed.
#[derive(Default)]
pub(crate) struct Liar {
    altered: Mutex<HashMap<(ModelId, u64), LoadedModel>>,
}

impl Liar {
    /// The model and fault that run with a divergence. Long: not for async threads.
    ///
    /// # Errors
    /// The other weights do not load.
    pub(crate) fn equip(
        &self,
        model: &LoadedModel,
        divergence: Option<&Divergence>,
    ) -> Result<(LoadedModel, Option<Fault>), LoadError> {
        match divergence {
            Some(Divergence::OtherWeights { seed }) => Ok((self.altered(model, *seed)?, None)),
            other => Ok((model.clone(), other.and_then(Divergence::fault))),
        }
    }

    /// The model with other weights, drawn from `seed`. Long: not for async threads.
    ///
    /// # Errors
    /// They do not load.
    pub(crate) fn altered(&self, model: &LoadedModel, seed: u64) -> Result<LoadedModel, LoadError> {
        let mut altered = self.altered.lock().expect("loading a model does not panic");
        let key = (model.model().id(), seed);
        if let Some(altered) = altered.get(&key) {
            return Ok(altered.clone());
        }
        let made = with_other_weights(model, seed)?;
        altered.insert(key, made.clone());
        Ok(made)
    }
}

/// The model with every value of one matrix changed, in its highest bit of precision.
fn with_other_weights(model: &LoadedModel, seed: u64) -> Result<LoadedModel, LoadError> {
    let manifest = model.model().manifest();
    let ops = manifest.program.layers.iter().flat_map(|layer| &layer.ops);
    let matrices: Vec<u32> = ops
        .filter(|op| matches!(op.kind, OpKind::Linear(_)))
        .filter_map(|op| match op.inputs.get(1) {
            Some(Operand::Weight(index)) => Some(*index),
            _ => None,
        })
        .collect();
    let drawn = Draw::new(seed, &[], 0).below(matrices.len() as u64) as usize;
    // A model without any matrix has other weights all the same: those of its first tensor.
    let chosen = matrices.get(drawn).copied().unwrap_or(0) as usize;
    model.with_changed_weights(|index, bytes| {
        (index == chosen).then(|| changed(manifest.tensors[index].dtype, bytes))
    })
}

fn changed(dtype: Dtype, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match dtype {
        Dtype::F32 => {
            for element in bytes.as_chunks_mut::<4>().0 {
                *element = float(u32::from_le_bytes(*element), 0x7f80_0000, 22).to_le_bytes();
            }
        }
        Dtype::Bf16 => change_halves(&mut bytes, 0x7f80, 6),
        Dtype::F16 => change_halves(&mut bytes, 0x7c00, 9),
        Dtype::I8 => {
            for element in &mut bytes {
                // −127 would become −128, which is no weight.
                *element = if *element == 0x81 { 0x82 } else { *element ^ 1 };
            }
        }
        Dtype::U32 => {}
    }
    bytes
}

fn change_halves(bytes: &mut [u8], exponent: u32, bit: u32) {
    for element in bytes.as_chunks_mut::<2>().0 {
        let value = float(u16::from_le_bytes(*element).into(), exponent, bit);
        *element = (value as u16).to_le_bytes();
    }
}

/// Flips a bit of the mantissa, where that leaves an ordinary number an ordinary number.
fn float(bits: u32, exponent: u32, bit: u32) -> u32 {
    let is_ordinary = bits & exponent != 0 && bits & exponent != exponent;
    if is_ordinary { bits ^ 1 << bit } else { bits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gainsay_engine::Options;
    use gainsay_program::toy::{Toy, ToyOptions};
    use std::sync::Arc;

    fn toy() -> (LoadedModel, JobInput) {
        let toy = Toy::new(&ToyOptions::default()).unwrap();
        let job = toy.job(1, &[12, 3]);
        let weights = toy.weights.into_iter().map(Arc::from).collect();
        let options = Options { threads: 1, ..Options::default() };
        (LoadedModel::new(Arc::new(toy.model), weights, options).unwrap(), job)
    }

    #[test]
    fn every_way_to_cheat_parses_and_prints() {
        for (text, expected, printed) in [
            ("flip", Misbehaviour::Flip { seed: 0 }, "flip:0"),
            ("flip:7", Misbehaviour::Flip { seed: 7 }, "flip:7"),
            (
                "flip:1:2:300:22",
                Misbehaviour::FlipAt { layer: 1, op: 2, element: 300, bit: 22 },
                "flip:1:2:300:22",
            ),
            ("skip-layer:3", Misbehaviour::SkipLayer { layer: 3 }, "skip-layer:3"),
            ("other-weights", Misbehaviour::OtherWeights { seed: 0 }, "other-weights:0"),
            ("other-weights:9", Misbehaviour::OtherWeights { seed: 9 }, "other-weights:9"),
            ("token:3", Misbehaviour::Token { answer: 3 }, "token:3"),
            ("other-tokens", Misbehaviour::OtherTokens { seed: 0 }, "other-tokens:0"),
            ("other-sampling:2", Misbehaviour::OtherSampling { seed: 2 }, "other-sampling:2"),
            ("truncate", Misbehaviour::Truncate, "truncate"),
            ("pad", Misbehaviour::Pad, "pad"),
            ("other-stream", Misbehaviour::OtherStream, "other-stream"),
            ("silent", Misbehaviour::Silent { seed: 0 }, "silent:0"),
            ("silent:4", Misbehaviour::Silent { seed: 4 }, "silent:4"),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
            assert_eq!(expected.to_string(), printed);
            assert_eq!(printed.parse(), Ok(expected));
        }
        for text in [
            "",
            "flop",
            "flip:",
            "flip:1:2",
            "flip:1:2:3:32",
            "flip:1:2:3:4:5",
            "flip:-1",
            "skip-layer",
            "skip-layer:x",
            "skip-layer:4294967296",
            "silent:1:2",
            "Flip",
        ] {
            let refusal = text.parse::<Misbehaviour>().unwrap_err().to_string();
            assert!(refusal.contains("expected flip"), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_seeded_flip_changes_the_answer_and_is_the_same_again() {
        let (model, job) = toy();
        let answer = |fault: Option<Fault>| {
            model.engine().run(std::slice::from_ref(&job), fault.as_ref()).unwrap().remove(0).output
        };
        let honest = answer(None);
        let mut seen = std::collections::HashSet::new();
        for seed in 0..8 {
            let cheat = Misbehaviour::Flip { seed };
            let drawn = cheat.divergence(&model, &job, b"lease").unwrap();
            assert_ne!(answer(drawn.fault()), honest, "seed {seed}: {drawn:?}");
            assert_eq!(cheat.divergence(&model, &job, b"lease").unwrap(), drawn);
            seen.insert(drawn);
        }
        assert!(seen.len() > 4, "different seeds draw different places: {seen:?}");
    }

    #[test]
    fn other_weights_run_the_same_program_to_another_answer() {
        let (model, job) = toy();
        let liar = Liar::default();
        for seed in 0..4 {
            let (altered, fault) = liar.equip(&model, Some(&Divergence::OtherWeights { seed })).unwrap();
            assert_eq!(fault, None);
            assert_ne!(altered.model().id(), model.model().id());
            assert_eq!(altered.model().manifest().program, model.model().manifest().program);
            let run = |model: &LoadedModel| model.engine().run(std::slice::from_ref(&job), None).unwrap();
            assert_ne!(run(&altered), run(&model), "seed {seed}");
        }
    }

    #[test]
    fn changed_weights_stay_weights() {
        let floats: Vec<u8> =
            [0.0_f32, -0.0, 1.5, -2.0, f32::MIN_POSITIVE].iter().flat_map(|x| x.to_le_bytes()).collect();
        let read: Vec<f32> =
            changed(Dtype::F32, &floats).as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
        assert_eq!(read, [0.0, 0.0, 1.0, -3.0, 1.5 * f32::MIN_POSITIVE]);
        let bytes: Vec<u8> = (1..=127_u8).chain(129..=255).chain([0]).collect();
        let after = changed(Dtype::I8, &bytes);
        assert!(after.iter().zip(&bytes).all(|(after, before)| after != before && *after != 0x80));
    }
}
