//! How fast the engine is, next to candle's own forward pass of the same model in the same run.
//!
//! `RAYON_NUM_THREADS=1 cargo run --release -p gainsay-engine --example speed`. Both use as many threads as that says.
//! The rounds alternate, so that a busy machine slows both; the engine hashes every layer as it does for a claim.

#[path = "../../tests/support/mod.rs"]
mod support;

mod candle_bert;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use candle_bert::CandleBert;
use gainsay_engine::{Model, Options, Simd};
use gainsay_program::JobInput;

const SEQUENCES: usize = 8;
const TOKENS: usize = 128;
const ROUNDS: usize = 15;

fn main() -> Result<()> {
    let threads = rayon::current_num_threads();
    let candle = CandleBert::load(&support::model_folder().join("model.safetensors"))?;
    let loaded = support::minilm()?;
    let jobs: Vec<JobInput> =
        (0..SEQUENCES).map(|i| support::job(&loaded.model, i as u64, &[TOKENS])).collect();
    let ids: Vec<u32> = jobs.iter().flat_map(|job| job.token_ids().iter().copied()).collect();
    println!("{SEQUENCES} sequences of {TOKENS} tokens, {threads} threads, {ROUNDS} rounds");
    for simd in Simd::available_for_floats().into_iter().filter(|&simd| simd != Simd::Portable) {
        let options = Options { threads, simd, ..Options::default() };
        let model = Model::new(loaded.model.clone(), loaded.weights.clone(), options)?;
        let theirs = candle.embed(&ids, SEQUENCES)?;
        let ours = embed(&model, &jobs)?;
        let cosine = least_cosine(&ours, &theirs, model.model().answer_width() as usize);
        ensure!(cosine > 0.99999, "the two implementations disagree: cosine {cosine}");
        let mut times = [Times::default(), Times::default()];
        for _ in 0..ROUNDS {
            times[0].measure(|| candle.embed(&ids, SEQUENCES))?;
            times[1].measure(|| embed(&model, &jobs))?;
        }
        let [candle, engine] = times.map(Times::summary);
        println!(
            "{simd}: candle {candle}, engine {engine}, {:.2}× by medians, {:.2}× by minima, 1 − cosine ≤ {:.1e}",
            candle.median / engine.median,
            candle.least / engine.least,
            1.0 - cosine,
        );
    }
    Ok(())
}

/// The engine's answers, with all commitments of all jobs.
fn embed(model: &Model, jobs: &[JobInput]) -> Result<Vec<f32>> {
    let traces = model.run(jobs, None)?;
    ensure!(traces.iter().all(|trace| trace.layers.len() == model.model().layer_count() as usize));
    let bytes: Vec<u8> = traces.into_iter().flat_map(|trace| trace.output).collect();
    Ok(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

fn least_cosine(a: &[f32], b: &[f32], width: usize) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let cosine = |a: &[f32], b: &[f32]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    a.chunks(width).zip(b.chunks(width)).map(|(a, b)| cosine(a, b)).fold(1.0, f64::min)
}

#[derive(Default)]
struct Times(Vec<Duration>);

struct Summary {
    median: f64,
    least: f64,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} ms (least {:.1})", self.median * 1e3, self.least * 1e3)
    }
}

impl Times {
    fn measure<R>(&mut self, work: impl FnOnce() -> Result<R>) -> Result<()> {
        let start = Instant::now();
        work().context("a measured run failed")?;
        self.0.push(start.elapsed());
        Ok(())
    }

    fn summary(mut self) -> Summary {
        self.0.sort();
        Summary { median: self.0[self.0.len() / 2].as_secs_f64(), least: self.0[0].as_secs_f64() }
    }
}
