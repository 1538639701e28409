//! `POST /v1/embeddings`, in the shape of the OpenAI API.
//!
//! Unlike elsewhere, unknown request fields are not refused by the type: stock clients may send more than this
//! service knows. What would change the meaning of the answer (`dimensions`) is refused by name.

use crate::jobs::Finality;
use crate::wire::{integer, text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gainsay_commitment::{ClaimId, PartyId, TraceRoot};
use gainsay_protocol::JobId;
use serde::{Deserialize, Serialize};

/// The request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(
    feature = "openapi",
    schema(example = json!({"model": "all-MiniLM-L6-v2", "input": "Intelligence becomes infrastructure."}))
)]
pub struct EmbeddingRequest {
    /// A model's name or id.
    pub model: String,
    /// What to embed.
    pub input: EmbeddingInput,
    /// How the vectors are written.
    #[serde(default)]
    pub encoding_format: EncodingFormat,
    /// The width of the vectors. Only the model's own is taken: there is nothing to cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u32>,
    /// Ignored; OpenAI clients may send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Most that the submitter pays, in micro-credits. Absent: the listed price.
    #[serde(default, with = "integer::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::Integer>))]
    pub max_price: Option<i64>,
}

/// What to embed: one text, texts, one list of token ids, or lists of token ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EmbeddingInput {
    /// One text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// One sequence of token ids, special tokens included.
    Tokens(Vec<u32>),
    /// Several sequences of token ids.
    TokenLists(Vec<Vec<u32>>),
}

impl EmbeddingInput {
    /// How many vectors the answer holds.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(_) | Self::Tokens(_) => 1,
            Self::Texts(texts) => texts.len(),
            Self::TokenLists(lists) => lists.len(),
        }
    }

    /// Whether nothing is to be embedded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EncodingFormat {
    /// JSON numbers: shortest decimals that read back to the same f32. A NaN or an infinity becomes null.
    #[default]
    Float,
    /// Base64 of the f32 values, little-endian: every bit as claimed.
    Base64,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EmbeddingResponse {
    /// Always `list`.
    pub object: String,
    /// One per input, in order.
    pub data: Vec<Embedding>,
    /// The model's name.
    pub model: String,
    /// What was billed.
    pub usage: Usage,
    /// What OpenAI clients do not know: where the answer came from and how final it is.
    pub gainsay: Provenance,
}

/// One vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Embedding {
    /// Always `embedding`.
    pub object: String,
    /// Position in the input.
    pub index: u32,
    /// The vector.
    pub embedding: Vector,
}

/// A vector in either encoding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Vector {
    /// Numbers; null where JSON has none.
    Float(Vec<Option<f32>>),
    /// Base64 of little-endian f32.
    Base64(String),
}

impl Vector {
    /// Writes `values` in the wanted encoding.
    #[must_use]
    pub fn encode(values: &[f32], format: EncodingFormat) -> Self {
        match format {
            EncodingFormat::Float => {
                Self::Float(values.iter().map(|&value| value.is_finite().then_some(value)).collect())
            }
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                Self::Base64(STANDARD.encode(bytes))
            }
        }
    }

    /// Reads the values back; a null becomes the canonical NaN. `None` if base64 does not hold whole f32 values.
    #[must_use]
    pub fn decode(&self) -> Option<Vec<f32>> {
        match self {
            Self::Float(values) => {
                Some(values.iter().map(|value| value.unwrap_or(f32::from_bits(0x7fc0_0000))).collect())
            }
            Self::Base64(text) => {
                let bytes = STANDARD.decode(text).ok()?;
                let (values, rest) = bytes.as_chunks::<4>();
                rest.is_empty().then(|| values.iter().map(|&value| f32::from_le_bytes(value)).collect())
            }
        }
    }
}

/// Billed tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Tokens of the input.
    pub prompt_tokens: u64,
    /// The same: embeddings generate none.
    pub total_tokens: u64,
}

/// Where an answer came from. A large request becomes several jobs, each with its own claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Provenance {
    /// The first job; the only one of most requests.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
    pub job: JobId,
    /// The claim that answers the first job.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ClaimId))]
    pub claim: ClaimId,
    /// `pending` until the windows of all claims have closed.
    pub finality: Finality,
    /// Price of all jobs, in micro-credits.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub price: i64,
    /// Every job, in the order of the input.
    #[serde(default)]
    pub parts: Vec<Part>,
}

/// One job of a request, and the claim that answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Part {
    /// The job.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
    pub job: JobId,
    /// How many of the inputs it holds: they follow those of the parts before it.
    pub inputs: u32,
    /// The claim.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ClaimId))]
    pub claim: ClaimId,
    /// Root over its layer commitments.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::TraceRoot))]
    pub trace_root: TraceRoot,
    /// Who claims.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::PartyId))]
    pub worker: PartyId,
}
