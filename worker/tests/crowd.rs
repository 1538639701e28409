//! One worker, disputed by twenty challengers at once, while service time runs: it answers all of them in time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use gainsay_api::accounts::{AccountKind, AccountsQuery, Deposit};
use gainsay_api::client::{Auth, Client, keys};
use gainsay_api::disputes::{DisputeState, DisputeView, Side, Verdict};
use gainsay_api::embeddings::EmbeddingInput;
use gainsay_api::jobs::{JobQuery, JobState, JobView, SubmitJob};
use gainsay_commitment::{Canonical, ClaimId, SecretKey, Signed, TensorCommitment};
use gainsay_engine::Options;
use gainsay_protocol::{Action, Choice, Dispute, Open, SignedMove};
use gainsay_testkit::{OPERATOR_TOKEN, TestCoordinator, TestOwner, TestSubmitter, ToyModel, until};
use gainsay_worker::Config;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const CHALLENGERS: usize = 20;
const FUNDS: i64 = 10_000_000;

async fn claimed(client: &Client, submitter: &TestSubmitter, model: &ToyModel, ids: Vec<u32>) -> JobView {
    let job =
        SubmitJob { model: model.name().to_owned(), input: EmbeddingInput::Tokens(ids), max_price: None };
    let id = client.submit_job(&submitter.api_key, &job).await.unwrap().id;
    until("a claim", async || {
        let job = client.job(&submitter.api_key, id, JobQuery::default()).await.unwrap();
        Some(job).filter(|job| job.answer.is_some())
    })
    .await
}

/// Disputes a claim that is right, in a layer of the challenger's choice.
async fn sham(client: &Client, key: &SecretKey, claim: ClaimId, layer: u32) -> DisputeView {
    let commitment = TensorCommitment::from_bytes([7; 32]);
    let open = Open { claim, challenger: key.id(), layer, commitment };
    client.open_dispute(key, SignedMove::from(Signed::sign(open, key)).to_bytes()).await.unwrap()
}

/// Plays the sham on: any op will do.
async fn insist(client: &Client, key: &SecretKey, view: &DisputeView, op: u32) {
    let fold = Dispute::from_bytes(&view.encoded.0).unwrap();
    let (dispute, seq, previous) = (fold.id(), fold.next_seq(), fold.head());
    let choice = Choice { dispute, seq, previous, action: Action::ChooseOp { op } };
    let made = SignedMove::Choice(Signed::sign(choice, key));
    client.post_move(key, dispute, made.to_bytes()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_disputed_by_twenty_at_once_answers_all_in_time_and_keeps_its_stake() {
    let coordinator = TestCoordinator::builder()
        .config(|config| {
            config.parameters.window_ms = 12_000;
            config.parameters.worker_allowance_ms = 30_000;
            config.parameters.challenger_allowance_ms = 2_000;
            config.parameters.hold_ms = 0;
        })
        .running_timers()
        .start()
        .await;
    let client = coordinator.client().await;
    let model = ToyModel::default();
    model.publish(&client).await;
    let submitter = TestSubmitter::register(&client, "submitter", FUNDS).await;
    let home = coordinator.folder().join("ada");
    let owner_key = keys::load_or_create(&home.join("owner.key")).unwrap();
    let owner = client.register_owner(&owner_key, "ada's owner").await.unwrap().owner;
    client.deposit(OPERATOR_TOKEN, &Deposit { to: owner, amount: FUNDS }).await.unwrap();
    let mut crowd = Vec::new();
    for i in 0..CHALLENGERS {
        crowd.push(TestOwner::register(&client, &format!("challenger {i}"), 1_000_000).await.challenger);
    }
    let mut config = Config::new(coordinator.url(), "ada", home);
    config.party.models.engine = Options { threads: 1, ..Options::default() };
    config.party.look_every = Duration::from_millis(200);
    config.lease_wait = Duration::from_millis(500);
    let stop = CancellationToken::new();
    let worker = tokio::spawn(gainsay_worker::run(config, stop.clone()));

    let jobs = [
        claimed(&client, &submitter, &model, vec![3, 1, 4]).await,
        claimed(&client, &submitter, &model, (0..20).collect()).await,
    ];
    let layers = model.toy.model.layer_count();
    let mut disputes = Vec::new();
    for (i, key) in crowd.iter().enumerate() {
        let claim = jobs[i % jobs.len()].answer.as_ref().unwrap().claim;
        disputes.push((key, sham(&client, key, claim, i as u32 % layers).await.summary.id));
    }
    // As soon as the worker has answered, half of them go on to their second turn, and half fall silent.
    for (i, (key, id)) in disputes.iter().enumerate() {
        let answered = until("the worker's answer, or the end", async || {
            let view = client.dispute(*id).await.unwrap();
            Some(view).filter(|view| view.summary.turn != Some(Side::Worker))
        })
        .await;
        if i % 2 == 0 && answered.summary.turn == Some(Side::Challenger) {
            insist(&client, key, &answered, 0).await;
        }
    }
    for (_, id) in &disputes {
        let ended = until("the end of a sham", async || {
            let view = client.dispute(*id).await.unwrap();
            Some(view).filter(|view| view.summary.state == DisputeState::Decided)
        })
        .await;
        assert_eq!(ended.summary.decision.unwrap().verdict, Verdict::WorkerWins);
    }
    for job in &jobs {
        until("the payment", async || {
            let job = client.job(&submitter.api_key, job.id, JobQuery::default()).await.unwrap();
            Some(()).filter(|()| job.state == JobState::Finalized)
        })
        .await;
    }
    until("the stakes, the pay and the worker's part of twenty bonds", async || {
        let accounts = client.accounts(Auth::Key(&owner_key), AccountsQuery::default()).await.unwrap();
        let (free, locked) =
            (accounts.balance(owner, AccountKind::Free), accounts.balance(owner, AccountKind::Locked));
        Some(()).filter(|()| locked == 0 && free > FUNDS + CHALLENGERS as i64 * 100_000)
    })
    .await;
    stop.cancel();
    worker.await.unwrap().unwrap();
    coordinator.stop().await;
}
