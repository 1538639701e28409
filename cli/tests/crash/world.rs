//! The service as processes: PostgreSQL, coordinators, workers, challengers, and somebody who submits jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use gainsay_api::accounts::Deposit;
use gainsay_api::client::events::EventReader;
use gainsay_api::client::{Client, RetryPolicy, keys};
use gainsay_api::embeddings::EmbeddingInput;
use gainsay_api::events::{EventCursor, EventKind};
use gainsay_api::jobs::SubmitJob;
use gainsay_coordinator::app::App;
use gainsay_coordinator::bus::InProcess;
use gainsay_coordinator::config::Config;
use gainsay_private_postgres::{Cluster, Durability, Options};
use gainsay_program::toy::ToyOptions;
use gainsay_protocol::{JobId, OwnerId};
use gainsay_testkit::{OPERATOR_TOKEN, PrivateRedis, TestSubmitter, ToyModel};

use tokio::sync::broadcast;

use crate::draw::Draw;
use crate::process::Process;

/// More than anybody here spends.
pub(crate) const CREDITS: i64 = 1_000_000_000;
/// No window closes and no clock runs out however slow the machine is: the test lets time pass when all is at rest.
const WINDOW_MS: u64 = 3_600_000;
const TIMES: [(&str, u64); 6] = [
    ("GAINSAY_WINDOW_MS", WINDOW_MS),
    ("GAINSAY_WORKER_ALLOWANCE_MS", WINDOW_MS),
    ("GAINSAY_CHALLENGER_ALLOWANCE_MS", WINDOW_MS),
    ("GAINSAY_LEASE_MS", 60_000),
    // A lease whose worker never heard of it is given to another soon.
    ("GAINSAY_HEARTBEAT_MS", 15_000),
    ("GAINSAY_HOLD_MS", 1_000),
];
/// A rejected claim is an attempt, and there are many cheats.
const ATTEMPTS: u32 = 100;
/// Registrations, submissions and leases a minute: here one address stands for everybody.
const FREELY: u32 = 1_000_000;
/// Ports that the system gives to nobody by itself: an address stays free while its process is down.
const PORTS: std::ops::Range<u64> = 20_000..32_000;

/// Everything that runs. Shared by those who submit, those who kill, and those who look.
pub(crate) struct World {
    folder: Folder,
    pub(crate) draw: Draw,
    pub(crate) model: Arc<ToyModel>,
    processes: Mutex<BTreeMap<String, Arc<Mutex<Process>>>>,
    postgres: Arc<Mutex<Cluster>>,
    redis: Option<Arc<Mutex<PrivateRedis>>>,
    addresses: Vec<String>,
    /// Over every coordinator's own address, patient enough for every restart.
    pub(crate) client: Client,
    submitter: TestSubmitter,
    owners: Mutex<BTreeMap<String, OwnerId>>,
    /// Jobs whose submission was answered.
    accepted: Mutex<Vec<JobId>>,
    /// Jobs that are known to all, answered for or not.
    submitted: Mutex<BTreeSet<JobId>>,
    /// Names of workers that were convicted.
    suspended: Mutex<BTreeSet<String>>,
    /// Everything that happens, for those who wait for something.
    events: broadcast::Sender<EventKind>,
    /// What went wrong where nobody was looking.
    broken: Mutex<Vec<String>>,
}

impl World {
    /// Starts a database and `coordinators` on it, with Redis between them where there are several, and publishes a
    /// model.
    pub(crate) async fn start(scenario: &str, coordinators: usize) -> Arc<World> {
        let draw = Draw::new(scenario);
        let folder = Folder::new(scenario);
        let options = Options { durability: Durability::Safe, ..Options::default() };
        let cluster = tokio::task::spawn_blocking(|| Cluster::start(options, &|_| {}).unwrap());
        let cluster = cluster.await.unwrap();
        let redis = (coordinators > 1).then(PrivateRedis::start);
        let mut processes = BTreeMap::new();
        let mut addresses = Vec::new();
        for number in 0..coordinators {
            let (name, listen) = (coordinator(number), free_address());
            let mut process = Process::new(folder.path(), "coordinator", &name);
            process
                .command()
                .args(["--listen", &listen])
                .env("GAINSAY_DATABASE_URL", cluster.url("postgres"))
                .env("GAINSAY_BLOB_DIR", folder.path().join("blobs"))
                .env("GAINSAY_KEY_FILE", folder.path().join("coordinator.key"))
                .env("GAINSAY_OPERATOR_TOKEN", OPERATOR_TOKEN)
                .env("GAINSAY_ATTEMPTS", ATTEMPTS.to_string())
                .envs(TIMES.map(|(name, ms)| (name, ms.to_string())));
            for what in ["REGISTRATIONS", "SUBMISSIONS", "LEASES", "OPENINGS"] {
                let name = format!("GAINSAY_HTTP_{what}_PER_MINUTE");
                process.command().env(name, FREELY.to_string());
            }
            if let Some(redis) = &redis {
                process.command().env("GAINSAY_REDIS_URL", redis.url());
            }
            process.start();
            processes.insert(name, Arc::new(Mutex::new(process)));
            addresses.push(format!("http://{listen}"));
        }
        let patient = RetryPolicy {
            attempts: 100,
            longest_pause: Duration::from_millis(500),
            ..RetryPolicy::default()
        };
        let client = Client::connect_with(&addresses.join(","), patient).await.unwrap();
        let options = ToyOptions {
            heads: 4,
            head_dim: 16,
            intermediate: 128,
            max_sequence: 96,
            ..ToyOptions::default()
        };
        let model = Arc::new(ToyModel::new(&options));
        model.publish(&client).await;
        let submitter = TestSubmitter::register(&client, "submitter", CREDITS).await;
        let world = Arc::new(World {
            folder,
            draw,
            model,
            processes: Mutex::new(processes),
            postgres: Arc::new(Mutex::new(cluster)),
            redis: redis.map(|redis| Arc::new(Mutex::new(redis))),
            addresses,
            client,
            submitter,
            owners: Mutex::default(),
            accepted: Mutex::default(),
            submitted: Mutex::default(),
            suspended: Mutex::default(),
            events: broadcast::Sender::new(4096),
            broken: Mutex::default(),
        });
        tokio::spawn(follow(Arc::downgrade(&world), world.client.events(Some(EventCursor::start()))));
        world
    }

