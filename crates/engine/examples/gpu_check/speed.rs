//! How fast the engine is, beside candle's own bf16 forward pass of the same shapes on the same device.

use std::time::Instant;

use anyhow::Result;
use candle_core::Device;
use gainsay_engine::measure::{Pace, measure, pace};
use gainsay_engine::{Model, Options};
use gainsay_program::toy::{Toy, ToyOptions};
use gainsay_program::{ArithmeticProfile, Dtype, GenerationRequest, JobInput, Sampling, StopRules};
use serde_json::{Value, json};

use super::Settings;
use super::candle::{CandleEncoder, CandleLlama, Noise, attention, causal_mask};
use super::shape::{LLAMA_1B, LLAMA_8B, Matrices, Shape, TINY};
use super::support::{Random, job};

/// Tokens in the cache before the decode steps that are measured.
const CONTEXT: usize = 256;

/// The sizes that are measured.
struct Sizes {
    shapes: Vec<Shape>,
    matrices: Vec<Matrices>,
    prefill: Vec<usize>,
    batches: Vec<usize>,
    context: usize,
    answer: usize,
    attention: Vec<usize>,
    runs: usize,
}

impl Sizes {
    fn of(settings: &Settings) -> Self {
        if settings.smoke {
            return Self {
                shapes: vec![TINY],
                matrices: vec![Matrices::Floats(Dtype::Bf16), Matrices::Int8(0), Matrices::Int8(8)],
                prefill: vec![20],
                batches: vec![1, 2],
                context: 8,
                answer: 4,
                attention: vec![16],
                runs: 1,
            };
        }
        Self {
            shapes: vec![LLAMA_1B, LLAMA_8B],
            matrices: vec![Matrices::Int8(0), Matrices::Int8(128), Matrices::Floats(Dtype::Bf16)],
            prefill: vec![512, 4096],
            batches: vec![1, 8, 32],
            context: CONTEXT,
            answer: 256,
            attention: vec![512, 4096, 8192],
            runs: 3,
        }
    }
}

