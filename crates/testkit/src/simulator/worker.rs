//! Workers, honest and not. What they store survives them; what they are busy with does not.

use std::collections::BTreeSet;
use std::sync::Arc;

use gainsay_commitment::{PartyId, Signed};
use gainsay_protocol::toy::{
    Credentials, Fixture, HonestWorker, LyingRun, Play, Player, Random, TwistedWorker, WorkerTwist,
};
use gainsay_protocol::{Authentic, Claim, LeaseId};

use super::network::{Grant, Request, View};
use super::service::{COORDINATOR, Service};
use super::world::Out;

/// How a worker answers disputes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defence {
    Plain,
    Silent,
    /// Moves when its allowance is all but spent.
    LastSecond,
    /// Answers some challengers only.
    Selective,
    Twisted(WorkerTwist),
}

/// A worker's one divergence, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manners {
    /// How many of a hundred answers are wrong.
    pub(super) wrong: u64,
    /// Of a hundred ops in between, how many it lies about in disputes.
    pub(super) lying: u64,
    pub(super) defence: Defence,
    /// Sends two claims for one lease.
    pub(super) equivocates: bool,
    /// Takes work, says that it is at it, and never answers.
    pub(super) idles: bool,
    /// Passes its last claim off as the answer to the next job.
    pub(super) replays: bool,
}

impl Manners {
    pub(super) const HONEST: Self = Self {
        wrong: 0,
        lying: 0,
        defence: Defence::Plain,
        equivocates: false,
        idles: false,
        replays: false,
    };
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) manners: Manners,
    /// Jobs at a time.
    pub(super) capacity: usize,
    pub(super) run_ms: u64,
    /// Leases that it still takes.
    pub(super) leases_left: u32,
    /// On disk.
    records: Vec<Record>,
    /// In memory.
    running: BTreeSet<LeaseId>,
    broke: bool,
}

#[derive(Debug)]
struct Record {
    grant: Grant,
    claims: Vec<Arc<Signed<Claim>>>,
    /// The run behind the claim. Gone while it is being played from.
    run: Option<LyingRun>,
    settled: bool,
    asked: u32,
}

impl Worker {
    pub(super) fn new(manners: Manners, capacity: usize, run_ms: u64, leases: u32) -> Self {
        Self {
            manners,
            capacity,
            run_ms,
            leases_left: leases,
            records: Vec::new(),
            running: BTreeSet::new(),
            broke: false,
        }
    }

    pub(super) fn crash(&mut self) {
        self.running.clear();
    }

    pub(super) fn has_no_stake(&mut self) {
        self.broke = true;
    }

    pub(super) fn is_broke(&self) -> bool {
        self.broke
    }

    fn in_hand(&self) -> usize {
        self.records.iter().filter(|record| !record.settled).count()
    }

    fn takes_work(&self) -> bool {
        !self.broke && self.leases_left > 0 && self.in_hand() < self.capacity
    }

    /// Whether a look around would find anything to do.
    pub(super) fn wants(&self, me: PartyId, service: &Service<'_>) -> bool {
        let busy = self.records.iter().any(|record| !record.settled);
        let defends = self.manners.defence != Defence::Silent && service.is_on_turn(me);
        busy || defends || (self.takes_work() && service.next_job(me).is_some())
    }

    pub(super) fn wake(&mut self, me: PartyId, service: &Service<'_>) -> Vec<Out> {
        let mut out = Vec::new();
        for record in self.records.iter().filter(|record| !record.settled) {
            let lease = record.grant.lease;
            if !record.claims.is_empty() {
                out.extend(record.claims.iter().map(|claim| Out::Send(Request::Claim(Arc::clone(claim)))));
            } else if !self.manners.idles && self.running.insert(lease) {
                out.push(Out::Done(self.run_ms, lease));
            } else {
                out.push(Out::Send(Request::Heartbeat { lease }));
            }
        }
        if self.takes_work() && service.next_job(me).is_some() {
            let held = self.records.iter().map(|record| record.grant.lease).collect();
            out.push(Out::Send(Request::Lease { held }));
        }
        if service.is_on_turn(me) {
            out.push(Out::Send(Request::Look));
        }
        out
    }

