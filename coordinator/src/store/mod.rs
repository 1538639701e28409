//! The truth, in PostgreSQL: the only code that knows SQL, one module per aggregate.
//!
//! Functions here load and save; they decide nothing. Whoever needs several of them at once passes the same
//! [`Tx`]. Rows are locked in one order everywhere, so that transactions wait for each other and never deadlock:
//! owner, worker, job, lease, claim, dispute, bond, hold, accounts; several of a kind in the order of their keys.

pub mod audit;
pub mod bonds;
pub mod claims;
pub mod clock;
pub mod deployment;
pub mod disputes;
pub mod events;
pub mod jobs;
pub mod leases;
pub mod ledger;
pub mod measures;
pub mod models;
pub mod parties;
pub mod reads;
pub mod repeats;
pub mod streams;
pub mod voids;
pub mod webhooks;

use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../sql/migrations");

/// The SQLSTATE of a transaction that was chosen to end a deadlock, or could not be serialized.
const TRANSIENT: [&str; 2] = ["40P01", "40001"];

/// An open transaction. Dropped without [`commit`], it leaves nothing.
pub type Tx = Transaction<'static, Postgres>;

/// Result of a store operation.
pub type StoreResult<T> = Result<T, StoreError>;

/// The database failed, or holds what this build cannot read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL does not parse.
    #[error("the database URL does not parse")]
    Url(#[source] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database schema could not be migrated")]
    Migrate(#[from] MigrateError),
    /// The driver or the server refused.
    #[error("could not {operation}")]
    Database {
        /// What was attempted.
        operation: &'static str,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// The connection broke while a transaction was being committed: it may or may not have happened.
    #[error("the database went away during a commit, which may have happened")]
    Uncertain(#[source] sqlx::Error),
    /// A stored value is none that this build writes.
    #[error("{what} in the database does not decode")]
    Corrupt {
        /// What it should be.
        what: &'static str,
    },
    /// The database belongs to a coordinator with another key.
    #[error("the database belongs to coordinator {recorded}; this key is {own}")]
    ForeignKey {
        /// Whose database it is.
        recorded: gainsay_commitment::CoordinatorId,
        /// Whose key this process has.
        own: gainsay_commitment::CoordinatorId,
    },
}

impl StoreError {
    /// Whether the same transaction may succeed when tried again at once.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let Self::Database { source: sqlx::Error::Database(error), .. } = self else { return false };
        error.code().is_some_and(|code| TRANSIENT.contains(&code.as_ref()))
    }

    /// Whether the database is away or out of resources, so that the same may succeed once it is back. Anything
    /// else it refuses is a fault of this build.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        let source = match self {
            Self::Database { source, .. } | Self::Uncertain(source) => source,
            Self::Migrate(MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)) => {
                source
            }
            _ => return false,
        };
        match source {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // Connection lost, resources exhausted, shut down by an operator, read-only after a failover; and what
            // was tried again often enough.
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                ["08", "53", "57", "25006"].iter().any(|class| code.starts_with(class))
                    || TRANSIENT.contains(&code.as_ref())
            }
            _ => false,
        }
    }

    /// The database constraint that refused, if one did.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        let Self::Database { source: sqlx::Error::Database(error), .. } = self else { return None };
        error.constraint()
    }
}

pub(crate) fn failed(operation: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { operation, source }
}

/// Reads a stored hash, key or signature.
pub(crate) fn bytes<T: for<'a> TryFrom<&'a [u8]>>(what: &'static str, stored: &[u8]) -> StoreResult<T> {
    T::try_from(stored).map_err(|_| StoreError::Corrupt { what })
}

/// Reads a stored count or index.
pub(crate) fn count<T: TryFrom<i64>>(what: &'static str, stored: impl Into<i64>) -> StoreResult<T> {
    T::try_from(stored.into()).map_err(|_| StoreError::Corrupt { what })
}

/// A 16-byte id as the database takes it.
pub(crate) fn uuid(id: [u8; 16]) -> Uuid {
    Uuid::from_bytes(id)
}

/// A new id: ascends with time.
pub(crate) fn new_id() -> [u8; 16] {
    Uuid::now_v7().into_bytes()
}

/// A pool of connections to the database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// Connects and brings the schema up to date.
    ///
    /// # Errors
    /// The URL, the connection or a migration.
    pub async fn connect(url: &str, connections: u32) -> StoreResult<Self> {
        // A statement or a transaction that hangs would hold locks, and events back.
        let options = PgConnectOptions::from_str(url)
            .map_err(StoreError::Url)?
            .options([("statement_timeout", "30s"), ("idle_in_transaction_session_timeout", "30s")]);
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options)
            .await
            .map_err(failed("connect to the database"))?;
        MIGRATIONS.run(&pool).await?;
        Ok(Self { pool })
    }

    /// The connections themselves.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// How many connections are open, and how many of them idle.
    #[must_use]
    pub fn connection_counts(&self) -> (usize, usize) {
        (self.pool.size() as usize, self.pool.num_idle())
    }

    /// Takes a connection for reading, or for a single statement.
    ///
    /// # Errors
    /// None is free within ten seconds.
    pub async fn connection(&self) -> StoreResult<PooledConnection> {
        self.pool.acquire().await.map_err(failed("connect to the database"))
    }

    /// Starts a transaction.
    ///
    /// # Errors
    /// No connection within ten seconds.
    pub async fn begin(&self) -> StoreResult<Tx> {
        self.pool.begin().await.map_err(failed("begin a transaction"))
    }

    /// Starts a transaction that sees the database as of one moment and changes nothing.
    ///
    /// # Errors
    /// No connection within ten seconds.
    pub async fn begin_snapshot(&self) -> StoreResult<Tx> {
        let begin = "begin isolation level repeatable read read only";
        self.pool.begin_with(begin).await.map_err(failed("begin a snapshot"))
    }

    /// Waits until all connections are closed.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Whether the database answers and its schema is the one this build expects.
    ///
    /// # Errors
    /// It does not answer, or it is older or newer.
    pub async fn check(&self) -> StoreResult<()> {
        let newest: Option<i64> =
            sqlx::query_scalar("select max(version) from _sqlx_migrations where success")
                .fetch_one(&self.pool)
                .await
                .map_err(failed("read the schema version"))?;
        if newest == MIGRATIONS.iter().map(|migration| migration.version).max() {
            Ok(())
        } else {
            Err(StoreError::Corrupt { what: "the schema version" })
        }
    }
}

/// Makes a transaction's changes lasting. Constraints that wait for the end are checked here.
///
/// # Errors
/// A deferred constraint: then nothing of it lasts. Or the connection: then nobody knows, and the error is
/// [`StoreError::Uncertain`].
pub async fn commit(tx: Tx) -> StoreResult<()> {
    tx.commit().await.map_err(|source| {
        if refuses(&source) { failed("commit")(source) } else { StoreError::Uncertain(source) }
    })
}

/// Whether the server itself said that a statement did not happen, and was not on its way out when it said so.
fn refuses(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    error.code().is_some_and(|code| !["08", "57"].iter().any(|class| code.starts_with(class)))
}

/// A connection that goes back to the pool.
pub type PooledConnection = sqlx::pool::PoolConnection<Postgres>;

/// The connection of a transaction or pool, as queries take it.
pub type Connection = PgConnection;
