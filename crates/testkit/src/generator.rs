//! A small language model, and a worker that says whatever a test has it say.
//!
//! The coordinator runs no model: it takes any tokens that hash up and end where they should. So what it checks on
//! receipt is tested with made-up answers; whether an answer is right is a dispute's question.

use std::convert::Infallible;
use std::path::Path;

use gainsay_api::client::{Auth, Client};
use gainsay_api::leases::Lease;
use gainsay_commitment::tensor::tensor_commitment;
use gainsay_commitment::{Canonical, ModelId, PartyId, SecretKey, Signed, TensorCommitment, trace_root};
use gainsay_program::lowering::{LanguageFiles, LowerOptions, lower_language};
use gainsay_program::{ArithmeticProfile, Manifest};
use gainsay_protocol::Claim;

use crate::{OPERATOR_TOKEN, job_of};

/// The name that the model is registered under.
const NAME: &str = "small";

/// A language model of the Qwen 3 family with random weights, a byte-level tokenizer and a chat template.
#[derive(Debug)]
pub struct TestGenerator {
    /// Its manifest.
    pub manifest: Manifest,
    files: Vec<Vec<u8>>,
}

impl TestGenerator {
    /// Reads it from the files that `transformers` made.
    ///
    /// # Panics
    /// If the files are not there.
    #[must_use]
    pub fn new() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/fixtures/families/qwen3");
        let files = LanguageFiles::load(|name| Ok::<_, Infallible>(std::fs::read(folder.join(name)).ok()))
            .expect("the model's files are there");
        let options = LowerOptions::new(NAME, ArithmeticProfile::ExactF32V1);
        let lowered = lower_language(&files, &options).expect("the model is supported");
        let texts = [Some(files.tokenizer), lowered.template].into_iter().flatten();
        let files = lowered.weights.into_iter().chain(texts).collect();
        Self { manifest: lowered.manifest, files }
    }

    /// The same model with another file for its chat template.
    ///
    /// # Panics
    /// If it has none to replace.
    #[must_use]
    pub fn with_template(mut self, name: &str, file: Vec<u8>) -> Self {
        self.manifest.name = name.to_owned();
        let generation = self.manifest.generation.as_mut().expect("it generates");
        generation.template = Some(tensor_commitment(&file));
        *self.files.last_mut().expect("the template comes last") = file;
        self
    }

    /// Its files: weights, tokenizer, chat template.
    #[must_use]
    pub fn files(&self) -> &[Vec<u8>] {
        &self.files
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ModelId {
        self.manifest.id()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// The token that ends its answers.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn end(&self) -> u32 {
        let generation = self.manifest.generation.as_ref().expect("it generates");
        *generation.stop_ids.first().expect("it has a token that ends an answer")
    }

    /// Registers it and uploads all of its files, as the operator.
    ///
    /// # Panics
    /// If the coordinator refuses.
    pub async fn publish(&self, client: &Client) {
        self.publish_as(client, Auth::Bearer(OPERATOR_TOKEN)).await;
    }

    /// Registers it and uploads all of its files.
    ///
    /// # Panics
    /// If the coordinator refuses.
    pub async fn publish_as(&self, client: &Client, auth: Auth<'_>) {
        let manifest = self.manifest.to_bytes();
        client.put_model(auth, self.id(), manifest).await.expect("a valid manifest is taken");
        for file in &self.files {
            client.put_blob(auth, file.clone()).await.expect("a file of the manifest is taken");
        }
    }

    /// A claim of this answer, with layers that nobody computed.
    #[must_use]
    pub fn claim(
        &self,
        coordinator: PartyId,
        lease: &Lease,
        worker: &SecretKey,
        answer: &[u32],
    ) -> Signed<Claim> {
        let output: Vec<u8> = answer.iter().flat_map(|token| token.to_le_bytes()).collect();
        let mut layers: Vec<TensorCommitment> = (1..self.manifest.program.layers.len())
            .map(|layer| tensor_commitment(&layer.to_le_bytes()))
            .collect();
        layers.push(tensor_commitment(&output));
        let claim = Claim {
            coordinator,
            job: lease.job_id,
            lease: lease.id,
            model: lease.model,
            arithmetic: self.manifest.arithmetic,
            input: job_of(lease).commitment(),
            output,
            trace: trace_root(&layers).expect("a model has layers"),
            layers,
            worker: worker.id(),
        };
        Signed::sign(claim, worker)
    }
}

impl Default for TestGenerator {
    fn default() -> Self {
        Self::new()
    }
}
