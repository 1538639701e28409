//! Jobs as their submitters see them.

use std::time::Duration;

use gainsay_commitment::{Canonical, ModelId, Signed};
use gainsay_program::JobInput;
use gainsay_protocol::ledger::{self as rules, Refund};
use gainsay_protocol::lifecycle::{JobEvent, JobState, job_transition};
use gainsay_protocol::{Amount, Claim, Job, JobId, OwnerId};
use serde_json::json;
use tokio::time::Instant;

use super::money::require_free;
use super::webhooks::check_url;
use super::work::{About, Work, retrying};
use super::{App, AppError, AppResult, ClaimSummary, Delivery, JobView, ModelState, Receipt, RequestKey};
use crate::bus::Topic;
use crate::store::claims::{self, StoredClaim};
use crate::store::jobs::{self, NewJob, StoredJob};
use crate::store::{self, Connection, StoreError, StoreResult, ledger, parties, webhooks};

/// How long a wait trusts the bus before it looks again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) fn decode_job(stored: &StoredJob) -> StoreResult<Job> {
    Job::from_bytes(&stored.input).map_err(|_| StoreError::Corrupt { what: "a job" })
}

pub(super) fn decode_claim(stored: &StoredClaim) -> StoreResult<Signed<Claim>> {
    Signed::from_bytes(&stored.signed).map_err(|_| StoreError::Corrupt { what: "a claim" })
}

impl App {
    /// Checks, prices, escrows and queues a job in one transaction; then wakes workers.
    ///
    /// # Errors
    /// The model, the input, the submitter's balance, or its number of undecided jobs.
    pub async fn submit_job(
        &self,
        submitter: OwnerId,
        model: ModelId,
        input: JobInput,
    ) -> AppResult<JobView> {
        let mut jobs = self.submit_jobs(submitter, model, vec![input], None).await?;
        Ok(jobs.pop().expect("one input makes one job"))
    }

    /// Submits several jobs in one transaction: all or none. The same request under the same key again: the same jobs, as
    /// they stand.
    ///
    /// # Errors
    /// As for one job; or the key was used for another request.
    pub async fn submit_jobs(
        &self,
        submitter: OwnerId,
        model: ModelId,
        inputs: Vec<JobInput>,
        key: Option<&RequestKey>,
    ) -> AppResult<Vec<JobView>> {
        let jobs = inputs.into_iter().map(|input| Job::embedding(model, input)).collect();
        self.submit_tasks(submitter, model, jobs, &Delivery::default(), key).await
    }

    /// The same for jobs of any kind, all of one model.
    ///
    /// # Errors
    /// As for one job; or the key was used for another request, or the webhook is no address.
    pub async fn submit_tasks(
        &self,
        submitter: OwnerId,
        model: ModelId,
        tasks: Vec<Job>,
        delivery: &Delivery,
        key: Option<&RequestKey>,
    ) -> AppResult<Vec<JobView>> {
        if let Some(url) = &delivery.webhook {
            check_url(url)?;
        }
        match self.repeated(key).await? {
            Some(made) => self.submitted_before(&made).await,
            None => self.submit_new(submitter, model, tasks, delivery, key).await,
        }
    }

    /// Jobs that the same request made before. A failure here does no harm: the request has a key, and may be repeated.
    async fn submitted_before(&self, made: &[JobId]) -> AppResult<Vec<JobView>> {
        let mut conn = self.connection().await?;
        let mut views = Vec::new();
        for &id in made {
            let stored = jobs::get(&mut conn, id).await?.ok_or(AppError::UnknownJob(id))?;
            views.push(job_view(&mut conn, stored).await?);
        }
        Ok(views)
    }

    async fn submit_new(
        &self,
        submitter: OwnerId,
        model: ModelId,
        tasks: Vec<Job>,
        delivery: &Delivery,
        key: Option<&RequestKey>,
    ) -> AppResult<Vec<JobView>> {
        let view = self.model(model).await?;
        match view.state {
            ModelState::Serving => {}
            ModelState::Incomplete => {
                return Err(AppError::ModelIncomplete { model, missing: view.missing.len() as u64 });
            }
            ModelState::Voided => {
                return Err(AppError::ProfileVoided { arithmetic: view.model.manifest().arithmetic.name() });
            }
        }
        for task in &tasks {
            task.check(&view.model).map_err(|error| AppError::InvalidInput(error.to_string()))?;
        }
        let jobs: Vec<_> = tasks.into_iter().map(|task| (JobId(store::new_id()), task)).collect();
        match retrying(|| self.queue(submitter, &jobs, delivery, key)).await? {
            Queued::Now(views) => Ok(views),
            Queued::Before(made) => self.submitted_before(&made).await,
        }
    }

