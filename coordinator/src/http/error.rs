//! What a request that does not succeed is answered: status, stable code, a sentence for people. Causes go to the
//! log alone, under the request's id.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use gainsay_api::{ErrorCode, ErrorDetail};
use gainsay_protocol::{ClaimFault, JobId};

use crate::app::AppError;
use crate::store::StoreError;

/// A refusal or failure on its way to the client.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    detail: ErrorDetail,
    retry_after: Option<Duration>,
    has_acted: bool,
    jobs: Vec<JobId>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ApiError {
    /// Whether the same may succeed later.
    pub(super) fn is_transient(&self) -> bool {
        self.detail.code.is_transient()
    }

    /// A refusal with the code's own status.
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            status: status(code),
            detail: ErrorDetail::new(code, message),
            retry_after: None,
            has_acted: false,
            jobs: Vec::new(),
            source: None,
        }
    }

    /// Names the request field at fault.
    pub(super) fn param(mut self, name: &str) -> Self {
        self.detail.param = Some(name.to_owned());
        self
    }

    /// A failure of the service itself; `source` goes to the log.
    pub(super) fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let sentence = "Something failed here; quote the request id when you report it";
        Self::new(ErrorCode::Internal, sentence).caused_by(source)
    }

    /// The service is going away or its database is.
    pub(super) fn unavailable(sentence: &str) -> Self {
        let mut error = Self::new(ErrorCode::Unavailable, sentence);
        error.retry_after = Some(Duration::from_secs(1));
        error
    }

    /// Too much at once.
    pub(super) fn rate_limited(what: &str, after: Duration) -> Self {
        let mut error = Self::new(ErrorCode::RateLimited, format!("There are too many {what}; slow down"));
        error.retry_after = Some(after);
        error
    }

    /// Another status than the code's own.
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// What the log says about the cause.
    pub(super) fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Jobs that go on although the request has failed: whoever repeats it pays for them twice.
    pub(super) fn with_jobs(mut self, jobs: Vec<JobId>) -> Self {
        self.jobs = jobs;
        self.having_acted()
    }

    /// The request failed after it had its effect, or may have had it.
    pub(super) fn having_acted(mut self) -> Self {
        (self.has_acted, self.retry_after) = (true, None);
        self
    }

    /// Whether a client may send the same request again by itself.
    pub(super) fn may_be_repeated(&self) -> bool {
        self.is_transient() && !self.has_acted && self.detail.code != ErrorCode::Internal
    }

    /// A failure of the service after the submission that the request was about is on record.
    pub(super) fn after_submission(mut self, jobs: &[JobId]) -> Self {
        if self.is_transient() {
            let sentence = "The jobs are on record and go on, but their answer could not be awaited: read each at \
                            /v1/jobs/{id} (header gainsay-job)";
            sentence.clone_into(&mut self.detail.message);
        }
        self.with_jobs(jobs.to_vec())
    }

    /// The public part.
    pub(super) fn detail(&self) -> &ErrorDetail {
        &self.detail
    }

    /// Jobs that go on although the request has failed.
    pub(super) fn jobs(&self) -> &[JobId] {
        &self.jobs
    }

    /// Whole seconds to wait before another try, where one is worth it.
    pub(super) fn retry_after_secs(&self) -> Option<u64> {
        self.retry_after.map(|wait| wait.as_millis().div_ceil(1_000).max(1) as u64)
    }

    /// The causes, outermost first, for the log.
    pub(super) fn causes(&self) -> Option<String> {
        let mut text = self.source.as_ref()?.to_string();
        let mut cause = self.source.as_ref().and_then(|source| source.source());
        while let Some(next) = cause {
            text.push_str(": ");
            text.push_str(&next.to_string());
            cause = next.source();
        }
        Some(text)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.detail.code, self.detail.message)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    /// Without a body: [`super::observe`] writes it, since it alone knows the request's id.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status)
    }
}

