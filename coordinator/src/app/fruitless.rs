//! Leases that end without a claim: lost by silence, or handed back.
//!
//! A job that was lost or handed back goes to the end of the queue, and to another owner first: its own may have it again
//! after the time of a lease, twice that after the next; or never where it said that the job is too large, or kept it to
//! the end. After [`lease_attempts`](gainsay_protocol::Parameters::lease_attempts) such leases that cost something its
//! submitter has its money back: what costs nothing must not be able to end a job.
//! What was streamed under such a lease is paid for by nobody: there is no claim that anybody could dispute.

use gainsay_commitment::PartyId;
use gainsay_protocol::ledger as rules;
use gainsay_protocol::lifecycle::{
    JobEvent, JobState, fruitless_lease, holding_fee, job_transition, lost_lease_fee,
};
use gainsay_protocol::{Amount, JobId, LeaseId, Parameters, ServiceTime};
use serde_json::{Value, json};

use super::jobs::refund;
use super::work::{About, Each, Work, retrying};
use super::{App, AppError, AppResult};
use crate::bus::Topic;
use crate::store::jobs::{self, StoredJob};
use crate::store::leases::{self, LeaseState, StoredLease};
use crate::store::{clock, parties, streams};

/// Why a worker gives a lease up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Stable name of the reason.
    pub reason: &'static str,
    /// Whether its owner will never be able to run the job.
    pub is_for_good: bool,
}

/// How a lease ended without a claim.
struct End {
    state: LeaseState,
    fee: Amount,
    event: &'static str,
    details: Value,
}

impl App {
    /// Takes a lease back that its worker gives up; what that costs it. Given up before: the same answer.
    ///
    /// # Errors
    /// The lease is not the worker's, or it ended otherwise.
    pub async fn return_lease(&self, worker: PartyId, lease: LeaseId, why: GivenUp) -> AppResult<Amount> {
        retrying(|| self.give_back(worker, lease, why)).await
    }

    async fn give_back(&self, worker: PartyId, id: LeaseId, why: GivenUp) -> AppResult<Amount> {
        let parameters = &self.config().parameters;
        let mut work = Work::begin(self).await?;
        let found = leases::get(&mut work.tx, id).await?.filter(|lease| lease.worker == worker);
        let job = found.ok_or(AppError::UnknownLease(id))?.job;
        parties::lock_worker(&mut work.tx, worker).await?;
        let job = jobs::lock(&mut work.tx, job).await?.ok_or(AppError::UnknownLease(id))?;
        let lease = leases::lock(&mut work.tx, id).await?.ok_or(AppError::UnknownLease(id))?;
        match (lease.state, lease.fee) {
            (LeaseState::Returned, Some(fee)) => return Ok(fee),
            (LeaseState::Held, _) => {}
            _ => return Err(AppError::LeaseOver(id)),
        }
        let now = work.now().await?;
        if now >= lease.expires {
            return Err(AppError::LeaseOver(id));
        }
        if why.is_for_good {
            jobs::exclude(&mut work.tx, job.id, lease.owner).await?;
        }
        let streamed = streams::count(&mut work.tx, job.id, lease.id).await?;
        let fee = fee(&job, &lease, (now, streamed), streamed > 0, parameters);
        let details = json!({ "lease": id.to_string(), "fee": fee.0, "reason": why.reason });
        let end = End { state: LeaseState::Returned, fee, event: "lease_returned", details };
        self.end_fruitless(&mut work, &job, &lease, end).await?;
        work.finish().await.map(|()| fee)
    }

    /// Takes jobs back from workers whose leases have expired. How many; as many as a batch holds means that there
    /// may be more.
    ///
    /// # Errors
    /// The database.
    pub async fn reclaim_leases(&self) -> AppResult<usize> {
        let mut conn = self.connection().await?;
        let now = clock::now(&mut conn).await?;
        let expired = leases::expired(&mut conn, now, self.config().limits.reconcile_batch).await?;
        drop(conn);
        let mut each = Each::default();
        for (lease, job, worker) in &expired {
            each.note(retrying(|| self.lose_lease(*lease, *job, *worker)).await);
        }
        each.count()
    }

