//! Flips a bit in every op of every layer of all-MiniLM-L6-v2 and has each flip disputed.
//!
//! `cargo run --release -p gainsay-participant --example faults -- [int8 | int8x16] [tokens]...`
//!
//! Without numbers, one sequence of 128 and one of 512 tokens. Prints a table for each; the exit status is 1 if a promise
//! was broken: a claim with another layer commitment that was not convicted, one without that was not the honest one,
//! or a witness above its limit. A referee above its limit is only marked, since a busy machine is slow.

#[path = "../tests/support/sweep.rs"]
#[expect(dead_code, reason = "shared with tests, which need more of it")]
mod sweep;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use gainsay_program::{ActivationBits, ArithmeticProfile};
use sweep::{MAX_WITNESS_BYTES, Sweep};

fn main() -> Result<ExitCode> {
    let mut lengths = Vec::new();
    let mut arithmetic = ArithmeticProfile::ExactF32V1;
    let mut activations = ActivationBits::Eight;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "int8" => arithmetic = ArithmeticProfile::ExactInt8V1,
            "int8x16" => {
                (arithmetic, activations) = (ArithmeticProfile::ExactInt8V1, ActivationBits::Sixteen);
            }
            number => lengths.push(number.parse().context("usage: faults [int8 | int8x16] [tokens]...")?),
        }
    }
    if lengths.is_empty() {
        lengths = vec![128, 512];
    }
    let model = sweep::minilm(arithmetic, activations)?;
    let mut is_broken = false;
    for tokens in lengths {
        let start = Instant::now();
        let mut sweep = Sweep::new(model.clone(), tokens)?;
        let flips = sweep.everywhere();
        let report = sweep.play_all(&flips);
        println!("{tokens} tokens, {} flips, {:.1} s\n{report}", flips.len(), start.elapsed().as_secs_f64());
        let rehearsal = sweep.rehearse()?;
        println!(
            "{} honest elements, virtual ones among them: max witness bytes {}\n",
            rehearsal.elements, rehearsal.max_witness_bytes
        );
        is_broken |= !report.broken.is_empty() || rehearsal.max_witness_bytes > MAX_WITNESS_BYTES;
    }
    Ok(if is_broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
