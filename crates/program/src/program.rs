//! Ops, layers and programs.

use gainsay_arithmetic::int8::ActivationBits;

/// Type of a tensor's elements, little-endian in memory. Op outputs are `F32`, but for sampled token ids, which are `U32`;
/// the others are for weights.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dtype {
    /// IEEE-754 binary32.
    F32,
    /// Unsigned 32-bit integers (token ids).
    U32,
    /// bfloat16, widened exactly where it is read.
    Bf16,
    /// IEEE-754 binary16, widened exactly where it is read.
    F16,
    /// Signed 8-bit integers (quantized weights).
    I8,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::I8 => 1,
        }
    }

    /// Whether [`element`](crate::element) can widen it to binary32.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::Bf16 | Self::F16)
    }

    /// The name that configurations and messages use: `f32`, `u32`, `bf16`, `f16`, `i8`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::U32 => "u32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::I8 => "i8",
        }
    }
}

/// What the rows of an op's output stand for. A job decides how many there are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RowSpace {
    /// One row for each token of the job, its sequences concatenated in job order.
    Tokens,
    /// One row for each sequence of the job.
    Sequences,
    /// One row for each token of the answer of a generation: row `i` belongs to the token that follows the prompt and the
    /// first `i` tokens of the answer.
    Answer,
}

/// A column of numbers that the job itself provides, one for each token. The referee takes it from the recorded
/// job, never from a witness.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum JobField {
    /// The token's id.
    Ids,
    /// The token's index in its sequence.
    Positions,
    /// The token's segment: always 0, since an embedding job has no sentence pairs.
    TypeIds,
}

/// Where an op finds one of its inputs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operand {
    /// The output of the layer before.
    LayerInput,
    /// The output of an earlier op of the same layer.
    Op(u32),
    /// A weight: an index into [`Manifest::tensors`](crate::Manifest::tensors).
    Weight(u32),
    /// A column of the job.
    Job(JobField),
}

/// The two forms of a linear map. Both read and write f32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LinearKind {
    /// Inputs: `x [rows, K]`, `w [N, K]` (f32, bf16 or f16), and optionally `bias [1, N]` (f32).
    F32,
    /// Inputs: `x [rows, K]`, `w [N, K]` (i8), `scales [N, K/group]` (f32), and optionally `bias [1, N]` (f32).
    /// Activations are quantized by token and group when the op runs.
    Int8 {
        /// Elements along K that share a scale; divides K.
        group: u32,
        /// Width of the quantized activations.
        activation_bits: ActivationBits,
    },
}

/// What an op computes. Its inputs are listed in order.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum OpKind {
    /// Inputs: an index column of the job, a table `[T, width]` (f32, bf16 or f16). Output: `[Tokens, width]`, row `t`
    /// being the table's row at the index of token `t`.
    Gather,
    /// Inputs: `a`, `b` of one shape. Output: `a + b`.
    Add,
    /// A linear map; see [`LinearKind`]. Output: `[rows of x, N]`.
    Linear(LinearKind),
    /// Inputs: `x [rows, width]`, weight `[1, width]`, bias `[1, width]` (f32).
    LayerNorm {
        /// Added to the variance.
        eps: f32,
    },
    /// Input: `x`. Output: gelu(x), the erf form, elementwise.
    Gelu,
    /// Inputs: `q [Tokens, heads · head_dim]`, `k` and `v`, each `[Tokens, kv_heads · head_dim]`.
    Attention {
        /// Number of query heads; head `h` holds columns `h · head_dim ..` of `q` and of the output.
        heads: u32,
        /// Number of key and value heads; divides `heads`. Head `h` reads key and value head `h / (heads / kv_heads)`.
        kv_heads: u32,
        /// Columns of a head.
        head_dim: u32,
        /// Factor on every dot product of query and key.
        scale: f32,
        /// Whether a token attends to itself and the tokens before it only, instead of all tokens of its sequence.
        causal: bool,
    },
    /// Input: `x [Tokens, width]`. Output: `[Sequences, width]`, the mean over the tokens of a sequence.
    MeanPool,
    /// Input: `x`. Output: each row divided by its Euclidean norm.
    Normalize,
    /// Inputs: `x [rows, width]`, weight `[1, group]` (f32). Each group of columns is normalized by itself, with the same
    /// weight.
    RmsNorm {
        /// Added to the mean square.
        eps: f32,
        /// Columns of a group; divides the width.
        group: u32,
    },
    /// Inputs: `x [Tokens, heads · head_dim]`, cosines and sines (f32), each `[max_sequence, head_dim / 2]` or longer.
    /// Output: columns `c` and `c + head_dim / 2` of each head rotated by the angle in row `position`, column `c`.
    Rope {
        /// Number of heads.
        heads: u32,
        /// Columns of a head; even.
        head_dim: u32,
    },
    /// Input: `x`. Output: x / (1 + exp(−x)), elementwise.
    Silu,
    /// Inputs: `a`, `b` of one shape. Output: `a · b`.
    Mul,
    /// Input: `x`. Output: each element rounded to bfloat16 and widened again: an f32 whose low 16 bits are 0.
    CastBf16,
    /// Input: `x [Tokens, width]`. Output: `[Answer, width]`: the rows of the last token of the prompt and of all tokens
    /// after it.
    SelectRows,
    /// Input: `logits [Answer, vocabulary]`. Output: the logits after the penalties and biases of the job's
    /// [`Sampling`](crate::Sampling).
    Penalize,
    /// Input: `logits [Answer, vocabulary]`. Output: `[Answer, 1]` (u32), the tokens drawn by the job's
    /// [`Sampling`](crate::Sampling).
    Sample,
}

impl OpKind {
    /// A short name for people: `gather`, `add`, `linear`, `linear_int8`, `layer_norm`, …
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Gather => "gather",
            Self::Add => "add",
            Self::Linear(LinearKind::F32) => "linear",
            Self::Linear(LinearKind::Int8 { .. }) => "linear_int8",
            Self::LayerNorm { .. } => "layer_norm",
            Self::Gelu => "gelu",
            Self::Attention { .. } => "attention",
            Self::MeanPool => "mean_pool",
            Self::Normalize => "normalize",
            Self::RmsNorm { .. } => "rms_norm",
            Self::Rope { .. } => "rope",
            Self::Silu => "silu",
            Self::Mul => "mul",
            Self::CastBf16 => "cast_bf16",
            Self::SelectRows => "select_rows",
            Self::Penalize => "penalize",
            Self::Sample => "sample",
        }
    }
}

/// One op: a kind and where its inputs come from.
#[derive(Clone, PartialEq, Debug)]
pub struct Op {
    /// What it computes.
    pub kind: OpKind,
    /// Its inputs, in the order that the kind lists.
    pub inputs: Vec<Operand>,
}

/// Ops whose last output is committed to in every claim. Each op reads earlier ones only.
#[derive(Clone, PartialEq, Debug)]
pub struct Layer {
    /// The ops in order of evaluation.
    pub ops: Vec<Op>,
}

/// A model's computation. The last layer's output is what the submitter gets.
#[derive(Clone, PartialEq, Debug)]
pub struct Program {
    /// The layers; the first has no layer input.
    pub layers: Vec<Layer>,
}
