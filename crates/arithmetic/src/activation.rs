//! Elementwise activations, each a fixed sequence of IEEE operations around [`exp()`] or [`erf()`].

use crate::{erf, exp};

/// 1/√2.
pub const FRAC_1_SQRT_2: f32 = f32::from_bits(0x3f35_04f3);
/// −2·√(2/π), the outer constant of [`gelu_tanh`].
pub const GELU_TANH_OUTER: f32 = f32::from_bits(0xbfcc_422a);
/// 0.044715, the inner constant of [`gelu_tanh`].
pub const GELU_TANH_INNER: f32 = f32::from_bits(0x3d37_2713);

/// `x / (1 + exp(−x))`.
#[must_use]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The hyperbolic tangent from [`exp()`]: `t = exp(−2·|x|)`, then `(1 − t) / (1 + t)` with the sign of `x`.
///
/// The error is absolute, a few 2⁻²⁵; there is no relative bound near zero.
#[must_use]
pub fn tanh(x: f32) -> f32 {
    let t = exp(-2.0 * x.abs());
    ((1.0 - t) / (1.0 + t)).copysign(x)
}

/// The Gaussian error linear unit: `(0.5·x) · (1 + erf(x · (1/√2)))`.
#[must_use]
pub fn gelu(x: f32) -> f32 {
    (0.5 * x) * (1.0 + erf(x * FRAC_1_SQRT_2))
}

/// The tanh form of GELU: `x / (1 + exp(u))` with `u = (−2√(2/π) · x) · (1 + 0.044715·(x·x))`.
///
/// `0.5·(1 + tanh(v)) = 1 / (1 + exp(−2v))`: one exp and one division, and no cancellation for negative `x`.
/// The inner sum is `fma(0.044715, x·x, 1)`.
#[must_use]
pub fn gelu_tanh(x: f32) -> f32 {
    let u = (GELU_TANH_OUTER * x) * crate::fma(GELU_TANH_INNER, x * x, 1.0);
    x / (1.0 + exp(u))
}
