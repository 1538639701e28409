//! Listings and totals: what is public about jobs, claims, disputes and workers, and what a worker forgot it holds.

use std::collections::HashMap;
use std::time::Duration;

use gainsay_commitment::{ClaimId, ModelId, PartyId};
use gainsay_protocol::{Amount, JobId, LeaseId, OwnerId, ServiceTime};
use tokio::time::Instant;

pub use crate::store::reads::{
    ClaimFilter, DisputeFilter, DisputeStage, ListedClaim, ListedDispute, ListedJob, ListedWorker,
};

use super::jobs::{LOOK_AGAIN, decode_claim, decode_job};
use super::{App, AppError, AppResult, JobState, JobView, LeaseGrant};
use crate::bus::Topic;
use crate::store::{claims, clock, jobs, reads};

/// The newest of everything, and totals. Holds neither inputs nor outputs.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Service time.
    pub now: ServiceTime,
    /// How many jobs there are in each state.
    pub jobs_by_state: Vec<(JobState, u64)>,
    /// Disputes that are not decided.
    pub open_disputes: u64,
    /// Claims that were proven wrong.
    pub rejected_claims: u64,
    /// The newest jobs, newest first.
    pub jobs: Vec<ListedJob>,
    /// The newest claims, newest first.
    pub claims: Vec<ListedClaim>,
    /// The newest disputes, newest first.
    pub disputes: Vec<ListedDispute>,
    /// The workers registered last, newest first.
    pub workers: Vec<ListedWorker>,
    /// Balances summed by kind of account; their sum is zero.
    pub balances: Vec<(String, Amount)>,
}

/// What is public about a job: nothing of what it holds.
#[derive(Debug, Clone)]
pub struct JobFacts {
    /// Who pays.
    pub submitter: OwnerId,
    /// Its name.
    pub submitter_name: String,
    /// Which model.
    pub model: ModelId,
    /// How many sequences.
    pub sequences: u32,
    /// How many tokens.
    pub tokens: u64,
    /// Its price.
    pub price: Amount,
}

impl App {
    /// Claims, in the order in which they were received.
    ///
    /// # Errors
    /// The database.
    pub async fn list_claims(&self, filter: ClaimFilter, limit: u32) -> AppResult<Vec<ListedClaim>> {
        let mut conn = self.connection().await?;
        Ok(reads::claims(&mut conn, filter, limit).await?)
    }

    /// Disputes, in the order in which they were opened.
    ///
    /// # Errors
    /// The database.
    pub async fn list_disputes(&self, filter: DisputeFilter, limit: u32) -> AppResult<Vec<ListedDispute>> {
        let mut conn = self.connection().await?;
        Ok(reads::disputes(&mut conn, filter, limit).await?)
    }

    /// The leases that a worker holds and does not name: an answer was lost on its way, or the worker restarted.
    ///
    /// # Errors
    /// The database.
    pub async fn forgotten_leases(
        &self,
        worker: PartyId,
        known: &[LeaseId],
        limit: u32,
    ) -> AppResult<Vec<LeaseGrant>> {
        let mut conn = self.connection().await?;
        let held = reads::held_leases(&mut conn, worker, known, limit).await?;
        let grant = |lease: reads::HeldLease| LeaseGrant {
            lease: lease.id,
            job: lease.job,
            model: lease.model,
            job_bytes: lease.input,
            stream: lease.stream,
            stake: lease.stake,
            price: lease.price,
            expires: lease.expires,
            deadline: lease.deadline,
        };
        Ok(held.into_iter().map(grant).collect())
    }

    /// How many disputes on a claim are not decided.
    ///
    /// # Errors
    /// The database.
    pub async fn undecided_disputes(&self, claim: ClaimId) -> AppResult<u32> {
        let mut conn = self.connection().await?;
        Ok(reads::undecided_disputes(&mut conn, claim).await?)
    }

    /// When each model was registered, in Unix seconds: for people.
    ///
    /// # Errors
    /// The database.
    pub async fn registration_times(&self) -> AppResult<HashMap<ModelId, i64>> {
        let mut conn = self.connection().await?;
        Ok(reads::registration_times(&mut conn).await?.into_iter().collect())
    }

