//! Use cases: load, decide (`gainsay-protocol`), persist in one transaction, then wake whoever waits.
//!
//! [`App`] is what HTTP, reconcilers and tests call. It knows neither HTTP nor SQL.

mod error;
mod types;

pub use error::AppError;
pub use types::*;

use std::sync::Arc;
use std::time::Duration;

use gainsay_commitment::{ClaimId, DisputeId, ModelId, PartyId, SecretKey, Signed, TensorCommitment};
use gainsay_program::JobInput;
use gainsay_protocol::{Amount, ClaimReceipt, JobId, LeaseId, OwnerId, ServiceTime};

use crate::bus::Bus;
use crate::config::Config;
use crate::blob::{Blob, BlobUpload};

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
    bus: Arc<dyn Bus>,
}

#[expect(unused_variables, clippy::todo, reason = "signatures published ahead of their bodies")]
impl App {
    /// Connects, migrates the database, reads or makes the key file, opens the blob folder. Starts no timers:
    /// [`crate::reconcile::spawn`] does.
    pub async fn start(config: Config, bus: Arc<dyn Bus>) -> AppResult<Self> { todo!() }
    /// The configuration it runs with.
    pub fn config(&self) -> &Config { &self.inner.config }
    /// The bus it publishes to.
    pub fn bus(&self) -> &Arc<dyn Bus> { &self.inner.bus }
    /// The coordinator's id.
    pub fn coordinator(&self) -> PartyId { self.inner.key.id() }
    /// Service time now.
    pub async fn now(&self) -> AppResult<ServiceTime> { todo!() }
    /// Coordinator id, service time, parameters.
    pub async fn info(&self) -> AppResult<Info> { todo!() }
    /// Whether the database answers and its schema is this build's: for `/health/ready`.
    pub async fn ready(&self) -> AppResult<()> { todo!() }

    // ── parties ─────────────────────────────────────────────────────────────────────────────────────────
    /// Registers a submitter and makes its API key, which is shown this once.
    pub async fn register_submitter(&self, name: &str) -> AppResult<(Submitter, ApiKey)> { todo!() }
    /// Whose API key this is.
    pub async fn authenticate(&self, api_key: &str) -> AppResult<Submitter> { todo!() }
    /// Registers the owner of workers and challengers. The request is signed by `key`. Same key and name again: same answer.
    pub async fn register_owner(&self, key: PartyId, name: &str) -> AppResult<Provider> { todo!() }
    /// Registers a worker. The request is signed by the owner's key; `device` is its own statement. Idempotent.
    pub async fn register_worker(&self, owner_key: PartyId, worker: PartyId, name: &str, device: &str) -> AppResult<Agent> { todo!() }
    /// Registers a challenger. The request is signed by the owner's key. Idempotent.
    pub async fn register_challenger(&self, owner_key: PartyId, challenger: PartyId, name: &str) -> AppResult<Agent> { todo!() }
    /// The owner behind an owner key.
    pub async fn owner(&self, key: PartyId) -> AppResult<Provider> { todo!() }
    /// The worker behind a worker key.
    pub async fn worker(&self, key: PartyId) -> AppResult<Agent> { todo!() }
    /// The challenger behind a challenger key.
    pub async fn challenger(&self, key: PartyId) -> AppResult<Agent> { todo!() }
    /// Checks the stated time of a signed request against service time and uses up its nonce.
    pub async fn record_nonce(&self, party: PartyId, nonce: [u8; 16], stated: ServiceTime) -> AppResult<()> { todo!() }

    // ── money ───────────────────────────────────────────────────────────────────────────────────────────
    /// Credits an owner's free balance from outside (operator only). Returns the new free balance.
    pub async fn deposit(&self, owner: OwnerId, amount: Amount) -> AppResult<Amount> { todo!() }
    /// Takes from an owner's free balance to outside. Returns the new free balance.
    pub async fn withdraw(&self, owner: OwnerId, amount: Amount) -> AppResult<Amount> { todo!() }
    /// One owner's accounts.
    pub async fn accounts_of(&self, owner: OwnerId) -> AppResult<Vec<AccountView>> { todo!() }
    /// All accounts whose balance is not zero, `outside` included; they sum to zero.
    pub async fn accounts(&self) -> AppResult<Vec<AccountView>> { todo!() }

