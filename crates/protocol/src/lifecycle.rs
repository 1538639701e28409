//! What may become of a job and of a claim, and when.

use crate::{money::Amount, parameters::Parameters, time::ServiceTime};

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobState {
    /// Waits for a worker.
    Submitted,
    /// A worker holds a lease on it.
    Assigned,
    /// A claim was made; its answer was delivered as pending.
    Claimed,
    /// The claim is final and paid.
    Finalized,
    /// Its attempts, or its leases, are used up; the submitter has its money back.
    Refunded,
    /// The submitter withdrew it.
    Cancelled,
    /// The operator withdrew the profile version.
    Voided,
}

/// What happens to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobEvent {
    /// A lease was given.
    Leased,
    /// The lease ran out, lost its heartbeat or was handed back, and more may be given.
    LeaseLost,
    /// The same, and it was the last that the job gets.
    LeaseLostFinally,
    /// A claim was accepted.
    Claimed,
    /// The claim's window has passed with no dispute open.
    WindowPassed,
    /// The claim was rejected, and attempts are left.
    Rejected,
    /// The claim was rejected, and it was the last attempt.
    RejectedFinally,
    /// The submitter withdraws the job.
    Cancelled,
    /// The operator withdraws the profile version.
    Voided,
}

/// Every legal step of a job. What is not in this table must not happen.
pub const JOB_TRANSITIONS: [(JobState, JobEvent, JobState); 11] = [
    (JobState::Submitted, JobEvent::Leased, JobState::Assigned),
    (JobState::Submitted, JobEvent::Cancelled, JobState::Cancelled),
    (JobState::Submitted, JobEvent::Voided, JobState::Voided),
    (JobState::Assigned, JobEvent::LeaseLost, JobState::Submitted),
    (JobState::Assigned, JobEvent::LeaseLostFinally, JobState::Refunded),
    (JobState::Assigned, JobEvent::Claimed, JobState::Claimed),
    (JobState::Assigned, JobEvent::Voided, JobState::Voided),
    (JobState::Claimed, JobEvent::WindowPassed, JobState::Finalized),
    (JobState::Claimed, JobEvent::Rejected, JobState::Submitted),
    (JobState::Claimed, JobEvent::RejectedFinally, JobState::Refunded),
    (JobState::Claimed, JobEvent::Voided, JobState::Voided),
];

/// Where an event takes a job, or `None` where it must not happen.
#[must_use]
pub fn job_transition(from: JobState, event: JobEvent) -> Option<JobState> {
    JOB_TRANSITIONS.iter().find(|row| (row.0, row.1) == (from, event)).map(|row| row.2)
}

/// The event that a rejected claim is for its job, given how many of its claims were rejected before. Lost leases do
/// not use up attempts.
#[must_use]
pub fn rejection(rejected_before: u32, parameters: &Parameters) -> JobEvent {
    if rejected_before.saturating_add(1) < parameters.attempts {
        JobEvent::Rejected
    } else {
        JobEvent::RejectedFinally
    }
}

/// The event that a lease without a claim is for its job, given how many of its leases ended so before.
#[must_use]
pub fn fruitless_lease(ended_before: u32, parameters: &Parameters) -> JobEvent {
    if ended_before.saturating_add(1) < parameters.lease_attempts {
        JobEvent::LeaseLost
    } else {
        JobEvent::LeaseLostFinally
    }
}

/// What it costs to have kept a job from the others for nothing: that part of its price which the time for which the lease
/// was held, beyond the first heartbeat's, is of the longest that it could be held. Rounded down.
#[must_use]
pub fn holding_fee(price: Amount, held_ms: u64, longest_ms: u64, parameters: &Parameters) -> Amount {
    let beyond = held_ms.saturating_sub(parameters.heartbeat_ms).min(longest_ms);
    let part = i128::from(price.0) * i128::from(beyond) / i128::from(longest_ms.max(1));
    Amount(i64::try_from(part).expect("a part of an amount is no larger than it"))
}

/// What a worker pays for a lease that it lost: the fixed fee, and what holding it costs.
#[must_use]
pub fn lost_lease_fee(price: Amount, held_ms: u64, longest_ms: u64, parameters: &Parameters) -> Amount {
    let holding = holding_fee(price, held_ms, longest_ms, parameters);
    parameters.lost_lease_fee.checked_add(holding).unwrap_or(Amount::MAX)
}

