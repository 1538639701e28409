//! What use cases take and return: domain values without HTTP, SQL or JSON.

pub use gainsay_protocol::lifecycle::{ClaimState, Finality, JobState};

pub use crate::store::disputes::DisputeState;
pub use crate::store::models::ModelState;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use gainsay_commitment::{
    ClaimId, DisputeId, InputCommitment, ModelId, MoveHash, PartyId, Signature, Signed, TensorCommitment,
    TraceRoot,
};
use gainsay_program::ValidatedModel;
use gainsay_protocol::{Amount, ClaimReceipt, Job, JobId, LeaseId, OwnerId, Parameters, Role, ServiceTime};

use crate::config::Prices;

/// A bearer key as handed to its submitter. Only its BLAKE3 hash is stored, so it is shown once.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(pub(crate) String);

impl ApiKey {
    /// The key as a header carries it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// A submitter who has proven its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitter {
    /// Id; it holds the submitter's balance.
    pub id: OwnerId,
    /// Name it registered under.
    pub name: String,
}

/// A registered owner of workers and challengers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Id; it holds the balances of all its workers and challengers.
    pub id: OwnerId,
    /// The key that signs its requests.
    pub key: PartyId,
    /// Name it registered under.
    pub name: String,
}

/// A registered worker or challenger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The key that signs its claims or moves.
    pub key: PartyId,
    /// Whose it is.
    pub owner: OwnerId,
    /// Name it registered under.
    pub name: String,
}

/// One ledger account with its balance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountView {
    /// Whose; none for `treasury`, `outside`, a job's escrow and a claim's held stake.
    pub owner: Option<OwnerId>,
    /// The holder's registered name, where it has one.
    pub name: Option<String>,
    /// `submitter` or `provider` where there is an owner, else `system`.
    pub role: &'static str,
    /// `free`, `locked`, `escrow`, `held`, `treasury` or `outside`.
    pub kind: &'static str,
    /// Balance, micro-credits.
    pub balance: Amount,
}

/// What `/v1/info` tells.
#[derive(Clone, Debug)]
pub struct Info {
    /// The coordinator's key, which its countersignatures verify under.
    pub coordinator: PartyId,
    /// Service time now.
    pub now: ServiceTime,
    /// Windows, allowances, prices, stakes.
    pub parameters: Parameters,
    /// What a job costs.
    pub prices: Prices,
}

/// A model on record.
#[derive(Clone, Debug)]
pub struct ModelView {
    /// Id: hash of the manifest.
    pub id: ModelId,
    /// Decoded, validated manifest.
    pub model: Arc<ValidatedModel>,
    /// Whether it takes jobs.
    pub state: ModelState,
    /// Blobs still to be uploaded, in manifest order, the tokenizer last.
    pub missing: Vec<TensorCommitment>,
}

impl ModelView {
    /// Whether it takes jobs.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.state == ModelState::Serving
    }
}

/// A job as its submitter sees it.
#[derive(Clone, Debug)]
pub struct JobView {
    /// Id.
    pub id: JobId,
    /// Whose.
    pub submitter: OwnerId,
    /// Which model runs it.
    pub model: ModelId,
    /// Where it stands.
    pub state: JobState,
    /// What is to be computed, of which token ids.
    pub input: Job,
    /// Maximum price, in escrow until decided.
    pub price: Amount,
    /// What of it comes back for each token that is not generated.
    pub unused_token_price: Amount,
    /// Rejected claims so far.
    pub attempts: u32,
    /// When it was queued first.
    pub submitted_at: ServiceTime,
    /// The newest claim, if any.
    pub claim: Option<ClaimSummary>,
}

/// The claim part of a job's answer.
#[derive(Clone, Debug)]
pub struct ClaimSummary {
    /// Id.
    pub id: ClaimId,
    /// Who signed it.
    pub worker: PartyId,
    /// Root over its layer commitments.
    pub trace_root: TraceRoot,
    /// How final it is.
    pub finality: Finality,
    /// The claimed output, little-endian: for embeddings f32 `[sequences, width]`, for generations u32 token ids.
    pub output: Vec<u8>,
    /// When the window closes or closed.
    pub window_ends: ServiceTime,
}

/// A claim with everything a challenger or an auditor needs.
#[derive(Clone, Debug)]
pub struct ClaimView {
    /// Id.
    pub id: ClaimId,
    /// Its job.
    pub job: JobId,
    /// Under which lease.
    pub lease: LeaseId,
    /// Which model.
    pub model: ModelId,
    /// Who signed it.
    pub worker: PartyId,
    /// Whose worker.
    pub owner: OwnerId,
    /// The device the worker names: its own statement.
    pub device: String,
    /// What became of it.
    pub state: ClaimState,
    /// How final it is.
    pub finality: Finality,
    /// Commitment to the canonical job.
    pub input: InputCommitment,
    /// One commitment per layer.
    pub layers: Vec<TensorCommitment>,
    /// Root over them.
    pub trace_root: TraceRoot,
    /// The signed claim, the very bytes that were received.
    pub signed: Vec<u8>,
    /// The canonical job, as bytes: hashes to `input`.
    pub job_bytes: Vec<u8>,
    /// What the coordinator signed on receipt: when it came and when its window was to close.
    pub receipt: Signed<ClaimReceipt>,
    /// When its window closes or closed; later than the receipt says where the worker was suspended since.
    pub window_ends: ServiceTime,
    /// Disputes on it, oldest first.
    pub disputes: Vec<DisputeId>,
}

