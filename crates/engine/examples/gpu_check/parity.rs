//! Whether the device gives the bits of the CPU: every operator, every family, generated models, any batch, any portions.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use gainsay_engine::{
    DeviceChoice, DeviceError, Model, Options, Progress, Runner, RunnerOptions, Simd, Trace, Work, self_test,
};
use gainsay_program::lowering::{LanguageFiles, LowerOptions, lower_language};
use gainsay_program::toy::{Toy, ToyOptions};
use gainsay_program::{
    ActivationBits, ArithmeticProfile, Dtype, GenerationRequest, JobInput, Sampling, StopRules,
};
use serde_json::json;

use super::results::Results;
use super::shape::{LLAMA_1B, Matrices, Shape, TINY};
use super::support::{Random, job};
use super::{Part, Settings};

/// Models of one kind, on the device and on the CPU.
struct Pair {
    what: String,
    device: Model,
    cpu: Model,
}

/// All comparisons. Those that find a difference go on to the next.
pub(crate) fn parts(settings: &Settings) -> Vec<Part> {
    let mut parts = vec![
        Part::new("parity/operators", operators),
        Part::new("parity/families", families),
        Part::new("parity/encoders", encoders),
    ];
    let group = if settings.smoke { 8 } else { 128 };
    let kinds = [
        Matrices::Floats(Dtype::F32),
        Matrices::Floats(Dtype::Bf16),
        Matrices::Int8(0),
        Matrices::Int8(group),
    ];
    parts.extend(kinds.map(|matrices| {
        let name = format!("parity/decoder-{}", matrices.id());
        Part::new(name, move |settings, found| decoder(settings, matrices, found))
    }));
    parts
}

fn note(found: &mut Results, what: &str, equal: bool, traces: usize) -> Result<()> {
    println!("{what}: {} of {traces} traces", if equal { "the same bits" } else { "DIFFERENT BITS" });
    found.compared(json!({"what": what, "equal": equal, "traces": traces}))
}

fn operators(settings: &Settings, found: &mut Results) -> Result<()> {
    let (what, differing) = match self_test(settings.device, Simd::Auto) {
        Ok(test) => {
            (format!("self-test of {} operators on {}", test.checks.len(), test.device), String::new())
        }
        Err(DeviceError::Differs { device, ops }) => (format!("self-test on {device}"), ops),
        Err(error) => return Err(error.into()),
    };
    println!("{what}, different: [{differing}]");
    found.compared(json!({"what": what, "equal": differing.is_empty(), "differing": differing}))
}

fn families(settings: &Settings, found: &mut Results) -> Result<()> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(&settings.families).context("the fixtures of families")? {
        let path = entry?.path();
        folders.extend(path.is_dir().then_some(path));
    }
    folders.sort();
    ensure!(!folders.is_empty(), "there are no families in {}", settings.families.display());
    for folder in folders {
        for arithmetic in ArithmeticProfile::ALL {
            let pair = family(settings, &folder, arithmetic)?;
            compare_generations(settings, &pair, if settings.smoke { &[2] } else { &[1, 3] }, found)?;
        }
    }
    Ok(())
}

fn family(settings: &Settings, folder: &Path, arithmetic: ArithmeticProfile) -> Result<Pair> {
    let files = LanguageFiles::load(|name| Ok::<_, Infallible>(std::fs::read(folder.join(name)).ok()))?;
    let options = LowerOptions { int8_group: 8, ..LowerOptions::new("small", arithmetic) };
    let lowered = lower_language(&files, &options)?;
    let weights: Vec<Arc<[u8]>> = lowered.weights.into_iter().map(Arc::from).collect();
    let model = Arc::new(lowered.manifest.validate()?);
    let load =
        |device| Model::new(Arc::clone(&model), weights.clone(), Options { device, ..Options::default() });
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    Ok(Pair {
        what: format!("family {name}, {}", arithmetic.name()),
        device: load(settings.device)?,
        cpu: load(DeviceChoice::Cpu)?,
    })
}

