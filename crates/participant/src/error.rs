//! Why a party could not do what it was about to.

use gainsay_api::client::ClientError;
use gainsay_commitment::{ClaimId, DecodeError, DisputeId, ModelId};
use gainsay_engine::{DeviceError, LoadError, RunError};
use gainsay_program::ManifestError;
use gainsay_protocol::strategy::StrategyError;

/// Why a party could not do what it was about to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParticipantError {
    /// The coordinator does not answer, or refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What is served as a manifest is none.
    #[error("the manifest that the coordinator serves as model {model} cannot be read: {source}")]
    ManifestEncoding {
        /// The model.
        model: ModelId,
        /// Why not.
        source: DecodeError,
    },
    /// The manifest hashes to another id.
    #[error("the manifest that the coordinator serves as model {model} is that of model {found}")]
    ManifestId {
        /// The model.
        model: ModelId,
        /// What it hashes to.
        found: ModelId,
    },
    /// The manifest breaks a rule of programs.
    #[error("the manifest of model {model} is refused: {source}")]
    Manifest {
        /// The model.
        model: ModelId,
        /// Why.
        source: Box<ManifestError>,
    },
    /// Nothing can be run where it was to be.
    #[error("{0}; `gainsay doctor` says more, and the setting `device` chooses another")]
    Device(DeviceError),
    /// The device does nothing more for this process.
    #[error("the device is lost to this process ({0}): start it again")]
    DeviceLost(&'static str),
    /// The engine does not take the model.
    #[error("model {model} cannot be loaded: {source}")]
    Load {
        /// The model.
        model: ModelId,
        /// Why not.
        source: Box<LoadError>,
    },
    /// The models in use leave too little memory for another.
    #[error(
        "model {model} takes {bytes} bytes of memory; models in use take {in_use}, and all together may take {limit}"
    )]
    NoRoom {
        /// The model.
        model: ModelId,
        /// Bytes that it takes.
        bytes: u64,
        /// Bytes that models in use take.
        in_use: u64,
        /// Bytes that all may take.
        limit: u64,
    },
    /// The engine could not run a job.
    #[error("the run failed: {0}")]
    Run(#[from] RunError),
    /// What is served as a claim does not hold together.
    #[error("what the coordinator serves as claim {claim} does not hold together: {reason}")]
    Claim {
        /// The claim.
        claim: ClaimId,
        /// What is wrong with it.
        reason: String,
    },
    /// What is served as a dispute is not one.
    #[error("what the coordinator serves as dispute {dispute} does not hold together: {reason}")]
    Dispute {
        /// The dispute.
        dispute: DisputeId,
        /// What is wrong with it.
        reason: String,
    },
    /// This party's own code has panicked: a defect, which ends what it was at and nothing else.
    #[error("{0} has panicked")]
    Panicked(&'static str),
    /// No move to offer.
    #[error("no move in dispute {dispute}: {source}")]
    Strategy {
        /// The dispute.
        dispute: DisputeId,
        /// Why not.
        source: Box<StrategyError>,
    },
    /// The referee, run on the party's own trace, does not confirm it.
    #[error(
        "nothing is staked against claim {claim}, since the referee does not confirm the own trace: {source}"
    )]
    Rehearsal {
        /// The claim.
        claim: ClaimId,
        /// What it found.
        source: Box<StrategyError>,
    },
}

impl ParticipantError {
    /// Whether the same may succeed later without anything being mended here.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            // Others may be done with what takes the room.
            Self::NoRoom { bytes, limit, .. } => bytes <= limit,
            Self::Client(ClientError::CacheFull { .. }) => true,
            Self::Client(error) => error.is_transient(),
            _ => false,
        }
    }
}
