//! Jobs and their queue.

use gainsay_commitment::{ClaimId, InputCommitment, ModelId};
use gainsay_protocol::lifecycle::JobState;
use gainsay_protocol::{Amount, JobId, OwnerId, ServiceTime};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Connection, StoreError, StoreResult, bytes, count, failed, uuid};

const STATES: [JobState; 7] = [
    JobState::Submitted,
    JobState::Assigned,
    JobState::Claimed,
    JobState::Finalized,
    JobState::Refunded,
    JobState::Cancelled,
    JobState::Voided,
];

pub(super) fn parse_state(text: &str) -> StoreResult<JobState> {
    let found = STATES.into_iter().find(|state| state.name() == text);
    found.ok_or(StoreError::Corrupt { what: "a job's state" })
}

/// A job about to be queued.
#[derive(Debug)]
pub struct NewJob<'a> {
    /// Id.
    pub id: JobId,
    /// Whose.
    pub submitter: OwnerId,
    /// Which model.
    pub model: ModelId,
    /// Canonical job bytes.
    pub input: &'a [u8],
    /// Their commitment.
    pub commitment: InputCommitment,
    /// How many tokens.
    pub tokens: u64,
    /// Price, put in escrow.
    pub price: Amount,
    /// What of it comes back for each token that is not generated.
    pub unused_token_price: Amount,
    /// Whether a client waits for the answer token by token.
    pub stream: bool,
    /// When.
    pub at: ServiceTime,
}

/// A job on record.
#[derive(Debug, Clone)]
pub struct StoredJob {
    /// Id.
    pub id: JobId,
    /// Whose.
    pub submitter: OwnerId,
    /// Which model.
    pub model: ModelId,
    /// Where it stands.
    pub state: JobState,
    /// Canonical job bytes.
    pub input: Vec<u8>,
    /// Price, in escrow until decided.
    pub price: Amount,
    /// What of it comes back for each token that is not generated.
    pub unused_token_price: Amount,
    /// Whether a client waits for the answer token by token.
    pub stream: bool,
    /// Rejected claims so far.
    pub attempts: u32,
    /// When it was submitted.
    pub submitted: ServiceTime,
    /// The newest claim, whatever became of it.
    pub claim: Option<ClaimId>,
}

#[derive(FromRow)]
struct JobRow {
    job_id: Uuid,
    submitter_id: Uuid,
    model_id: Vec<u8>,
    state: String,
    input: Vec<u8>,
    price: i64,
    attempts: i32,
    submitted_ms: i64,
    claim_id: Option<Vec<u8>>,
    stream: bool,
    unused_token_price: i64,
}

impl JobRow {
    fn read(self) -> StoreResult<StoredJob> {
        Ok(StoredJob {
            id: JobId(self.job_id.into_bytes()),
            submitter: OwnerId(self.submitter_id.into_bytes()),
            model: bytes("a job's model", &self.model_id)?,
            state: parse_state(&self.state)?,
            input: self.input,
            price: Amount(self.price),
            attempts: count("a job's attempts", self.attempts)?,
            submitted: ServiceTime(self.submitted_ms),
            unused_token_price: Amount(self.unused_token_price),
            stream: self.stream,
            claim: self.claim_id.map(|id| bytes("a job's claim", &id)).transpose()?,
        })
    }
}

/// Puts a job into the queue.
///
/// # Errors
/// The database.
pub async fn insert(conn: &mut Connection, job: &NewJob<'_>) -> StoreResult<()> {
    sqlx::query(
        "insert into jobs (job_id, submitter_id, model_id, state, input, input_commitment, token_count, price,
                submitted_ms, queued_ms, stream, unused_token_price)
            values ($1, $2, $3, 'submitted', $4, $5, $6, $7, $8, $8, $9, $10)",
    )
    .bind(uuid(job.id.0))
    .bind(uuid(job.submitter.0))
    .bind(job.model.as_bytes().as_slice())
    .bind(job.input)
    .bind(job.commitment.as_bytes().as_slice())
    .bind(i64::try_from(job.tokens).unwrap_or(i64::MAX))
    .bind(job.price.0)
    .bind(job.at.0)
    .bind(job.stream)
    .bind(job.unused_token_price.0)
    .execute(conn)
    .await
    .map_err(failed("queue a job"))?;
    Ok(())
}

