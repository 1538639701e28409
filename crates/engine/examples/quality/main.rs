//! What int8 costs in quality and gives in speed: all-MiniLM-L6-v2 in several profiles, next to f32 and to candle.
//!
//! `RAYON_NUM_THREADS=1 cargo run --release -p gainsay-engine --example quality`. Quality is the cosine to the f32
//! profile's embeddings of 200 texts, from one word to 512 tokens, and for how many texts the nearest of the others stays
//! the nearest. Speed is candle's time for 8 × 128 tokens divided by the engine's, medians of rounds in which all take
//! turns, every layer hashed as for a claim; and the same by the time that threads had a processor, where the system tells
//! it: on a busy machine that says more.

#[path = "../speed/candle_bert.rs"]
mod candle_bert;
#[path = "../../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with tests, which need more of it")]
mod support;
mod texts;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use candle_bert::CandleBert;
use gainsay_engine::{Model, Options};
use gainsay_program::lowering::{ActivationWidths, LowerOptions};
use gainsay_program::{ActivationBits, ArithmeticProfile, JobInput};
use support::{job, lower_minilm, model_folder};

const SEQUENCES: usize = 8;
const TOKENS: usize = 128;
const ROUNDS: usize = 15;

const EIGHT: ActivationWidths = ActivationWidths::all(ActivationBits::Eight);
const MIXED: ActivationWidths = ActivationWidths::AFTER_NORMS;
const SIXTEEN: ActivationWidths = ActivationWidths::all(ActivationBits::Sixteen);

/// A way to run the model.
struct Profile {
    name: String,
    model: Model,
    times: Vec<Time>,
}

/// How long something took.
#[derive(Clone, Copy)]
struct Time {
    wall: Duration,
    /// Of all threads together.
    processor: Duration,
}

fn main() -> Result<()> {
    let threads = rayon::current_num_threads();
    let mut profiles = profiles(threads)?;
    let jobs = texts::jobs(&model_folder(), profiles[0].model.model())?;
    let embeddings = |profile: &Profile| embed(&profile.model, &jobs);
    let reference = embeddings(&profiles[0])?;
    let qualities = profiles.iter().map(|profile| Ok(Quality::of(&reference, &embeddings(profile)?)));
    let qualities = qualities.collect::<Result<Vec<_>>>()?;
    let candle = race(&mut profiles, threads)?;

    let simd = profiles[0].model.simd();
    let [wall, processor] = medians(&candle);
    let ms = wall * 1e3;
    println!("{simd}, {threads} threads; candle f32 takes {ms:.1} ms for {SEQUENCES} × {TOKENS} tokens\n");
    println!("| profile | cosine, mean | least | nearest kept | ms | times candle | by processor time |");
    println!("|---|---|---|---|---|---|---|");
    for (profile, quality) in profiles.into_iter().zip(qualities) {
        let times = medians(&profile.times);
        let Quality { mean, least, kept } = quality;
        let (ms, texts) = (times[0] * 1e3, jobs.len());
        let (by_wall, by_processor) = (wall / times[0], processor / times[1]);
        println!(
            "| {} | {mean:.5} | {least:.5} | {kept} of {texts} | {ms:.1} | {by_wall:.2} | {by_processor:.2} |",
            profile.name
        );
    }
    Ok(())
}

fn profiles(threads: usize) -> Result<Vec<Profile>> {
    let int8 = |int8_group, activations, widths: &str| {
        let groups = match int8_group {
            0 => "per channel".to_owned(),
            group => format!("groups of {group}"),
        };
        let name = format!("int8, {groups}, {widths}");
        let options = LowerOptions::new(name, ArithmeticProfile::ExactInt8V1);
        LowerOptions { int8_group, activations, ..options }
    };
    let up = ActivationWidths { up: ActivationBits::Sixteen, ..EIGHT };
    let attention = ActivationWidths { attention: ActivationBits::Sixteen, ..EIGHT };
    let widths = [(EIGHT, "8 bits"), (MIXED, "16 bits after norms"), (SIXTEEN, "16 bits")];
    let grouped =
        [0, 128, 64, 32].into_iter().flat_map(|group| widths.map(|(bits, name)| int8(group, bits, name)));
    let all = [LowerOptions::new("f32", ArithmeticProfile::ExactF32V1)]
        .into_iter()
        .chain(grouped)
        .chain([int8(128, attention, "16 bits before attention"), int8(128, up, "16 bits before gelu")]);
    let profile = |options: LowerOptions| {
        let loaded = lower_minilm(&options)?;
        let model = Model::new(loaded.model, loaded.weights, Options { threads, ..Options::default() })?;
        Ok(Profile { name: options.name, model, times: Vec::new() })
    };
    all.map(profile).collect()
}