    /// What happens from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<EventKind> {
        self.events.subscribe()
    }

    /// How many jobs there are, once all are heard of that were answered for.
    pub(crate) fn job_count(&self) -> Option<usize> {
        let submitted = self.submitted.lock().unwrap();
        self.accepted().iter().all(|job| submitted.contains(job)).then_some(submitted.len())
    }

    /// Whether a worker was convicted.
    pub(crate) fn is_suspended(&self, worker: &str) -> bool {
        self.suspended.lock().unwrap().contains(worker)
    }

    /// The coordinators' own addresses.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    pub(crate) fn submitter(&self) -> &TestSubmitter {
        &self.submitter
    }

    /// Everybody who was given [`CREDITS`] to stake, by name.
    pub(crate) fn owners(&self) -> BTreeMap<String, OwnerId> {
        self.owners.lock().unwrap().clone()
    }

    /// Jobs that the service has said it has.
    pub(crate) fn accepted(&self) -> Vec<JobId> {
        self.accepted.lock().unwrap().clone()
    }

    /// Starts an honest worker or a challenger of an owner of the same name.
    pub(crate) async fn party(&self, role: &str, name: &str, address: &str) {
        self.enlist(role, name, name, address, &[]).await;
    }

    /// Starts a worker of the cheating owner. Every claim of it is false.
    pub(crate) async fn cheat(&self, name: &str, address: &str, how: &str) {
        self.enlist("worker", name, "mallory", address, &["--misbehave", how, "--batch", "2"]).await;
    }

    async fn enlist(&self, role: &str, name: &str, owner: &str, address: &str, extra: &[&str]) {
        let key_file = self.folder.path().join(format!("{owner}.owner"));
        let is_new = !self.owners.lock().unwrap().contains_key(owner);
        if is_new {
            let key = keys::load_or_create(&key_file).unwrap();
            let registered = self.client.register_owner(&key, owner).await.unwrap();
            let deposit = Deposit { to: registered.owner, amount: CREDITS };
            self.client.deposit(OPERATOR_TOKEN, &deposit).await.unwrap();
            self.owners.lock().unwrap().insert(owner.to_owned(), registered.owner);
        }
        let mut process = Process::new(self.folder.path(), role, name);
        process
            .command()
            .args(["--coordinator", address, "--name", name, "--owner-name", owner, "--threads", "1"])
            .arg("--owner-key")
            .arg(key_file)
            .arg("--home")
            .arg(self.folder.path().join(name))
            .args(extra);
        process.start();
        self.processes.lock().unwrap().insert(name.to_owned(), Arc::new(Mutex::new(process)));
    }

    /// Submits a job of a drawn length. What the service has answered for, it must keep.
    pub(crate) async fn submit(&self) {
        let length = 9 + self.draw.below(80);
        let tokens = (0..length).map(|_| self.draw.below(50) as u32).collect();
        let job = SubmitJob {
            model: self.model.name().to_owned(),
            input: EmbeddingInput::Tokens(tokens),
            max_price: None,
        };
        match self.client.submit_job(&self.submitter.api_key, &job).await {
            Ok(view) => self.accepted.lock().unwrap().push(view.id),
            // Killed in the act: nobody knows whether it was taken.
            Err(error) => assert!(error.is_transient(), "a good job is refused: {error}"),
        }
    }

    fn process(&self, name: &str) -> Arc<Mutex<Process>> {
        self.processes.lock().unwrap()[name].clone()
    }

    /// Kills a process of the program and starts it again after `down`.
    pub(crate) async fn crash(&self, name: &str, down: Duration) {
        let process = self.process(name);
        process.lock().unwrap().kill();
        tokio::time::sleep(down).await;
        process.lock().unwrap().start();
    }

    /// Asks a process of the program to stop, and starts it again.
    pub(crate) async fn restart(&self, name: &str) {
        let process = self.process(name);
        let restarted = tokio::task::spawn_blocking(move || {
            let mut process = process.lock().unwrap();
            process.ask_to_stop();
            process.wait_stopped();
            process.start();
        });
        restarted.await.unwrap();
    }

    /// Kills PostgreSQL, every process of it that holds locks or is about to commit, and starts it again.
    pub(crate) async fn crash_postgres(&self) {
        let postgres = self.postgres.clone();
        let crashed = tokio::task::spawn_blocking(move || {
            let mut cluster = postgres.lock().unwrap();
            cluster.kill().unwrap();
            cluster.start_again().unwrap();
        });
        crashed.await.unwrap();
    }

    /// Lets service time run on until every window is closed.
    pub(crate) async fn close_windows(&self) {
        let url = self.postgres.lock().unwrap().url("postgres");
        let mut config = Config::new(url);
        config.blob_dir = self.folder.path().join("blobs");
        config.key_file = self.folder.path().join("coordinator.key");
        let app = App::start(config, Arc::new(InProcess::new())).await.unwrap();
        app.advance_time(WINDOW_MS).await.unwrap();
        app.close().await;
    }

    /// The Redis server between the coordinators.
    pub(crate) fn redis(&self) -> Arc<Mutex<PrivateRedis>> {
        self.redis.clone().unwrap()
    }

    /// Notes what fails the test at the next [`World::check`].
    pub(crate) fn note_broken(&self, reason: String) {
        self.broken.lock().unwrap().push(reason);
    }

    /// Fails the test if a process has ended by itself, or something else went wrong meanwhile.
    pub(crate) fn check(&self) {
        let broken = self.broken.lock().unwrap();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
        for process in self.processes.lock().unwrap().values() {
            // One that is being restarted is looked after by whoever restarts it.
            if let Ok(mut process) = process.try_lock() {
                process.check();
            }
        }
    }

    /// Asks all processes to stop, the parties first, and removes what they have left.
    pub(crate) async fn stop(&self) {
        let processes = std::mem::take(&mut *self.processes.lock().unwrap());
        let stopped = tokio::task::spawn_blocking(move || {
            let (coordinators, parties): (Vec<_>, Vec<_>) =
                processes.iter().partition(|(name, _)| name.starts_with("coordinator"));
            for group in [parties, coordinators] {
                for (_, process) in &group {
                    process.lock().unwrap().ask_to_stop();
                }
                for (_, process) in &group {
                    process.lock().unwrap().wait_stopped();
                }
            }
        });
        stopped.await.unwrap();
        // A stray folder among temporary files is not worth failing a test for.
        let _ = std::fs::remove_dir_all(self.folder.path());
    }
}

