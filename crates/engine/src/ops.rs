//! The operators as candle's custom ops: tensors in, tensors out, kernels in between.
//!
//! An op's weights live in the op, prepared once; what changes from batch to batch (where sequences begin, what is
//! fused) is put around them for one call. What an op does on a CUDA device is in `cuda`.

mod answer;
mod carrier;
mod linear;
mod linear_int8;
mod rowwise;
mod sequence;
mod stored;
mod value;

use std::sync::Arc;

use candle_core::{Result, Tensor};

use crate::batch::Batch;
use crate::kernels::{Binary, Heads, Int8Weights, Kernels, KvCache, KvPlace, LinearWeights, Unary};

pub(crate) use carrier::{RowsWidth, from_floats, from_indices, from_words, read_bytes, read_words};
pub(crate) use linear::Follow;
pub(crate) use rowwise::Table;
pub(crate) use stored::Stored;
pub(crate) use value::Value;

/// One operator with its weights, or a linear map fused with what follows it. Inputs are tensors only.
pub(crate) enum Operator {
    /// Input: indices.
    Gather(Table),
    /// Inputs: a, b.
    Binary(Binary),
    /// Inputs: x, and for [`Follow::Binary`] the other operand.
    Linear(Arc<LinearWeights>, Follow),
    /// As `Linear`, in int8.
    LinearInt8(Arc<Int8Weights>, Follow),
    /// Input: x.
    LayerNorm { weight: Stored<f32>, bias: Stored<f32>, eps: f32 },
    /// Input: x, whose rows are groups of as many columns as there are weights.
    RmsNorm { weight: Stored<f32>, eps: f32 },
    /// Input: x.
    Unary(Unary),
    /// Input: x. The angles are `[positions, width / 2]`.
    Rope { cos: Stored<f32>, sin: Stored<f32>, width: usize },
    /// Inputs: q, k, v.
    Attention(Heads),
    /// Inputs: q, k, v. Keys and values go to the caches first.
    Causal(Heads, KvPlace),
    /// Input: x.
    MeanPool,
    /// Input: x.
    Normalize,
    /// Input: x.
    SelectRows,
    /// Input: logits.
    Penalize,
    /// Input: logits.
    Sample,
}

/// What an operator runs with besides its inputs.
pub(crate) struct Context<'a, 'b> {
    /// The kernels.
    pub(crate) kernels: Kernels,
    /// The batch.
    pub(crate) batch: &'a Batch<'b>,
    /// The caches of the run.
    pub(crate) caches: &'a mut [KvCache],
}

impl Operator {
    /// Computes the stored output.
    pub(crate) fn run(&self, context: Context<'_, '_>, inputs: &[&Value]) -> Result<Value> {
        let Context { kernels, batch, caches } = context;
        let tensors: Vec<&Tensor> = inputs.iter().map(|input| input.tensor()).collect();
        let output = match (self, &tensors[..]) {
            (Self::Gather(table), [indices]) => indices.apply_op1_no_bwd(table),
            (&Self::Binary(formula), [a, b]) => {
                a.apply_op2_no_bwd(b, &rowwise::BinaryEach { kernels, formula })
            }
            (Self::Linear(weights, Follow::Binary(formula)), [x, other]) => {
                x.apply_op2_no_bwd(other, &linear::LinearBinary { kernels, weights, formula: *formula })
            }
            (Self::Linear(weights, follow), [x]) => {
                x.apply_op1_no_bwd(&linear::Linear { kernels, weights, follow: *follow })
            }
            (Self::LinearInt8(weights, Follow::Binary(formula)), [x, other]) => {
                let levels = &inputs[0].levels(kernels, weights.quantization())?;
                let map = linear_int8::LinearInt8Binary { kernels, weights, levels, formula: *formula };
                x.apply_op2_no_bwd(other, &map)
            }
            (Self::LinearInt8(weights, follow), [x]) => {
                let levels = &inputs[0].levels(kernels, weights.quantization())?;
                let map = linear_int8::LinearInt8 { kernels, weights, levels, follow: *follow };
                x.apply_op1_no_bwd(&map)
            }
            (Self::LayerNorm { weight, bias, eps }, [x]) => {
                x.apply_op1_no_bwd(&rowwise::LayerNorm { kernels, weight, bias, eps: *eps })
            }
            (Self::RmsNorm { weight, eps }, [x]) => {
                x.apply_op1_no_bwd(&rowwise::RmsNorm { kernels, weight, eps: *eps })
            }
            (&Self::Unary(formula), [x]) => x.apply_op1_no_bwd(&rowwise::UnaryEach { kernels, formula }),
            (Self::Rope { cos, sin, width }, [x]) => {
                x.apply_op1_no_bwd(&rowwise::Rope { kernels, cos, sin, width: *width, batch })
            }
            (&Self::Attention(heads), [q, k, v]) => {
                q.apply_op3_no_bwd(k, v, &sequence::Attention { kernels, heads, batch })
            }
            (&Self::Causal(heads, place), [q, k, v]) => {
                sequence::append(batch, caches, place, heads, (k, v))?;
                q.apply_op1_no_bwd(&sequence::Causal { kernels, heads, place, batch, caches })
            }
            (Self::MeanPool, [x]) => x.apply_op1_no_bwd(&sequence::MeanPool { kernels, batch }),
            (Self::Normalize, [x]) => x.apply_op1_no_bwd(&rowwise::Normalize { kernels }),
            (Self::SelectRows, [x]) => x.apply_op1_no_bwd(&answer::SelectRows { batch }),
            (Self::Penalize, [logits]) => logits.apply_op1_no_bwd(&answer::Penalize { batch }),
            (Self::Sample, [logits]) => logits.apply_op1_no_bwd(&answer::Sample { batch }),
            _ => unreachable!("a validated program gives every op the inputs that it takes"),
        };
        output.map(Value::new)
    }
}