/// Times all profiles and candle in turns; returns candle's times.
fn race(profiles: &mut [Profile], threads: usize) -> Result<Vec<Time>> {
    let candle = CandleBert::load(&model_folder().join("model.safetensors"))?;
    ensure!(rayon::current_num_threads() == threads, "candle has the same threads");
    let jobs: Vec<JobInput> =
        (0..SEQUENCES).map(|i| job(profiles[0].model.model(), i as u64, &[TOKENS])).collect();
    let ids: Vec<u32> = jobs.iter().flat_map(|job| job.token_ids().iter().copied()).collect();
    let mut candle_times = Vec::new();
    for round in 0..=ROUNDS {
        let candle_time = timed(|| candle.embed(&ids, SEQUENCES))?;
        let times = profiles.iter().map(|profile| timed(|| embed(&profile.model, &jobs)));
        let times = times.collect::<Result<Vec<_>>>()?;
        // The first round warms caches up.
        if round > 0 {
            candle_times.push(candle_time);
            profiles.iter_mut().zip(times).for_each(|(profile, time)| profile.times.push(time));
        }
    }
    Ok(candle_times)
}

fn timed<R>(work: impl FnOnce() -> Result<R>) -> Result<Time> {
    let (start, processor) = (Instant::now(), processor_time());
    work()?;
    Ok(Time { wall: start.elapsed(), processor: processor_time().saturating_sub(processor) })
}

/// How long the threads of this process have had a processor; nothing where the system does not say.
fn processor_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of_task = |task: std::fs::DirEntry| {
        let line = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        line.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    };
    tasks.filter_map(of_task).sum()
}

/// Median seconds: wall, processor.
fn medians(times: &[Time]) -> [f64; 2] {
    let median = |of: fn(&Time) -> Duration| {
        let mut times: Vec<Duration> = times.iter().map(of).collect();
        times.sort();
        times[times.len() / 2].as_secs_f64()
    };
    [median(|time| time.wall), median(|time| time.processor)]
}

/// A vector for each sequence of each job, all layers committed to.
fn embed(model: &Model, jobs: &[JobInput]) -> Result<Vec<Vec<f32>>> {
    let width = model.model().answer_width() as usize;
    let bytes: Vec<u8> = model.run(jobs, None)?.into_iter().flat_map(|trace| trace.output).collect();
    let floats: Vec<f32> = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Ok(floats.chunks(width).map(<[f32]>::to_vec).collect())
}

/// How near embeddings are to those of another profile.
struct Quality {
    mean: f64,
    least: f64,
    kept: usize,
}

impl Quality {
    fn of(reference: &[Vec<f32>], found: &[Vec<f32>]) -> Self {
        let cosines = || reference.iter().zip(found).map(|(a, b)| cosine(a, b));
        let (before, after) = (nearest(reference), nearest(found));
        Self {
            mean: cosines().sum::<f64>() / reference.len() as f64,
            least: cosines().fold(1.0, f64::min),
            kept: before.iter().zip(&after).filter(|(a, b)| a == b).count(),
        }
    }
}

/// For each vector the index of the nearest other.
fn nearest(vectors: &[Vec<f32>]) -> Vec<Option<usize>> {
    let of = |i: usize| {
        let others = (0..vectors.len()).filter(|&j| j != i);
        others.max_by(|&a, &b| cosine(&vectors[i], &vectors[a]).total_cmp(&cosine(&vectors[i], &vectors[b])))
    };
    (0..vectors.len()).map(of).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
