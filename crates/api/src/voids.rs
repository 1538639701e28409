//! Profile versions that the operator has withdrawn.

use crate::wire::{Base64, integer};
use serde::{Deserialize, Serialize};

/// `POST /v1/voids`, by the operator. Everything of the profile that is undecided goes back where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VoidProfile {
    /// Name and version of the profile: `exact-f32/1`.
    pub arithmetic: String,
    /// Why, for everybody to read.
    pub reason: String,
}

/// A withdrawal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VoidView {
    /// Name and version of the profile.
    pub arithmetic: String,
    /// Why.
    pub reason: String,
    /// Service time at which it was withdrawn, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub at_ms: i64,
    /// `Signed<VoidStatement>`: the coordinator's own words.
    pub statement: Base64,
}

/// `GET /v1/voids`: oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VoidList {
    /// The withdrawals.
    pub voids: Vec<VoidView>,
}
