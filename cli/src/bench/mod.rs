//! `gainsay bench`: what verification costs on this machine.

mod court;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use gainsay_engine::measure::measure;
use gainsay_engine::{Fault, Options};
use gainsay_participant::models::LoadedModel;
use gainsay_program::lowering::LowerOptions;
use gainsay_program::{ArithmeticProfile, GenerationRequest, OpKind, OpPlace, Sampling, StopRules};
use serde::Serialize;

use crate::generated::{self, Size};
use crate::local::LocalModel;
use crate::terminal;

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Generate an answer with and without commitments, check it by one run, and convict a few frauds in it
    Verify(VerifyArguments),
}

impl BenchCommand {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Verify(arguments) => arguments.run(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Use the language model in this folder of Hugging Face files; a generated one with random weights if not given.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Size of the generated model.
    #[arg(long, value_enum, default_value = "small", conflicts_with = "model")]
    size: Size,
    /// Tokens of the prompt.
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(1..))]
    prompt_tokens: u32,
    /// Tokens of the answer.
    #[arg(long, value_name = "N", default_value = "256", value_parser = clap::value_parser!(u32).range(1..))]
    answer_tokens: u32,
    /// Runs, of which the fastest counts.
    #[arg(long, value_name = "N", default_value = "3")]
    runs: usize,
    /// Threads; 0 for as many as the machine has.
    #[arg(long, default_value = "0")]
    threads: usize,
}

/// What was measured. Of disputes the most expensive counts.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    prompt_tokens: u32,
    answer_tokens: u32,
    generate_ms: f64,
    generate_without_commitments_ms: f64,
    check_ms: f64,
    witness_bytes: u64,
    worker_moves: u64,
    referee_us: u64,
    frauds: Vec<Fraud>,
}

/// A fraud, and what its conviction took.
#[derive(Debug, Serialize)]
struct Fraud {
    what: String,
    witness_bytes: u64,
    worker_moves: u64,
    referee_us: u64,
}

impl VerifyArguments {
    fn run(self) -> Result<()> {
        let spinner = terminal::spinner("reading the model");
        let (name, model) = self.load()?;
        let request = self.request(&model);
        spinner.set_message("generating and checking");
        let measured = measure(model.engine(), &request, self.runs).context("nothing could be measured")?;
        let mut frauds = Vec::new();
        for (what, fault) in self.frauds(&model) {
            spinner.set_message(format!("convicting a fraud: {what}"));
            let convicted =
                court::convict(&model, &request, fault).with_context(|| format!("the fraud: {what}"))?;
            // A flip that every later op rounds away is no fraud: the claim is true.
            if let Some(court::Conviction { worker_moves, witness_bytes, referee }) = convicted {
                frauds.push(Fraud {
                    what,
                    witness_bytes,
                    worker_moves,
                    referee_us: referee.as_micros() as u64,
                });
            }
        }
        spinner.finish_and_clear();
        let ms = |time: std::time::Duration| time.as_micros() as f64 / 1_000.0;
        let most = |of: fn(&Fraud) -> u64| frauds.iter().map(of).max().unwrap_or(0);
        let report = Report {
            model: name,
            prompt_tokens: self.prompt_tokens,
            answer_tokens: self.answer_tokens,
            generate_ms: ms(measured.generate),
            generate_without_commitments_ms: ms(measured.generate_without_commitments),
            check_ms: ms(measured.check),
            witness_bytes: most(|fraud| fraud.witness_bytes),
            worker_moves: most(|fraud| fraud.worker_moves),
            referee_us: most(|fraud| fraud.referee_us),
            frauds,
        };
        if self.json {
            println!("{}", serde_json::to_string(&report).context("the report does not encode")?);
        } else {
            report.print();
        }
        Ok(())
    }

