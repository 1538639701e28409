//! Penalties, candidates and draws, against known answers and against a second implementation that sorts everything.

use gainsay_arithmetic::sampling::{
    Draw, GREEDY_BELOW, MAX_CANDIDATES, Penalties, Sampling, argmax, penalize, philox4x32_10, sample, uniform,
};

use crate::numbers::Random;
use crate::reference;

const DRAW: Draw = Draw { seed: 7, choice: 0, position: 1 };
const PLAIN: Sampling = Sampling { temperature: 1.0, top_k: MAX_CANDIDATES as u32, top_p: 1.0, min_p: 0.0 };

/// The known answers that the authors of Philox publish with their code (Random123, `kat_vectors`).
#[test]
fn philox_gives_its_authors_known_answers() {
    let cases = [
        ([0; 2], [0; 4], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        ([!0; 2], [!0; 4], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (
            [0xa409_3822, 0x299f_31d0],
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ];
    for (key, counter, expected) in cases {
        assert_eq!(philox4x32_10(key, counter), expected);
    }
}

#[test]
fn the_random_number_depends_on_seed_choice_and_position_and_stays_below_one() {
    let draw = |seed, choice, position| uniform(&Draw { seed, choice, position }).to_bits();
    let all = [draw(1, 0, 0), draw(1 << 32, 0, 0), draw(1, 1, 0), draw(1, 0, 1), draw(2, 0, 0)];
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a != b), "two draws have one number");
    }
    let sum: f64 = (0..10_000).map(|position| f64::from(uniform(&Draw { position, ..DRAW }))).sum();
    assert!((4_850.0..5_150.0).contains(&sum), "the mean of ten thousand is {}", sum / 10_000.0);
    assert!((0..10_000).all(|position| (0.0..1.0).contains(&uniform(&Draw { position, ..DRAW }))));
}

#[test]
fn the_greatest_logit_wins_and_nan_never_does() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
    assert_eq!(argmax(&[nan, -5.0, nan]), 1);
    assert_eq!(argmax(&[-inf, nan, -inf]), 0);
    assert_eq!(argmax(&[0.0, -0.0]), 0);
    assert_eq!(argmax(&[1.0, inf, inf]), 1);
    assert_eq!(argmax(&[]), 0);
}

#[test]
fn temperatures_below_the_threshold_are_greedy_and_those_at_it_are_not() {
    let logits = [0.0, 0.001, 0.0];
    let below = f32::from_bits(GREEDY_BELOW.to_bits() - 1);
    for temperature in [0.0, below, -1.0, f32::NAN] {
        for position in 0..50 {
            assert_eq!(sample(&logits, &Sampling { temperature, ..PLAIN }, &Draw { position, ..DRAW }), 1);
        }
    }
    let at = Sampling { temperature: GREEDY_BELOW, ..PLAIN };
    assert!((0..50).any(|position| sample(&logits, &at, &Draw { position, ..DRAW }) != 1));
}

#[test]
fn penalties_come_in_their_order_and_only_where_they_apply() {
    let penalties = Penalties { repetition: 2.0, presence: 0.5, frequency: 0.25 };
    let of = |logit, seen, count, bias| penalize(logit, seen, count, &penalties, bias);
    assert_eq!(of(3.0, false, 0, None), 3.0);
    assert_eq!(of(3.0, true, 0, None), 1.5);
    assert_eq!(of(-3.0, true, 0, None), -6.0);
    assert_eq!(of(3.0, true, 2, None), 1.5 - 0.5 - 0.5);
    assert_eq!(of(3.0, true, 2, Some(10.0)), 10.5);
    assert_eq!(of(0.0, true, 0, Some(f32::NEG_INFINITY)), f32::NEG_INFINITY);
    // The product is rounded before it is subtracted: a fused step would give another bit.
    let fine = Penalties { repetition: 1.0, presence: 0.0, frequency: 0.1 };
    let logit = 0.3;
    assert_eq!(penalize(logit, true, 3, &fine, None).to_bits(), (logit - 3.0f32 * 0.1).to_bits());
}

#[test]
fn candidates_are_cut_where_they_should_be() {
    let logits = [2.0, 1.0, 0.0, 2.0];
    let tokens = |sampling: Sampling| {
        let mut seen = [false; 4];
        (0..500).for_each(|position| {
            seen[sample(&logits, &sampling, &Draw { position, ..DRAW }) as usize] = true
        });
        seen
    };
    assert_eq!(tokens(PLAIN), [true; 4]);
    assert_eq!(
        tokens(Sampling { top_k: 1, ..PLAIN }),
        [true, false, false, false],
        "the lower id wins the tie"
    );
    assert_eq!(tokens(Sampling { top_k: 0, ..PLAIN }), [true, false, false, false]);
    assert_eq!(tokens(Sampling { top_k: 3, ..PLAIN }), [true, true, false, true]);
    assert_eq!(tokens(Sampling { top_p: 0.0, ..PLAIN }), [true, false, false, false]);
    assert_eq!(tokens(Sampling { top_p: 0.7, ..PLAIN }), [true, false, false, true]);
    assert_eq!(tokens(Sampling { min_p: 1.0, ..PLAIN }), [true, false, false, true]);
    assert_eq!(tokens(Sampling { min_p: 0.3, ..PLAIN }), [true, true, false, true]);
}

#[test]
fn infinite_and_missing_logits_choose_the_first_candidate() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    assert_eq!(sample(&[0.0, inf, inf], &PLAIN, &DRAW), 1);
    assert_eq!(sample(&[nan, -inf, nan], &PLAIN, &DRAW), 0);
    assert_eq!(sample(&[nan, 1.0], &Sampling { top_k: 1, ..PLAIN }, &DRAW), 1);
    assert_eq!(sample(&[], &PLAIN, &DRAW), 0);
}

/// A multiple of 2⁻²⁴ in [0, 1).
fn unit(random: &mut Random) -> f32 {
    (random.word() >> 40) as f32 / (1 << 24) as f32
}

#[test]
fn draws_equal_those_of_an_implementation_that_sorts_everything() {
    let mut random = Random::new(0x5eed_0042);
    for round in 0..400 {
        let width = [1, 2, 5, 64, 1_023, 1_024, 1_025, 3_000][round % 8];
        let spread = [0.0, 1.0, 10.0][round % 3];
        let mut logits: Vec<f32> = (0..width).map(|_| (unit(&mut random) - 0.5) * spread).collect();
        if round % 5 == 0 {
            logits[width / 2] = f32::NAN;
        }
        if round % 7 == 0 {
            // Many ties, so that ids decide.
            logits.iter_mut().for_each(|logit| *logit = (*logit * 2.0).round());
        }
        let sampling = Sampling {
            temperature: 0.05 + 2.0 * unit(&mut random),
            top_k: [1, 2, 40, 1_024][round % 4],
            top_p: [1.0, 0.9, 0.3][round / 4 % 3],
            min_p: [0.0, 0.05][round / 12 % 2],
        };
        let draw =
            Draw { seed: 0x1234_5678_9abc ^ round as u64, choice: round as u32 % 3, position: round as u32 };
        let expected = reference::sample(&logits, &sampling, uniform(&draw));
        assert_eq!(sample(&logits, &sampling, &draw), expected, "round {round}: {sampling:?}");
    }
}
