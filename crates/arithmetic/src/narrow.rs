//! The 16-bit formats: widening, which is exact, and rounding to bfloat16.

use crate::scalar::CANONICAL_NAN;

/// The value of a bfloat16 as binary32; a NaN becomes the canonical one.
#[must_use]
pub fn widen_bf16(bits: u16) -> f32 {
    crate::canonical(f32::from_bits(u32::from(bits) << 16))
}

/// The value of an IEEE binary16 as binary32, subnormals included; a NaN becomes the canonical one.
#[must_use]
pub fn widen_f16(bits: u16) -> f32 {
    /// 2⁻²⁴, the unit of binary16's subnormals.
    const SUBNORMAL_UNIT: f32 = f32::from_bits(0x3380_0000);
    const EXPONENT_SHIFT: u32 = 127 - 15;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits) & 0x3ff;
    let magnitude = match (exponent, fraction) {
        (0, _) => fraction as f32 * SUBNORMAL_UNIT,
        (0x1f, 0) => f32::INFINITY,
        (0x1f, _) => return CANONICAL_NAN,
        _ => f32::from_bits((exponent + EXPONENT_SHIFT) << 23 | fraction << 13),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// Rounds to bfloat16, to nearest, ties to even, overflowing to infinity; every NaN becomes `0x7fc0`.
///
/// Subnormals are rounded like everything else: a stored operand holds none.
#[must_use]
pub fn round_bf16(x: f32) -> u16 {
    if x.is_nan() {
        return 0x7fc0;
    }
    let bits = x.to_bits();
    let tie_to_even = 0x7fff + (bits >> 16 & 1);
    ((bits + tie_to_even) >> 16) as u16
}
