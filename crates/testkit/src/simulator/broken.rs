//! Rules that can be broken, to see that the simulator notices.

/// One rule of the coordinator, broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// A claim is paid half a window too early.
    PaysBeforeTheWindowEnds,
    /// A claim is paid at the end of its window although a dispute on it is open.
    PaysUnderDispute,
    /// A rejected claim is paid too.
    PaysTheRejected,
    /// A moot dispute takes its challenger's bond.
    MootForfeits,
    /// Service time runs while the coordinator is away.
    ClockRunsInOutages,
    /// Disputes open for a while after the window.
    OpensAfterTheWindow,
    /// One dispute a claim, and no more.
    CapsDisputes,
    /// A dispute that was lost ends the others on the claim.
    LossShields,
    /// A rejected job may go back to the owner who failed it.
    SameOwnerAgain,
    /// The stake is unlocked when the claim is made.
    StakeLeavesWithTheClaim,
    /// Moves count by the time at which they were sent.
    BelievesTheSendersClock,
    /// Bonds of the undefeated are kept.
    KeepsBonds,
    /// Confirmed openers get nothing.
    ForgetsRefunds,
    /// Whoever waits while the worker is silent gets the prover's share.
    SilencePays,
    /// All of a convicted stake goes to the prover: nothing deters a cheat that proves itself.
    ProverTakesAll,
    /// A rejected claim uses up no attempt.
    AttemptsNeverEnd,
    /// A claim that is sent again is taken for a second one.
    ResentIsEquivocation,
    /// A claim counts until somebody notices that its lease has expired.
    AcceptsClaimAfterExpiry,
    /// A move counts until somebody notices that its clock has run out.
    AcceptsMoveAfterDeadline,
}

impl Broken {
    /// Every one.
    pub const ALL: [Self; 19] = [
        Self::PaysBeforeTheWindowEnds,
        Self::PaysUnderDispute,
        Self::PaysTheRejected,
        Self::MootForfeits,
        Self::ClockRunsInOutages,
        Self::OpensAfterTheWindow,
        Self::CapsDisputes,
        Self::LossShields,
        Self::SameOwnerAgain,
        Self::StakeLeavesWithTheClaim,
        Self::BelievesTheSendersClock,
        Self::KeepsBonds,
        Self::ForgetsRefunds,
        Self::SilencePays,
        Self::ProverTakesAll,
        Self::AttemptsNeverEnd,
        Self::ResentIsEquivocation,
        Self::AcceptsClaimAfterExpiry,
        Self::AcceptsMoveAfterDeadline,
    ];
}
