//! The small language model.

use gainsay_arithmetic::int8::ActivationBits;
use gainsay_commitment::tensor::tensor_commitment;

use super::{Random, RandomTensors, Toy};
use crate::lowering::decoder::{DecoderShape, lower_decoder};
use crate::lowering::rope::{Rope, RopeScaling};
use crate::lowering::{ActivationWidths, LowerError, LowerOptions};
use crate::reference::ReferenceError;
use crate::{ArithmeticProfile, Dtype, JobInput, KvDtype, Sampling, SamplingDefaults, reference};

/// What the small language model looks like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecoderOptions {
    /// Seed of the weights.
    pub seed: u64,
    /// Whether linears are quantized, in groups of 8 where that divides K.
    pub arithmetic: ArithmeticProfile,
    /// Width of the activations of int8 linears.
    pub activation_bits: ActivationBits,
    /// Type that the matrices have in the checkpoint.
    pub dtype: Dtype,
    /// Type of cached keys and values.
    pub kv_dtype: KvDtype,
    /// Half the columns of a head.
    pub half_head: u32,
    /// Number of key and value heads.
    pub kv_heads: u32,
    /// Query heads to each of them.
    pub heads_per_kv: u32,
    /// Width between the linears of a block.
    pub intermediate: u32,
    /// Transformer blocks.
    pub blocks: u32,
    /// Blocks that share a layer.
    pub blocks_per_layer: u32,
    /// Number of token ids.
    pub vocabulary: u32,
    /// Tokens of the longest sequence.
    pub max_sequence: u32,
    /// What depends on more rows is expanded.
    pub expand_from_rows: u32,
    /// Whether linears have biases, and each head of queries and keys is normalized.
    pub ornate: bool,
    /// Whether the head's matrix is that of the embeddings.
    pub tied: bool,
}

impl Default for DecoderOptions {
    /// Two blocks, four heads of 4 columns on two key heads, 50 tokens, sequences of up to 32, expanded beyond 8.
    fn default() -> Self {
        Self {
            seed: 1,
            arithmetic: ArithmeticProfile::ExactF32V1,
            activation_bits: ActivationBits::Eight,
            dtype: Dtype::F32,
            kv_dtype: KvDtype::Bf16,
            half_head: 2,
            kv_heads: 2,
            heads_per_kv: 2,
            intermediate: 24,
            blocks: 2,
            blocks_per_layer: 1,
            vocabulary: 50,
            max_sequence: 32,
            expand_from_rows: 8,
            ornate: false,
            tied: true,
        }
    }
}

impl DecoderOptions {
    fn shape(&self) -> DecoderShape {
        let (heads, head_dim) = (self.kv_heads * self.heads_per_kv, 2 * self.half_head);
        DecoderShape {
            hidden: heads * head_dim,
            heads,
            kv_heads: self.kv_heads,
            head_dim,
            intermediate: self.intermediate,
            blocks: self.blocks,
            vocabulary: self.vocabulary,
            positions: self.max_sequence,
            eps: 1e-6,
            rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
            qkv_bias: self.ornate,
            projection_bias: self.ornate,
            mlp_bias: self.ornate,
            head_norms: self.ornate,
            tied: self.tied,
            stop_ids: vec![0],
            defaults: SamplingDefaults::default(),
        }
    }
}

impl Toy {
    /// Builds a language model whose only end token is token 0. Fails where the options describe none.
    pub fn decoder(options: &DecoderOptions) -> Result<Self, LowerError> {
        let lower_options = LowerOptions {
            blocks_per_layer: options.blocks_per_layer,
            expand_from_rows: options.expand_from_rows,
            int8_group: 8,
            activations: ActivationWidths::all(options.activation_bits),
            kv_dtype: Some(options.kv_dtype),
            ..LowerOptions::new("toy", options.arithmetic)
        };
        let mut source = RandomTensors { random: Random::new(options.seed), dtype: options.dtype };
        let tokenizer = tensor_commitment(b"toy tokenizer");
        let lowered = lower_decoder(&options.shape(), &lower_options, tokenizer, None, &mut source)?;
        Ok(Self { model: lowered.manifest.validate()?, weights: lowered.weights })
    }

    /// Seeded random token ids.
    pub fn tokens(&self, seed: u64, count: u32) -> Vec<u32> {
        let mut random = Random::new(seed);
        let vocabulary = u64::from(self.model.manifest().vocabulary);
        (0..count).map(|_| (random.next() % vocabulary) as u32).collect()
    }

    /// `count` tokens that the model draws after a prompt, one run of the whole sequence for each. Nothing ends it earlier.
    pub fn generate(
        &self,
        prompt: &[u32],
        sampling: &Sampling,
        count: u32,
    ) -> Result<Vec<u32>, ReferenceError> {
        let mut answer = Vec::new();
        for _ in 0..count {
            // The last token of an answer is no input: any will do.
            answer.push(0);
            let job = JobInput::generation(prompt, &answer, sampling.clone())?;
            let trace = reference::run(&self.model, &self.weights, &job)?;
            let drawn = trace.answer().last_chunk().copied().map(u32::from_le_bytes);
            answer.pop();
            answer.extend(drawn);
        }
        Ok(answer)
    }
}
