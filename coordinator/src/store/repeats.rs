//! What is kept for a while only: keys of requests that may be sent again, nonces, refused moves.

use gainsay_protocol::{JobId, OwnerId, ServiceTime};
use uuid::Uuid;

use super::{Connection, StoreResult, failed, uuid};

/// A client's name for a request about money, so that it may send it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// Whose names these are: an owner, or all zeros for the operator.
    pub scope: OwnerId,
    /// The name.
    pub key: String,
    /// Hash of the request: route and body.
    pub request: [u8; 32],
}

/// What a request key was used for before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repeat {
    /// Nothing.
    New,
    /// The same request, which made these jobs.
    Same(Vec<JobId>),
    /// Another request.
    Other,
}

/// What a key was used for.
///
/// # Errors
/// The database.
pub async fn look_up(conn: &mut Connection, key: &RequestKey) -> StoreResult<Repeat> {
    let row: Option<(Vec<u8>, Vec<Uuid>)> =
        sqlx::query_as("select request_hash, job_ids from idempotency_keys where scope = $1 and key = $2")
            .bind(uuid(key.scope.0))
            .bind(&key.key)
            .fetch_optional(conn)
            .await
            .map_err(failed("look up a request key"))?;
    Ok(match row {
        None => Repeat::New,
        Some((hash, jobs)) if hash == key.request => {
            Repeat::Same(jobs.into_iter().map(|id| JobId(id.into_bytes())).collect())
        }
        Some(_) => Repeat::Other,
    })
}

/// Uses a key for a request that makes these jobs, unless it was used before. Whoever comes second waits until the first
/// has ended, one way or the other.
///
/// # Errors
/// The database.
pub async fn take(
    conn: &mut Connection,
    key: &RequestKey,
    jobs: &[JobId],
    at: ServiceTime,
) -> StoreResult<Repeat> {
    let done = sqlx::query(
        "insert into idempotency_keys (scope, key, request_hash, job_ids, received_ms)
            values ($1, $2, $3, $4, $5) on conflict do nothing",
    )
    .bind(uuid(key.scope.0))
    .bind(&key.key)
    .bind(key.request.as_slice())
    .bind(jobs.iter().map(|id| uuid(id.0)).collect::<Vec<_>>())
    .bind(at.0)
    .execute(&mut *conn)
    .await
    .map_err(failed("use a request key"))?;
    if done.rows_affected() > 0 { Ok(Repeat::New) } else { look_up(conn, key).await }
}

/// Rows that one statement forgets at most.
const FORGOTTEN_AT_ONCE: i64 = 10_000;

/// From when on things are kept; what is older is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Nonces of signed requests.
    pub nonces: ServiceTime,
    /// Request keys.
    pub keys: ServiceTime,
    /// Refused moves of disputes that are over.
    pub refusals: ServiceTime,
}

/// Forgets what is old, a bounded number of rows. How many.
///
/// # Errors
/// The database.
pub async fn forget(conn: &mut Connection, keep: Keep) -> StoreResult<u64> {
    let statements = [
        (
            "delete from request_nonces where ctid in
                (select ctid from request_nonces where received_ms < $1 order by received_ms limit $2)",
            keep.nonces,
        ),
        (
            "delete from idempotency_keys where ctid in
                (select ctid from idempotency_keys where received_ms < $1 order by received_ms limit $2)",
            keep.keys,
        ),
        (
            "delete from move_refusals where ctid in
                (select r.ctid from move_refusals r join disputes d using (job_id, dispute_id)
                    where r.at_ms < $1 and d.ended_ms < $1 order by r.at_ms limit $2)",
            keep.refusals,
        ),
    ];
    let mut forgotten = 0;
    for (statement, before) in statements {
        let done = sqlx::query(statement)
            .bind(before.0)
            .bind(FORGOTTEN_AT_ONCE)
            .execute(&mut *conn)
            .await
            .map_err(failed("forget what is old"))?;
        forgotten += done.rows_affected();
    }
    Ok(forgotten)
}
