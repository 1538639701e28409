//! A coordinator in memory: many claims, disputes and balances at once, with every invariant checked on demand.
//!
//! It does what a real one does with the values that the rules return, in the same order, without a database. A job
//! has one attempt here: when its claim is rejected, the submitter is refunded and the honest run counts as the
//! accepted claim.

use std::{collections::BTreeMap, sync::Arc};

use gainsay_commitment::{Canonical, PartyId};

use super::fixture::Fixture;
use crate::{
    claim::Claim,
    dispute::{Cause, Closing, Dispute, DisputeTerms, Effect, Refusal, Verdict},
    ids::{JobId, OwnerId},
    ledger::{self, Account, Book, Grounds, Hold, Opening, Overdrawn, Transaction},
    lifecycle::{ClaimState, may_finalize, window_closes},
    money::Amount,
    moves::{Authentic, Open, SignedMove},
    parameters::Parameters,
    reveals::Reveals,
    time::ServiceTime,
};

/// A coordinator in memory.
#[derive(Debug, Clone)]
pub struct Court {
    parameters: Parameters,
    book: Book,
    now: ServiceTime,
    claims: Vec<Standing>,
    disputes: Vec<Dispute>,
    /// Which claim each dispute is about.
    subjects: Vec<usize>,
    bonds: BTreeMap<(PartyId, PartyId), Amount>,
    suspended: Vec<PartyId>,
    forfeits: Vec<(ledger::Forfeit, ServiceTime)>,
}

/// A claim and what has become of it.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The claim with its job and both runs.
    pub fixture: Arc<Fixture>,
    /// Its state.
    pub state: ClaimState,
    /// The first moment at which it can no longer be disputed.
    pub window_closes: ServiceTime,
    /// What was shown of it.
    pub reveals: Reveals,
    submitter: OwnerId,
    price: Amount,
    /// Set when it is rejected: the prover, when the stake is due, whether it was paid.
    conviction: Option<(PartyId, ServiceTime, bool)>,
}

/// What a party owns, wherever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// To spend.
    pub free: Amount,
    /// Behind leases and disputes.
    pub locked: Amount,
}

/// Why the court does not do what it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CourtError {
    /// The rules refuse the move.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is not enough money.
    #[error(transparent)]
    Overdrawn(#[from] Overdrawn),
    /// The claim is decided.
    #[error("the claim is decided")]
    Decided,
}

/// The owner of a party: here every party owns itself.
fn owner(party: PartyId) -> OwnerId {
    let mut id = [0; 16];
    id.copy_from_slice(&party.as_bytes()[..16]);
    OwnerId(id)
}

impl Court {
    /// An empty court.
    ///
    /// # Panics
    /// The parameters are not valid.
    #[must_use]
    pub fn new(parameters: Parameters) -> Self {
        parameters.validate().expect("the parameters are valid");
        Self {
            parameters,
            book: Book::new(),
            now: ServiceTime(0),
            claims: Vec::new(),
            disputes: Vec::new(),
            subjects: Vec::new(),
            bonds: BTreeMap::new(),
            suspended: Vec::new(),
            forfeits: Vec::new(),
        }
    }

    /// Gives a party money from outside.
    ///
    /// # Panics
    /// The amount is not a valid one.
    pub fn fund(&mut self, party: PartyId, amount: Amount) {
        self.post(ledger::deposit(owner(party), amount).expect("the deposit is valid"))
            .expect("the outside can always give");
    }

    /// What a party owns.
    #[must_use]
    pub fn balance(&self, party: PartyId) -> Balance {
        let owner = owner(party);
        Balance {
            free: self.book.balance(Account::Free(owner)),
            locked: self.book.balance(Account::Locked(owner)),
        }
    }

    /// The clock.
    #[must_use]
    pub fn now(&self) -> ServiceTime {
        self.now
    }

    /// All claims.
    #[must_use]
    pub fn claims(&self) -> &[Standing] {
        &self.claims
    }

    /// All disputes, open and ended.
    #[must_use]
    pub fn disputes(&self) -> &[Dispute] {
        &self.disputes
    }

    /// The claim that a dispute is about.
    #[must_use]
    pub fn subject(&self, dispute: usize) -> &Standing {
        &self.claims[self.subjects[dispute]]
    }

