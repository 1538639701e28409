//! A coordinator with a model and a submitter, and what is asked of it in every attack.

use std::sync::Arc;
use std::time::Duration;

use gainsay_api::accounts::{AccountKind, AccountsQuery};
use gainsay_api::claims::ClaimState;
use gainsay_api::client::{Auth, Client};
use gainsay_api::embeddings::EmbeddingInput;
use gainsay_api::jobs::{JobQuery, JobState, JobView, SubmitJob};
use gainsay_api::leases::{Lease, LeaseRequest};
use gainsay_commitment::{ClaimId, SecretKey};
use gainsay_protocol::{JobId, OwnerId, Parameters};

use super::answers::Answer;
use super::players::Claimed;
use crate::{OPERATOR_TOKEN, TestCoordinator, TestCoordinatorBuilder, TestOwner, TestSubmitter, ToyModel};

/// What everybody starts with, micro-credits.
pub const FUNDS: i64 = 10_000_000;

/// A coordinator with a model and a submitter.
#[derive(Debug)]
pub struct Stage {
    /// The coordinator. Its clock stands unless it is moved.
    pub test: TestCoordinator,
    /// A client of it.
    pub client: Client,
    /// The model.
    pub model: Arc<ToyModel>,
    /// The submitter.
    pub submitter: TestSubmitter,
}

impl Stage {
    /// One with everything as usual.
    pub async fn new() -> Self {
        Self::with(TestCoordinator::builder(), ToyModel::default()).await
    }

    /// One with another coordinator or model.
    pub async fn with(builder: TestCoordinatorBuilder, model: ToyModel) -> Self {
        let test = builder.start().await;
        let client = test.client().await;
        model.publish(&client).await;
        let submitter = TestSubmitter::register(&client, "submitter", FUNDS).await;
        Self { test, client, model: Arc::new(model), submitter }
    }