/// Passes on what happens, for as long as the world is there.
async fn follow(world: Weak<World>, mut events: EventReader) {
    loop {
        let event = events.next().await;
        let Some(world) = world.upgrade() else { return };
        match event {
            Ok(event) => {
                match &event.kind {
                    EventKind::JobSubmitted { job, .. } => {
                        world.submitted.lock().unwrap().insert(*job);
                    }
                    EventKind::WorkerSuspended { worker, .. } => {
                        world.suspended.lock().unwrap().insert(worker.name.clone());
                    }
                    _ => {}
                }
                // Nobody may be waiting.
                let _ = world.events.send(event.kind);
            }
            Err(error) => return world.note_broken(format!("no events: {error}")),
        }
    }
}

/// The name of a coordinator.
pub(crate) fn coordinator(number: usize) -> String {
    format!("coordinator-{number}")
}

/// An address on this machine that is free now, and that the system gives to nobody else.
pub(crate) fn free_address() -> String {
    /// No port is tried twice: what was found free is not in use yet.
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let start = u64::from(std::process::id()) * 97;
    let mut candidates = std::iter::repeat_with(|| {
        let tried = u64::from(TRIED.fetch_add(1, Ordering::Relaxed));
        PORTS.start + (start + tried * 7) % (PORTS.end - PORTS.start)
    });
    let port = candidates.find(|port| TcpListener::bind(("127.0.0.1", *port as u16)).is_ok()).unwrap();
    format!("127.0.0.1:{port}")
}

/// A folder that stays where the test fails: it holds the logs.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("gainsay-crash-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        println!("{name}: logs in {}, removed where it ends well", path.display());
        Folder(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}
