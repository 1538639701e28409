//! What follows from the end of a dispute: rejection, suspension, bonds, payout.

use gainsay_commitment::{DisputeId, PartyId};
use gainsay_protocol::ledger::{self as rules, ConvictionPayout, Forfeit, Grounds, confirmed_openers};
use gainsay_protocol::lifecycle::{JobState, job_transition, longest_decision_ms, rejection, window_closes};
use gainsay_protocol::{Cause, Closing, Effect, OwnerId, ServiceTime};
use serde_json::json;

use super::jobs::{decode_claim, refund};
use super::work::{About, Each, Work, retrying};
use super::{App, AppResult};
use crate::bus::Topic;
use crate::store::bonds::{self, BondEnd};
use crate::store::claims::{self, RejectedBecause, Settlement, StoredClaim};
use crate::store::disputes::{self, StoredDispute};
use crate::store::jobs::{self, StoredJob};
use crate::store::ledger::{self, HoldCause, HoldEnd, StoredHold};
use crate::store::{StoreError, clock, parties, voids};

/// Why a claim is rejected, and who has shown that it is wrong; none where its worker convicted itself.
pub(super) struct Rejection {
    pub(super) because: RejectedBecause,
    pub(super) dispute: Option<DisputeId>,
    pub(super) beneficiary: Option<OwnerId>,
}

impl App {
    /// Carries out what follows from the end of a dispute. Worker, job, claim and dispute are locked.
    pub(super) async fn carry_out(
        &self,
        work: &mut Work<'_>,
        job: &StoredJob,
        claim: &StoredClaim,
        ended: &StoredDispute,
    ) -> AppResult<()> {
        claims::count_dispute(&mut work.tx, claim.job, claim.id, -1).await?;
        let id = ended.dispute.id();
        for effect in ended.dispute.effects() {
            match effect {
                Effect::RejectClaim { prover, .. } => {
                    // Who waited while the worker's clock ran out has shown nothing.
                    let cause = ended.dispute.outcome().map(|outcome| outcome.cause);
                    let beneficiary = match cause {
                        Some(Cause::Proof { .. }) => Some(owner_of(work, prover).await?),
                        _ => None,
                    };
                    let rejection =
                        Rejection { because: RejectedBecause::Dispute, dispute: Some(id), beneficiary };
                    // Closes the other disputes on the claim too: it cannot be rejected while one is open.
                    self.reject_claim(work, job, claim, &rejection).await?;
                }
                Effect::CloseOthersOnClaim { closing, .. } => {
                    self.close_disputes_on(work, claim, closing).await?;
                }
                Effect::SuspendWorker { .. } => {
                    self.suspend(work, claim.worker, About::claim(claim.job, claim.id)).await?;
                }
                Effect::ForfeitBond { challenger, worker } => {
                    self.forfeit_bond(work, claim, id, challenger, worker).await?;
                }
                Effect::CloseOthersOfPair { closing, .. } => {
                    let others = disputes::lock_undecided_of_bond(&mut work.tx, ended.bond).await?;
                    for other in others {
                        self.close_dispute(work, other, closing).await?;
                    }
                }
                Effect::ReturnBondIfIdle { challenger, worker } => {
                    return_bond_if_idle(work, challenger, worker).await?;
                }
            }
        }
        Ok(())
    }

    /// Rejects a pending claim: its stake is held, its job goes to another owner's worker, or back to its submitter.
    pub(super) async fn reject_claim(
        &self,
        work: &mut Work<'_>,
        job: &StoredJob,
        claim: &StoredClaim,
        why: &Rejection,
    ) -> AppResult<()> {
        let parameters = &self.config().parameters;
        let now = work.now().await?;
        self.close_disputes_on(work, claim, Closing::ClaimRejected { by: why.dispute }).await?;
        claims::reject(&mut work.tx, claim.job, claim.id, why.because, now).await?;

        let about = About { dispute: why.dispute, ..About::claim(job.id, claim.id).party(claim.worker) };
        let convicted = work.post(about, rules::convict(claim.id, claim.owner, claim.stake));
        claims::settle(&mut work.tx, &[(claim, convicted)], Settlement::Slashed, now).await?;
        let hold = StoredHold {
            cause: HoldCause::Stake,
            job: job.id,
            claim: claim.id,
            dispute: why.dispute,
            beneficiary: why.beneficiary,
            amount: claim.stake,
            release: now.plus(parameters.hold_ms),
        };
        ledger::insert_hold(&mut work.tx, &hold, now).await?;
        work.event(
            "claim_rejected",
            about,
            json!({ "because": why.because.as_str(), "stake": claim.stake.0 }),
        );
        self.retry_or_refund(work, job, claim).await
    }

