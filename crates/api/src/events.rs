//! `GET /v1/events`: what happens, as it happens.
//!
//! Each server-sent event has `id:` (a place in the stream), `event:` (the type's name) and `data:` (one [`Event`] as
//! JSON). A reader that comes back with `Last-Event-ID` or `?after=` misses nothing that is still retained. Events are
//! news, not truth: whoever acts on one reads the object that it names.

use crate::accounts::AccountKind;
use crate::disputes::{DecisionView, MoveView, PlaceView, Side};
use crate::parties::PartyView;
use crate::wire::{integer, text};
use gainsay_commitment::{ClaimId, DisputeId, ModelId};
use gainsay_protocol::{JobId, LeaseId, OwnerId};
use serde::{Deserialize, Serialize};

/// A place in the stream of events: opaque to clients, who only hand it back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct EventCursor(pub String);

impl EventCursor {
    /// Before the first event.
    #[must_use]
    pub fn start() -> Self {
        Self("0-0".to_owned())
    }
}

impl std::fmt::Display for EventCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Where a reader goes on after it.
    pub id: EventCursor,
    /// Service time at which it happened, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub at_ms: i64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// Query of `GET /v1/events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Only events after this one; `0` asks for all that are retained. Absent, and without `Last-Event-ID`: only what
    /// happens from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<EventCursor>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A job entered the queue.
    JobSubmitted {
        /// The job.
        #[serde(with = "text")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
        job: JobId,
        /// Who pays.
        #[serde(with = "text")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::OwnerId))]
        submitter: OwnerId,
        /// The submitter's name.
        submitter_name: String,
        /// Its model.
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ModelId))]
        model: ModelId,
        /// The model's name.
        model_name: String,
        /// Sequences in it.
        sequences: u32,
        /// Tokens in it.
        tokens: u64,
        /// In escrow, in micro-credits.
        #[serde(with = "integer")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
        max_price: i64,
    },
    /// A job was leased.
    JobAssigned {
        /// The job.
        #[serde(with = "text")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
        job: JobId,
        /// The lease.
        #[serde(with = "text")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::LeaseId))]
        lease: LeaseId,
        /// To whom.
        worker: PartyView,
        /// 1 for the job's first lease.
        attempt: u32,
        /// Stake locked with it, in micro-credits.
        #[serde(with = "integer")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
        stake: i64,
    },
    /// A lease ran out; the job is back in the queue.
    LeaseLost {
        /// The job.
        #[serde(with = "text")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
        job: JobId,
        /// The lease.
        #[serde(with = "text")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::LeaseId))]
        lease: LeaseId,
        /// Whose it was.
        worker: PartyView,
        /// What it cost the worker, in micro-credits.
        #[serde(with = "integer")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
        fee: i64,
    },
    /// A worker gave its lease up; the job is back in the queue.
    LeaseReturned {
        /// The job.
        #[serde(with = "text")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
        job: JobId,
        /// The lease.
        #[serde(with = "text")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::LeaseId))]
        lease: LeaseId,
        /// Whose it was.
        worker: PartyView,
        /// Why.
        reason: String,
        /// What it cost the worker, in micro-credits.
        #[serde(with = "integer")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
        fee: i64,
    },
    /// A claim was accepted.
    JobClaimed {
        /// The job.
        #[serde(with = "text")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
        job: JobId,
        /// The claim.
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ClaimId))]
        claim: ClaimId,
        /// Who claims.
        worker: PartyView,
        /// Its model.
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ModelId))]
        model: ModelId,
        /// Layers committed to.
        layers: u32,
        /// Bytes of the output.
        output_bytes: u64,
        /// Service time at which its window closes, in ms.
        #[serde(with = "integer")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
        window_closes_at_ms: i64,
    },
    /// A claim stands; its worker is paid.
    ClaimFinalized {
        /// The job.
        #[serde(with = "text")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
        job: JobId,
        /// The claim.
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ClaimId))]
        claim: ClaimId,
        /// Who claimed.
        worker: PartyView,
        /// What the job cost, in micro-credits.
        #[serde(with = "integer")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
        price: i64,
    },
    /// A claim was proven wrong.
    ClaimRejected {
        /// The job.
        #[serde(with = "text")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
        job: JobId,
        /// The claim.
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ClaimId))]
        claim: ClaimId,
        /// Who claimed.
        worker: PartyView,
        /// The dispute that proved it; absent for an equivocation.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::DisputeId>))]
        dispute: Option<DisputeId>,
        /// Whether the job goes back to the queue.
        reassigned: bool,
    },
    /// A job ran out of attempts or of leases, or was cancelled.
    JobRefunded {
        /// The job.
        #[serde(with = "text")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
        job: JobId,
        /// Back to the submitter, in micro-credits.
        #[serde(with = "integer")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
        amount: i64,
    },
    /// A dispute was opened.
    DisputeOpened {
        /// The dispute.
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::DisputeId))]
        dispute: DisputeId,
        /// The claim.
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ClaimId))]
        claim: ClaimId,
        /// The claim's job.
        #[serde(with = "text")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
        job: JobId,
        /// Who doubts.
        challenger: PartyView,
        /// Who claimed.
        worker: PartyView,
        /// The layer in doubt.
        layer: u32,
        /// The bond behind it, in micro-credits.
        #[serde(with = "integer")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
        bond: i64,
    },
    /// A move was accepted. `open` has none: `dispute_opened` tells it.
    DisputeMoved {
        /// The dispute.
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::DisputeId))]
        dispute: DisputeId,
        /// The claim.
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ClaimId))]
        claim: ClaimId,
        /// The move.
        #[serde(rename = "move")]
        moved: MoveView,
        /// Whose turn it is now; none once the dispute is over.
        #[serde(default)]
        turn: Option<Side>,
    },
    /// A move was refused.
    MoveRefused {
        /// The dispute.
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::DisputeId))]
        dispute: DisputeId,
        /// The claim.
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ClaimId))]
        claim: ClaimId,
        /// Whose move.
        by: PartyView,
        /// The code that the mover was given.
        code: crate::ErrorCode,
        /// The sentence that went with it.
        message: String,
    },
    /// A dispute is over.
    DisputeDecided {
        /// The dispute.
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::DisputeId))]
        dispute: DisputeId,
        /// The claim.
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ClaimId))]
        claim: ClaimId,
        /// The claim's job.
        #[serde(with = "text")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
        job: JobId,
        /// Who doubted.
        challenger: PartyView,
        /// Who claimed.
        worker: PartyView,
        /// Where the dispute had narrowed to.
        place: PlaceView,
        /// Moves accepted.
        move_count: u32,
        /// Bytes of the deciding witness, where there was one.
        #[serde(default)]
        witness_bytes: Option<u64>,
        /// Time that the referee took, in µs, where it judged.
        #[serde(default)]
        referee_us: Option<u64>,
        /// The verdict.
        decision: DecisionView,
    },
    /// A worker gets no more work.
    WorkerSuspended {
        /// Who.
        worker: PartyView,
        /// The claim that it was convicted of.
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ClaimId))]
        claim: ClaimId,
        /// Its other open claims, whose windows start anew.
        restarted_windows: u32,
    },
    /// Money moved.
    Payment {
        /// Why: `deposit`, `withdrawal`, `submit`, `finalize`, `refund`, `lease_lost`, `conviction`, `bond`, …
        reason: String,
        /// The job that it is about.
        #[serde(default, with = "text::option")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::JobId>))]
        job: Option<JobId>,
        /// The claim that it is about.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::ClaimId>))]
        claim: Option<ClaimId>,
        /// The dispute that it is about.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::DisputeId>))]
        dispute: Option<DisputeId>,
        /// The entries; their amounts sum to zero.
        entries: Vec<EntryView>,
    },
    /// A model takes jobs from now on.
    ModelReady {
        /// The model.
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ModelId))]
        model: ModelId,
        /// Its name.
        name: String,
    },
    /// A job's arithmetic profile was withdrawn before its decision.
    JobVoided {
        /// The job.
        #[serde(with = "text")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
        job: JobId,
        /// Back to the submitter, in micro-credits.
        #[serde(with = "integer")]
        #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
        amount: i64,
    },
    /// The operator withdrew an arithmetic profile.
    ProfileVoided {
        /// Its name and version.
        arithmetic: String,
        /// Why.
        reason: String,
    },
    /// A type that this version of the crate does not know.
    #[serde(other)]
    Unknown,
}

