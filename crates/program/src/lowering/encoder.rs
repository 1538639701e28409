//! The program of a BERT encoder, whatever its tensors come from.
//!
//! Layer 0 looks up and adds the embeddings, in the order `(word + type) + position`, and normalizes. The blocks
//! follow, `blocks_per_layer` to a layer. The last layer pools and normalizes.

use gainsay_commitment::TensorCommitment;

use super::tensors::{Ops, TensorSource, Tensors};
use super::{LowerError, LowerOptions, Lowered};
use crate::{JobField, Layer, Manifest, OpKind, Operand, Program};

/// The numbers that a BERT encoder is determined by.
#[derive(Clone, Debug)]
pub(crate) struct EncoderShape {
    pub(crate) hidden: u32,
    pub(crate) heads: u32,
    pub(crate) intermediate: u32,
    pub(crate) blocks: u32,
    pub(crate) vocabulary: u32,
    pub(crate) positions: u32,
    pub(crate) types: u32,
    pub(crate) eps: f32,
    pub(crate) normalize: bool,
}

/// Builds and validates the manifest of an encoder.
pub(crate) fn lower_encoder(
    shape: &EncoderShape,
    options: &LowerOptions,
    tokenizer: TensorCommitment,
    source: &mut dyn TensorSource,
) -> Result<Lowered, LowerError> {
    if options.kv_dtype.is_some() {
        return Err(LowerError::OfLanguageModels("the type of keys and values"));
    }
    if options.max_sequence.is_some() {
        return Err(LowerError::OfLanguageModels("the longest sequence"));
    }
    let mut tensors = Tensors::new(options, source);
    let mut layers = vec![embedding_layer(shape, &mut tensors)?];
    let blocks_per_layer = options.blocks_per_layer.max(1);
    for first in (0..shape.blocks).step_by(blocks_per_layer as usize) {
        let mut ops = Ops::default();
        let mut x = Operand::LayerInput;
        for block in first..first.saturating_add(blocks_per_layer).min(shape.blocks) {
            x = encoder_block(shape, block, x, &mut ops, &mut tensors)?;
        }
        layers.push(ops.into_layer());
    }
    layers.push(pooling_layer(shape.normalize));
    let Tensors { specs, weights, transforms, .. } = tensors;
    let manifest = Manifest {
        name: options.name.clone(),
        arithmetic: options.arithmetic,
        tokenizer,
        vocabulary: shape.vocabulary,
        max_sequence: shape.positions,
        expand_from_rows: options.expand_from_rows,
        blocks_per_layer: options.blocks_per_layer,
        generation: None,
        tensors: specs,
        program: Program { layers },
    };
    let manifest = manifest.validate()?.manifest().clone();
    Ok(Lowered { manifest, weights, transforms, template: None, cut_from: None })
}

fn embedding_layer(shape: &EncoderShape, tensors: &mut Tensors<'_>) -> Result<Layer, LowerError> {
    let mut ops = Ops::default();
    let mut look_up = |field, table: &str, rows| -> Result<Operand, LowerError> {
        let table = tensors.matrix(&format!("embeddings.{table}_embeddings.weight"), rows, shape.hidden)?;
        Ok(ops.push(OpKind::Gather, vec![Operand::Job(field), table]))
    };
    let words = look_up(JobField::Ids, "word", shape.vocabulary)?;
    let positions = look_up(JobField::Positions, "position", shape.positions)?;
    let types = look_up(JobField::TypeIds, "token_type", shape.types)?;
    let words_and_types = ops.push(OpKind::Add, vec![words, types]);
    let all = ops.push(OpKind::Add, vec![words_and_types, positions]);
    layer_norm(shape, "embeddings.LayerNorm", all, &mut ops, tensors)?;
    Ok(ops.into_layer())
}

/// One transformer block on `x`; returns its output.
fn encoder_block(
    shape: &EncoderShape,
    block: u32,
    x: Operand,
    ops: &mut Ops,
    tensors: &mut Tensors<'_>,
) -> Result<Operand, LowerError> {
    let name = |part: &str| format!("encoder.layer.{block}.{part}");
    let EncoderShape { hidden, heads, intermediate, .. } = *shape;
    let bits = tensors.options.activations;
    let query =
        tensors.linear(&name("attention.self.query"), x, (hidden, hidden), bits.attention, true, ops)?;
    let key = tensors.linear(&name("attention.self.key"), x, (hidden, hidden), bits.attention, true, ops)?;
    let value =
        tensors.linear(&name("attention.self.value"), x, (hidden, hidden), bits.attention, true, ops)?;
    let head_dim = hidden / heads;
    let scale = (1.0 / f64::from(head_dim).sqrt()) as f32;
    let attention = OpKind::Attention { heads, kv_heads: heads, head_dim, scale, causal: false };
    let attended = ops.push(attention, vec![query, key, value]);
    let mixed = tensors.linear(
        &name("attention.output.dense"),
        attended,
        (hidden, hidden),
        bits.projection,
        true,
        ops,
    )?;
    let residual = ops.push(OpKind::Add, vec![mixed, x]);
    let x = layer_norm(shape, &name("attention.output.LayerNorm"), residual, ops, tensors)?;

    let raised =
        tensors.linear(&name("intermediate.dense"), x, (intermediate, hidden), bits.up, true, ops)?;
    let activated = ops.push(OpKind::Gelu, vec![raised]);
    let lowered =
        tensors.linear(&name("output.dense"), activated, (hidden, intermediate), bits.down, true, ops)?;
    let residual = ops.push(OpKind::Add, vec![lowered, x]);
    layer_norm(shape, &name("output.LayerNorm"), residual, ops, tensors)
}

fn layer_norm(
    shape: &EncoderShape,
    name: &str,
    x: Operand,
    ops: &mut Ops,
    tensors: &mut Tensors<'_>,
) -> Result<Operand, LowerError> {
    let weight = tensors.vector(&format!("{name}.weight"), shape.hidden)?;
    let bias = tensors.vector(&format!("{name}.bias"), shape.hidden)?;
    Ok(ops.push(OpKind::LayerNorm { eps: shape.eps }, vec![x, weight, bias]))
}

fn pooling_layer(normalize: bool) -> Layer {
    let mut ops = Ops::default();
    let pooled = ops.push(OpKind::MeanPool, vec![Operand::LayerInput]);
    if normalize {
        ops.push(OpKind::Normalize, vec![pooled]);
    }
    ops.into_layer()
}
