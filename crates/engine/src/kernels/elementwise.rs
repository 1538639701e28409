//! Functions of one vector: the storing rule, exp, erf, activations, rounding. Each restates `arithmetic`'s scalar function,
//! operation by operation.

use gainsay_arithmetic::activation::FRAC_1_SQRT_2;
use gainsay_arithmetic::scalar::{CANONICAL_NAN, MIN_NORMAL};
use gainsay_arithmetic::{erf as erf_of, exp as exp_of};

use super::lanes::Lanes;

/// Everything but the sign.
const MAGNITUDE: i32 = i32::MAX;
/// The sign.
const SIGN: i32 = i32::MIN;

/// `arithmetic::store`.
#[inline(always)]
pub(crate) fn store_rule<V: Lanes>(v: V, x: V::F) -> V::F {
    let magnitude = absolute(v, x);
    let flushed = v.select(v.less(magnitude, v.splat(MIN_NORMAL)), v.splat(0.0), x);
    v.select(v.is_nan(x), v.splat(CANONICAL_NAN), flushed)
}

#[inline(always)]
fn absolute<V: Lanes>(v: V, x: V::F) -> V::F {
    v.float(v.and(v.bits(x), v.splat_int(MAGNITUDE)))
}

/// The first floats of a vector from up to [`Lanes::LANES`] floats, the others being +0.
#[inline(always)]
pub(crate) fn load_front<V: Lanes>(v: V, from: &[f32]) -> V::F {
    if from.len() >= V::LANES {
        return v.load(from);
    }
    let mut padded = [0.0; 16];
    padded[..from.len()].copy_from_slice(from);
    v.load(&padded)
}

/// Writes as many floats of a vector as `to` holds, at most [`Lanes::LANES`].
#[inline(always)]
pub(crate) fn store_front<V: Lanes>(v: V, x: V::F, to: &mut [f32]) {
    if to.len() >= V::LANES {
        return v.store(x, to);
    }
    let mut padded = [0.0; 16];
    v.store(x, &mut padded);
    to.copy_from_slice(&padded[..to.len()]);
}

/// `arithmetic::exp`.
#[inline(always)]
pub(crate) fn exp<V: Lanes>(v: V, x: V::F) -> V::F {
    let shift = v.splat(exp_of::SHIFT);
    let k = v.fma(x, v.splat(exp_of::LOG2_E), shift);
    let n = v.sub(k, shift);
    let r = v.fma(n, v.splat(exp_of::MINUS_LN2_HIGH), x);
    let r = v.fma(n, v.splat(exp_of::MINUS_LN2_LOW), r);
    let one = v.splat(1.0);
    let p = horner(v, &exp_of::COEFFICIENTS, r);
    let p = v.fma(v.fma(p, r, one), r, one);
    let scaled = v.float(v.add_int(v.bits(p), v.shift_left::<23>(v.bits(k))));
    let above = v.less(v.splat(exp_of::EXP_INFINITE_ABOVE), x);
    let scaled = v.select(above, v.splat(f32::INFINITY), scaled);
    let scaled = v.select(v.less(x, v.splat(exp_of::EXP_ZERO_BELOW)), v.splat(0.0), scaled);
    v.select(v.is_nan(x), x, scaled)
}

/// `arithmetic::erf`: both polynomials, and a selection.
#[inline(always)]
pub(crate) fn erf<V: Lanes>(v: V, x: V::F) -> V::F {
    let a = absolute(v, x);
    let t = v.fma(a, a, v.splat(-erf_of::SHIFT));
    let small = v.fma(a, horner(v, &erf_of::SMALL, t), a);
    let saturation = v.splat(erf_of::SATURATION);
    let clamped = v.select(v.less(saturation, a), saturation, a);
    let t = v.sub(clamped, v.splat(erf_of::CENTRE));
    let large = v.sub(v.splat(1.0), horner(v, &erf_of::LARGE, t));
    let y = v.select(v.less(a, v.splat(erf_of::SPLIT)), small, large);
    let sign = v.and(v.bits(x), v.splat_int(SIGN));
    v.float(v.or(v.bits(absolute(v, y)), sign))
}

/// `arithmetic::gelu`.
#[inline(always)]
pub(crate) fn gelu<V: Lanes>(v: V, x: V::F) -> V::F {
    let one_plus_erf = v.add(v.splat(1.0), erf(v, v.mul(x, v.splat(FRAC_1_SQRT_2))));
    v.mul(v.mul(v.splat(0.5), x), one_plus_erf)
}

/// `arithmetic::silu`.
#[inline(always)]
pub(crate) fn silu<V: Lanes>(v: V, x: V::F) -> V::F {
    v.div(x, v.add(v.splat(1.0), exp(v, v.mul(x, v.splat(-1.0)))))
}

/// `arithmetic::round_bf16`, widened again.
#[inline(always)]
pub(crate) fn round_bf16<V: Lanes>(v: V, x: V::F) -> V::F {
    let bits = v.bits(x);
    let odd = v.and(v.shift_right::<16>(bits), v.splat_int(1));
    let rounded = v.add_int(bits, v.add_int(odd, v.splat_int(0x7fff)));
    let kept = v.float(v.and(rounded, v.splat_int(!0xffff)));
    v.select(v.is_nan(x), v.splat(CANONICAL_NAN), kept)
}

/// The polynomial with these coefficients, lowest power first, by fma from the highest down.
#[inline(always)]
fn horner<V: Lanes>(v: V, coefficients: &[f32], x: V::F) -> V::F {
    let (&highest, rest) = coefficients.split_last().expect("a polynomial has a coefficient");
    let mut p = v.splat(highest);
    for &c in rest.iter().rev() {
        p = v.fma(p, x, v.splat(c));
    }
    p
}
