//! What a challenger has done.

use gainsay_api::disputes::Verdict;
use gainsay_commitment::DisputeId;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// What a challenger has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Claims run again.
    pub checked: u64,
    /// Claims among them that are right.
    pub agreed: u64,
    /// Claims among them that differ in some layer.
    pub differed: u64,
    /// Claims that could not be checked: unreadable, or their window closed first.
    pub unchecked: u64,
    /// Disputes opened.
    pub opened: u64,
    /// Claims that differ and were not disputed, since the referee did not confirm the own run, money was missing, or
    /// the window had closed.
    pub passed_over: u64,
    /// Moves made.
    pub moves: u64,
    /// Disputes won.
    pub won: u64,
    /// Disputes lost.
    pub lost: u64,
    /// Disputes that another decided first.
    pub moot: u64,
}

impl Summary {
    /// Names and values for a status file.
    pub(crate) fn counters(self) -> Vec<(&'static str, u64)> {
        vec![
            ("gainsay_challenger_checked_total", self.checked),
            ("gainsay_challenger_agreed_total", self.agreed),
            ("gainsay_challenger_differed_total", self.differed),
            ("gainsay_challenger_unchecked_total", self.unchecked),
            ("gainsay_challenger_opened_total", self.opened),
            ("gainsay_challenger_passed_over_total", self.passed_over),
            ("gainsay_challenger_moves_total", self.moves),
            ("gainsay_challenger_won_total", self.won),
            ("gainsay_challenger_lost_total", self.lost),
        ]
    }
}

/// The counters behind a [`Summary`].
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) agreed: Counter,
    pub(crate) differed: Counter,
    pub(crate) unchecked: Counter,
    pub(crate) opened: Counter,
    pub(crate) passed_over: Counter,
    pub(crate) moves: Counter,
    /// A verdict may be seen twice: in the answer to a move, and as an event.
    verdicts: Mutex<HashMap<DisputeId, Verdict>>,
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

    pub(crate) fn decided(&self, dispute: DisputeId, verdict: Verdict) {
        let mut verdicts = self.verdicts.lock().expect("counting does not panic");
        if verdicts.insert(dispute, verdict).is_none() {
            tracing::info!(%dispute, ?verdict, "decided");
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        let verdicts = self.verdicts.lock().expect("counting does not panic");
        let count = |verdict: Verdict| verdicts.values().filter(|found| **found == verdict).count() as u64;
        let (agreed, differed) = (self.agreed.get(), self.differed.get());
        Summary {
            checked: agreed + differed,
            agreed,
            differed,
            unchecked: self.unchecked.get(),
            opened: self.opened.get(),
            passed_over: self.passed_over.get(),
            moves: self.moves.get(),
            won: count(Verdict::ChallengerWins),
            lost: count(Verdict::WorkerWins),
            moot: count(Verdict::Moot),
        }
    }
}

#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