    // ── models ──────────────────────────────────────────────────────────────────────────────────────────
    /// Registers a manifest under its id; answers which blobs are still missing. Idempotent.
    pub async fn register_model(&self, stated: ModelId, manifest: &[u8]) -> AppResult<ModelView> { todo!() }
    /// A model.
    pub async fn model(&self, id: ModelId) -> AppResult<ModelView> { todo!() }
    /// The canonical manifest bytes of a model.
    pub async fn manifest_bytes(&self, id: ModelId) -> AppResult<Vec<u8>> { todo!() }
    /// All models, oldest first.
    pub async fn models(&self) -> AppResult<Vec<ModelView>> { todo!() }
    /// Starts an upload: `write` chunks into it, then [`App::finish_blob`]. Dropped unfinished, it leaves nothing.
    pub async fn begin_blob(&self, hash: TensorCommitment) -> AppResult<BlobUpload> { todo!() }
    /// Ends an upload: hash and length must be those named. Opens every model that this completes for jobs.
    pub async fn finish_blob(&self, upload: BlobUpload) -> AppResult<()> { todo!() }
    /// Opens a blob for reading.
    pub async fn blob(&self, hash: TensorCommitment) -> AppResult<Blob> { todo!() }

    // ── jobs ────────────────────────────────────────────────────────────────────────────────────────────
    /// Checks, prices, escrows and queues a job in one transaction; wakes workers.
    pub async fn submit_job(&self, submitter: OwnerId, model: ModelId, input: JobInput) -> AppResult<JobView> { todo!() }
    /// A job of the submitter's.
    pub async fn job(&self, submitter: OwnerId, job: JobId) -> AppResult<JobView> { todo!() }
    /// The submitter's newest jobs, newest first.
    pub async fn jobs(&self, submitter: OwnerId, limit: u32) -> AppResult<Vec<JobView>> { todo!() }
    /// Withdraws a job that no worker has; returns its escrow.
    pub async fn cancel_job(&self, submitter: OwnerId, job: JobId) -> AppResult<JobView> { todo!() }
    /// The job as soon as it is claimed or decided, or as it stands after `wait`.
    pub async fn wait_for_result(&self, submitter: OwnerId, job: JobId, wait: Duration) -> AppResult<JobView> { todo!() }
    /// The job's receipt.
    pub async fn receipt(&self, submitter: OwnerId, job: JobId) -> AppResult<Receipt> { todo!() }

    // ── leases and claims ───────────────────────────────────────────────────────────────────────────────
    /// The oldest job of one of these models that this worker may have, or none after `wait`. Locks stake.
    pub async fn lease(&self, worker: PartyId, models: &[ModelId], wait: Duration) -> AppResult<Option<LeaseGrant>> { todo!() }
    /// Keeps a lease; returns when it expires now.
    pub async fn heartbeat(&self, worker: PartyId, lease: LeaseId) -> AppResult<ServiceTime> { todo!() }
    /// Takes a signed claim (`Signed<Claim>` bytes). The same bytes again: the same answer.
    pub async fn post_claim(&self, signed: &[u8]) -> AppResult<Signed<ClaimReceipt>> { todo!() }
    /// A claim, public.
    pub async fn claim(&self, claim: ClaimId) -> AppResult<ClaimView> { todo!() }

    // ── disputes ────────────────────────────────────────────────────────────────────────────────────────
    /// Opens a dispute with a signed `open` move. The same bytes again: the same answer.
    pub async fn open_dispute(&self, signed: &[u8]) -> AppResult<DisputeView> { todo!() }
    /// Plays a signed move. The bytes of the last accepted move again: the same answer.
    pub async fn post_move(&self, dispute: DisputeId, signed: &[u8]) -> AppResult<DisputeView> { todo!() }
    /// A dispute with its moves, public.
    pub async fn dispute(&self, dispute: DisputeId) -> AppResult<DisputeView> { todo!() }
    /// Disputes, newest first.
    pub async fn disputes(&self, open_only: bool, limit: u32) -> AppResult<Vec<DisputeView>> { todo!() }
    /// Canonical bytes of the evidence bundle.
    pub async fn evidence(&self, dispute: DisputeId) -> AppResult<Vec<u8>> { todo!() }

    // ── events ──────────────────────────────────────────────────────────────────────────────────────────
    /// Events after a cursor, oldest first.
    pub async fn events_after(&self, cursor: EventCursor, limit: u32) -> AppResult<Vec<Event>> { todo!() }
    /// The newest cursor: where a reader who wants only news starts.
    pub async fn events_head(&self) -> AppResult<EventCursor> { todo!() }
}
