//! Profile versions that were withdrawn, and what of theirs is still undecided.

use gainsay_protocol::{JobId, ServiceTime};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Connection, StoreResult, failed, uuid};

/// Taken exclusively by whoever withdraws a profile, shared by whoever registers a model, makes claims final or pays out
/// what is held.
const LOCK: i64 = 0x6761_696e_766f_6964;

/// A withdrawal on record.
#[derive(Debug, Clone)]
pub struct StoredVoid {
    /// Name and version of the profile.
    pub arithmetic: String,
    /// The signed statement.
    pub statement: Vec<u8>,
    /// Why.
    pub reason: String,
    /// When.
    pub at: ServiceTime,
}

#[derive(FromRow)]
struct VoidRow {
    arithmetic: String,
    statement: Vec<u8>,
    reason: String,
    at_ms: i64,
}

impl From<VoidRow> for StoredVoid {
    fn from(row: VoidRow) -> Self {
        let VoidRow { arithmetic, statement, reason, at_ms } = row;
        Self { arithmetic, statement, reason, at: ServiceTime(at_ms) }
    }
}

/// Keeps models from being registered until the transaction ends.
///
/// # Errors
/// The database.
pub async fn lock(conn: &mut Connection) -> StoreResult<()> {
    let locked = sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(conn).await;
    locked.map(drop).map_err(failed("lock the withdrawals"))
}

/// Keeps profiles from being withdrawn until the transaction ends.
///
/// # Errors
/// The database.
pub async fn lock_shared(conn: &mut Connection) -> StoreResult<()> {
    let locked = sqlx::query("select pg_advisory_xact_lock_shared($1)").bind(LOCK).execute(conn).await;
    locked.map(drop).map_err(failed("share the lock on the withdrawals"))
}

/// Records a withdrawal.
///
/// # Errors
/// The database, or the profile was withdrawn before.
pub async fn insert(conn: &mut Connection, void: &StoredVoid) -> StoreResult<()> {
    sqlx::query("insert into voids (arithmetic, statement, reason, at_ms) values ($1, $2, $3, $4)")
        .bind(&void.arithmetic)
        .bind(&void.statement)
        .bind(&void.reason)
        .bind(void.at.0)
        .execute(conn)
        .await
        .map_err(failed("record a withdrawal"))?;
    Ok(())
}

/// The withdrawal of a profile, if it was.
///
/// # Errors
/// The database.
pub async fn get(conn: &mut Connection, arithmetic: &str) -> StoreResult<Option<StoredVoid>> {
    let row: Option<VoidRow> =
        sqlx::query_as("select arithmetic, statement, reason, at_ms from voids where arithmetic = $1")
            .bind(arithmetic)
            .fetch_optional(conn)
            .await
            .map_err(failed("look up a withdrawal"))?;
    Ok(row.map(StoredVoid::from))
}

/// All withdrawals, oldest first.
///
/// # Errors
/// The database.
pub async fn list(conn: &mut Connection) -> StoreResult<Vec<StoredVoid>> {
    let rows: Vec<VoidRow> =
        sqlx::query_as("select arithmetic, statement, reason, at_ms from voids order by at_ms, arithmetic")
            .fetch_all(conn)
            .await
            .map_err(failed("list withdrawals"))?;
    Ok(rows.into_iter().map(StoredVoid::from).collect())
}

/// Whether the model of a job was withdrawn. With the [shared lock](lock_shared), it stays as it is.
///
/// # Errors
/// The database.
pub async fn is_of_withdrawn(conn: &mut Connection, job: JobId) -> StoreResult<bool> {
    sqlx::query_scalar(
        "select exists (select 1 from jobs join models m using (model_id) where job_id = $1 and m.state = 'voided')",
    )
    .bind(uuid(job.0))
    .fetch_one(conn)
    .await
    .map_err(failed("look whether a job's model was withdrawn"))
}

/// Jobs of withdrawn models that are not decided. Not locked.
///
/// # Errors
/// The database.
pub async fn jobs(conn: &mut Connection, limit: i64) -> StoreResult<Vec<JobId>> {
    let rows: Vec<Uuid> = sqlx::query_scalar(
        "select j.job_id from models m join jobs j using (model_id)
            where m.state = 'voided' and j.decided_ms is null order by j.job_id limit $1",
    )
    .bind(limit)
    .fetch_all(conn)
    .await
    .map_err(failed("find jobs to void"))?;
    Ok(rows.into_iter().map(|id| JobId(id.into_bytes())).collect())
}
