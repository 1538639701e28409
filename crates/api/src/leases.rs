//! Leases: how a worker gets jobs and keeps them.

use crate::wire::{Base64, integer, text};
use gainsay_commitment::ModelId;
use gainsay_protocol::{JobId, LeaseId};
use serde::{Deserialize, Serialize};

/// `POST /v1/leases`, signed by the worker. With `?wait_ms` the answer waits until there is a lease to give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// Models that the worker has ready.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<crate::schema::ModelId>))]
    pub models: Vec<ModelId>,
    /// Most leases to give, at least 1; the service may give fewer.
    pub max: u32,
    /// Leases that the worker holds and works on. A live lease of this worker that is not among them is given again
    /// first: so an answer lost on the way, or a restart of the worker, loses no lease.
    #[serde(default, with = "text::list")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<crate::schema::LeaseId>))]
    pub held: Vec<LeaseId>,
}

/// Query of `POST /v1/leases`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct LeaseQuery {
    /// How long to wait for a job, at most 30 000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// Answer to [`LeaseRequest`]. Empty where there was no job in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Leases {
    /// The leases.
    pub leases: Vec<Lease>,
}

/// One lease: a job, and the time to answer it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lease {
    /// The lease.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::LeaseId))]
    pub id: LeaseId,
    /// Its job.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
    pub job_id: JobId,
    /// The model.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ModelId))]
    pub model: ModelId,
    /// The canonical job, whose hash is the input commitment.
    pub job: Base64,
    /// Whether a client waits for the answer token by token: `POST /v1/leases/{id}/tokens`.
    #[serde(default)]
    pub stream: bool,
    /// What a finalized claim earns at most before the fee, in micro-credits.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub price: i64,
    /// Stake locked with it, in micro-credits.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub stake: i64,
    /// Service time by which the next heartbeat must have arrived, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub heartbeat_by_ms: i64,
    /// Service time by which the claim must have arrived, whatever the heartbeats, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub expires_at_ms: i64,
}

/// Answer to `POST /v1/leases/{id}/tokens`, whose body is the place of the first token in the answer and the tokens, each a
/// little-endian u32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Streamed {
    /// Tokens of the answer that are on record now. The claim's answer must begin with them.
    pub tokens: u32,
}

/// `POST /v1/leases/{id}/return`, signed by the worker: it gives the lease up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReturnLease {
    /// Why.
    pub reason: ReturnReason,
}

/// Why a worker gives a lease up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReturnReason {
    /// The job needs more memory than the worker has: no worker of its owner is offered this job again.
    TooLarge,
    /// The model is not to be had, or cannot be run for now.
    ModelUnavailable,
    /// The worker shuts down.
    ShuttingDown,
}

impl ReturnReason {
    /// Stable snake-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::ModelUnavailable => "model_unavailable",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// Answer to [`ReturnLease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseReturned {
    /// What it cost, in micro-credits: nothing within the time of the first heartbeat, then that part of the job's price which
    /// the time is for which the lease was held beyond it, of the longest that it could be held.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub fee: i64,
}

/// Answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Heartbeat {
    /// Service time by which the next one must have arrived, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub heartbeat_by_ms: i64,
    /// Service time by which the claim must have arrived, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub expires_at_ms: i64,
}
