//! What happened in games, counted.

use std::collections::BTreeMap;
use std::fmt;

use gainsay_protocol::lifecycle::{ClaimState, JobState};
use gainsay_protocol::{Cause, Verdict};

use super::invariants;
use super::service::{LeaseState, Rejection, Service};

/// Counts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// Counts how everything in a game ended.
    pub(super) fn count_results(&mut self, service: &Service<'_>) {
        for lease in service.leases.iter().filter(|lease| lease.state == LeaseState::Lost) {
            self.count(if lease.ended == Some(lease.deadline) { "leases run out" } else { "leases lost" });
        }
        for job in &service.jobs {
            self.count(match job.state {
                JobState::Finalized => "jobs done",
                JobState::Refunded => "jobs refunded",
                _ => "jobs withdrawn",
            });
        }
        for claim in &service.claims {
            let right = invariants::is_right(service, claim);
            self.count(match (claim.state, right, claim.rejection) {
                (ClaimState::Finalized, true, _) => "claims right and final",
                (ClaimState::Finalized, false, _) => "claims false and final, nobody watching",
                (_, _, Some(Rejection::Equivocation)) => "claims rejected: equivocation",
                (_, true, _) => "claims right and rejected: not defended",
                (_, false, _) => "claims false and rejected",
            });
        }
        for record in &service.disputes {
            let Some(outcome) = record.dispute.outcome() else { continue };
            self.count(match (outcome.verdict, outcome.cause) {
                (Verdict::ChallengerWins, Cause::Proof { .. }) => "disputes won by proof",
                (Verdict::ChallengerWins, _) => "disputes won by the worker's silence",
                (Verdict::WorkerWins, Cause::Proof { .. }) => "disputes lost by proof",
                (Verdict::WorkerWins, Cause::Timeout(_)) => "disputes lost by the challenger's silence",
                (Verdict::WorkerWins, _) => "disputes lost with the bond",
                (Verdict::Moot, _) => "disputes moot",
                (Verdict::Void, _) => "disputes void",
            });
        }
    }

    /// How often something happened.
    #[must_use]
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>12}  {what}"))
    }
}
