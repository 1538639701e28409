//! How types that are not this crate's own look in the OpenAPI document: ids, hashes, keys, integers of 64 bits.
//!
//! Nothing here carries a value. Fields name these types as what documents them (`value_type`), since what they really
//! hold lives in crates that must not know of documents.

use std::borrow::Cow;

use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::embeddings::{EmbeddingInput, Vector};
use crate::error::ErrorCode;
use crate::limits::MAX_INPUTS;
use crate::wire::Base64;

/// Defines a type that documents a text of one form.
macro_rules! text_form {
    ($($(#[doc = $doc:literal])+ $name:ident = $pattern:literal;)*) => {$(
        $(#[doc = $doc])+
        #[derive(Debug)]
        pub struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                text(concat!($($doc),+), $pattern)
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    )*};
}

text_form! {
    /// A submitted job.
    JobId = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";
    /// One assignment of a job to a worker.
    LeaseId = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";
    /// Whoever holds balances: a submitter, or the owner of workers and challengers.
    OwnerId = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";
    /// Digest of a model's manifest.
    ModelId = "^[0-9a-f]{64}$";
    /// Digest of an unsigned claim.
    ClaimId = "^[0-9a-f]{64}$";
    /// Digest of the unsigned move that opened the dispute.
    DisputeId = "^[0-9a-f]{64}$";
    /// An Ed25519 public key: the name of a worker, a challenger, an owner or a coordinator.
    PartyId = "^[0-9a-f]{64}$";
    /// BLAKE3 hash of a tensor's bytes, row-major and little-endian, or of a file's.
    TensorCommitment = "^[0-9a-f]{64}$";
    /// Merkle root over the layer commitments of one job, in the format of OpenZeppelin's StandardMerkleTree.
    TraceRoot = "^[0-9a-f]{64}$";
    /// Digest of a canonical job.
    InputCommitment = "^[0-9a-f]{64}$";
    /// An Ed25519 signature.
    Signature = "^[0-9a-f]{128}$";
}

fn text(description: &str, pattern: &str) -> RefOr<Schema> {
    let form = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
    form.description(Some(description.trim())).build().into()
}

/// Bytes as they are: a body that is not JSON.
#[derive(Debug)]
pub struct Octets;

impl PartialSchema for Octets {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).build().into()
    }
}

impl ToSchema for Octets {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Octets")
    }
}

/// One server-sent event, as its fields are named on the wire.
#[derive(Debug, ToSchema)]
pub struct ServerSentEvent {
    /// Where a reader goes on after it.
    pub id: String,
    /// The type's name.
    pub event: String,
    /// An `Event` as JSON.
    #[schema(content_media_type = "application/json")]
    pub data: String,
}

/// An integer of 64 bits: see [`crate::wire::integer`].
#[derive(Debug)]
pub struct Integer;

impl PartialSchema for Integer {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
        let decimal = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[+-]?[0-9]+$"));
        let form = OneOfBuilder::new().item(number).item(decimal);
        let forms = "An integer of 64 bits: a number up to 2⁵³ in magnitude, decimal text beyond";
        Schema::OneOf(form.description(Some(forms)).build()).into()
    }
}

impl ToSchema for Integer {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Integer")
    }
}

impl PartialSchema for Base64 {
    fn schema() -> RefOr<Schema> {
        let form = ObjectBuilder::new().schema_type(Type::String).content_encoding("base64");
        form.description(Some("Bytes in standard base64, with padding")).build().into()
    }
}

impl ToSchema for Base64 {}

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        let codes = Self::ALL.iter().map(|code| code.as_str());
        let form = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes));
        form.description(Some("A stable code: its meaning never changes. More codes may come")).build().into()
    }
}

impl ToSchema for ErrorCode {}

/// Written out, since the lengths of lists within a choice have no attribute. A list without entries fits none of the
/// forms: there is nothing to embed.
impl PartialSchema for EmbeddingInput {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        let tokens = || {
            let id = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(u32::MAX));
            ArrayBuilder::new().items(id).min_items(Some(1))
        };
        let many = |form: ArrayBuilder| form.min_items(Some(1)).max_items(Some(MAX_INPUTS));
        let forms =
            "One text, several texts, one list of token ids (special tokens included), or several such lists";
        let form = OneOfBuilder::new()
            .item(text().description(Some("One text")))
            .item(many(ArrayBuilder::new().items(text())).description(Some("Several texts")))
            .item(tokens().description(Some("One sequence of token ids")))
            .item(
                many(ArrayBuilder::new().items(tokens())).description(Some("Several sequences of token ids")),
            );
        Schema::OneOf(form.description(Some(forms)).build()).into()
    }
}

impl ToSchema for EmbeddingInput {}

/// Written out, since a list of types for one value is beyond some readers of OpenAPI, and a choice is not.
impl PartialSchema for Vector {
    fn schema() -> RefOr<Schema> {
        let value = OneOfBuilder::new()
            .item(ObjectBuilder::new().schema_type(Type::Number))
            .item(ObjectBuilder::new().schema_type(Type::Null));
        let values = ArrayBuilder::new().items(value);
        let text = ObjectBuilder::new().schema_type(Type::String).content_encoding("base64");
        let form = OneOfBuilder::new()
            .item(values.description(Some("Numbers; null where JSON has none")))
            .item(text.description(Some("The f32 values, little-endian")));
        Schema::OneOf(form.description(Some("A vector, as `encoding_format` asked")).build()).into()
    }
}

impl ToSchema for Vector {}
