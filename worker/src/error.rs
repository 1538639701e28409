//! Why a worker stops.

use crate::records::RecordsError;
use gainsay_api::client::ClientError;
use gainsay_api::leases::ReturnReason;
use gainsay_commitment::ModelId;
use gainsay_participant::ParticipantError;
use gainsay_protocol::LeaseId;
use std::time::Duration;

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
    /// What was leased is no job, or one that does not fit what this worker has.
    #[error("the job of lease {lease} cannot be run here: {reason}")]
    Job {
        /// The lease.
        lease: LeaseId,
        /// Why not.
        reason: String,
    },
    /// The run of a job has failed.
    #[error("the run of lease {lease} has failed: {reason}")]
    Run {
        /// The lease.
        lease: LeaseId,
        /// Why.
        reason: String,
    },
    /// The model of a job was not to be had in the time that a worker waits for it.
    #[error("model {model} was not to be had in {} s", waited.as_secs())]
    ModelAway {
        /// The model.
        model: ModelId,
        /// How long it was waited for.
        waited: Duration,
    },
}

impl WorkerError {
    /// What a lease is handed back for when its job ends so; none where the worker itself cannot go on.
    pub(crate) fn reason_to_return(&self) -> Option<ReturnReason> {
        match self {
            Self::Job { .. } => Some(ReturnReason::TooLarge),
            Self::Client(_) | Self::Participant(_) | Self::Run { .. } | Self::ModelAway { .. } => {
                Some(ReturnReason::ModelUnavailable)
            }
            Self::Records(_) => None,
        }
    }

    /// Whether the same may succeed later without anything being mended here.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Client(error) => error.is_transient(),
            Self::Participant(error) => error.is_transient(),
            Self::Run { .. } | Self::ModelAway { .. } => true,
            Self::Records(_) | Self::Job { .. } => false,
        }
    }
}
