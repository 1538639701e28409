//! Folds the coordinator's events into what the report tells.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use gainsay_api::disputes::Verdict;
use gainsay_api::events::{Event, EventKind};
use gainsay_commitment::{ClaimId, DisputeId};
use gainsay_protocol::JobId;

use super::report;

/// What has happened so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    submitted: BTreeSet<JobId>,
    assigned: BTreeMap<JobId, u32>,
    claimed: BTreeMap<ClaimId, Claimed>,
    finalized: BTreeMap<JobId, ClaimId>,
    refunded: BTreeSet<JobId>,
    disputes: BTreeMap<DisputeId, report::Dispute>,
    convicted: BTreeSet<String>,
}

#[derive(Debug)]
struct Claimed {
    job: JobId,
    worker: String,
    rejected: bool,
    heard: Instant,
}

impl Tally {
    /// Takes one event into account, which was heard of at `now`. An event that arrives twice changes nothing.
    pub(crate) fn observe(&mut self, event: &Event, now: Instant) {
        match &event.kind {
            EventKind::JobSubmitted { job, .. } => {
                self.submitted.insert(*job);
            }
            EventKind::JobAssigned { job, attempt, .. } => {
                let highest = self.assigned.entry(*job).or_default();
                *highest = (*highest).max(*attempt);
            }
            EventKind::JobClaimed { job, claim, worker, .. } => {
                self.claimed.entry(*claim).or_insert_with(|| Claimed {
                    job: *job,
                    worker: worker.name.clone(),
                    rejected: false,
                    heard: now,
                });
            }
            EventKind::ClaimFinalized { job, claim, .. } => {
                self.finalized.insert(*job, *claim);
            }
            EventKind::ClaimRejected { claim, .. } => {
                if let Some(claimed) = self.claimed.get_mut(claim) {
                    claimed.rejected = true;
                }
            }
            EventKind::JobRefunded { job, .. } => {
                self.refunded.insert(*job);
            }
            EventKind::DisputeDecided {
                dispute,
                claim,
                worker,
                place,
                move_count,
                witness_bytes,
                referee_us,
                decision,
                ..
            } => {
                if decision.verdict == Verdict::ChallengerWins {
                    self.convicted.insert(worker.name.clone());
                }
                let claimed = self.claimed.get(claim);
                self.disputes.entry(*dispute).or_insert_with(|| report::Dispute {
                    claim: claim.to_string(),
                    layer: place.layer,
                    op: place.op_kind.clone(),
                    element: place.element,
                    moves: *move_count as usize,
                    witness_bytes: *witness_bytes,
                    referee_us: *referee_us,
                    after_claim_ms: claimed.map(|claimed| (now - claimed.heard).as_millis() as u64),
                    verdict: verdict_name(decision.verdict).to_owned(),
                });
            }
            _ => {}
        }
    }

    /// Jobs that the submitter need not wait for any longer.
    pub(crate) fn decided(&self) -> usize {
        self.finalized.len() + self.refunded.len()
    }

    /// Jobs with at least one claim.
    pub(crate) fn claimed_jobs(&self) -> usize {
        self.claimed.values().map(|claimed| claimed.job).collect::<BTreeSet<_>>().len()
    }

    /// Whether `worker` has posted a claim.
    pub(crate) fn has_claim_by(&self, worker: &str) -> bool {
        self.claimed.values().any(|claimed| claimed.worker == worker)
    }

    /// Whether a dispute proved `worker` wrong, and none of its claims became final.
    pub(crate) fn is_convicted(&self, worker: &str) -> bool {
        self.convicted.contains(worker) && !self.finals().any(|claimed| claimed.worker == worker)
    }

    /// Whether every claim of every other worker than these became final.
    pub(crate) fn all_honest_work_is_final(&self, cheats: &[&str]) -> bool {
        let paid: BTreeSet<&ClaimId> = self.finalized.values().collect();
        self.claimed
            .iter()
            .filter(|(_, claimed)| !cheats.contains(&claimed.worker.as_str()))
            .all(|(claim, claimed)| paid.contains(claim) && !claimed.rejected)
    }

    /// Names of the workers whose claims became final.
    pub(crate) fn paid_workers(&self) -> BTreeSet<&str> {
        self.finals().map(|claimed| claimed.worker.as_str()).collect()
    }

    fn finals(&self) -> impl Iterator<Item = &Claimed> {
        self.finalized.values().filter_map(|claim| self.claimed.get(claim))
    }

    /// The counts of the report.
    pub(crate) fn jobs(&self) -> report::Jobs {
        report::Jobs {
            submitted: self.submitted.len(),
            finalized: self.finalized.len(),
            refunded: self.refunded.len(),
            reassigned: self.assigned.values().filter(|attempt| **attempt > 1).count(),
        }
    }

    /// The disputes of the report, in no particular order of time.
    pub(crate) fn into_disputes(self) -> Vec<report::Dispute> {
        self.disputes.into_values().collect()
    }
}

/// The name of a verdict in the report and the timeline.
pub(crate) fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::ChallengerWins => "challenger_wins",
        Verdict::WorkerWins => "worker_wins",
        Verdict::Moot => "moot",
    }
}