impl EventKind {
    /// The type's name: the `event:` field of the stream.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::JobSubmitted { .. } => "job_submitted",
            Self::JobAssigned { .. } => "job_assigned",
            Self::LeaseLost { .. } => "lease_lost",
            Self::LeaseReturned { .. } => "lease_returned",
            Self::JobClaimed { .. } => "job_claimed",
            Self::ClaimFinalized { .. } => "claim_finalized",
            Self::ClaimRejected { .. } => "claim_rejected",
            Self::JobRefunded { .. } => "job_refunded",
            Self::DisputeOpened { .. } => "dispute_opened",
            Self::DisputeMoved { .. } => "dispute_moved",
            Self::MoveRefused { .. } => "move_refused",
            Self::DisputeDecided { .. } => "dispute_decided",
            Self::WorkerSuspended { .. } => "worker_suspended",
            Self::Payment { .. } => "payment",
            Self::ModelReady { .. } => "model_ready",
            Self::JobVoided { .. } => "job_voided",
            Self::ProfileVoided { .. } => "profile_voided",
            Self::Unknown => "unknown",
        }
    }
}

/// One entry of a payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EntryView {
    /// Whose account, where it is a submitter's or an owner's.
    #[serde(default, with = "text::option")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::OwnerId>))]
    pub owner: Option<OwnerId>,
    /// The holder's name, for people.
    pub name: String,
    /// Which of its accounts.
    pub kind: AccountKind,
    /// In micro-credits; positive is into the account.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub amount: i64,
}
