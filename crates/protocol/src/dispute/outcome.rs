//! How a dispute ends, and what follows from it.

use gainsay_commitment::{ClaimId, DecodeError, Decoder, DisputeId, Encoder, PartyId};
use gainsay_program::OpPlace;

use crate::{
    codec::{get_place, get_time, put_place, put_time},
    ids::Role,
    time::ServiceTime,
};

/// Who won.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The claim is wrong, or was not defended.
    ChallengerWins,
    /// The challenge is wrong, or was not pursued.
    WorkerWins,
    /// Another dispute decided the claim first; nobody loses anything.
    Moot,
    /// The operator withdrew the profile version; everything goes back.
    Void,
}

/// Why the dispute ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The referee recomputed an element.
    Proof {
        /// The op.
        place: OpPlace,
        /// Row-major index in the op's output.
        element: u64,
        /// The bytes that the worker revealed.
        claimed: [u8; 4],
        /// The bytes that the referee computed.
        recomputed: [u8; 4],
    },
    /// A party spent its allowance.
    Timeout(Role),
    /// Something outside the dispute ended it.
    Closed(Closing),
}

/// What can end a dispute from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closing {
    /// The claim was rejected without this dispute: by another one, or as an equivocation (`None`).
    ClaimRejected {
        /// The dispute that proved the claim wrong.
        by: Option<DisputeId>,
    },
    /// The challenger lost its bond against this worker in another dispute.
    BondLost {
        /// The dispute that it lost.
        by: DisputeId,
    },
    /// The operator withdrew the profile version.
    Void,
}

impl Closing {
    /// The verdict that it brings.
    #[must_use]
    pub fn verdict(self) -> Verdict {
        match self {
            Self::ClaimRejected { .. } => Verdict::Moot,
            Self::BondLost { .. } => Verdict::WorkerWins,
            Self::Void => Verdict::Void,
        }
    }
}

/// The end of a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// Who won.
    pub verdict: Verdict,
    /// Why.
    pub cause: Cause,
    /// When.
    pub time: ServiceTime,
}

/// What the coordinator has to do, in the transaction that records the end of a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Reject the claim, slash the stake locked with it, and put the job back in the queue or refund it.
    RejectClaim {
        /// The claim.
        claim: ClaimId,
        /// Who earns the challenger's share.
        prover: PartyId,
    },
    /// End every other open dispute on the claim.
    CloseOthersOnClaim {
        /// The claim.
        claim: ClaimId,
        /// How they end.
        closing: Closing,
    },
    /// Suspend the worker and start the windows of its other unfinalized claims anew, unless that was done in
    /// this suspension already.
    SuspendWorker {
        /// The worker.
        worker: PartyId,
    },
    /// Take the bond that the challenger locked against the worker.
    ForfeitBond {
        /// Who loses it.
        challenger: PartyId,
        /// Against whom it was locked, and who gets a part of it.
        worker: PartyId,
    },
    /// End every other open dispute of the challenger against the worker.
    CloseOthersOfPair {
        /// The challenger.
        challenger: PartyId,
        /// The worker.
        worker: PartyId,
        /// How they end.
        closing: Closing,
    },
    /// Unlock the bond, if it is still locked and no dispute of the pair is open any more.
    ReturnBondIfIdle {
        /// The challenger.
        challenger: PartyId,
        /// The worker.
        worker: PartyId,
    },
}

impl Verdict {
    /// Stable snake-case name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChallengerWins => "challenger_wins",
            Self::WorkerWins => "worker_wins",
            Self::Moot => "moot",
            Self::Void => "void",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Cause {
    /// Stable snake-case name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Proof { .. } => "proof",
            Self::Timeout(Role::Worker) => "worker_timeout",
            Self::Timeout(Role::Challenger) => "challenger_timeout",
            Self::Closed(Closing::ClaimRejected { .. }) => "claim_rejected",
            Self::Closed(Closing::BondLost { .. }) => "bond_lost",
            Self::Closed(Closing::Void) => "void",
        }
    }

    /// The verdict that this cause brings: a verdict is never anything else than its cause.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Proof { claimed, recomputed, .. } if claimed == recomputed => Verdict::WorkerWins,
            Self::Proof { .. } | Self::Timeout(Role::Worker) => Verdict::ChallengerWins,
            Self::Timeout(Role::Challenger) => Verdict::WorkerWins,
            Self::Closed(closing) => closing.verdict(),
        }
    }
}

impl Outcome {
    pub(crate) fn new(cause: Cause, time: ServiceTime) -> Self {
        Self { verdict: cause.verdict(), cause, time }
    }

    pub(crate) fn encode(&self, e: &mut Encoder) {
        match self.cause {
            Cause::Proof { place, element, claimed, recomputed } => {
                e.u8(1);
                put_place(e, place);
                e.u64(element).array(&claimed).array(&recomputed);
            }
            Cause::Timeout(role) => {
                e.u8(2).bool(role == Role::Challenger);
            }
            Cause::Closed(closing) => {
                e.u8(3);
                closing.encode(e);
            }
        }
        put_time(e, self.time);
    }

    pub(crate) fn decode(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let cause = match d.u8()? {
            1 => Cause::Proof {
                place: get_place(d)?,
                element: d.u64()?,
                claimed: d.array()?,
                recomputed: d.array()?,
            },
            2 => Cause::Timeout(if d.bool()? { Role::Challenger } else { Role::Worker }),
            3 => Cause::Closed(Closing::decode(d)?),
            tag => return Err(DecodeError::UnknownTag { what: "cause", tag }),
        };
        Ok(Self::new(cause, get_time(d)?))
    }
}

impl Closing {
    pub(crate) fn encode(self, e: &mut Encoder) {
        match self {
            Self::ClaimRejected { by } => {
                e.u8(1).option(by.as_ref(), |e, id| {
                    e.hash(id);
                });
            }
            Self::BondLost { by } => {
                e.u8(2).hash(&by);
            }
            Self::Void => {
                e.u8(3);
            }
        }
    }

    pub(crate) fn decode(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match d.u8()? {
            1 => Ok(Self::ClaimRejected { by: d.option(Decoder::hash)? }),
            2 => Ok(Self::BondLost { by: d.hash()? }),
            3 => Ok(Self::Void),
            tag => Err(DecodeError::UnknownTag { what: "closing", tag }),
        }
    }
}
