//! Withdrawal of a profile version: the statement first, then everything undecided goes back where it came from.
//!
//! The statement and the end of the models' service are one transaction; from then on nothing of the profile is leased,
//! made final or paid out. What is undecided is given back job by job and hold by hold, by whoever comes first: the
//! request itself, or any coordinator's next round. So a crash in between costs nothing but time, and a job that was
//! being submitted meanwhile is found as well.

use gainsay_commitment::{Canonical as _, PartyId};
use gainsay_program::{ArithmeticProfile, Manifest};
use gainsay_protocol::ledger as rules;
use gainsay_protocol::lifecycle::{JobEvent, JobState, job_transition};
use gainsay_protocol::{Closing, JobId, MAX_REASON_BYTES, ServiceTime, VoidStatement};
use serde_json::json;

use super::jobs::refund;
use super::work::{About, Each, Work, retrying};
use super::{App, AppError, AppResult};
use crate::bus::Topic;
use crate::store::leases::{self, LeaseState};
use crate::store::ledger::{self, HoldCause, HoldEnd, StoredHold};
use crate::store::models;
use crate::store::voids::{self, StoredVoid};
use crate::store::{Connection, StoreError, bonds, claims, jobs, parties};

/// A profile version that was withdrawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoidView {
    /// Name and version of the profile.
    pub arithmetic: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: ServiceTime,
    /// `Signed<VoidStatement>`, canonical bytes.
    pub statement: Vec<u8>,
}

impl From<StoredVoid> for VoidView {
    fn from(stored: StoredVoid) -> Self {
        let StoredVoid { arithmetic, statement, reason, at } = stored;
        Self { arithmetic, reason, at, statement }
    }
}

impl App {
    /// Withdraws a profile version, publishes the signed statement, and gives back what is undecided. Withdrawn before:
    /// the same answer, and the rest is given back.
    ///
    /// # Errors
    /// The reason is empty, too long, or holds control characters. If giving back fails half way, the statement stands
    /// and the next round goes on.
    pub async fn void_profile(&self, profile: ArithmeticProfile, reason: &str) -> AppResult<VoidView> {
        let fits = (1..=MAX_REASON_BYTES).contains(&reason.len()) && !reason.chars().any(char::is_control);
        if !fits {
            return Err(AppError::InvalidReason { max: MAX_REASON_BYTES });
        }
        let view = retrying(|| self.state_void(profile, reason)).await?;
        let batch = usize::try_from(self.config().limits.reconcile_batch).unwrap_or(usize::MAX);
        while self.give_back_voided().await? >= batch {}
        Ok(view)
    }

