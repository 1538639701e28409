//! Functions of one vector: the storing rule, exp, erf, gelu. Each restates `arithmetic`'s scalar function,
//! operation by operation.

use super::lanes::Lanes;

use gainsay_arithmetic::scalar::{CANONICAL_NAN, MIN_NORMAL};

/// `arithmetic::store`.
#[inline(always)]
pub(crate) fn store_rule<V: Lanes>(v: V, x: V::F) -> V::F {
    let magnitude = absolute(v, x);
    let flushed = v.select(v.less(magnitude, v.splat(MIN_NORMAL)), v.splat(0.0), x);
    v.select(v.is_nan(x), v.splat(CANONICAL_NAN), flushed)
}

#[inline(always)]
fn absolute<V: Lanes>(v: V, x: V::F) -> V::F {
    v.float(v.and(v.bits(x), v.splat_int(i32::MAX)))
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
    let mut values = [0.0; 16];
    v.store(x, &mut values);
    v.load(&values.map(gainsay_arithmetic::exp))
}

/// `arithmetic::gelu`.
#[inline(always)]
pub(crate) fn gelu<V: Lanes>(v: V, x: V::F) -> V::F {
    let mut values = [0.0; 16];
    v.store(x, &mut values);
    v.load(&values.map(gainsay_arithmetic::gelu))
}
