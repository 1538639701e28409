//! A worker: leases jobs, runs them, claims what came out, and defends its claims.
//!
//! [`run`] does all of it over HTTP alone. `catalog` fetches the models to serve; `work` leases whenever there is room and
//! has an `errand` for each lease, which runs the job on the model's `bench` together with others, streams its tokens,
//! signs and posts; `defend` answers the disputes on its claims by re-running. What a worker must not forget lies in `records`: a claim
//! is on disk before it is sent, and only ever those bytes are sent again. So it can be killed and started again at any
//! point.
//!
//! For tests and demonstrations a worker can be told to cheat ([`Misbehaviour`]): an honest run with one divergence,
//! which it then defends.

mod arguments;
mod bench;
mod catalog;
mod claimant;
mod config;
mod defend;
mod errand;
mod error;
mod heartbeat;
mod lie;
mod misbehave;
mod records;
mod stream;
mod tally;
mod work;

pub use arguments::Arguments;
pub use config::Config;
pub use error::WorkerError;
pub use misbehave::{Misbehaviour, ParseMisbehaviourError};
pub use records::{Divergence, Record, Records, RecordsError, SignedClaim};
pub use tally::Summary;

use bench::Benches;
use catalog::Catalog;
use gainsay_api::client::Client;
use gainsay_api::parties::EnlistedRole;
use gainsay_participant::identity::Identity;
use gainsay_participant::machine::{self, try_device};
use gainsay_participant::models::ModelStore;
use gainsay_participant::patience::persist;
use gainsay_startup::keep_status_file;
use misbehave::Liar;
use std::sync::Arc;
use std::time::Duration;
use tally::{Counter, Tally};
use tokio_util::sync::CancellationToken;

/// What both tasks of a worker share.
struct Worker {
    config: Config,
    client: Client,
    identity: Identity,
    models: ModelStore,
    /// The models that it serves.
    catalog: Catalog,
    /// The models at work.
    benches: Benches,
    records: Records,
    liar: Liar,
    tally: Tally,
    /// Jobs run so far, which decides on which of them it cheats.
    jobs_run: Counter,
    /// How long a lease lasts without a heartbeat.
    heartbeat_ms: u64,
}

/// Works until `stop` is cancelled; then finishes and claims what it has in hand, and answers what it did.
///
/// Claims that are still open by then are defended again when a worker with the same state folder starts. A coordinator
/// that is away, at the start or later, is waited for.
///
/// # Errors
/// What waiting does not mend: a device that cannot be used or computes wrongly, a key that is registered for another owner, a state folder that cannot be written, a
/// coordinator that is none.
pub async fn run(config: Config, stop: CancellationToken) -> Result<Summary, WorkerError> {
    let device = try_device(&config.party.models.engine).await?;
    let statement = config.device_name.clone().unwrap_or_else(|| machine::statement(&device));
    let arrival = persist(&stop, WorkerError::is_transient, || arrive(&config, &statement));
    let Some((client, identity, heartbeat_ms)) = arrival.await? else { return Ok(Summary::default()) };
    let records = Records::open(&config.state_dir, client.coordinator(), identity.id())?;
    let models = ModelStore::new(client.clone(), &config.party.models);
    tracing::info!(kv_mib = config.kv_bytes >> 20, "memory for keys and values, for each model");
    if let Some(misbehaviour) = &config.misbehaviour {
        tracing::warn!(%misbehaviour, every = config.cheat_every, "this worker cheats");
    }
    let worker = Arc::new(Worker {
        client,
        identity,
        models,
        catalog: Catalog::default(),
        benches: Benches::default(),
        records,
        liar: Liar::default(),
        tally: Tally::new(config.progress.clone()),
        jobs_run: Counter::default(),
        heartbeat_ms,
        config,
    });
    let both = stop.child_token();
    let catalog = tokio::spawn(catalog::keep_up(worker.clone(), both.clone()));
    let work = tokio::spawn(work::work(worker.clone(), both.clone()));
    let defend = tokio::spawn(defend::defend(worker.clone(), both.clone()));
    if let Some(file) = worker.config.party.status_file.clone() {
        let worker = worker.clone();
        let counters = move || worker.tally.summary().counters();
        tokio::spawn(keep_status_file(file, counters, both.clone()));
    }
    let worked = work.await.expect("the working task does not panic");
    if let Err(error) = &worked {
        // Whoever stopped answering would lose the stakes of claims that are right.
        tracing::error!(%error, "no more work; claims that are open are still defended");
        worker.outlast_claims(&stop).await;
    }
    both.cancel();
    defend.await.expect("the defending task does not panic");
    catalog.await.expect("fetching models does not panic");
    worked.map(|()| worker.tally.summary())
}

/// How often a worker that takes no more work looks whether anything is left to defend.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Worker {
    /// Waits until no claim is open any more, or until stopped.
    async fn outlast_claims(&self, stop: &CancellationToken) {
        while self.records.all().iter().any(|record| record.claim.is_some()) {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

/// Finds the coordinator and registers with it as a worker on such a device.
async fn arrive(config: &Config, device: &str) -> Result<(Client, Identity, u64), WorkerError> {
    let client = Client::connect(&config.party.coordinator).await?;
    let identity =
        Identity::establish(&client, &config.party.names, EnlistedRole::Worker, Some(device.to_owned()))
            .await?;
    let heartbeat_ms = client.info().await?.parameters.heartbeat_ms;
    Ok((client, identity, heartbeat_ms))
}
