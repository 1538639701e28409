//! Claims, their layer commitments, and how they were settled.

use gainsay_commitment::{ClaimId, DisputeId, ModelId, PartyId, Signature, TensorCommitment, TraceRoot};
use gainsay_protocol::lifecycle::ClaimState;
use gainsay_protocol::{Amount, DisputeTerms, JobId, LeaseId, OwnerId, ServiceTime};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Connection, StoreError, StoreResult, bytes, failed, uuid};

pub(super) fn parse_state(text: &str) -> StoreResult<ClaimState> {
    ClaimState::parse(text).ok_or(StoreError::Corrupt { what: "a claim's state" })
}

/// What rejected a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectedBecause {
    /// A dispute proved it wrong.
    Dispute,
    /// Its worker signed another for the same lease.
    Equivocation,
}

impl RejectedBecause {
    /// The name in the database and in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dispute => "dispute",
            Self::Equivocation => "equivocation",
        }
    }
}

/// How a claim was settled: once, one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settlement {
    /// Its worker was paid.
    Paid,
    /// Its stake was taken.
    Slashed,
}

/// A claim on record.
#[derive(Debug, Clone)]
pub struct StoredClaim {
    /// Id.
    pub id: ClaimId,
    /// Which job.
    pub job: JobId,
    /// Under which lease.
    pub lease: LeaseId,
    /// Whose.
    pub worker: PartyId,
    /// Whose worker.
    pub owner: OwnerId,
    /// Which model.
    pub model: ModelId,
    /// Where it stands.
    pub state: ClaimState,
    /// The bytes received.
    pub signed: Vec<u8>,
    /// Root over the layer commitments.
    pub trace_root: TraceRoot,
    /// The coordinator's signature over the receipt.
    pub countersignature: Signature,
    /// What the worker said that it ran on.
    pub device: String,
    /// Stake locked for it.
    pub stake: Amount,
    /// When it was received.
    pub posted: ServiceTime,
    /// The terms of disputes on it, as countersigned.
    pub terms: DisputeTerms,
    /// When its window closes.
    pub window_ends: ServiceTime,
    /// Disputes not decided.
    pub open_disputes: u32,
}

#[derive(FromRow)]
struct ClaimRow {
    claim_id: Vec<u8>,
    job_id: Uuid,
    lease_id: Uuid,
    worker_id: Vec<u8>,
    owner_id: Uuid,
    model_id: Vec<u8>,
    state: String,
    signed: Vec<u8>,
    trace_root: Vec<u8>,
    countersignature: Vec<u8>,
    device: String,
    stake: i64,
    posted_ms: i64,
    receipt_closes_ms: i64,
    worker_allowance_ms: i64,
    challenger_allowance_ms: i64,
    window_ends_ms: i64,
    open_disputes: i32,
}

impl ClaimRow {
    fn read(self) -> StoreResult<StoredClaim> {
        Ok(StoredClaim {
            id: bytes("a claim's id", &self.claim_id)?,
            job: JobId(self.job_id.into_bytes()),
            lease: LeaseId(self.lease_id.into_bytes()),
            worker: bytes("a claim's worker", &self.worker_id)?,
            owner: OwnerId(self.owner_id.into_bytes()),
            model: bytes("a claim's model", &self.model_id)?,
            state: parse_state(&self.state)?,
            signed: self.signed,
            trace_root: bytes("a claim's trace root", &self.trace_root)?,
            countersignature: bytes("a claim's countersignature", &self.countersignature)?,
            device: self.device,
            stake: Amount(self.stake),
            posted: ServiceTime(self.posted_ms),
            terms: DisputeTerms {
                window_closes: ServiceTime(self.receipt_closes_ms),
                worker_allowance_ms: self.worker_allowance_ms.unsigned_abs(),
                challenger_allowance_ms: self.challenger_allowance_ms.unsigned_abs(),
            },
            window_ends: ServiceTime(self.window_ends_ms),
            open_disputes: self.open_disputes.unsigned_abs(),
        })
    }
}