    /// All balances.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// A job is submitted, leased, and claimed at once.
    ///
    /// # Errors
    /// Submitter or worker lack the money.
    ///
    /// # Panics
    /// The fixture's claim does not pass the checks on receipt.
    pub fn claim(
        &mut self,
        submitter: PartyId,
        price: Amount,
        fixture: Arc<Fixture>,
    ) -> Result<usize, CourtError> {
        let claim = fixture.claim();
        claim
            .check(fixture.model().model(), fixture.job(), fixture.lease())
            .expect("a false claim is still well formed");
        let (job, worker, submitter) = (claim.job, claim.worker, owner(submitter));
        self.post(ledger::submit(job, submitter, price).expect("the price is valid"))?;
        let stake = self.parameters.stake_per_job;
        if let Err(error) = self.post(ledger::lock_stake(owner(worker), stake).expect("the stake is valid")) {
            self.refund(job, submitter, price);
            return Err(error.into());
        }
        let window_closes = window_closes(self.now, &self.parameters);
        self.claims.push(Standing {
            fixture,
            state: ClaimState::Pending,
            window_closes,
            reveals: Reveals::new(),
            submitter,
            price,
            conviction: None,
        });
        Ok(self.claims.len() - 1)
    }

    /// A challenger opens a dispute.
    ///
    /// # Errors
    /// The claim is decided, the opening is refused, or the bond is not there.
    pub fn open(&mut self, claim: usize, opening: &Authentic) -> Result<usize, CourtError> {
        let subject = &mut self.claims[claim];
        if subject.state != ClaimState::Pending {
            return Err(CourtError::Decided);
        }
        let terms = DisputeTerms {
            window_closes: subject.window_closes,
            worker_allowance_ms: self.parameters.worker_allowance_ms,
            challenger_allowance_ms: self.parameters.challenger_allowance_ms,
        };
        let case = subject.fixture.case();
        let (dispute, _) = Dispute::open(&case, &mut subject.reveals, opening, terms, self.now)?;
        if let Some(known) = self.disputes.iter().position(|other| other.id() == dispute.id()) {
            return Ok(known);
        }
        let pair = (dispute.challenger(), dispute.worker());
        if !self.bonds.contains_key(&pair) {
            let bond = self.parameters.bond;
            self.post(ledger::lock_bond(owner(pair.0), bond).expect("the bond is valid"))?;
            self.bonds.insert(pair, bond);
        }
        self.disputes.push(dispute);
        self.subjects.push(claim);
        Ok(self.disputes.len() - 1)
    }

    /// A party moves.
    ///
    /// # Errors
    /// The move is refused.
    pub fn apply(&mut self, dispute: usize, made: &Authentic) -> Result<(), CourtError> {
        let claim = self.subjects[dispute];
        let Standing { fixture, reveals, .. } = &mut self.claims[claim];
        let case = fixture.case();
        self.disputes[dispute].apply(&case, reveals, made, self.now)?;
        for (other, subject) in self.subjects.iter().enumerate() {
            if *subject == claim {
                self.disputes[other].advance(&case, reveals, self.now);
            }
        }
        self.settle(dispute);
        Ok(())
    }

    /// Service time passes: clocks run out, windows close, what was held is paid.
    pub fn pass(&mut self, ms: u64) {
        self.now = self.now.plus(ms);
        for dispute in 0..self.disputes.len() {
            if self.disputes[dispute].timeout(self.now).is_some() {
                self.settle(dispute);
            }
        }
        for claim in 0..self.claims.len() {
            self.finalize(claim);
            self.pay_conviction(claim);
        }
        self.pay_forfeits();
    }

    /// Does what follows from the end of a dispute.
    fn settle(&mut self, dispute: usize) {
        for effect in self.disputes[dispute].effects() {
            match effect {
                Effect::RejectClaim { prover, .. } => self.reject(self.subjects[dispute], prover),
                Effect::CloseOthersOnClaim { claim, closing } => {
                    self.close_where(closing, |other| other.claim() == claim);
                }
                Effect::SuspendWorker { worker } => self.suspend(worker),
                Effect::ForfeitBond { challenger, worker } => self.forfeit(dispute, challenger, worker),
                Effect::CloseOthersOfPair { challenger, worker, closing } => {
                    self.close_where(closing, |other| {
                        (other.challenger(), other.worker()) == (challenger, worker)
                    });
                }
                Effect::ReturnBondIfIdle { challenger, worker } => self.return_if_idle(challenger, worker),
            }
        }
    }

