//! Attention of one token and one head. Scores are never stored: the steps are one op.
//!
//! Over the allowed keys j (a loop bound, not a mask), counted within the sequence:
//! `s_j = score(q, k_j, scale)`, `m = max(s)`, `e_j = weight(s_j, m)`, `o_c = output(e, v[.., c])`.
//! The greatest score is found first and the weights are computed once: rescaling running sums, as online
//! softmax does, would round differently.

use crate::exp;
use crate::sums::{dot, sum64};

/// The score `dot(q, k) · scale` of a query and a key of one head, both of length `head_dim`.
///
/// # Panics
/// If `q` and `k` differ in length.
#[must_use]
pub fn score(q: &[f32], k: &[f32], scale: f32) -> f32 {
    dot(q, k) * scale
}

/// The weight `exp(score − max)`, not normalized; `max` is [`crate::max`] of the row's scores.
///
/// A row without any score above −∞ has `max` = −∞ and only NaN weights.
#[must_use]
pub fn weight(score: f32, max: f32) -> f32 {
    exp(score - max)
}

/// The output `dot(weights, column) / sum64(weights)` for one column of the values; blocks and lanes count
/// keys from the start of the sequence.
///
/// # Panics
/// If `weights` and `column` differ in length.
#[must_use]
pub fn output(weights: &[f32], column: &[f32]) -> f32 {
    dot(weights, column) / sum64(weights)
}
