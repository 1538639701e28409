//! The two orders in which anything is ever added: [`dot`] in blocks of 128, [`sum64`] in 64 lanes. And [`max`].

use crate::scalar::fma;

/// Length of a block of [`dot`]: one chain of fma.
pub const BLOCK: usize = 128;

/// Count of the interleaved partial sums of [`sum64`].
pub const LANES: usize = 64;

/// How many blocks are computed side by side. Blocks are independent, so this hides latency and changes no bit.
const BLOCKS_AT_ONCE: usize = 4;

/// The dot product in blocks of [`BLOCK`]: in each `p = +0; p = fma(a[k], b[k], p)` for ascending k, and
/// `total = total + p` over the blocks in order, from +0. The last block may be shorter; an empty row gives +0.
///
/// # Panics
/// If `a` and `b` differ in length.
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "the rows of a dot product have one length");
    const STRIDE: usize = BLOCK * BLOCKS_AT_ONCE;
    let (a_groups, b_groups) = (a.chunks_exact(STRIDE), b.chunks_exact(STRIDE));
    let (a_rest, b_rest) = (a_groups.remainder(), b_groups.remainder());
    let mut total = 0.0;
    for (a, b) in a_groups.zip(b_groups) {
        for partial in blocks_side_by_side(a, b) {
            total += partial;
        }
    }
    for (a, b) in a_rest.chunks(BLOCK).zip(b_rest.chunks(BLOCK)) {
        total += a.iter().zip(b).fold(0.0, |partial, (&a, &b)| fma(a, b, partial));
    }
    total
}

/// The sums of [`BLOCKS_AT_ONCE`] whole blocks.
#[inline]
fn blocks_side_by_side(a: &[f32], b: &[f32]) -> [f32; BLOCKS_AT_ONCE] {
    let mut partials = [0.0; BLOCKS_AT_ONCE];
    for k in 0..BLOCK {
        for (block, partial) in partials.iter_mut().enumerate() {
            *partial = fma(a[block * BLOCK + k], b[block * BLOCK + k], *partial);
        }
    }
    partials
}

/// [`dot`] over pairs that `pair(k)` yields, asked for k = 0, 1, …, `len − 1` once each and in order.
#[must_use]
pub fn dot_by(len: usize, mut pair: impl FnMut(usize) -> (f32, f32)) -> f32 {
    let mut total = 0.0;
    for start in (0..len).step_by(BLOCK) {
        let mut partial = 0.0;
        for k in start..len.min(start + BLOCK) {
            let (a, b) = pair(k);
            partial = fma(a, b, partial);
        }
        total += partial;
    }
    total
}

/// The sum in 64 lanes: lane j adds elements j, j + 64, … in order, from +0; then the lanes fold,
/// `v[j] += v[j + 32]`, then + 16, + 8, + 4, + 2, + 1. An empty row gives +0.
#[must_use]
pub fn sum64(x: &[f32]) -> f32 {
    sum64_by(x.len(), |i| x[i])
}

/// [`sum64`] over the values of `value(i)`, asked for i = 0, 1, …, `len − 1` once each and in order.
#[must_use]
pub fn sum64_by(len: usize, value: impl FnMut(usize) -> f32) -> f32 {
    fold_lanes(lanes(len, value, |lane, x| lane + x))
}

/// The sum of squares in 64 lanes: as [`sum64`], where a lane adds by `fma(x, x, lane)`.
#[must_use]
pub fn sum64_squares(x: &[f32]) -> f32 {
    sum64_squares_by(x.len(), |i| x[i])
}

/// [`sum64_squares`] over the values of `value(i)`, asked for i = 0, 1, …, `len − 1` once each and in order.
#[must_use]
pub fn sum64_squares_by(len: usize, value: impl FnMut(usize) -> f32) -> f32 {
    fold_lanes(lanes(len, value, |lane, x| fma(x, x, lane)))
}

#[inline]
fn lanes(len: usize, mut value: impl FnMut(usize) -> f32, add: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    for start in (0..len).step_by(LANES) {
        for (j, lane) in lanes.iter_mut().enumerate().take(len - start) {
            *lane = add(*lane, value(start + j));
        }
    }
    lanes
}

fn fold_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for j in 0..half {
            lanes[j] += lanes[j + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The greatest element: starts at −∞ and replaces on `>`, so a NaN never replaces, and a row that is empty
/// or holds nothing but NaN gives −∞. The sign of a zero is that of the first; no result depends on it.
#[must_use]
pub fn max(x: &[f32]) -> f32 {
    x.iter().fold(f32::NEG_INFINITY, |greatest, &x| if x > greatest { x } else { greatest })
}
