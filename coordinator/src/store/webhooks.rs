//! Notices that are owed to submitters.

use gainsay_protocol::{JobId, ServiceTime};
use uuid::Uuid;

use super::{Connection, StoreResult, count, failed, uuid};

/// A notice that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueNotice {
    /// Of which job.
    pub job: JobId,
    /// Where it goes.
    pub url: String,
    /// Which delivery this is, from 1.
    pub attempt: u32,
    /// When the job was decided.
    pub decided: ServiceTime,
}

/// Notes where the submitter of these jobs wants to be told.
///
/// # Errors
/// The database.
pub async fn insert(conn: &mut Connection, jobs: &[JobId], url: &str) -> StoreResult<()> {
    sqlx::query(
        "insert into webhooks (job_id, url, next_ms) select job, $2, 0 from unnest($1::uuid[]) as j (job)",
    )
    .bind(jobs.iter().map(|job| uuid(job.0)).collect::<Vec<_>>())
    .bind(url)
    .execute(conn)
    .await
    .map_err(failed("note a webhook"))?;
    Ok(())
}

/// Takes up notices of decided jobs. Nobody else does before `again`, which is when they are due again unless they are
/// [`done`].
///
/// # Errors
/// The database.
pub async fn take(
    conn: &mut Connection,
    now: ServiceTime,
    again: ServiceTime,
    limit: i64,
) -> StoreResult<Vec<DueNotice>> {
    let rows: Vec<(Uuid, String, i32, i64)> = sqlx::query_as(
        "with due as (
            select w.job_id, j.decided_ms from webhooks w join jobs j using (job_id)
                where w.next_ms <= $1 and j.decided_ms is not null
                order by w.next_ms limit $3 for update of w skip locked
        )
        update webhooks set attempts = attempts + 1, next_ms = $2 from due where webhooks.job_id = due.job_id
            returning webhooks.job_id, url, attempts, due.decided_ms",
    )
    .bind(now.0)
    .bind(again.0)
    .bind(limit)
    .fetch_all(conn)
    .await
    .map_err(failed("take up notices"))?;
    rows.into_iter()
        .map(|(job, url, attempts, decided)| {
            let attempt = count("a notice's attempts", attempts)?;
            Ok(DueNotice { job: JobId(job.into_bytes()), url, attempt, decided: ServiceTime(decided) })
        })
        .collect()
}

/// Puts a notice off.
///
/// # Errors
/// The database.
pub async fn put_off(conn: &mut Connection, job: JobId, until: ServiceTime) -> StoreResult<()> {
    sqlx::query("update webhooks set next_ms = $2 where job_id = $1")
        .bind(uuid(job.0))
        .bind(until.0)
        .execute(conn)
        .await
        .map_err(failed("put a notice off"))?;
    Ok(())
}

/// Puts a notice off that was not tried.
///
/// # Errors
/// The database.
pub async fn put_back(conn: &mut Connection, job: JobId, until: ServiceTime) -> StoreResult<()> {
    sqlx::query("update webhooks set next_ms = $2, attempts = greatest(attempts - 1, 0) where job_id = $1")
        .bind(uuid(job.0))
        .bind(until.0)
        .execute(conn)
        .await
        .map_err(failed("put a notice back"))?;
    Ok(())
}

/// The notice was taken, or is given up.
///
/// # Errors
/// The database.
pub async fn done(conn: &mut Connection, job: JobId) -> StoreResult<()> {
    sqlx::query("delete from webhooks where job_id = $1")
        .bind(uuid(job.0))
        .execute(conn)
        .await
        .map_err(failed("forget a notice"))?;
    Ok(())
}
