//! The part of the demo that is about words: jobs for a language model, and an answer of which one token is a lie.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use gainsay_api::client::Client;
use gainsay_api::embeddings::EmbeddingInput;
use gainsay_api::generation::{CompletionRequest, Options};
use gainsay_api::jobs::{Finality, JobQuery};
use gainsay_commitment::Canonical as _;
use gainsay_engine::Model;
use gainsay_program::ArithmeticProfile;
use gainsay_program::lowering::LowerOptions;
use gainsay_protocol::{Job, JobId};

use crate::generated::{self, Size};
use crate::local::LocalModel;

/// What is to be continued.
pub(super) const PROMPTS: [&str; 4] = [
    "Intelligence becomes infrastructure when",
    "A proof is cheaper than trust because",
    "The challenger looked at the token and",
    "Once upon a time there was a worker that",
];
/// Tokens of each answer.
const TOKENS: u32 = 24;
/// Which of them the cheat replaces.
pub(super) const WRONG_TOKEN: u32 = 5;

/// A generation that was asked for.
pub(super) struct Asked {
    pub(super) job: JobId,
    pub(super) price: i64,
}

/// The language model of the demo, and what is said of it.
pub(super) struct Speaker {
    pub(super) model: LocalModel,
    pub(super) description: String,
}

impl Speaker {
    /// The model in a folder, or one that is generated into the demo's own.
    pub(super) fn read(given: Option<&Path>, own: &Path) -> Result<Self> {
        let (dir, name, description) = match given {
            Some(dir) => (dir.to_owned(), "language-model", format!("from {}", dir.display())),
            None => {
                let dir: PathBuf = own.join("generated");
                generated::write(&dir, Size::Tiny)?;
                (dir, Size::Tiny.name(), generated::DESCRIPTION.to_owned())
            }
        };
        let options = LowerOptions::new(name, ArithmeticProfile::ExactF32V1);
        let model = LocalModel::read(&dir, &options, &mut |_| {})?;
        if model.manifest.generation.is_none() {
            bail!("the model in {} generates nothing", dir.display());
        }
        Ok(Self { model, description })
    }
}

/// Has a prompt continued, with tokens drawn at random from a seed.
pub(super) async fn ask(client: &Client, api_key: &str, model: String, number: usize) -> Result<Asked> {
    let prompt = PROMPTS.get(number).context("there are prompts")?;
    let request = CompletionRequest {
        model,
        prompt: EmbeddingInput::Text((*prompt).to_owned()),
        options: Options {
            max_tokens: Some(TOKENS),
            temperature: Some(0.9),
            top_p: Some(0.95),
            seed: Some(number as i64),
            ignore_eos: Some(true),
            ..Options::default()
        },
    };
    let answer = client.completion(api_key, &request).await.context("a request for words failed")?;
    let provenance = answer.gainsay.context("an answer does not say where it comes from")?;
    Ok(Asked { job: provenance.job, price: provenance.price })
}

/// Fetches the final answers and checks each by one run of its whole sequence here. Returns the jobs whose answers are not
/// final or not equal.
pub(super) async fn compare(
    client: &Client,
    api_key: &str,
    model: Model,
    asked: &[Asked],
) -> Result<Vec<JobId>> {
    let model = Arc::new(model);
    let mut unequal = Vec::new();
    for asked in asked {
        let view = client.job(api_key, asked.job, JobQuery::default()).await?;
        let answer = view.answer.filter(|answer| answer.finality == Finality::Final);
        let Some(answer) = answer else {
            unequal.push(asked.job);
            continue;
        };
        let claim = client.claim(answer.claim).await?;
        let job = Job::from_bytes(&claim.job.0).context("a claim's job cannot be read")?;
        let input = job.input_given(&answer.output.0).context("an answer is none to its job")?;
        let model = model.clone();
        let run = tokio::task::spawn_blocking(move || model.run(&[input], None));
        let trace = run.await.context("a run ended early")??.remove(0);
        if trace.output != answer.output.0 || trace.layers != claim.layers {
            unequal.push(asked.job);
        }
    }
    Ok(unequal)
}
