//! Limits that keep every program disputable and every computation on sizes within `u64`.

use crate::{Dtype, LinearKind, Manifest, Op, OpKind, Operand, Shape};

/// Layers of a program.
pub const MAX_LAYERS: usize = 4096;
/// Ops of one layer.
pub const MAX_OPS_PER_LAYER: usize = 4096;
/// Ops of a whole program.
pub(crate) const MAX_OPS: usize = 65_536;
/// Weights of a manifest.
pub const MAX_TENSORS: usize = 65_536;
/// Bytes of the name of a model or tensor.
pub const MAX_NAME_BYTES: usize = 256;
/// Elements of a row of any tensor.
pub const MAX_WIDTH: u32 = 1 << 20;
/// Elements along K that may share an int8 scale.
pub(crate) const MAX_GROUP: u32 = gainsay_arithmetic::int8::MAX_GROUP as u32;
/// Tokens that end an answer.
pub const MAX_STOP_IDS: usize = 64;
/// Tokens of one sequence.
pub const MAX_SEQUENCE: u32 = 1 << 17;
/// Tokens of one job, all sequences together.
pub const MAX_JOB_TOKENS: usize = 1 << 20;
/// Bytes of a job's answer: what a claim can carry.
pub const MAX_OUTPUT_BYTES: u64 = 64 << 20;
/// Bytes of chunks and paths that one op element may need as a witness.
pub const MAX_WITNESS_BYTES: u64 = 4 << 20;
/// Multiplications, additions and function calls that one op element may cost.
pub const MAX_WORK: u64 = 1 << 24;

/// Upper bounds of what the referee needs for any element of an op, of its virtual layer where it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Bytes of the chunks that it reads, with their paths.
    pub witness_bytes: u64,
    /// Multiplications, additions and function calls.
    pub work: u64,
}

impl Cost {
    fn max(self, other: Self) -> Self {
        Self { witness_bytes: self.witness_bytes.max(other.witness_bytes), work: self.work.max(other.work) }
    }
}

/// Bytes of a chunk and of a hash of its path.
const CHUNK_BYTES: u64 = 1024;
const HASH_BYTES: u64 = 32;

/// Witness bytes of `runs` separate contiguous reads of `elements` each from a tensor of `shape`: a run may begin
/// with the last element of a chunk, and comes with a whole path on either side if it has several chunks.
fn reads(shape: Shape, runs: u64, elements: u64) -> u64 {
    let chunks = shape.bytes().div_ceil(CHUNK_BYTES).max(1);
    let path = u64::from(chunks.next_power_of_two().trailing_zeros()) * HASH_BYTES;
    let after_first = elements.saturating_sub(1).saturating_mul(shape.dtype.bytes());
    let touched = after_first.div_ceil(CHUNK_BYTES).saturating_add(1).min(chunks);
    let paths = if touched > 1 { 2 * path } else { path };
    runs.saturating_mul(touched.saturating_mul(CHUNK_BYTES).saturating_add(paths))
}

/// As [`reads`], of an activation of this width in the longest job there is.
fn activation_reads(width: u64, runs: u64, elements: u64) -> u64 {
    reads(Shape { rows: MAX_JOB_TOKENS as u64, width, dtype: Dtype::F32 }, runs, elements)
}

/// As [`reads`], of a whole virtual column over `n` tokens.
fn column_reads(n: u64) -> u64 {
    reads(Shape { rows: n, width: 1, dtype: Dtype::F32 }, 1, n)
}

