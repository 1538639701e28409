//! Small models with seeded random weights, an encoder and a language model: every op kind, several layers, and sequences
//! that are expanded.

mod decoder;

pub use decoder::DecoderOptions;

use gainsay_arithmetic::int8::ActivationBits;
use gainsay_commitment::tensor::tensor_commitment;

use crate::lowering::encoder::{EncoderShape, lower_encoder};
use crate::lowering::tensors::{SourceTensor, TensorSource};
use crate::lowering::{ActivationWidths, LowerError, LowerOptions};
use crate::{ArithmeticProfile, Dtype, JobInput, ValidatedModel};

/// What the small encoder looks like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToyOptions {
    /// Seed of the weights.
    pub seed: u64,
    /// Whether linears are quantized, in groups of 8 where that divides K.
    pub arithmetic: ArithmeticProfile,
    /// Width of the activations of int8 linears.
    pub activation_bits: ActivationBits,
    /// Type that the matrices have in the checkpoint.
    pub dtype: Dtype,
    /// Columns of a head.
    pub head_dim: u32,
    /// Number of heads.
    pub heads: u32,
    /// Width between the two linears of a block.
    pub intermediate: u32,
    /// Transformer blocks.
    pub blocks: u32,
    /// Blocks that share a layer.
    pub blocks_per_layer: u32,
    /// Number of token ids.
    pub vocabulary: u32,
    /// Tokens of the longest sequence.
    pub max_sequence: u32,
    /// Longer sequences are expanded.
    pub expand_from_rows: u32,
}

impl Default for ToyOptions {
    /// Two blocks, two heads of 8 columns, sequences of up to 32 tokens, expanded beyond 8.
    fn default() -> Self {
        Self {
            seed: 1,
            arithmetic: ArithmeticProfile::ExactF32V1,
            activation_bits: ActivationBits::Eight,
            dtype: Dtype::F32,
            head_dim: 8,
            heads: 2,
            intermediate: 24,
            blocks: 2,
            blocks_per_layer: 1,
            vocabulary: 50,
            max_sequence: 32,
            expand_from_rows: 8,
        }
    }
}

/// A small model with its weights.
#[derive(Clone, PartialEq, Debug)]
pub struct Toy {
    /// The model.
    pub model: ValidatedModel,
    /// Bytes of the tensors, in the manifest's order.
    pub weights: Vec<Vec<u8>>,
}

impl Toy {
    /// Builds the model. Fails where the options describe none.
    pub fn new(options: &ToyOptions) -> Result<Self, LowerError> {
        let shape = EncoderShape {
            hidden: options.heads.saturating_mul(options.head_dim),
            heads: options.heads,
            intermediate: options.intermediate,
            blocks: options.blocks,
            vocabulary: options.vocabulary,
            positions: options.max_sequence,
            types: 2,
            eps: 1e-12,
            normalize: true,
        };
        let lower_options = LowerOptions {
            blocks_per_layer: options.blocks_per_layer,
            expand_from_rows: options.expand_from_rows,
            int8_group: 8,
            activations: ActivationWidths::all(options.activation_bits),
            ..LowerOptions::new("toy", options.arithmetic)
        };
        let mut source = RandomTensors { random: Random::new(options.seed), dtype: options.dtype };
        let lowered =
            lower_encoder(&shape, &lower_options, tensor_commitment(b"toy tokenizer"), &mut source)?;
        Ok(Self { model: lowered.manifest.validate()?, weights: lowered.weights })
    }

    /// A job of sequences of these lengths, with seeded random token ids. Lengths are cut to what the model takes,
    /// and to at least 1.
    pub fn job(&self, seed: u64, lengths: &[u32]) -> JobInput {
        let manifest = self.model.manifest();
        let mut random = Random::new(seed);
        let sequences = lengths.iter().map(|&len| -> Vec<u32> {
            let len = len.clamp(1, manifest.max_sequence);
            (0..len).map(|_| (random.next() % u64::from(manifest.vocabulary)) as u32).collect()
        });
        JobInput::new(sequences).expect("the sequences are not empty, and the tests ask for few tokens")
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in [−1, 1).
    fn signed_unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

struct RandomTensors {
    random: Random,
    dtype: Dtype,
}

impl TensorSource for RandomTensors {
    fn load(&mut self, _name: &str, shape: &[u32]) -> Result<SourceTensor, LowerError> {
        let elements: usize = shape.iter().map(|&size| size as usize).product();
        let values = (0..elements).map(|_| self.random.signed_unit());
        // The upper half of an f32 is a bf16. As an f16 the same half would be another number, mostly tiny or huge.
        let bytes = match self.dtype {
            Dtype::F16 => values.flat_map(|value| f16_bits(value).to_le_bytes()).collect(),
            Dtype::Bf16 => values.flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()).collect(),
            _ => values.flat_map(f32::to_le_bytes).collect(),
        };
        let dtype = if self.dtype.bytes() == 2 { self.dtype } else { Dtype::F32 };
        Ok(SourceTensor { dtype, bytes })
    }
}

/// An f16 near a value in [−1, 1): toward zero, with what would be a subnormal as zero.
fn f16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    if exponent <= 0 { sign } else { sign | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16 }
}
