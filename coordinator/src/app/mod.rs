//! Use cases: load, decide (`gainsay-protocol`), persist in one transaction, then wake whoever waits.
//!
//! [`App`] is what HTTP, reconcilers and tests call. It knows neither HTTP nor SQL. Each use case is a module; a
//! transaction with its postings, events and wake-ups is a `Work`.

mod audit;
mod claims;
mod defences;
mod disputes;
mod equivocations;
mod error;
mod events;
mod follow;
mod fruitless;
mod jobs;
mod key;
mod leases;
mod models;
mod money;
mod parties;
mod reads;
mod repeats;
mod streams;
mod texts;
mod types;
mod verdicts;
mod voids;
mod webhooks;
mod work;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use gainsay_commitment::{Canonical, CoordinatorId, ModelId, SecretKey, Signed};
use gainsay_program::ValidatedModel;
use gainsay_protocol::ServiceTime;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

pub use audit::Books;
pub use equivocations::Conviction;
pub use error::AppError;
pub use follow::Follow;
pub use fruitless::GivenUp;
pub use reads::*;
pub use streams::Progress;
pub use texts::Caller;
pub use types::*;
pub use voids::VoidView;
pub use webhooks::{Delivery, NoticeEnd, Outgoing};

pub use crate::store::repeats::RequestKey;

use crate::blob::FileStore;
use crate::bus::Bus;
use crate::config::Config;
pub use crate::store::measures::Measures;
use crate::store::{PooledConnection, Store, StoreResult, clock, deployment, measures};

/// Result of a use case.
pub type AppResult<T> = Result<T, AppError>;

/// All use cases of one coordinator. Cheap to clone.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    key: SecretKey,
    store: Store,
    files: FileStore,
    bus: Arc<dyn Bus>,
    models: RwLock<HashMap<ModelId, Arc<ValidatedModel>>>,
    defences: defences::Defences,
    texts: texts::Texts,
    followed: follow::Followed,
    /// Woken workers that look at the queue at the same time.
    lease_turns: Semaphore,
}

/// Few enough to leave connections for everybody else, and more than one, so that one slow look holds up no other.
const LEASE_TURNS: usize = 4;

/// How long a starting coordinator waits for its database.
const STORE_PATIENCE: Duration = Duration::from_secs(30);
const STORE_PAUSE: Duration = Duration::from_millis(250);

/// Opens the store, again for as long as the database is away or goes away in between.
async fn reach_store(config: &Config, key: CoordinatorId) -> StoreResult<Store> {
    let started = Instant::now();
    let mut waits = false;
    loop {
        match open_store(config, key).await {
            Err(error) if error.is_outage() && started.elapsed() < STORE_PATIENCE => {
                if !std::mem::replace(&mut waits, true) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "waiting for the database");
                }
                tokio::time::sleep(STORE_PAUSE).await;
            }
            opened => return opened,
        }
    }
}

async fn open_store(config: &Config, key: CoordinatorId) -> StoreResult<Store> {
    let store = Store::connect(&config.database_url, config.database_connections).await?;
    let mut tx = store.begin().await?;
    deployment::adopt(&mut tx, key).await?;
    crate::store::commit(tx).await?;
    Ok(store)
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("coordinator", &self.coordinator()).finish_non_exhaustive()
    }
}

impl App {
    /// Connects, migrates the database, reads or makes the key file, opens the folder of model files. Starts no
    /// timers: [`crate::reconcile::spawn`] does. A database that is away is waited for, for half a minute: it may be
    /// starting too.
    ///
    /// # Errors
    /// Database, key file or folder; or the database belongs to a coordinator with another key.
    pub async fn start(config: Config, bus: Arc<dyn Bus>) -> AppResult<Self> {
        let key = key::read_or_make(&config.key_file)?;
        let files = FileStore::open(config.blob_dir.clone(), config.blob_url.as_deref()).await?;
        let store = reach_store(&config, key.id()).await?;
        let (models, lease_turns) = (RwLock::default(), Semaphore::new(LEASE_TURNS));
        let texts = texts::Texts::new(config.templates.clone());
        let (defences, followed) = (defences::Defences::default(), follow::Followed::default());
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                key,
                store,
                files,
                bus,
                models,
                defences,
                texts,
                followed,
                lease_turns,
            }),
        })
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The bus it publishes to.
    pub fn bus(&self) -> &Arc<dyn Bus> {
        &self.inner.bus
    }

    /// The coordinator's id.
    pub fn coordinator(&self) -> CoordinatorId {
        self.inner.key.id()
    }

    /// Service time now.
    ///
    /// # Errors
    /// The database.
    pub async fn now(&self) -> AppResult<ServiceTime> {
        let mut conn = self.connection().await?;
        Ok(clock::now(&mut conn).await?)
    }

    /// Moves service time forward by what has passed since any coordinator last did; see [`clock::advance`].
    ///
    /// # Errors
    /// The database.
    pub async fn tick(&self) -> AppResult<ServiceTime> {
        let mut conn = self.connection().await?;
        Ok(clock::advance(&mut conn).await?)
    }

    /// Moves service time forward by hand: for tests and simulations that run no timers.
    ///
    /// # Errors
    /// The database.
    pub async fn advance_time(&self, ms: u64) -> AppResult<ServiceTime> {
        let mut conn = self.connection().await?;
        Ok(clock::advance_by(&mut conn, ms).await?)
    }

    /// Coordinator id, service time, parameters, prices.
    ///
    /// # Errors
    /// The database.
    pub async fn info(&self) -> AppResult<Info> {
        let (parameters, prices) = (self.config().parameters.clone(), self.config().prices.clone());
        Ok(Info { coordinator: self.coordinator(), now: self.now().await?, parameters, prices })
    }

    /// Whether the database answers and its schema is this build's.
    ///
    /// # Errors
    /// It does not, or is not.
    pub async fn ready(&self) -> AppResult<()> {
        Ok(self.inner.store.check().await?)
    }

    /// Totals of the service, for those who watch it.
    ///
    /// # Errors
    /// The database.
    pub async fn measures(&self) -> AppResult<Measures> {
        let mut conn = self.connection().await?;
        Ok(measures::take(&mut conn).await?)
    }

    /// How many connections to the database are open, and how many of them idle.
    pub fn database_connections(&self) -> (usize, usize) {
        self.inner.store.connection_counts()
    }

    /// Closes all connections to the database. Use cases fail from then on.
    pub async fn close(&self) {
        self.inner.store.close().await;
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    async fn connection(&self) -> AppResult<PooledConnection> {
        Ok(self.inner.store.connection().await?)
    }

    async fn lease_turn(&self) -> SemaphorePermit<'_> {
        self.inner.lease_turns.acquire().await.expect("nobody closes the semaphore")
    }

    fn sign<T: Canonical>(&self, body: T) -> Signed<T> {
        Signed::sign(body, &self.inner.key)
    }
}
