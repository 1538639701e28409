//! A coordinator with a model, a submitter and owners, and what they usually do.

use std::sync::Arc;
use std::time::Duration;

use gainsay_api::claims::ClaimAccepted;
use gainsay_api::client::Client;
use gainsay_api::embeddings::EmbeddingInput;
use gainsay_api::jobs::{JobView, SubmitJob};
use gainsay_api::leases::{Lease, LeaseRequest};
use gainsay_commitment::SecretKey;
use gainsay_program::OpPlace;
use gainsay_testkit::{
    Fingerprint, TestCoordinator, TestCoordinatorBuilder, TestOwner, TestSubmitter, ToyModel, ToyRun,
};

/// What everybody starts with, micro-credits.
pub(crate) const FUNDS: i64 = 10_000_000;

pub(crate) struct World {
    pub(crate) test: TestCoordinator,
    pub(crate) client: Client,
    pub(crate) model: Arc<ToyModel>,
    pub(crate) submitter: TestSubmitter,
    pub(crate) owner: TestOwner,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(TestCoordinator::builder()).await
    }

    pub(crate) async fn with(builder: TestCoordinatorBuilder) -> Self {
        let test = builder.start().await;
        let client = test.client().await;
        let model = Arc::new(ToyModel::default());
        model.publish(&client).await;
        let submitter = TestSubmitter::register(&client, "submitter", FUNDS).await;
        let owner = TestOwner::register(&client, "owner", FUNDS).await;
        Self { test, client, model, submitter, owner }
    }

    pub(crate) fn job(&self, text: &str) -> SubmitJob {
        let (model, input) = (self.model.id().to_string(), EmbeddingInput::Text(text.to_owned()));
        SubmitJob { model, input, max_price: None }
    }

    pub(crate) async fn submit(&self, text: &str) -> JobView {
        let job = self.job(text);
        self.client.submit_job(&self.submitter.api_key, &job).await.expect("a job is queued")
    }

    pub(crate) async fn lease(&self, worker: &SecretKey) -> Option<Lease> {
        let request = LeaseRequest { models: vec![self.model.id()], max: 1, held: Vec::new() };
        let leases = self.client.lease(worker, &request, Duration::ZERO).await.expect("a worker may ask");
        leases.leases.into_iter().next()
    }

    pub(crate) fn run(&self, lease: &Lease) -> ToyRun {
        self.run_with(lease, |_, _| {})
    }

    pub(crate) fn run_with(&self, lease: &Lease, tamper: impl FnMut(OpPlace, &mut [u8])) -> ToyRun {
        ToyRun::new(&self.model, &gainsay_testkit::input_of(lease), tamper)
    }

    pub(crate) async fn post(&self, run: &ToyRun, lease: &Lease, worker: &SecretKey) -> ClaimAccepted {
        let claim = run.claim(self.test.id(), lease, worker);
        self.client.post_claim(worker, claim.to_bytes()).await.expect("an honest claim is taken")
    }

    /// Everything on record, but nonces and time.
    pub(crate) async fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.test.database()).await
    }

    /// Lets the window of all claims pass.
    pub(crate) async fn close_windows(&self) {
        let window = self.test.app().config().parameters.window_ms;
        self.test.advance(window + 1).await;
    }
}
