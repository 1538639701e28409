//! Kernels that go row by row: norms and their sums.

use rayon::prelude::*;

use super::elementwise::{load_front, store_front, store_rule};
use super::lanes::{Kernel, Lanes};

/// Lanes of a sum.
const SUM_LANES: usize = gainsay_arithmetic::LANES;
/// Vectors that hold the lanes of a sum on the narrowest instruction set; wider ones use the first of them.
const SUM_VECTORS: usize = SUM_LANES / 8;
/// Floats that one task of a kernel without much work takes.
pub(super) const TASK_FLOATS: usize = 16 << 10;

/// Rows of `width` floats for one task.
fn task_rows(width: usize) -> usize {
    (TASK_FLOATS / width).max(1) * width
}

/// `out = stored(LayerNorm(x))`, rows of `weight.len()` floats.
pub(crate) fn layer_norm<V: Lanes>(v: V, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    assert!(bias.len() == width && x.len() == out.len() && x.len().is_multiple_of(width), "whole rows");
    let task = task_rows(width);
    let tasks = x.par_chunks(task).zip(out.par_chunks_mut(task));
    tasks.for_each(|(x, out)| v.enter(LayerNormRows { x, weight, bias, eps, out }));
}

struct LayerNormRows<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for LayerNormRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, v: V) {
        let width = self.weight.len();
        for (x, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
            let mean = sum64::<V, false>(v, x) / width as f32;
            subtract(v, x, mean, out);
            let variance = sum64::<V, true>(v, out) / width as f32;
            let r = 1.0 / (variance + self.eps).sqrt();
            scale_and_shift(v, r, self.weight, self.bias, out);
        }
    }
}

/// `out = stored(RMSNorm(x))`, rows of `weight.len()` floats.
pub(crate) fn rms_norm<V: Lanes>(v: V, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    assert!(x.len() == out.len() && x.len().is_multiple_of(width), "whole rows");
    let task = task_rows(width);
    let tasks = x.par_chunks(task).zip(out.par_chunks_mut(task));
    tasks.for_each(|(x, out)| v.enter(RmsNormRows { x, weight, eps, out }));
}

struct RmsNormRows<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for RmsNormRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, v: V) {
        let width = self.weight.len();
        for (x, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
            let r = v.splat(1.0 / (sum64::<V, true>(v, x) / width as f32 + self.eps).sqrt());
            let pairs = x.chunks(V::LANES).zip(self.weight.chunks(V::LANES));
            for ((x, weight), out) in pairs.zip(out.chunks_mut(V::LANES)) {
                let y = v.mul(v.mul(load_front(v, x), r), load_front(v, weight));
                store_front(v, store_rule(v, y), out);
            }
        }
    }
}

/// `out = x − mean`.
#[inline(always)]
fn subtract<V: Lanes>(v: V, x: &[f32], mean: f32, out: &mut [f32]) {
    for (x, out) in x.chunks(V::LANES).zip(out.chunks_mut(V::LANES)) {
        store_front(v, v.sub(load_front(v, x), v.splat(mean)), out);
    }
}

/// `out = stored(fma(out · r, weight, bias))`.
#[inline(always)]
fn scale_and_shift<V: Lanes>(v: V, r: f32, weight: &[f32], bias: &[f32], out: &mut [f32]) {
    let parameters = weight.chunks(V::LANES).zip(bias.chunks(V::LANES));
    for ((weight, bias), out) in parameters.zip(out.chunks_mut(V::LANES)) {
        let scaled = v.mul(load_front(v, out), v.splat(r));
        let y = v.fma(scaled, load_front(v, weight), load_front(v, bias));
        store_front(v, store_rule(v, y), out);
    }
}

/// `arithmetic::sum64`, or with `SQUARES` `sum64_squares`.
///
/// A last group shorter than 64 is filled up with +0. That changes no lane: a lane starts at +0 and so
/// never is −0, and adding +0 (or the square of it) keeps everything else.
#[inline(always)]
pub(super) fn sum64<V: Lanes, const SQUARES: bool>(v: V, x: &[f32]) -> f32 {
    let mut lanes = [v.splat(0.0); SUM_VECTORS];
    let lanes = &mut lanes[..SUM_LANES / V::LANES];
    let groups = x.chunks_exact(SUM_LANES);
    let mut last = [0.0; SUM_LANES];
    last[..groups.remainder().len()].copy_from_slice(groups.remainder());
    for group in groups.chain(std::iter::once(&last[..])) {
        for (lane, x) in lanes.iter_mut().zip(group.chunks_exact(V::LANES)) {
            let x = v.load(x);
            *lane = if SQUARES { v.fma(x, x, *lane) } else { v.add(*lane, x) };
        }
    }
    let mut folded = [0.0; SUM_LANES];
    for (lane, out) in lanes.iter().zip(folded.chunks_exact_mut(V::LANES)) {
        v.store(*lane, out);
    }
    fold(folded)
}

#[inline(always)]
fn fold(mut lanes: [f32; SUM_LANES]) -> f32 {
    let mut half = SUM_LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        for (a, b) in low.iter_mut().zip(high.iter()) {
            *a += *b;
        }
        half /= 2;
    }
    lanes[0]
}

/// `out = stored(x / divisor)` by rows of `width`, the divisor as `arithmetic::normalize_divisor` says.
pub(crate) fn normalize<V: Lanes>(v: V, x: &[f32], width: usize, out: &mut [f32]) {
    assert!(x.len() == out.len() && x.len().is_multiple_of(width), "whole rows");
    let task = task_rows(width);
    let tasks = x.par_chunks(task).zip(out.par_chunks_mut(task));
    tasks.for_each(|(x, out)| v.enter(NormalizeRows { x, width, out }));
}

struct NormalizeRows<'a> {
    x: &'a [f32],
    width: usize,
    out: &'a mut [f32],
}

impl Kernel for NormalizeRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, v: V) {
        for (x, out) in self.x.chunks_exact(self.width).zip(self.out.chunks_exact_mut(self.width)) {
            let norm = sum64::<V, true>(v, x).sqrt();
            let divisor = if norm < MIN_DIVISOR { MIN_DIVISOR } else { norm };
            for (x, out) in x.chunks(V::LANES).zip(out.chunks_mut(V::LANES)) {
                store_front(v, store_rule(v, v.div(load_front(v, x), v.splat(divisor))), out);
            }
        }
    }
}

const MIN_DIVISOR: f32 = gainsay_arithmetic::pool::MIN_DIVISOR;