/// A job.
///
/// # Errors
/// The database.
pub async fn get(conn: &mut Connection, id: JobId) -> StoreResult<Option<StoredJob>> {
    let row: Option<JobRow> = sqlx::query_as(
        "select job_id, submitter_id, model_id, state, input, price, attempts, submitted_ms, claim_id, stream,
                unused_token_price
            from jobs where job_id = $1",
    )
    .bind(uuid(id.0))
    .fetch_optional(conn)
    .await
    .map_err(failed("look up a job"))?;
    row.map(JobRow::read).transpose()
}

/// A job, locked until the transaction ends.
///
/// # Errors
/// The database.
pub async fn lock(conn: &mut Connection, id: JobId) -> StoreResult<Option<StoredJob>> {
    let row: Option<JobRow> = sqlx::query_as(
        "select job_id, submitter_id, model_id, state, input, price, attempts, submitted_ms, claim_id, stream,
                unused_token_price
            from jobs where job_id = $1 for no key update",
    )
    .bind(uuid(id.0))
    .fetch_optional(conn)
    .await
    .map_err(failed("lock a job"))?;
    row.map(JobRow::read).transpose()
}

/// The newest jobs of a submitter, newest first.
///
/// # Errors
/// The database.
pub async fn of_submitter(
    conn: &mut Connection,
    submitter: OwnerId,
    limit: i64,
) -> StoreResult<Vec<StoredJob>> {
    let rows: Vec<JobRow> = sqlx::query_as(
        "select job_id, submitter_id, model_id, state, input, price, attempts, submitted_ms, claim_id, stream,
                unused_token_price
            from jobs where submitter_id = $1 order by job_id desc limit $2",
    )
    .bind(uuid(submitter.0))
    .bind(limit)
    .fetch_all(conn)
    .await
    .map_err(failed("list jobs"))?;
    rows.into_iter().map(JobRow::read).collect()
}

/// How many jobs of a submitter are not decided, counted up to `limit`.
///
/// # Errors
/// The database.
pub async fn count_undecided(conn: &mut Connection, submitter: OwnerId, limit: u64) -> StoreResult<u64> {
    let found: i64 = sqlx::query_scalar(
        "select count(*) from (select 1 from jobs where submitter_id = $1 and decided_ms is null limit $2) as undecided",
    )
    .bind(uuid(submitter.0))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_one(conn)
    .await
    .map_err(failed("count undecided jobs"))?;
    count("a count of jobs", found)
}

/// Whether a job of one of these models waits for a worker, whoever may have it.
///
/// # Errors
/// The database.
pub async fn is_any_queued(conn: &mut Connection, models: &[ModelId]) -> StoreResult<bool> {
    let models: Vec<&[u8]> = models.iter().map(|model| model.as_bytes().as_slice()).collect();
    sqlx::query_scalar("select exists (select 1 from jobs where state = 'submitted' and model_id = any($1))")
        .bind(models)
        .fetch_one(conn)
        .await
        .map_err(failed("look into the queue"))
}

/// Locks the job of a model that waits longest and that the owner may have; jobs that others are taking at this
/// moment are passed over, and those that cost more than `highest`. So is one on which a lease of the owner's has ended
/// without a claim, for `pause_ms`, and twice as long after each further one.
///
/// # Errors
/// The database.
pub async fn lock_next(
    conn: &mut Connection,
    model: ModelId,
    owner: OwnerId,
    (now, pause_ms): (ServiceTime, u64),
    highest: Amount,
) -> StoreResult<Option<StoredJob>> {
    let row: Option<JobRow> = sqlx::query_as(
        "select job_id, submitter_id, model_id, state, input, price, attempts, submitted_ms, claim_id, stream,
                unused_token_price
            from jobs
            where state = 'submitted' and model_id = $1 and price <= $4
                and exists (select 1 from models as m where m.model_id = $1 and m.state = 'serving')
                and not exists (
                    select 1 from job_exclusions as e where e.job_id = jobs.job_id and e.owner_id = $2
                )
                and coalesce((
                    select max(l.ended_ms) + $5 * (1 << (least(count(*), 12) - 1)::integer)
                        from leases as l
                        where l.job_id = jobs.job_id and l.owner_id = $2
                            and l.state in ('lost', 'returned')
                ), $3) <= $3
            order by queued_ms, job_id
            limit 1
            for no key update skip locked",
    )
    .bind(model.as_bytes().as_slice())
    .bind(uuid(owner.0))
    .bind(now.0)
    .bind(highest.0)
    .bind(i64::try_from(pause_ms).unwrap_or(i64::MAX >> 12))
    .fetch_optional(conn)
    .await
    .map_err(failed("take a job from the queue"))?;
    row.map(JobRow::read).transpose()
}

