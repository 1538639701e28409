//! Every kernel by the functions of `arithmetic`, for any machine.
//!
//! This is the definition, row by row: what the vector kernels are tested against, and what runs where
//! there are no vector instructions that we know.

use std::ops::Range;

use gainsay_arithmetic as arithmetic;
use rayon::prelude::*;

use super::attention::{Heads, Qkv};
use super::cache::KvPlace;
use super::causal::CausalRows;
use super::each::{Binary, Rotation, Unary};
use super::finish::Then;

/// `out = stored(x · wᵀ + bias)` and what follows; `w` is `[columns, depth]`, `bias` empty where there is none.
pub(crate) fn linear(x: &[f32], w: &[f32], depth: usize, bias: &[f32], then: Then<'_>, out: &mut [f32]) {
    let columns = w.len() / depth;
    out.par_chunks_mut(columns).enumerate().for_each(|(row, out)| {
        let x = &x[row * depth..(row + 1) * depth];
        for (n, (out, w)) in out.iter_mut().zip(w.chunks_exact(depth)).enumerate() {
            let y = arithmetic::linear(x, w, bias.get(n).copied());
            *out = finish(arithmetic::store(y), then, row * columns + n);
        }
    });
}

pub(crate) fn finish(stored: f32, then: Then<'_>, index: usize) -> f32 {
    match then {
        Then::Nothing => stored,
        Then::Unary(formula) => arithmetic::store(formula.of(stored)),
        Then::Binary(formula, other) => arithmetic::store(formula.of(stored, other[index])),
    }
}

/// `out = stored(LayerNorm(x))`.
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    out.par_chunks_mut(width).zip(x.par_chunks(width)).for_each(|(out, x)| {
        let row = arithmetic::LayerNormRow::of(x, eps);
        for (i, out) in out.iter_mut().enumerate() {
            *out = arithmetic::store(row.element(x[i], weight[i], bias[i]));
        }
    });
}

/// `out = stored(RMSNorm(x))`.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    out.par_chunks_mut(width).zip(x.par_chunks(width)).for_each(|(out, x)| {
        let row = arithmetic::RmsNormRow::of(x, eps);
        for (i, out) in out.iter_mut().enumerate() {
            *out = arithmetic::store(row.element(x[i], weight[i]));
        }
    });
}

/// `out = stored(formula(x))`.
pub(crate) fn unary(formula: Unary, x: &[f32], out: &mut [f32]) {
    out.par_iter_mut().zip(x).for_each(|(out, &x)| *out = arithmetic::store(formula.of(x)));
}

/// `out = stored(formula(a, b))`.
pub(crate) fn binary(formula: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
    out.par_iter_mut().zip(a).zip(b).for_each(|((out, a), b)| *out = arithmetic::store(formula.of(*a, *b)));
}

/// `out = stored(x rotated)`.
pub(crate) fn rope(of: Rotation<'_>, x: &[f32], out: &mut [f32]) {
    of.check(x, out);
    let (row, half) = (x.len() / of.positions.len().max(1), of.width / 2);
    let rows = out.par_chunks_mut(row.max(1)).zip(x.par_chunks(row.max(1)));
    rows.enumerate().for_each(|(row, (out, x))| {
        let (cos, sin) = of.angles(row);
        for (x, out) in x.chunks_exact(of.width).zip(out.chunks_exact_mut(of.width)) {
            for c in 0..half {
                let (y1, y2) = arithmetic::rope_pair(x[c], x[c + half], cos[c], sin[c]);
                (out[c], out[c + half]) = (arithmetic::store(y1), arithmetic::store(y2));
            }
        }
    });
}

/// `out = stored(x / norm of its row)`.
pub(crate) fn normalize(x: &[f32], width: usize, out: &mut [f32]) {
    out.par_chunks_mut(width).zip(x.par_chunks(width)).for_each(|(out, x)| {
        let divisor = arithmetic::normalize_divisor(x);
        for (out, &x) in out.iter_mut().zip(x) {
            *out = arithmetic::store(arithmetic::normalize(x, divisor));
        }
    });
}

/// Attention over `sequences`, which follow each other and cover all rows.
pub(crate) fn attention(heads: Heads, qkv: Qkv<'_>, sequences: &[Range<usize>], out: &mut [f32]) {
    let rows = sequences.iter().flat_map(|sequence| sequence.clone().map(move |row| (sequence, row)));
    let rows: Vec<_> = rows.zip(out.chunks_mut(heads.stride())).collect();
    rows.into_par_iter().for_each(|((sequence, row), out)| {
        let q = &qkv.q[row * heads.stride()..][..heads.stride()];
        attend(heads, q, out, sequence.len(), |head, key| {
            let at = (sequence.start + key) * heads.kv_stride() + head * heads.width;
            (qkv.k[at..][..heads.width].to_vec(), qkv.v[at..][..heads.width].to_vec())
        });
    });
}

/// Causal attention of rows whose keys and values a cache holds.
pub(crate) fn causal(heads: Heads, place: KvPlace, q: &[f32], sequences: &[CausalRows<'_>], out: &mut [f32]) {
    let rows = sequences.iter().flat_map(|of| of.rows.clone().map(move |row| (of, row)));
    let rows: Vec<_> = rows.zip(out.chunks_mut(heads.stride())).collect();
    rows.into_par_iter().for_each(|((of, row), out)| {
        let q = &q[row * heads.stride()..][..heads.stride()];
        let keys = of.first + (row - of.rows.start) + 1;
        attend(heads, q, out, keys, |head, key| of.cache.token(place, head, key));
    });
}

/// One row's output over the first `keys` keys; `token` gives the key and value of a head of keys.
fn attend(
    heads: Heads,
    q: &[f32],
    out: &mut [f32],
    keys: usize,
    token: impl Fn(usize, usize) -> (Vec<f32>, Vec<f32>),
) {
    for (head, (q, out)) in q.chunks_exact(heads.width).zip(out.chunks_exact_mut(heads.width)).enumerate() {
        let tokens: Vec<_> = (0..keys).map(|key| token(heads.kv_of(head), key)).collect();
        let scores = tokens.iter().map(|(key, _)| arithmetic::attention::score(q, key, heads.scale));
        let mut weights: Vec<f32> = scores.collect();
        let greatest = arithmetic::max(&weights);
        for weight in &mut weights {
            *weight = arithmetic::attention::weight(*weight, greatest);
        }
        for (c, out) in out.iter_mut().enumerate() {
            let column: Vec<f32> = tokens.iter().map(|(_, value)| value[c]).collect();
            *out = arithmetic::store(arithmetic::attention::output(&weights, &column));
        }
    }
}

/// The mean of each column over each sequence: `out` is `[sequences, width]`.
///
/// The blocks of `arithmetic::mean_pool`, for all columns at once.
pub(crate) fn mean_pool(x: &[f32], width: usize, sequences: &[Range<usize>], out: &mut [f32]) {
    out.par_chunks_mut(width).zip(sequences).for_each(|(out, sequence)| {
        let mut block_sums = vec![0.0; width];
        out.fill(0.0);
        for block in x[sequence.start * width..sequence.end * width].chunks(arithmetic::BLOCK * width) {
            block_sums.fill(0.0);
            for row in block.chunks_exact(width) {
                add_to(&mut block_sums, row);
            }
            add_to(out, &block_sums);
        }
        let count = sequence.len() as f32;
        out.iter_mut().for_each(|total| *total = arithmetic::store(*total / count));
    });
}

fn add_to(sums: &mut [f32], x: &[f32]) {
    for (sum, x) in sums.iter_mut().zip(x) {
        *sum += x;
    }
}
