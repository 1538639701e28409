//! Leases: work handed to workers, kept by heartbeats.

use std::time::Duration;

use gainsay_commitment::{ModelId, PartyId};
use gainsay_protocol::ledger::{self as rules, Account};
use gainsay_protocol::lifecycle::{JobEvent, job_transition, lease_ms};
use gainsay_protocol::{LeaseId, ServiceTime};
use serde_json::json;
use tokio::time::Instant;

use super::jobs::{LOOK_AGAIN, decode_job};
use super::money::require_free;
use super::work::{About, Work, retrying};
use super::{App, AppError, AppResult, LeaseGrant};
use crate::bus::Topic;
use crate::store;
use crate::store::jobs::{self, StoredJob};
use crate::store::leases::{self, LeaseState, StoredLease};
use crate::store::ledger;
use crate::store::parties::{self, Agent};

/// What a look at the queue does where another transaction has the worker locked.
#[derive(Debug, Clone, Copy)]
enum Locking {
    /// Waits for it.
    Waits,
    /// Finds nothing.
    Skips,
}

impl App {
    /// The oldest job of the first of these models that has one for this worker, or none after `wait`. Locks stake.
    ///
    /// # Errors
    /// The worker is unknown, suspended, holds too many leases, has too much to defend, or its owner has too little free
    /// for the stake.
    pub async fn lease(
        &self,
        worker: PartyId,
        models: &[ModelId],
        wait: Duration,
    ) -> AppResult<Option<LeaseGrant>> {
        let until = Instant::now() + wait;
        let mut news = self.bus().subscribe(Topic::Queue).await;
        let mut grant = retrying(|| self.lease_now(worker, models, Locking::Waits)).await?;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if grant.is_some() || left.is_zero() {
                return Ok(grant);
            }
            news.wait(left.min(LOOK_AGAIN)).await;
            grant = self.lease_if_queued(worker, models).await?;
        }
    }

    /// A job wakes every worker that waits, and one gets it: so they look a few at a time, and those who find the
    /// queue empty again have asked one question and opened no transaction. Whoever is busy with another of its requests
    /// does not keep the others from looking: it looks again later.
    async fn lease_if_queued(&self, worker: PartyId, models: &[ModelId]) -> AppResult<Option<LeaseGrant>> {
        let _turn = self.lease_turn().await;
        let mut conn = self.connection().await?;
        let queued = jobs::is_any_queued(&mut conn, models).await?;
        drop(conn);
        if queued { retrying(|| self.lease_now(worker, models, Locking::Skips)).await } else { Ok(None) }
    }

    async fn lease_now(
        &self,
        worker: PartyId,
        models: &[ModelId],
        locking: Locking,
    ) -> AppResult<Option<LeaseGrant>> {
        let mut work = Work::begin(self).await?;
        let agent = match locking {
            Locking::Waits => {
                let found = parties::lock_worker(&mut work.tx, worker).await?;
                found.ok_or(AppError::UnknownParty { party: worker, role: "worker" })?
            }
            Locking::Skips => match parties::try_lock_worker(&mut work.tx, worker).await? {
                Some(agent) => agent,
                None => return Ok(None),
            },
        };
        if agent.suspended.is_some() {
            return Err(AppError::WorkerSuspended(worker));
        }
        let limit = self.config().limits.leases_per_worker;
        if leases::held_by(&mut work.tx, worker).await? >= limit {
            return Err(AppError::LimitReached { what: "leases held at a time", limit });
        }
        self.require_defence(&mut work, worker).await?;
        // Whoever has lost a job, or handed it back, may have it again once others had the time to take it.
        let now = work.now().await?;
        let pause_ms = self.config().parameters.lease_ms;
        let free = ledger::balance(&mut work.tx, Account::Free(agent.owner)).await?;
        let Some(highest) = self.config().parameters.highest_price(free) else {
            return self.refuse_without_stake(&mut work, &agent, models).await;
        };
        // What is too dear for it is left for others.
        for model in models {
            if let Some(job) =
                jobs::lock_next(&mut work.tx, *model, agent.owner, (now, pause_ms), highest).await?
            {
                return self.grant(work, &agent, job).await.map(Some);
            }
        }
        Ok(None)
    }

    /// Who has too little for any stake waits as long as there is nothing to do, and is told once there is.
    async fn refuse_without_stake(
        &self,
        work: &mut Work<'_>,
        worker: &Agent,
        models: &[ModelId],
    ) -> AppResult<Option<LeaseGrant>> {
        if jobs::is_any_queued(&mut work.tx, models).await? {
            require_free(&mut work.tx, worker.owner, self.config().parameters.stake_per_job).await?;
        }
        Ok(None)
    }

    async fn grant(&self, mut work: Work<'_>, worker: &Agent, job: StoredJob) -> AppResult<LeaseGrant> {
        let parameters = &self.config().parameters;
        let stake = parameters.stake(job.price);
        let now = work.now().await?;
        let asked = decode_job(&job)?;
        let (tokens, drawn) = (asked.token_count(), asked.most_drawn());
        let deadline = now.plus(lease_ms(tokens.saturating_sub(drawn.into()), drawn, parameters));
        let lease = StoredLease {
            id: LeaseId(store::new_id()),
            job: job.id,
            worker: worker.key,
            owner: worker.owner,
            state: LeaseState::Held,
            stake,
            leased: now,
            expires: now.plus(parameters.heartbeat_ms).min(deadline),
            deadline,
            fee: None,
        };
        let next = job_transition(job.state, JobEvent::Leased).expect("a job in the queue can be leased");
        leases::insert(&mut work.tx, &lease).await?;
        jobs::set_state(&mut work.tx, job.id, next).await?;
        require_free(&mut work.tx, worker.owner, stake).await?;
        let about = About::job(job.id).party(worker.key);
        work.post(about, rules::lock_stake(worker.owner, stake));
        work.event("job_leased", about, json!({ "lease": lease.id.to_string(), "stake": stake.0 }));
        work.finish().await?;
        Ok(LeaseGrant {
            lease: lease.id,
            job: job.id,
            model: job.model,
            job_bytes: job.input,
            stream: job.stream,
            stake,
            price: job.price,
            expires: lease.expires,
            deadline,
        })
    }

    /// Keeps a lease; when it expires now, and when it does at the latest.
    ///
    /// # Errors
    /// The lease is not the worker's, or it is over.
    pub async fn heartbeat(&self, worker: PartyId, lease: LeaseId) -> AppResult<(ServiceTime, ServiceTime)> {
        let mut work = Work::begin(self).await?;
        let stored = leases::lock(&mut work.tx, lease).await?;
        let stored = stored.filter(|stored| stored.worker == worker).ok_or(AppError::UnknownLease(lease))?;
        let now = work.now().await?;
        if stored.state != LeaseState::Held || now >= stored.expires {
            return Err(AppError::LeaseOver(lease));
        }
        let expires = now.plus(self.config().parameters.heartbeat_ms).min(stored.deadline);
        leases::extend(&mut work.tx, &stored, expires).await?;
        work.finish().await?;
        Ok((expires, stored.deadline))
    }
}