    async fn state_void(&self, profile: ArithmeticProfile, reason: &str) -> AppResult<VoidView> {
        let mut work = Work::begin(self).await?;
        voids::lock(&mut work.tx).await?;
        if let Some(stored) = voids::get(&mut work.tx, profile.name()).await? {
            return Ok(stored.into());
        }
        let now = work.now().await?;
        let (coordinator, arithmetic) = (self.coordinator(), profile);
        let statement = VoidStatement { coordinator, arithmetic, reason: reason.to_owned(), time: now };
        let stored = StoredVoid {
            arithmetic: profile.name().to_owned(),
            statement: self.sign(statement).to_bytes(),
            reason: reason.to_owned(),
            at: now,
        };
        voids::insert(&mut work.tx, &stored).await?;
        let mut withdrawn = Vec::new();
        for model in models::list(&mut work.tx).await? {
            // The rules of today need not take a manifest of long ago, but which arithmetic it names can be read. What
            // cannot even be decoded serves nobody, and must not keep the others from being withdrawn.
            let manifest = models::manifest(&mut work.tx, model.id).await?.unwrap_or_default();
            match Manifest::from_bytes(&manifest) {
                Ok(manifest) if manifest.arithmetic == profile => withdrawn.push(model.id),
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(model = %model.id, %error, "a manifest on record does not decode")
                }
            }
        }
        models::withdraw(&mut work.tx, &withdrawn).await?;
        let details = json!({ "arithmetic": profile.name(), "reason": reason, "models": withdrawn.len() });
        work.event("profile_voided", About::default(), details);
        work.finish().await?;
        tracing::warn!(arithmetic = profile.name(), reason, "a profile version is withdrawn");
        Ok(stored.into())
    }

    /// The profile versions that were withdrawn, oldest first.
    ///
    /// # Errors
    /// The database.
    pub async fn voids(&self) -> AppResult<Vec<VoidView>> {
        let mut conn = self.connection().await?;
        Ok(voids::list(&mut conn).await?.into_iter().map(VoidView::from).collect())
    }

    /// Refuses what would need a profile version that was withdrawn.
    pub(super) async fn require_valid(
        &self,
        conn: &mut Connection,
        profile: ArithmeticProfile,
    ) -> AppResult<()> {
        let voided = voids::get(conn, profile.name()).await?.is_some();
        if voided { Err(AppError::ProfileVoided { arithmetic: profile.name() }) } else { Ok(()) }
    }

    /// Gives back what is undecided of withdrawn profiles: a batch of jobs and of holds. How many; as many as a batch
    /// holds means that there may be more.
    ///
    /// # Errors
    /// The database.
    pub async fn give_back_voided(&self) -> AppResult<usize> {
        let batch = self.config().limits.reconcile_batch;
        let mut conn = self.connection().await?;
        let jobs = voids::jobs(&mut conn, batch).await?;
        let holds = ledger::holds_to_void(&mut conn, batch).await?;
        drop(conn);
        let mut each = Each::default();
        for job in &jobs {
            each.note(retrying(|| self.void_job(*job)).await);
        }
        for hold in &holds {
            each.note(retrying(|| self.void_hold(hold)).await);
        }
        each.count()
    }

    async fn void_job(&self, id: JobId) -> AppResult<usize> {
        let mut work = Work::begin(self).await?;
        let Some(found) = jobs::get(&mut work.tx, id).await? else { return Ok(0) };
        // The worker is locked before the job, so it is looked up before; if the job has changed hands meanwhile, the
        // next round comes back to it.
        let lease = leases::held_on(&mut work.tx, id).await?;
        let claim = match (found.state, found.claim) {
            (JobState::Claimed, Some(claim)) => claims::get(&mut work.tx, claim).await?,
            _ => None,
        };
        let worker = claim.as_ref().map(|claim| claim.worker).or(lease.as_ref().map(|lease| lease.worker));
        if let Some(worker) = worker {
            parties::lock_worker(&mut work.tx, worker).await?;
        }
        let Some(job) = jobs::lock(&mut work.tx, id).await? else { return Ok(0) };
        if (job.state, job.claim) != (found.state, found.claim) {
            return Ok(0);
        }
        let Some(next) = job_transition(job.state, JobEvent::Voided) else { return Ok(0) };
        let now = work.now().await?;
        if job.state == JobState::Assigned {
            let Some(lease) = lease else { return Ok(0) };
            let held = leases::lock(&mut work.tx, lease.id).await?;
            let Some(lease) = held.filter(|lease| lease.state == LeaseState::Held) else { return Ok(0) };
            leases::end(&mut work.tx, &lease, LeaseState::Voided, now).await?;
            let about = About::job(id).party(lease.worker);
            work.post(about, rules::unlock_stake(lease.owner, lease.stake));
        }
        if let Some(claim) = claim {
            let gone = || StoreError::Corrupt { what: "a job's claim" };
            let claim = claims::lock(&mut work.tx, id, claim.id).await?.ok_or_else(gone)?;
            self.close_disputes_on(&mut work, &claim, Closing::Void).await?;
            claims::void(&mut work.tx, id, claim.id, now).await?;
            let about = About::claim(id, claim.id).party(claim.worker);
            work.post(about, rules::unlock_stake(claim.owner, claim.stake));
            work.event("claim_voided", about, json!({ "stake": claim.stake.0 }));
        }
        refund(&mut work, &job, next).await?;
        work.event("job_voided", About::job(id), json!({ "refunded": job.price.0 }));
        work.finish().await.map(|()| 1)
    }

    async fn void_hold(&self, hold: &StoredHold) -> AppResult<usize> {
        let mut work = Work::begin(self).await?;
        let gone = || StoreError::Corrupt { what: "the claim of a hold" };
        let claim = claims::get(&mut work.tx, hold.claim).await?.ok_or_else(gone)?;
        parties::lock_worker(&mut work.tx, claim.worker).await?.ok_or_else(gone)?;
        if !ledger::lock_hold(&mut work.tx, hold).await? {
            return Ok(0);
        }
        let now = work.now().await?;
        ledger::end_hold(&mut work.tx, hold, HoldEnd::Voided, now).await?;
        let about = About { dispute: hold.dispute, ..About::claim(hold.job, hold.claim) };
        match (hold.cause, hold.dispute) {
            (HoldCause::Bond, Some(dispute)) => {
                let lost = || StoreError::Corrupt { what: "the bond of a hold" };
                let owner = bonds::owner_of(&mut work.tx, hold.job, dispute).await?.ok_or_else(lost)?;
                work.post(about, rules::void_forfeit(dispute, owner, hold.amount));
            }
            _ => {
                let transaction = rules::void_conviction(hold.claim, claim.owner, hold.amount);
                work.post(about.party(claim.worker), transaction);
                self.reinstate(&mut work, claim.worker).await?;
            }
        }
        work.event("hold_voided", about, json!({ "amount": hold.amount.0 }));
        work.finish().await.map(|()| 1)
    }

    /// A worker that was suspended for what the faulty profile made of its claims works again.
    async fn reinstate(&self, work: &mut Work<'_>, worker: PartyId) -> AppResult<()> {
        if parties::reinstate_worker(&mut work.tx, worker).await? {
            work.event("worker_reinstated", About::default().party(worker), json!({}));
            work.wake(Topic::Queue);
        }
        Ok(())
    }
}
