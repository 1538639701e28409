//! Claims. A claim is posted as the bytes of `Signed<gainsay_protocol::Claim>`.

use crate::jobs::Finality;
use crate::parties::PartyView;
use crate::wire::{Base64, integer, text};
use gainsay_commitment::{
    ClaimId, DisputeId, InputCommitment, ModelId, PartyId, Signature, TensorCommitment, TraceRoot,
};
use gainsay_protocol::{JobId, LeaseId};
use serde::{Deserialize, Serialize};

/// Where a claim is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ClaimState {
    /// The window is open, or a dispute is.
    Open,
    /// It stands and was paid.
    Finalized,
    /// It was proven wrong.
    Rejected,
    /// The operator withdrew its arithmetic profile before it was decided.
    Voided,
}

/// Answer to `POST /v1/claims`. Posting the same bytes again gives the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimAccepted {
    /// The claim's id.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ClaimId))]
    pub id: ClaimId,
    /// Service time at which it was accepted, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub accepted_at_ms: i64,
    /// Service time at which its window closes, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub window_closes_at_ms: i64,
    /// The worker's time for all its turns of a dispute on the claim, in ms.
    pub worker_allowance_ms: u64,
    /// The challenger's, likewise.
    pub challenger_allowance_ms: u64,
    /// The coordinator's signature over all of these.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Signature))]
    pub countersignature: Signature,
}

/// `GET /v1/claims/{id}`: all that a challenger needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimView {
    /// What listings also show.
    #[serde(flatten)]
    pub summary: ClaimSummary,
    /// Hash of the canonical job.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::InputCommitment))]
    pub input: InputCommitment,
    /// One commitment a layer, in order.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<crate::schema::TensorCommitment>))]
    pub layers: Vec<TensorCommitment>,
    /// Merkle root over them.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::TraceRoot))]
    pub trace_root: TraceRoot,
    /// The canonical job.
    pub job: Base64,
    /// `Signed<Claim>`: the bytes that the worker signed, and the signature.
    pub signed: Base64,
    /// The coordinator's signature over claim and time.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::Signature>))]
    pub countersignature: Option<Signature>,
    /// What the worker says that it runs on.
    #[serde(default)]
    pub device: Option<String>,
    /// Every dispute on the claim.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<crate::schema::DisputeId>))]
    pub disputes: Vec<DisputeId>,
}

/// One claim in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimSummary {
    /// The claim.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ClaimId))]
    pub id: ClaimId,
    /// Its job.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
    pub job_id: JobId,
    /// Its lease.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::LeaseId))]
    pub lease_id: LeaseId,
    /// Its model.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ModelId))]
    pub model: ModelId,
    /// Who claims.
    pub worker: PartyView,
    /// Where it is in its life.
    pub state: ClaimState,
    /// How far its answer may be relied upon.
    pub finality: Finality,
    /// Service time at which it was accepted, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub accepted_at_ms: i64,
    /// Service time at which its window closes, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub window_closes_at_ms: i64,
    /// Disputes on it that are not over.
    pub open_disputes: u32,
}

/// Answer to `POST /v1/equivocations`: the reporter is the prover, and gets the prover's share of a stake that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EquivocationConvicted {
    /// The worker convicted, and suspended.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::PartyId))]
    pub worker: PartyId,
    /// The lease.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::LeaseId))]
    pub lease: LeaseId,
    /// The claim that was rejected for it; none where it was decided before, or the lease has none.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::ClaimId>))]
    pub rejected: Option<ClaimId>,
}

/// Query of `GET /v1/claims`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct ClaimFilter {
    /// Only claims in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ClaimState>,
    /// Only claims of this worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", param(value_type = Option<crate::schema::PartyId>))]
    pub worker: Option<PartyId>,
    /// Only claims that follow this one in the listing's order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", param(value_type = Option<crate::schema::ClaimId>))]
    pub after: Option<ClaimId>,
    /// At most so many; 100 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `GET /v1/claims`: oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimList {
    /// The page.
    pub claims: Vec<ClaimSummary>,
    /// Whether more follow: ask again with `after` = the last id.
    pub more: bool,
}
