//! What is under way, in the order in which it arrives.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use gainsay_commitment::{ClaimId, DisputeId, Signed};
use gainsay_protocol::{Amount, Authentic, Claim, Dispute, JobId, LeaseId, Open, ServiceTime};

/// What parties ask of the coordinator.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Submit {
        job: JobId,
        puzzle: usize,
        price: Amount,
    },
    Lease {
        held: Vec<LeaseId>,
    },
    Heartbeat {
        lease: LeaseId,
    },
    Claim(Arc<Signed<Claim>>),
    /// What is there for me?
    Look,
    Open(Open),
    Move(DisputeId, Arc<Authentic>),
}

/// What the coordinator answers.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Leased(Grant),
    NoStake,
    /// The claim is on record, or never will be.
    Settled(LeaseId),
    Submitted(JobId),
    View(View),
}

/// A lease as its worker learns of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grant {
    pub(super) lease: LeaseId,
    pub(super) job: JobId,
    pub(super) puzzle: usize,
}

/// What a party that looks is shown.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// Claims that can be disputed, for challengers.
    pub(super) claims: Vec<OpenClaim>,
    /// The party's disputes in which it has to move, with the claims that they are about.
    pub(super) disputes: Vec<(usize, Dispute)>,
    pub(super) now: ServiceTime,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct OpenClaim {
    pub(super) claim: usize,
    pub(super) id: ClaimId,
    pub(super) closes: ServiceTime,
    /// The asker has a dispute on it that is not decided.
    pub(super) mine: bool,
    /// Somebody has one.
    pub(super) disputed: bool,
}

/// Something that will happen.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// A request reaches the coordinator.
    Arrive {
        from: usize,
        sent: ServiceTime,
        request: Request,
        answered: bool,
    },
    /// An answer reaches a party, if it still lives the life in which it asked.
    Answer {
        to: usize,
        life: u32,
        reply: Reply,
    },
    /// A party may look around.
    Wake {
        party: usize,
        life: u32,
    },
    /// A party has done what took it time.
    Done {
        party: usize,
        life: u32,
        lease: LeaseId,
    },
    Crash {
        party: usize,
        for_ms: u64,
    },
    Restart {
        party: usize,
    },
    Outage {
        for_ms: u64,
    },
    Back,
}

/// Events by time; those of one moment in the order in which they were caused.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    at: u64,
    number: u64,
    event: Event,
}

impl Queue {
    pub(super) fn push(&mut self, at: u64, event: Event) {
        self.next += 1;
        self.heap.push(Reverse(Entry { at, number: self.next, event }));
    }

    /// When the next event happens.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    pub(super) fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
