//! Every kernel by the functions of `arithmetic`, for any machine.
//!
//! This is the definition, row by row: what the vector kernels are tested against, and what runs where
//! there are no vector instructions that we know.

use std::ops::Range;

use gainsay_arithmetic as arithmetic;
use rayon::prelude::*;

use super::attention::{Heads, Qkv};
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
        Then::Gelu => arithmetic::store(arithmetic::gelu(stored)),
        Then::Add(other) => arithmetic::store(stored + other[index]),
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

/// `out = stored(gelu(x))`.
pub(crate) fn gelu(x: &[f32], out: &mut [f32]) {
    out.par_iter_mut().zip(x).for_each(|(out, &x)| *out = arithmetic::store(arithmetic::gelu(x)));
}

/// `out = stored(a + b)`.
pub(crate) fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
    out.par_iter_mut().zip(a).zip(b).for_each(|((out, a), b)| *out = arithmetic::store(a + b));
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
    let stride = heads.count * heads.width;
    let rows = sequences.iter().flat_map(|sequence| sequence.clone().map(move |row| (sequence, row)));
    let rows: Vec<_> = rows.zip(out.chunks_mut(stride)).collect();
    rows.into_par_iter().for_each(|((sequence, row), out)| {
        for (head, out) in out.chunks_exact_mut(heads.width).enumerate() {
            let part = |x: &'_ [f32], row: usize| -> Vec<f32> {
                x[row * stride + head * heads.width..][..heads.width].to_vec()
            };
            let q = part(qkv.q, row);
            let mut weights: Vec<f32> = sequence
                .clone()
                .map(|key| arithmetic::attention::score(&q, &part(qkv.k, key), heads.scale))
                .collect();
            let greatest = arithmetic::max(&weights);
            for weight in &mut weights {
                *weight = arithmetic::attention::weight(*weight, greatest);
            }
            for (c, out) in out.iter_mut().enumerate() {
                let place = head * heads.width + c;
                let column: Vec<f32> = sequence.clone().map(|key| qkv.v[key * stride + place]).collect();
                *out = arithmetic::store(arithmetic::attention::output(&weights, &column));
            }
        }
    });
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
