//! A coordinator for one test: fresh database, fresh folder, any free port, a clock that the test moves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gainsay_api::client::{Client, RetryPolicy};
use gainsay_commitment::PartyId;
use gainsay_coordinator::app::App;
use gainsay_coordinator::config::{Config, RedisConfig};
use gainsay_coordinator::{Coordinator, HttpConfig, Running, TemplateHost, Timers, reconcile};
use gainsay_protocol::ServiceTime;
use uuid::Uuid;

use crate::{Database, assert_books};

/// What tests deposit with.
pub const OPERATOR_TOKEN: &str = "operator-token-of-tests";

/// Builds a [`TestCoordinator`].
#[derive(Debug)]
pub struct TestCoordinatorBuilder {
    change: Vec<fn(&mut Config)>,
    http: HttpConfig,
    timers: Timers,
    redis: Option<RedisConfig>,
}

impl TestCoordinatorBuilder {
    /// Changes the configuration, after the test defaults were set.
    #[must_use]
    pub fn config(mut self, change: fn(&mut Config)) -> Self {
        self.change.push(change);
        self
    }

    /// Changes limits and times of the HTTP side.
    #[must_use]
    pub fn http(mut self, change: impl FnOnce(&mut HttpConfig)) -> Self {
        change(&mut self.http);
        self
    }

    /// Lets service time run and reconcilers work by themselves, as in production.
    #[must_use]
    pub fn running_timers(mut self) -> Self {
        self.timers = Timers::Running;
        self
    }

    /// Has it share a Redis server.
    #[must_use]
    pub fn redis(mut self, redis: RedisConfig) -> Self {
        self.redis = Some(redis);
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(self) -> TestCoordinator {
        let database = Arc::new(Database::create().await);
        let folder = Arc::new(Folder::create());
        let mut config = Config::new(database.url());
        config.listen = ([127, 0, 0, 1], 0).into();
        config.database_connections = 8;
        config.blob_dir = folder.path().join("blobs");
        config.key_file = folder.path().join("coordinator.key");
        config.operator_token = Some(OPERATOR_TOKEN.to_owned());
        config.redis = self.redis;
        // The program that runs tests renders nothing as a child; a test of that names one that does.
        config.templates = TemplateHost::Within;
        for change in self.change {
            change(&mut config);
        }
        let mut test =
            TestCoordinator { running: None, config, http: self.http, timers: self.timers, database, folder };
        test.run().await;
        test
    }
}

/// A coordinator that serves one test. Its timers stand still unless the builder said otherwise.
#[derive(Debug)]
pub struct TestCoordinator {
    // Stopped before the database goes.
    running: Option<Running>,
    config: Config,
    http: HttpConfig,
    timers: Timers,
    // Shared with coordinators beside it.
    database: Arc<Database>,
    folder: Arc<Folder>,
}

impl TestCoordinator {
    /// A builder with defaults for tests.
    #[must_use]
    pub fn builder() -> TestCoordinatorBuilder {
        let http = HttpConfig { drain: std::time::Duration::from_secs(1), ..HttpConfig::default() };
        TestCoordinatorBuilder { change: Vec::new(), http, timers: Timers::ByHand, redis: None }
    }

    /// One with defaults for tests.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Starts another coordinator of the same service: same database, key, folder and settings, a port of its own.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn beside(&self) -> Self {
        let mut other = Self {
            running: None,
            config: self.config.clone(),
            http: self.http.clone(),
            timers: self.timers,
            database: Arc::clone(&self.database),
            folder: Arc::clone(&self.folder),
        };
        other.run().await;
        other
    }

    async fn run(&mut self) {
        let coordinator = Coordinator::new(self.config.clone()).http(self.http.clone()).timers(self.timers);
        self.running = Some(coordinator.start().await.expect("a coordinator on a fresh database starts"));
    }

    /// Stops the process's part of it and starts it anew on the same database, key and folder. The port changes.
    pub async fn restart(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
        self.run().await;
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs from start to stop")
    }

    /// Where clients reach it.
    #[must_use]
    pub fn url(&self) -> String {
        self.running().url()
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> PartyId {
        self.running().coordinator()
    }

    /// Its use cases, without HTTP in between.
    #[must_use]
    pub fn app(&self) -> &App {
        self.running().app()
    }

    /// Its database.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// A folder that goes with it, for what a test's clients keep.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A client that gives up at once: a test wants the first answer.
    ///
    /// # Panics
    /// If the coordinator does not answer.
    pub async fn client(&self) -> Client {
        let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
        Client::connect_with(&self.url(), retry).await.expect("a running coordinator answers")
    }

    /// Service time.
    pub async fn now(&self) -> ServiceTime {
        self.app().now().await.expect("the database answers")
    }

    /// Moves service time forward, then does everything that is due.
    pub async fn advance(&self, ms: u64) -> ServiceTime {
        let now = self.app().advance_time(ms).await.expect("the database answers");
        self.settle().await;
        now
    }

    /// Does everything that is due, as the timers would; what that was.
    pub async fn settle(&self) -> reconcile::Round {
        reconcile::run_due(self.app()).await.expect("what is due can be done")
    }

    /// Stops it and audits its books.
    ///
    /// # Panics
    /// If the books are not in order.
    pub async fn stop(mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
        assert_books(&self.database).await;
    }
}

/// A folder that is removed with the value.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn create() -> Self {
        let path = std::env::temp_dir().join(format!("gainsay-test-{}", Uuid::now_v7().simple()));
        std::fs::create_dir_all(&path).expect("the temporary folder can be written to");
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A stray folder among temporary files is not worth failing a test for.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
