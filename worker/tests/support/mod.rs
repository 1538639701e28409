//! A coordinator with money, and workers and challengers that run in this process.

use gainsay_api::accounts::Deposit;
use gainsay_api::client::{Client, keys};
use gainsay_challenger::Mode;
use gainsay_engine::{DeviceChoice, Options};
use gainsay_participant::settings::PartyConfig;
use gainsay_testkit::{OPERATOR_TOKEN, TestCoordinator, TestSubmitter};
use gainsay_worker::Summary;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const FUNDS: i64 = 10_000_000;

/// A coordinator, and a submitter with money.
pub(crate) struct Stage {
    pub(crate) coordinator: TestCoordinator,
    pub(crate) client: Client,
    pub(crate) submitter: TestSubmitter,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let coordinator = TestCoordinator::start().await;
        let client = coordinator.client().await;
        let submitter = TestSubmitter::register(&client, "submitter", FUNDS).await;
        Self { coordinator, client, submitter }
    }

    /// The folder of a party's files.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.coordinator.folder().join(name)
    }

    /// Gives the owner of `name` a key and money.
    pub(crate) async fn fund(&self, name: &str) {
        let key = keys::load_or_create(&self.home(name).join("owner.key")).unwrap();
        let owner = self.client.register_owner(&key, &format!("{name}'s owner")).await.unwrap();
        self.client.deposit(OPERATOR_TOKEN, &Deposit { to: owner.owner, amount: FUNDS }).await.unwrap();
    }

    /// A worker, told what `tell` says beside the usual.
    pub(crate) fn worker(
        &self,
        name: &str,
        tell: impl FnOnce(&mut gainsay_worker::Config),
    ) -> Running<Summary> {
        // A driver is looked for once: what emulates one has to be there before.
        let device = worker_device();
        let mut config = gainsay_worker::Config::new(self.coordinator.url(), name, self.home(name));
        hurry(&mut config.party, device);
        config.lease_wait = Duration::from_millis(500);
        tell(&mut config);
        let (sender, progress) = watch::channel(Summary::default());
        config.progress = Some(sender);
        let stop = CancellationToken::new();
        let run = gainsay_worker::run(config, stop.clone());
        let task = tokio::spawn(async { run.await.expect("the worker works") });
        Running { stop, task, progress }
    }

    pub(crate) fn challenger(&self, name: &str, mode: Mode) -> Running<gainsay_challenger::Summary> {
        // As for a worker: whoever plans memory looks for a driver.
        worker_device();
        let mut config = gainsay_challenger::Config::new(self.coordinator.url(), name, self.home(name));
        hurry(&mut config.party, DeviceChoice::Cpu);
        config.list_every = Duration::from_millis(200);
        config.mode = mode;
        let (sender, progress) = watch::channel(gainsay_challenger::Summary::default());
        config.progress = Some(sender);
        let stop = CancellationToken::new();
        let run = gainsay_challenger::run(config, stop.clone());
        let task = tokio::spawn(async { run.await.expect("the challenger checks") });
        Running { stop, task, progress }
    }
}

/// Where workers run their models; challengers, who have to find the same bits, run them on the CPU. A device of CUDA is
/// emulated.
fn worker_device() -> DeviceChoice {
    let Ok(device) = std::env::var("GAINSAY_TEST_WORKER_DEVICE") else { return DeviceChoice::Auto };
    gainsay_cuda_emulator::install();
    device.parse().unwrap()
}

fn hurry(party: &mut PartyConfig, device: DeviceChoice) {
    party.models.engine = Options { threads: 1, device, ..Options::default() };
    party.look_every = Duration::from_millis(200);
}

/// How to cheat, for [`Stage::worker`].
pub(crate) fn cheating(how: &str) -> impl FnOnce(&mut gainsay_worker::Config) {
    let misbehaviour = how.parse().unwrap();
    move |config| config.misbehaviour = Some(misbehaviour)
}

/// Nothing to tell, for [`Stage::worker`].
pub(crate) fn honest(_: &mut gainsay_worker::Config) {}

/// A party that runs until it is stopped.
pub(crate) struct Running<T> {
    stop: CancellationToken,
    task: JoinHandle<T>,
    progress: watch::Receiver<T>,
}

impl<T: Debug> Running<T> {
    /// Waits until it has done what `enough` asks for.
    pub(crate) async fn until(&mut self, enough: impl FnMut(&T) -> bool) {
        let patience = Duration::from_secs(60);
        let reached = tokio::time::timeout(patience, self.progress.wait_for(enough)).await.is_ok();
        assert!(reached, "waited in vain: {:?}", self.progress.borrow());
    }

    /// Asks it to stop, and waits for what it has to say.
    pub(crate) async fn stop(self) -> T {
        self.stop.cancel();
        self.task.await.expect("a party does not panic")
    }

    /// Ends it where it stands, as a crash would.
    pub(crate) async fn kill(self) {
        self.task.abort();
        // What the party has spawned goes on for a moment, as a killed process's requests under way do.
        self.stop.cancel();
        let _ = self.task.await;
    }
}