/// A receipt: who ran what, committed to what, for how much, how final.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The job's public part.
    pub job: JobId,
    /// State of the job.
    pub state: JobState,
    /// The claim it rests on.
    pub claim: ClaimView,
    /// Paid to the worker; zero until final.
    pub paid_worker: Amount,
    /// Fee to the treasury; zero until final.
    pub paid_fee: Amount,
    /// Returned to the submitter; zero until final.
    pub returned: Amount,
}

/// Work handed to a worker.
#[derive(Clone, Debug)]
pub struct LeaseGrant {
    /// Id, signed into the claim.
    pub lease: LeaseId,
    /// The job.
    pub job: JobId,
    /// The model to run.
    pub model: ModelId,
    /// Canonical job bytes: their hash is the input commitment of the claim.
    pub job_bytes: Vec<u8>,
    /// Whether a client waits for the answer token by token.
    pub stream: bool,
    /// Stake locked with it.
    pub stake: Amount,
    /// Price that a final claim earns at most, before the fee.
    pub price: Amount,
    /// When it is lost without a heartbeat.
    pub expires: ServiceTime,
    /// When it is lost at the latest.
    pub deadline: ServiceTime,
}

/// One entry of a dispute's log.
#[derive(Clone, Debug)]
pub struct EntryView {
    /// Its number, from 0 (`open`).
    pub seq: u64,
    /// `open`, `reveal_ops`, …, or `paused`, `resumed`, `expired`, `closed`.
    pub kind: String,
    /// Whose move, where it is one.
    pub mover: Option<Role>,
    /// Canonical bytes of the record that the coordinator signed.
    pub record: Vec<u8>,
    /// Its hash, which the next record and the next choice name.
    pub hash: MoveHash,
    /// The signed move, as received, where it is one.
    pub signed_move: Option<Vec<u8>>,
    /// The coordinator's signature over the record.
    pub countersignature: Signature,
    /// How long the referee took over it, µs, where it judged.
    pub referee_us: Option<u64>,
    /// When it was accepted.
    pub at: ServiceTime,
}

/// A dispute with its log.
#[derive(Clone, Debug)]
pub struct DisputeView {
    /// Id.
    pub id: DisputeId,
    /// The claim it is about.
    pub claim: ClaimId,
    /// The claim's job.
    pub job: JobId,
    /// Who opened it.
    pub challenger: PartyId,
    /// Whose claim.
    pub worker: PartyId,
    /// Disputed layer.
    pub layer: u32,
    /// Where it stands.
    pub state: DisputeState,
    /// What it waits for: a stable name of the protocol's phases.
    pub phase: String,
    /// Whose turn; none once ended.
    pub turn: Option<Role>,
    /// When the turn's clock runs out; none once ended or while clocks stand.
    pub deadline: Option<ServiceTime>,
    /// Canonical bytes of the protocol's dispute: the fold of its log.
    pub fold: Vec<u8>,
    /// Why it ended: a stable name of the protocol's causes; none before.
    pub reason: Option<String>,
    /// When it was opened.
    pub opened_at: ServiceTime,
    /// When it ended.
    pub ended_at: Option<ServiceTime>,
    /// Its whole log, in order.
    pub entries: Vec<EntryView>,
}

/// Something that happened, for `/v1/events` and the dashboard.
#[derive(Clone, Debug)]
pub struct Event {
    /// Where a reader goes on after this one.
    pub cursor: EventCursor,
    /// Stable name: `job_submitted`, `claim_posted`, `dispute_moved`, …
    pub kind: String,
    /// When.
    pub at: ServiceTime,
    /// Which job, if one.
    pub job: Option<JobId>,
    /// Which claim, if one.
    pub claim: Option<ClaimId>,
    /// Which dispute, if one.
    pub dispute: Option<DisputeId>,
    /// Which party, if one.
    pub party: Option<PartyId>,
    /// Details by kind.
    pub details: serde_json::Value,
}

/// A place in the event log: opaque to clients, totally ordered, stable.
///
/// Events are ordered by the transaction that wrote them, then within it; a reader sees a transaction's
/// events only when no older one can still commit, so that nothing ever appears behind a cursor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventCursor {
    /// Place of the transaction.
    pub(crate) position: i64,
    /// Place within it.
    pub(crate) event: i64,
}

impl EventCursor {
    /// Before the first event.
    pub const START: Self = Self { position: 0, event: 0 };
}

impl fmt::Display for EventCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.position, self.event)
    }
}

/// The text is not a cursor that this service handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event cursor looks like 123-45")]
pub struct InvalidCursor;

impl FromStr for EventCursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (position, event) = text.split_once('-').ok_or(InvalidCursor)?;
        let number = |t: &str| t.parse::<i64>().ok().filter(|n| *n >= 0).ok_or(InvalidCursor);
        Ok(Self { position: number(position)?, event: number(event)? })
    }
}
