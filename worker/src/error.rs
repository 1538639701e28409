//! Why a worker stops.

use crate::records::RecordsError;
use gainsay_api::client::ClientError;
use gainsay_participant::ParticipantError;
use gainsay_protocol::LeaseId;

/// Why a worker stops, or gives a job up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The coordinator does not answer, or refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A model, a run or a dispute failed.
    #[error(transparent)]
    Participant(#[from] ParticipantError),
    /// What must survive a restart cannot be kept.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// What was leased is no job.
    #[error("the job of lease {lease} cannot be run: {reason}")]
    Job {
        /// The lease.
        lease: LeaseId,
        /// Why not.
        reason: String,
    },
}

impl WorkerError {
    /// Whether the same may succeed later without anything being mended here.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Client(error) => error.is_transient(),
            Self::Participant(error) => error.is_transient(),
            Self::Records(_) | Self::Job { .. } => false,
        }
    }
}
