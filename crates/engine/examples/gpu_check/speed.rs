//! How fast the engine is, beside candle's own bf16 forward pass of the same shapes on the same device, and PyTorch's.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use gainsay_engine::measure::{PACE_ROWS, Pace, encode, measure, pace};
use gainsay_engine::{Model, Options};
use gainsay_program::toy::{Toy, ToyOptions};
use gainsay_program::{ArithmeticProfile, Dtype, GenerationRequest, JobInput, Sampling, StopRules};
use serde_json::{Value, json};

use super::candle::{CandleEncoder, CandleLlama, Noise, attention, causal_mask};
use super::results::Results;
use super::shape::{LLAMA_1B, LLAMA_8B, Matrices, Shape, TINY};
use super::support::{Random, job};
use super::timing::{Repeats, row, row_of_both};
use super::{Part, Settings};

/// The sizes that are measured.
struct Sizes {
    shapes: Vec<Shape>,
    matrices: Vec<Matrices>,
    prefill: Vec<usize>,
    batches: Vec<usize>,
    /// Tokens of the prompts of answers.
    context: usize,
    answer: usize,
    attention: Vec<usize>,
    repeats: Repeats,
}

impl Sizes {
    fn of(settings: &Settings) -> Self {
        if settings.smoke {
            return Self {
                shapes: vec![TINY],
                matrices: vec![Matrices::Int8(0), Matrices::Int8(8), Matrices::Floats(Dtype::Bf16)],
                prefill: vec![20],
                batches: vec![1, 2],
                context: 8,
                answer: 4,
                attention: vec![16],
                repeats: Repeats { least: 1, most: 1, seconds: 0.0 },
            };
        }
        Self {
            shapes: vec![LLAMA_1B, LLAMA_8B],
            matrices: vec![Matrices::Int8(0), Matrices::Int8(128), Matrices::Floats(Dtype::Bf16)],
            prefill: vec![512, 4096],
            batches: vec![1, 8, 32],
            context: 256,
            answer: 256,
            attention: vec![512, 4096, 8192],
            repeats: Repeats { least: 3, most: 20, seconds: 3.0 },
        }
    }
}

/// Every part of the table. Each of them makes its own models, so that only one is in the device's memory at a time.
pub(crate) fn parts(settings: &Settings) -> Vec<Part> {
    let sizes = Sizes::of(settings);
    let mut parts = Vec::new();
    for &shape in &sizes.shapes {
        parts.push(Part::new(format!("speed/{}-candle", shape.id), move |settings, found| {
            baseline(shape, settings, found)
        }));
        for &matrices in &sizes.matrices {
            let name = format!("speed/{}-{}", shape.id, matrices.id());
            parts.push(Part::new(name, move |settings, found| decoder(shape, matrices, settings, found)));
        }
    }
    parts.push(Part::new("speed/attention", attentions));
    parts.push(Part::new("speed/minilm", encoders));
    if let Some(script) = settings.torch.clone() {
        parts.push(Part::new("speed/torch", move |_, found| torch(&script, found)));
    }
    parts
}

/// What candle takes for prompts and steps of a decoder.
fn baseline(shape: Shape, settings: &Settings, found: &mut Results) -> Result<()> {
    let sizes = Sizes::of(settings);
    let model = CandleLlama::new(shape, &settings.candle_device()?)?;
    for &size in &sizes.prefill {
        let mask = model.mask(size)?;
        let times = sizes.repeats.time(|| model.forward((1, size), None, mask.as_ref()))?;
        found.measured(row(shape.name, "candle", ("prefill", size), &times)?)?;
    }
    for &size in &sizes.batches {
        let cache = model.cache(size, sizes.context)?;
        let repeats = Repeats { most: sizes.repeats.most * 10, ..sizes.repeats };
        let times = repeats.time(|| model.forward((size, 1), Some(&cache), None))?;
        found.measured(row(shape.name, "candle", ("decode", size), &times)?)?;
    }
    Ok(())
}

/// What the engine takes for the same, and for the check of an answer.
fn decoder(shape: Shape, matrices: Matrices, settings: &Settings, found: &mut Results) -> Result<()> {
    let sizes = Sizes::of(settings);
    let started = Instant::now();
    let model = shape.load(matrices, settings.device)?;
    println!("weights made and loaded in {:.1} s", started.elapsed().as_secs_f64());
    let by = matrices.name();
    for &tokens in &sizes.prefill {
        let prompt = [request(shape, tokens, 1, 1)];
        let times =
            sizes.repeats.both(|commit| Ok(vec![pace(&model, &prompt, commit)?.prompts.as_secs_f64()]))?;
        let mut row = row_of_both(shape.name, &by, ("prefill", tokens), &times)?;
        row["rows_per_step"] = json!(PACE_ROWS);
        found.measured(row)?;
    }
    for &batch in &sizes.batches {
        let answer = sizes.answer.min(64) as u32;
        let requests: Vec<_> =
            (0..batch).map(|seed| request(shape, sizes.context, answer, seed as u64)).collect();
        let times = sizes.repeats.both(|commit| {
            let Pace { steps, .. } = pace(&model, &requests, commit)?;
            Ok(steps.iter().map(std::time::Duration::as_secs_f64).collect())
        })?;
        let mut row = row_of_both(shape.name, &by, ("decode", batch), &times)?;
        let read = shape.active_weights() * bytes_per_weight(matrices);
        row["bytes_per_second"] = json!(row["seconds"].as_f64().map(|seconds| read as f64 / seconds));
        found.measured(row)?;
    }
    check(&model, shape, &by, &sizes, found)
}

