//! Leases: which worker has which job, until when.

use gainsay_commitment::PartyId;
use gainsay_protocol::{Amount, JobId, LeaseId, OwnerId, ServiceTime};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Connection, StoreError, StoreResult, bytes, count, failed, streams, uuid};

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseState {
    /// The worker has the job.
    Held,
    /// The worker has answered.
    Claimed,
    /// Heartbeat or deadline missed.
    Lost,
    /// The worker has given it up.
    Returned,
    /// The operator withdrew the profile version.
    Voided,
}

impl LeaseState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Claimed => "claimed",
            Self::Lost => "lost",
            Self::Returned => "returned",
            Self::Voided => "voided",
        }
    }

    fn parse(text: &str) -> StoreResult<Self> {
        let all = [Self::Held, Self::Claimed, Self::Lost, Self::Returned, Self::Voided];
        let found = all.into_iter().find(|state| state.as_str() == text);
        found.ok_or(StoreError::Corrupt { what: "a lease's state" })
    }
}

/// A lease on record.
#[derive(Debug, Clone)]
pub struct StoredLease {
    /// Id.
    pub id: LeaseId,
    /// Which job.
    pub job: JobId,
    /// Whose.
    pub worker: PartyId,
    /// Whose worker.
    pub owner: OwnerId,
    /// Where it stands.
    pub state: LeaseState,
    /// Stake locked with it.
    pub stake: Amount,
    /// When it was given.
    pub leased: ServiceTime,
    /// When it is lost, unless a heartbeat moves that.
    pub expires: ServiceTime,
    /// When it is lost at the latest.
    pub deadline: ServiceTime,
    /// What it cost, if it ended without a claim.
    pub fee: Option<Amount>,
}

#[derive(FromRow)]
struct LeaseRow {
    lease_id: Uuid,
    job_id: Uuid,
    worker_id: Vec<u8>,
    owner_id: Uuid,
    state: String,
    stake: i64,
    leased_ms: i64,
    expires_ms: i64,
    deadline_ms: i64,
    fee: Option<i64>,
}

impl LeaseRow {
    fn read(self) -> StoreResult<StoredLease> {
        Ok(StoredLease {
            id: LeaseId(self.lease_id.into_bytes()),
            job: JobId(self.job_id.into_bytes()),
            worker: bytes("a lease's worker", &self.worker_id)?,
            owner: OwnerId(self.owner_id.into_bytes()),
            state: LeaseState::parse(&self.state)?,
            stake: Amount(self.stake),
            leased: ServiceTime(self.leased_ms),
            expires: ServiceTime(self.expires_ms),
            deadline: ServiceTime(self.deadline_ms),
            fee: self.fee.map(Amount),
        })
    }
}

