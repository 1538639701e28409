//! `GET /v1/info` and the health routes.

use crate::wire::integer;
use gainsay_commitment::PartyId;
use gainsay_protocol::Parameters;
use serde::{Deserialize, Serialize};

/// What a client must know before it signs anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Info {
    /// The coordinator's public key: part of every signed object.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::PartyId))]
    pub coordinator: PartyId,
    /// Service time now, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub service_time_ms: i64,
    /// The service's version.
    pub version: String,
    /// What a job costs.
    pub prices: PricesView,
    /// Stakes, fees, windows and allowances.
    pub parameters: ParametersView,
}

/// What a job costs, in micro-credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PricesView {
    /// For each job.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub per_job: i64,
    /// For each token of its input.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub per_token: i64,
    /// For each token that a generation has.
    #[serde(default, with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub per_answer_token: i64,
}

/// The numbers of `gainsay_protocol::Parameters`. Times are ms of service time, amounts micro-credits, fractions parts
/// per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ParametersView {
    /// Locked with every lease at least.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub stake_per_job: i64,
    /// Locked by a challenger's first dispute against a worker.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub bond: i64,
    /// Taken from a worker for a lost lease at least.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub lost_lease_fee: i64,
    /// The service's part of a price.
    pub fee_ppm: u32,
    /// The treasury's part of a convicted stake.
    pub slash_to_treasury_ppm: u32,
    /// The submitter's part of a convicted stake.
    pub slash_to_submitter_ppm: u32,
    /// The most that refunds to earlier openers take of a convicted stake, in sum.
    pub opener_refund_cap_ppm: u32,
    /// The refund to one earlier opener.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub opener_refund: i64,
    /// The wrongly disputed worker's part of a forfeited bond.
    pub forfeit_to_worker_ppm: u32,
    /// How long a claim can be disputed.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub window_ms: u64,
    /// A worker's time for all its turns of one dispute.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub worker_allowance_ms: u64,
    /// A challenger's time for all its turns of one dispute.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub challenger_allowance_ms: u64,
    /// Longest time from lease to claim.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub lease_ms: u64,
    /// A lease without a heartbeat for so long is lost.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub heartbeat_ms: u64,
    /// How long slashed stake is held before it is paid out.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub hold_ms: u64,
    /// Rejected claims after which a job is refunded.
    pub attempts: u32,
    /// Leases without a claim after which a job is refunded.
    #[serde(default)]
    pub lease_attempts: u32,
    /// How many times its job's price is locked with a lease at least.
    #[serde(default)]
    pub stake_multiple: u32,
}

impl From<&Parameters> for ParametersView {
    fn from(parameters: &Parameters) -> Self {
        Self {
            stake_per_job: parameters.stake_per_job.0,
            bond: parameters.bond.0,
            lost_lease_fee: parameters.lost_lease_fee.0,
            fee_ppm: parameters.fee_ppm,
            slash_to_treasury_ppm: parameters.slash_to_treasury_ppm,
            slash_to_submitter_ppm: parameters.slash_to_submitter_ppm,
            opener_refund_cap_ppm: parameters.opener_refund_cap_ppm,
            opener_refund: parameters.opener_refund.0,
            forfeit_to_worker_ppm: parameters.forfeit_to_worker_ppm,
            window_ms: parameters.window_ms,
            worker_allowance_ms: parameters.worker_allowance_ms,
            challenger_allowance_ms: parameters.challenger_allowance_ms,
            lease_ms: parameters.lease_ms,
            heartbeat_ms: parameters.heartbeat_ms,
            hold_ms: parameters.hold_ms,
            attempts: parameters.attempts,
            lease_attempts: parameters.lease_attempts,
            stake_multiple: parameters.stake_multiple,
        }
    }
}

/// `GET /health/live` and `/health/ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// `ok`; `degraded` where it serves, slower, without its Redis.
    pub status: String,
}