    pub(super) fn leased(&mut self, grant: Grant) {
        if self.records.iter().any(|record| record.grant.lease == grant.lease) {
            return;
        }
        self.leases_left = self.leases_left.saturating_sub(1);
        let (claims, run) = (Vec::new(), None);
        self.records.push(Record { grant, claims, run, settled: false, asked: 0 });
    }

    pub(super) fn settled(&mut self, lease: LeaseId) {
        for record in self.records.iter_mut().filter(|record| record.grant.lease == lease) {
            record.settled = true;
        }
    }

    /// The run is over: the claim is signed, and stored before it is sent.
    pub(super) fn done(
        &mut self,
        me: PartyId,
        lease: LeaseId,
        service: &Service<'_>,
        random: &mut Random,
    ) -> Vec<Out> {
        let last = self.records.iter().rev().find_map(|record| record.claims.first().cloned());
        let Some(record) = self.records.iter_mut().find(|record| record.grant.lease == lease) else {
            return Vec::new();
        };
        if record.settled || !record.claims.is_empty() {
            return Vec::new();
        }
        let puzzle = service.pool.puzzle(record.grant.puzzle);
        let Manners { wrong, lying, equivocates, replays, .. } = self.manners;
        let fixture: Arc<Fixture>;
        let answer: &Fixture = if random.happens(wrong) {
            fixture = puzzle.wrong(random);
            &fixture
        } else {
            puzzle.right()
        };
        let claimed = match last.filter(|_| replays) {
            Some(last) => last.body.clone(),
            None => answer.claim().clone(),
        };
        record.claims.push(signed(me, &record.grant, claimed));
        if equivocates {
            let other = puzzle.wrong(random).claim().clone();
            record.claims.push(signed(me, &record.grant, other));
        }
        record.run = Some(LyingRun::new(answer.claimed().clone(), random.draw(), lying));
        record.claims.iter().map(|claim| Out::Send(Request::Claim(Arc::clone(claim)))).collect()
    }

    /// Moves in every dispute that waits for it.
    pub(super) fn defend(
        &mut self,
        me: PartyId,
        view: &View,
        service: &Service<'_>,
        random: &mut Random,
    ) -> Vec<Out> {
        let mut out = Vec::new();
        for (claim, dispute) in &view.disputes {
            let defence = self.manners.defence;
            let ignored = defence == Defence::Selective && dispute.challenger().as_bytes()[0] % 2 == 1;
            if defence == Defence::Silent || ignored {
                continue;
            }
            let mine = |record: &&mut Record| {
                record.claims.iter().any(|signed| signed.body.lease == service.lease_of(*claim))
            };
            let Some(record) = self.records.iter_mut().find(mine) else { continue };
            let Some(run) = record.run.take() else { continue };
            let mut honest = HonestWorker { credentials: Credentials::Name(me), trace: run };
            let case = service.case(*claim);
            let play = if let Defence::Twisted(twist) = defence {
                let mut twisted = TwistedWorker { honest, twist, asked: record.asked };
                let play = twisted.play(dispute, &case, random);
                (honest, record.asked) = (twisted.honest, twisted.asked);
                play
            } else {
                honest.play(dispute, &case, random)
            };
            record.run = Some(honest.trace);
            let Play::Move(made, delay) = play else { continue };
            let last = dispute.deadline().map_or(0, |deadline| deadline.since(view.now));
            let delay = match defence {
                Defence::LastSecond => last.saturating_sub(random.below(2_500)),
                _ => delay,
            };
            let made = Arc::new(Authentic::trusted(*made));
            out.push(Out::SendAfter(delay, Request::Move(dispute.id(), made)));
        }
        out
    }
}

/// What the worker says under this lease.
fn signed(me: PartyId, grant: &Grant, claim: Claim) -> Arc<Signed<Claim>> {
    let body = Claim { coordinator: COORDINATOR, job: grant.job, lease: grant.lease, worker: me, ..claim };
    Arc::new(Credentials::Name(me).sign(body))
}