    async fn queue(
        &self,
        submitter: OwnerId,
        new: &[(JobId, Job)],
        delivery: &Delivery,
        key: Option<&RequestKey>,
    ) -> AppResult<Queued> {
        let limit = self.config().limits.jobs_per_submitter;
        let ids: Vec<JobId> = new.iter().map(|(id, _)| *id).collect();
        let mut work = Work::begin(self).await?;
        if let Some(made) = self.take_key(&mut work, key, &ids).await? {
            return Ok(Queued::Before(made));
        }
        // One submission of a submitter at a time, or several would each find room for all of their jobs.
        parties::lock_owner(&mut work.tx, submitter).await?;
        let undecided = jobs::count_undecided(&mut work.tx, submitter, limit).await?;
        if undecided.saturating_add(new.len() as u64) > limit {
            return Err(AppError::LimitReached { what: "undecided jobs", limit });
        }
        let at = work.now().await?;
        let mut total = Amount::ZERO;
        let mut views = Vec::with_capacity(new.len());
        for (id, job) in new {
            let (id, tokens) = (*id, job.token_count());
            let price = self.config().prices.of_job(job);
            let row = NewJob {
                id,
                submitter,
                model: job.model,
                input: &job.to_bytes(),
                commitment: job.commitment(),
                tokens,
                price,
                unused_token_price: self.config().prices.of_unused_token(job),
                stream: delivery.stream,
                at,
            };
            jobs::insert(&mut work.tx, &row).await?;
            work.post(About::job(id), rules::submit(id, submitter, price));
            let details = json!({ "model": job.model, "tokens": tokens, "price": price.0 });
            work.event("job_submitted", About::job(id), details);
            total = total.checked_add(price).unwrap_or(Amount(i64::MAX));
            views.push(queued_view(&row, job));
        }
        if let Some(url) = &delivery.webhook {
            webhooks::insert(&mut work.tx, &ids, url).await?;
        }
        require_free(&mut work.tx, submitter, total).await?;
        work.wake(Topic::Queue);
        match work.finish().await {
            Ok(()) => Ok(Queued::Now(views)),
            Err(AppError::Store(source @ StoreError::Uncertain(_))) => {
                Err(AppError::SubmissionUncertain { jobs: ids, source })
            }
            Err(error) => Err(error),
        }
    }

    /// A job of the submitter's.
    ///
    /// # Errors
    /// There is none of this id.
    pub async fn job(&self, submitter: OwnerId, job: JobId) -> AppResult<JobView> {
        let mut conn = self.connection().await?;
        let stored = jobs::get(&mut conn, job).await?;
        let stored =
            stored.filter(|stored| stored.submitter == submitter).ok_or(AppError::UnknownJob(job))?;
        job_view(&mut conn, stored).await
    }

    /// The submitter's newest jobs, newest first.
    ///
    /// # Errors
    /// The database.
    pub async fn jobs(&self, submitter: OwnerId, limit: u32) -> AppResult<Vec<JobView>> {
        let mut conn = self.connection().await?;
        let mut views = Vec::new();
        for stored in jobs::of_submitter(&mut conn, submitter, limit.into()).await? {
            views.push(job_view(&mut conn, stored).await?);
        }
        Ok(views)
    }

    /// Withdraws a job that no worker has, and returns its escrow. Withdrawn before: the same answer.
    ///
    /// # Errors
    /// There is none of this id, or a worker has it, or it is decided.
    pub async fn cancel_job(&self, submitter: OwnerId, job: JobId) -> AppResult<JobView> {
        retrying(|| self.cancel(submitter, job)).await?;
        self.job(submitter, job).await
    }

    async fn cancel(&self, submitter: OwnerId, id: JobId) -> AppResult<()> {
        let mut work = Work::begin(self).await?;
        let stored = jobs::lock(&mut work.tx, id).await?;
        let stored = stored.filter(|stored| stored.submitter == submitter).ok_or(AppError::UnknownJob(id))?;
        if stored.state == JobState::Cancelled {
            return Ok(());
        }
        let next = job_transition(stored.state, JobEvent::Cancelled)
            .ok_or(AppError::NotCancellable { job: id, state: stored.state.name() })?;
        refund(&mut work, &stored, next).await?;
        work.event("job_cancelled", About::job(id), json!({ "refunded": stored.price.0 }));
        work.finish().await
    }

