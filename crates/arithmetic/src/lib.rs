//! What every operator of Gainsay means, bit for bit.
//!
//! A worker, the challenger that doubts it and the referee that judges between them must agree on every
//! byte of every result. This crate is the law they share: each operator of the profiles `exact-f32/1`
//! and `exact-int8/1`, in scalar code that fixes the order of every sum and the rounding of every step.
//! Fast kernels restate it and are tested against it; `docs/ARITHMETIC.md` states it in prose.
//!
//! How to read it: [`scalar`] has the primitive operations and the rule for stored results, [`sums`] the
//! two orders in which anything is ever added, [`exp`](mod@exp) and [`erf`](mod@erf) the two transcendental
//! functions; everything else is a few lines on top of those.
//!
//! Functions return the value *before* the rule for stored results. Whoever stores the output of an
//! operator applies [`store`] (or, inside virtual layers, [`canonical`]). Until then a NaN is any NaN: its
//! payload is not defined, and no operator here lets it show.
//!
//! The crate knows nothing of tensors, programs, commitments or threads. It is `no_std`, free of unsafe code
//! and total: every function is defined for NaN, infinities, subnormals and empty rows, and panics only
//! where slices that belong together differ in length.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "std")]
extern crate std;

pub mod activation;
pub mod attention;
pub mod erf;
pub mod exp;
pub mod int8;
pub mod narrow;
pub mod norm;
pub mod pool;
pub mod sampling;
pub mod scalar;
pub mod sums;

pub use activation::{gelu, gelu_tanh, silu, tanh};
pub use erf::erf;
pub use exp::exp;
pub use narrow::{round_bf16, widen_bf16, widen_f16};
pub use norm::{LayerNormRow, RmsNormRow};
pub use pool::{mean_pool, normalize, normalize_divisor};
pub use scalar::{canonical, fma, sqrt, store};
pub use sums::{BLOCK, LANES, dot, dot_by, max, sum64, sum64_by, sum64_squares, sum64_squares_by};

/// One output of a linear layer in the f32 profile: [`dot`]`(x, w)`, then `+ bias` where there is one.
///
/// `x` is a token's row and `w` an output channel's row of weights (widened to f32), both of length K.
#[must_use]
pub fn linear(x: &[f32], w: &[f32], bias: Option<f32>) -> f32 {
    let product = dot(x, w);
    match bias {
        Some(bias) => product + bias,
        None => product,
    }
}

/// The rotary pair `(x1·c − x2·s, x2·c + x1·s)`: each product is rounded, there is no fma.
///
/// `c` and `s` are the cosine and sine of the pair's angle: constants of the model, never computed here.
#[must_use]
pub fn rope_pair(x1: f32, x2: f32, c: f32, s: f32) -> (f32, f32) {
    (x1 * c - x2 * s, x2 * c + x1 * s)
}