    async fn retry_or_refund(
        &self,
        work: &mut Work<'_>,
        job: &StoredJob,
        claim: &StoredClaim,
    ) -> AppResult<()> {
        let event = rejection(job.attempts, &self.config().parameters);
        let next = job_transition(job.state, event).expect("a pending claim's job is claimed");
        jobs::exclude(&mut work.tx, job.id, claim.owner).await?;
        jobs::count_attempt(&mut work.tx, job.id).await?;
        let attempts = job.attempts.saturating_add(1);
        if next == JobState::Submitted {
            let now = work.now().await?;
            jobs::requeue(&mut work.tx, job.id, now).await?;
            work.event("job_requeued", About::job(job.id), json!({ "attempts": attempts }));
            work.wake(Topic::Queue);
            work.wake(Topic::Job(job.id));
        } else {
            refund(work, job, next).await?;
            work.event("job_refunded", About::job(job.id), json!({ "attempts": attempts }));
        }
        Ok(())
    }

    pub(super) async fn close_disputes_on(
        &self,
        work: &mut Work<'_>,
        claim: &StoredClaim,
        closing: Closing,
    ) -> AppResult<()> {
        for other in disputes::lock_undecided_on_claim(&mut work.tx, claim.job, claim.id).await? {
            self.close_dispute(work, other, closing).await?;
        }
        Ok(())
    }

    /// Ends a dispute from outside. Its claim may be another than the one that is locked; the lock on the worker,
    /// who is the same, keeps all other transactions about its disputes away.
    async fn close_dispute(
        &self,
        work: &mut Work<'_>,
        mut stored: StoredDispute,
        closing: Closing,
    ) -> AppResult<()> {
        let now = work.now().await?;
        let Some(entry) = stored.dispute.close(closing, now) else { return Ok(()) };
        disputes::update(&mut work.tx, stored.job, &stored.dispute).await?;
        self.append(work, stored.job, &stored.dispute, &[entry]).await?;
        claims::count_dispute(&mut work.tx, stored.job, stored.dispute.claim(), -1).await?;
        for effect in stored.dispute.effects() {
            let Effect::ReturnBondIfIdle { challenger, worker } = effect else {
                unreachable!("a dispute ended from outside has no effect but on its bond");
            };
            return_bond_if_idle(work, challenger, worker).await?;
        }
        Ok(())
    }

    /// Suspends a worker for what it was convicted of, and starts the windows of its pending claims anew: once per
    /// suspension.
    pub(super) async fn suspend(&self, work: &mut Work<'_>, worker: PartyId, about: About) -> AppResult<()> {
        let now = work.now().await?;
        if parties::suspend_worker(&mut work.tx, worker, now).await? {
            let closes = window_closes(now, &self.config().parameters);
            let windows = claims::restart_windows(&mut work.tx, worker, closes).await?;
            let details = json!({ "windows_restarted": windows, "window_ends_ms": closes.0 });
            work.event("worker_suspended", about.party(worker), details);
        }
        Ok(())
    }

    async fn forfeit_bond(
        &self,
        work: &mut Work<'_>,
        claim: &StoredClaim,
        dispute: DisputeId,
        challenger: PartyId,
        worker: PartyId,
    ) -> AppResult<()> {
        let now = work.now().await?;
        let bond = bonds::lock(&mut work.tx, challenger, worker).await?;
        let bond = bond.ok_or(StoreError::Corrupt { what: "the bond of an open dispute" })?;
        bonds::end(&mut work.tx, bond.id, BondEnd::Forfeited, now).await?;
        let about = About::claim(claim.job, claim.id).dispute(dispute).party(challenger);
        work.post(about, rules::forfeit_bond(dispute, bond.owner, bond.amount));
        let hold = StoredHold {
            cause: HoldCause::Bond,
            job: claim.job,
            claim: claim.id,
            dispute: Some(dispute),
            beneficiary: Some(claim.owner),
            amount: bond.amount,
            release: now.plus(self.config().parameters.hold_ms),
        };
        ledger::insert_hold(&mut work.tx, &hold, now).await?;
        work.event("bond_forfeited", about, json!({ "amount": bond.amount.0 }));
        Ok(())
    }

    /// Pays out what is due of lost stakes and bonds. How many; as many as a batch holds means that there may be
    /// more.
    ///
    /// # Errors
    /// The database.
    pub async fn pay_out_holds(&self) -> AppResult<usize> {
        // Whoever delays the decision of its job delays the payout by no more than the longest that a job can take.
        let longest = longest_decision_ms(&self.config().parameters);
        let mut conn = self.connection().await?;
        let now = clock::now(&mut conn).await?;
        let overdue = ServiceTime(now.0.saturating_sub_unsigned(longest));
        let due = ledger::due_holds(&mut conn, now, overdue, self.config().limits.reconcile_batch).await?;
        drop(conn);
        let mut each = Each::default();
        for hold in &due {
            each.note(retrying(|| self.pay_out(hold)).await);
        }
        each.count()
    }

