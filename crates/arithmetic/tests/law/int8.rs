//! Quantization and integer linears: the edge rules one by one, and exactness against i64.

use gainsay_arithmetic::int8::{ActivationBits, MAX_GROUP, linear, quantize_group, quantize_group16};

use crate::numbers::Random;
use crate::reference;

fn quantize(x: &[f32]) -> (Vec<i8>, f32) {
    let mut q = vec![99; x.len()];
    let scale = quantize_group(x, &mut q);
    (q, scale)
}

/// The levels as integers, and the scale.
fn quantize16(x: &[f32]) -> (Vec<i32>, f32) {
    let (mut hi, mut lo) = (vec![99; x.len()], vec![99; x.len()]);
    let scale = quantize_group16(x, &mut hi, &mut lo);
    (hi.iter().zip(lo).map(|(&hi, lo)| 256 * i32::from(hi) + i32::from(lo)).collect(), scale)
}

#[test]
fn levels_round_ties_to_even() {
    let x = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5, 0.500_000_06, 0.499_999_97];
    assert_eq!(quantize(&x), (vec![127, 0, 2, 2, 0, -2, -2, 126, -126, 1, 0], 1.0));
    let x = [32_512.0, 0.5, 1.5, -2.5, 32_510.5, -32_511.5];
    assert_eq!(quantize16(&x), (vec![32_512, 0, 2, -2, 32_510, -32_512], 1.0));
}

#[test]
fn the_greatest_magnitude_becomes_the_limit() {
    const SEED: u64 = 40;
    let mut random = Random::new(SEED);
    for _ in 0..20_000 {
        let x = random.row(4, 95);
        let (q, scale) = quantize(&x);
        let (q16, scale16) = quantize16(&x);
        assert_eq!(q.iter().map(|q| q.unsigned_abs()).max(), Some(127), "{x:?}");
        assert_eq!(q16.iter().map(|q| q.unsigned_abs()).max(), Some(32_512), "{x:?}");
        for i in 0..x.len() {
            let (value, limit) = (f64::from(x[i]), 0.5 + 1e-3);
            assert!((value - f64::from(q[i]) * f64::from(scale)).abs() <= limit * f64::from(scale), "{x:?}");
            let limit16 = 0.5 + 1e-2;
            assert!(
                (value - f64::from(q16[i]) * f64::from(scale16)).abs() <= limit16 * f64::from(scale16),
                "{x:?}"
            );
        }
    }
}

#[test]
fn a_group_below_the_least_amax_is_zero() {
    let least = f32::from_bits(0x0d80_0000);
    let below = least.next_down();
    assert_eq!(quantize(&[below, -below, 0.0]), (vec![0, 0, 0], 0.0));
    assert_eq!(quantize16(&[below, -below, 0.0]), (vec![0, 0, 0], 0.0));
    assert_eq!(quantize(&[least, -least, 0.0]), (vec![127, -127, 0], least / 127.0));
    assert_eq!(quantize16(&[least, -least]), (vec![32_512, -32_512], least / 32_512.0));
    // Without the rule the factor would overflow here and 0 · ∞ would be NaN.
    assert_eq!(127.0 / 1e-38f32, f32::INFINITY);
    assert_eq!(quantize(&[1e-38, 0.0]), (vec![0, 0], 0.0));
    assert_eq!(quantize(&[]), (vec![], 0.0));
    assert_eq!(quantize(&[-0.0, 0.0]).1.to_bits(), 0);
}

#[test]
fn the_greatest_finite_values_quantize() {
    assert_eq!(quantize(&[f32::MAX, f32::MIN, 1.0]), (vec![127, -127, 0], f32::MAX / 127.0));
    assert_eq!(quantize16(&[f32::MIN]), (vec![-32_512], f32::MAX / 32_512.0));
}

#[test]
fn a_group_with_a_nan_or_an_infinity_has_scale_nan_and_zeros() {
    for bad in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::INFINITY, f32::NEG_INFINITY] {
        for at in 0..3 {
            let mut x = [1.0, -2.0, 3.0];
            x[at] = bad;
            let ((q, scale), (q16, scale16)) = (quantize(&x), quantize16(&x));
            assert_eq!((q, q16), (vec![0; 3], vec![0; 3]));
            assert_eq!((scale.to_bits(), scale16.to_bits()), (0x7fc0_0000, 0x7fc0_0000));
        }
    }
}

