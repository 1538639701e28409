//! Claims: checked on receipt without executing anything, countersigned, and final when their window has passed.

use std::sync::Arc;

use gainsay_commitment::{ClaimId, Signed};
use gainsay_protocol::ledger::{self as rules, Settlement};
use gainsay_protocol::lifecycle::{
    ClaimState, JobEvent, JobState, job_transition, may_finalize, window_closes,
};
use gainsay_protocol::{
    Amount, Claim, ClaimFault, ClaimReceipt, DisputeTerms, Equivocation, JobId, LeaseTerms,
};
use serde_json::json;

use super::equivocations::Guilt;
use super::jobs::{decode_claim, decode_job};
use super::work::{About, Each, Work, retrying};
use super::{App, AppError, AppResult, Caller, ClaimView};
use crate::bus::Topic;
use crate::store::claims::{self, StoredClaim};
use crate::store::jobs::{self, StoredJob};
use crate::store::leases::{self, LeaseState, StoredLease};
use crate::store::parties::{self, Agent};
use crate::store::{Connection, StoreError, StoreResult, clock, voids};

/// A claim as it came, with what checking it needs.
struct Arrived<'a> {
    claim: &'a Signed<Claim>,
    /// The bytes received.
    bytes: &'a [u8],
    /// Whether what it says was held against the job: only then may it be accepted.
    is_checked: bool,
}

impl App {
    /// Takes a signed claim (`Signed<Claim>` bytes) and countersigns it. The same claim again: the same answer.
    ///
    /// # Errors
    /// Bytes, signature, lease or content. A second, different claim for the lease convicts its worker.
    pub async fn post_claim(&self, signed: &[u8]) -> AppResult<Signed<ClaimReceipt>> {
        let claim = Signed::<Claim>::from_bytes(signed)
            .map_err(|error| AppError::MalformedClaim(error.to_string()))?;
        if claim.signer != claim.body.worker {
            return Err(ClaimFault::Signer.into());
        }
        claim.verify().map_err(|error| AppError::MalformedClaim(error.to_string()))?;
        if claim.body.coordinator != self.coordinator() {
            return Err(ClaimFault::Coordinator.into());
        }
        let claim = Arc::new(claim);
        let is_checked = self.check_content(&claim).await?;
        let arrived = Arrived { claim: &claim, bytes: signed, is_checked };
        retrying(|| self.receive(&arrived)).await
    }

    /// Holds a claim against the job that its lease is for, before anything is locked; whether the lease waits for a claim.
    /// Only then is there work to do that others would have to wait for: a model's tokens to read, an answer to look through.
    async fn check_content(&self, claim: &Arc<Signed<Claim>>) -> AppResult<bool> {
        let body = &claim.body;
        let mut conn = self.connection().await?;
        let lease = leases::get(&mut conn, body.lease).await?;
        let is_awaited = |lease: &StoredLease| {
            lease.state == LeaseState::Held && lease.worker == body.worker && lease.job == body.job
        };
        let Some(lease) = lease.filter(is_awaited) else { return Ok(false) };
        let Some(job) = jobs::get(&mut conn, lease.job).await? else { return Ok(false) };
        let model = self.validated(&mut conn, job.model).await?;
        drop(conn);
        let terms = LeaseTerms {
            coordinator: self.coordinator(),
            job: job.id,
            lease: lease.id,
            worker: lease.worker,
        };
        let asked = decode_job(&job)?;
        // A tokenizer whose tokens have no bytes has no jobs with stop strings.
        let table = match model.manifest().generation {
            Some(_) => self.token_table(&model, Caller::Claim).await?.unwrap_or_default(),
            None => Arc::default(),
        };
        let claim = Arc::clone(claim);
        let checking = tokio::task::spawn_blocking(move || {
            claim.body.check(&model, &asked, &terms)?;
            claim.body.check_length(&model, &asked, &*table)
        });
        checking.await.map_err(|_| AppError::MalformedClaim("checking it failed".to_owned()))??;
        Ok(true)
    }

    async fn receive(&self, arrived: &Arrived<'_>) -> AppResult<Signed<ClaimReceipt>> {
        let Arrived { claim, bytes: signed, .. } = *arrived;
        let (body, id) = (&claim.body, claim.body.lease);
        let mut work = Work::begin(self).await?;
        let worker = parties::lock_worker(&mut work.tx, body.worker).await?;
        let worker = worker.ok_or(AppError::UnknownParty { party: body.worker, role: "worker" })?;
        let job = jobs::lock(&mut work.tx, body.job).await?.ok_or(AppError::UnknownLease(id))?;
        let lease = leases::lock(&mut work.tx, id).await?;
        let lease = lease.filter(|lease| lease.worker == body.worker && lease.job == body.job);
        let lease = lease.ok_or(AppError::UnknownLease(id))?;
        match lease.state {
            LeaseState::Held => self.accept(work, arrived, &worker, &job, &lease).await,
            LeaseState::Lost | LeaseState::Returned | LeaseState::Voided => Err(AppError::LeaseOver(id)),
            LeaseState::Claimed => self.receive_again(work, claim, signed, &job).await,
        }
    }

