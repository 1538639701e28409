//! Faults: how tests and misbehaving workers corrupt a run. Honest code, and one divergence.

use gainsay_program::{OpKind, RowSpace, ValidatedModel};

use crate::batch::{Batch, Part, PartRows};

/// One divergence from the program. A generation goes on from what it has made of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Flips a bit of one element of an op's stored output; later ops compute with it.
    FlipBit {
        /// The layer.
        layer: u32,
        /// The op, an index into the layer's ops.
        op: u32,
        /// Row-major index of the element. Where the number of rows is known from the start, modulo the number of
        /// elements that the output has in the job; in a generation an element beyond the last is never struck.
        element: u64,
        /// The bit, 0 for the lowest, modulo 32. A token that this makes is taken modulo the vocabulary.
        bit: u8,
    },
    /// The output of a layer is its input.
    SkipLayer {
        /// The layer; its output must have the rows and the width of its input.
        layer: u32,
    },
    /// One token of a generation's answer is another than was sampled.
    Token {
        /// Its index in the answer.
        answer: u32,
        /// What it is instead.
        token: u32,
    },
    /// Every token of a generation's answer is that which the job was given, whatever is sampled; the last is sampled.
    /// So a claim has the layers of this model and the tokens of another.
    TokensAsGiven,
    /// The engine panics when it has computed a row of a layer's output, the row counted in the job.
    Panic {
        /// The layer.
        layer: u32,
        /// The row.
        row: u64,
    },
}

/// What is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strike {
    /// An op's output.
    Op(u32, usize),
    /// A layer's output.
    Layer(u32),
}

impl Strike {
    /// The layer that is struck, or that holds the op.
    pub(crate) fn layer(self) -> u32 {
        match self {
            Self::Op(layer, _) | Self::Layer(layer) => layer,
        }
    }
}

impl Fault {
    /// Whether the program has the op, a layer that can be skipped, or a token that can be chosen.
    pub fn fits(&self, model: &ValidatedModel) -> bool {
        match *self {
            Self::FlipBit { layer, op, .. } => model.op(layer, op).is_some(),
            Self::SkipLayer { layer } => {
                let input = layer.checked_sub(1).and_then(|before| model.layer_output_type(before));
                input.is_some() && input == model.layer_output_type(layer)
            }
            Self::Panic { layer, .. } => layer < model.layer_count(),
            Self::Token { token, .. } => token < model.manifest().vocabulary && sample_op(model).is_some(),
            Self::TokensAsGiven => sample_op(model).is_some(),
        }
    }

    /// What it strikes in a program that it fits.
    pub(crate) fn strike(&self, model: &ValidatedModel) -> Option<Strike> {
        match *self {
            Self::FlipBit { layer, op, .. } => Some(Strike::Op(layer, op as usize)),
            Self::SkipLayer { layer } | Self::Panic { layer, .. } => Some(Strike::Layer(layer)),
            Self::Token { .. } | Self::TokensAsGiven => {
                sample_op(model).map(|(layer, op)| Strike::Op(layer, op))
            }
        }
    }

    /// Panics if it is to, once these rows of a struck layer's output are there.
    pub(crate) fn panic_at(&self, rows: &PartRows) {
        if let Self::Panic { layer, row } = *self {
            let first = rows.first_in_job as u64;
            let is_there = (first..first + rows.in_batch.len() as u64).contains(&row);
            assert!(!is_there, "a fault strikes row {row} of layer {layer}");
        }
    }

    /// Corrupts the words that `batch` holds of the struck op's output, in one job.
    pub(crate) fn corrupt(
        &self,
        model: &ValidatedModel,
        (batch, part): (&Batch<'_>, &Part),
        (space, width): (RowSpace, usize),
        output: &mut [u32],
    ) {
        match *self {
            Self::FlipBit { layer, op, element, bit } => {
                let rows = part.rows(space);
                let mut element = element;
                if let Some(in_job) = part.rows_in_job(space) {
                    element %= (in_job * width) as u64;
                }
                let first = (rows.first_in_job * width) as u64;
                if (first..first + (rows.in_batch.len() * width) as u64).contains(&element) {
                    let value = &mut output[rows.in_batch.start * width + (element - first) as usize];
                    *value ^= 1 << (bit % 32);
                    if model.op(layer, op).is_some_and(|op| op.kind == OpKind::Sample) {
                        *value %= model.manifest().vocabulary;
                    }
                }
            }
            Self::SkipLayer { .. } | Self::Panic { .. } => {}
            Self::Token { answer, token } => {
                let rows = part.rows(space);
                let place = (answer as usize).checked_sub(rows.first_in_job);
                if let Some(place) = place.filter(|&place| place < rows.in_batch.len()) {
                    output[rows.in_batch.start + place] = token;
                }
            }
            Self::TokensAsGiven => {
                for segment in batch.segments_of(part) {
                    for answer in segment.answers.clone() {
                        let chosen = segment.chosen_after(answer);
                        if let Some(&token) =
                            chosen.and_then(|(_, before)| segment.known.ids.get(before.len()))
                        {
                            output[answer] = token;
                        }
                    }
                }
            }
        }
    }
}

/// The op that chooses tokens, where the program has one.
fn sample_op(model: &ValidatedModel) -> Option<(u32, usize)> {
    let layer = model.layer_count().checked_sub(1)?;
    let op = model.ops(layer).iter().rposition(|op| op.kind == OpKind::Sample)?;
    Some((layer, op))
}
