//! The worker and the challenger that people run, against one another on a stage.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gainsay_api::client::keys;
use gainsay_api::disputes::{DisputeFilter, DisputeState};
use gainsay_engine::{Model, Options, Trace};
use gainsay_program::JobInput;
use gainsay_testkit::zoo::{FUNDS, Stage};
use gainsay_testkit::{OPERATOR_TOKEN, ToyModel, until};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A party that runs until it is stopped.
pub(crate) struct Running<T> {
    stop: CancellationToken,
    task: JoinHandle<T>,
    progress: watch::Receiver<T>,
}

impl<T: Debug> Running<T> {
    pub(crate) async fn until(&mut self, enough: impl FnMut(&T) -> bool) {
        let patience = Duration::from_secs(60);
        let reached = tokio::time::timeout(patience, self.progress.wait_for(enough)).await.is_ok();
        assert!(reached, "waited in vain: {:?}", self.progress.borrow());
    }

    pub(crate) async fn stop(self) -> T {
        self.stop.cancel();
        self.task.await.expect("a party does not panic")
    }
}

/// Where parties of a stage live.
pub(crate) struct Parties<'a> {
    stage: &'a Stage,
}

impl<'a> Parties<'a> {
    pub(crate) fn of(stage: &'a Stage) -> Self {
        Self { stage }
    }

    fn home(&self, name: &str) -> PathBuf {
        self.stage.test.folder().join(name)
    }

    async fn fund(&self, name: &str) -> gainsay_protocol::OwnerId {
        let key = keys::load_or_create(&self.home(name).join("owner.key")).unwrap();
        let owner = self.stage.client.register_owner(&key, &format!("{name}'s owner")).await.unwrap().owner;
        let deposit = gainsay_api::accounts::Deposit { to: owner, amount: FUNDS };
        self.stage.client.deposit(OPERATOR_TOKEN, &deposit).await.unwrap();
        owner
    }

    pub(crate) async fn worker(&self, name: &str, cheats: Option<&str>) -> Running<gainsay_worker::Summary> {
        self.fund(name).await;
        let mut config = gainsay_worker::Config::new(self.stage.test.url(), name, self.home(name));
        config.party.models.engine = Options { threads: 1, ..Options::default() };
        config.party.look_every = Duration::from_millis(200);
        config.lease_wait = Duration::from_millis(500);
        config.misbehaviour = cheats.map(|how| how.parse().unwrap());
        let stop = CancellationToken::new();
        let (sender, progress) = watch::channel(gainsay_worker::Summary::default());
        config.progress = Some(sender);
        let run = gainsay_worker::run(config, stop.clone());
        let task = tokio::spawn(async { run.await.expect("the worker works") });
        Running { stop, task, progress }
    }

    pub(crate) async fn challenger(&self, name: &str) -> Running<gainsay_challenger::Summary> {
        self.fund(name).await;
        let mut config = gainsay_challenger::Config::new(self.stage.test.url(), name, self.home(name));
        config.party.models.engine = Options { threads: 1, ..Options::default() };
        config.party.look_every = Duration::from_millis(200);
        config.list_every = Duration::from_millis(200);
        let stop = CancellationToken::new();
        let (sender, progress) = watch::channel(gainsay_challenger::Summary::default());
        config.progress = Some(sender);
        let run = gainsay_challenger::run(config, stop.clone());
        let task = tokio::spawn(async { run.await.expect("the challenger checks") });
        Running { stop, task, progress }
    }
}

/// What the engine makes of a job.
pub(crate) fn run_engine(model: &ToyModel, sequences: &[&[u32]]) -> Trace {
    let weights = model.toy.weights.iter().map(|bytes| bytes.as_slice().into()).collect();
    let options = Options { threads: 1, ..Options::default() };
    let engine = Model::new(Arc::new(model.toy.model.clone()), weights, options).unwrap();
    let job = JobInput::new(sequences.iter().map(|tokens| tokens.to_vec())).unwrap();
    engine.run(&[job], None).unwrap().remove(0)
}

/// A worker that is disputed by twenty at once, in every layer, answers all of them while its clock stands at nothing.
#[tokio::test(flavor = "multi_thread")]
async fn worker_disputed_by_twenty_at_once() {
    let stage = Stage::new().await;
    let parties = Parties::of(&stage);
    let worker = parties.worker("ada", None).await;
    let job = stage.submit(&[&[3, 1, 4]]).await.id;
    let claim = until("a claim", async || stage.job(job).await.answer.map(|answer| answer.claim)).await;
    let layers = stage.model.toy.model.layer_count();
    for number in 0..20_u8 {
        let griefer = stage.owner(&format!("griefer {number}")).await;
        let open = gainsay_protocol::Open {
            claim,
            challenger: griefer.challenger.id(),
            layer: u32::from(number) % layers,
            commitment: [number + 1; 32].into(),
        };
        let signed = gainsay_commitment::Signed::sign(open, &griefer.challenger);
        stage.open(&griefer.challenger, &gainsay_protocol::SignedMove::Open(signed)).await.unwrap();
    }
    let filter = DisputeFilter { claim: Some(claim), ..DisputeFilter::default() };
    until("every answer", async || {
        let disputes = stage.client.disputes(&filter).await.unwrap().disputes;
        let waits = disputes.iter().any(|dispute| dispute.turn == Some(gainsay_api::disputes::Side::Worker));
        (disputes.len() == 20 && !waits).then_some(())
    })
    .await;
    stage.pass_everything().await;
    let decided = stage.client.disputes(&filter).await.unwrap().disputes;
    assert!(decided.iter().all(|dispute| dispute.state == DisputeState::Decided));
    assert_eq!(stage.state(claim).await, gainsay_api::claims::ClaimState::Finalized);
    worker.stop().await;
    stage.end().await;
}