/// Records a claim with its layer commitments.
///
/// # Errors
/// The database.
pub async fn insert(
    conn: &mut Connection,
    claim: &StoredClaim,
    layers: &[TensorCommitment],
) -> StoreResult<()> {
    sqlx::query(
        "insert into claims (job_id, claim_id, lease_id, worker_id, owner_id, model_id, state, signed, trace_root,
                countersignature, device, stake, posted_ms, receipt_closes_ms, worker_allowance_ms,
                challenger_allowance_ms, window_ends_ms)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
    )
    .bind(uuid(claim.job.0))
    .bind(claim.id.as_bytes().as_slice())
    .bind(uuid(claim.lease.0))
    .bind(claim.worker.as_bytes().as_slice())
    .bind(uuid(claim.owner.0))
    .bind(claim.model.as_bytes().as_slice())
    .bind(claim.state.name())
    .bind(&claim.signed)
    .bind(claim.trace_root.as_bytes().as_slice())
    .bind(claim.countersignature.as_bytes().as_slice())
    .bind(&claim.device)
    .bind(claim.stake.0)
    .bind(claim.posted.0)
    .bind(claim.terms.window_closes.0)
    .bind(i64::try_from(claim.terms.worker_allowance_ms).unwrap_or(i64::MAX))
    .bind(i64::try_from(claim.terms.challenger_allowance_ms).unwrap_or(i64::MAX))
    .bind(claim.window_ends.0)
    .execute(&mut *conn)
    .await
    .map_err(failed("record a claim"))?;
    let commitments: Vec<Vec<u8>> = layers.iter().map(|layer| layer.as_bytes().to_vec()).collect();
    sqlx::query(
        "insert into claim_layers (job_id, claim_id, layer, commitment)
            select $1, $2, n - 1, c from unnest($3::bytea[]) with ordinality as l (c, n)",
    )
    .bind(uuid(claim.job.0))
    .bind(claim.id.as_bytes().as_slice())
    .bind(commitments)
    .execute(conn)
    .await
    .map_err(failed("record a claim's layers"))?;
    Ok(())
}

/// A claim.
///
/// # Errors
/// The database.
pub async fn get(conn: &mut Connection, id: ClaimId) -> StoreResult<Option<StoredClaim>> {
    let row: Option<ClaimRow> = sqlx::query_as(
        "select claim_id, job_id, lease_id, worker_id, owner_id, model_id, state, signed, trace_root,
                countersignature, device, stake, posted_ms, receipt_closes_ms, worker_allowance_ms,
                challenger_allowance_ms, window_ends_ms, open_disputes
            from claims where claim_id = $1",
    )
    .bind(id.as_bytes().as_slice())
    .fetch_optional(conn)
    .await
    .map_err(failed("look up a claim"))?;
    row.map(ClaimRow::read).transpose()
}

/// The claim made under a lease.
///
/// # Errors
/// The database.
pub async fn of_lease(conn: &mut Connection, job: JobId, lease: LeaseId) -> StoreResult<Option<StoredClaim>> {
    let row: Option<ClaimRow> = sqlx::query_as(
        "select claim_id, job_id, lease_id, worker_id, owner_id, model_id, state, signed, trace_root,
                countersignature, device, stake, posted_ms, receipt_closes_ms, worker_allowance_ms,
                challenger_allowance_ms, window_ends_ms, open_disputes
            from claims where job_id = $1 and lease_id = $2 for no key update",
    )
    .bind(uuid(job.0))
    .bind(uuid(lease.0))
    .fetch_optional(conn)
    .await
    .map_err(failed("look up a lease's claim"))?;
    row.map(ClaimRow::read).transpose()
}

/// A claim, locked until the transaction ends.
///
/// # Errors
/// The database.
pub async fn lock(conn: &mut Connection, job: JobId, id: ClaimId) -> StoreResult<Option<StoredClaim>> {
    let row: Option<ClaimRow> = sqlx::query_as(
        "select claim_id, job_id, lease_id, worker_id, owner_id, model_id, state, signed, trace_root,
                countersignature, device, stake, posted_ms, receipt_closes_ms, worker_allowance_ms,
                challenger_allowance_ms, window_ends_ms, open_disputes
            from claims where job_id = $1 and claim_id = $2 for no key update",
    )
    .bind(uuid(job.0))
    .bind(id.as_bytes().as_slice())
    .fetch_optional(conn)
    .await
    .map_err(failed("lock a claim"))?;
    row.map(ClaimRow::read).transpose()
}