    async fn accept(
        &self,
        mut work: Work<'_>,
        arrived: &Arrived<'_>,
        worker: &Agent,
        job: &StoredJob,
        lease: &StoredLease,
    ) -> AppResult<Signed<ClaimReceipt>> {
        let now = work.now().await?;
        let Arrived { claim: signed, bytes, is_checked } = *arrived;
        // A lease begins before its worker knows of it, so one that is held now was held when the claim was checked.
        if now >= lease.expires || !is_checked {
            return Err(AppError::LeaseOver(lease.id));
        }
        self.require_streamed(&mut work, job, &signed.body).await?;

        let id = signed.body.id();
        let parameters = &self.config().parameters;
        let closes = window_closes(now, parameters);
        let terms = DisputeTerms {
            window_closes: closes,
            worker_allowance_ms: parameters.worker_allowance_ms,
            challenger_allowance_ms: parameters.challenger_allowance_ms,
        };
        let receipt = self.sign(ClaimReceipt { claim: id, time: now, terms });
        // Stake was locked for the highest price; from here on it answers for what the claim earns.
        let stake = parameters.stake(earned(job, signed.body.output.len())?).min(lease.stake);
        let stored = StoredClaim {
            id,
            job: job.id,
            lease: lease.id,
            worker: lease.worker,
            owner: lease.owner,
            model: job.model,
            state: ClaimState::Pending,
            signed: bytes.to_vec(),
            trace_root: signed.body.trace,
            countersignature: receipt.signature,
            device: worker.device.clone(),
            stake,
            posted: now,
            terms,
            window_ends: closes,
            open_disputes: 0,
        };
        let next = job_transition(job.state, JobEvent::Claimed).expect("a leased job can be claimed");
        assert_eq!(next, JobState::Claimed, "a claim makes its job claimed");
        leases::end(&mut work.tx, lease, LeaseState::Claimed, now).await?;
        claims::insert(&mut work.tx, &stored, &signed.body.layers).await?;
        jobs::claimed(&mut work.tx, job.id, id).await?;
        let details = json!({
            "model": job.model, "layers": signed.body.layers.len(), "window_ends_ms": closes.0,
            "lease": lease.id.to_string(),
        });
        let about = About::claim(job.id, id).party(lease.worker);
        if let Some(spare) = lease.stake.checked_sub(stake).filter(|spare| *spare > Amount::ZERO) {
            work.post(about, rules::unlock_stake(lease.owner, spare));
        }
        work.event("claim_posted", about, details);
        work.wake(Topic::Job(job.id));
        work.finish().await?;
        Ok(receipt)
    }

    /// A claim for a lease that has one: resent, or equivocation.
    async fn receive_again(
        &self,
        mut work: Work<'_>,
        claim: &Signed<Claim>,
        bytes: &[u8],
        job: &StoredJob,
    ) -> AppResult<Signed<ClaimReceipt>> {
        let lease = claim.body.lease;
        let stored = claims::of_lease(&mut work.tx, job.id, lease).await?;
        let stored = stored.ok_or(AppError::LeaseOver(lease))?;
        if stored.id == claim.body.id() {
            return Ok(self.receipt_of(&stored));
        }
        let pair = Equivocation::new(decode_claim(&stored)?, claim.clone());
        pair.check().map_err(|fault| AppError::MalformedClaim(fault.to_string()))?;
        // The worker itself sent both: there is no reporter to reward, and who was disputing the claim and was right loses
        // nothing by it.
        let found = Guilt { lease, worker: stored.worker, second: claim, bytes, reporter: None };
        if self.convict(&mut work, job, Some(&stored), &found).await? {
            work.finish().await?;
        }
        Err(AppError::Equivocation(lease))
    }

    pub(super) fn receipt_of(&self, claim: &StoredClaim) -> Signed<ClaimReceipt> {
        let body = ClaimReceipt { claim: claim.id, time: claim.posted, terms: claim.terms };
        Signed { body, signer: self.coordinator(), signature: claim.countersignature }
    }

    /// A claim: public.
    ///
    /// # Errors
    /// There is none of this id.
    pub async fn claim(&self, claim: ClaimId) -> AppResult<ClaimView> {
        let mut conn = self.connection().await?;
        self.claim_on(&mut conn, claim).await
    }

