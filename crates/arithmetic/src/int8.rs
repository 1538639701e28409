//! Linear layers of the profile `exact-int8/1`: symmetric quantization by groups along K, exact integer dots.

use crate::scalar::{CANONICAL_NAN, fma, round_ties_even};

/// The longest group for which both integer dots fit an i32 whatever the bytes: 128·128·131,071 < 2³¹.
pub const MAX_GROUP: usize = 131_071;

/// A group whose greatest magnitude is below 2⁻¹⁰⁰ is quantized to zeros: its reciprocal would overflow.
const LEAST_AMAX: f32 = f32::from_bits(0x0d80_0000);

/// How finely activations are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationBits {
    /// One signed digit, ±127.
    Eight,
    /// ±32,512 in two signed base-256 digits: two integer dots instead of one.
    Sixteen,
}

impl ActivationBits {
    /// The greatest level: 127, or 127·256.
    #[must_use]
    pub const fn limit(self) -> f32 {
        match self {
            Self::Eight => 127.0,
            Self::Sixteen => 32_512.0,
        }
    }
}

/// How the values of one group become levels: level = clamp(rne(x · factor), ±limit), x ≈ level · scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// The greatest level.
    pub limit: f32,
    /// Levels per unit; 0 where all levels are 0, whatever the values.
    pub factor: f32,
    /// Units per level.
    pub scale: f32,
}

impl Grid {
    /// The grid of a group.
    #[must_use]
    pub fn of(group: &[f32], bits: ActivationBits) -> Self {
        if group.iter().any(|x| !x.is_finite()) {
            return Self::from_greatest(f32::INFINITY, bits);
        }
        let amax = group.iter().fold(0.0, |amax, x| if x.abs() > amax { x.abs() } else { amax });
        Self::from_greatest(amax, bits)
    }

    /// The grid of a group whose greatest magnitude is `amax`; NaN or ∞ says that one of its values is not finite.
    ///
    /// Scale `amax / limit`, factor `limit / amax`. A group that holds a NaN or ±∞ has scale NaN, one with
    /// `amax < 2⁻¹⁰⁰` (an empty one too) scale 0; both have only levels 0.
    #[must_use]
    pub fn from_greatest(amax: f32, bits: ActivationBits) -> Self {
        let limit = bits.limit();
        if !amax.is_finite() {
            return Self { limit, factor: 0.0, scale: CANONICAL_NAN };
        }
        if amax < LEAST_AMAX {
            return Self { limit, factor: 0.0, scale: 0.0 };
        }
        Self { limit, factor: limit / amax, scale: amax / limit }
    }

    /// The level of one element of the group. A NaN (0 · ∞ or 0 · NaN) becomes 0, as the cast says.
    #[inline]
    fn level(&self, x: f32) -> i32 {
        round_ties_even(x * self.factor).clamp(-self.limit, self.limit) as i32
    }
}

/// Splits a level of ±32,512 into digits: `level = 256·hi + lo`, `lo` in −128..=127, `hi` in −127..=127.
#[inline]
fn digits(level: i32) -> (i8, i8) {
    let lo = ((level + 128) & 255) - 128;
    let hi = (level - lo) / 256;
    (hi as i8, lo as i8)
}

/// Quantizes a group of weights or activations to ±127 and returns its scale.
///
/// With `amax` the greatest magnitude: scale `amax/127`, `q = clamp(rne(x · (127/amax)), ±127)`. A group with
/// `amax < 2⁻¹⁰⁰` gives scale 0 and zeros; one that holds a NaN or ±∞ gives scale NaN and zeros.
///
/// # Panics
/// If `x` and `q` differ in length.
pub fn quantize_group(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len(), "one level for each value of the group");
    let grid = Grid::of(x, ActivationBits::Eight);
    for (q, &x) in q.iter_mut().zip(x) {
        *q = grid.level(x) as i8;
    }
    grid.scale
}

/// Quantizes a group of activations to ±32,512 in two digits and returns its scale.
///
/// The rules of [`quantize_group`] with 32,512 for 127; then `lo = ((q + 128) & 255) − 128` and
/// `hi = (q − lo) / 256`.
///
/// # Panics
/// If `x`, `hi` and `lo` differ in length.
pub fn quantize_group16(x: &[f32], hi: &mut [i8], lo: &mut [i8]) -> f32 {
    assert!(x.len() == hi.len() && x.len() == lo.len(), "two digits for each value of the group");
    let grid = Grid::of(x, ActivationBits::Sixteen);
    for ((hi, lo), &x) in hi.iter_mut().zip(lo).zip(x) {
        (*hi, *lo) = digits(grid.level(x));
    }
    grid.scale
}

/// One output of an int8 linear layer: `t` starts at `bias` or +0, and for each group in order
/// `t = fma(f32(acc), sa·sw, t)`, where `acc` is the exact integer dot, `sa` the group's activation scale and
/// `sw` its weight scale. With 16-bit activations `fma(f32(acc_hi), 256, f32(acc_lo))` takes the place of `f32(acc)`.
///
/// `x` is a token's row of activations, `w` an output channel's row of quantized weights, both of length K;
/// `scales` has one weight scale for each of the K / `group` groups.
///
/// # Panics
/// If `group` is 0, longer than [`MAX_GROUP`] or does not divide K, or if lengths do not match.
#[must_use]
pub fn linear(
    x: &[f32],
    w: &[i8],
    scales: &[f32],
    group: usize,
    bits: ActivationBits,
    bias: Option<f32>,
) -> f32 {
    assert!((1..=MAX_GROUP).contains(&group), "a group has 1 to {MAX_GROUP} elements");
    assert_eq!(x.len(), w.len(), "one weight for each activation");
    assert_eq!(x.len(), scales.len() * group, "one scale for each group, which divide the row");
    let mut t = bias.unwrap_or(0.0);
    for ((x, w), &weight_scale) in x.chunks_exact(group).zip(w.chunks_exact(group)).zip(scales) {
        let grid = Grid::of(x, bits);
        let sum = match bits {
            ActivationBits::Eight => group_dot(&grid, x, w),
            ActivationBits::Sixteen => group_dot16(&grid, x, w),
        };
        t = fma(sum, grid.scale * weight_scale, t);
    }
    t
}

fn group_dot(grid: &Grid, x: &[f32], w: &[i8]) -> f32 {
    x.iter().zip(w).fold(0, |acc, (&x, &w)| acc + grid.level(x) * i32::from(w)) as f32
}

fn group_dot16(grid: &Grid, x: &[f32], w: &[i8]) -> f32 {
    let (hi, lo) = x.iter().zip(w).fold((0, 0), |(acc_hi, acc_lo), (&x, &w)| {
        let (hi, lo) = digits(grid.level(x));
        let w = i32::from(w);
        (acc_hi + i32::from(hi) * w, acc_lo + i32::from(lo) * w)
    });
    fma(hi as f32, 256.0, lo as f32)
}
