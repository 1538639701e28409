//! Sums and what is made of them: that the order is the written one and no other, and what happens at the edges.

use gainsay_arithmetic::{
    LayerNormRow, RmsNormRow, attention, dot, dot_by, linear, max, mean_pool, normalize, normalize_divisor,
    rope_pair, sum64, sum64_by, sum64_squares, sum64_squares_by,
};

use crate::numbers::Random;
use crate::reference;

/// 1 + 2⁻¹²: its square is 1 + 2⁻¹¹ + 2⁻²⁴, whose last bit is lost when the square is rounded by itself.
const LOSES_A_BIT: f32 = f32::from_bits(0x3f80_0800);

/// 2⁻²⁴: added to 1 it vanishes, one at a time.
const HALF_UNIT: f32 = 5.960_464_5e-8;

#[test]
fn dot_sums_in_blocks_of_128() {
    // 1 first, then 2⁻²⁴ each: inside the first block all are lost, later blocks sum to something first.
    for (len, blocks_of_tiny) in
        [(128, 0.0), (129, 1.0), (256, 128.0), (257, 129.0), (384, 256.0), (640, 512.0)]
    {
        let mut row = vec![HALF_UNIT; len];
        row[0] = 1.0;
        let whole_blocks =
            (0..len).skip(128).step_by(128).map(|start| (len - start).min(128) as f32 * HALF_UNIT);
        let expected = whole_blocks.fold(1.0, |total, block| total + block);
        assert_eq!(
            dot(&row, &vec![1.0; len]),
            expected,
            "length {len}, {blocks_of_tiny} small terms after block 0"
        );
        let naive = row.iter().fold(0.0, |total, x| total + x);
        assert_eq!(naive, 1.0, "one chain loses them all");
        assert_eq!(expected > naive, blocks_of_tiny > 1.0, "the order shows at length {len}");
    }
}

#[test]
fn dot_rounds_once_in_each_step() {
    let a = LOSES_A_BIT;
    assert_eq!(dot(&[a, 1.0], &[a, -1.0]), f32::mul_add(1.0, -1.0, a * a));
    assert_eq!(dot(&[1.0, a], &[-1.0, a]), f32::mul_add(a, a, -1.0));
    assert_ne!(dot(&[1.0, a], &[-1.0, a]), a * a - 1.0, "two roundings would differ");
}

#[test]
fn dots_and_sums_agree_with_the_second_implementation_at_every_length() {
    const SEED: u64 = 30;
    let mut random = Random::new(SEED);
    for len in (0..700).chain([1024, 2048, 5632]) {
        let (a, b) = (random.row(len, 6), random.row(len, 6));
        let expected = reference::dot(&a, &b).to_bits();
        assert_eq!(dot(&a, &b).to_bits(), expected, "dot, length {len}");
        assert_eq!(dot_by(len, |k| (a[k], b[k])).to_bits(), expected, "dot_by, length {len}");
        let (sum, squares) = (reference::sum64(&a).to_bits(), reference::sum64_squares(&a).to_bits());
        assert_eq!(sum64(&a).to_bits(), sum, "sum64, length {len}");
        assert_eq!(sum64_by(len, |i| a[i]).to_bits(), sum, "sum64_by, length {len}");
        assert_eq!(sum64_squares(&a).to_bits(), squares, "sum64_squares, length {len}");
        assert_eq!(sum64_squares_by(len, |i| a[i]).to_bits(), squares, "sum64_squares_by, length {len}");
        assert_eq!(
            mean_pool(&a).to_bits() == reference::mean_pool(&a).to_bits(),
            len > 0,
            "mean_pool, length {len}"
        );
    }
}

#[test]
fn callers_are_asked_for_each_element_once_and_in_order() {
    for len in [0, 1, 64, 65, 128, 300] {
        let mut asked = Vec::new();
        let _ = dot_by(len, |k| {
            asked.push(k);
            (0.0, 0.0)
        });
        let _ = sum64_by(len, |i| {
            asked.push(len + i);
            0.0
        });
        assert_eq!(asked, (0..2 * len).collect::<Vec<_>>());
    }
}

#[test]
fn padding_a_dot_with_zeros_changes_nothing() {
    let mut random = Random::new(31);
    for len in [1, 127, 128, 129, 500] {
        let (mut a, mut b) = (random.row(len, 3), random.row(len, 3));
        let before = dot(&a, &b).to_bits();
        a.resize(1024, 0.0);
        b.resize(1024, 0.0);
        assert_eq!(dot(&a, &b).to_bits(), before, "length {len}");
    }
}