/// The dearest element of `op`, whose first tensor input has rows of `width` elements, over all jobs that the model
/// takes. The op has been checked by shape inference.
pub(crate) fn worst_element(manifest: &Manifest, op: &Op, width: u32) -> Cost {
    let width = u64::from(width);
    let max_sequence = u64::from(manifest.max_sequence);
    let direct = max_sequence.min(manifest.expand_from_rows.into());
    let expands = max_sequence > direct;
    match op.kind {
        OpKind::Attention { kv_heads, head_dim, .. } => {
            let shape = AttentionWidths {
                query: width,
                key: u64::from(kv_heads) * u64::from(head_dim),
                head: head_dim.into(),
            };
            let whole = direct_attention(shape, direct);
            if expands { whole.max(virtual_attention(shape, max_sequence)) } else { whole }
        }
        OpKind::MeanPool => {
            let whole = Cost { witness_bytes: activation_reads(width, direct, 1), work: direct };
            if expands { whole.max(virtual_pooling(width, max_sequence)) } else { whole }
        }
        _ => by_row(manifest, op, width),
    }
}

/// Columns of a row of queries, of a row of keys or values, and of a head.
#[derive(Clone, Copy)]
struct AttentionWidths {
    query: u64,
    key: u64,
    head: u64,
}

/// Ops whose elements read one row of their input, or less, and some weights.
fn by_row(manifest: &Manifest, op: &Op, width: u64) -> Cost {
    let whole_row = activation_reads(width, 1, width);
    let one_element = activation_reads(width, 1, 1);
    let (activations, per_weight, work) = match op.kind {
        OpKind::Gather => (0, 1, 1),
        OpKind::Add | OpKind::Mul => (2 * one_element, 0, 1),
        OpKind::Gelu | OpKind::Silu | OpKind::CastBf16 | OpKind::SelectRows => (one_element, 0, 1),
        OpKind::Rope { .. } => (2 * one_element, 1, 3),
        OpKind::RmsNorm { group, .. } => (activation_reads(width, 1, group.into()), 1, 2 * u64::from(group)),
        // The whole history of the answer is searched for the token.
        OpKind::Penalize => (one_element, 0, u64::from(manifest.max_sequence) + 16),
        // Each logit passes a heap of the candidates.
        OpKind::Sample => (whole_row, 0, 16 * width),
        OpKind::LayerNorm { .. } => (whole_row, 1, 4 * width),
        OpKind::Normalize => (whole_row, 0, 2 * width),
        OpKind::Linear(LinearKind::F32) => (whole_row, width, width),
        OpKind::Linear(LinearKind::Int8 { .. }) => (whole_row, width, 4 * width),
        OpKind::Attention { .. } | OpKind::MeanPool => {
            unreachable!("worst_element handles ops over sequences")
        }
    };
    let weights = op.inputs.iter().filter_map(|operand| match *operand {
        Operand::Weight(index) => manifest.tensors.get(index as usize),
        _ => None,
    });
    let weight_bytes = weights.map(|spec| reads(spec.shape(), 1, per_weight.min(spec.width.into())));
    Cost { witness_bytes: weight_bytes.fold(activations, u64::saturating_add), work }
}

/// A query, all keys of the head, and a column of values, over `n` tokens.
fn direct_attention(AttentionWidths { query, key, head }: AttentionWidths, n: u64) -> Cost {
    let query = activation_reads(query, 1, head);
    let keys = activation_reads(key, n, head).saturating_add(activation_reads(key, n, 1));
    Cost { witness_bytes: query.saturating_add(keys), work: n.saturating_mul(head.saturating_add(4)) }
}

/// The dearest of the four virtual ops over `n` tokens.
fn virtual_attention(AttentionWidths { query, key, head }: AttentionWidths, n: u64) -> Cost {
    let vectors = activation_reads(query, 1, head).saturating_add(activation_reads(key, 1, head));
    let scores = Cost { witness_bytes: vectors, work: head };
    let whole = column_reads(n);
    let weights = Cost { witness_bytes: whole, work: 2 * n };
    let out = Cost { witness_bytes: 2 * whole, work: 3 * n };
    scores.max(weights).max(out)
}

/// The dearer of the two virtual ops of pooling over `n` tokens.
fn virtual_pooling(width: u64, n: u64) -> Cost {
    let column = Cost { witness_bytes: activation_reads(width, 1, 1), work: 1 };
    column.max(Cost { witness_bytes: column_reads(n), work: n })
}