    fn load(&self) -> Result<(String, LoadedModel)> {
        let folder = std::env::temp_dir().join(format!("gainsay-bench-{}", std::process::id()));
        let (name, dir) = match &self.model {
            Some(dir) => (dir.display().to_string(), dir.clone()),
            None => {
                generated::write(&folder, self.size)?;
                (self.size.name().to_owned(), folder.clone())
            }
        };
        let model = load(&name, &dir, self.threads);
        if self.model.is_none() {
            // Left to the system's own cleaning of temporary files where it cannot be removed.
            let _ = std::fs::remove_dir_all(&folder);
        }
        Ok((name, model?))
    }

    /// Sampled, and as long as was asked for whatever the model says.
    fn request(&self, model: &LoadedModel) -> GenerationRequest {
        let vocabulary = model.model().manifest().vocabulary;
        let id = |position: u32| position.wrapping_mul(2_654_435_761) % vocabulary.min(250);
        GenerationRequest {
            prompt: (0..self.prompt_tokens).map(id).collect(),
            sampling: Sampling { temperature: 0.8, top_p: 0.95, seed: 7, ..Sampling::default() },
            stop: StopRules { max_tokens: self.answer_tokens, stop: Vec::new(), ignore_eos: true },
        }
    }

    /// Another token than was drawn in the middle of the answer, and a bit flipped at the last row of the kinds of op that
    /// are dearest to dispute, as deep in the model as they come.
    fn frauds(&self, model: &LoadedModel) -> Vec<(String, Fault)> {
        let program = model.model();
        let answer = self.answer_tokens / 2;
        let mut frauds = vec![("another token than was drawn".to_owned(), Fault::Token { answer, token: 1 })];
        let wanted: [fn(&OpKind) -> bool; 3] = [
            |kind| matches!(kind, OpKind::Attention { .. }),
            |kind| matches!(kind, OpKind::Linear(_)),
            |kind| matches!(kind, OpKind::RmsNorm { .. }),
        ];
        let rows = u64::from(self.prompt_tokens) + u64::from(self.answer_tokens) - 1;
        for is_wanted in wanted {
            let layers = (0..program.layer_count().saturating_sub(1)).rev();
            let mut places = layers.flat_map(|layer| {
                (0..program.ops(layer).len() as u32).map(move |op| OpPlace::in_layer(layer, op))
            });
            let found =
                places.find(|place| program.op(place.layer, place.op).is_some_and(|op| is_wanted(&op.kind)));
            let Some(OpPlace { layer, op, .. }) = found else { continue };
            let Some(output) = program.output_type(layer, op) else { continue };
            let kind = program.op(layer, op).map_or("op", |op| op.kind.name());
            let element = rows * u64::from(output.width) - 1;
            frauds
                .push((format!("a bit of {kind}, last row"), Fault::FlipBit { layer, op, element, bit: 22 }));
        }
        frauds
    }
}

fn load(name: &str, dir: &Path, threads: usize) -> Result<LoadedModel> {
    let options = LowerOptions::new(name, ArithmeticProfile::ExactF32V1);
    let local = LocalModel::read(dir, &options, &mut |_| {})?;
    let model = Arc::new(local.manifest.validate().context("the manifest is refused")?);
    let weights = local.weights.into_iter().map(Arc::from).collect();
    LoadedModel::new(model, weights, Options { threads, ..Options::default() })
        .context("the model does not load")
}

impl Report {
    fn print(&self) {
        let Self { generate_ms, generate_without_commitments_ms, check_ms, .. } = self;
        let overhead = 100.0 * (generate_ms / generate_without_commitments_ms - 1.0);
        println!("{}: prompt of {} tokens, answer of {}", self.model, self.prompt_tokens, self.answer_tokens);
        println!("  generation            {generate_ms:10.1} ms");
        println!(
            "  without commitments   {generate_without_commitments_ms:10.1} ms: they cost {overhead:.1} %"
        );
        println!(
            "  check by one run      {check_ms:10.1} ms: 1/{:.1} of the generation",
            generate_ms / check_ms
        );
        for Fraud { what, witness_bytes, worker_moves, referee_us } in &self.frauds {
            println!(
                "  {what}: {worker_moves} moves of the worker, witness of {witness_bytes} bytes, referee {referee_us} µs"
            );
        }
    }
}