#[test]
fn sum64_adds_in_lanes_and_folds_halves() {
    // Element 64 meets element 0 in its lane before element 1 meets either.
    let mut row = vec![0.0; 65];
    (row[0], row[1], row[64]) = (1e30, 1.0, -1e30);
    assert_eq!(sum64(&row), 1.0);
    // Elements 0 and 32 meet in the first fold, before 16 does.
    let mut row = vec![0.0; 64];
    (row[0], row[16], row[32]) = (1e30, 1.0, -1e30);
    assert_eq!(sum64(&row), 1.0);
    // 0 + 32 loses the small one, then meets 16: the fold is not 0 + 16 first.
    (row[0], row[16], row[32]) = (1e30, -1e30, 1.0);
    assert_eq!(sum64(&row), 0.0);
    // Lanes 0 and 1 meet last of all.
    let mut row = vec![0.0; 64];
    (row[0], row[1], row[3]) = (1.0, 1e30, -1e30);
    assert_eq!(sum64(&row), 1.0);
}

#[test]
fn squares_are_added_by_fma() {
    let x = LOSES_A_BIT;
    let mut row = vec![0.0; 65];
    (row[0], row[64]) = (1.0, x);
    assert_eq!(sum64_squares(&row), x.mul_add(x, 1.0));
    let mut differs = 0;
    let mut random = Random::new(32);
    for _ in 0..100 {
        let (a, b) = (random.near_one(1), random.near_one(1));
        (row[0], row[64]) = (a, b);
        assert_eq!(sum64_squares(&row), b.mul_add(b, a * a));
        differs += u32::from(b.mul_add(b, a * a) != b * b + a * a);
    }
    assert!(differs > 0, "the cases tell the two apart");
}

#[test]
fn nan_and_infinities_are_values() {
    for at in [0, 63, 64, 127, 128, 200] {
        let mut row = vec![1.0; 201];
        row[at] = f32::NAN;
        assert!(dot(&row, &row).is_nan() && sum64(&row).is_nan() && mean_pool(&row).is_nan());
        assert_eq!(max(&row), 1.0, "a NaN never is the greatest");
        row[at] = f32::INFINITY;
        assert_eq!((dot(&row, &row), sum64(&row), max(&row)), (f32::INFINITY, f32::INFINITY, f32::INFINITY));
        row[at] = f32::NEG_INFINITY;
        row[(at + 1) % 201] = f32::INFINITY;
        assert!(sum64(&row).is_nan());
        assert!(dot(&row, &vec![0.0; 201]).is_nan(), "a weight of zero does not hide an infinity");
    }
}

#[test]
fn max_is_total() {
    assert_eq!(max(&[]), f32::NEG_INFINITY);
    assert_eq!(max(&[f32::NAN; 4]), f32::NEG_INFINITY);
    assert_eq!(max(&[f32::NEG_INFINITY, f32::NAN]), f32::NEG_INFINITY);
    assert_eq!(max(&[f32::NAN, -3.0, f32::NAN, -2.0]), -2.0);
    assert_eq!(max(&[-2.0, f32::NAN]), -2.0);
}

#[test]
fn empty_rows_have_results() {
    assert_eq!(dot(&[], &[]).to_bits(), 0);
    assert_eq!(sum64(&[]).to_bits(), 0);
    assert_eq!(linear(&[], &[], Some(-0.0)).to_bits(), 0, "+0 + −0 is +0");
    assert!(mean_pool(&[]).is_nan());
    assert_eq!(normalize_divisor(&[]), 1e-12);
    assert!(LayerNormRow::of(&[], 1e-12).r.is_nan());
    assert!(RmsNormRow::of(&[], 1e-12).r.is_nan());
    assert!(attention::output(&[], &[]).is_nan());
}

#[test]
#[should_panic(expected = "one length")]
fn rows_of_different_lengths_are_a_fault_of_the_caller() {
    let _ = dot(&[1.0, 2.0], &[1.0]);
}

#[test]
fn the_bias_is_added_last() {
    let row = [1e30, 1.0];
    assert_eq!(linear(&row, &[1.0, 1.0], Some(-1e30)), 0.0);
    assert_eq!(linear(&[-0.0], &[1.0], None).to_bits(), 0, "a sum starts at +0");
}