    fn close_where(&mut self, closing: Closing, applies: impl Fn(&Dispute) -> bool) {
        for dispute in 0..self.disputes.len() {
            if applies(&self.disputes[dispute]) && self.disputes[dispute].close(closing, self.now).is_some() {
                self.settle(dispute);
            }
        }
    }

    fn reject(&mut self, claim: usize, prover: PartyId) {
        let due = self.now.plus(self.parameters.hold_ms);
        let subject = &mut self.claims[claim];
        assert_eq!(subject.state, ClaimState::Pending, "a decided claim is decided again");
        subject.state = ClaimState::Rejected;
        subject.conviction = Some((prover, due, false));
        let (claim, submitter, price) = (subject.fixture.claim().clone(), subject.submitter, subject.price);
        let stake = self.parameters.stake_per_job;
        let convicted = ledger::convict(claim.id(), owner(claim.worker), stake).expect("the stake is valid");
        self.must_post(convicted);
        self.refund(claim.job, submitter, price);
    }

    fn refund(&mut self, job: JobId, submitter: OwnerId, escrowed: Amount) {
        let refund = ledger::Refund { job, submitter, escrowed, delivered: None };
        self.must_post(ledger::refund(&refund, &self.parameters).expect("the escrow is valid"));
    }

    fn suspend(&mut self, worker: PartyId) {
        if self.suspended.contains(&worker) {
            return;
        }
        self.suspended.push(worker);
        let restarted = window_closes(self.now, &self.parameters);
        for claim in &mut self.claims {
            if claim.state == ClaimState::Pending && claim.fixture.claim().worker == worker {
                claim.window_closes = restarted;
            }
        }
    }

    fn forfeit(&mut self, dispute: usize, challenger: PartyId, worker: PartyId) {
        let Some(bond) = self.bonds.remove(&(challenger, worker)) else { return };
        let id = self.disputes[dispute].id();
        self.must_post(ledger::forfeit_bond(id, owner(challenger), bond).expect("the bond is valid"));
        let forfeit = ledger::Forfeit { dispute: id, bond, worker: owner(worker) };
        self.forfeits.push((forfeit, self.now.plus(self.parameters.hold_ms)));
    }

    fn return_if_idle(&mut self, challenger: PartyId, worker: PartyId) {
        let pair = (challenger, worker);
        let open = |dispute: &&Dispute| dispute.outcome().is_none();
        let mut of_pair = self.disputes.iter().filter(|other| (other.challenger(), other.worker()) == pair);
        if of_pair.any(|dispute| open(&dispute)) {
            return;
        }
        if let Some(bond) = self.bonds.remove(&pair) {
            self.must_post(ledger::return_bond(owner(challenger), bond).expect("the bond is valid"));
        }
    }

    fn finalize(&mut self, claim: usize) {
        let disputes = self.disputes.iter().zip(&self.subjects);
        let open = disputes.filter(|(dispute, subject)| **subject == claim && dispute.outcome().is_none());
        let open = open.count() as u64;
        let subject = &mut self.claims[claim];
        if subject.state != ClaimState::Pending || !may_finalize(subject.window_closes, open, self.now) {
            return;
        }
        subject.state = ClaimState::Finalized;
        let settlement = ledger::Settlement {
            job: subject.fixture.claim().job,
            submitter: subject.submitter,
            worker: owner(subject.fixture.claim().worker),
            escrowed: subject.price,
            price: subject.price,
            stake: self.parameters.stake_per_job,
        };
        self.must_post(ledger::finalize(&settlement, &self.parameters).expect("the amounts are valid"));
    }

    fn pay_conviction(&mut self, claim: usize) {
        let subject = &self.claims[claim];
        let Some((prover, due, false)) = subject.conviction else { return };
        if self.now < due {
            return;
        }
        let accepted = Claim { layers: subject.fixture.honest().layers(), ..subject.fixture.claim().clone() };
        let grounds = self.grounds(claim, prover);
        let openers = ledger::confirmed_openers(&self.openings(claim), Some(&accepted), grounds);
        let payout = ledger::ConvictionPayout {
            claim: subject.fixture.claim().id(),
            stake: self.parameters.stake_per_job,
            submitter: subject.submitter,
            grounds,
            confirmed_openers: &openers,
        };
        self.must_post(ledger::pay_conviction(&payout, &self.parameters).expect("the amounts are valid"));
        self.claims[claim].conviction = Some((prover, due, true));
    }

