//! The coordinator without a database: what each request does, in one step that happens whole or not at all.

use std::collections::BTreeMap;

use gainsay_commitment::{ClaimId, DisputeId, PartyId, Signed};
use gainsay_protocol::ledger::{self, Book};
use gainsay_protocol::lifecycle::{
    ClaimState, JobEvent, JobState, job_transition, may_finalize, window_closes,
};
use gainsay_protocol::{
    Amount, Authentic, Case, Claim, Dispute, DisputeTerms, Entry, Equivocation, EquivocationFault, JobId,
    LeaseId, LeaseTerms, Open, OwnerId, Parameters, Refusal, Reveals, Role, ServiceTime, SignedMove,
};

use super::broken::Broken;
use super::network::Grant;
use super::pool::Pool;

/// Who the coordinator is.
pub(super) const COORDINATOR: PartyId = PartyId::from_bytes([0xc0; 32]);

pub(super) struct JobRecord {
    pub(super) id: JobId,
    pub(super) submitter: OwnerId,
    pub(super) puzzle: usize,
    pub(super) price: Amount,
    pub(super) state: JobState,
    pub(super) rejected: u32,
    pub(super) excluded: Vec<OwnerId>,
    pub(super) claim: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseState {
    Held,
    Claimed(usize),
    Lost,
}

pub(super) struct LeaseRecord {
    pub(super) id: LeaseId,
    pub(super) job: usize,
    pub(super) worker: PartyId,
    pub(super) owner: OwnerId,
    pub(super) stake: Amount,
    pub(super) since: ServiceTime,
    pub(super) expires: ServiceTime,
    pub(super) deadline: ServiceTime,
    pub(super) state: LeaseState,
    pub(super) ended: Option<ServiceTime>,
}

pub(super) struct ClaimRecord {
    pub(super) id: ClaimId,
    pub(super) job: usize,
    pub(super) puzzle: usize,
    pub(super) owner: OwnerId,
    pub(super) stake: Amount,
    pub(super) signed: Signed<Claim>,
    pub(super) state: ClaimState,
    pub(super) posted: ServiceTime,
    pub(super) closes: ServiceTime,
    pub(super) reveals: Reveals,
    /// Times that it was paid.
    pub(super) payments: u32,
    /// Why it was rejected, if it was.
    pub(super) rejection: Option<Rejection>,
    pub(super) equivocated: bool,
    pub(super) decided: Option<ServiceTime>,
}

/// What a rejection rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejection {
    /// A dispute that its challenger won.
    Dispute(usize),
    /// A second claim for the same lease, which the worker sent itself.
    Equivocation,
}

pub(super) struct DisputeRecord {
    pub(super) dispute: Dispute,
    pub(super) claim: usize,
    pub(super) challenger: OwnerId,
    pub(super) opened: ServiceTime,
    /// A second pair of clocks, kept by the simulator.
    pub(super) turn: Option<Role>,
    pub(super) since: ServiceTime,
    pub(super) used: [u64; 2],
    pub(super) settled: bool,
}

pub(super) struct BondRecord {
    pub(super) owner: OwnerId,
    pub(super) amount: Amount,
}

pub(super) enum HoldCause {
    Stake { claim: usize },
    Bond { dispute: usize },
}

pub(super) struct HoldRecord {
    pub(super) cause: HoldCause,
    pub(super) amount: Amount,
    pub(super) due: ServiceTime,
    pub(super) paid: bool,
}

/// Why nothing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Unknown,
    Over,
    Money,
    Equivocation,
    Malformed,
    Move(Refusal),
}

pub(super) struct Service<'a> {
    pub(super) pool: &'a Pool,
    pub(super) parameters: Parameters,
    pub(super) broken: Option<Broken>,
    pub(super) now: ServiceTime,
    pub(super) book: Book,
    pub(super) owners: BTreeMap<PartyId, OwnerId>,
    pub(super) jobs: Vec<JobRecord>,
    pub(super) leases: Vec<LeaseRecord>,
    pub(super) claims: Vec<ClaimRecord>,
    pub(super) disputes: Vec<DisputeRecord>,
    pub(super) bonds: BTreeMap<(PartyId, PartyId), BondRecord>,
    pub(super) holds: Vec<HoldRecord>,
    /// Suspended workers, with the time since when.
    pub(super) suspended: BTreeMap<PartyId, ServiceTime>,
    /// The first thing that must never happen and did.
    pub(super) violation: Option<String>,
}

impl<'a> Service<'a> {
    pub(super) fn new(pool: &'a Pool, parameters: Parameters, broken: Option<Broken>) -> Self {
        Self {
            pool,
            parameters,
            broken,
            now: ServiceTime(0),
            book: Book::new(),
            owners: BTreeMap::new(),
            jobs: Vec::new(),
            leases: Vec::new(),
            claims: Vec::new(),
            disputes: Vec::new(),
            bonds: BTreeMap::new(),
            holds: Vec::new(),
            suspended: BTreeMap::new(),
            violation: None,
        }
    }

