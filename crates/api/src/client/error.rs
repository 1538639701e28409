//! What can go wrong between a client and its coordinator.

use crate::error::ErrorCode;
use gainsay_commitment::{PartyId, TensorCommitment};
use std::path::PathBuf;

/// Why a call did not give its answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is not one that a coordinator can have.
    #[error("{0:?} is not the address of a coordinator: expected http://HOST:PORT or https://HOST")]
    Url(String),
    /// The HTTP client could not be set up.
    #[error("no HTTP client can be set up on this machine: {source}")]
    Setup {
        /// Why.
        source: reqwest::Error,
    },
    /// No answer came.
    #[error("the coordinator at {base} does not answer: {cause}")]
    Unreachable {
        /// Its address.
        base: String,
        /// The innermost reason, which the library's own text leaves out.
        cause: String,
        /// What the library says.
        #[source]
        source: reqwest::Error,
    },
    /// One of several addresses is another service's.
    #[error("{base} is coordinator {found}, the other addresses are those of coordinator {expected}")]
    OtherCoordinator {
        /// The address.
        base: String,
        /// Who answers there.
        found: PartyId,
        /// Who should.
        expected: PartyId,
    },
    /// The connection stands, but nothing comes.
    #[error("the coordinator at {base} has not answered {path} within {} s", waited.as_secs())]
    Silent {
        /// Its address.
        base: String,
        /// The path.
        path: String,
        /// How long it was waited for.
        waited: std::time::Duration,
    },
    /// The coordinator refused, in its own words.
    #[error("{message} ({code}; request {request_id})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// For programs.
        code: ErrorCode,
        /// For people.
        message: String,
        /// Names the request in the coordinator's log.
        request_id: String,
    },
    /// The answer is not what the route answers: another service, or another version.
    #[error("{base} answered {path} with {status} and not in the way of a coordinator: {reason}")]
    Unexpected {
        /// The address.
        base: String,
        /// The path.
        path: String,
        /// HTTP status.
        status: u16,
        /// What is wrong with it.
        reason: String,
    },
    /// The answer is longer than it may be.
    #[error("the answer to {path} is longer than {limit} bytes")]
    TooLarge {
        /// The path.
        path: String,
        /// The limit.
        limit: u64,
    },
    /// The bytes are not those that were asked for.
    #[error("what the coordinator serves as blob {hash} has another hash; it was fetched twice")]
    BlobMismatch {
        /// The hash.
        hash: TensorCommitment,
    },
    /// A cache of blobs has no room.
    #[error(
        "the cache in {} has no room: what is in use and what is wanted are {needed} bytes together, {limit} may be kept",
        folder.display()
    )]
    CacheFull {
        /// Its folder.
        folder: PathBuf,
        /// Bytes in use, what is wanted among them.
        needed: u64,
        /// Bytes that it may hold.
        limit: u64,
    },
    /// A local file failed.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key file does not hold a key.
    #[error("{}: {reason}", path.display())]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// A value could not be written as JSON or as a query.
    #[error("the request to {path} could not be written: {reason}")]
    Encode {
        /// The path.
        path: String,
        /// Why.
        reason: String,
    },
}

impl ClientError {
    /// The code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the coordinator refused for this reason.
    #[must_use]
    pub fn is(&self, code: ErrorCode) -> bool {
        self.code() == Some(code)
    }

    /// Whether the same call may succeed later: the coordinator is away, restarting or busy.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } => true,
            Self::Refused { status, code, .. } => code.is_transient() || matches!(status, 429 | 502..=504),
            Self::Unexpected { status, .. } => matches!(status, 429 | 502..=504),
            _ => false,
        }
    }

    /// Whether another coordinator of the same service might answer where this one did not.
    pub(super) fn blames_the_coordinator(&self) -> bool {
        self.is_transient() && !self.is(ErrorCode::RateLimited)
    }

    pub(super) fn unreachable(base: &str, source: reqwest::Error) -> Self {
        let mut cause: &dyn std::error::Error = &source;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let cause = if source.is_timeout() { "it took too long".to_owned() } else { cause.to_string() };
        // The URL of a request is in the message already, and may hold what does not belong in a log.
        Self::Unreachable { base: base.to_owned(), cause, source: source.without_url() }
    }
}