/// The status of each code. A code names the reason; several share a status.
pub(super) fn status(code: ErrorCode) -> StatusCode {
    use ErrorCode as C;
    match code {
        C::MissingCredentials
        | C::InvalidApiKey
        | C::InvalidOperatorToken
        | C::InvalidSignature
        | C::UnknownParty
        | C::StaleRequest
        | C::ReplayedRequest => StatusCode::UNAUTHORIZED,
        C::InsufficientFunds | C::InsufficientStake | C::InsufficientBond => StatusCode::PAYMENT_REQUIRED,
        C::Forbidden | C::Suspended => StatusCode::FORBIDDEN,
        C::RouteNotFound
        | C::UnknownAccount
        | C::UnknownModel
        | C::UnknownBlob
        | C::UnknownJob
        | C::UnknownLease
        | C::UnknownClaim
        | C::UnknownDispute => StatusCode::NOT_FOUND,
        C::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        C::AlreadyRegistered
        | C::NameTaken
        | C::IdempotencyKeyReused
        | C::LeaseHeld
        | C::ModelIncomplete
        | C::ProfileVoided
        | C::BlobNotWanted
        | C::NotCancellable
        | C::JobPending
        | C::StaleLease
        | C::Equivocation
        | C::WindowClosed
        | C::DuplicateDispute
        | C::DisputeOver
        | C::DisputeUndecided
        | C::DisputeNotPaused
        | C::WrongTurn
        | C::StaleMove
        | C::ClockExpired => StatusCode::CONFLICT,
        C::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        C::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        C::InvalidManifest
        | C::ModelIdMismatch
        | C::BlobHashMismatch
        | C::ClaimRefused
        | C::StreamRefused
        | C::NoEquivocation
        | C::IllegalMove
        | C::MoveRefused => StatusCode::UNPROCESSABLE_ENTITY,
        C::RateLimited | C::Overloaded | C::TooMuchToDefend => StatusCode::TOO_MANY_REQUESTS,
        C::JobFailed => StatusCode::BAD_GATEWAY,
        C::Unavailable | C::RefereeFailed => StatusCode::SERVICE_UNAVAILABLE,
        C::JobTimeout => StatusCode::GATEWAY_TIMEOUT,
        C::Internal | C::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

impl From<AppError> for ApiError {
    fn from(error: AppError) -> Self {
        if let AppError::SubmissionUncertain { jobs, .. } = &error {
            let jobs = jobs.clone();
            let sentence = "The service lost its storage while it queued the jobs. They may go on: look at \
                            /v1/jobs/{id} (header gainsay-job) before you submit them again";
            return Self::new(ErrorCode::Unavailable, sentence).with_jobs(jobs).caused_by(error);
        }
        if let AppError::Store(StoreError::Uncertain(_)) = &error {
            let sentence = "The service lost its storage in the act: the request may have had its effect";
            return Self::new(ErrorCode::Unavailable, sentence).having_acted().caused_by(error);
        }
        if matches!(error, AppError::TextBusy) {
            return Self::unavailable("Too many requests wait for the texts of models; try again");
        }
        let code = code(&error);
        if matches!(code, ErrorCode::Internal) {
            return Self::internal(error);
        }
        if matches!(code, ErrorCode::Unavailable) {
            return Self::unavailable("The service cannot reach its storage; try again").caused_by(error);
        }
        Self::new(code, sentence(&error.to_string()))
    }
}

/// Errors are phrases in lower case; answers are sentences.
pub(super) fn sentence(phrase: &str) -> String {
    let mut letters = phrase.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The code of each way in which a use case refuses or fails.
fn code(error: &AppError) -> ErrorCode {
    use {AppError as E, ErrorCode as C};
    match error {
        E::UnknownApiKey => C::InvalidApiKey,
        E::UnknownParty { .. } => C::UnknownParty,
        E::NonceUsed => C::ReplayedRequest,
        E::StaleRequest { .. } => C::StaleRequest,
        E::Forbidden { .. } => C::Forbidden,
        E::WorkerSuspended(_) => C::Suspended,
        E::AlreadyRegistered(_) => C::AlreadyRegistered,
        E::InvalidName => C::InvalidName,
        E::InvalidKey(_) => C::InvalidEncoding,
        E::InvalidAmount { .. } => C::InvalidAmount,
        E::InsufficientFunds { .. } => C::InsufficientFunds,
        E::RequestKeyReused => C::IdempotencyKeyReused,
        E::TooMuchToDefend { .. } => C::TooMuchToDefend,
        E::NoEquivocation(_) => C::NoEquivocation,
        E::LeaseHeld(_) => C::LeaseHeld,
        E::UnknownOwner(_) => C::UnknownAccount,
        E::UnknownModel(_) => C::UnknownModel,
        E::ModelIncomplete { .. } => C::ModelIncomplete,
        E::ProfileVoided { .. } => C::ProfileVoided,
        E::InvalidReason { .. } => C::InvalidRequest,
        E::InvalidManifest(_) | E::Template(_) => C::InvalidManifest,
        E::ManifestIdMismatch { .. } => C::ModelIdMismatch,
        E::UnknownBlob(_) => C::UnknownBlob,
        E::BlobMismatch { .. } => C::BlobHashMismatch,
        E::BlobTooLarge { .. } => C::BodyTooLarge,
        E::InvalidInput(_) => C::InvalidInput,
        E::UnknownJob(_) => C::UnknownJob,
        E::NotCancellable { .. } => C::NotCancellable,
        E::NoReceipt(_) => C::JobPending,
        E::UnknownLease(_) => C::UnknownLease,
        E::LeaseOver(_) => C::StaleLease,
        E::MalformedClaim(_) | E::MalformedMove(_) => C::InvalidEncoding,
        E::ClaimRefused(ClaimFault::Signer | ClaimFault::Signature(_)) => C::InvalidSignature,
        E::ClaimRefused(_) | E::ClaimStreamed(_) => C::ClaimRefused,
        E::StreamRefused(_) => C::StreamRefused,
        E::InvalidWebhook => C::InvalidRequest,
        E::Equivocation(_) => C::Equivocation,
        E::UnknownClaim(_) => C::UnknownClaim,
        E::UnknownDispute(_) => C::UnknownDispute,
        E::WindowClosed { .. } | E::ClaimDecided { .. } => C::WindowClosed,
        E::NoVerdict(_) => C::DisputeUndecided,
        E::RefereeFailed(_) => C::RefereeFailed,
        E::MoveRefused { code, .. } => move_code(code),
        E::LimitReached { .. } => C::Overloaded,
        E::SubmissionUncertain { .. } | E::TextBusy => C::Unavailable,
        E::Store(error) if error.is_outage() => C::Unavailable,
        E::KeyFile(_) | E::Store(_) | E::Blob(_) | E::Renderer(_) => C::Internal,
    }
}

/// The code of a move that the rules refuse, by the protocol's own name for the reason.
pub(super) fn move_code(reason: &str) -> ErrorCode {
    match reason {
        "dispute_ended" => ErrorCode::DisputeOver,
        "dispute_not_paused" => ErrorCode::DisputeNotPaused,
        "dispute_paused" => ErrorCode::RefereeFailed,
        "move_late" => ErrorCode::ClockExpired,
        "window_closed" => ErrorCode::WindowClosed,
        "duplicate_dispute" => ErrorCode::DuplicateDispute,
        "foreign_signer" => ErrorCode::Forbidden,
        "out_of_turn" => ErrorCode::WrongTurn,
        "stale_move" => ErrorCode::StaleMove,
        "wrong_move"
        | "foreign_claim"
        | "foreign_dispute"
        | "foreign_case"
        | "other_place"
        | "no_such_layer"
        | "nothing_disputed"
        | "no_such_op"
        | "no_such_node"
        | "element_outside_chunk"
        | "must_expand"
        | "not_expanded" => ErrorCode::IllegalMove,
        _ => ErrorCode::MoveRefused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A code without a thought-out status would fall to 400; a server fault must never look like the client's.
    #[test]
    fn the_status_of_a_code_fits_its_family() {
        use gainsay_api::error::ErrorKind as K;
        for &code in ErrorCode::ALL {
            let status = status(code).as_u16();
            let fits = match code.kind() {
                K::AuthenticationError => status == 401,
                K::PermissionError => status == 403,
                K::NotFoundError => status == 404,
                K::ConflictError => status == 409,
                K::InsufficientQuotaError => status == 402,
                K::RateLimitError => status == 429,
                K::ServerError => (500..600).contains(&status),
                K::InvalidRequestError => matches!(status, 400 | 405 | 413 | 415 | 422),
            };
            assert!(fits, "{code} travels as {status}");
        }
    }

    /// A database's words must not reach a client.
    #[test]
    fn causes_stay_out_of_the_answer() {
        let error = ApiError::internal("password authentication failed for user app");
        assert!(!error.detail().message.contains("password"));
        assert!(error.causes().unwrap().contains("password"));
    }
}
