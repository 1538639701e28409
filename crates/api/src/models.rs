//! Models. The manifest itself travels as its canonical bytes (`gainsay_program::Manifest`).

use crate::wire::integer;
use gainsay_commitment::{ModelId, TensorCommitment};
use serde::{Deserialize, Serialize};

/// One registered model. Carries the fields of an OpenAI model object besides its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelView {
    /// The hash of the manifest.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ModelId))]
    pub id: ModelId,
    /// Always `model`.
    pub object: String,
    /// Unix seconds of the registration.
    pub created: i64,
    /// Who may answer for it, for people.
    pub owned_by: String,
    /// The manifest's name: requests may use it in place of the id.
    pub name: String,
    /// The arithmetic profile: `exact-f32/1` or `exact-int8/1`.
    pub arithmetic: String,
    /// Committed layers of a trace.
    pub layers: u32,
    /// Longest sequence, in tokens.
    pub max_sequence: u32,
    /// Bytes of all its tensors.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub weight_bytes: u64,
    /// Whether the store serves every blob; only then does the model take jobs.
    pub complete: bool,
    /// Blobs that the store still lacks. In listings empty for a complete model and cut at 1 000.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<crate::schema::TensorCommitment>))]
    pub missing: Vec<TensorCommitment>,
}

/// `GET /v1/models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelList {
    /// Always `list`.
    pub object: String,
    /// The models, newest first.
    pub data: Vec<ModelView>,
}