    /// Openings on a claim in their order.
    fn openings(&self, claim: usize) -> Vec<Opening> {
        let on_claim = self.disputes.iter().zip(&self.subjects).filter(|(_, subject)| **subject == claim);
        let opening = |(dispute, _): (&Dispute, &usize)| Opening {
            open: *dispute.opening(),
            owner: owner(dispute.challenger()),
            is_lost: dispute.outcome().is_some_and(|outcome| outcome.verdict == Verdict::WorkerWins),
        };
        on_claim.map(opening).collect()
    }

    /// What the conviction rests on: what decided the dispute that the challenger won.
    fn grounds(&self, claim: usize, prover: PartyId) -> Grounds {
        let on_claim = self.disputes.iter().zip(&self.subjects).filter(|(_, subject)| **subject == claim);
        let mut outcomes = on_claim
            .filter(|(dispute, _)| dispute.challenger() == prover)
            .filter_map(|(dispute, _)| dispute.outcome());
        match outcomes.find(|outcome| outcome.verdict == Verdict::ChallengerWins).map(|won| won.cause) {
            Some(Cause::Proof { .. }) => Grounds::Proof { prover: owner(prover) },
            _ => Grounds::Silence,
        }
    }

    fn pay_forfeits(&mut self) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.forfeits).into_iter().partition(|(_, due)| *due <= self.now);
        self.forfeits = later;
        for (forfeit, _) in due {
            self.must_post(ledger::pay_forfeit(&forfeit, &self.parameters).expect("the bond is valid"));
        }
    }

    fn post(&mut self, transaction: Transaction) -> Result<(), Overdrawn> {
        self.book.post(&transaction)
    }

    fn must_post(&mut self, transaction: Transaction) {
        let posted = self.book.post(&transaction);
        posted.unwrap_or_else(|error| panic!("locked money does not cover what it was locked for: {error}"));
    }

    /// Checks what must hold after every step: money is conserved, what is locked is exactly what is at stake, and
    /// the state of every dispute survives its encoding.
    ///
    /// # Panics
    /// It does not hold.
    pub fn check(&self) {
        assert_eq!(self.book.total(), 0, "money was made or lost");
        let mut locked: BTreeMap<OwnerId, i64> = BTreeMap::new();
        for claim in self.claims.iter().filter(|claim| claim.state == ClaimState::Pending) {
            *locked.entry(owner(claim.fixture.claim().worker)).or_default() +=
                self.parameters.stake_per_job.0;
        }
        for ((challenger, _), bond) in &self.bonds {
            *locked.entry(owner(*challenger)).or_default() += bond.0;
        }
        for (account, balance) in self.book.iter() {
            match account {
                Account::Outside => {}
                Account::Locked(owner) => {
                    assert_eq!(balance.0, locked.get(&owner).copied().unwrap_or(0), "{account:?}");
                }
                Account::Escrow(job) => {
                    let waits = |claim: &&Standing| {
                        claim.fixture.claim().job == job && claim.state == ClaimState::Pending
                    };
                    let price = self.claims.iter().find(waits).map_or(0, |claim| claim.price.0);
                    assert_eq!(balance.0, price, "{account:?}");
                }
                Account::Held(Hold::Bond(id)) => {
                    let held = self.forfeits.iter().find(|(forfeit, _)| forfeit.dispute == id);
                    assert_eq!(balance.0, held.map_or(0, |(forfeit, _)| forfeit.bond.0), "{account:?}");
                }
                Account::Free(_) | Account::Treasury | Account::Held(Hold::Stake(_)) => {
                    assert!(balance >= Amount::ZERO, "{account:?} is negative");
                }
            }
        }
        for dispute in &self.disputes {
            assert_eq!(Dispute::from_bytes(&dispute.to_bytes()).as_ref(), Ok(dispute));
        }
    }
}

impl Standing {
    /// The opening move that a challenger with this commitment would make.
    #[must_use]
    pub fn opening(
        &self,
        challenger: PartyId,
        layer: u32,
        own: gainsay_commitment::TensorCommitment,
    ) -> Open {
        Open { claim: self.fixture.claim().id(), challenger, layer, commitment: own }
    }
}

impl From<Open> for Authentic {
    /// An opening that nobody verifies.
    fn from(open: Open) -> Self {
        let signed = super::players::Credentials::Name(open.challenger).sign(open);
        Self::trusted(SignedMove::Open(signed))
    }
}
