//! Notices to submitters: which are due, what they say, and what becomes of them.

use gainsay_api::webhooks::{MAX_WEBHOOK_BYTES, Notice, NoticeToSign};
use gainsay_commitment::Signature;
use gainsay_protocol::lifecycle::Finality;
use gainsay_protocol::{JobId, OwnerId};

use super::{App, AppError, AppResult, JobState};
use crate::store::webhooks::{self, DueNotice};
use crate::store::{clock, jobs};

/// Deliveries that are tried in all.
const ATTEMPTS: u32 = 10;
/// The pause after the first; each later one is twice as long. All together they are nearly three hours.
const FIRST_PAUSE_MS: u64 = 20_000;
/// The pause after a delivery that was not tried, for want of room.
const NO_ROOM_MS: u64 = 5_000;

/// How the answers to a submission reach its submitter, besides by asking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Token by token.
    pub stream: bool,
    /// By a notice once they are decided, to this address.
    pub webhook: Option<String>,
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeEnd {
    /// The receiver took it.
    Taken,
    /// It did not, or could not be reached.
    Refused,
    /// There was no room to try; it does not count.
    NotTried,
}

/// A signed notice on its way.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Of which job.
    pub job: JobId,
    /// Whose.
    pub submitter: OwnerId,
    /// Where it goes.
    pub url: String,
    /// Which delivery this is, from 1.
    pub attempt: u32,
    /// The notice as JSON.
    pub body: Vec<u8>,
    /// Service time of signing, in ms.
    pub time_ms: i64,
    /// The coordinator's, over body and time.
    pub signature: Signature,
}

/// Refuses what cannot be the address of a webhook. Whether it may be called is looked at when it is.
pub(super) fn check_url(url: &str) -> AppResult<()> {
    let known = ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme));
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    if known && plain && url.len() <= MAX_WEBHOOK_BYTES {
        return Ok(());
    }
    Err(AppError::InvalidWebhook)
}

impl App {
    /// At most so many of the notices that are due now, each put off until its pause has passed: whoever is gone before it tells how a delivery
    /// ended leaves it to be tried again.
    ///
    /// # Errors
    /// The database.
    pub async fn due_notices(&self, limit: usize) -> AppResult<Vec<Outgoing>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut conn = self.connection().await?;
        let now = clock::now(&mut conn).await?;
        let due = webhooks::take(&mut conn, now, now.plus(FIRST_PAUSE_MS), limit).await?;
        drop(conn);
        let mut notices = Vec::with_capacity(due.len());
        for due in due {
            notices.push(self.notice(due, now.0).await?);
        }
        Ok(notices)
    }

    async fn notice(&self, due: DueNotice, time_ms: i64) -> AppResult<Outgoing> {
        let DueNotice { job, url, attempt, decided } = due;
        let mut conn = self.connection().await?;
        let stored = jobs::get(&mut conn, job).await?.ok_or(AppError::UnknownJob(job))?;
        let claim = match stored.claim {
            Some(claim) => Some(self.claim_on(&mut conn, claim).await?),
            None => None,
        };
        let notice = Notice {
            kind: "job.decided".to_owned(),
            job,
            model: stored.model,
            state: wire_state(stored.state),
            finality: claim.as_ref().map(|claim| wire_finality(claim.finality)),
            claim: claim.as_ref().map(|claim| claim.id),
            trace_root: claim.as_ref().map(|claim| claim.trace_root),
            decided_at_ms: decided.0,
        };
        let body = serde_json::to_vec(&notice).expect("a notice holds texts and numbers");
        let signature = NoticeToSign::of(self.coordinator(), &body, time_ms).sign(&self.inner.key);
        Ok(Outgoing { job, submitter: stored.submitter, url, attempt, body, time_ms, signature })
    }

    /// Notes how a delivery ended. One that was not taken is tried again, with growing pauses, and given up in the end.
    ///
    /// # Errors
    /// The database.
    pub async fn notice_ended(&self, job: JobId, attempt: u32, end: NoticeEnd) -> AppResult<()> {
        let mut conn = self.connection().await?;
        if end == NoticeEnd::Taken || (end == NoticeEnd::Refused && attempt >= ATTEMPTS) {
            return Ok(webhooks::done(&mut conn, job).await?);
        }
        let now = clock::now(&mut conn).await?;
        if end == NoticeEnd::NotTried {
            return Ok(webhooks::put_back(&mut conn, job, now.plus(NO_ROOM_MS)).await?);
        }
        let pause = FIRST_PAUSE_MS << (attempt - 1).min(20);
        Ok(webhooks::put_off(&mut conn, job, now.plus(pause)).await?)
    }

    /// Withdraws what no worker has of these jobs: nobody waits for them any more.
    pub async fn abandon_jobs(&self, submitter: OwnerId, jobs: &[JobId]) {
        for job in jobs {
            match self.cancel_job(submitter, *job).await {
                Ok(_) | Err(AppError::NotCancellable { .. }) => {}
                Err(error) => tracing::warn!(%error, %job, "could not withdraw a job that nobody waits for"),
            }
        }
    }
}

fn wire_state(state: JobState) -> gainsay_api::jobs::JobState {
    use gainsay_api::jobs::JobState as Wire;
    match state {
        JobState::Submitted => Wire::Submitted,
        JobState::Assigned => Wire::Assigned,
        JobState::Claimed => Wire::Claimed,
        JobState::Finalized => Wire::Finalized,
        JobState::Cancelled => Wire::Cancelled,
        JobState::Refunded => Wire::Refunded,
        JobState::Voided => Wire::Voided,
    }
}

fn wire_finality(finality: Finality) -> gainsay_api::jobs::Finality {
    use gainsay_api::jobs::Finality as Wire;
    match finality {
        Finality::Pending => Wire::Pending,
        Finality::Final => Wire::Final,
        Finality::Revoked => Wire::Revoked,
    }
}
