//! Virtual layers: how one element of an expanded op is computed, step by step.
//!
//! Attention keeps no scores and pooling reads a whole column, so a direct witness for one of their elements grows
//! with the sequence. Over long sequences a dispute therefore goes on inside the element. For the element
//! `(t, h, c)` of an attention whose sequence has `n` tokens the ops are `column` (`v[j, c]`), `scores`, `weights` (the
//! exponentials, not normalized), each `[n, 1]`, and `out [1, 1]`; for pooling they are `column` and `out`.
//!
//! `column`, `scores` and `weights` obey the NaN rule only, because the direct form flushes nothing between its
//! steps. `out` *is* the element, so it is stored as the op stores it.

use crate::OpKind;

/// An op of a virtual layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VirtualOp {
    /// The element's column of values (attention: of `v`; pooling: of the input) over its sequence.
    Column,
    /// The scores of the query row against every key row of its sequence.
    Scores,
    /// The exponentials of the scores less their maximum.
    Weights,
    /// The element itself.
    Out,
}

impl VirtualOp {
    /// The ops of the virtual layer of `kind`, in order, or nothing for an op that is never expanded.
    pub const fn of(kind: &OpKind) -> &'static [Self] {
        match kind {
            OpKind::Attention { .. } => &[Self::Column, Self::Scores, Self::Weights, Self::Out],
            OpKind::MeanPool => &[Self::Column, Self::Out],
            _ => &[],
        }
    }

    /// A short name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Column => "column",
            Self::Scores => "scores",
            Self::Weights => "weights",
            Self::Out => "out",
        }
    }
}