#[test]
fn norms_are_what_their_names_say() {
    let mut random = Random::new(33);
    for len in [1, 2, 64, 384, 1000] {
        let x = random.row(len, 2);
        let wide: Vec<_> = x.iter().map(|&x| f64::from(x)).collect();
        let d = len as f64;
        let mean = wide.iter().sum::<f64>() / d;
        let variance = wide.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d;
        let mean_square = wide.iter().map(|x| x * x).sum::<f64>() / d;
        let (layer, rms) = (LayerNormRow::of(&x, 1e-3), RmsNormRow::of(&x, 1e-3));
        for (&x, &exact) in x.iter().zip(&wide) {
            let expected = (exact - mean) / (variance + 1e-3).sqrt() * 0.75 + 0.25;
            assert!(
                (f64::from(layer.element(x, 0.75, 0.25)) - expected).abs() < 1e-4,
                "layer norm, width {len}"
            );
            let expected = exact / (mean_square + 1e-3).sqrt() * 0.75;
            assert!((f64::from(rms.element(x, 0.75)) - expected).abs() < 1e-5, "RMS norm, width {len}");
        }
    }
}

#[test]
fn layer_norm_ends_in_one_fma() {
    let row = LayerNormRow { mean: 0.0, r: 1.0 };
    let x = LOSES_A_BIT;
    assert_eq!(row.element(x, x, -1.0), x.mul_add(x, -1.0));
    assert_ne!(row.element(x, x, -1.0), x * x - 1.0);
}

#[test]
fn attention_weighs_by_softmax() {
    let mut random = Random::new(34);
    for keys in [1, 64, 129, 300] {
        let (scores, column) = (random.row(keys, 1), random.row(keys, 1));
        let greatest = max(&scores);
        let weights: Vec<_> = scores.iter().map(|&score| attention::weight(score, greatest)).collect();
        let wide: Vec<_> = scores.iter().map(|&s| (f64::from(s) - f64::from(greatest)).exp()).collect();
        let above: f64 = wide.iter().zip(&column).map(|(e, &v)| e * f64::from(v)).sum();
        let expected = above / wide.iter().sum::<f64>();
        assert!((f64::from(attention::output(&weights, &column)) - expected).abs() < 1e-5, "{keys} keys");
    }
}

#[test]
fn attention_is_total() {
    let weights = |scores: &[f32]| -> Vec<f32> {
        let greatest = max(scores);
        scores.iter().map(|&score| attention::weight(score, greatest)).collect()
    };
    assert!(weights(&[f32::NEG_INFINITY; 3]).iter().all(|e| e.is_nan()), "−∞ − −∞");
    assert!(weights(&[f32::NAN; 3]).iter().all(|e| e.is_nan()));
    let with_nan = weights(&[1.0, f32::NAN]);
    assert!(with_nan[0] == 1.0 && with_nan[1].is_nan());
    assert_eq!(weights(&[0.0, f32::NEG_INFINITY, -100.0]), [1.0, 0.0, 0.0]);
    let with_infinity = weights(&[1.0, f32::INFINITY]);
    assert!(with_infinity[0] == 0.0 && with_infinity[1].is_nan(), "∞ − ∞");
    assert!(attention::output(&[1.0, 0.0], &[1.0, f32::NAN]).is_nan(), "a weight of zero hides nothing");
}

#[test]
fn normalizing_keeps_the_least_divisor() {
    assert_eq!(normalize_divisor(&[3.0, 4.0]), 5.0);
    assert_eq!(normalize(3.0, 5.0), 3.0 / 5.0);
    assert_eq!(normalize_divisor(&[0.0; 5]).to_bits(), 0x2b8c_bccc);
    assert_eq!(normalize_divisor(&[1e-13]).to_bits(), 0x2b8c_bccc);
    assert_eq!(normalize_divisor(&[2e-12]), 2e-12);
    assert!(normalize_divisor(&[f32::NAN]).is_nan());
    assert_eq!(
        normalize_divisor(&[f32::MAX, 1.0]),
        f32::INFINITY,
        "squares overflow; the result is 0 and NaN-free"
    );
}

#[test]
fn rotations_round_each_product() {
    let x = LOSES_A_BIT;
    let (y1, y2) = rope_pair(x, 1.0, x, 1.0);
    assert_eq!((y1, y2), (x * x - 1.0, 1.0 * x + x * 1.0));
    assert_ne!(y1, x.mul_add(x, -1.0), "no fma");
}
