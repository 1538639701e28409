//! What honest parties do: pure functions from a dispute and a party's own trace to its next move.
//!
//! The strategies keep no state. A party that restarts in the middle of a dispute asks again and gets the same
//! answer; what the simulations play is what the binaries run.

mod challenger;
mod trace;
mod worker;

pub use challenger::{ChallengerStep, Rehearsal, challenger_next, first_difference, rehearse};
pub use trace::{TensorData, TraceError, TraceSource, build_witness};
pub use worker::{WorkerStep, worker_next, worker_reveal};

use gainsay_program::{ElementError, OpPlace, TensorRef};

use crate::referee::WitnessFault;

/// Why a strategy has no move to offer.
#[derive(Debug, thiserror::Error)]
pub enum StrategyError {
    /// The party's own trace lacks a tensor.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A tensor of the trace has another length than program and job give it.
    #[error("{tensor} has {found} bytes in the party's own trace where the program gives {expected}")]
    TensorLength {
        /// The tensor.
        tensor: TensorRef,
        /// Bytes that program and job imply.
        expected: u64,
        /// Bytes in the trace.
        found: u64,
    },
    /// The party's own trace does not obey the program: its machine, not the other party, is at fault.
    #[error(
        "{place} element {element}: the own trace holds {held:02x?}, the referee computes {computed:02x?}"
    )]
    Inconsistent {
        /// The op.
        place: OpPlace,
        /// The element.
        element: u64,
        /// The bytes in the trace.
        held: [u8; 4],
        /// What the referee's function makes of the op's inputs in that trace.
        computed: [u8; 4],
    },
    /// The party's own trace and what the other party has shown agree: there is nothing to prove.
    #[error("nothing shown here differs from the own trace")]
    NoDifference,
    /// The witness that would be sent is refused or loses.
    #[error("the own witness would be refused: {0}")]
    Witness(#[from] WitnessFault),
    /// The witness that would be sent loses.
    #[error("the referee would confirm the claim at {place} element {element}")]
    WouldLose {
        /// The op.
        place: OpPlace,
        /// The element.
        element: u64,
    },
    /// The witness is larger than any may be.
    #[error("the witness is too large or out of order: {0}")]
    WitnessForm(#[from] crate::witness::WitnessFormError),
    /// Program and job have no such place: the dispute is about something else.
    #[error("the dispute is not about this claim, job and model")]
    ForeignCase,
    /// The element cannot be evaluated at all.
    #[error("the element cannot be evaluated: {0}")]
    Element(#[from] ElementError),
    /// The number of layers differs from the claim's: it was computed with another model.
    #[error("the own trace has {own} layers, the claim {claimed}")]
    LayerCount {
        /// Layers of the own trace.
        own: usize,
        /// Layers of the claim.
        claimed: usize,
    },
}