/// Records a new lease.
///
/// # Errors
/// The database.
pub async fn insert(conn: &mut Connection, lease: &StoredLease) -> StoreResult<()> {
    sqlx::query(
        "insert into leases (job_id, lease_id, worker_id, owner_id, state, stake, leased_ms, expires_ms, deadline_ms)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(uuid(lease.job.0))
    .bind(uuid(lease.id.0))
    .bind(lease.worker.as_bytes().as_slice())
    .bind(uuid(lease.owner.0))
    .bind(lease.state.as_str())
    .bind(lease.stake.0)
    .bind(lease.leased.0)
    .bind(lease.expires.0)
    .bind(lease.deadline.0)
    .execute(conn)
    .await
    .map_err(failed("record a lease"))?;
    Ok(())
}

/// A lease, locked until the transaction ends.
///
/// # Errors
/// The database.
pub async fn lock(conn: &mut Connection, id: LeaseId) -> StoreResult<Option<StoredLease>> {
    let row: Option<LeaseRow> = sqlx::query_as(
        "select lease_id, job_id, worker_id, owner_id, state, stake, leased_ms, expires_ms, deadline_ms, fee
            from leases where lease_id = $1 for no key update",
    )
    .bind(uuid(id.0))
    .fetch_optional(conn)
    .await
    .map_err(failed("lock a lease"))?;
    row.map(LeaseRow::read).transpose()
}

/// The lease that is held on a job.
///
/// # Errors
/// The database.
pub async fn held_on(conn: &mut Connection, job: JobId) -> StoreResult<Option<StoredLease>> {
    let row: Option<LeaseRow> = sqlx::query_as(
        "select lease_id, job_id, worker_id, owner_id, state, stake, leased_ms, expires_ms, deadline_ms, fee
            from leases where job_id = $1 and state = 'held'",
    )
    .bind(uuid(job.0))
    .fetch_optional(conn)
    .await
    .map_err(failed("look up a job's lease"))?;
    row.map(LeaseRow::read).transpose()
}

/// Moves the time at which a lease is lost.
///
/// # Errors
/// The database.
pub async fn extend(conn: &mut Connection, lease: &StoredLease, expires: ServiceTime) -> StoreResult<()> {
    sqlx::query("update leases set expires_ms = $3 where job_id = $1 and lease_id = $2")
        .bind(uuid(lease.job.0))
        .bind(uuid(lease.id.0))
        .bind(expires.0)
        .execute(conn)
        .await
        .map_err(failed("extend a lease"))?;
    Ok(())
}

/// Ends a lease. What was streamed under it goes with it: its claim repeats it, and what has no claim is told anew.
///
/// # Errors
/// The database.
pub async fn end(
    conn: &mut Connection,
    lease: &StoredLease,
    state: LeaseState,
    at: ServiceTime,
) -> StoreResult<()> {
    sqlx::query("update leases set state = $3, ended_ms = $4 where job_id = $1 and lease_id = $2")
        .bind(uuid(lease.job.0))
        .bind(uuid(lease.id.0))
        .bind(state.as_str())
        .bind(at.0)
        .execute(&mut *conn)
        .await
        .map_err(failed("end a lease"))?;
    streams::forget(conn, lease.job, lease.id).await
}

/// How many leases a worker holds.
///
/// # Errors
/// The database.
pub async fn held_by(conn: &mut Connection, worker: PartyId) -> StoreResult<u64> {
    let held: i64 = sqlx::query_scalar("select count(*) from leases where worker_id = $1 and state = 'held'")
        .bind(worker.as_bytes().as_slice())
        .fetch_one(conn)
        .await
        .map_err(failed("count a worker's leases"))?;
    Ok(held.unsigned_abs())
}

/// Records what a lease that ended without a claim cost.
///
/// # Errors
/// The database.
pub async fn charge(conn: &mut Connection, lease: &StoredLease, fee: Amount) -> StoreResult<()> {
    sqlx::query("update leases set fee = $3 where job_id = $1 and lease_id = $2")
        .bind(uuid(lease.job.0))
        .bind(uuid(lease.id.0))
        .bind(fee.0)
        .execute(conn)
        .await
        .map_err(failed("record the fee of a lease"))?;
    Ok(())
}

/// How many leases on a job ended without a claim and at a cost.
///
/// # Errors
/// The database.
pub async fn count_fruitless(conn: &mut Connection, job: JobId) -> StoreResult<u32> {
    let found: i64 = sqlx::query_scalar("select count(*) from leases where job_id = $1 and fee > 0")
        .bind(uuid(job.0))
        .fetch_one(conn)
        .await
        .map_err(failed("count the leases that a job has seen end"))?;
    count("a count of leases", found)
}

/// How long a worker was at work on the claims of its that are pending, ms of service time: the union of the times from
/// lease to claim, since a worker that runs several jobs at once will run them again at once.
///
/// # Errors
/// The database.
pub async fn rerun_of_pending(conn: &mut Connection, worker: PartyId) -> StoreResult<u64> {
    let ms: i64 = sqlx::query_scalar(
        "select coalesce(sum(upper(span) - lower(span)), 0)::bigint from (
            select unnest(range_agg(int8range(l.leased_ms, l.ended_ms))) as span
                from claims c join leases l using (job_id, lease_id)
                where c.worker_id = $1 and c.state = 'pending'
        ) as spans",
    )
    .bind(worker.as_bytes().as_slice())
    .fetch_one(conn)
    .await
    .map_err(failed("measure a worker's pending claims"))?;
    Ok(ms.unsigned_abs())
}

/// A lease.
///
/// # Errors
/// The database.
pub async fn get(conn: &mut Connection, id: LeaseId) -> StoreResult<Option<StoredLease>> {
    let row: Option<LeaseRow> = sqlx::query_as(
        "select lease_id, job_id, worker_id, owner_id, state, stake, leased_ms, expires_ms, deadline_ms, fee
            from leases where lease_id = $1",
    )
    .bind(uuid(id.0))
    .fetch_optional(conn)
    .await
    .map_err(failed("look up a lease"))?;
    row.map(LeaseRow::read).transpose()
}

/// Leases whose time is over, with their workers. Not locked: look again under the locks.
///
/// # Errors
/// The database.
pub async fn expired(
    conn: &mut Connection,
    now: ServiceTime,
    limit: i64,
) -> StoreResult<Vec<(LeaseId, JobId, PartyId)>> {
    let rows: Vec<(Uuid, Uuid, Vec<u8>)> = sqlx::query_as(
        "select lease_id, job_id, worker_id from leases where state = 'held' and expires_ms <= $1
            order by expires_ms limit $2",
    )
    .bind(now.0)
    .bind(limit)
    .fetch_all(conn)
    .await
    .map_err(failed("find expired leases"))?;
    rows.into_iter()
        .map(|(lease, job, worker)| {
            let worker = bytes("a lease's worker", &worker)?;
            Ok((LeaseId(lease.into_bytes()), JobId(job.into_bytes()), worker))
        })
        .collect()
}