    /// The numbers that it runs with.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.test.app().config().parameters
    }

    /// An owner with a worker, a challenger and money.
    pub async fn owner(&self, name: &str) -> TestOwner {
        TestOwner::register(&self.client, name, FUNDS).await
    }

    /// Queues a job of these sequences.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn submit(&self, sequences: &[&[u32]]) -> JobView {
        let input = EmbeddingInput::TokenLists(sequences.iter().map(|tokens| tokens.to_vec()).collect());
        let job = SubmitJob { model: self.model.id().to_string(), input, max_price: None };
        self.client.submit_job(&self.submitter.api_key, &job).await.expect("a job is queued")
    }

    /// Queues the job that most attacks are about: three short tokens.
    pub async fn submit_one(&self) -> JobView {
        self.submit(&[&[3, 1, 4]]).await
    }

    /// Asks for a lease; none where there is no job for this worker.
    ///
    /// # Panics
    /// If a worker may not ask.
    pub async fn lease(&self, worker: &SecretKey) -> Option<Lease> {
        self.lease_beside(worker, &[]).await
    }

    /// Asks for another lease than those.
    ///
    /// # Panics
    /// If a worker may not ask.
    pub async fn lease_beside(&self, worker: &SecretKey, held: &[&Lease]) -> Option<Lease> {
        let held = held.iter().map(|lease| lease.id).collect();
        let request = LeaseRequest { models: vec![self.model.id()], max: 1, held };
        let leases = self.client.lease(worker, &request, Duration::ZERO).await.expect("a worker may ask");
        leases.leases.into_iter().next()
    }

    /// Submits a job, leases it and claims an answer to it.
    ///
    /// # Panics
    /// If any of it is refused.
    pub async fn claimed(
        &self,
        owner: &TestOwner,
        answer: impl FnOnce(&Arc<ToyModel>, &Lease) -> Answer,
    ) -> Claimed {
        self.submit_one().await;
        let lease = self.lease(&owner.worker).await.expect("there is a job");
        let answer = answer(&self.model, &lease);
        self.claim(owner, lease, answer).await
    }

    /// Claims an answer under a lease.
    ///
    /// # Panics
    /// If the claim is refused.
    pub async fn claim(&self, owner: &TestOwner, lease: Lease, answer: Answer) -> Claimed {
        let signed = answer.claim(&self.model, self.test.id(), &lease, &owner.worker);
        let posted = self.client.post_claim(&owner.worker, signed.to_bytes()).await;
        let id = posted.expect("what is well formed is taken").id;
        Claimed { id, lease, signed, answer, worker: owner.worker.clone() }
    }

    /// Where a claim stands.
    ///
    /// # Panics
    /// If it is unknown.
    pub async fn state(&self, claim: ClaimId) -> ClaimState {
        self.client.claim(claim).await.expect("a claim is public").summary.state
    }

    /// A job as its submitter sees it.
    ///
    /// # Panics
    /// If it is unknown.
    pub async fn job(&self, id: JobId) -> JobView {
        let key = &self.submitter.api_key;
        self.client.job(key, id, JobQuery::default()).await.expect("the submitter sees its job")
    }

    /// An owner's free and locked balance.
    ///
    /// # Panics
    /// If the operator may not look.
    pub async fn balances(&self, owner: OwnerId) -> (i64, i64) {
        let all = AccountsQuery { all: true };
        let all = self.client.accounts(Auth::Bearer(OPERATOR_TOKEN), all).await.expect("the operator looks");
        (all.balance(owner, AccountKind::Free), all.balance(owner, AccountKind::Locked))
    }

    /// What an owner has gained or lost so far, whatever of it is locked.
    pub async fn gained(&self, owner: OwnerId) -> i64 {
        let (free, locked) = self.balances(owner).await;
        free + locked - FUNDS
    }

    /// Lets all windows, clocks and holding times pass, as many times as there may be attempts.
    pub async fn pass_everything(&self) {
        let p = self.parameters().clone();
        for _ in 0..=p.attempts {
            let allowances = p.worker_allowance_ms + p.challenger_allowance_ms;
            self.test.advance(p.window_ms + allowances + 1).await;
        }
        self.test.advance(p.hold_ms + 1).await;
    }

    /// An honest worker does what is left to do, and is paid for it.
    ///
    /// # Panics
    /// If there is nothing to do, or it is not paid.
    pub async fn done_honestly_after_all(&self, job: JobId) {
        let honest = self.owner("the honest one").await;
        let lease = self.lease(&honest.worker).await.expect("the job is back in the queue");
        assert_eq!(lease.job_id, job);
        let answer = Answer::right(&self.model, &lease);
        let right = answer.output.clone();
        self.claim(&honest, lease, answer).await;
        self.pass_everything().await;
        let job = self.job(job).await;
        assert_eq!(job.state, JobState::Finalized);
        assert_eq!(job.answer.expect("an answer").output.0, right);
        assert!(self.gained(honest.id).await > 0, "honest work is paid");
        assert_eq!(self.balances(honest.id).await.1, 0, "its stake is its own again");
    }

    /// What a job costs, and what of it the worker gets.
    #[must_use]
    pub fn price(&self, tokens: u64) -> (i64, i64) {
        let price = self.test.app().config().prices.of(tokens);
        (price.0, price.0 - price.share(self.parameters().fee_ppm).0)
    }

    /// Ends the scene: the books are balanced, and no account but `outside` is negative.
    ///
    /// # Panics
    /// If they are not.
    pub async fn end(self) {
        let all = AccountsQuery { all: true };
        let all = self.client.accounts(Auth::Bearer(OPERATOR_TOKEN), all).await.expect("the operator looks");
        assert_eq!(all.sum, 0, "money was made or lost");
        for account in &all.accounts {
            assert!(account.balance >= 0 || account.kind == AccountKind::Outside, "{account:?}");
        }
        self.test.stop().await;
    }
}
