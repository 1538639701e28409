//! What a worker has done.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::watch;

/// What a worker has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Leases taken.
    pub leases: u64,
    /// Claims that the coordinator accepted.
    pub claims: u64,
    /// Claims among them that it knew to be false.
    pub lies: u64,
    /// Leases that were lost, or whose claim was refused.
    pub lost: u64,
    /// Leases that were handed back, since their jobs could not be run here.
    pub returned: u64,
    /// Claims seen finalized.
    pub finalized: u64,
    /// Claims seen rejected.
    pub rejected: u64,
    /// Moves made in disputes.
    pub moves: u64,
    /// Whether it was suspended.
    pub suspended: bool,
}

impl Summary {
    /// Names and values for a status file.
    pub(crate) fn counters(self) -> Vec<(&'static str, u64)> {
        vec![
            ("gainsay_worker_leases_total", self.leases),
            ("gainsay_worker_claims_total", self.claims),
            ("gainsay_worker_lost_total", self.lost),
            ("gainsay_worker_returned_total", self.returned),
            ("gainsay_worker_finalized_total", self.finalized),
            ("gainsay_worker_rejected_total", self.rejected),
            ("gainsay_worker_moves_total", self.moves),
            ("gainsay_worker_suspended_total", self.suspended.into()),
        ]
    }
}

/// The counters behind a [`Summary`].
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) leases: Counter,
    pub(crate) claims: Counter,
    pub(crate) lies: Counter,
    pub(crate) lost: Counter,
    pub(crate) returned: Counter,
    pub(crate) finalized: Counter,
    pub(crate) rejected: Counter,
    pub(crate) moves: Counter,
    pub(crate) suspended: AtomicBool,
    progress: Option<watch::Sender<Summary>>,
}

impl Tally {
    /// Counters that start at zero, and whom to tell when they have moved.
    pub(crate) fn new(progress: Option<watch::Sender<Summary>>) -> Self {
        Self { progress, ..Self::default() }
    }

    /// Tells whoever follows.
    pub(crate) fn tell(&self) {
        if let Some(progress) = &self.progress {
            progress.send_replace(self.summary());
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary {
            leases: self.leases.get(),
            claims: self.claims.get(),
            lies: self.lies.get(),
            lost: self.lost.get(),
            returned: self.returned.get(),
            finalized: self.finalized.get(),
            rejected: self.rejected.get(),
            moves: self.moves.get(),
            suspended: self.suspended.load(Ordering::Relaxed),
        }
    }
}

#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Counts `more`; answers the count before.
    pub(crate) fn add(&self, more: u64) -> u64 {
        self.0.fetch_add(more, Ordering::Relaxed)
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
