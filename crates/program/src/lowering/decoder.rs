//! The program of a language model of the Llama family, whatever its tensors come from.
//!
//! Layer 0 looks up the embeddings. The blocks follow, `blocks_per_layer` to a layer. The last layer takes the rows of
//! the answer, normalizes them, and draws a token from each row of logits.

use gainsay_commitment::TensorCommitment;

use super::rope::Rope;
use super::tensors::{Ops, TensorSource, Tensors};
use super::{LowerError, LowerOptions, Lowered};
use crate::{
    Dtype, GenerationSpec, JobField, KvDtype, Layer, Manifest, ManifestError, OpKind, Operand, Program,
    SamplingDefaults, ValidatedModel, weights,
};

/// The numbers that a model of the family is determined by.
#[derive(Clone, Debug)]
pub(crate) struct DecoderShape {
    pub(crate) hidden: u32,
    pub(crate) heads: u32,
    pub(crate) kv_heads: u32,
    pub(crate) head_dim: u32,
    pub(crate) intermediate: u32,
    pub(crate) blocks: u32,
    pub(crate) vocabulary: u32,
    /// Tokens of the longest sequence.
    pub(crate) positions: u32,
    pub(crate) eps: f32,
    pub(crate) rope: Rope,
    /// Whether queries, keys and values have biases.
    pub(crate) qkv_bias: bool,
    /// Whether the projection after attention has one.
    pub(crate) projection_bias: bool,
    /// Whether the linears of the feed-forward part have them.
    pub(crate) mlp_bias: bool,
    /// Whether each head of queries and keys is normalized.
    pub(crate) head_norms: bool,
    /// Whether the head's matrix is that of the embeddings.
    pub(crate) tied: bool,
    /// Tokens that end an answer, ascending.
    pub(crate) stop_ids: Vec<u32>,
    /// How answers are drawn where a request does not say.
    pub(crate) defaults: SamplingDefaults,
}

/// Builds and validates the manifest of a language model. Its longest sequence is cut to what a party may be asked to hold in
/// memory.
pub(crate) fn lower_decoder(
    shape: &DecoderShape,
    options: &LowerOptions,
    tokenizer: TensorCommitment,
    template: Option<TensorCommitment>,
    source: &mut dyn TensorSource,
) -> Result<Lowered, LowerError> {
    let mut tensors = Tensors::new(options, source);
    let table = tensors.matrix("model.embed_tokens.weight", shape.vocabulary, shape.hidden)?;
    let rope = rope_tables(shape, &mut tensors);
    let mut layers = vec![embedding_layer(table)];
    let blocks_per_layer = options.blocks_per_layer.max(1);
    for first in (0..shape.blocks).step_by(blocks_per_layer as usize) {
        let mut ops = Ops::default();
        let mut x = Operand::LayerInput;
        for block in first..first.saturating_add(blocks_per_layer).min(shape.blocks) {
            x = decoder_block(shape, block, x, rope, &mut ops, &mut tensors)?;
        }
        layers.push(ops.into_layer());
    }
    layers.push(answer_layer(shape, table, &mut tensors)?);
    let Tensors { specs, weights, transforms, .. } = tensors;
    let generation = GenerationSpec {
        stop_ids: shape.stop_ids.clone(),
        kv_dtype: options.kv_dtype.unwrap_or(KvDtype::Bf16),
        template,
        defaults: shape.defaults.clone(),
    };
    let manifest = Manifest {
        name: options.name.clone(),
        arithmetic: options.arithmetic,
        tokenizer,
        vocabulary: shape.vocabulary,
        max_sequence: shape.positions,
        expand_from_rows: options.expand_from_rows,
        blocks_per_layer: options.blocks_per_layer,
        generation: Some(generation),
        tensors: specs,
        program: Program { layers },
    };
    let manifest = within_memory(manifest)?.manifest().clone();
    let cut_from = (manifest.max_sequence < shape.positions).then_some(shape.positions);
    Ok(Lowered { manifest, weights, transforms, template: None, cut_from })
}

/// The manifest with its longest sequence cut to what the limit on memory allows.
fn within_memory(mut manifest: Manifest) -> Result<ValidatedModel, ManifestError> {
    loop {
        match manifest.clone().validate() {
            Err(ManifestError::SequenceMemory { bytes }) if manifest.max_sequence > 1 => {
                // The memory is in proportion to the rows, but for what does not depend on them.
                let fits =
                    u64::from(manifest.max_sequence).saturating_mul(crate::MAX_SEQUENCE_MEMORY) / bytes;
                manifest.max_sequence = (fits as u32).clamp(1, manifest.max_sequence - 1);
            }
            validated => return validated,
        }
    }
}

/// Cosines and sines as weights.
fn rope_tables(shape: &DecoderShape, tensors: &mut Tensors<'_>) -> [Operand; 2] {
    let tables = shape.rope.tables(shape.positions, shape.head_dim);
    let mut push = |name: &str, table: Vec<f32>| {
        let mut bytes: Vec<u8> = table.into_iter().flat_map(f32::to_le_bytes).collect();
        weights::store(Dtype::F32, &mut bytes);
        tensors.push(name, Dtype::F32, (shape.positions, shape.head_dim / 2), bytes)
    };
    [push("rope.cos", tables.cos), push("rope.sin", tables.sin)]
}