/// The disputes on a claim, oldest first.
///
/// # Errors
/// The database.
pub async fn disputes(conn: &mut Connection, job: JobId, id: ClaimId) -> StoreResult<Vec<DisputeId>> {
    let rows: Vec<Vec<u8>> = sqlx::query_scalar(
        "select dispute_id from disputes where job_id = $1 and claim_id = $2 order by opened_ms, created_at",
    )
    .bind(uuid(job.0))
    .bind(id.as_bytes().as_slice())
    .fetch_all(conn)
    .await
    .map_err(failed("list a claim's disputes"))?;
    rows.iter().map(|id| bytes("a dispute's id", id)).collect()
}

/// Counts disputes on a claim up or down.
///
/// # Errors
/// The database.
pub async fn count_dispute(conn: &mut Connection, job: JobId, id: ClaimId, change: i32) -> StoreResult<()> {
    sqlx::query("update claims set open_disputes = open_disputes + $3 where job_id = $1 and claim_id = $2")
        .bind(uuid(job.0))
        .bind(id.as_bytes().as_slice())
        .bind(change)
        .execute(conn)
        .await
        .map_err(failed("count a claim's disputes"))?;
    Ok(())
}

/// Rejects a claim on which no dispute is open any more.
///
/// # Errors
/// The database.
pub async fn reject(
    conn: &mut Connection,
    job: JobId,
    id: ClaimId,
    because: RejectedBecause,
    at: ServiceTime,
) -> StoreResult<()> {
    sqlx::query(
        "update claims set state = 'rejected', rejected_because = $3, decided_ms = $4
            where job_id = $1 and claim_id = $2 and state = 'pending'",
    )
    .bind(uuid(job.0))
    .bind(id.as_bytes().as_slice())
    .bind(because.as_str())
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("reject a claim"))?;
    Ok(())
}

/// Voids a pending claim on which no dispute is open any more.
///
/// # Errors
/// The database.
pub async fn void(conn: &mut Connection, job: JobId, id: ClaimId, at: ServiceTime) -> StoreResult<()> {
    sqlx::query(
        "update claims set state = 'voided', decided_ms = $3
            where job_id = $1 and claim_id = $2 and state = 'pending'",
    )
    .bind(uuid(job.0))
    .bind(id.as_bytes().as_slice())
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("void a claim"))?;
    Ok(())
}

/// Makes claims final.
///
/// # Errors
/// The database.
pub async fn finalize(conn: &mut Connection, claims: &[StoredClaim], at: ServiceTime) -> StoreResult<()> {
    let (jobs, ids) = keys(claims);
    sqlx::query(
        "update claims set state = 'finalized', decided_ms = $3
            from unnest($1::uuid[], $2::bytea[]) as f (job_id, claim_id)
            where claims.job_id = f.job_id and claims.claim_id = f.claim_id and claims.state = 'pending'",
    )
    .bind(jobs)
    .bind(ids)
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("finalize claims"))?;
    Ok(())
}

fn keys<'a>(claims: impl IntoIterator<Item = &'a StoredClaim>) -> (Vec<Uuid>, Vec<Vec<u8>>) {
    claims.into_iter().map(|claim| (uuid(claim.job.0), claim.id.as_bytes().to_vec())).unzip()
}

/// Records how claims were settled and by which ledger transactions. A second settlement of a claim is refused by
/// its primary key.
///
/// # Errors
/// The database.
pub async fn settle(
    conn: &mut Connection,
    settled: &[(&StoredClaim, [u8; 16])],
    how: Settlement,
    at: ServiceTime,
) -> StoreResult<()> {
    let kind = match how {
        Settlement::Paid => "paid",
        Settlement::Slashed => "slashed",
    };
    let (jobs, ids) = keys(settled.iter().map(|(claim, _)| *claim));
    let transactions: Vec<Uuid> = settled.iter().map(|(_, transaction)| uuid(*transaction)).collect();
    sqlx::query(
        "insert into settlements (job_id, claim_id, kind, transaction_id, at_ms)
            select j, c, $4, t, $5 from unnest($1::uuid[], $2::bytea[], $3::uuid[]) as s (j, c, t)",
    )
    .bind(jobs)
    .bind(ids)
    .bind(transactions)
    .bind(kind)
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("settle claims"))?;
    Ok(())
}

