//! The primitive operations behind two functions, and the rule for stored results.

/// The one NaN that a stored result may be.
pub const CANONICAL_NAN: f32 = f32::from_bits(0x7fc0_0000);

/// Smallest positive normal binary32, 2⁻¹²⁶: what is smaller in magnitude is stored as +0.
pub const MIN_NORMAL: f32 = f32::from_bits(0x0080_0000);

/// `a·b + c` with one rounding, to nearest even.
///
/// Uses the hardware instruction where the feature `std` is on and the target promises one, else
/// [`fma_by_doubles`]; the bits are the same.
#[inline(always)]
#[must_use]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(all(feature = "std", any(target_feature = "fma", target_arch = "aarch64")))]
    {
        a.mul_add(b, c)
    }
    #[cfg(not(all(feature = "std", any(target_feature = "fma", target_arch = "aarch64"))))]
    {
        fma_by_doubles(a, b, c)
    }
}

/// [`fma`] without the instruction: the product of two binary32 is exact in binary64, so only the sum rounds.
///
/// Rounding that sum to binary64 and then to binary32 can differ from one rounding only where the first
/// lands on a midpoint between two binary32, which `narrow_to_odd` repairs. For results in the normal range a
/// midpoint has the 29 surplus bits `1000…0`; below it midpoints lie elsewhere, so all of those are repaired.
#[inline(always)]
#[must_use]
pub fn fma_by_doubles(a: f32, b: f32, c: f32) -> f32 {
    const SURPLUS: u64 = 0x1fff_ffff;
    const MIDPOINT: u64 = 0x1000_0000;
    let product = f64::from(a) * f64::from(b);
    let c = f64::from(c);
    let sum = product + c;
    let is_midpoint = sum.to_bits() & SURPLUS == MIDPOINT;
    let is_tiny = sum.abs() < MIN_NORMAL as f64 && sum != 0.0;
    if is_midpoint || is_tiny { narrow_to_odd(product, c, sum) } else { sum as f32 }
}

/// Rounds `product + c` to binary32 once, `sum` being that sum rounded to binary64.
///
/// The exact error of `sum` (Knuth's two-sum) decides whether the last bit becomes sticky: "round to odd".
/// 53 bits are more than 24 + 2, so rounding the sticky value again gives the rounding of the exact sum.
#[cold]
fn narrow_to_odd(product: f64, c: f64, sum: f64) -> f32 {
    let c_part = sum - product;
    let error = (product - (sum - c_part)) + (c - c_part);
    let bits = sum.to_bits();
    let is_even = bits & 1 == 0;
    // Neither comparison holds for an exact sum or a NaN.
    let away_from_zero = (error > 0.0 && sum > 0.0) || (error < 0.0 && sum < 0.0);
    let towards_zero = (error < 0.0 && sum > 0.0) || (error > 0.0 && sum < 0.0);
    let sticky = match (is_even, away_from_zero, towards_zero) {
        (true, true, _) => bits + 1,
        (true, _, true) => bits - 1,
        _ => bits,
    };
    f64::from_bits(sticky) as f32
}

/// The IEEE square root, rounded to nearest even; NaN for `x < 0`, and `sqrt(−0) = −0`.
#[inline]
#[must_use]
pub fn sqrt(x: f32) -> f32 {
    #[cfg(feature = "std")]
    {
        x.sqrt()
    }
    #[cfg(not(feature = "std"))]
    {
        libm::sqrtf(x)
    }
}

/// The bits of a magnitude: all but the sign.
const MAGNITUDE: u32 = 0x7fff_ffff;

/// The rule for NaN alone: every NaN becomes [`CANONICAL_NAN`], everything else stays.
///
/// Results inside virtual layers obey this and no more. It is written on bits because a compiler may take a
/// comparison of floats as leave to keep the NaN at hand: LLVM's x86 back end drops `select(x < 0, NaN, sqrt(x))`.
#[inline]
#[must_use]
pub fn canonical(x: f32) -> f32 {
    if x.to_bits() & MAGNITUDE > f32::INFINITY.to_bits() { CANONICAL_NAN } else { x }
}

/// The rule for the stored output of every op: [`canonical`], and +0 for magnitudes below 2⁻¹²⁶, −0 included.
///
/// Subnormal operands run two orders of magnitude slower on x86; with this rule no op meets one.
#[inline]
#[must_use]
pub fn store(x: f32) -> f32 {
    if x.to_bits() & MAGNITUDE < MIN_NORMAL.to_bits() { 0.0 } else { canonical(x) }
}

/// Rounds to the nearest integer, ties to even, for `|x| < 2²²`; NaN stays NaN.
#[inline]
pub(crate) fn round_ties_even(x: f32) -> f32 {
    /// 1.5·2²³: at this magnitude the spacing of binary32 is 1, on either side.
    const SHIFT: f32 = f32::from_bits(0x4b40_0000);
    (x + SHIFT) - SHIFT
}