    pub(super) fn is_broken(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    pub(super) fn violate(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    pub(super) fn fund(&mut self, owner: OwnerId, amount: Amount) {
        self.must_post(ledger::deposit(owner, amount));
    }

    /// The same job again is the same job.
    pub(super) fn submit(
        &mut self,
        id: JobId,
        submitter: OwnerId,
        puzzle: usize,
        price: Amount,
    ) -> Result<(), Refused> {
        if self.jobs.iter().any(|job| job.id == id) {
            return Ok(());
        }
        self.try_post(ledger::submit(id, submitter, price))?;
        self.jobs.push(JobRecord {
            id,
            submitter,
            puzzle,
            price,
            state: JobState::Submitted,
            rejected: 0,
            excluded: Vec::new(),
            claim: None,
        });
        Ok(())
    }

    /// Withdraws a job that nobody has.
    pub(super) fn cancel(&mut self, job: usize) {
        self.step_job(job, JobEvent::Cancelled);
        self.refund(job);
    }

    /// The oldest job in the queue that this worker may have.
    pub(super) fn next_job(&self, worker: PartyId) -> Option<usize> {
        let owner = self.owners.get(&worker)?;
        if self.suspended.contains_key(&worker) {
            return None;
        }
        self.jobs.iter().position(|job| job.state == JobState::Submitted && !job.excluded.contains(owner))
    }

    /// A lease that the worker does not know of is given again; else it gets the next job.
    pub(super) fn lease(&mut self, worker: PartyId, held: &[LeaseId]) -> Result<Grant, Refused> {
        let unknown = self.leases.iter().find(|lease| {
            lease.worker == worker && lease.state == LeaseState::Held && !held.contains(&lease.id)
        });
        if let Some(lease) = unknown {
            let job = &self.jobs[lease.job];
            return Ok(Grant { lease: lease.id, job: job.id, puzzle: job.puzzle });
        }
        let job = self.next_job(worker).ok_or(Refused::Unknown)?;
        let owner = self.owners[&worker];
        let stake = self.parameters.stake(self.jobs[job].price);
        self.try_post(ledger::lock_stake(owner, stake))?;
        self.step_job(job, JobEvent::Leased);
        let deadline = self.now.plus(self.parameters.lease_ms);
        let mut id = LeaseId([0x1e; 16]);
        id.0[..8].copy_from_slice(&(self.leases.len() as u64).to_le_bytes());
        self.leases.push(LeaseRecord {
            id,
            job,
            worker,
            owner,
            stake,
            since: self.now,
            expires: self.now.plus(self.parameters.heartbeat_ms).min(deadline),
            deadline,
            state: LeaseState::Held,
            ended: None,
        });
        Ok(Grant { lease: id, job: self.jobs[job].id, puzzle: self.jobs[job].puzzle })
    }

    pub(super) fn heartbeat(&mut self, worker: PartyId, id: LeaseId) -> Result<(), Refused> {
        let (now, kept) = (self.now, self.parameters.heartbeat_ms);
        let lease = self.leases.iter_mut().find(|lease| lease.id == id && lease.worker == worker);
        let lease = lease.ok_or(Refused::Unknown)?;
        if lease.state != LeaseState::Held || now >= lease.expires {
            return Err(Refused::Over);
        }
        lease.expires = now.plus(kept).min(lease.deadline);
        Ok(())
    }

    pub(super) fn post_claim(&mut self, signed: &Signed<Claim>) -> Result<(), Refused> {
        let body = &signed.body;
        let found = |lease: &LeaseRecord| lease.id == body.lease && lease.worker == body.worker;
        let index = self.leases.iter().position(found).ok_or(Refused::Unknown)?;
        let (job, state) = (self.leases[index].job, self.leases[index].state);
        if self.jobs[job].id != body.job {
            return Err(Refused::Unknown);
        }
        match state {
            LeaseState::Lost => Err(Refused::Over),
            LeaseState::Held => self.accept(index, signed),
            LeaseState::Claimed(claim) => self.receive_again(claim, signed),
        }
    }

    fn accept(&mut self, index: usize, signed: &Signed<Claim>) -> Result<(), Refused> {
        let lease = &self.leases[index];
        if self.now >= lease.expires && !self.is_broken(Broken::AcceptsClaimAfterExpiry) {
            return Err(Refused::Over);
        }
        let job = &self.jobs[lease.job];
        let puzzle = self.pool.puzzle(job.puzzle);
        let terms =
            LeaseTerms { coordinator: COORDINATOR, job: job.id, lease: lease.id, worker: lease.worker };
        signed.body.check(puzzle.model(), puzzle.job(), &terms).map_err(|_| Refused::Malformed)?;
        let closes = window_closes(self.now, &self.parameters);
        let record = ClaimRecord {
            id: signed.body.id(),
            job: lease.job,
            puzzle: job.puzzle,
            owner: lease.owner,
            stake: lease.stake,
            signed: signed.clone(),
            state: ClaimState::Pending,
            posted: self.now,
            closes,
            reveals: Reveals::new(),
            payments: 0,
            rejection: None,
            equivocated: false,
            decided: None,
        };
        let (job, owner, stake, claim) = (lease.job, lease.owner, lease.stake, self.claims.len());
        self.claims.push(record);
        let lease = &mut self.leases[index];
        (lease.state, lease.ended) = (LeaseState::Claimed(claim), Some(self.now));
        self.step_job(job, JobEvent::Claimed);
        self.jobs[job].claim = Some(claim);
        if self.is_broken(Broken::StakeLeavesWithTheClaim) {
            self.must_post(ledger::unlock_stake(owner, stake));
        }
        Ok(())
    }

    fn receive_again(&mut self, claim: usize, signed: &Signed<Claim>) -> Result<(), Refused> {
        let record = &self.claims[claim];
        let again = record.id == signed.body.id();
        if again && !self.is_broken(Broken::ResentIsEquivocation) {
            return Ok(());
        }
        let pair = Equivocation::new(record.signed.clone(), signed.clone());
        // Nothing is signed in here; everything that comes before the signatures is checked.
        let convicts = matches!(pair.check(), Ok(_) | Err(EquivocationFault::Signature(_)));
        if !convicts && !again {
            return Err(Refused::Malformed);
        }
        if !record.equivocated {
            self.claims[claim].equivocated = true;
            if self.claims[claim].state == ClaimState::Pending {
                self.reject(claim, Rejection::Equivocation);
            }
            self.suspend(signed.body.worker);
        }
        Err(Refused::Equivocation)
    }

    pub(super) fn open(&mut self, opening: &Authentic, open: &Open) -> Result<(), Refused> {
        let challenger = *self.owners.get(&open.challenger).ok_or(Refused::Unknown)?;
        let claim = self.claims.iter().position(|claim| claim.id == open.claim).ok_or(Refused::Unknown)?;
        if self.disputes.iter().any(|record| record.dispute.id() == open.id()) {
            return Ok(());
        }
        let record = &self.claims[claim];
        let late = self.is_broken(Broken::OpensAfterTheWindow);
        if record.state != ClaimState::Pending || (self.now >= record.closes && !late) {
            return Err(Refused::Over);
        }
        let on_claim = || self.disputes.iter().filter(|record| record.claim == claim);
        let mut undecided = on_claim().filter(|record| record.dispute.outcome().is_none());
        if undecided.any(|record| record.dispute.challenger() == open.challenger) {
            return Err(Refused::Over);
        }
        if self.is_broken(Broken::CapsDisputes) && on_claim().next().is_some() {
            return Err(Refused::Over);
        }
        let window_closes = if late { record.closes.plus(self.parameters.window_ms) } else { record.closes };
        let terms = DisputeTerms {
            window_closes,
            worker_allowance_ms: self.parameters.worker_allowance_ms,
            challenger_allowance_ms: self.parameters.challenger_allowance_ms,
        };
        let mut reveals = record.reveals.clone();
        let opened = Dispute::open(&self.case(claim), &mut reveals, opening, terms, self.now);
        let (dispute, _) = opened.map_err(Refused::Move)?;
        let pair = (dispute.challenger(), dispute.worker());
        if !self.bonds.contains_key(&pair) {
            let amount = self.parameters.bond;
            self.try_post(ledger::lock_bond(challenger, amount))?;
            self.bonds.insert(pair, BondRecord { owner: challenger, amount });
        }
        self.claims[claim].reveals = reveals;
        let turn = dispute.turn();
        let (opened, since) = (self.now, self.now);
        self.disputes.push(DisputeRecord {
            dispute,
            claim,
            challenger,
            opened,
            turn,
            since,
            used: [0, 0],
            settled: false,
        });
        Ok(())
    }

    /// `sent` is when the mover says that it moved, which counts for nothing.
    pub(super) fn post_move(
        &mut self,
        id: DisputeId,
        made: &Authentic,
        sent: ServiceTime,
    ) -> Result<Vec<Entry>, Refused> {
        let index = self.disputes.iter().position(|record| record.dispute.id() == id);
        let index = index.ok_or(Refused::Unknown)?;
        let now = if self.is_broken(Broken::BelievesTheSendersClock) {
            sent.max(self.disputes[index].since)
        } else if self.is_broken(Broken::AcceptsMoveAfterDeadline) {
            let deadline = self.disputes[index].dispute.deadline();
            deadline.map_or(self.now, |deadline| self.now.min(ServiceTime(deadline.0 - 1)))
        } else {
            self.now
        };
        let claim = self.disputes[index].claim;
        let puzzle = self.pool.puzzle(self.claims[claim].puzzle);
        let ClaimRecord { signed, reveals, .. } = &mut self.claims[claim];
        let case = Case::new(puzzle.model(), puzzle.job(), &signed.body).expect("it fits its job");
        let entries = self.disputes[index].dispute.apply(&case, reveals, made, now).map_err(Refused::Move)?;
        self.charge(index);
        if matches!(made.signed(), SignedMove::Reveal(_)) {
            let ClaimRecord { signed, reveals, .. } = &self.claims[claim];
            let case = Case::new(puzzle.model(), puzzle.job(), &signed.body).expect("it fits its job");
            let mut advanced = Vec::new();
            for (other, record) in self.disputes.iter_mut().enumerate() {
                if other != index
                    && record.claim == claim
                    && !record.dispute.advance(&case, reveals, self.now).is_empty()
                {
                    advanced.push(other);
                }
            }
            advanced.into_iter().for_each(|other| self.charge(other));
        }
        self.settle(index);
        Ok(entries)
    }

    /// Charges the simulator's own clocks for a turn that was accepted.
    fn charge(&mut self, index: usize) {
        let (now, parameters) = (self.now, &self.parameters);
        let allowances = [parameters.worker_allowance_ms, parameters.challenger_allowance_ms];
        let record = &mut self.disputes[index];
        let Some(role) = record.turn else { return };
        let side = usize::from(role == Role::Challenger);
        record.used[side] += now.since(record.since);
        let (used, allowance) = (record.used[side], allowances[side]);
        (record.turn, record.since) = (record.dispute.turn(), now);
        if used >= allowance {
            self.violate(|| format!("dispute {index}: a move counted after {used} of {allowance} ms"));
        }
    }

    /// Does what is due.
    pub(super) fn reconcile(&mut self) {
        for lease in 0..self.leases.len() {
            self.lose_lease(lease);
        }
        for index in 0..self.disputes.len() {
            if self.disputes[index].dispute.timeout(self.now).is_some() {
                self.check_timeout(index);
                self.settle(index);
            }
        }
        for claim in 0..self.claims.len() {
            self.finalize(claim);
        }
        self.pay_holds();
    }

    fn check_timeout(&mut self, index: usize) {
        let parameters = &self.parameters;
        let allowances = [parameters.worker_allowance_ms, parameters.challenger_allowance_ms];
        let record = &self.disputes[index];
        let side = usize::from(record.turn == Some(Role::Challenger));
        let used = record.used[side] + self.now.since(record.since);
        if used < allowances[side] {
            self.violate(|| format!("dispute {index}: timed out after {used} of {} ms", allowances[side]));
        }
    }

    /// When something is due next, if anything is.
    pub(super) fn due(&self) -> Option<ServiceTime> {
        let leases = self.leases.iter().filter(|lease| lease.state == LeaseState::Held);
        let disputes = self.disputes.iter().filter(|record| !record.settled);
        let claims = self.claims.iter().enumerate().filter(|(_, claim)| claim.state == ClaimState::Pending);
        let claims = claims.filter(|(index, _)| self.open_disputes(*index) == 0);
        let holds = self.holds.iter().filter(|hold| !hold.paid && self.is_payable(hold));
        let due = leases
            .map(|lease| lease.expires)
            .chain(disputes.filter_map(|record| record.dispute.deadline()))
            .chain(claims.map(|(_, claim)| self.matures(claim)))
            .chain(holds.map(|hold| hold.due));
        due.min()
    }

    pub(super) fn matures(&self, claim: &ClaimRecord) -> ServiceTime {
        if self.is_broken(Broken::PaysBeforeTheWindowEnds) {
            return claim.posted.plus(self.parameters.window_ms / 2);
        }
        claim.closes
    }

    pub(super) fn is_mature(&self, claim: usize) -> bool {
        let open = if self.is_broken(Broken::PaysUnderDispute) { 0 } else { self.open_disputes(claim) };
        may_finalize(self.matures(&self.claims[claim]), open, self.now)
    }

    pub(super) fn open_disputes(&self, claim: usize) -> u64 {
        let open = |record: &&DisputeRecord| record.claim == claim && record.dispute.outcome().is_none();
        self.disputes.iter().filter(open).count() as u64
    }

    /// Moves a job along its life; what the table does not hold must not happen.
    pub(super) fn step_job(&mut self, job: usize, event: JobEvent) {
        match job_transition(self.jobs[job].state, event) {
            Some(next) => self.jobs[job].state = next,
            None => {
                let state = self.jobs[job].state;
                self.violate(|| format!("job {job} cannot go on from {state:?} by {event:?}"));
            }
        }
    }
}