/// Where a claim is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimState {
    /// Its window is open, or a dispute on it is.
    Pending,
    /// It stands, and was paid.
    Finalized,
    /// It was proven wrong, or was one of two.
    Rejected,
    /// The operator withdrew the profile version.
    Voided,
}

/// How far an answer can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Finality {
    /// Delivered; may still be disputed.
    Pending,
    /// Stands.
    Final,
    /// Was proven wrong, or voided.
    Revoked,
}

impl ClaimState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Finalized, Self::Rejected, Self::Voided];

    /// The state of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// What the submitter is told about the claim's answer.
    #[must_use]
    pub fn finality(self) -> Finality {
        match self {
            Self::Pending => Finality::Pending,
            Self::Finalized => Finality::Final,
            Self::Rejected | Self::Voided => Finality::Revoked,
        }
    }

    /// Stable snake-case name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Finalized => "finalized",
            Self::Rejected => "rejected",
            Self::Voided => "voided",
        }
    }
}

impl JobState {
    /// Stable snake-case name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Assigned => "assigned",
            Self::Claimed => "claimed",
            Self::Finalized => "finalized",
            Self::Refunded => "refunded",
            Self::Cancelled => "cancelled",
            Self::Voided => "voided",
        }
    }
}

impl Finality {
    /// Stable snake-case name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Final => "final",
            Self::Revoked => "revoked",
        }
    }
}

/// The first moment at which a claim can no longer be disputed, for a claim taken, or a window started anew, at
/// `start`.
#[must_use]
pub fn window_closes(start: ServiceTime, parameters: &Parameters) -> ServiceTime {
    start.plus(parameters.window_ms)
}

/// Whether a pending claim may become final: its window has closed, and every dispute on it has ended.
#[must_use]
pub fn may_finalize(window_closes: ServiceTime, open_disputes: u64, now: ServiceTime) -> bool {
    now >= window_closes && open_disputes == 0
}

/// Whether a worker may take another lease: running all of its unfinalized claims again must fit into half of its
/// allowance, or many disputes at once could time it out.
#[must_use]
pub fn may_lease(rerun_of_unfinalized_ms: u64, parameters: &Parameters) -> bool {
    rerun_of_unfinalized_ms <= parameters.worker_allowance_ms / 2
}

/// Time that a lease has for each token that its job's answer may hold, in milliseconds: ten tokens a second.
pub const LEASE_MS_PER_ANSWER_TOKEN: u64 = 100;

/// Time that a lease has for each token that its job has the model read, in milliseconds.
pub const LEASE_MS_PER_GIVEN_TOKEN: u64 = 20;

/// How long a lease may be kept, in milliseconds of service time, for a job that gives the model so many tokens to read and
/// whose answer may hold so many (0 for embeddings). A fixed time would make long jobs impossible to deliver, at a fee for each
/// worker that tries.
#[must_use]
pub fn lease_ms(given_tokens: u64, answer_tokens: u32, parameters: &Parameters) -> u64 {
    let given = LEASE_MS_PER_GIVEN_TOKEN.saturating_mul(given_tokens);
    let drawn = LEASE_MS_PER_ANSWER_TOKEN.saturating_mul(answer_tokens.into());
    parameters.lease_ms.saturating_add(given).saturating_add(drawn)
}

/// The longest that a job can take to be decided once it is first leased, in milliseconds of service time in which
/// some worker is there to take it. The suspension of its worker, which comes once, may start a claim's window anew just
/// before it would have been decided; and leases may end without a claim, but only so many that cost something.
#[must_use]
pub fn longest_decision_ms(parameters: &Parameters) -> u64 {
    let both = parameters.worker_allowance_ms.saturating_add(parameters.challenger_allowance_ms);
    let pending = parameters.window_ms.saturating_add(both);
    let lease = lease_ms(gainsay_program::MAX_JOB_TOKENS as u64, gainsay_program::MAX_SEQUENCE, parameters);
    let attempt = lease.saturating_add(pending).saturating_add(pending);
    let fruitless = lease.saturating_mul(parameters.lease_attempts.into());
    attempt.saturating_mul(parameters.attempts.into()).saturating_add(fruitless)
}
