//! Jobs: submission, state, receipt.

use crate::embeddings::EmbeddingInput;
use crate::generation::FinishReason;
use crate::parties::PartyView;
use crate::wire::{Base64, integer, text};
use gainsay_commitment::{ClaimId, InputCommitment, ModelId, Signature, TensorCommitment, TraceRoot};
use gainsay_protocol::{JobId, LeaseId, OwnerId};
use serde::{Deserialize, Serialize};

/// `POST /v1/jobs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(
    feature = "openapi",
    schema(example = json!({"model": "all-MiniLM-L6-v2", "input": "Intelligence becomes infrastructure."}))
)]
#[serde(deny_unknown_fields)]
pub struct SubmitJob {
    /// A model's name or id.
    pub model: String,
    /// What to run it on.
    pub input: EmbeddingInput,
    /// Most that the submitter pays, in micro-credits. Absent: the listed price.
    #[serde(default, with = "integer::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::Integer>))]
    pub max_price: Option<i64>,
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// In the queue.
    Submitted,
    /// Leased to a worker.
    Assigned,
    /// Answered; the window is open, or a dispute is.
    Claimed,
    /// Decided: the answer stands, the worker is paid.
    Finalized,
    /// Withdrawn by its submitter before a worker had it.
    Cancelled,
    /// Decided: no attempt stood, the submitter has its money back.
    Refunded,
    /// The operator withdrew the model's arithmetic profile before the decision; the submitter has its money back.
    Voided,
}

impl JobState {
    /// Whether nothing can change any more.
    #[must_use]
    pub const fn is_decided(self) -> bool {
        matches!(self, Self::Finalized | Self::Cancelled | Self::Refunded | Self::Voided)
    }
}

/// How far an answer may be relied upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Finality {
    /// Delivered; the window is open, or a dispute is.
    Pending,
    /// The window has closed and no dispute proved it wrong.
    Final,
    /// A dispute proved it wrong, or its arithmetic profile was withdrawn.
    Revoked,
}

/// Query of `GET /v1/jobs/{id}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct JobQuery {
    /// How long to wait for what `until` names, at most 30 000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// What to wait for.
    #[serde(default)]
    pub until: WaitFor,
}

/// What a waiting read waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WaitFor {
    /// An answer, final or not.
    #[default]
    Answer,
    /// The decision.
    Final,
}

/// A job as its submitter sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobView {
    /// The job.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
    pub id: JobId,
    /// Its model.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ModelId))]
    pub model: ModelId,
    /// The model's name.
    pub model_name: String,
    /// Where it is in its life.
    pub state: JobState,
    /// Sequences in it.
    pub sequences: u32,
    /// Tokens in it.
    pub tokens: u64,
    /// Attempts that ended in a rejected claim.
    pub rejected_attempts: u32,
    /// In escrow until the decision, and what it costs if it is finalized, in micro-credits.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub price: i64,
    /// Service time of submission, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub submitted_at_ms: i64,
    /// The latest answer, revoked ones included.
    #[serde(default)]
    pub answer: Option<Answer>,
}

/// The answer to a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Answer {
    /// The claim that it is.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ClaimId))]
    pub claim: ClaimId,
    /// How far it may be relied upon.
    pub finality: Finality,
    /// Row-major and little-endian, every bit as claimed: of embeddings f32 `[rows, width]`, one row a sequence; of a
    /// generation its token ids, u32 `[rows, 1]`.
    pub output: Base64,
    /// Rows of the output.
    pub rows: u64,
    /// Width of the output.
    pub width: u64,
    /// Service time at which the window closes, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub window_closes_at_ms: i64,
    /// The text of a generation, up to where a stop string begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<Generated>,
}

/// What a language model said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Generated {
    /// The text, up to where a stop string begins.
    pub text: String,
    /// The token ids, with the one that ended the answer.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// `GET /v1/jobs/{id}/receipt`: where the answer ran, which model gave it, who earned what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Receipt {
    /// The job.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
    pub job: JobId,
    /// The lease under which it ran.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::LeaseId))]
    pub lease: LeaseId,
    /// The claim.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ClaimId))]
    pub claim: ClaimId,
    /// How far the answer may be relied upon.
    pub finality: Finality,
    /// Who ran it.
    pub worker: PartyView,
    /// Who answers for the worker and holds its balance.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::OwnerId))]
    pub owner: OwnerId,
    /// What the worker says that it runs on.
    #[serde(default)]
    pub device: Option<String>,
    /// The model, by the hash of its manifest.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ModelId))]
    pub model: ModelId,
    /// The model's name.
    pub model_name: String,
    /// The arithmetic profile.
    pub arithmetic: String,
    /// Hash of the canonical job.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::InputCommitment))]
    pub input: InputCommitment,
    /// One commitment a layer, in order.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<crate::schema::TensorCommitment>))]
    pub layers: Vec<TensorCommitment>,
    /// Merkle root over the layers, in the OpenZeppelin format.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::TraceRoot))]
    pub trace_root: TraceRoot,
    /// Paid to the worker's owner; zero until final. In micro-credits, as the next two.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub paid_worker: i64,
    /// The service's fee; zero until final.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub paid_fee: i64,
    /// Returned to the submitter; zero until final.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub returned: i64,
    /// Service time of the claim, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub claimed_at_ms: i64,
    /// Service time at which the window closes or closed, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub window_closes_at_ms: i64,
    /// `Signed<Claim>`: the worker's own words.
    pub signed_claim: Base64,
    /// The coordinator's signature over claim and time.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Signature))]
    pub countersignature: Signature,
}

/// `GET /v1/jobs`: the submitter's newest jobs, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobList {
    /// The jobs.
    pub jobs: Vec<JobView>,
}

/// Query of `GET /v1/jobs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct JobsQuery {
    /// At most so many; 100 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
