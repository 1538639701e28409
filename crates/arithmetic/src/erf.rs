//! The error function: two polynomials, joined by a selection that vectors can make without a branch.

use crate::scalar::fma;

/// Where the polynomial in x² ends and the one in |x| begins, 1.1875.
pub const SPLIT: f32 = f32::from_bits(0x3f98_0000);
/// From here on, 4, the result is ±1.
pub const SATURATION: f32 = f32::from_bits(0x4080_0000);
/// What is subtracted from x² in the first range, 0.5.
pub const SHIFT: f32 = f32::from_bits(0x3f00_0000);
/// What is subtracted from |x| in the second range, 2.5625.
pub const CENTRE: f32 = f32::from_bits(0x4024_0000);

/// c₀ to c₇ of erf(a)/a − 1 ≈ Σ cᵢtⁱ with t = a² − 0.5, for a < 1.1875; found by `scripts/minimax.py`.
pub const SMALL: [f32; 8] = [
    f32::from_bits(0xbd0d_70a7),
    f32::from_bits(0xbe8f_e8b1),
    f32::from_bits(0x3da2_a1b4),
    f32::from_bits(0xbc95_c832),
    f32::from_bits(0x3b64_17bd),
    f32::from_bits(0xba13_2ee7),
    f32::from_bits(0x38a3_7b76),
    f32::from_bits(0xb708_fb77),
];

/// c₀ to c₁₃ of 1 − erf(a) ≈ Σ cᵢtⁱ with t = a − 2.5625, for 1.1875 ≤ a ≤ 4; found by `scripts/minimax.py`.
pub const LARGE: [f32; 14] = [
    f32::from_bits(0x3998_210c),
    f32::from_bits(0xbad0_1092),
    f32::from_bits(0x3b85_4e07),
    f32::from_bits(0xbbd2_665d),
    f32::from_bits(0x3be1_081a),
    f32::from_bits(0xbba7_7ce9),
    f32::from_bits(0x3b26_c4b1),
    f32::from_bits(0xba2a_55e2),
    f32::from_bits(0xb916_a5c2),
    f32::from_bits(0x395f_559b),
    f32::from_bits(0xb898_63de),
    f32::from_bits(0xb696_396b),
    f32::from_bits(0x3714_8c46),
    f32::from_bits(0xb5d2_04f2),
];

/// erf(x), within 1 ulp for every finite `x`; odd to the bit, ±1 from |x| = 4 on, NaN for NaN.
///
/// In this order, with a = |x|:
///
/// ```text
/// a < 1.1875:  t = fma(a, a, −0.5);       p = SMALL[7];   p = fma(p, t, SMALL[6]);   …  SMALL[0];  y = fma(a, p, a)
/// else:        t = min(a, 4) − 2.5625;    q = LARGE[13];  q = fma(q, t, LARGE[12]);  …  LARGE[0];  y = 1 − q
/// result = y with the sign of x
/// ```
#[must_use]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let y = if a < SPLIT {
        fma(a, horner(&SMALL, fma(a, a, -SHIFT)), a)
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
