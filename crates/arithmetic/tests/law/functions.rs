//! exp and erf and what is made of them: bounds, edges, and the second implementation over a sweep of all floats.
//!
//! `examples/ulp.rs` measures every argument; here every few-thousandth is enough to notice a changed constant.

use gainsay_arithmetic::{canonical, erf, exp, gelu, gelu_tanh, silu, tanh};

use crate::numbers::edges;
use crate::reference;

/// Prime, so that the sweep meets all low bits.
const STRIDE: usize = 4_093;

fn sweep() -> impl Iterator<Item = f32> {
    (0..=u32::MAX).step_by(STRIDE).map(f32::from_bits).chain(edges())
}

fn agrees(name: &str, function: fn(f32) -> f32, reference: fn(f32) -> f32) {
    for x in sweep() {
        let (got, expected) = (canonical(function(x)), canonical(reference(x)));
        assert_eq!(got.to_bits(), expected.to_bits(), "{name} at {x:e} ({:08x})", x.to_bits());
    }
}

#[test]
fn all_agree_with_the_second_implementation() {
    agrees("exp", exp, reference::exp);
    agrees("erf", erf, reference::erf);
    agrees("tanh", tanh, reference::tanh);
    agrees("silu", silu, reference::silu);
    agrees("gelu", gelu, reference::gelu);
    agrees("gelu_tanh", gelu_tanh, reference::gelu_tanh);
}

/// Units in the last place between a result and the exact value.
fn ulps(got: f32, exact: f64) -> f64 {
    let exponent = exact.abs().log2().floor().max(-126.0);
    (f64::from(got) - exact).abs() / (exponent - 23.0).exp2()
}

#[test]
fn exp_is_within_one_ulp() {
    for x in sweep().filter(|&x| (-87.3..=88.722_83).contains(&x)) {
        let error = ulps(exp(x), libm::exp(f64::from(x)));
        assert!(error <= 1.0, "exp at {x:e}: {error} ulp");
    }
}

#[test]
fn erf_is_within_one_ulp() {
    for x in sweep().filter(|x| x.is_finite() && *x != 0.0) {
        let error = ulps(erf(x), libm::erf(f64::from(x)));
        assert!(error <= 1.0, "erf at {x:e}: {error} ulp");
    }
}

#[test]
fn exp_has_sharp_thresholds_and_no_subnormal_result() {
    let least = f32::from_bits(0xc2ae_999a);
    let greatest = f32::from_bits(0x42b1_7217);
    assert!(exp(least) >= f32::MIN_POSITIVE);
    assert_eq!(exp(least.next_down()).to_bits(), 0);
    assert!(exp(greatest).is_finite());
    assert_eq!(exp(greatest.next_up()), f32::INFINITY);
    assert_eq!(exp(f32::NEG_INFINITY).to_bits(), 0);
    assert_eq!(exp(f32::INFINITY), f32::INFINITY);
    assert!(exp(f32::NAN).is_nan());
    for tiny in [0.0, -0.0, f32::from_bits(1), -f32::from_bits(1), 1e-30] {
        assert_eq!(exp(tiny), 1.0, "exp({tiny:e})");
    }
}

#[test]
fn erf_is_odd_bounded_and_saturates_at_four() {
    for x in sweep().filter(|x| !x.is_nan()) {
        let y = erf(x);
        assert_eq!(erf(-x).to_bits(), (-y).to_bits(), "odd at {x:e}");
        assert!(y.abs() <= 1.0, "erf({x:e}) = {y:e}");
        assert_eq!(y.is_sign_negative(), x.is_sign_negative(), "sign at {x:e}");
    }
    for x in [4.0, 4.0f32.next_up(), 100.0, f32::MAX, f32::INFINITY] {
        assert_eq!((erf(x), erf(-x)), (1.0, -1.0), "at {x:e}");
    }
    assert!(erf(f32::NAN).is_nan());
    assert!(erf(3.7) < 1.0);
}

/// Absolute error against binary64, relative to max(1, |x|): what an activation is judged by.
fn close(name: &str, function: fn(f32) -> f32, exact: fn(f64) -> f64) {
    for x in sweep().filter(|x| x.abs() < 1e4) {
        let (got, exact) = (f64::from(function(x)), exact(f64::from(x)));
        let error = (got - exact).abs() / f64::from(x).abs().max(1.0);
        assert!(error < 2.5e-7, "{name} at {x:e}: {got:e} instead of {exact:e}");
    }
}

#[test]
fn activations_are_what_their_names_say() {
    close("tanh", tanh, libm::tanh);
    close("silu", silu, |x| x / (1.0 + libm::exp(-x)));
    close("gelu", gelu, |x| 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)));
    close("gelu_tanh", gelu_tanh, |x| {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
        0.5 * x * (1.0 + libm::tanh(inner))
    });
}

#[test]
fn activations_are_total() {
    for function in [tanh, silu, gelu, gelu_tanh] {
        assert!(function(f32::NAN).is_nan());
        assert_eq!(function(0.0), 0.0);
    }
    assert_eq!((tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)), (1.0, -1.0));
    for function in [silu, gelu, gelu_tanh] {
        assert_eq!(function(f32::INFINITY), f32::INFINITY);
        assert!(function(f32::NEG_INFINITY).is_nan(), "−∞ · 0 or −∞ / ∞");
        assert_eq!(function(f32::MAX), f32::MAX);
        assert_eq!(function(f32::MIN), 0.0);
    }
}
