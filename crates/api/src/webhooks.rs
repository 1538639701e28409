//! The notice that a submitter asked for with `webhook`: posted once the job is decided.
//!
//! The body is a [`Notice`] as JSON, signed by the coordinator. A receiver that does not answer 2xx in time gets it again,
//! with growing pauses; so it may come more than once, and says which delivery it is by the job's id.

use crate::jobs::{Finality, JobState};
use crate::signing::body_hash;
use crate::wire::{integer, text};
use gainsay_commitment::encoding::{Canonical, DecodeError, Decoder, Encoder};
use gainsay_commitment::{ClaimId, CoordinatorId, ModelId, SecretKey, Signature, SignatureError, TraceRoot};
use gainsay_protocol::JobId;
use serde::{Deserialize, Serialize};

/// The header that names the coordinator, whose key signs.
pub const COORDINATOR_HEADER: &str = "gainsay-coordinator";
/// The header that holds the service time of signing, in decimal ms.
pub const TIME_HEADER: &str = "gainsay-time";
/// The header that holds the signature, in hex.
pub const SIGNATURE_HEADER: &str = "gainsay-signature";
/// Longest address of a webhook, in bytes.
pub const MAX_WEBHOOK_BYTES: usize = 1_000;

/// What a notice says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Notice {
    /// Always `job.decided`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The job. A notice of the same job again says the same.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
    pub job: JobId,
    /// Its model.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ModelId))]
    pub model: ModelId,
    /// How it was decided.
    pub state: JobState,
    /// How far its latest answer may be relied upon; none without an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finality: Option<Finality>,
    /// The claim that is its latest answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::ClaimId>))]
    pub claim: Option<ClaimId>,
    /// Root over the claim's layer commitments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::TraceRoot>))]
    pub trace_root: Option<TraceRoot>,
    /// Service time of the decision, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub decided_at_ms: i64,
}

/// What the signature covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeToSign {
    /// Who signs.
    pub coordinator: CoordinatorId,
    /// BLAKE3 of the body.
    pub body: [u8; 32],
    /// Service time of signing, in ms.
    pub time_ms: i64,
}

impl NoticeToSign {
    /// What is signed of these bytes.
    #[must_use]
    pub fn of(coordinator: CoordinatorId, body: &[u8], time_ms: i64) -> Self {
        Self { coordinator, body: body_hash(body), time_ms }
    }

    /// Signs it.
    #[must_use]
    pub fn sign(&self, key: &SecretKey) -> Signature {
        key.sign_digest(&self.digest())
    }

    /// Checks a signature, as receivers do.
    ///
    /// # Errors
    /// It is not the coordinator's over this.
    pub fn verify(&self, signature: &Signature) -> Result<(), SignatureError> {
        signature.verify(&self.coordinator, &self.digest())
    }
}

impl Canonical for NoticeToSign {
    const CONTEXT: &'static str = "gainsay v1 notice";

    fn encode_fields(&self, encoder: &mut Encoder) {
        encoder.hash(&self.coordinator).array(&self.body).i64(self.time_ms);
    }

    fn decode_fields(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { coordinator: decoder.hash()?, body: decoder.array()?, time_ms: decoder.i64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_covers_body_time_and_coordinator() {
        let (key, other) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let notice = NoticeToSign::of(key.id(), b"{}", 5);
        let signature = notice.sign(&key);
        notice.verify(&signature).unwrap();
        for wrong in [
            NoticeToSign::of(key.id(), b"{ }", 5),
            NoticeToSign::of(key.id(), b"{}", 6),
            NoticeToSign::of(other.id(), b"{}", 5),
        ] {
            assert!(wrong.verify(&signature).is_err(), "{wrong:?}");
        }
    }
}
