//! From the bytes of a model's weights to operators that run.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use candle_core::Result;
use gainsay_program::weights::{check, widen};
use gainsay_program::{
    ActivationBits, Dtype, KvDtype, LinearKind, Op, OpKind, Operand, TensorSpec, ValidatedModel,
};

use crate::error::LoadError;
use crate::kernels::{
    Binary, Heads, Int8Matrix, Int8Weights, KvLayout, KvPlace, KvType, LinearWeights, Quantization, Unary,
};
use crate::machine::Machine;
use crate::ops::{Follow, Operator, Stored, Table};
use crate::plan::LayerPlan;

/// Gives the bytes of a weight.
pub(crate) type Read<'a> = dyn Fn(usize) -> std::io::Result<Arc<[u8]>> + Sync + 'a;

/// A program ready to run.
pub(crate) struct Plans {
    /// Its layers.
    pub(crate) layers: Vec<LayerPlan>,
    /// Where its causal attentions keep keys and values.
    pub(crate) layout: KvLayout,
}

/// Plans all layers, packing the weights of linear maps for the machine. Every weight's length, hash and values are checked
/// as it is read, those that no op reads too.
pub(crate) fn plan_layers(
    model: &ValidatedModel,
    read: &Read<'_>,
    machine: &Machine,
) -> std::result::Result<Plans, LoadError> {
    let mut loader = Loader {
        tensors: &model.manifest().tensors,
        read,
        at_hand: HashMap::new(),
        seen: HashSet::new(),
        machine,
        packed: HashMap::new(),
        widened: HashMap::new(),
    };
    let mut layout = KvLayout::new(machine.kernels().kv_panel());
    let mut layers = Vec::new();
    for layer in &model.manifest().program.layers {
        loader.fetch(layer.ops.iter().flat_map(weights_of))?;
        let places: Vec<Option<KvPlace>> = layer.ops.iter().map(|op| kv_place(op, &mut layout)).collect();
        let plan =
            LayerPlan::new(&layer.ops, |op, follow| loader.operator(&layer.ops[op], follow, places[op]));
        layers.push(plan.map_err(LoadError::Upload)?);
        loader.at_hand.clear();
    }
    for index in (0..).take(loader.tensors.len()) {
        if !loader.seen.contains(&index) {
            loader.fetch([index].into_iter())?;
            loader.at_hand.clear();
        }
    }
    Ok(Plans { layers, layout })
}

/// The weights that an op reads.
fn weights_of(op: &Op) -> impl Iterator<Item = u32> {
    op.inputs.iter().filter_map(|operand| match operand {
        Operand::Weight(index) => Some(*index),
        _ => None,
    })
}

fn kv_place(op: &Op, layout: &mut KvLayout) -> Option<KvPlace> {
    match op.kind {
        OpKind::Attention { kv_heads, head_dim, causal: true, .. } => {
            Some(layout.add(kv_heads as usize, head_dim as usize))
        }
        _ => None,
    }
}

/// Whether every op looks back only, so that rows may be computed as they come.
pub(crate) fn is_incremental(model: &ValidatedModel) -> bool {
    let mut ops = model.manifest().program.layers.iter().flat_map(|layer| &layer.ops);
    !ops.any(|op| matches!(op.kind, OpKind::Attention { causal: false, .. } | OpKind::MeanPool))
}

/// How the keys and values of the program may be kept. A validated program rounds them as its manifest says.
pub(crate) fn kv_type(model: &ValidatedModel) -> KvType {
    match model.manifest().generation.as_ref().map(|generation| generation.kv_dtype) {
        Some(KvDtype::Bf16) => KvType::Bf16,
        Some(KvDtype::F32) | None => KvType::F32,
    }
}

struct Loader<'a> {
    tensors: &'a [TensorSpec],
    read: &'a Read<'a>,
    /// The weights of the layer that is packed.
    at_hand: HashMap<u32, Arc<[u8]>>,
    /// Those that were checked.
    seen: HashSet<u32>,
    machine: &'a Machine,
    /// What has been packed, by a linear map's kind and the weights that it reads: a map that occurs twice, fused and
    /// on its own, is packed once. Maps of the same weights may differ in the width of their activations.
    packed: HashMap<(LinearKind, Vec<u32>), Packed>,
    /// Tensors that ops read as f32, by index: each is widened once, however many ops read it.
    widened: HashMap<u32, Stored<f32>>,
}

/// Weights as the kernels want them.
#[derive(Clone)]
enum Packed {
    Float(Arc<LinearWeights>),
    Int8(Arc<Int8Weights>),
}

