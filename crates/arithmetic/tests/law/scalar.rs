//! The primitives: one rounding in fma, the rule for stored results, the 16-bit formats.

use gainsay_arithmetic::scalar::{fma, fma_by_doubles, sqrt};
use gainsay_arithmetic::{canonical, round_bf16, store, widen_bf16, widen_f16};

use crate::numbers::{Random, edges};

fn same(a: f32, b: f32) -> bool {
    canonical(a).to_bits() == canonical(b).to_bits()
}

/// Against the pure-Rust libm and the platform's own.
fn check_fma(a: f32, b: f32, c: f32) {
    let expected = libm::fmaf(a, b, c);
    assert!(same(expected, a.mul_add(b, c)), "libm and the platform differ at {a:e} {b:e} {c:e}");
    for got in [fma_by_doubles(a, b, c), fma(a, b, c)] {
        assert!(
            same(got, expected),
            "fma({:08x}, {:08x}, {:08x}) = {:08x}, not {:08x}",
            a.to_bits(),
            b.to_bits(),
            c.to_bits(),
            got.to_bits(),
            expected.to_bits()
        );
    }
}

#[test]
fn fma_rounds_once_on_every_triple_of_edges() {
    let edges = edges();
    for &a in &edges {
        for &b in &edges {
            for &c in &edges {
                check_fma(a, b, c);
            }
        }
    }
}

#[test]
fn fma_rounds_once_on_millions_of_random_triples() {
    const SEED: u64 = 20;
    let mut random = Random::new(SEED);
    for _ in 0..2_000_000 {
        check_fma(random.any(), random.any(), random.any());
        check_fma(random.near_one(3), random.near_one(3), random.near_one(6));
        check_fma(random.near_one(12), random.near_one(12), random.near_one(40));
    }
}

/// Sums that a first rounding to binary64 puts on a midpoint of binary32, from either side: a product with few
/// bits decides the midpoint, an addend far below it decides the side. Without the repair about half of these fail.
#[test]
fn fma_rounds_once_beside_midpoints() {
    let mut random = Random::new(21);
    for _ in 0..500_000 {
        let word = random.word();
        // a·b is an odd multiple of half a unit: 25 significant bits.
        let a = f32::from_bits(0x3f80_0000 | (word as u32 & 0x0000_0fff) << 11 | 0x0000_0400);
        let b = 1.0 + f32::EPSILON * 4096.0 * (word >> 32 & 0x7) as f32;
        let tiny =
            f32::from_bits(((word >> 40) as u32 & 0x3f) << 23 | 0x0080_0000 | (word >> 46) as u32 & 0x3f);
        for c in [tiny, -tiny] {
            check_fma(a, b, c);
            check_fma(a, -b, c);
        }
    }
}

/// The same below 2⁻¹²⁶, where midpoints are odd multiples of 2⁻¹⁵⁰: a product 2⁻¹⁹⁶ short of 2⁻¹⁵⁰ beside an addend of any
/// size there, and one a little more than that.
#[test]
fn fma_rounds_once_beside_midpoints_of_subnormals() {
    let root = f32::from_bits(0x1a00_0000); // 2^-75
    let (below, above) = (root * (1.0 - f32::EPSILON), root * (1.0 + f32::EPSILON));
    let mut random = Random::new(23);
    for _ in 0..200_000 {
        let c = f32::from_bits(random.word() as u32 & 0x80ff_ffff);
        for (a, b) in [(below, above), (above, above), (below, below), (root, root)] {
            check_fma(a, b, c);
            check_fma(a, -b, c);
        }
    }
}

