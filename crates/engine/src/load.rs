//! From the bytes of a model's weights to operators that run.

use std::collections::HashMap;
use std::sync::Arc;

use gainsay_program::weights::{check, widen};
use gainsay_program::{ActivationBits, Dtype, LinearKind, Op, OpKind, Operand, TensorSpec, ValidatedModel};

use crate::error::LoadError;
use crate::kernels::{Heads, Int8Matrix, Int8Weights, Kernels, LinearWeights, Quantization};
use crate::ops::{Follow, Operator, Table};
use crate::plan::LayerPlan;

/// Refuses programs with ops that are not executed.
pub(crate) fn check_ops(model: &ValidatedModel) -> Result<(), LoadError> {
    let executed = |kind: &OpKind| match *kind {
        OpKind::Attention { heads, kv_heads, causal, .. } => heads == kv_heads && !causal,
        OpKind::RmsNorm { .. }
        | OpKind::Rope { .. }
        | OpKind::Silu
        | OpKind::Mul
        | OpKind::CastBf16
        | OpKind::SelectRows
        | OpKind::Penalize
        | OpKind::Sample => false,
        _ => true,
    };
    let mut ops = model.manifest().program.layers.iter().flat_map(|layer| &layer.ops);
    match ops.find(|op| !executed(&op.kind)) {
        None => Ok(()),
        Some(op) => Err(LoadError::Unexecuted(op.kind.name())),
    }
}

/// Checks every weight's length, hash and values.
pub(crate) fn check_weights(model: &ValidatedModel, weights: &[Arc<[u8]>]) -> Result<(), LoadError> {
    let specs = &model.manifest().tensors;
    if specs.len() != weights.len() {
        return Err(LoadError::WeightCount { expected: specs.len(), found: weights.len() });
    }
    specs.iter().zip(weights).try_for_each(|(spec, bytes)| Ok(check(spec, bytes)?))
}

/// Plans all layers, packing the weights of linear maps for `kernels`.
pub(crate) fn plan_layers(model: &ValidatedModel, weights: &[Arc<[u8]>], kernels: Kernels) -> Vec<LayerPlan> {
    let mut loader = Loader {
        tensors: &model.manifest().tensors,
        weights,
        kernels,
        packed: HashMap::new(),
        widened: HashMap::new(),
    };
    let layers = model.manifest().program.layers.iter();
    layers.map(|layer| LayerPlan::new(&layer.ops, |op, follow| loader.operator(op, follow))).collect()
}

struct Loader<'a> {
    tensors: &'a [TensorSpec],
    weights: &'a [Arc<[u8]>],
    kernels: Kernels,
    /// What has been packed, by a linear map's kind and the weights that it reads: a map that occurs twice, fused and
    /// on its own, is packed once. Maps of the same weights may differ in the width of their activations.
    packed: HashMap<(LinearKind, Vec<u32>), Packed>,
    /// Tensors that ops read as f32, by index: each is widened once, however many ops read it.
    widened: HashMap<u32, Arc<[f32]>>,
}

/// Weights as the kernels want them.
#[derive(Clone)]
enum Packed {
    Float(Arc<LinearWeights>),
    Int8(Arc<Int8Weights>),
}

impl Loader<'_> {
    fn operator(&mut self, op: &Op, follow: Follow) -> Operator {
        let weights: Vec<u32> = (op.inputs.iter())
            .filter_map(|operand| match operand {
                Operand::Weight(index) => Some(*index),
                _ => None,
            })
            .collect();
        match op.kind {
            OpKind::Gather => Operator::Gather(self.table(weights[0])),
            OpKind::Add => Operator::Add,
            OpKind::Linear(kind) => match self.linear(kind, weights) {
                Packed::Float(weights) => Operator::Linear(weights, follow),
                Packed::Int8(weights) => Operator::LinearInt8(weights, follow),
            },
            OpKind::LayerNorm { eps } => {
                let [weight, bias] = [weights[0], weights[1]].map(|index| self.shared_floats(index));
                Operator::LayerNorm { weight, bias, eps }
            }
            OpKind::Gelu => Operator::Gelu,
            OpKind::Attention { heads, head_dim, scale, .. } => {
                Operator::Attention(Heads { count: heads as usize, width: head_dim as usize, scale })
            }
            OpKind::MeanPool => Operator::MeanPool,
            OpKind::Normalize => Operator::Normalize,
            OpKind::RmsNorm { .. }
            | OpKind::Rope { .. }
            | OpKind::Silu
            | OpKind::Mul
            | OpKind::CastBf16
            | OpKind::SelectRows
            | OpKind::Penalize
            | OpKind::Sample => unreachable!("check_ops refuses programs with this op"),
        }
    }

    fn table(&self, index: u32) -> Table {
        let TensorSpec { dtype, width, .. } = self.tensors[index as usize];
        Table { bytes: Arc::clone(&self.weights[index as usize]), dtype, width: width as usize }
    }

    fn shared_floats(&mut self, index: u32) -> Arc<[f32]> {
        if let Some(floats) = self.widened.get(&index) {
            return Arc::clone(floats);
        }
        let floats: Arc<[f32]> = self.floats(index).into();
        self.widened.insert(index, Arc::clone(&floats));
        floats
    }

    fn floats(&self, index: u32) -> Vec<f32> {
        widen(self.tensors[index as usize].dtype, &self.weights[index as usize])
    }

    fn linear(&mut self, kind: LinearKind, weights: Vec<u32>) -> Packed {
        let key = (kind, weights);
        if let Some(packed) = self.packed.get(&key) {
            return packed.clone();
        }
        let weights = &key.1;
        let packed = match kind {
            LinearKind::F32 => Packed::Float(Arc::new(self.pack_f32(weights))),
            LinearKind::Int8 { group, activation_bits } => {
                Packed::Int8(Arc::new(self.pack_int8(weights, group as usize, activation_bits)))
            }
        };
        self.packed.insert(key, packed.clone());
        packed
    }

    fn pack_f32(&self, weights: &[u32]) -> LinearWeights {
        let depth = self.tensors[weights[0] as usize].width as usize;
        let bias = weights.get(1).map_or_else(Vec::new, |&bias| self.floats(bias));
        self.kernels.pack(self.floats(weights[0]), depth, bias)
    }

    fn pack_int8(&self, weights: &[u32], group: usize, bits: ActivationBits) -> Int8Weights {
        let spec = &self.tensors[weights[0] as usize];
        assert_eq!(spec.dtype, Dtype::I8, "validation gives an int8 linear an i8 matrix");
        let matrix = Int8Matrix {
            weights: self.weights[weights[0] as usize].iter().map(|byte| byte.cast_signed()).collect(),
            scales: self.floats(weights[1]),
            quantization: Quantization { depth: spec.width as usize, group, bits },
        };
        let bias = weights.get(2).map_or_else(Vec::new, |&bias| self.floats(bias));
        self.kernels.pack_int8(matrix, bias)
    }
}
