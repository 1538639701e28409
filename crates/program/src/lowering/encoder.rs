//! The program of a BERT encoder, whatever its tensors come from.
//!
//! Layer 0 looks up and adds the embeddings, in the order `(word + type) + position`, and normalizes. The blocks
//! follow, `blocks_per_layer` to a layer. The last layer pools and normalizes.

use gainsay_arithmetic::int8::{self, ActivationBits};
use gainsay_commitment::{TensorCommitment, tensor::tensor_commitment};

use super::{AppliedTransform, LowerError, LowerOptions, Lowered, Transform};
use crate::{
    ArithmeticProfile, Dtype, JobField, Layer, LinearKind, Manifest, Op, OpKind, Operand, Program,
    TensorSpec, weights,
};

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

/// A tensor before lowering: floats.
pub(crate) struct SourceTensor {
    pub(crate) dtype: Dtype,
    pub(crate) bytes: Vec<u8>,
}

/// Where tensors come from.
pub(crate) trait TensorSource {
    /// The float tensor of this name and shape, row-major and little-endian.
    fn load(&mut self, name: &str, shape: &[u32]) -> Result<SourceTensor, LowerError>;
}

/// Builds and validates the manifest of an encoder.
pub(crate) fn lower_encoder(
    shape: &EncoderShape,
    options: &LowerOptions,
    tokenizer: TensorCommitment,
    source: &mut dyn TensorSource,
) -> Result<Lowered, LowerError> {
    let mut tensors =
        Tensors { options, source, specs: Vec::new(), weights: Vec::new(), transforms: Vec::new() };
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
    Ok(Lowered { manifest, weights, transforms })
}

/// The ops of a layer under construction.
#[derive(Default)]
struct Ops {
    ops: Vec<Op>,
}

impl Ops {
    /// Appends an op and returns the operand that names its output.
    fn push(&mut self, kind: OpKind, inputs: Vec<Operand>) -> Operand {
        self.ops.push(Op { kind, inputs });
        Operand::Op(self.ops.len() as u32 - 1)
    }

    fn into_layer(self) -> Layer {
        Layer { ops: self.ops }
    }
}

/// The manifest's tensors under construction.
struct Tensors<'a> {
    options: &'a LowerOptions,
    source: &'a mut dyn TensorSource,
    specs: Vec<TensorSpec>,
    weights: Vec<Vec<u8>>,
    transforms: Vec<AppliedTransform>,
}

impl Tensors<'_> {
    /// A matrix as it is in the source, under the storing rule.
    fn matrix(&mut self, name: &str, rows: u32, width: u32) -> Result<Operand, LowerError> {
        let SourceTensor { dtype, mut bytes } = self.source.load(name, &[rows, width])?;
        self.store(name, dtype, &mut bytes);
        Ok(self.push(name, dtype, (rows, width), bytes))
    }

    /// A vector, widened to f32, under the storing rule.
    fn vector(&mut self, name: &str, width: u32) -> Result<Operand, LowerError> {
        let SourceTensor { dtype, bytes } = self.source.load(name, &[width])?;
        if dtype != Dtype::F32 {
            self.note(name, Transform::Widened { from: dtype });
        }
        let mut bytes: Vec<u8> =
            weights::widen(dtype, &bytes).into_iter().flat_map(f32::to_le_bytes).collect();
        self.store(name, Dtype::F32, &mut bytes);
        Ok(self.push(name, Dtype::F32, (1, width), bytes))
    }

    /// A linear map of `x` with its bias, from K columns to `outputs`.
    fn linear(
        &mut self,
        name: &str,
        x: Operand,
        (outputs, k): (u32, u32),
        activation_bits: ActivationBits,
        ops: &mut Ops,
    ) -> Result<Operand, LowerError> {
        let (matrix, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let (kind, mut inputs) = match self.options.arithmetic {
            ArithmeticProfile::ExactF32V1 => (LinearKind::F32, vec![x, self.matrix(&matrix, outputs, k)?]),
            ArithmeticProfile::ExactInt8V1 => {
                let group = self.group_of(k);
                let kind = LinearKind::Int8 { group, activation_bits };
                let [levels, scales] = self.quantized(&matrix, outputs, k, group)?;
                (kind, vec![x, levels, scales])
            }
        };
        inputs.push(self.vector(&bias, outputs)?);
        Ok(ops.push(OpKind::Linear(kind), inputs))
    }

    /// The wanted group where it divides K, else all of K.
    fn group_of(&self, k: u32) -> u32 {
        let wanted = self.options.int8_group;
        if wanted > 0 && k.is_multiple_of(wanted) { wanted } else { k }
    }

    /// A matrix as int8, and its scales.
    fn quantized(&mut self, name: &str, rows: u32, k: u32, group: u32) -> Result<[Operand; 2], LowerError> {
        let SourceTensor { dtype, bytes } = self.source.load(name, &[rows, k])?;
        let mut levels = vec![0; group as usize];
        let (mut quantized, mut scales) = (Vec::with_capacity(bytes.len()), Vec::new());
        // K is a multiple of the group, so no group runs over the end of a row.
        for values in weights::widen(dtype, &bytes).chunks_exact(group as usize) {
            let scale = int8::quantize_group(values, &mut levels);
            quantized.extend(levels.iter().map(|level| level.cast_unsigned()));
            scales.extend_from_slice(&scale.to_le_bytes());
        }
        self.note(name, Transform::Quantized { group });
        Ok([
            self.push(name, Dtype::I8, (rows, k), quantized),
            self.push(&format!("{name}.scales"), Dtype::F32, (rows, k / group), scales),
        ])
    }

    fn store(&mut self, name: &str, dtype: Dtype, bytes: &mut [u8]) {
        let elements = weights::store(dtype, bytes);
        if elements > 0 {
            self.note(name, Transform::Stored { elements });
        }
    }

    fn note(&mut self, tensor: &str, transform: Transform) {
        self.transforms.push(AppliedTransform { tensor: tensor.to_owned(), transform });
    }

    fn push(&mut self, name: &str, dtype: Dtype, (rows, width): (u32, u32), bytes: Vec<u8>) -> Operand {
        let commitment = tensor_commitment(&bytes);
        self.specs.push(TensorSpec { name: name.to_owned(), dtype, rows, width, commitment });
        self.weights.push(bytes);
        Operand::Weight(self.specs.len() as u32 - 1)
    }
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
    let query = tensors.linear(&name("attention.self.query"), x, (hidden, hidden), bits.attention, ops)?;
    let key = tensors.linear(&name("attention.self.key"), x, (hidden, hidden), bits.attention, ops)?;
    let value = tensors.linear(&name("attention.self.value"), x, (hidden, hidden), bits.attention, ops)?;
    let head_dim = hidden / heads;
    let scale = (1.0 / f64::from(head_dim).sqrt()) as f32;
    let attention = OpKind::Attention { heads, kv_heads: heads, head_dim, scale, causal: false };
    let attended = ops.push(attention, vec![query, key, value]);
    let mixed =
        tensors.linear(&name("attention.output.dense"), attended, (hidden, hidden), bits.projection, ops)?;
    let residual = ops.push(OpKind::Add, vec![mixed, x]);
    let x = layer_norm(shape, &name("attention.output.LayerNorm"), residual, ops, tensors)?;

    let raised = tensors.linear(&name("intermediate.dense"), x, (intermediate, hidden), bits.up, ops)?;
    let activated = ops.push(OpKind::Gelu, vec![raised]);
    let lowered = tensors.linear(&name("output.dense"), activated, (hidden, intermediate), bits.down, ops)?;
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