    /// The job as soon as it is decided, or as it stands after `wait`.
    ///
    /// # Errors
    /// No such job of the submitter's; the database.
    pub async fn wait_for_decision(
        &self,
        submitter: OwnerId,
        job: JobId,
        wait: Duration,
    ) -> AppResult<JobView> {
        let until = Instant::now() + wait;
        let mut news = self.bus().subscribe(Topic::Job(job)).await;
        loop {
            let view = self.job(submitter, job).await?;
            let left = until.saturating_duration_since(Instant::now());
            if is_decided(view.state) || left.is_zero() {
                return Ok(view);
            }
            news.wait(left.min(LOOK_AGAIN)).await;
        }
    }

    /// What is public about one job.
    ///
    /// # Errors
    /// There is none of this id.
    pub async fn job_facts(&self, job: JobId) -> AppResult<JobFacts> {
        let mut conn = self.connection().await?;
        let stored = jobs::get(&mut conn, job).await?.ok_or(AppError::UnknownJob(job))?;
        let decoded = decode_job(&stored)?;
        Ok(JobFacts {
            submitter: stored.submitter,
            submitter_name: reads::owner_name(&mut conn, stored.submitter).await?,
            model: stored.model,
            sequences: decoded.sequence_count() as u32,
            tokens: decoded.token_count(),
            price: stored.price,
        })
    }

    /// How many leases the job had up to this one, itself included.
    ///
    /// # Errors
    /// The database.
    pub async fn lease_number(&self, job: JobId, lease: LeaseId) -> AppResult<u32> {
        let mut conn = self.connection().await?;
        Ok(reads::lease_number(&mut conn, job, lease).await?)
    }

    /// How many of the job's claims had been rejected once this one was, itself included.
    ///
    /// # Errors
    /// The database.
    pub async fn rejections_until(&self, job: JobId, claim: ClaimId) -> AppResult<u32> {
        let mut conn = self.connection().await?;
        Ok(reads::rejections_until(&mut conn, job, claim).await?)
    }

    /// Whose claim it is.
    ///
    /// # Errors
    /// There is none of this id.
    pub async fn claimant(&self, claim: ClaimId) -> AppResult<PartyId> {
        let mut conn = self.connection().await?;
        let stored = claims::get(&mut conn, claim).await?;
        Ok(stored.ok_or(AppError::UnknownClaim(claim))?.worker)
    }

    /// Bytes of the output that a claim states.
    ///
    /// # Errors
    /// There is none of this id.
    pub async fn claimed_bytes(&self, claim: ClaimId) -> AppResult<u64> {
        let mut conn = self.connection().await?;
        let stored = claims::get(&mut conn, claim).await?.ok_or(AppError::UnknownClaim(claim))?;
        Ok(decode_claim(&stored)?.body.output.len() as u64)
    }

    /// The newest of everything, `rows` of each, and totals.
    ///
    /// # Errors
    /// The database.
    pub async fn overview(&self, rows: u32) -> AppResult<Overview> {
        let mut conn = self.connection().await?;
        let (open_disputes, rejected_claims) = reads::dispute_counts(&mut conn).await?;
        Ok(Overview {
            now: clock::now(&mut conn).await?,
            jobs_by_state: reads::jobs_by_state(&mut conn).await?,
            open_disputes,
            rejected_claims,
            jobs: reads::newest_jobs(&mut conn, rows).await?,
            claims: reads::newest_claims(&mut conn, rows).await?,
            disputes: reads::newest_disputes(&mut conn, rows).await?,
            workers: reads::newest_workers(&mut conn, rows).await?,
            balances: reads::balances_by_kind(&mut conn).await?,
        })
    }
}

/// Whether nothing can change about the job any more.
fn is_decided(state: JobState) -> bool {
    match state {
        JobState::Submitted | JobState::Assigned | JobState::Claimed => false,
        JobState::Finalized | JobState::Refunded | JobState::Cancelled | JobState::Voided => true,
    }
}
