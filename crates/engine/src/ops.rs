//! The operators as candle's custom ops: tensors in, tensors out, kernels in between.
//!
//! An op's weights live in the op, prepared once; what changes from batch to batch (where sequences begin, what is
//! fused) is put around them for one call. On a device other than the CPU candle refuses them, naming the op.

mod carrier;
mod linear;
mod linear_int8;
mod rowwise;
mod sequence;
mod value;

use std::sync::Arc;

use candle_core::Result;

use crate::batch::Batch;
use crate::kernels::{Heads, Int8Weights, Kernels, LinearWeights};

pub(crate) use carrier::{from_floats, from_indices, read_floats};
pub(crate) use linear::Follow;
pub(crate) use rowwise::Table;
pub(crate) use value::Value;

/// One operator with its weights, or a linear map fused with what follows it. Inputs are tensors only.
pub(crate) enum Operator {
    /// Input: indices.
    Gather(Table),
    /// Inputs: a, b.
    Add,
    /// Inputs: x, and for [`Follow::Add`] the other summand.
    Linear(Arc<LinearWeights>, Follow),
    /// As `Linear`, in int8.
    LinearInt8(Arc<Int8Weights>, Follow),
    /// Input: x.
    LayerNorm { weight: Arc<[f32]>, bias: Arc<[f32]>, eps: f32 },
    /// Input: x.
    Gelu,
    /// Inputs: q, k, v.
    Attention(Heads),
    /// Input: x.
    MeanPool,
    /// Input: x.
    Normalize,
}

impl Operator {
    /// Computes the stored output.
    pub(crate) fn run(&self, kernels: Kernels, batch: &Batch, inputs: &[&Value]) -> Result<Value> {
        let output = match (self, inputs) {
            (Self::Gather(table), [indices]) => indices.tensor().apply_op1_no_bwd(table),
            (Self::Add, [a, b]) => a.tensor().apply_op2_no_bwd(b.tensor(), &rowwise::Add { kernels }),
            (Self::Linear(weights, follow), [x]) => {
                x.tensor().apply_op1_no_bwd(&linear::Linear { kernels, weights, follow: *follow })
            }
            (Self::Linear(weights, Follow::Add), [x, other]) => {
                x.tensor().apply_op2_no_bwd(other.tensor(), &linear::LinearAdd { kernels, weights })
            }
            (Self::LinearInt8(weights, follow), [x]) => {
                let levels = &x.levels(kernels, weights.quantization())?;
                let map = linear_int8::LinearInt8 { kernels, weights, levels, follow: *follow };
                x.tensor().apply_op1_no_bwd(&map)
            }
            (Self::LinearInt8(weights, Follow::Add), [x, other]) => {
                let levels = &x.levels(kernels, weights.quantization())?;
                let map = linear_int8::LinearInt8Add { kernels, weights, levels };
                x.tensor().apply_op2_no_bwd(other.tensor(), &map)
            }
            (Self::LayerNorm { weight, bias, eps }, [x]) => {
                x.tensor().apply_op1_no_bwd(&rowwise::LayerNorm { kernels, weight, bias, eps: *eps })
            }
            (Self::Gelu, [x]) => x.tensor().apply_op1_no_bwd(&rowwise::Gelu { kernels }),
            (Self::Attention(heads), [q, k, v]) => {
                let attention = sequence::Attention { kernels, heads: *heads, sequences: batch.sequences() };
                q.tensor().apply_op3_no_bwd(k.tensor(), v.tensor(), &attention)
            }
            (Self::MeanPool, [x]) => {
                x.tensor().apply_op1_no_bwd(&sequence::MeanPool { kernels, sequences: batch.sequences() })
            }
            (Self::Normalize, [x]) => x.tensor().apply_op1_no_bwd(&rowwise::Normalize { kernels }),
            _ => unreachable!("a validated program gives every op the inputs that it takes"),
        };
        output.map(Value::new)
    }
}
