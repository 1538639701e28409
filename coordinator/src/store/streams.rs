//! Answers as they arrive, token by token.

use gainsay_commitment::ClaimId;
use gainsay_protocol::lifecycle::JobState;
use gainsay_protocol::{JobId, LeaseId};
use uuid::Uuid;

use super::jobs::parse_state;
use super::{Connection, StoreError, StoreResult, bytes, count as counted, failed, uuid};

/// Records a piece of an answer. The caller holds the lease's lock.
///
/// # Errors
/// The database.
pub async fn append(
    conn: &mut Connection,
    job: JobId,
    lease: LeaseId,
    first_index: usize,
    tokens: &[u32],
) -> StoreResult<()> {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    sqlx::query(
        "insert into streamed_tokens (job_id, lease_id, first_index, tokens) values ($1, $2, $3, $4)",
    )
    .bind(uuid(job.0))
    .bind(uuid(lease.0))
    .bind(i32::try_from(first_index).unwrap_or(i32::MAX))
    .bind(bytes)
    .execute(conn)
    .await
    .map_err(failed("record streamed tokens"))?;
    Ok(())
}

/// How many tokens were streamed under a lease.
///
/// # Errors
/// The database.
pub async fn count(conn: &mut Connection, job: JobId, lease: LeaseId) -> StoreResult<usize> {
    let count: Option<i32> = sqlx::query_scalar(
        "select first_index + octet_length(tokens) / 4 from streamed_tokens
            where job_id = $1 and lease_id = $2 order by first_index desc limit 1",
    )
    .bind(uuid(job.0))
    .bind(uuid(lease.0))
    .fetch_optional(conn)
    .await
    .map_err(failed("count streamed tokens"))?;
    Ok(count.unwrap_or(0).unsigned_abs() as usize)
}

/// The tokens streamed under a lease, from this place of the answer on.
///
/// # Errors
/// The database.
pub async fn from(conn: &mut Connection, job: JobId, lease: LeaseId, start: usize) -> StoreResult<Vec<u32>> {
    let pieces: Vec<(i32, Vec<u8>)> = sqlx::query_as(
        "select first_index, tokens from streamed_tokens
            where job_id = $1 and lease_id = $2 and first_index + octet_length(tokens) / 4 > $3
            order by first_index",
    )
    .bind(uuid(job.0))
    .bind(uuid(lease.0))
    .bind(i32::try_from(start).unwrap_or(i32::MAX))
    .fetch_all(conn)
    .await
    .map_err(failed("read streamed tokens"))?;
    let mut tokens = Vec::new();
    let mut place = pieces.first().map_or(start, |(first, _)| first.unsigned_abs() as usize);
    for (first, bytes) in pieces {
        let (piece, rest) = bytes.as_chunks();
        if first.unsigned_abs() as usize != place || !rest.is_empty() {
            return Err(StoreError::Corrupt { what: "a streamed answer" });
        }
        place += piece.len();
        tokens.extend(piece.iter().map(|&token| u32::from_le_bytes(token)));
    }
    let before = tokens.len().saturating_sub(place.saturating_sub(start));
    Ok(tokens.split_off(before))
}

/// Forgets what was streamed under a lease.
///
/// # Errors
/// The database.
pub async fn forget(conn: &mut Connection, job: JobId, lease: LeaseId) -> StoreResult<()> {
    sqlx::query("delete from streamed_tokens where job_id = $1 and lease_id = $2")
        .bind(uuid(job.0))
        .bind(uuid(lease.0))
        .execute(conn)
        .await
        .map_err(failed("forget streamed tokens"))?;
    Ok(())
}

/// How far a job has come: whatever a client could be told of it changes this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Where it stands.
    pub state: JobState,
    /// The newest claim.
    pub claim: Option<ClaimId>,
    /// The lease that is held.
    pub lease: Option<LeaseId>,
    /// Tokens streamed under it.
    pub tokens: u32,
}

type MarkRow = (Uuid, String, Option<Vec<u8>>, Option<Uuid>, i32);

/// How far each of these jobs has come.
///
/// # Errors
/// The database.
pub async fn marks(conn: &mut Connection, jobs: &[JobId]) -> StoreResult<Vec<(JobId, Mark)>> {
    let rows: Vec<MarkRow> = sqlx::query_as(
        "select j.job_id, j.state, j.claim_id, l.lease_id, coalesce((
                select max(s.first_index + octet_length(s.tokens) / 4) from streamed_tokens s
                    where s.job_id = l.job_id and s.lease_id = l.lease_id
            ), 0)
            from jobs j left join leases l on l.job_id = j.job_id and l.state = 'held'
            where j.job_id = any($1)",
    )
    .bind(jobs.iter().map(|job| uuid(job.0)).collect::<Vec<_>>())
    .fetch_all(conn)
    .await
    .map_err(failed("look how far jobs have come"))?;
    rows.into_iter()
        .map(|(job, state, claim, lease, tokens)| {
            let mark = Mark {
                state: parse_state(&state)?,
                claim: claim.map(|id| bytes("a job's claim", &id)).transpose()?,
                lease: lease.map(|lease| LeaseId(lease.into_bytes())),
                tokens: counted("streamed tokens", tokens)?,
            };
            Ok((JobId(job.into_bytes()), mark))
        })
        .collect()
}
