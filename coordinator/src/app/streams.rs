//! Answers that arrive token by token: recorded as their workers send them, shown to their submitters.
//!
//! What was streamed is what is claimed: a claim that does not begin with the tokens streamed under its lease is refused.

use gainsay_commitment::PartyId;
use gainsay_protocol::{Claim, JobId, LeaseId, OwnerId};

use super::jobs::decode_job;
use super::work::{Work, retrying};
use super::{App, AppError, AppResult, JobView};
use crate::bus::Topic;
use crate::store::jobs::{self, StoredJob};
use crate::store::leases::{self, LeaseState};
use crate::store::streams;

/// How far an answer has come.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The job.
    pub job: JobView,
    /// The lease that is held on it.
    pub lease: Option<LeaseId>,
    /// Tokens streamed under it, from the place that was asked for.
    pub tokens: Vec<u32>,
}

impl App {
    /// Records tokens of an answer under way, the first of them at place `first` of the answer. What is on record already
    /// may be sent again. How many tokens are on record then.
    ///
    /// # Errors
    /// The lease is not the worker's, or over; nobody waits for tokens; they leave a gap, differ from those on record,
    /// are none of the model's, or too many.
    pub async fn stream_tokens(
        &self,
        worker: PartyId,
        lease: LeaseId,
        first: usize,
        tokens: &[u32],
    ) -> AppResult<usize> {
        retrying(|| self.record_tokens(worker, lease, first, tokens)).await
    }

    async fn record_tokens(
        &self,
        worker: PartyId,
        id: LeaseId,
        first: usize,
        tokens: &[u32],
    ) -> AppResult<usize> {
        let refused = |why: &'static str| Err(AppError::StreamRefused(why));
        let mut work = Work::begin(self).await?;
        let lease = leases::lock(&mut work.tx, id).await?;
        let lease = lease.filter(|lease| lease.worker == worker).ok_or(AppError::UnknownLease(id))?;
        let now = work.now().await?;
        if lease.state != LeaseState::Held || now >= lease.expires {
            return Err(AppError::LeaseOver(id));
        }
        let job = jobs::get(&mut work.tx, lease.job).await?.ok_or(AppError::UnknownLease(id))?;
        let decoded = decode_job(&job)?;
        let Some(request) = decoded.generation_request().filter(|_| job.stream) else {
            return refused("nobody waits for the tokens of this answer");
        };
        let model = self.validated(&mut work.tx, job.model).await?;
        if tokens.iter().any(|token| *token >= model.manifest().vocabulary) {
            return refused("a token is none of the model's");
        }
        if first.saturating_add(tokens.len()) > request.stop.max_tokens as usize {
            return refused("the answer would have more tokens than were asked for");
        }
        let known = streams::count(&mut work.tx, job.id, id).await?;
        if first > known {
            return refused("the tokens before these are missing");
        }
        let repeated = (known - first).min(tokens.len());
        // The last one on record too, which tells whether the answer had ended.
        let start = first.min(known.saturating_sub(1));
        let on_record = streams::from(&mut work.tx, job.id, id, start).await?;
        if on_record[first - start..][..repeated] != tokens[..repeated] {
            return refused("other tokens are on record at this place");
        }
        let new = &tokens[repeated..];
        let stop_ids = model.manifest().generation.as_ref().map_or(&[][..], |spec| &spec.stop_ids);
        let ends = |token: &u32| !request.stop.ignore_eos && stop_ids.contains(token);
        let mut before = on_record.last().into_iter().chain(&new[..new.len().saturating_sub(1)]);
        if !new.is_empty() && before.any(ends) {
            return refused("the answer has ended before these tokens");
        }
        if !new.is_empty() {
            streams::append(&mut work.tx, job.id, id, known, new).await?;
            work.wake(Topic::Job(job.id));
        }
        work.finish().await?;
        Ok(known + new.len())
    }

    /// How far the answer to a job has come; of the tokens streamed under the lease that is held, those from `from` on, or
    /// all where that is not `lease`.
    ///
    /// # Errors
    /// There is no such job of the submitter's.
    pub async fn progress(
        &self,
        submitter: OwnerId,
        job: JobId,
        lease: Option<LeaseId>,
        from: usize,
    ) -> AppResult<Progress> {
        let view = self.job(submitter, job).await?;
        let mut conn = self.connection().await?;
        // A lease that has ended since has no tokens: what became of it is seen at the next look.
        let held = leases::held_on(&mut conn, job).await?.map(|lease| lease.id);
        let from = if held == lease { from } else { 0 };
        let tokens = match held {
            Some(held) => streams::from(&mut conn, job, held, from).await?,
            None => Vec::new(),
        };
        Ok(Progress { job: view, lease: held, tokens })
    }

    /// Refuses a claim that does not begin with what was streamed under its lease.
    pub(super) async fn require_streamed(
        &self,
        work: &mut Work<'_>,
        job: &StoredJob,
        claim: &Claim,
    ) -> AppResult<()> {
        if !job.stream {
            return Ok(());
        }
        let streamed = streams::from(&mut work.tx, job.id, claim.lease, 0).await?;
        let streamed: Vec<u8> = streamed.iter().flat_map(|token| token.to_le_bytes()).collect();
        if claim.output.starts_with(&streamed) { Ok(()) } else { Err(AppError::ClaimStreamed(claim.lease)) }
    }
}
