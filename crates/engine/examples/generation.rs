//! How long generations of a model with random weights take, what commitments add, and what a check takes.
//!
//! `cargo run --release -p gainsay-engine --example generation [bf16|f32] [PROMPT] [ANSWER] [RUNS]`

#![expect(clippy::unwrap_used, reason = "the model is made to be valid")]

use std::time::{Duration, Instant};

use anyhow::Result;
use gainsay_engine::measure::measure;
use gainsay_engine::{Model, Options, Progress, Runner, RunnerOptions, Work};
use gainsay_program::{Dtype, GenerationRequest, KvDtype, Sampling, StopRules};

#[path = "../tests/support/decoder.rs"]
mod decoder;
#[path = "../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with tests")]
mod support;

use support::Random;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dtype = if arguments.next().as_deref() == Some("f32") { Dtype::F32 } else { Dtype::Bf16 };
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse::<usize>());
    let (prompt, answer, runs) = (number(64)?, number(256)?, number(3)?);
    let shape = decoder::Decoder {
        blocks: 12,
        heads: 8,
        kv_heads: 4,
        head_dim: 64,
        intermediate: 1376,
        vocabulary: 32_000,
        max_sequence: 4096,
        dtype,
        kv_dtype: KvDtype::Bf16,
        seed: 1,
    };
    let (model, weights) = shape.build();
    let bytes: usize = weights.iter().map(|bytes| bytes.len()).sum();
    let started = Instant::now();
    let model = Model::new(model, weights, Options::default())?;
    println!("{} MB of weights loaded in {:.1?}; {model:?}", bytes / 1_000_000, started.elapsed());
    for sampling in [Sampling::default(), Sampling { temperature: 0.8, seed: 5, ..Sampling::default() }] {
        let what = if sampling.temperature == 0.0 { "greedy" } else { "sampled" };
        let request = request(prompt, answer as u32, sampling, 1);
        let measured = measure(&model, &request, runs)?;
        let (generate, bare) = (measured.generate, measured.generate_without_commitments);
        println!(
            "{what}, {prompt} + {answer} tokens: {generate:.1?} ({:.2?} a token), without commitments {bare:.1?} \
             ({:+.1} %), check {:.1?} (1/{:.1})",
            generate / answer as u32,
            100.0 * (generate.as_secs_f64() / bare.as_secs_f64() - 1.0),
            measured.check,
            generate.as_secs_f64() / measured.check.as_secs_f64(),
        );
    }
    for jobs in [4, 16] {
        let took = together(&model, jobs, prompt, answer as u32)?;
        let rate = (jobs * answer) as f64 / took.as_secs_f64();
        println!("{jobs} generations together: {took:.1?}, {rate:.0} tokens/s");
    }
    Ok(())
}

fn request(prompt: usize, max_tokens: u32, sampling: Sampling, seed: u64) -> GenerationRequest {
    let mut random = Random(seed);
    let prompt = (0..prompt).map(|_| (random.next_u64() % 32_000) as u32).collect();
    GenerationRequest { prompt, sampling, stop: StopRules::max_tokens(max_tokens) }
}

fn together(model: &Model, jobs: usize, prompt: usize, answer: u32) -> Result<Duration> {
    let mut runner = Runner::new(model.clone(), RunnerOptions::default());
    let started = Instant::now();
    for job in 0..jobs {
        let request = request(prompt, answer, Sampling::default(), job as u64);
        runner.join(job, Work::Generate { request, stop: Box::new(|_| false) })?;
    }
    while !runner.is_empty() {
        for progress in runner.step()? {
            if let Progress::Failed { error, .. } = progress {
                return Err(error.into());
            }
        }
    }
    Ok(started.elapsed())
}
