//! From logits to tokens.

use crate::support::{SEEDS, assert_same, at, at_mut, numbers, run, with_specials};
use gainsay_arithmetic::sampling::{self, Draw, Penalties, Sampling};
use gainsay_arithmetic::store;
use gainsay_cuda_launch::sampling::{Changes, DrawnRow, PenalizedRow, penalize, sample};

/// A sequence with penalties, and the rows of its answer that are computed.
struct Sequence {
    prompt: Vec<u32>,
    answer: Vec<u32>,
    biases: Vec<(u32, f32)>,
    penalties: Penalties,
    rows: std::ops::Range<u32>,
}

impl Sequence {
    /// The logits of a row, by the arithmetic.
    fn penalized(&self, logits: &[f32], before: u32) -> Vec<f32> {
        let answer = &self.answer[..before as usize];
        (0..)
            .zip(logits)
            .map(|(token, &logit)| {
                let count = answer.iter().filter(|&&it| it == token).count() as u32;
                let seen = count > 0 || self.prompt.contains(&token);
                let bias = self.biases.iter().find(|it| it.0 == token).map(|it| it.1);
                store(sampling::penalize(logit, seen, count, &self.penalties, bias))
            })
            .collect()
    }
}

#[test]
fn logits_are_penalized_by_what_is_before_them() {
    // Wider than what a block takes, and not by a multiple of anything.
    let width = 8195_u32;
    let tokens = |seed: u32, len: u32| -> Vec<u32> {
        (0..len).map(|i| (i * i * 7 + seed) % 40 * (width / 40) + i % 3).collect()
    };
    let penalties = [[1.3, 0.0, 0.0], [1.0, 0.6, 0.25], [0.7, -0.5, 1.1], [1.0, 0.0, 0.0]]
        .map(|[repetition, presence, frequency]| Penalties { repetition, presence, frequency });
    let sequence = |index: u32| Sequence {
        prompt: tokens(index, 30),
        answer: tokens(index + 11, 20),
        // A token that no row has changes nothing.
        biases: vec![(0, 1.5), (width / 40 + 1, -100.0), (8194, 0.125), (width + 4, 9.0)],
        penalties: penalties[index as usize],
        rows: [0..1, 19..20, 0..7, 3..5][index as usize].clone(),
    };
    let sequences: Vec<Sequence> = (0..4).map(sequence).collect();
    let (mut changes, mut rows, mut expected) = (Changes::default(), Vec::new(), Vec::new());
    let count: u32 = sequences.iter().map(|sequence| sequence.rows.len() as u32).sum();
    let logits = with_specials(1, (count * width) as usize);
    for sequence in &sequences {
        let of = changes.add(&sequence.prompt, &sequence.answer, &sequence.biases);
        let Penalties { repetition, presence, frequency } = sequence.penalties;
        for before in sequence.rows.clone() {
            let index = rows.len();
            let row = PenalizedRow { changes: of.clone(), before, repetition, presence, frequency };
            rows.push(row.words());
            expected.extend(sequence.penalized(&logits[index * width as usize..][..width as usize], before));
        }
    }
    let mut out = vec![0.0; logits.len()];
    let lists = (at(changes.words()), at(changes.positions()));
    run([penalize(at(&logits), lists, at(rows.as_flattened()), at_mut(&mut out), (count, width))], 3);
    assert_same(&out, &expected, "penalize");
}

/// Logits of which many are equal, or all of them, or none is a finite number.
fn logits(kind: u32, width: usize) -> Vec<f32> {
    match kind {
        0 => numbers(7, width),
        1 => with_specials(8, width),
        2 => numbers(9, width).iter().map(|x| x.round()).collect(),
        3 => vec![0.25; width],
        4 => with_specials(10, width).iter().map(|&x| if x == f32::INFINITY { 1.0 } else { x }).collect(),
        _ => (0..width).map(|i| if i % 3 == 0 { f32::NAN } else { f32::NEG_INFINITY }).collect(),
    }
}

#[test]
fn tokens_are_those_of_the_arithmetic() {
    for (seed, width) in SEEDS.zip([1_usize, 40, 4096, 5003]) {
        let (mut all, mut draws, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..24_u32 {
            let logits = logits(row % 6, width);
            let top_k = [1024, 7, 1, 3000, 0][row as usize % 5];
            let temperature = [0.7, 1.0, 0.0, 0.008, 50.0, f32::NAN, 1.3][row as usize % 7];
            let (top_p, min_p) = ([1.0, 0.9, 0.0][row as usize % 3], [0.0, 0.05, 1.0, 0.3][row as usize / 6]);
            let drawn = DrawnRow {
                temperature,
                top_k,
                top_p,
                min_p,
                seed: u64::from(row) << 40 | seed,
                choice: row % 2,
                position: 100 + row,
            };
            let sampling = Sampling { temperature, top_k, top_p, min_p };
            let draw = Draw { seed: drawn.seed, choice: drawn.choice, position: drawn.position };
            expected.push(sampling::sample(&logits, &sampling, &draw));
            draws.push(drawn.words());
            all.extend(logits);
        }
        let mut out = vec![u32::MAX; expected.len()];
        let size = (expected.len() as u32, width as u32);
        run([sample(at(&all), at(draws.as_flattened()), at_mut(&mut out), size)], seed);
        assert_eq!(out, expected, "width {width}");
    }
}

#[test]
fn draws_are_spread_over_the_candidates() {
    let (width, rows) = (6000, 40);
    let logits: Vec<f32> = numbers(12, width).iter().map(|x| x * 0.01).collect();
    let all = logits.repeat(rows);
    let sampling = Sampling { temperature: 1.0, top_k: 1024, top_p: 0.95, min_p: 0.01 };
    let (mut draws, mut expected) = (Vec::new(), Vec::new());
    for position in 0..rows as u32 {
        expected.push(sampling::sample(&logits, &sampling, &Draw { seed: 5, choice: 0, position }));
        let Sampling { temperature, top_k, top_p, min_p } = sampling;
        draws.push(DrawnRow { temperature, top_k, top_p, min_p, seed: 5, choice: 0, position }.words());
    }
    let mut out = vec![u32::MAX; rows];
    run([sample(at(&all), at(draws.as_flattened()), at_mut(&mut out), (rows as u32, width as u32))], 1);
    assert_eq!(out, expected);
    let mut distinct = out.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() > rows / 2, "{} of {rows} draws differ", distinct.len());
}