impl Loader<'_> {
    /// Reads and checks weights.
    fn fetch(&mut self, indices: impl Iterator<Item = u32>) -> std::result::Result<(), LoadError> {
        for index in indices {
            if !self.at_hand.contains_key(&index) {
                let place = index as usize;
                let bytes = (self.read)(place).map_err(|source| LoadError::Read { index: place, source })?;
                check(&self.tensors[place], &bytes)?;
                self.at_hand.insert(index, bytes);
                self.seen.insert(index);
            }
        }
        Ok(())
    }

    fn bytes(&self, index: u32) -> &Arc<[u8]> {
        self.at_hand.get(&index).expect("a layer's weights are fetched before its ops are planned")
    }

    fn operator(&mut self, op: &Op, follow: Follow, place: Option<KvPlace>) -> Result<Operator> {
        let weights: Vec<u32> = weights_of(op).collect();
        Ok(match op.kind {
            OpKind::Gather => Operator::Gather(self.table(weights[0])?),
            OpKind::Linear(kind) => match self.linear(kind, weights)? {
                Packed::Float(weights) => Operator::Linear(weights, follow),
                Packed::Int8(weights) => Operator::LinearInt8(weights, follow),
            },
            OpKind::LayerNorm { eps } => {
                let (weight, bias) = (self.shared_floats(weights[0])?, self.shared_floats(weights[1])?);
                Operator::LayerNorm { weight, bias, eps }
            }
            OpKind::RmsNorm { eps, .. } => Operator::RmsNorm { weight: self.shared_floats(weights[0])?, eps },
            OpKind::Gelu => Operator::Unary(Unary::Gelu),
            OpKind::Silu => Operator::Unary(Unary::Silu),
            OpKind::CastBf16 => Operator::Unary(Unary::RoundBf16),
            OpKind::Add => Operator::Binary(Binary::Add),
            OpKind::Mul => Operator::Binary(Binary::Mul),
            OpKind::Rope { head_dim, .. } => {
                let (cos, sin) = (self.shared_floats(weights[0])?, self.shared_floats(weights[1])?);
                Operator::Rope { cos, sin, width: head_dim as usize }
            }
            OpKind::Attention { heads, kv_heads, head_dim, scale, .. } => {
                let (count, kv_count) = (heads as usize, kv_heads as usize);
                let heads = Heads { count, kv_count, width: head_dim as usize, scale };
                place.map_or(Operator::Attention(heads), |place| Operator::Causal(heads, place))
            }
            OpKind::SelectRows => Operator::SelectRows,
            OpKind::Penalize => Operator::Penalize,
            OpKind::Sample => Operator::Sample,
            OpKind::MeanPool => Operator::MeanPool,
            OpKind::Normalize => Operator::Normalize,
        })
    }

    fn table(&self, index: u32) -> Result<Table> {
        let TensorSpec { dtype, width, .. } = self.tensors[index as usize];
        let bytes = self.machine.store(Arc::clone(self.bytes(index)))?;
        Ok(Table { bytes, dtype, width: width as usize })
    }

    fn shared_floats(&mut self, index: u32) -> Result<Stored<f32>> {
        if let Some(floats) = self.widened.get(&index) {
            return Ok(floats.clone());
        }
        let floats = self.machine.store(self.floats(index).into())?;
        self.widened.insert(index, floats.clone());
        Ok(floats)
    }

    fn floats(&self, index: u32) -> Vec<f32> {
        widen(self.tensors[index as usize].dtype, self.bytes(index))
    }

    fn linear(&mut self, kind: LinearKind, weights: Vec<u32>) -> Result<Packed> {
        let key = (kind, weights);
        if let Some(packed) = self.packed.get(&key) {
            return Ok(packed.clone());
        }
        let weights = &key.1;
        let packed = match kind {
            LinearKind::F32 => Packed::Float(Arc::new(self.pack_f32(weights)?)),
            LinearKind::Int8 { group, activation_bits } => {
                Packed::Int8(Arc::new(self.pack_int8(weights, group as usize, activation_bits)?))
            }
        };
        self.packed.insert(key, packed.clone());
        Ok(packed)
    }

    fn pack_f32(&self, weights: &[u32]) -> Result<LinearWeights> {
        let TensorSpec { dtype, width, .. } = self.tensors[weights[0] as usize];
        let bias = weights.get(1).map_or_else(Vec::new, |&bias| self.floats(bias));
        self.machine.linear(self.bytes(weights[0]), (dtype, width as usize), bias)
    }

    fn pack_int8(&self, weights: &[u32], group: usize, bits: ActivationBits) -> Result<Int8Weights> {
        let spec = &self.tensors[weights[0] as usize];
        assert_eq!(spec.dtype, Dtype::I8, "validation gives an int8 linear an i8 matrix");
        let matrix = Int8Matrix {
            weights: self.bytes(weights[0]).iter().map(|byte| byte.cast_signed()).collect(),
            scales: self.floats(weights[1]),
            quantization: Quantization { depth: spec.width as usize, group, bits },
        };
        let bias = weights.get(2).map_or_else(Vec::new, |&bias| self.floats(bias));
        self.machine.linear_int8(matrix, bias)
    }
}
