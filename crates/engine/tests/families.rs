//! Small models of each family, made by transformers and loaded from their real files: logits and greedy continuations
//! against what transformers gave, and quantized against the reference executor.
//!
//! `GAINSAY_FAMILIES` names another folder, such as that of larger models made by `scripts/reference_models.py`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gainsay_engine::{Model, Options, Progress, Runner, RunnerOptions, Simd, Trace, Work};
use gainsay_program::lowering::{LanguageFiles, LowerOptions, lower_language};
use gainsay_program::{
    ArithmeticProfile, GenerationRequest, JobInput, KvDtype, OpKind, Sampling, StopRules, reference,
};
use safetensors::SafeTensors;
use serde::Deserialize;

/// How far a logit may be from transformers', in parts of the range of its row.
const TOLERANCE: f32 = 1e-4;
/// Of a hundred prompts at least so many must go on as transformers has them go on.
const EQUAL: usize = 95;

#[derive(Deserialize)]
struct Reference {
    long_prompt_tokens: Option<usize>,
    prompts: Vec<Continued>,
}

#[derive(Deserialize)]
struct Continued {
    prompt: Vec<u32>,
    continuation: Vec<u32>,
}

fn folder(family: &str) -> PathBuf {
    let committed = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    std::env::var_os("GAINSAY_FAMILIES").map_or_else(committed, PathBuf::from).join(family)
}

fn families() -> Vec<String> {
    let entries = std::fs::read_dir(folder("")).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 7, "all families are there");
    names
}

/// The model of a family, and its weights for the reference executor.
fn load(family: &str, options: &LowerOptions, engine: Options) -> (Model, Vec<Vec<u8>>) {
    let files =
        LanguageFiles::load(|name| Ok::<_, Infallible>(std::fs::read(folder(family).join(name)).ok()));
    let lowered = lower_language(&files.unwrap(), options).unwrap();
    let weights = lowered.weights.iter().map(|bytes| Arc::from(&bytes[..])).collect();
    let model = Model::new(Arc::new(lowered.manifest.validate().unwrap()), weights, engine).unwrap();
    (model, lowered.weights)
}

fn floats_of_transformers() -> LowerOptions {
    LowerOptions { kv_dtype: Some(KvDtype::F32), ..LowerOptions::new("small", ArithmeticProfile::ExactF32V1) }
}

