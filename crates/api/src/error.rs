//! The error answer and its stable codes.
//!
//! The JSON shape is the one that OpenAI clients read: `{"error": {"code", "message", "type", "param"}, "request_id"}`.
//! Codes never change their meaning; messages may. Which HTTP status a code travels with is the server's table.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
    /// Names the request in the server's log.
    pub request_id: String,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorDetail {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what was refused, and what would be accepted.
    pub message: String,
    /// The family of the code, by the names that OpenAI clients know.
    #[serde(rename = "type")]
    pub kind: ErrorKind,
    /// The request field at fault, where there is one.
    #[serde(default)]
    pub param: Option<String>,
}

impl ErrorDetail {
    /// A detail whose family follows from its code.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), kind: code.kind(), param: None }
    }
}

/// The family of an error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request cannot be served as it is.
    InvalidRequestError,
    /// Who asks is not known, or not proven.
    AuthenticationError,
    /// Who asks is known and may not.
    PermissionError,
    /// What is asked for does not exist.
    NotFoundError,
    /// The request was in order, but the state of things has moved on or does not allow it.
    ConflictError,
    /// Money is missing.
    InsufficientQuotaError,
    /// Too much at once; later it may succeed.
    RateLimitError,
    /// The server's own fault.
    ServerError,
}

macro_rules! error_codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $text:literal, $kind:ident;)*) => {
        /// A stable error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[doc = $doc])* $variant,)*
            /// A code that this version of the crate does not know. Never sent by a server of the same version.
            Unknown,
        }

        impl ErrorCode {
            /// Every code that a server may send.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code as it travels.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Unknown => "unknown",
                }
            }

            /// What the code means, for people.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),*).trim_start(),)*
                    Self::Unknown => "A code that this version does not know.",
                }
            }

            /// The family of the code.
            #[must_use]
            pub const fn kind(self) -> ErrorKind {
                match self {
                    $(Self::$variant => ErrorKind::$kind,)*
                    Self::Unknown => ErrorKind::ServerError,
                }
            }

            /// The code that `text` names; [`ErrorCode::Unknown`] where this version knows none.
            #[must_use]
            pub fn parse(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    _ => Self::Unknown,
                }
            }
        }
    };
}

