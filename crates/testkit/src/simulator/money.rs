//! What the coordinator posts, and what follows from the end of a dispute.

use gainsay_commitment::PartyId;
use gainsay_protocol::ledger::{
    self, ConvictionPayout, Forfeit, Grounds, LedgerError, Opening, Refund, Settlement, Transaction,
};
use gainsay_protocol::lifecycle::{
    ClaimState, JobEvent, JobState, fruitless_lease, lost_lease_fee, rejection, window_closes,
};
use gainsay_protocol::{Amount, Cause, Closing, Dispute, Effect, OwnerId, Verdict};

use super::broken::Broken;
use super::service::{HoldCause, HoldRecord, LeaseState, Refused, Rejection, Service};

impl Service<'_> {
    /// Posts what a party may be too poor for.
    pub(super) fn try_post(&mut self, made: Result<Transaction, LedgerError>) -> Result<(), Refused> {
        let made = made.map_err(|_| Refused::Money)?;
        self.book.post(&made).map_err(|_| Refused::Money)
    }

    /// Posts what must always be possible.
    pub(super) fn must_post(&mut self, made: Result<Transaction, LedgerError>) {
        let posted = made.map_err(|error| error.to_string());
        let posted = posted.and_then(|made| self.book.post(&made).map_err(|error| error.to_string()));
        if let Err(error) = posted {
            self.violate(|| format!("what was set aside does not cover what it was set aside for: {error}"));
        }
    }

    pub(super) fn lose_lease(&mut self, index: usize) {
        let lease = &mut self.leases[index];
        if lease.state != LeaseState::Held || self.now < lease.expires {
            return;
        }
        (lease.state, lease.ended) = (LeaseState::Lost, Some(self.now));
        let (job, owner, stake) = (lease.job, lease.owner, lease.stake);
        let lease = &self.leases[index];
        let (held, longest) = (lease.expires.since(lease.since), lease.deadline.since(lease.since));
        let fee = lost_lease_fee(self.jobs[job].price, held, longest, &self.parameters).min(stake);
        self.must_post(ledger::lose_lease(owner, stake, fee));
        let before = self.leases.iter().filter(|lease| lease.job == job && lease.state == LeaseState::Lost);
        let before = before.count() as u32 - 1;
        let event = fruitless_lease(before, &self.parameters);
        self.step_job(job, event);
        if event == JobEvent::LeaseLostFinally {
            self.refund(job);
        }
    }

    /// Does what follows from the end of a dispute, once.
    pub(super) fn settle(&mut self, index: usize) {
        let record = &mut self.disputes[index];
        if record.settled || record.dispute.outcome().is_none() {
            return;
        }
        record.settled = true;
        record.turn = None;
        let claim = record.claim;
        for effect in record.dispute.effects() {
            match effect {
                Effect::RejectClaim { .. } => self.reject(claim, Rejection::Dispute(index)),
                Effect::CloseOthersOnClaim { closing, .. } => {
                    self.close_where(closing, |other, on| *on == claim && other.outcome().is_none());
                }
                Effect::SuspendWorker { worker } => self.suspend(worker),
                Effect::ForfeitBond { challenger, worker } => self.forfeit(index, challenger, worker),
                Effect::CloseOthersOfPair { challenger, worker, closing } => {
                    let shields = self.is_broken(Broken::LossShields);
                    self.close_where(closing, |other, on| {
                        (other.challenger(), other.worker()) == (challenger, worker)
                            || (shields && *on == claim)
                    });
                }
                Effect::ReturnBondIfIdle { challenger, worker } => {
                    let moot =
                        self.disputes[index].dispute.outcome().map(|o| o.verdict) == Some(Verdict::Moot);
                    if moot && self.is_broken(Broken::MootForfeits) {
                        self.forfeit(index, challenger, worker);
                    } else if !self.is_broken(Broken::KeepsBonds) {
                        self.return_bond_if_idle(challenger, worker);
                    }
                }
            }
        }
    }

    fn close_where(&mut self, closing: Closing, applies: impl Fn(&Dispute, &usize) -> bool) {
        for index in 0..self.disputes.len() {
            let record = &mut self.disputes[index];
            if applies(&record.dispute, &record.claim) && record.dispute.close(closing, self.now).is_some() {
                self.settle(index);
            }
        }
    }

    pub(super) fn reject(&mut self, claim: usize, why: Rejection) {
        let record = &mut self.claims[claim];
        if record.state != ClaimState::Pending {
            let state = record.state;
            self.violate(|| format!("claim {claim} is {state:?} and rejected"));
            return;
        }
        (record.state, record.decided) = (ClaimState::Rejected, Some(self.now));
        record.rejection = Some(why);
        let (job, owner, stake, id) = (record.job, record.owner, record.stake, record.id);
        let by = match why {
            Rejection::Dispute(index) => Some(self.disputes[index].dispute.id()),
            Rejection::Equivocation => None,
        };
        self.close_where(Closing::ClaimRejected { by }, |_, on| *on == claim);
        self.must_post(ledger::convict(id, owner, stake));
        let due = self.now.plus(self.parameters.hold_ms);
        self.holds.push(HoldRecord { cause: HoldCause::Stake { claim }, amount: stake, due, paid: false });
        if self.is_broken(Broken::PaysTheRejected) {
            self.pay(claim);
        }
        let event = rejection(self.jobs[job].rejected, &self.parameters);
        if !self.is_broken(Broken::SameOwnerAgain) {
            self.jobs[job].excluded.push(owner);
        }
        if !self.is_broken(Broken::AttemptsNeverEnd) {
            self.jobs[job].rejected += 1;
        }
        self.step_job(job, event);
        if event == JobEvent::RejectedFinally {
            self.refund(job);
        }
    }

    pub(super) fn refund(&mut self, job: usize) {
        let record = &self.jobs[job];
        let refund =
            Refund { job: record.id, submitter: record.submitter, escrowed: record.price, delivered: None };
        self.must_post(ledger::refund(&refund, &self.parameters));
    }

    pub(super) fn suspend(&mut self, worker: PartyId) {
        if self.suspended.contains_key(&worker) {
            return;
        }
        self.suspended.insert(worker, self.now);
        let closes = window_closes(self.now, &self.parameters);
        for claim in &mut self.claims {
            if claim.state == ClaimState::Pending && claim.signed.body.worker == worker {
                claim.closes = closes;
            }
        }
    }

    fn forfeit(&mut self, dispute: usize, challenger: PartyId, worker: PartyId) {
        let Some(bond) = self.bonds.remove(&(challenger, worker)) else {
            self.violate(|| format!("dispute {dispute} was open without a bond"));
            return;
        };
        let id = self.disputes[dispute].dispute.id();
        self.must_post(ledger::forfeit_bond(id, bond.owner, bond.amount));
        let due = self.now.plus(self.parameters.hold_ms);
        let cause = HoldCause::Bond { dispute };
        self.holds.push(HoldRecord { cause, amount: bond.amount, due, paid: false });
    }

    fn return_bond_if_idle(&mut self, challenger: PartyId, worker: PartyId) {
        let pair = (challenger, worker);
        let busy = self.disputes.iter().any(|record| {
            (record.dispute.challenger(), record.dispute.worker()) == pair
                && record.dispute.outcome().is_none()
        });
        if busy {
            return;
        }
        if let Some(bond) = self.bonds.remove(&pair) {
            self.must_post(ledger::return_bond(bond.owner, bond.amount));
        }
    }

    pub(super) fn finalize(&mut self, claim: usize) {
        if self.claims[claim].state != ClaimState::Pending || !self.is_mature(claim) {
            return;
        }
        let record = &mut self.claims[claim];
        (record.state, record.decided) = (ClaimState::Finalized, Some(self.now));
        let job = record.job;
        self.pay(claim);
        self.step_job(job, JobEvent::WindowPassed);
    }

    fn pay(&mut self, claim: usize) {
        self.claims[claim].payments += 1;
        let (record, job) = (&self.claims[claim], &self.jobs[self.claims[claim].job]);
        let unlocked_before = self.is_broken(Broken::StakeLeavesWithTheClaim);
        let settlement = Settlement {
            job: job.id,
            submitter: job.submitter,
            worker: record.owner,
            escrowed: job.price,
            price: job.price,
            stake: if unlocked_before { Amount::ZERO } else { record.stake },
        };
        self.must_post(ledger::finalize(&settlement, &self.parameters));
    }

    /// Whether a hold is paid once its time is over.
    pub(super) fn is_payable(&self, hold: &HoldRecord) -> bool {
        match hold.cause {
            HoldCause::Bond { .. } => true,
            HoldCause::Stake { claim } => matches!(
                self.jobs[self.claims[claim].job].state,
                JobState::Finalized | JobState::Refunded | JobState::Cancelled | JobState::Voided
            ),
        }
    }

    pub(super) fn pay_holds(&mut self) {
        for index in 0..self.holds.len() {
            let hold = &self.holds[index];
            if hold.paid || self.now < hold.due || !self.is_payable(hold) {
                continue;
            }
            let made = match hold.cause {
                HoldCause::Stake { claim } => self.conviction(claim, hold.amount),
                HoldCause::Bond { dispute } => {
                    let record = &self.disputes[dispute];
                    let worker = self.claims[record.claim].owner;
                    let forfeit = Forfeit { dispute: record.dispute.id(), bond: hold.amount, worker };
                    ledger::pay_forfeit(&forfeit, &self.parameters)
                }
            };
            self.must_post(made);
            self.holds[index].paid = true;
        }
    }

    fn conviction(&self, claim: usize, stake: Amount) -> Result<Transaction, LedgerError> {
        let record = &self.claims[claim];
        let job = &self.jobs[record.job];
        let grounds = self.grounds(record.rejection.expect("a held stake was convicted"));
        let forgets = self.is_broken(Broken::ForgetsRefunds);
        let openers = if forgets { Vec::new() } else { self.confirmed(claim, grounds) };
        let payout = ConvictionPayout {
            claim: record.id,
            stake,
            submitter: job.submitter,
            grounds,
            confirmed_openers: &openers,
        };
        let mut parameters = self.parameters.clone();
        if self.is_broken(Broken::ProverTakesAll) {
            (parameters.slash_to_treasury_ppm, parameters.slash_to_submitter_ppm) = (0, 0);
        }
        ledger::pay_conviction(&payout, &parameters)
    }

    fn grounds(&self, why: Rejection) -> Grounds {
        let Rejection::Dispute(index) = why else { return Grounds::Equivocation { reporter: None } };
        let record = &self.disputes[index];
        let is_proof = record.dispute.outcome().is_some_and(|won| matches!(won.cause, Cause::Proof { .. }));
        if is_proof || self.is_broken(Broken::SilencePays) {
            Grounds::Proof { prover: record.challenger }
        } else {
            Grounds::Silence
        }
    }

    fn confirmed(&self, claim: usize, grounds: Grounds) -> Vec<OwnerId> {
        let job = &self.jobs[self.claims[claim].job];
        let accepted = job.claim.filter(|_| job.state == JobState::Finalized);
        let on_claim = self.disputes.iter().filter(|record| record.claim == claim);
        let openings: Vec<_> = on_claim
            .map(|record| Opening {
                open: *record.dispute.opening(),
                owner: record.challenger,
                is_lost: record.dispute.outcome().is_some_and(|end| end.verdict == Verdict::WorkerWins),
            })
            .collect();
        let accepted = accepted.map(|accepted| &self.claims[accepted].signed.body);
        ledger::confirmed_openers(&openings, accepted, grounds)
    }
}