/// The check of an answer, against its generation.
fn check(model: &Model, shape: Shape, by: &str, sizes: &Sizes, found: &mut Results) -> Result<()> {
    let request = request(shape, sizes.context, sizes.answer as u32, 1);
    let measured = measure(model, &request, sizes.repeats.least)?;
    let (generate, check) = (measured.generate.as_secs_f64(), measured.check.as_secs_f64());
    found.measured(json!({
        "shape": shape.name, "by": by, "what": "check", "size": sizes.answer, "prompt": sizes.context,
        "seconds": check, "generate_seconds": generate, "generate_over_check": generate / check,
    }))
}

fn bytes_per_weight(matrices: Matrices) -> u64 {
    match matrices {
        Matrices::Floats(dtype) => dtype.bytes(),
        Matrices::Int8(_) => 1,
    }
}

fn request(shape: Shape, prompt: usize, max_tokens: u32, seed: u64) -> GenerationRequest {
    let mut random = Random(seed);
    let prompt = (0..prompt).map(|_| (random.next_u64() % u64::from(shape.vocabulary)) as u32).collect();
    GenerationRequest { prompt, sampling: Sampling::default(), stop: StopRules::max_tokens(max_tokens) }
}

/// Attentions by which the two models differ that are measured: the more, the less noise there is in one of them.
const ATTENTIONS: u32 = 8;

/// Attention alone: a part of what more attentions take than one.
fn attentions(settings: &Settings, found: &mut Results) -> Result<()> {
    let sizes = Sizes::of(settings);
    let device = settings.candle_device()?;
    let shape = if settings.smoke { TINY } else { Shape { max_sequence: 8448, ..LLAMA_8B } };
    let models = [1, 1 + ATTENTIONS].map(|count| shape.load_attention(count, settings.device));
    let [one, more] = models;
    let (one, more) = (one?, more?);
    let noise = Noise::new(&device)?;
    for &tokens in &sizes.attention {
        let heads = |heads: u32| noise.tensor(&[1, heads as usize, tokens, shape.head_dim as usize], 1.0);
        let (q, k, v) = (heads(shape.heads)?, heads(shape.kv_heads)?, heads(shape.kv_heads)?);
        let mask = causal_mask(tokens, q.dtype(), &device)?;
        let theirs = sizes.repeats.time(|| {
            attention(&q, &k, &v, mask.as_ref())?;
            Ok(device.synchronize()?)
        })?;
        found.measured(row(shape.name, "candle", ("attention", tokens), &theirs)?)?;
        // Any tokens that the small vocabulary of these models has.
        let prompt = [request(Shape { vocabulary: 64, ..shape }, tokens, 1, 1)];
        let mut ours = Vec::new();
        sizes.repeats.run(|run| {
            let of =
                |model: &Model| Ok::<_, anyhow::Error>(pace(model, &prompt, false)?.prompts.as_secs_f64());
            let (one, more) = (of(&one)?, of(&more)?);
            if run > 0 {
                ours.push((more - one) / f64::from(ATTENTIONS));
            }
            Ok(())
        })?;
        found.measured(row(shape.name, "exact", ("attention", tokens), &ours)?)?;
    }
    Ok(())
}

/// An encoder in the shape of MiniLM, 32 sequences of 128 tokens.
fn encoders(settings: &Settings, found: &mut Results) -> Result<()> {
    let Sizes { repeats, .. } = Sizes::of(settings);
    let (blocks, heads, head_dim, intermediate, sequences, tokens) =
        if settings.smoke { (2, 2, 8, 24, 2, 9) } else { (6, 12, 32, 1536, 32, 128) };
    let what = ("encode", sequences * tokens);
    let candle = CandleEncoder::new(blocks, heads, head_dim, intermediate, &settings.candle_device()?)?;
    let input = candle.input(sequences * tokens)?;
    found.measured(row("MiniLM", "candle", what, &repeats.time(|| candle.forward(&input, sequences))?)?)?;
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
        let times = repeats.both(|commit| Ok(vec![encode(&model, &jobs, commit)?.as_secs_f64()]))?;
        found.measured(row_of_both("MiniLM", arithmetic.name(), what, &times)?)?;
    }
    Ok(())
}

/// Rows of PyTorch, from a script that prints them; none where it says that there is no PyTorch.
fn torch(script: &Path, found: &mut Results) -> Result<()> {
    let mut python = Command::new("python3").arg(script).stdout(Stdio::piped()).spawn().context("python3")?;
    let lines = python.stdout.take().context("what Python prints")?;
    for line in BufReader::new(lines).lines() {
        let mut row: Value = serde_json::from_str(&line?).context("a row of PyTorch's")?;
        if let Some(reason) = row["absent"].as_str() {
            println!("PyTorch was not measured: {reason}");
            continue;
        }
        row["by"] = json!("torch");
        found.measured(row)?;
    }
    let status = python.wait()?;
    ensure!(status.success(), "the script for PyTorch has failed: {status}");
    Ok(())
}
