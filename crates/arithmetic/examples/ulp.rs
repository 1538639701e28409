//! Measures the error of `exp` and `erf` against binary64, over every binary32 that their bounds speak of.
//!
//! `cargo run --release -p gainsay-arithmetic --example ulp` takes a few minutes of all cores, prints the greatest
//! error of each with the place where it occurs, and exits 1 if one exceeds 1 ulp or `erf` is not odd.

use std::process::ExitCode;
use std::thread;

use gainsay_arithmetic::{erf, exp};

const EXP_LEAST: f32 = f32::from_bits(0xc2ae_999a);
const EXP_GREATEST: f32 = f32::from_bits(0x42b1_7217);

/// The worst of the arguments seen so far.
#[derive(Clone, Copy)]
struct Worst {
    ulps: f64,
    at: f32,
    seen: u64,
}

impl Worst {
    const NONE: Self = Self { ulps: 0.0, at: 0.0, seen: 0 };

    fn see(&mut self, at: f32, got: f32, exact: f64) {
        let ulps = (f64::from(got) - exact).abs() / unit_in_the_last_place(exact);
        self.seen += 1;
        if ulps > self.ulps || ulps.is_nan() {
            (self.ulps, self.at) = (ulps, at);
        }
    }

    fn merge(self, other: Self) -> Self {
        let worse = if other.ulps > self.ulps || other.ulps.is_nan() { other } else { self };
        Self { seen: self.seen + other.seen, ..worse }
    }
}

/// The spacing of binary32 at the magnitude of `exact`.
fn unit_in_the_last_place(exact: f64) -> f64 {
    const LEAST_EXPONENT: i32 = -126;
    let exponent = ((exact.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(LEAST_EXPONENT);
    f64::from_bits(((exponent - 23 + 1023) as u64) << 52)
}

/// Runs `measure` over the bits `first..=last`, shared among all cores.
fn over(first: u32, last: u32, measure: impl Fn(f32, &mut Worst) + Sync) -> Worst {
    let workers = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let count = u64::from(last - first) + 1;
    thread::scope(|scope| {
        let parts: Vec<_> = (0..workers)
            .map(|i| {
                let (from, to) = (count * i / workers, count * (i + 1) / workers);
                let measure = &measure;
                scope.spawn(move || {
                    let mut worst = Worst::NONE;
                    for offset in from..to {
                        measure(f32::from_bits(first + offset as u32), &mut worst);
                    }
                    worst
                })
            })
            .collect();
        parts
            .into_iter()
            .map(|part| part.join().expect("no measurement panics"))
            .fold(Worst::NONE, Worst::merge)
    })
}

fn report(name: &str, worst: Worst) -> bool {
    let Worst { ulps, at, seen } = worst;
    println!("{name}: {seen} arguments, greatest error {ulps:.4} ulp at {at:e} (0x{:08x})", at.to_bits());
    ulps <= 1.0
}

fn main() -> ExitCode {
    let of_exp = |x: f32, worst: &mut Worst| worst.see(x, exp(x), libm::exp(f64::from(x)));
    let positive = over(0, EXP_GREATEST.to_bits(), of_exp);
    let negative = over((-0.0f32).to_bits(), EXP_LEAST.to_bits(), of_exp);
    let exp_holds = report("exp on [-87.3, 88.72283]", positive.merge(negative));

    let of_erf = over(0, f32::MAX.to_bits(), |x, worst| {
        let got = erf(x);
        worst.see(x, got, libm::erf(f64::from(x)));
        if erf(-x).to_bits() != (-got).to_bits() {
            (worst.ulps, worst.at) = (f64::INFINITY, -x);
        }
    });
    let erf_holds = report("erf on every finite |x|, odd", of_erf);

    if exp_holds && erf_holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