/// Puts a job back at the end of the queue: one that ends every worker's lease must not keep the others from theirs.
///
/// # Errors
/// The database.
pub async fn requeue(conn: &mut Connection, id: JobId, at: ServiceTime) -> StoreResult<()> {
    sqlx::query("update jobs set state = 'submitted', queued_ms = $2 where job_id = $1")
        .bind(uuid(id.0))
        .bind(at.0)
        .execute(conn)
        .await
        .map_err(failed("put a job back into the queue"))?;
    Ok(())
}

/// Moves a job that goes on.
///
/// # Errors
/// The database.
pub async fn set_state(conn: &mut Connection, id: JobId, state: JobState) -> StoreResult<()> {
    sqlx::query("update jobs set state = $2 where job_id = $1")
        .bind(uuid(id.0))
        .bind(state.name())
        .execute(conn)
        .await
        .map_err(failed("move a job"))?;
    Ok(())
}

/// Notes a job's newest claim.
///
/// # Errors
/// The database.
pub async fn claimed(conn: &mut Connection, id: JobId, claim: ClaimId) -> StoreResult<()> {
    sqlx::query("update jobs set state = 'claimed', claim_id = $2 where job_id = $1")
        .bind(uuid(id.0))
        .bind(claim.as_bytes().as_slice())
        .execute(conn)
        .await
        .map_err(failed("note a job's claim"))?;
    Ok(())
}

/// Several jobs, in the order of their ids.
///
/// # Errors
/// The database.
pub async fn get_many(conn: &mut Connection, ids: &[JobId]) -> StoreResult<Vec<StoredJob>> {
    let rows: Vec<JobRow> = sqlx::query_as(
        "select job_id, submitter_id, model_id, state, input, price, attempts, submitted_ms, claim_id, stream,
                unused_token_price
            from jobs where job_id = any($1) order by job_id",
    )
    .bind(ids.iter().map(|id| uuid(id.0)).collect::<Vec<_>>())
    .fetch_all(conn)
    .await
    .map_err(failed("look up jobs"))?;
    rows.into_iter().map(JobRow::read).collect()
}

/// Ends jobs.
///
/// # Errors
/// The database.
pub async fn decide(
    conn: &mut Connection,
    ids: &[JobId],
    state: JobState,
    at: ServiceTime,
) -> StoreResult<()> {
    sqlx::query("update jobs set state = $2, decided_ms = $3 where job_id = any($1)")
        .bind(ids.iter().map(|id| uuid(id.0)).collect::<Vec<_>>())
        .bind(state.name())
        .bind(at.0)
        .execute(conn)
        .await
        .map_err(failed("decide jobs"))?;
    Ok(())
}

/// Counts a rejected claim of a job.
///
/// # Errors
/// The database.
pub async fn count_attempt(conn: &mut Connection, id: JobId) -> StoreResult<()> {
    sqlx::query("update jobs set attempts = attempts + 1 where job_id = $1")
        .bind(uuid(id.0))
        .execute(conn)
        .await
        .map_err(failed("count a job's attempt"))?;
    Ok(())
}

/// Keeps a job from all workers of an owner.
///
/// # Errors
/// The database.
pub async fn exclude(conn: &mut Connection, id: JobId, owner: OwnerId) -> StoreResult<()> {
    sqlx::query("insert into job_exclusions (job_id, owner_id) values ($1, $2) on conflict do nothing")
        .bind(uuid(id.0))
        .bind(uuid(owner.0))
        .execute(conn)
        .await
        .map_err(failed("keep a job from an owner"))?;
    Ok(())
}