fn tokens(output: &[u8]) -> Vec<u32> {
    output.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// Generates from all prompts together.
fn generate(model: &Model, prompts: &[Vec<u32>], max_tokens: u32, sampling: &Sampling) -> Vec<Trace> {
    let mut runner = Runner::new(model.clone(), RunnerOptions::default());
    for (key, prompt) in prompts.iter().enumerate() {
        let stop = StopRules::max_tokens(max_tokens);
        let request = GenerationRequest { prompt: prompt.clone(), sampling: sampling.clone(), stop };
        runner.join(key, Work::Generate { request, stop: Box::new(|_| false) }).unwrap();
    }
    let mut traces: Vec<Option<Trace>> = prompts.iter().map(|_| None).collect();
    while !runner.is_empty() {
        for progress in runner.step().unwrap() {
            match progress {
                Progress::Done { key, trace } => traces[key] = Some(trace),
                Progress::Failed { error, .. } => panic!("{error}"),
                Progress::Token { .. } => {}
            }
        }
    }
    traces.into_iter().map(Option::unwrap).collect()
}

/// The logits of the last `rows` positions of `tokens`, as the head gives them.
fn last_logits(model: &Model, tokens: &[u32], rows: usize) -> Vec<f32> {
    // Any token may stand for the one that would follow: it is no input.
    let (prompt, answer) = tokens.split_at(tokens.len() + 1 - rows);
    let job = JobInput::generation(prompt, &[answer, &[0]].concat(), Sampling::default()).unwrap();
    let last = model.model().layer_count() - 1;
    let head = model.model().ops(last).iter().rposition(|op| matches!(op.kind, OpKind::Linear(_))).unwrap();
    floats(&model.layer_ops(&job, last, None).unwrap()[head])
}

#[track_caller]
fn assert_near(found: &[f32], expected: &[f32], vocabulary: usize, what: &str) -> f32 {
    assert_eq!(found.len(), expected.len(), "{what}");
    let rows = found.chunks(vocabulary).zip(expected.chunks(vocabulary));
    let apart = rows.map(|(found, expected)| {
        let greatest = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let least = expected.iter().copied().fold(f32::INFINITY, f32::min);
        let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        apart / (greatest - least)
    });
    let worst = apart.fold(0.0, f32::max);
    assert!(worst <= TOLERANCE, "{what}: logits are {worst:e} of their range apart");
    worst
}

#[test]
fn logits_and_continuations_are_those_of_transformers() {
    for family in families() {
        let (model, _) = load(&family, &floats_of_transformers(), Options::default());
        let about: Reference =
            serde_json::from_slice(&std::fs::read(folder(&family).join("reference.json")).unwrap()).unwrap();
        let bytes = std::fs::read(folder(&family).join("reference.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let vocabulary = model.model().manifest().vocabulary as usize;
        let mut worst = 0f32;
        for index in 0.. {
            let (Ok(ids), Ok(logits)) =
                (tensors.tensor(&format!("tokens.{index}")), tensors.tensor(&format!("logits.{index}")))
            else {
                break;
            };
            let (ids, logits) = (tokens(ids.data()), floats(logits.data()));
            let found = last_logits(&model, &ids, logits.len() / vocabulary);
            worst = worst.max(assert_near(&found, &logits, vocabulary, &format!("{family}, prompt {index}")));
        }
        assert!(worst > 0.0, "{family}: there are logits to compare");
        if let Some(len) = about.long_prompt_tokens {
            let prompt: Vec<u32> =
                (0..len as u64).map(|i| ((i * i * 31 + i * 7919 + 13) % vocabulary as u64) as u32).collect();
            let expected = floats(tensors.tensor("logits.long").unwrap().data());
            let found = last_logits(&model, &prompt, 1);
            worst = worst.max(assert_near(&found, &expected, vocabulary, &format!("{family}, long prompt")));
        }
        let prompts: Vec<_> = about.prompts.iter().map(|it| it.prompt.clone()).collect();
        let traces = generate(&model, &prompts, 64, &Sampling::default());
        let equal = traces.iter().zip(&about.prompts);
        let equal = equal.filter(|(trace, it)| tokens(&trace.output) == it.continuation).count();
        println!(
            "{family}: logits within {worst:e} of their range, {equal} of {} go on alike",
            prompts.len()
        );
        assert!(equal * 100 >= EQUAL * prompts.len(), "{family}: only {equal} go on alike");
    }
}

/// Whatever a family asks of the program, every byte is the reference's: with 16-bit keys, and in int8.
#[test]
fn every_family_equals_the_reference() {
    for family in families() {
        for arithmetic in ArithmeticProfile::ALL {
            let options = LowerOptions { int8_group: 8, ..LowerOptions::new("small", arithmetic) };
            let sampling =
                Sampling { temperature: 0.8, seed: 3, presence_penalty: 0.5, ..Sampling::default() };
            let prompt: Vec<u32> = (5..30).collect();
            let mut expected: Option<(Trace, reference::Trace)> = None;
            for simd in Simd::available() {
                let engine = Options { simd, ..Options::default() };
                let (model, weights) = load(&family, &options, engine);
                let trace = generate(&model, std::slice::from_ref(&prompt), 6, &sampling).remove(0);
                let job = JobInput::generation(&prompt, &tokens(&trace.output), sampling.clone()).unwrap();
                let (first, law) = expected.get_or_insert_with(|| {
                    (trace.clone(), reference::run(model.model(), &weights, &job).unwrap())
                });
                let what = format!("{family}, {}, {simd}", arithmetic.name());
                assert_eq!(trace, *first, "{what}");
                assert_eq!(model.run(std::slice::from_ref(&job), None).unwrap(), [trace], "{what}");
                for (layer, ops) in (0..).zip(law.layers()) {
                    assert_eq!(&model.layer_ops(&job, layer, None).unwrap(), ops, "{what}, layer {layer}");
                }
            }
        }
    }
}