    async fn lose_lease(&self, lease: LeaseId, job: JobId, worker: PartyId) -> AppResult<usize> {
        let parameters = &self.config().parameters;
        let mut work = Work::begin(self).await?;
        parties::lock_worker(&mut work.tx, worker).await?;
        let Some(job) = jobs::lock(&mut work.tx, job).await? else { return Ok(0) };
        let Some(lease) = leases::lock(&mut work.tx, lease).await? else { return Ok(0) };
        let now = work.now().await?;
        // Looked up without locks: a heartbeat, a claim or another coordinator may have come first.
        if lease.state != LeaseState::Held || now < lease.expires {
            return Ok(0);
        }
        // Held until it expired: what comes after that is the service's delay.
        let streamed = streams::count(&mut work.tx, job.id, lease.id).await?;
        let fee = fee(&job, &lease, (lease.expires, streamed), true, parameters);
        if is_too_slow(&lease, parameters) {
            jobs::exclude(&mut work.tx, job.id, lease.owner).await?;
        }
        let details = json!({ "lease": lease.id.to_string(), "fee": fee.0 });
        let end = End { state: LeaseState::Lost, fee, event: "lease_lost", details };
        self.end_fruitless(&mut work, &job, &lease, end).await?;
        work.finish().await.map(|()| 1)
    }

    /// Ends a lease without a claim: its worker pays the fee out of the stake, its job goes on to another or, after
    /// too many, back to its submitter. Worker, job and lease are locked.
    async fn end_fruitless(
        &self,
        work: &mut Work<'_>,
        job: &StoredJob,
        lease: &StoredLease,
        end: End,
    ) -> AppResult<()> {
        let now = work.now().await?;
        let before = leases::count_fruitless(&mut work.tx, job.id).await?;
        let event = match end.fee {
            Amount::ZERO => JobEvent::LeaseLost,
            _ => fruitless_lease(before, &self.config().parameters),
        };
        let next = job_transition(job.state, event).expect("a leased job can lose its lease");
        leases::end(&mut work.tx, lease, end.state, now).await?;
        leases::charge(&mut work.tx, lease, end.fee).await?;
        let about = About::job(job.id).party(lease.worker);
        work.post(about, rules::lose_lease(lease.owner, lease.stake, end.fee));
        work.event(end.event, about, end.details);
        if next == JobState::Refunded {
            refund(work, job, next).await?;
            let details = json!({ "attempts": job.attempts, "leases": before.saturating_add(1) });
            work.event("job_refunded", About::job(job.id), details);
        } else {
            jobs::requeue(&mut work.tx, job.id, now).await?;
            work.wake(Topic::Queue);
            work.wake(Topic::Job(job.id));
        }
        Ok(())
    }
}

/// What a lease costs that ended without a claim, after so many tokens were streamed under it. One that `is_lost` costs the
/// fixed fee; who finds out soon that it cannot run a job, and has told its submitter nothing, pays nothing. What was
/// streamed cannot be disputed, so that it costs what it would have earned.
fn fee(
    job: &StoredJob,
    lease: &StoredLease,
    (ended, streamed): (ServiceTime, usize),
    is_lost: bool,
    parameters: &Parameters,
) -> Amount {
    let (held, longest) = (ended.since(lease.leased), lease.deadline.since(lease.leased));
    let of = if is_lost { lost_lease_fee } else { holding_fee };
    let tokens = i64::try_from(streamed).unwrap_or(i64::MAX).saturating_mul(job.unused_token_price.0);
    of(job.price, held, longest, parameters)
        .checked_add(Amount(tokens))
        .unwrap_or(Amount::MAX)
        .min(lease.stake)
}

/// Whether a worker kept a lease to its very end, and had no claim: it would need as long again.
fn is_too_slow(lease: &StoredLease, parameters: &Parameters) -> bool {
    lease.expires >= lease.deadline && lease.deadline.since(lease.leased) > parameters.heartbeat_ms
}