    pub(super) async fn claim_on(&self, conn: &mut Connection, id: ClaimId) -> AppResult<ClaimView> {
        let stored = claims::get(conn, id).await?.ok_or(AppError::UnknownClaim(id))?;
        let job = jobs::get(conn, stored.job).await?.ok_or(AppError::UnknownClaim(id))?;
        let claim = decode_claim(&stored)?.body;
        let receipt = self.receipt_of(&stored);
        Ok(ClaimView {
            id,
            job: stored.job,
            lease: stored.lease,
            model: stored.model,
            worker: stored.worker,
            owner: stored.owner,
            device: stored.device,
            state: stored.state,
            finality: stored.state.finality(),
            input: claim.input,
            layers: claim.layers,
            trace_root: claim.trace,
            signed: stored.signed,
            job_bytes: job.input,
            receipt,
            window_ends: stored.window_ends,
            disputes: claims::disputes(conn, stored.job, id).await?,
        })
    }

    /// Makes claims final whose window has passed with no dispute open, and pays for them. How many; as many as a batch
    /// holds means that there may be more. What another transaction has locked is left for the next round.
    ///
    /// # Errors
    /// The database.
    pub async fn finalize_claims(&self) -> AppResult<usize> {
        let mut conn = self.connection().await?;
        let now = clock::now(&mut conn).await?;
        let mature = claims::mature(&mut conn, now, self.config().limits.reconcile_batch).await?;
        drop(conn);
        if mature.is_empty() {
            return Ok(0);
        }
        match retrying(|| self.finalize_jobs(&mature)).await {
            Ok(done) => Ok(done),
            Err(error) => {
                // One that cannot be made final must not keep the others from it.
                tracing::warn!(%error, jobs = mature.len(), "a batch is made final job by job");
                let mut each = Each::default();
                for job in mature.chunks(1) {
                    each.note(retrying(|| self.finalize_jobs(job)).await);
                }
                each.count()
            }
        }
    }

    async fn finalize_jobs(&self, mature: &[JobId]) -> AppResult<usize> {
        let mut work = Work::begin(self).await?;
        match self.finalize_in(&mut work, mature).await {
            Ok(done) => work.finish().await.map(|()| done),
            Err(error) => {
                work.abandon().await;
                Err(error)
            }
        }
    }

    async fn finalize_in(&self, work: &mut Work<'_>, mature: &[JobId]) -> AppResult<usize> {
        // From here on no profile is withdrawn until this is committed: nothing of a withdrawn one is made final.
        voids::lock_shared(&mut work.tx).await?;
        let now = work.now().await?;
        let claims = claims::lock_mature(&mut work.tx, mature, now).await?;
        if !claims.is_empty() {
            self.finalize_locked(work, &claims).await?;
        }
        Ok(claims.len())
    }

    async fn finalize_locked(&self, work: &mut Work<'_>, claims: &[StoredClaim]) -> AppResult<()> {
        let parameters = &self.config().parameters;
        let now = work.now().await?;
        let ids: Vec<_> = claims.iter().map(|claim| claim.job).collect();
        let jobs = jobs::get_many(&mut work.tx, &ids).await?;
        assert_eq!(jobs.len(), claims.len(), "each job has at most one pending claim");
        let mut settled = Vec::new();
        for (claim, job) in claims.iter().zip(&jobs) {
            assert!(may_finalize(claim.window_ends, claim.open_disputes.into(), now), "found as mature");
            assert_eq!((claim.job, job.claim), (job.id, Some(claim.id)), "the pending claim is the newest");
            let next = job_transition(job.state, JobEvent::WindowPassed);
            assert_eq!(next, Some(JobState::Finalized), "a pending claim's job is claimed");
            let price = earned(job, decode_claim(claim)?.body.output.len())?;
            let settlement = Settlement {
                job: job.id,
                submitter: job.submitter,
                worker: claim.owner,
                escrowed: job.price,
                price,
                stake: claim.stake,
            };
            let about = About::claim(job.id, claim.id).party(claim.worker);
            let id = work.post(about, rules::finalize(&settlement, parameters));
            settled.push((claim, id));
            work.event("claim_finalized", about, json!({ "price": price.0 }));
            work.wake(Topic::Job(job.id));
        }
        claims::settle(&mut work.tx, &settled, claims::Settlement::Paid, now).await?;
        claims::finalize(&mut work.tx, claims, now).await?;
        jobs::decide(&mut work.tx, &ids, JobState::Finalized, now).await?;
        Ok(())
    }
}

/// What a claim with so many bytes of output earns: the price of its job, less the part for tokens that could have been
/// generated and were not.
fn earned(job: &StoredJob, output: usize) -> StoreResult<Amount> {
    if job.unused_token_price == Amount::ZERO {
        return Ok(job.price);
    }
    let corrupt = StoreError::Corrupt { what: "the price of a generation" };
    let asked = decode_job(job)?;
    let Some(request) = asked.generation_request() else { return Err(corrupt) };
    let generated = (output / size_of::<u32>()) as u64;
    let unused = u64::from(request.stop.max_tokens).saturating_sub(generated);
    let back = i64::try_from(unused).ok().and_then(|unused| job.unused_token_price.0.checked_mul(unused));
    let price = back.and_then(|back| job.price.0.checked_sub(back)).filter(|price| *price >= 0);
    price.map(Amount).ok_or(corrupt)
}