/// Every row of the table; `candle` is where candle's own passes run. `keep` is called with each row as it is found, so
/// that a run that is cut short leaves what it has.
pub(crate) fn all(
    settings: &Settings,
    candle: &Device,
    keep: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<()> {
    let sizes = Sizes::of(settings);
    encoders(settings, &sizes, candle, keep)?;
    attentions(settings, &sizes, candle, keep)?;
    for &shape in &sizes.shapes {
        // candle's weights are dropped before the engine's are made.
        let theirs = baseline(shape, &sizes, candle)?;
        for row in &theirs {
            keep(row.json(shape.name, "candle"))?;
        }
        for &matrices in &sizes.matrices {
            let model = shape.load(matrices, settings.device)?;
            decoder(&model, (shape, matrices), &sizes, &theirs, keep)?;
        }
    }
    Ok(())
}

/// What candle takes for one step.
struct Baseline {
    what: &'static str,
    size: usize,
    seconds: f64,
}

impl Baseline {
    fn json(&self, shape: &str, by: &str) -> Value {
        json!({"shape": shape, "by": by, "what": self.what, "size": self.size, "seconds": self.seconds})
    }
}

fn find(theirs: &[Baseline], what: &str, size: usize) -> f64 {
    theirs.iter().find(|row| row.what == what && row.size == size).map_or(f64::NAN, |row| row.seconds)
}

/// The least of several times, in seconds, after one that does not count.
fn least(runs: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let mut best = f64::INFINITY;
    for _ in 0..runs {
        let started = Instant::now();
        work()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn baseline(shape: Shape, sizes: &Sizes, device: &Device) -> Result<Vec<Baseline>> {
    let model = CandleLlama::new(shape, device)?;
    let mut rows = Vec::new();
    for &size in &sizes.prefill {
        let seconds = least(sizes.runs, || model.forward(1, size, None))?;
        rows.push(Baseline { what: "prefill", size, seconds });
    }
    for &size in &sizes.batches {
        let cache = model.cache(size, sizes.context)?;
        let seconds = least(sizes.runs * 10, || model.forward(size, 1, Some(&cache)))?;
        rows.push(Baseline { what: "decode", size, seconds });
    }
    Ok(rows)
}

fn decoder(
    model: &Model,
    (shape, matrices): (Shape, Matrices),
    sizes: &Sizes,
    theirs: &[Baseline],
    keep: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<()> {
    let mut add = |what: &str, size: usize, bare: f64, committed: f64, bandwidth: Option<f64>| {
        let candle = find(theirs, what, size);
        println!(
            "{}, {}, {what} {size}: {:.3} ms, {:.3} ms without commitments ({:+.2} %), candle {:.3} ms: {:.2}×",
            shape.name,
            matrices.name(),
            committed * 1e3,
            bare * 1e3,
            (committed / bare - 1.0) * 100.0,
            candle * 1e3,
            candle / committed,
        );
        keep(json!({
            "shape": shape.name, "by": matrices.name(), "what": what, "size": size, "seconds": committed,
            "seconds_without_commitments": bare, "times_candle": candle / committed,
            "bytes_per_second": bandwidth,
        }))
    };
    for &tokens in &sizes.prefill {
        let [bare, committed] = both(sizes.runs, |commit| {
            Ok(pace(model, &[request(shape, tokens, 1, 1)], commit)?.prompts.as_secs_f64())
        })?;
        add("prefill", tokens, bare, committed, None)?;
    }
    for &batch in &sizes.batches {
        let requests: Vec<_> = (0..batch)
            .map(|seed| request(shape, sizes.context, sizes.answer.min(64) as u32, seed as u64))
            .collect();
        let [bare, committed] = both(sizes.runs, |commit| {
            let Pace { answers, steps, .. } = pace(model, &requests, commit)?;
            Ok(answers.as_secs_f64() / steps.max(1) as f64)
        })?;
        let read = shape.active_weights() * bytes_per_weight(matrices);
        add("decode", batch, bare, committed, Some(read as f64 / committed))?;
    }
    let measured = measure(model, &request(shape, sizes.context, sizes.answer as u32, 1), sizes.runs)?;
    let (generate, check) = (measured.generate.as_secs_f64(), measured.check.as_secs_f64());
    println!(
        "{}, {}: an answer of {} tokens {:.1} ms, its check {:.2} ms: 1/{:.0}",
        shape.name,
        matrices.name(),
        sizes.answer,
        generate * 1e3,
        check * 1e3,
        generate / check,
    );
    keep(json!({
        "shape": shape.name, "by": matrices.name(), "what": "check", "size": sizes.answer,
        "generate_seconds": generate, "seconds": check, "generate_over_check": generate / check,
    }))
}

fn bytes_per_weight(matrices: Matrices) -> u64 {
    match matrices {
        Matrices::Floats(dtype) => dtype.bytes(),
        Matrices::Int8(_) => 1,
    }
}

/// The least times without and with commitments, in turn, after a round that does not count.
fn both(runs: usize, mut seconds: impl FnMut(bool) -> Result<f64>) -> Result<[f64; 2]> {
    let mut best = [f64::INFINITY; 2];
    for run in 0..=runs {
        for commit in [false, true] {
            let took = seconds(commit)?;
            if run > 0 {
                best[usize::from(commit)] = best[usize::from(commit)].min(took);
            }
        }
    }
    Ok(best)
}

fn request(shape: Shape, prompt: usize, max_tokens: u32, seed: u64) -> GenerationRequest {
    let mut random = Random(seed);
    let prompt = (0..prompt).map(|_| (random.next_u64() % u64::from(shape.vocabulary)) as u32).collect();
    GenerationRequest { prompt, sampling: Sampling::default(), stop: StopRules::max_tokens(max_tokens) }
}

/// Attention alone: what two more attentions take than one, halved.
fn attentions(
    settings: &Settings,
    sizes: &Sizes,
    device: &Device,
    keep: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<()> {
    let shape = Shape { max_sequence: 8448, ..LLAMA_8B };
    let shape = if settings.smoke { TINY } else { shape };
    let models = [shape.load_attention(1, settings.device)?, shape.load_attention(3, settings.device)?];
    let noise = Noise::new(device)?;
    for &tokens in &sizes.attention {
        // Any token that the small vocabulary of these models has.
        let request = request(Shape { vocabulary: 64, ..shape }, tokens, 1, 1);
        let mut taken = [0.0; 2];
        for (seconds, model) in taken.iter_mut().zip(&models) {
            *seconds = least(sizes.runs, || {
                pace(model, std::slice::from_ref(&request), false)?;
                Ok(())
            })?;
        }
        let ours = (taken[1] - taken[0]) / 2.0;
        let heads = |heads: u32| noise.tensor(&[1, heads as usize, tokens, shape.head_dim as usize], 1.0);
        let (q, k, v) = (heads(shape.heads)?, heads(shape.kv_heads)?, heads(shape.kv_heads)?);
        let mask = causal_mask(tokens, q.dtype(), device)?;
        let theirs = least(sizes.runs, || {
            attention(&q, &k, &v, mask.as_ref())?;
            Ok(device.synchronize()?)
        })?;
        println!("attention over {tokens} tokens: {:.3} ms, candle {:.3} ms", ours * 1e3, theirs * 1e3);
        keep(json!({
            "shape": shape.name, "by": "exact", "what": "attention", "size": tokens, "seconds": ours,
            "times_candle": theirs / ours,
        }))?;
    }
    Ok(())
}

/// An encoder in the shape of MiniLM, 32 sequences of 128 tokens.
fn encoders(
    settings: &Settings,
    sizes: &Sizes,
    device: &Device,
    keep: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<()> {
    let (blocks, heads, head_dim, intermediate, sequences, tokens) =
        if settings.smoke { (2, 2, 8, 24, 2, 9) } else { (6, 12, 32, 1536, 32, 128) };
    let candle = CandleEncoder::new(blocks, heads, head_dim, intermediate, device)?;
    let theirs = least(sizes.runs * 3, || candle.forward(sequences, tokens))?;
    for arithmetic in ArithmeticProfile::ALL {
        let toy = Toy::new(&ToyOptions {
            arithmetic,
            blocks,
            heads,
            head_dim,
            intermediate,
            vocabulary: 1000,
            max_sequence: 512,
            expand_from_rows: 16,
            ..ToyOptions::default()
        })?;
        let weights = toy.weights.into_iter().map(Into::into).collect();
        let options = Options { device: settings.device, ..Options::default() };
        let model = Model::new(toy.model.into(), weights, options)?;
        let jobs: Vec<JobInput> =
            (0..sequences).map(|seed| job(model.model(), seed as u64, &[tokens])).collect();
        let ours = least(sizes.runs * 3, || {
            model.run(&jobs, None)?;
            Ok(())
        })?;
        println!(
            "MiniLM shape, {}, {sequences} × {tokens} tokens: {:.3} ms, candle {:.3} ms: {:.2}×",
            arithmetic.name(),
            ours * 1e3,
            theirs * 1e3,
            theirs / ours,
        );
        keep(json!({
            "shape": "MiniLM", "by": arithmetic.name(), "what": "encode", "size": sequences * tokens,
            "seconds": ours, "times_candle": theirs / ours,
        }))?;
    }
    Ok(())
}