/// The case by hand: 1 + 2⁻²⁴ is a midpoint; what is added below decides, however small.
#[test]
fn fma_sees_what_binary64_cannot_hold() {
    let half_unit = f32::from_bits(0x3380_0000); // 2^-24
    let tiny = f32::from_bits(0x0080_0000); // 2^-126
    let product = (1.0 + f32::EPSILON, 1.0 - half_unit); // 1 + 2^-24 - 2^-47
    assert_eq!(fma(half_unit, 1.0, 1.0).to_bits(), 0x3f80_0000, "a tie goes to the even neighbour");
    assert_eq!(fma(product.0, product.1, 0.0).to_bits(), 0x3f80_0000, "below the midpoint");
    let odd = f32::from_bits(0x3f80_0001);
    assert_eq!(fma(half_unit, 1.0, odd).to_bits(), 0x3f80_0002, "a tie goes to the even neighbour");
    let (a, b) = (f32::from_bits(0x3f80_0800), f32::from_bits(0x3f80_0800)); // (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24
    assert_eq!(fma(a, b, 0.0).to_bits(), 0x3f80_1000);
    assert_eq!(fma(a, b, tiny).to_bits(), 0x3f80_1001, "above the midpoint by 2^-126");
    assert_eq!(fma(a, b, -tiny).to_bits(), 0x3f80_1000, "below it by 2^-126");
}

#[test]
fn sqrt_is_the_ieee_operation() {
    let mut random = Random::new(22);
    for x in edges().into_iter().chain((0..1_000_000).map(|_| random.any())) {
        assert!(same(sqrt(x), x.sqrt()), "sqrt({:08x})", x.to_bits());
    }
    assert_eq!(sqrt(-0.0).to_bits(), 0x8000_0000);
}

/// The rule must hold against the optimizer too: x86 makes a negative NaN of a negative root, and LLVM takes a rule that
/// compares floats for redundant there.
#[test]
fn canonical_holds_behind_every_operation() {
    let operations: [fn(f32) -> f32; 6] = [
        |x| canonical(x.sqrt()),
        |x| store(x.sqrt()),
        |x| canonical((x - x) / (x - x)),
        |x| store(x * f32::INFINITY - x * f32::INFINITY),
        |x| canonical(fma(x, f32::INFINITY, -x * f32::INFINITY)),
        |x| store(1.0 / sqrt(x)),
    ];
    for operation in operations {
        for x in [-1.0, -2.5, -f32::MAX] {
            assert_eq!(operation(std::hint::black_box(x)).to_bits(), 0x7fc0_0000, "from {x:e}");
        }
    }
}

#[test]
fn stored_results_hold_one_nan_and_no_subnormal_nor_minus_zero() {
    for x in edges() {
        let stored = store(x);
        assert_eq!(store(stored).to_bits(), stored.to_bits(), "storing is idempotent");
        if x.is_nan() {
            assert_eq!((stored.to_bits(), canonical(x).to_bits()), (0x7fc0_0000, 0x7fc0_0000));
        } else {
            assert_eq!(canonical(x).to_bits(), x.to_bits());
            let expected = if x.abs() < f32::MIN_POSITIVE { 0 } else { x.to_bits() };
            assert_eq!(stored.to_bits(), expected, "store({:08x})", x.to_bits());
        }
    }
}

#[test]
fn every_bf16_survives_widening_and_rounding() {
    for bits in 0..=u16::MAX {
        let value = widen_bf16(bits);
        if value.is_nan() {
            assert_eq!((value.to_bits(), round_bf16(value)), (0x7fc0_0000, 0x7fc0));
        } else {
            assert_eq!(round_bf16(value), bits);
        }
    }
}

#[test]
fn bf16_rounds_ties_to_even_and_overflows_to_infinity() {
    let cases = [
        (0x3f80_7fff, 0x3f80),
        (0x3f80_8000, 0x3f80),
        (0x3f80_8001, 0x3f81),
        (0x3f81_8000, 0x3f82),
        (0x7f7f_7fff, 0x7f7f),
        (0x7f7f_8000, 0x7f80),
        (0xff7f_ffff, 0xff80),
        (0x7f80_0001, 0x7fc0),
        (0xffff_ffff, 0x7fc0),
        (0x8000_0000, 0x8000),
    ];
    for (from, to) in cases {
        assert_eq!(round_bf16(f32::from_bits(from)), to, "{from:08x}");
    }
}

/// All 2¹⁶ of each format against a formula in binary64.
#[test]
fn widening_is_exact_for_every_number() {
    for bits in 0..=u16::MAX {
        assert!(same(widen_f16(bits), crate::reference::widen_f16(bits)), "f16 {bits:04x}");
        assert!(same(widen_bf16(bits), crate::reference::widen_bf16(bits)), "bf16 {bits:04x}");
    }
}
