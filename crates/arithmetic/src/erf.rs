//! The error function: two polynomials, joined by a selection that vectors can make without a branch.

use crate::scalar::fma;

/// Where the polynomial in x² ends and the one in |x| begins, 1.75.
const SPLIT: f32 = f32::from_bits(0x3fe0_0000);
/// From here on, 4, the result is ±1.
const SATURATION: f32 = f32::from_bits(0x4080_0000);
/// What is subtracted from |x| in the second range, 2.875.
const CENTRE: f32 = f32::from_bits(0x4038_0000);

/// c₀ to c₉ of erf(a)/a − 1 ≈ Σ cᵢ(a²)ⁱ on a < 1.75, found by `scripts/minimax.py`.
const SMALL: [f32; 10] = [
    f32::from_bits(0x3e03_75d4),
    f32::from_bits(0xbec0_93a1),
    f32::from_bits(0x3de7_1731),
    f32::from_bits(0xbcdc_108f),
    f32::from_bits(0x3baa_fe99),
    f32::from_bits(0xba5e_5c89),
    f32::from_bits(0x38f2_ca53),
    f32::from_bits(0xb755_3707),
    f32::from_bits(0x3584_6769),
    f32::from_bits(0xb328_7cd4),
];

/// c₀ to c₁₁ of 1 − erf(a) ≈ Σ cᵢ(a − 2.875)ⁱ on 1.75 ≤ a ≤ 4, found by `scripts/minimax.py`.
const LARGE: [f32; 12] = [
    f32::from_bits(0x3848_b713),
    f32::from_bits(0xb998_25c0),
    f32::from_bits(0x3a5a_be89),
    f32::from_bits(0xbac5_0530),
    f32::from_bits(0x3af6_9b02),
    f32::from_bits(0xbae0_1871),
    f32::from_bits(0x3a95_8702),
    f32::from_bits(0xba0c_e4b5),
    f32::from_bits(0x390e_2638),
    f32::from_bits(0x37e2_1be4),
    f32::from_bits(0xb813_52bc),
    f32::from_bits(0x3710_9aae),
];

/// erf(x), within 1 ulp for every finite `x`; odd to the bit, ±1 from |x| = 4 on, NaN for NaN.
///
/// In this order, with a = |x|:
///
/// ```text
/// a < 1.75:  z = a·a;                 p = SMALL[9];  p = fma(p, z, SMALL[8]);  …  SMALL[0];   y = fma(a, p, a)
/// else:      t = min(a, 4) − 2.875;   q = LARGE[11]; q = fma(q, t, LARGE[10]); …  LARGE[0];   y = 1 − q
/// result = y with the sign of x
/// ```
#[must_use]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let y = if a < SPLIT {
        fma(a, horner(&SMALL, a * a), a)
    } else {
        // Written so that a NaN passes.
        let a = if a > SATURATION { SATURATION } else { a };
        1.0 - horner(&LARGE, a - CENTRE)
    };
    y.copysign(x)
}

/// The polynomial with these coefficients, lowest power first, by fma from the highest down.
#[inline]
fn horner(coefficients: &[f32], x: f32) -> f32 {
    let (highest, rest) = coefficients.split_last().expect("a polynomial has a coefficient");
    rest.iter().rev().fold(*highest, |p, &c| fma(p, x, c))
}