#[test]
fn digits_are_signed_bytes_for_every_level() {
    let levels: Vec<f32> = (-32_512..=32_512).map(|level| level as f32).collect();
    let (mut hi, mut lo) = (vec![0; levels.len()], vec![0; levels.len()]);
    assert_eq!(quantize_group16(&levels, &mut hi, &mut lo), 1.0);
    for (i, level) in (-32_512..=32_512).enumerate() {
        assert_eq!(256 * i32::from(hi[i]) + i32::from(lo[i]), level);
        assert!(hi[i] >= -127, "level {level}");
    }
}

#[test]
fn linears_equal_the_second_implementation() {
    const SEED: u64 = 41;
    let mut random = Random::new(SEED);
    for (k, group) in [(1, 1), (7, 7), (96, 32), (128, 128), (384, 128), (384, 384), (1536, 64), (5632, 128)]
    {
        for _ in 0..8 {
            let (x, w, scales) = (random.row(k, 6), random.levels(k), random.row(k / group, 6));
            let bias = random.near_one(6);
            for (bits, width) in [(ActivationBits::Eight, 8), (ActivationBits::Sixteen, 16)] {
                let got = linear(&x, &w, &scales, group, bits, Some(bias));
                let expected = reference::linear_int8(&x, &w, &scales, group, width, &[bias]);
                assert_eq!(got.to_bits(), expected.to_bits(), "K {k}, groups of {group}, {width} bits");
            }
        }
    }
}

/// The longest group with the worst bytes: the integer dots stay within an i32.
#[test]
fn the_longest_group_does_not_overflow() {
    let x = vec![-1.0; MAX_GROUP];
    let mut worst16 = vec![-32_512.0 + 128.0; MAX_GROUP]; // lo = −128
    worst16[0] = -32_512.0;
    let w = vec![-128; MAX_GROUP];
    let eight = linear(&x, &w, &[1.0], MAX_GROUP, ActivationBits::Eight, None);
    assert_eq!(eight, (127 * 128 * MAX_GROUP as i64) as f32 * (1.0 / 127.0));
    let sixteen = linear(&worst16, &w, &[1.0], MAX_GROUP, ActivationBits::Sixteen, None);
    let expected = reference::linear_int8(&worst16, &w, &[1.0], MAX_GROUP, 16, &[]);
    assert_eq!(sixteen, expected);
    assert!(128 * 128 * MAX_GROUP as i64 <= i64::from(i32::MAX));
    assert!(128 * 128 * (MAX_GROUP as i64 + 1) > i64::from(i32::MAX), "the limit is sharp");
}

#[test]
fn groups_are_added_in_order_from_the_bias() {
    // One element a group, its level 127 at scale 1: group g contributes 127 times its weight's scale.
    let (x, w) = ([127.0, 127.0, 127.0], [1, 1, 1]);
    let huge = f32::from_bits(0x7180_0000); // 2^100
    let t = |scales: &[f32; 3], bias| linear(&x, &w, scales, 1, ActivationBits::Eight, bias);
    assert_eq!(t(&[huge, -huge, 1.0], None), 127.0);
    assert_eq!(t(&[huge, 1.0, -huge], None), 0.0);
    assert_eq!(t(&[-huge, 0.0, 1.0], Some(127.0 * huge)), 127.0, "the bias comes first");
}

#[test]
fn bad_groups_show_and_zero_groups_do_not() {
    let w = [1, 2, 3, 4];
    let of = |x: [f32; 4], scales: [f32; 2]| linear(&x, &w, &scales, 2, ActivationBits::Sixteen, Some(0.5));
    assert!(of([f32::NAN, 1.0, 1.0, 1.0], [1.0, 1.0]).is_nan());
    assert!(of([1.0, 1.0, f32::INFINITY, 1.0], [1.0, 1.0]).is_nan());
    assert!(of([0.0, 0.0, 1.0, 1.0], [f32::NAN, 1.0]).is_nan(), "a NaN scale shows even over zeros");
    assert_eq!(of([0.0; 4], [1.0, 1.0]), 0.5);
    assert_eq!(linear(&[], &[], &[], 4, ActivationBits::Eight, None).to_bits(), 0);
}

#[test]
fn sixteen_bits_recover_what_eight_lose() {
    let mut random = Random::new(42);
    let (x, w) = (random.row(128, 2), random.levels(128));
    let exact: f64 = x.iter().zip(&w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
    let error = |bits| (f64::from(linear(&x, &w, &[1.0], 128, bits, None)) - exact).abs();
    assert!(error(ActivationBits::Sixteen) * 20.0 < error(ActivationBits::Eight));
}

#[test]
#[should_panic(expected = "which divide the row")]
fn a_group_that_does_not_divide_the_row_is_a_fault_of_the_caller() {
    let _ = linear(&[1.0; 3], &[1; 3], &[1.0], 2, ActivationBits::Eight, None);
}