error_codes! {
    // Any request.
    /// The body is not the JSON that the route expects, or a parameter is out of its range.
    InvalidRequest = "invalid_request", InvalidRequestError;
    /// Bytes that should be a canonical encoding are not.
    InvalidEncoding = "invalid_encoding", InvalidRequestError;
    /// A parameter that this service does not offer.
    UnsupportedParameter = "unsupported_parameter", InvalidRequestError;
    /// The media type is not the one that the route takes.
    UnsupportedMediaType = "unsupported_media_type", InvalidRequestError;
    /// The body is longer than the route accepts.
    BodyTooLarge = "body_too_large", InvalidRequestError;
    /// No such route.
    RouteNotFound = "route_not_found", NotFoundError;
    /// The route exists, the method does not.
    MethodNotAllowed = "method_not_allowed", InvalidRequestError;
    /// Too many requests from one place.
    RateLimited = "rate_limited", RateLimitError;
    /// The service is at its limit of concurrent work.
    Overloaded = "overloaded", RateLimitError;
    /// The service cannot answer now (its database is away, or it is shutting down).
    Unavailable = "unavailable", ServerError;
    /// A fault of the service; the log has it under the request id.
    Internal = "internal", ServerError;

    // Who asks.
    /// No credentials where some are needed.
    MissingCredentials = "missing_credentials", AuthenticationError;
    /// The API key is not one of ours.
    InvalidApiKey = "invalid_api_key", AuthenticationError;
    /// The operator token is wrong.
    InvalidOperatorToken = "invalid_operator_token", AuthenticationError;
    /// A signature (of a request, a claim, a move) does not verify.
    InvalidSignature = "invalid_signature", AuthenticationError;
    /// The signature is good, but its key is not registered.
    UnknownParty = "unknown_party", AuthenticationError;
    /// The signed request's service time is too far from the service's.
    StaleRequest = "stale_request", AuthenticationError;
    /// The signed request's nonce has been seen.
    ReplayedRequest = "replayed_request", AuthenticationError;
    /// The party may not do this.
    Forbidden = "forbidden", PermissionError;
    /// The worker is suspended.
    Suspended = "suspended", PermissionError;

    // Parties and money.
    /// The key is registered already, under another owner, role or name.
    AlreadyRegistered = "already_registered", ConflictError;
    /// The name is taken.
    NameTaken = "name_taken", ConflictError;
    /// A name that is empty, too long, or holds control characters.
    InvalidName = "invalid_name", InvalidRequestError;
    /// An amount that is not positive, or too large.
    InvalidAmount = "invalid_amount", InvalidRequestError;
    /// The idempotency key came with another request before.
    IdempotencyKeyReused = "idempotency_key_reused", ConflictError;
    /// No such account.
    UnknownAccount = "unknown_account", NotFoundError;
    /// The free balance does not cover what is asked.
    InsufficientFunds = "insufficient_funds", InsufficientQuotaError;
    /// The worker's free balance does not cover the stake of a lease.
    InsufficientStake = "insufficient_stake", InsufficientQuotaError;
    /// The challenger's free balance does not cover the bond.
    InsufficientBond = "insufficient_bond", InsufficientQuotaError;

    // Models.
    /// No such model.
    UnknownModel = "unknown_model", NotFoundError;
    /// The model store does not hold every tensor yet.
    ModelIncomplete = "model_incomplete", ConflictError;
    /// The operator withdrew the arithmetic profile: it takes neither models nor jobs any more.
    ProfileVoided = "profile_voided", ConflictError;
    /// The manifest hashes to another id than the path names.
    ModelIdMismatch = "model_id_mismatch", InvalidRequestError;
    /// The manifest does not validate.
    InvalidManifest = "invalid_manifest", InvalidRequestError;
    /// The store holds no blob of this hash.
    UnknownBlob = "unknown_blob", NotFoundError;
    /// The bytes do not hash to the name they were given.
    BlobHashMismatch = "blob_hash_mismatch", InvalidRequestError;
    /// No registered model needs this blob.
    BlobNotWanted = "blob_not_wanted", ConflictError;

    // Jobs.
    /// The input is empty, or one of its texts is.
    EmptyInput = "empty_input", InvalidRequestError;
    /// A text is longer than the model takes.
    InputTooLong = "input_too_long", InvalidRequestError;
    /// More texts, or tokens in all, than one job may hold.
    TooManyInputs = "too_many_inputs", InvalidRequestError;
    /// The sequences break another rule of the model: a token id outside the vocabulary, say.
    InvalidInput = "invalid_input", InvalidRequestError;
    /// The maximum price does not cover the job.
    PriceTooLow = "price_too_low", InvalidRequestError;
    /// No such job, or not the asker's.
    UnknownJob = "unknown_job", NotFoundError;
    /// A worker has the job, or has answered it.
    NotCancellable = "not_cancellable", ConflictError;
    /// What is asked for exists only once the job has an answer.
    JobPending = "job_pending", ConflictError;
    /// The job ran out of attempts; the price was refunded.
    JobFailed = "job_failed", ServerError;
    /// No worker answered in the time that the request waited; the job goes on.
    JobTimeout = "job_timeout", ServerError;

    // Leases and claims.
    /// No such lease.
    UnknownLease = "unknown_lease", NotFoundError;
    /// The lease was lost, or its job is decided.
    StaleLease = "stale_lease", ConflictError;
    /// Running the worker's undecided claims again would take over half of its dispute allowance: no lease until some are decided.
    TooMuchToDefend = "too_much_to_defend", RateLimitError;
    /// The two claims are none of one lease, or not both signed by its worker.
    NoEquivocation = "no_equivocation", InvalidRequestError;
    /// The lease is still held: report again once it has its claim or is lost.
    LeaseHeld = "lease_held", ConflictError;
    /// No such claim.
    UnknownClaim = "unknown_claim", NotFoundError;
    /// A field of the claim is not what the job, the lease or the model says.
    ClaimRefused = "claim_refused", InvalidRequestError;
    /// Tokens of an answer under way that do not go on from what is on record.
    StreamRefused = "stream_refused", InvalidRequestError;
    /// A second, different claim for one lease.
    Equivocation = "equivocation", ConflictError;

    // Disputes.
    /// No such dispute.
    UnknownDispute = "unknown_dispute", NotFoundError;
    /// The claim's window has closed.
    WindowClosed = "window_closed", ConflictError;
    /// The challenger has a dispute at this place already.
    DuplicateDispute = "duplicate_dispute", ConflictError;
    /// The dispute is over.
    DisputeOver = "dispute_over", ConflictError;
    /// What is asked for exists only once the dispute is over.
    DisputeUndecided = "dispute_undecided", ConflictError;
    /// The dispute's clocks run: there is nothing to resume.
    DisputeNotPaused = "dispute_not_paused", ConflictError;
    /// It is the other party's turn.
    WrongTurn = "wrong_turn", ConflictError;
    /// The move signs another sequence number or another previous move.
    StaleMove = "stale_move", ConflictError;
    /// The mover's allowance is spent.
    ClockExpired = "clock_expired", ConflictError;
    /// The move is not one that the state of the dispute admits.
    IllegalMove = "illegal_move", InvalidRequestError;
    /// The move's bytes do not hash up, do not open, or do not cover what the referee reads.
    MoveRefused = "move_refused", InvalidRequestError;
    /// The referee failed; the dispute waits for the operator.
    RefereeFailed = "referee_failed", ServerError;
}

impl ErrorCode {
    /// Whether the same request may succeed later without any change by the asker.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::RateLimited | Self::Overloaded | Self::Unavailable | Self::Internal)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(Self::parse(&text))
    }
}