    async fn pay_out(&self, hold: &StoredHold) -> AppResult<usize> {
        let mut work = Work::begin(self).await?;
        // From here on no profile is withdrawn until this is committed: nothing of a withdrawn one is paid out.
        voids::lock_shared(&mut work.tx).await?;
        let withdrawn = voids::is_of_withdrawn(&mut work.tx, hold.job).await?;
        if (withdrawn && !hold.is_of_equivocation()) || !ledger::lock_hold(&mut work.tx, hold).await? {
            return Ok(0);
        }
        let now = work.now().await?;
        match hold.cause {
            HoldCause::Stake => self.pay_conviction(&mut work, hold).await?,
            HoldCause::Bond => self.pay_forfeit(&mut work, hold),
        }
        ledger::end_hold(&mut work.tx, hold, HoldEnd::Released, now).await?;
        work.finish().await.map(|()| 1)
    }

    async fn pay_conviction(&self, work: &mut Work<'_>, hold: &StoredHold) -> AppResult<()> {
        let gone = || StoreError::Corrupt { what: "the job of a hold" };
        let job = jobs::get(&mut work.tx, hold.job).await?.ok_or_else(gone)?;
        let openers = confirmed_owners(work, hold, &job).await?;
        let payout = ConvictionPayout {
            claim: hold.claim,
            stake: hold.amount,
            submitter: job.submitter,
            grounds: grounds(hold),
            confirmed_openers: &openers,
        };
        let about = About { dispute: hold.dispute, ..About::claim(hold.job, hold.claim) };
        work.post(about, rules::pay_conviction(&payout, &self.config().parameters));
        work.event("stake_paid_out", about, json!({ "amount": hold.amount.0, "openers": openers.len() }));
        Ok(())
    }

    fn pay_forfeit(&self, work: &mut Work<'_>, hold: &StoredHold) {
        let dispute = hold.dispute.expect("a bond is lost with a dispute");
        let worker = hold.beneficiary.expect("a lost bond is due to the worker that was disputed");
        let forfeit = Forfeit { dispute, bond: hold.amount, worker };
        let about = About::claim(hold.job, hold.claim).dispute(dispute);
        work.post(about, rules::pay_forfeit(&forfeit, &self.config().parameters));
        work.event("bond_paid_out", about, json!({ "amount": hold.amount.0 }));
    }
}

async fn owner_of(work: &mut Work<'_>, challenger: PartyId) -> AppResult<OwnerId> {
    let found = parties::challenger(&mut work.tx, challenger).await?;
    Ok(found.ok_or(StoreError::Corrupt { what: "a dispute's challenger" })?.owner)
}

async fn return_bond_if_idle(work: &mut Work<'_>, challenger: PartyId, worker: PartyId) -> AppResult<()> {
    let Some(bond) = bonds::lock(&mut work.tx, challenger, worker).await? else { return Ok(()) };
    if bonds::is_busy(&mut work.tx, bond.id).await? {
        return Ok(());
    }
    let now = work.now().await?;
    bonds::end(&mut work.tx, bond.id, BondEnd::Returned, now).await?;
    let about = About::default().party(challenger);
    work.post(about, rules::return_bond(bond.owner, bond.amount));
    work.event("bond_returned", about, json!({ "amount": bond.amount.0 }));
    Ok(())
}

/// The owners who share in a conviction as openers of disputes on the claim.
async fn confirmed_owners(
    work: &mut Work<'_>,
    hold: &StoredHold,
    job: &StoredJob,
) -> AppResult<Vec<OwnerId>> {
    let accepted = match (job.state, job.claim) {
        (JobState::Finalized, Some(accepted)) => {
            let gone = || StoreError::Corrupt { what: "an accepted claim" };
            let accepted = claims::get(&mut work.tx, accepted).await?.ok_or_else(gone)?;
            Some(decode_claim(&accepted)?.body)
        }
        _ => None,
    };
    let openings = disputes::openings(&mut work.tx, hold.job, hold.claim).await?;
    Ok(confirmed_openers(&openings, accepted.as_ref(), grounds(hold)))
}

/// What the conviction behind a held stake rests on.
fn grounds(hold: &StoredHold) -> Grounds {
    match (hold.dispute, hold.beneficiary) {
        (Some(_), Some(prover)) => Grounds::Proof { prover },
        (Some(_), None) => Grounds::Silence,
        (None, reporter) => Grounds::Equivocation { reporter },
    }
}