fn embedding_layer(table: Operand) -> Layer {
    let mut ops = Ops::default();
    ops.push(OpKind::Gather, vec![Operand::Job(JobField::Ids), table]);
    ops.into_layer()
}

/// One transformer block on `x`; returns its output.
fn decoder_block(
    shape: &DecoderShape,
    block: u32,
    x: Operand,
    rope: [Operand; 2],
    ops: &mut Ops,
    tensors: &mut Tensors<'_>,
) -> Result<Operand, LowerError> {
    let name = |part: &str| format!("model.layers.{block}.{part}");
    let bits = tensors.options.activations;
    let DecoderShape { hidden, heads, head_dim, intermediate, .. } = *shape;

    let normalized = rms_norm(shape, &name("input_layernorm.weight"), x, hidden, ops, tensors)?;
    let attended = attention(shape, block, normalized, rope, ops, tensors)?;
    let from_heads = (hidden, heads * head_dim);
    let projection = name("self_attn.o_proj");
    let has_bias = shape.projection_bias;
    let mixed = tensors.linear(&projection, attended, from_heads, bits.projection, has_bias, ops)?;
    let x = ops.push(OpKind::Add, vec![mixed, x]);

    let normalized = rms_norm(shape, &name("post_attention_layernorm.weight"), x, hidden, ops, tensors)?;
    let (up, has_bias) = ((intermediate, hidden), shape.mlp_bias);
    let gate = tensors.linear(&name("mlp.gate_proj"), normalized, up, bits.up, has_bias, ops)?;
    let raised = tensors.linear(&name("mlp.up_proj"), normalized, up, bits.up, has_bias, ops)?;
    let gate = ops.push(OpKind::Silu, vec![gate]);
    let gated = ops.push(OpKind::Mul, vec![gate, raised]);
    let down = (hidden, intermediate);
    let lowered = tensors.linear(&name("mlp.down_proj"), gated, down, bits.down, has_bias, ops)?;
    Ok(ops.push(OpKind::Add, vec![lowered, x]))
}

/// Queries, keys and values of `x`, and what attention makes of them.
fn attention(
    shape: &DecoderShape,
    block: u32,
    x: Operand,
    rope: [Operand; 2],
    ops: &mut Ops,
    tensors: &mut Tensors<'_>,
) -> Result<Operand, LowerError> {
    let DecoderShape { hidden, heads, kv_heads, head_dim, .. } = *shape;
    let bits = tensors.options.activations.attention;
    let name = |part: &str| format!("model.layers.{block}.self_attn.{part}");
    let mut part = |part: &str, heads: u32, ops: &mut Ops| {
        tensors.linear(&name(part), x, (heads * head_dim, hidden), bits, shape.qkv_bias, ops)
    };
    let mut query = part("q_proj", heads, ops)?;
    let mut key = part("k_proj", kv_heads, ops)?;
    let mut value = part("v_proj", kv_heads, ops)?;
    if shape.head_norms {
        query = rms_norm(shape, &name("q_norm.weight"), query, head_dim, ops, tensors)?;
        key = rms_norm(shape, &name("k_norm.weight"), key, head_dim, ops, tensors)?;
    }
    let [cos, sin] = rope;
    query = ops.push(OpKind::Rope { heads, head_dim }, vec![query, cos, sin]);
    key = ops.push(OpKind::Rope { heads: kv_heads, head_dim }, vec![key, cos, sin]);
    if tensors.options.kv_dtype != Some(KvDtype::F32) {
        key = ops.push(OpKind::CastBf16, vec![key]);
        value = ops.push(OpKind::CastBf16, vec![value]);
    }
    let scale = (1.0 / f64::from(head_dim).sqrt()) as f32;
    let kind = OpKind::Attention { heads, kv_heads, head_dim, scale, causal: true };
    Ok(ops.push(kind, vec![query, key, value]))
}

fn rms_norm(
    shape: &DecoderShape,
    name: &str,
    x: Operand,
    group: u32,
    ops: &mut Ops,
    tensors: &mut Tensors<'_>,
) -> Result<Operand, LowerError> {
    let weight = tensors.vector(name, group)?;
    Ok(ops.push(OpKind::RmsNorm { eps: shape.eps, group }, vec![x, weight]))
}

/// From the last block's output to tokens. The head is never quantized: every token depends on all of it.
fn answer_layer(
    shape: &DecoderShape,
    table: Operand,
    tensors: &mut Tensors<'_>,
) -> Result<Layer, LowerError> {
    let mut ops = Ops::default();
    let rows = ops.push(OpKind::SelectRows, vec![Operand::LayerInput]);
    let normalized = rms_norm(shape, "model.norm.weight", rows, shape.hidden, &mut ops, tensors)?;
    let head =
        if shape.tied { table } else { tensors.matrix("lm_head.weight", shape.vocabulary, shape.hidden)? };
    let logits = ops.push(OpKind::Linear(crate::LinearKind::F32), vec![normalized, head]);
    let penalized = ops.push(OpKind::Penalize, vec![logits]);
    ops.push(OpKind::Sample, vec![penalized]);
    Ok(ops.into_layer())
}
