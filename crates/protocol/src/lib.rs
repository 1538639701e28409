//! Claims, disputes, the referee and the money that follows: every rule of Gainsay, and no side effects.
//!
//! The main flow:
//!
//! 1. A worker answers a [`Job`] under a lease with a signed [`Claim`]; [`Claim::check`] is everything that can be
//!    said about it without executing it, [`ClaimReceipt`] the coordinator's countersignature.
//! 2. A challenger that computed another layer commitment opens a [`Dispute`]. [`Dispute::apply`] examines each
//!    move; [`dispute::table`] says which are legal; [`Reveals`] keeps what the worker has shown of the claim.
//! 3. The last move makes the [referee] recompute one element from a [`Witness`]. The outcome's
//!    [effects](Dispute::effects) say what follows.
//! 4. [`ledger`] turns events into postings that sum to zero, [`lifecycle`] says what a job and a claim may become.
//! 5. [`EvidenceBundle`] carries a whole dispute to anyone who wants to [judge it again](EvidenceBundle::rejudge).
//!
//! [`strategy`] holds what honest workers and challengers do, as pure functions too.
//!
//! This crate must not know: time (every rule takes `now`), storage, transport, tensors libraries, randomness.
//! Every byte that enters may come from an adversary: decoding is strict and bounded, rules return refusals, and a
//! broken invariant of the crate's own is an assertion that release builds keep.
#![forbid(unsafe_code)]

mod case;
mod claim;
mod codec;
pub mod dispute;
mod equivocation;
mod evidence;
mod ids;
mod job;
pub mod ledger;
pub mod lifecycle;
mod money;
mod moves;
mod parameters;
pub mod referee;
mod reveals;
pub mod strategy;
mod time;
#[cfg(feature = "toy")]
pub mod toy;
mod void;
mod witness;

pub use case::{Case, CaseMismatch};
pub use claim::{Claim, ClaimFault, ClaimReceipt, LeaseTerms, MAX_OUTPUT_BYTES};
pub use dispute::{
    Cause, Closing, Dispute, DisputeTerms, Effect, Entry, Event, MoveKind, Outcome, Phase, Position,
    Question, Record, Refusal, Verdict,
};
pub use equivocation::{Equivocation, EquivocationFault};
pub use evidence::{BundleFault, EvidenceBundle, EvidenceEntry};
pub use ids::{JobId, LeaseId, OwnerId, ParseIdError, Role};
pub use job::{AnswerFault, Job, Task};
pub use money::{Amount, PPM};
pub use moves::{Action, Authentic, Choice, Open, Reveal, RevealContent, SignedMove};
pub use parameters::{Parameters, ParametersError};
pub use referee::{Judgement, WitnessFault, judge};
pub use reveals::{RevealKey, RevealTarget, Reveals};
pub use strategy::{TensorData, TraceError, TraceSource};
pub use time::ServiceTime;
pub use void::{MAX_REASON_BYTES, VoidStatement};
pub use witness::{Witness, WitnessFormError, WitnessRun};
