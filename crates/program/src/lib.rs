//! Programs: what a model computes, as data.
//!
//! A [`Manifest`] holds a [`Program`] (layers of ops in single-assignment form) and the commitment of every
//! tensor that the program reads. [`Manifest::validate`] infers all shapes, refuses what does not check or could
//! not be disputed, and returns a [`ValidatedModel`], which answers every question about shapes. A [`JobInput`]
//! is what a model is run on; a
//! [`GenerationRequest`] is what a language model is asked for, and [`finish_reason`] says where its answer ends.
//!
//! [`element`] is the referee's function: the value of one element of one op, read through an [`Oracle`]. It is
//! total: it never panics, never loops without bound, and never reads outside a tensor. [`reference`](mod@reference)
//! computes all elements of all ops by the same arithmetic, slowly; every faster executor must agree with it.
//! [`lowering`] turns the files of a Hugging Face checkpoint into a manifest and its tensors.
//!
//! The crate has no tensors (no candle), no IO, no clock and no knowledge of disputes: a coordinator judges with
//! it alone, on any machine.

mod element;
mod encoding;
mod finish;
mod generation;
mod history;
mod job;
mod limits;
pub mod lowering;
mod manifest;
mod memory;
mod oracle;
mod place;
mod program;
pub mod reference;
mod sampling;
mod sampling_defaults;
mod shapes;
#[cfg(feature = "toy")]
pub mod toy;
mod validate;
mod virtual_layer;
pub mod weights;

pub use gainsay_arithmetic::int8::ActivationBits;

pub use element::{ElementError, element};
pub use finish::{FinishReason, LengthFault, StopWatch, TokenBytes, finish_reason};
pub use history::History;
pub use job::{Answer, JobError, JobInput, Sequence};
pub use limits::{
    Cost, MAX_JOB_TOKENS, MAX_LAYERS, MAX_NAME_BYTES, MAX_OPS_PER_LAYER, MAX_OUTPUT_BYTES, MAX_SEQUENCE,
    MAX_STOP_IDS, MAX_TENSORS, MAX_WIDTH, MAX_WITNESS_BYTES, MAX_WORK,
};
pub use manifest::{ArithmeticProfile, GenerationSpec, KvDtype, Manifest, TensorSpec};
pub use memory::{MAX_JOB_MEMORY, MAX_SEQUENCE_MEMORY, MAX_WEIGHT_MEMORY, RowCounts};
pub use oracle::{Missing, Oracle};
pub use place::{OpPlace, Scope, Shape, TensorRef};
pub use program::{Dtype, JobField, Layer, LinearKind, Op, OpKind, Operand, Program, RowSpace};
pub use sampling::{
    GenerationRequest, MAX_LOGIT_BIASES, MAX_PENALTY, MAX_REPETITION_PENALTY, MAX_STOP_BYTES,
    MAX_STOP_STRINGS, MAX_TEMPERATURE, MAX_TOP_K, RequestError, Sampling, StopRules,
};
pub use sampling_defaults::SamplingDefaults;
pub use shapes::{OpError, OutputType};
pub use validate::{ManifestError, ValidatedModel};
pub use virtual_layer::VirtualOp;