/// Starts the windows of all pending claims of a worker anew.
///
/// # Errors
/// The database.
pub async fn restart_windows(
    conn: &mut Connection,
    worker: PartyId,
    window_ends: ServiceTime,
) -> StoreResult<u64> {
    let done = sqlx::query(
        "with locked as (
            select job_id, claim_id from claims where worker_id = $1 and state = 'pending'
                order by job_id, claim_id for no key update
        )
        update claims set window_ends_ms = greatest(window_ends_ms, $2)
            from locked where claims.job_id = locked.job_id and claims.claim_id = locked.claim_id",
    )
    .bind(worker.as_bytes().as_slice())
    .bind(window_ends.0)
    .execute(conn)
    .await
    .map_err(failed("restart windows"))?;
    Ok(done.rows_affected())
}

/// Keeps the second claim of a lease as evidence.
///
/// # Errors
/// The database.
pub async fn record_equivocation(
    conn: &mut Connection,
    job: JobId,
    lease: LeaseId,
    signed: &[u8],
    reporter: Option<OwnerId>,
    at: ServiceTime,
) -> StoreResult<bool> {
    let done = sqlx::query(
        "insert into equivocations (job_id, lease_id, signed, reporter_id, at_ms) values ($1, $2, $3, $4, $5)
            on conflict do nothing",
    )
    .bind(uuid(job.0))
    .bind(uuid(lease.0))
    .bind(signed)
    .bind(reporter.map(|owner| uuid(owner.0)))
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("record an equivocation"))?;
    Ok(done.rows_affected() > 0)
}

/// Jobs with a pending, undisputed claim whose window has closed, longest closed first; those of withdrawn models are
/// not among them. Not locked.
///
/// # Errors
/// The database.
pub async fn mature(conn: &mut Connection, now: ServiceTime, limit: i64) -> StoreResult<Vec<JobId>> {
    let rows: Vec<Uuid> = sqlx::query_scalar(
        "select job_id from claims
            where state = 'pending' and open_disputes = 0 and window_ends_ms <= $1
                and not exists (select 1 from models m where m.model_id = claims.model_id and m.state = 'voided')
            order by window_ends_ms limit $2",
    )
    .bind(now.0)
    .bind(limit)
    .fetch_all(conn)
    .await
    .map_err(failed("find claims whose window has closed"))?;
    Ok(rows.into_iter().map(|id| JobId(id.into_bytes())).collect())
}

/// Locks, of these jobs, those that nobody else holds, and then their claims that are pending, undisputed and
/// past their window.
///
/// # Errors
/// The database.
pub async fn lock_mature(
    conn: &mut Connection,
    jobs: &[JobId],
    now: ServiceTime,
) -> StoreResult<Vec<StoredClaim>> {
    let jobs: Vec<Uuid> = jobs.iter().map(|job| uuid(job.0)).collect();
    let locked: Vec<Uuid> = sqlx::query_scalar(
        "select job_id from jobs where job_id = any($1) order by job_id for no key update skip locked",
    )
    .bind(jobs)
    .fetch_all(&mut *conn)
    .await
    .map_err(failed("lock jobs to finalize"))?;
    let rows: Vec<ClaimRow> = sqlx::query_as(
        "select claim_id, job_id, lease_id, worker_id, owner_id, model_id, state, signed, trace_root,
                countersignature, device, stake, posted_ms, receipt_closes_ms, worker_allowance_ms,
                challenger_allowance_ms, window_ends_ms, open_disputes
            from claims
            where job_id = any($1) and state = 'pending' and open_disputes = 0 and window_ends_ms <= $2
                and not exists (select 1 from models m where m.model_id = claims.model_id and m.state = 'voided')
            order by job_id, claim_id for no key update skip locked",
    )
    .bind(locked)
    .bind(now.0)
    .fetch_all(conn)
    .await
    .map_err(failed("lock claims to finalize"))?;
    rows.into_iter().map(ClaimRow::read).collect()
}
