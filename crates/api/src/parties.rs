//! Who takes part, and how one registers.
//!
//! An owner is a key that answers for workers and challengers, and holds the balance of all of them. It signs the request that enlists one; the enlisted
//! key signs too, inside the body, so that nobody enlists a key that is not theirs. Registering the same thing again
//! changes nothing and succeeds.

use crate::wire::{Base64, text};
use gainsay_commitment::PartyId;
use gainsay_commitment::encoding::{Canonical, DecodeError, Decoder, Encoder};
use gainsay_commitment::signature::{SecretKey, Signed};
use gainsay_protocol::OwnerId;
use serde::{Deserialize, Serialize};

/// What a party is to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Pays for jobs.
    Submitter,
    /// Answers for workers and challengers.
    Owner,
    /// Runs jobs.
    Worker,
    /// Checks claims.
    Challenger,
}

impl Role {
    /// The role as it travels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submitter => "submitter",
            Self::Owner => "owner",
            Self::Worker => "worker",
            Self::Challenger => "challenger",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A party with a key, as timelines show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PartyView {
    /// Its public key.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::PartyId))]
    pub id: PartyId,
    /// Its own name for itself.
    pub name: String,
}

/// `POST /v1/submitters`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RegisterSubmitter {
    /// Shown in accounts and timelines.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100, example = "ada"))]
    pub name: String,
}

/// Answer to [`RegisterSubmitter`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubmitterRegistered {
    /// The new submitter, who holds a balance.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::OwnerId))]
    pub id: OwnerId,
    /// Its name.
    pub name: String,
    /// The key for `Authorization: Bearer`. Shown once: the service keeps only its hash.
    pub api_key: String,
}

impl std::fmt::Debug for SubmitterRegistered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubmitterRegistered")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// `POST /v1/owners`, signed by the owner's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RegisterOwner {
    /// Shown in accounts and timelines.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
}

/// `POST /v1/workers` and `POST /v1/challengers`, signed by the owner's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Enlist {
    /// Shown in accounts and timelines.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// What a worker says that it runs on. Its own statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 200))]
    pub device: Option<String>,
    /// `Signed<Enlistment>`, signed by the key that is enlisted.
    pub enlistment: Base64,
}

/// Answer to [`RegisterOwner`] and [`Enlist`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Registered {
    /// The registered key.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::PartyId))]
    pub id: PartyId,
    /// Its name.
    pub name: String,
    /// What it is registered as.
    pub role: Role,
    /// Its owner, who holds the balance; for an owner, itself.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::OwnerId))]
    pub owner: OwnerId,
}

/// The statement of a key that it serves an owner, in one role, at one coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enlistment {
    /// The coordinator that it enlists with.
    pub coordinator: PartyId,
    /// The owner that it serves.
    pub owner: PartyId,
    /// Worker or challenger.
    pub role: EnlistedRole,
}

/// The roles that an owner enlists keys for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnlistedRole {
    /// Runs jobs.
    Worker,
    /// Checks claims.
    Challenger,
}

impl From<EnlistedRole> for Role {
    fn from(role: EnlistedRole) -> Self {
        match role {
            EnlistedRole::Worker => Self::Worker,
            EnlistedRole::Challenger => Self::Challenger,
        }
    }
}

impl Canonical for Enlistment {
    const CONTEXT: &'static str = "gainsay v1 enlistment";

    fn encode_fields(&self, encoder: &mut Encoder) {
        encoder.hash(&self.coordinator).hash(&self.owner).u8(match self.role {
            EnlistedRole::Worker => 0,
            EnlistedRole::Challenger => 1,
        });
    }

    fn decode_fields(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            coordinator: decoder.hash()?,
            owner: decoder.hash()?,
            role: match decoder.u8()? {
                0 => EnlistedRole::Worker,
                1 => EnlistedRole::Challenger,
                tag => return Err(DecodeError::UnknownTag { what: "enlisted role", tag }),
            },
        })
    }
}

impl Enlist {
    /// The request that enlists `key` under `owner`.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        device: Option<String>,
        enlistment: Enlistment,
        key: &SecretKey,
    ) -> Self {
        Self { name: name.into(), device, enlistment: Base64(Signed::sign(enlistment, key).to_bytes()) }
    }

    /// The key that is enlisted, once its statement has been found to be signed by it and to say exactly `expected`.
    ///
    /// # Errors
    /// If the statement does not decode, does not verify, or states something else.
    pub fn verify(&self, expected: &Enlistment) -> Result<PartyId, EnlistError> {
        let signed =
            Signed::<Enlistment>::from_bytes(&self.enlistment.0).map_err(|_| EnlistError::Malformed)?;
        signed.verify().map_err(|_| EnlistError::Signature)?;
        if signed.body == *expected { Ok(signed.signer) } else { Err(EnlistError::Mismatch) }
    }
}

/// Why an enlistment is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnlistError {
    /// The bytes are no signed enlistment.
    #[error("`enlistment` is not the encoding of a signed enlistment")]
    Malformed,
    /// The signature does not verify.
    #[error("`enlistment` is not signed by the key that it names")]
    Signature,
    /// It names another coordinator, owner or role.
    #[error("`enlistment` names another coordinator, owner or role than this request")]
    Mismatch,
}