fn encoders(settings: &Settings, found: &mut Results) -> Result<()> {
    let (heads, head_dim, intermediate, max_sequence) =
        if settings.smoke { (2, 8, 24, 32) } else { (12, 32, 1536, 512) };
    let base = ToyOptions {
        heads,
        head_dim,
        intermediate,
        max_sequence,
        expand_from_rows: 16,
        ..ToyOptions::default()
    };
    let int8 = ToyOptions { arithmetic: ArithmeticProfile::ExactInt8V1, ..base.clone() };
    let kinds = [
        ("f32", base.clone()),
        ("bf16", ToyOptions { dtype: Dtype::Bf16, ..base.clone() }),
        ("f16", ToyOptions { dtype: Dtype::F16, ..base }),
        ("int8", int8.clone()),
        ("int8, 16-bit activations", ToyOptions { activation_bits: ActivationBits::Sixteen, ..int8 }),
    ];
    for (kind, options) in kinds {
        let toy = Toy::new(&options)?;
        let weights: Vec<Arc<[u8]>> = toy.weights.into_iter().map(Arc::from).collect();
        let model = Arc::new(toy.model);
        let [device, cpu] = [settings.device, DeviceChoice::Cpu].map(|device| {
            Model::new(Arc::clone(&model), weights.clone(), Options { device, ..Options::default() })
        });
        let (device, cpu) = (device?, cpu?);
        for &batch in settings.batches() {
            let longest = max_sequence as usize;
            let lengths = |index: usize| [1 + index * 7 % longest, 1 + index * 31 % longest];
            let jobs: Vec<JobInput> =
                (0..batch).map(|index| job(&model, index as u64, &lengths(index))).collect();
            let equal = device.run(&jobs, None)? == cpu.run(&jobs, None)?;
            note(found, &format!("encoder in {kind}, batch {batch}"), equal, batch)?;
        }
    }
    Ok(())
}

fn decoder(settings: &Settings, matrices: Matrices, found: &mut Results) -> Result<()> {
    // Enough columns for every path of the kernels, few enough layers for a CPU.
    let wide = Shape { name: "two blocks of llama 1B", blocks: 2, vocabulary: 2003, ..LLAMA_1B };
    let shape = if settings.smoke { TINY } else { wide };
    let pair = Pair {
        what: format!("{}, {}", shape.name, matrices.name()),
        device: shape.load(matrices, settings.device)?,
        cpu: shape.load(matrices, DeviceChoice::Cpu)?,
    };
    compare_generations(settings, &pair, settings.batches(), found)
}

/// Generates in batches of several sizes, with prompts in portions of several sizes, and checks what was generated.
fn compare_generations(
    settings: &Settings,
    pair: &Pair,
    batches: &[usize],
    found: &mut Results,
) -> Result<()> {
    let portions: &[usize] = if settings.smoke { &[50] } else { &[1, 50, 512] };
    for &batch in batches {
        let requests = requests(settings, &pair.cpu, batch);
        let expected = generate(&pair.cpu, &requests, 256)?;
        for &portion in portions {
            // A token at a time is slow, and as telling with few.
            if portion == 1 && batch > 3 {
                continue;
            }
            let what = format!("{}, batch {batch}, prompts by {portion}", pair.what);
            note(found, &what, generate(&pair.device, &requests, portion)? == expected, batch)?;
        }
        let jobs = requests.iter().zip(&expected).map(|(request, trace)| {
            JobInput::generation(&request.prompt, &tokens(&trace.output), request.sampling.clone())
        });
        let jobs: Vec<_> = jobs.collect::<Result<_, _>>()?;
        let what = format!("{}, batch {batch}, checked", pair.what);
        note(found, &what, pair.device.run(&jobs, None)? == expected, batch)?;
    }
    Ok(())
}

/// Greedy and sampled requests in turn, of prompts that differ in length and go over pages of keys.
fn requests(settings: &Settings, model: &Model, count: usize) -> Vec<GenerationRequest> {
    let manifest = model.model().manifest();
    let vocabulary = u64::from(manifest.vocabulary);
    let answer = if settings.smoke { 3 } else { 16 };
    let longest = (manifest.max_sequence as usize - answer).min(if settings.smoke { 140 } else { 600 });
    (0..count)
        .map(|index| {
            let mut random = Random(index as u64);
            let len = 1 + (index * 139 + 3) % longest;
            let sampled = Sampling {
                temperature: 0.8,
                top_k: 30,
                top_p: 0.95,
                repetition_penalty: 1.2,
                presence_penalty: 0.3,
                seed: index as u64,
                ..Sampling::default()
            };
            GenerationRequest {
                prompt: (0..len).map(|_| (random.next_u64() % vocabulary) as u32).collect(),
                sampling: if index % 2 == 0 { sampled } else { Sampling::default() },
                stop: StopRules::max_tokens(answer as u32),
            }
        })
        .collect()
}

fn generate(model: &Model, requests: &[GenerationRequest], portion: usize) -> Result<Vec<Trace>> {
    let options = RunnerOptions { prefill_chunk: portion, ..RunnerOptions::default() };
    let mut runner = Runner::new(model.clone(), options);
    for (key, request) in requests.iter().enumerate() {
        runner.join(key, Work::Generate { request: request.clone(), stop: Box::new(|_| false) })?;
    }
    let mut traces = vec![None; requests.len()];
    while !runner.is_empty() {
        for progress in runner.step()? {
            match progress {
                Progress::Done { key, trace } => traces[key] = Some(trace),
                Progress::Failed { error, .. } => bail!(error),
                Progress::Token { .. } => {}
            }
        }
    }
    traces.into_iter().map(|trace| trace.context("a generation has not ended")).collect()
}

fn tokens(output: &[u8]) -> Vec<u32> {
    output.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect()
}
