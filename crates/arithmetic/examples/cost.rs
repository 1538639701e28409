//! What one element costs by the scalar code: the referee's work, in microseconds.
//!
//! `cargo run -p gainsay-arithmetic --example cost`

use std::hint::black_box;
use std::time::Instant;

use gainsay_arithmetic::int8::{self, ActivationBits};
use gainsay_arithmetic::{LayerNormRow, attention, exp, gelu, linear};

const REPETITIONS: u32 = 200;

/// The least of several means: the machine may be busy with other work.
fn report<T>(name: &str, mut element: impl FnMut() -> T) {
    let mean = |element: &mut dyn FnMut() -> T| {
        let start = Instant::now();
        for _ in 0..REPETITIONS {
            black_box(element());
        }
        start.elapsed().as_secs_f64() * 1e6 / f64::from(REPETITIONS)
    };
    let best = (0..20).map(|_| mean(&mut element)).fold(f64::INFINITY, f64::min);
    println!("{name:44} {best:9.3} µs");
}

fn main() {
    for k in [384, 2048, 5632] {
        let x: Vec<f32> = (0..k).map(|i| 1.0 + i as f32 * 1e-3).collect();
        let w: Vec<f32> = (0..k).map(|i| 0.5 - i as f32 * 1e-3).collect();
        let q = vec![77; k];
        let scales = vec![1e-3; k / 128];
        report(&format!("linear f32, K = {k}"), || linear(black_box(&x), &w, None));
        for bits in [ActivationBits::Eight, ActivationBits::Sixteen] {
            let name = format!("linear int8, activations {bits:?}, K = {k}");
            report(&name, || int8::linear(black_box(&x), &q, &scales, 128, bits, None));
        }
        report(&format!("layer norm, a row of {k}"), || LayerNormRow::of(black_box(&x), 1e-12));
    }
    let (scores, column) = (vec![-1.0; 512], vec![0.25; 512]);
    report("attention, 512 keys, weights and output", || {
        let weights: Vec<f32> = black_box(&scores).iter().map(|&s| attention::weight(s, 0.0)).collect();
        attention::output(&weights, &column)
    });
    report("exp", || exp(black_box(-1.25)));
    report("gelu", || gelu(black_box(-1.25)));
}
