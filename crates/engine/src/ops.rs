//! The operators as candle's custom ops: tensors in, tensors out, kernels in between.
//!
//! An op's weights live in the op, prepared once; what changes from batch to batch (where sequences begin, what is
//! fused) is put around them for one call. On a device other than the CPU candle refuses them, naming the op.

mod carrier;
mod linear;
mod rowwise;
mod sequence;

use std::sync::Arc;

use candle_core::{Result, Tensor};

use crate::batch::Batch;
use crate::kernels::{Heads, Kernels, LinearWeights};

pub(crate) use carrier::{from_floats, from_indices, read_floats};
pub(crate) use linear::Follow;
pub(crate) use rowwise::Table;

/// One operator with its weights, or a linear map fused with what follows it. Inputs are tensors only.
pub(crate) enum Operator {
    /// Input: indices.
    Gather(Table),
    /// Inputs: a, b.
    Add,
    /// Inputs: x, and for [`Follow::Add`] the other summand.
    Linear(Arc<LinearWeights>, Follow),
    /// Input: x.
    LayerNorm { weight: Vec<f32>, bias: Vec<f32>, eps: f32 },
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
    pub(crate) fn run(&self, kernels: Kernels, batch: &Batch, inputs: &[&Tensor]) -> Result<Tensor> {
        match (self, inputs) {
            (Self::Gather(table), [indices]) => indices.apply_op1_no_bwd(table),
            (Self::Add, [a, b]) => a.apply_op2_no_bwd(b, &rowwise::Add { kernels }),
            (Self::Linear(weights, follow), [x]) => {
                x.apply_op1_no_bwd(&linear::Linear { kernels, weights, follow: *follow })
            }
            (Self::Linear(weights, Follow::Add), [x, other]) => {
                x.apply_op2_no_bwd(other, &linear::LinearAdd { kernels, weights })
            }
            (Self::LayerNorm { weight, bias, eps }, [x]) => {
                x.apply_op1_no_bwd(&rowwise::LayerNorm { kernels, weight, bias, eps: *eps })
            }
            (Self::Gelu, [x]) => x.apply_op1_no_bwd(&rowwise::Gelu { kernels }),
            (Self::Attention(heads), [q, k, v]) => {
                let attention = sequence::Attention { kernels, heads: *heads, sequences: batch.sequences() };
                q.apply_op3_no_bwd(k, v, &attention)
            }
            (Self::MeanPool, [x]) => {
                x.apply_op1_no_bwd(&sequence::MeanPool { kernels, sequences: batch.sequences() })
            }
            (Self::Normalize, [x]) => x.apply_op1_no_bwd(&rowwise::Normalize { kernels }),
            _ => unreachable!("a validated program gives every op the inputs that it takes"),
        }
    }
}