    /// The job as soon as it has an answer or never will, or as it stands after `wait`.
    ///
    /// # Errors
    /// There is none of this id.
    pub async fn wait_for_result(
        &self,
        submitter: OwnerId,
        job: JobId,
        wait: Duration,
    ) -> AppResult<JobView> {
        let until = Instant::now() + wait;
        let mut news = self.follow(job).await;
        loop {
            let view = self.job(submitter, job).await?;
            let left = until.saturating_duration_since(Instant::now());
            let waiting = matches!(view.state, JobState::Submitted | JobState::Assigned);
            if !waiting || left.is_zero() {
                return Ok(view);
            }
            news.wait(left).await;
        }
    }

    /// The job's receipt: who ran what, committed to what, for how much, and how final that is.
    ///
    /// # Errors
    /// There is none of this id, or no claim yet.
    pub async fn receipt(&self, submitter: OwnerId, job: JobId) -> AppResult<Receipt> {
        let mut conn = self.connection().await?;
        let stored = jobs::get(&mut conn, job).await?;
        let stored =
            stored.filter(|stored| stored.submitter == submitter).ok_or(AppError::UnknownJob(job))?;
        let claim = stored.claim.ok_or(AppError::NoReceipt(job))?;
        let claim = self.claim_on(&mut conn, claim).await?;
        let (mut paid_worker, mut paid_fee, mut escrowed) = (0, 0, 0);
        for (owner, kind, amount) in ledger::paid(&mut conn, job).await? {
            match kind.as_str() {
                "treasury" => paid_fee += amount.0,
                "escrow" => escrowed -= amount.0,
                _ if owner == Some(claim.owner) => paid_worker += amount.0,
                _ => {}
            }
        }
        let returned = Amount(escrowed - paid_worker - paid_fee);
        let (paid_worker, paid_fee) = (Amount(paid_worker), Amount(paid_fee));
        Ok(Receipt { job, state: stored.state, claim, paid_worker, paid_fee, returned })
    }
}

/// Ends a job without a final claim: its escrow goes back.
pub(super) async fn refund(work: &mut Work<'_>, job: &StoredJob, state: JobState) -> AppResult<()> {
    let now = work.now().await?;
    let refund = Refund { job: job.id, submitter: job.submitter, escrowed: job.price, delivered: None };
    let parameters = &work.app().config().parameters;
    work.post(About::job(job.id), rules::refund(&refund, parameters));
    jobs::decide(&mut work.tx, &[job.id], state, now).await?;
    work.wake(Topic::Job(job.id));
    Ok(())
}

/// What came of a submission.
enum Queued {
    /// The jobs, as they were written: once they are on record, nothing that is read afterwards can fail and make the
    /// client submit them again.
    Now(Vec<JobView>),
    /// The same request came before and made these.
    Before(Vec<JobId>),
}

/// A job as it stands at the moment it is queued.
fn queued_view(row: &NewJob<'_>, job: &Job) -> JobView {
    JobView {
        id: row.id,
        submitter: row.submitter,
        model: row.model,
        state: JobState::Submitted,
        input: job.clone(),
        price: row.price,
        unused_token_price: row.unused_token_price,
        attempts: 0,
        submitted_at: row.at,
        claim: None,
    }
}

async fn job_view(conn: &mut Connection, stored: StoredJob) -> AppResult<JobView> {
    let claim = match stored.claim {
        Some(id) => claims::get(conn, id).await?.map(|claim| summary(&claim)).transpose()?,
        None => None,
    };
    Ok(JobView {
        id: stored.id,
        submitter: stored.submitter,
        model: stored.model,
        state: stored.state,
        input: decode_job(&stored)?,
        price: stored.price,
        unused_token_price: stored.unused_token_price,
        attempts: stored.attempts,
        submitted_at: stored.submitted,
        claim,
    })
}

fn summary(claim: &StoredClaim) -> StoreResult<ClaimSummary> {
    Ok(ClaimSummary {
        id: claim.id,
        worker: claim.worker,
        trace_root: claim.trace_root,
        finality: claim.state.finality(),
        output: decode_claim(claim)?.body.output,
        window_ends: claim.window_ends,
    })
}
