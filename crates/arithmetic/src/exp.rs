//! The exponential function: one reduction, one polynomial, one shift into the exponent.

use crate::scalar::{CANONICAL_NAN, fma};

/// Below this, −87.3, the result is +0: no result is subnormal.
pub const EXP_ZERO_BELOW: f32 = f32::from_bits(0xc2ae_999a);
/// Above this, 88.72283, the result is +∞: the next binary32 overflows.
pub const EXP_INFINITE_ABOVE: f32 = f32::from_bits(0x42b1_7217);

/// log₂e.
pub const LOG2_E: f32 = f32::from_bits(0x3fb8_aa3b);
/// 1.5·2²³: added to a number below 2²² it leaves the nearest integer in the low bits.
pub const SHIFT: f32 = f32::from_bits(0x4b40_0000);
/// ln2 rounded to binary32, negated.
pub const MINUS_LN2_HIGH: f32 = f32::from_bits(0xbf31_7218);
/// What that leaves of −ln2.
pub const MINUS_LN2_LOW: f32 = f32::from_bits(0x3102_e308);

/// c₂ to c₆ of eʳ ≈ 1 + r + c₂r² + … + c₆r⁶ on |r| ≤ ½·ln2, found by `scripts/minimax.py`.
pub const COEFFICIENTS: [f32; 5] = [
    f32::from_bits(0x3eff_fffe),
    f32::from_bits(0x3e2a_aa4a),
    f32::from_bits(0x3d2a_ac5f),
    f32::from_bits(0x3c09_1c2b),
    f32::from_bits(0x3ab5_1e88),
];

/// eˣ, within 1 ulp on [−87.3, 88.72283]; +0 below, +∞ above, NaN for NaN.
///
/// In this order, `n` being the integer nearest to x·log₂e:
///
/// ```text
/// k = fma(x, LOG2_E, SHIFT)        n = k − SHIFT
/// r = fma(n, −LN2_HIGH, x)         r = fma(n, −LN2_LOW, r)
/// p = c6;  p = fma(p, r, c5);  … c4, c3, c2;  p = fma(p, r, 1);  p = fma(p, r, 1)
/// result = bits(p) + (bits(k) << 23)
/// ```
///
/// The low byte of `bits(k)` is `n` in two's complement and all that the shift leaves, so the last line
/// multiplies by 2ⁿ. It cannot leave the normal range: the thresholds see to it.
#[must_use]
pub fn exp(x: f32) -> f32 {
    if x.is_nan() {
        return CANONICAL_NAN;
    }
    if x < EXP_ZERO_BELOW {
        return 0.0;
    }
    if x > EXP_INFINITE_ABOVE {
        return f32::INFINITY;
    }
    let k = fma(x, LOG2_E, SHIFT);
    let n = k - SHIFT;
    let r = fma(n, MINUS_LN2_HIGH, x);
    let r = fma(n, MINUS_LN2_LOW, r);
    let [c2, c3, c4, c5, c6] = COEFFICIENTS;
    let p = [c5, c4, c3, c2, 1.0, 1.0].into_iter().fold(c6, |p, c| fma(p, r, c));
    f32::from_bits(p.to_bits().wrapping_add(k.to_bits() << 23))
}
