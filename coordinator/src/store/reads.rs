//! Listings and totals, for readers alone: nothing here is locked, and nothing is decided by it.

use gainsay_commitment::{Canonical, ClaimId, DisputeId, ModelId, PartyId};
use gainsay_protocol::lifecycle::{ClaimState, JobState};
use gainsay_protocol::{Amount, Dispute, JobId, LeaseId, OwnerId, ServiceTime};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Connection, StoreError, StoreResult, bytes, claims, count, failed, jobs, uuid};

/// Which claims a listing holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClaimFilter {
    /// Only claims in this state.
    pub state: Option<ClaimState>,
    /// Only claims of this worker.
    pub worker: Option<PartyId>,
    /// Only claims behind this one.
    pub after: Option<ClaimId>,
}

/// A claim in a listing.
#[derive(Debug, Clone)]
pub struct ListedClaim {
    /// Id.
    pub id: ClaimId,
    /// Which job.
    pub job: JobId,
    /// Under which lease.
    pub lease: LeaseId,
    /// Which model.
    pub model: ModelId,
    /// Whose.
    pub worker: PartyId,
    /// Where it stands.
    pub state: ClaimState,
    /// When it was received.
    pub posted: ServiceTime,
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
    model_id: Vec<u8>,
    worker_id: Vec<u8>,
    state: String,
    posted_ms: i64,
    window_ends_ms: i64,
    open_disputes: i32,
}

impl ClaimRow {
    fn read(self) -> StoreResult<ListedClaim> {
        Ok(ListedClaim {
            id: bytes("a claim's id", &self.claim_id)?,
            job: JobId(self.job_id.into_bytes()),
            lease: LeaseId(self.lease_id.into_bytes()),
            model: bytes("a claim's model", &self.model_id)?,
            worker: bytes("a claim's worker", &self.worker_id)?,
            state: claims::parse_state(&self.state)?,
            posted: ServiceTime(self.posted_ms),
            window_ends: ServiceTime(self.window_ends_ms),
            open_disputes: self.open_disputes.unsigned_abs(),
        })
    }
}

/// Claims in the order in which they were received.
///
/// # Errors
/// The database.
pub async fn claims(conn: &mut Connection, filter: ClaimFilter, limit: u32) -> StoreResult<Vec<ListedClaim>> {
    let rows: Vec<ClaimRow> = sqlx::query_as(
        "select claim_id, job_id, lease_id, model_id, worker_id, state, posted_ms, window_ends_ms, open_disputes
            from claims
            where ($1::text is null or state = $1) and ($2::bytea is null or worker_id = $2)
                and ($3::bytea is null
                    or (posted_ms, claim_id) > (select a.posted_ms, a.claim_id from claims a where a.claim_id = $3))
            order by posted_ms, claim_id limit $4",
    )
    .bind(filter.state.map(ClaimState::name))
    .bind(filter.worker.map(|id| id.as_bytes().to_vec()))
    .bind(filter.after.map(|id| id.as_bytes().to_vec()))
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await
    .map_err(failed("list claims"))?;
    rows.into_iter().map(ClaimRow::read).collect()
}

/// The newest claims, newest first.
///
/// # Errors
/// The database.
pub async fn newest_claims(conn: &mut Connection, limit: u32) -> StoreResult<Vec<ListedClaim>> {
    let rows: Vec<ClaimRow> = sqlx::query_as(
        "select claim_id, job_id, lease_id, model_id, worker_id, state, posted_ms, window_ends_ms, open_disputes
            from claims order by posted_ms desc, claim_id desc limit $1",
    )
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await
    .map_err(failed("list the newest claims"))?;
    rows.into_iter().map(ClaimRow::read).collect()
}

/// How far a dispute has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisputeStage {
    /// Moves are being made.
    Open,
    /// The clocks stand.
    Paused,
    /// There is a verdict.
    Ended,
}

impl DisputeStage {
    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Ended => "ended",
        }
    }
}

/// Which disputes a listing holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct DisputeFilter {
    /// Only disputes that have come so far.
    pub stage: Option<DisputeStage>,
    /// Only disputes on this claim.
    pub claim: Option<ClaimId>,
    /// Only disputes in which this key is worker or challenger.
    pub party: Option<PartyId>,
    /// Only disputes behind this one.
    pub after: Option<DisputeId>,
}

/// A dispute in a listing.
#[derive(Debug, Clone)]
pub struct ListedDispute {
    /// The claim's job.
    pub job: JobId,
    /// The claim's model.
    pub model: ModelId,
    /// The state machine.
    pub dispute: Dispute,
    /// When it was opened.
    pub opened: ServiceTime,
}

#[derive(FromRow)]
struct DisputeRow {
    job_id: Uuid,
    model_id: Vec<u8>,
    fold: Vec<u8>,
    opened_ms: i64,
}

impl DisputeRow {
    fn read(self) -> StoreResult<ListedDispute> {
        Ok(ListedDispute {
            job: JobId(self.job_id.into_bytes()),
            model: bytes("a claim's model", &self.model_id)?,
            dispute: Dispute::from_bytes(&self.fold)
                .map_err(|_| StoreError::Corrupt { what: "a dispute" })?,
            opened: ServiceTime(self.opened_ms),
        })
    }
}

/// Disputes in the order in which they were opened.
///
/// # Errors
/// The database.
pub async fn disputes(
    conn: &mut Connection,
    filter: DisputeFilter,
    limit: u32,
) -> StoreResult<Vec<ListedDispute>> {
    let rows: Vec<DisputeRow> = sqlx::query_as(
        "select d.job_id, c.model_id, d.fold, d.opened_ms
            from disputes d join claims c on c.job_id = d.job_id and c.claim_id = d.claim_id
            where ($1::text is null or $1 = case when d.ended_ms is null then d.state else 'ended' end)
                and ($2::bytea is null or d.claim_id = $2)
                and ($3::bytea is null or d.worker_id = $3 or d.challenger_id = $3)
                and ($4::bytea is null or (d.opened_ms, d.dispute_id)
                    > (select a.opened_ms, a.dispute_id from disputes a where a.dispute_id = $4))
            order by d.opened_ms, d.dispute_id limit $5",
    )
    .bind(filter.stage.map(DisputeStage::as_str))
    .bind(filter.claim.map(|id| id.as_bytes().to_vec()))
    .bind(filter.party.map(|id| id.as_bytes().to_vec()))
    .bind(filter.after.map(|id| id.as_bytes().to_vec()))
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await
    .map_err(failed("list disputes"))?;
    rows.into_iter().map(DisputeRow::read).collect()
}

/// The newest disputes, newest first.
///
/// # Errors
/// The database.
pub async fn newest_disputes(conn: &mut Connection, limit: u32) -> StoreResult<Vec<ListedDispute>> {
    let rows: Vec<DisputeRow> = sqlx::query_as(
        "select d.job_id, c.model_id, d.fold, d.opened_ms
            from disputes d join claims c on c.job_id = d.job_id and c.claim_id = d.claim_id
            order by d.opened_ms desc, d.dispute_id desc limit $1",
    )
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await
    .map_err(failed("list the newest disputes"))?;
    rows.into_iter().map(DisputeRow::read).collect()
}

/// A job in a listing: nothing of what it holds.
#[derive(Debug, Clone)]
pub struct ListedJob {
    /// Id.
    pub id: JobId,
    /// Which model.
    pub model: ModelId,
    /// Where it stands.
    pub state: JobState,
    /// How many tokens.
    pub tokens: u64,
    /// Rejected claims so far.
    pub attempts: u32,
    /// When it was submitted.
    pub submitted: ServiceTime,
    /// The newest claim, with its worker and where it stands.
    pub claim: Option<(ClaimId, PartyId, ClaimState)>,
}

#[derive(FromRow)]
struct JobRow {
    job_id: Uuid,
    model_id: Vec<u8>,
    state: String,
    token_count: i64,
    attempts: i32,
    submitted_ms: i64,
    claim_id: Option<Vec<u8>>,
    worker_id: Option<Vec<u8>>,
    claim_state: Option<String>,
}

impl JobRow {
    fn read(self) -> StoreResult<ListedJob> {
        let claim = match (self.claim_id, self.worker_id, self.claim_state) {
            (Some(id), Some(worker), Some(state)) => Some((
                bytes("a job's claim", &id)?,
                bytes("a claim's worker", &worker)?,
                claims::parse_state(&state)?,
            )),
            _ => None,
        };
        Ok(ListedJob {
            id: JobId(self.job_id.into_bytes()),
            model: bytes("a job's model", &self.model_id)?,
            state: jobs::parse_state(&self.state)?,
            tokens: self.token_count.unsigned_abs(),
            attempts: count("a job's attempts", self.attempts)?,
            submitted: ServiceTime(self.submitted_ms),
            claim,
        })
    }
}

/// The newest jobs, newest first.
///
/// # Errors
/// The database.
pub async fn newest_jobs(conn: &mut Connection, limit: u32) -> StoreResult<Vec<ListedJob>> {
    let rows: Vec<JobRow> = sqlx::query_as(
        "select j.job_id, j.model_id, j.state, j.token_count, j.attempts, j.submitted_ms,
                c.claim_id, c.worker_id, c.state as claim_state
            from jobs j left join claims c on c.job_id = j.job_id and c.claim_id = j.claim_id
            order by j.job_id desc limit $1",
    )
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await
    .map_err(failed("list the newest jobs"))?;
    rows.into_iter().map(JobRow::read).collect()
}

/// How many jobs there are in each state.
///
/// # Errors
/// The database.
pub async fn jobs_by_state(conn: &mut Connection) -> StoreResult<Vec<(JobState, u64)>> {
    let rows: Vec<(String, i64)> = sqlx::query_as("select state, count(*) from jobs group by state")
        .fetch_all(conn)
        .await
        .map_err(failed("count jobs"))?;
    rows.into_iter().map(|(state, n)| Ok((jobs::parse_state(&state)?, n.unsigned_abs()))).collect()
}

/// How many disputes are not decided, and how many claims were rejected.
///
/// # Errors
/// The database.
pub async fn dispute_counts(conn: &mut Connection) -> StoreResult<(u64, u64)> {
    let (open, rejected): (i64, i64) = sqlx::query_as(
        "select (select count(*) from disputes where ended_ms is null),
            (select count(*) from claims where state = 'rejected')",
    )
    .fetch_one(conn)
    .await
    .map_err(failed("count disputes"))?;
    Ok((open.unsigned_abs(), rejected.unsigned_abs()))
}

/// How many disputes on a claim are not decided.
///
/// # Errors
/// The database.
pub async fn undecided_disputes(conn: &mut Connection, claim: ClaimId) -> StoreResult<u32> {
    let open: Option<i32> = sqlx::query_scalar("select open_disputes from claims where claim_id = $1")
        .bind(claim.as_bytes().as_slice())
        .fetch_optional(conn)
        .await
        .map_err(failed("count a claim's disputes"))?;
    Ok(open.unwrap_or_default().unsigned_abs())
}

/// When each model was registered, in Unix seconds.
///
/// # Errors
/// The database.
pub async fn registration_times(conn: &mut Connection) -> StoreResult<Vec<(ModelId, i64)>> {
    let rows: Vec<(Vec<u8>, i64)> =
        sqlx::query_as("select model_id, extract(epoch from created_at)::bigint from models")
            .fetch_all(conn)
            .await
            .map_err(failed("list models"))?;
    rows.into_iter().map(|(id, at)| Ok((bytes("a model's id", &id)?, at))).collect()
}

/// A worker in a listing.
#[derive(Debug, Clone)]
pub struct ListedWorker {
    /// Its key.
    pub id: PartyId,
    /// Its name.
    pub name: String,
    /// What it says that it runs on.
    pub device: String,
    /// Whether it is suspended.
    pub suspended: bool,
}

/// The workers registered last, newest first.
///
/// # Errors
/// The database.
pub async fn newest_workers(conn: &mut Connection, limit: u32) -> StoreResult<Vec<ListedWorker>> {
    let rows: Vec<(Vec<u8>, String, String, bool)> = sqlx::query_as(
        "select worker_id, name, device, suspended_ms is not null from workers
            order by registered_ms desc, worker_id limit $1",
    )
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await
    .map_err(failed("list workers"))?;
    rows.into_iter()
        .map(|(id, name, device, suspended)| {
            Ok(ListedWorker { id: bytes("a worker's key", &id)?, name, device, suspended })
        })
        .collect()
}

/// The sum of balances of each kind of account.
///
/// # Errors
/// The database.
pub async fn balances_by_kind(conn: &mut Connection) -> StoreResult<Vec<(String, Amount)>> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select kind, sum(balance)::bigint from accounts group by kind order by kind")
            .fetch_all(conn)
            .await
            .map_err(failed("sum balances"))?;
    Ok(rows.into_iter().map(|(kind, sum)| (kind, Amount(sum))).collect())
}

/// A lease that a worker holds, with its job.
#[derive(Debug, Clone)]
pub struct HeldLease {
    /// Whether a client waits for the answer token by token.
    pub stream: bool,
    /// Id.
    pub id: LeaseId,
    /// Which job.
    pub job: JobId,
    /// Which model.
    pub model: ModelId,
    /// Canonical job bytes.
    pub input: Vec<u8>,
    /// The job's price.
    pub price: Amount,
    /// Stake locked with it.
    pub stake: Amount,
    /// When it is lost, unless a heartbeat moves that.
    pub expires: ServiceTime,
    /// When it is lost at the latest.
    pub deadline: ServiceTime,
}

#[derive(FromRow)]
struct HeldRow {
    lease_id: Uuid,
    job_id: Uuid,
    model_id: Vec<u8>,
    input: Vec<u8>,
    price: i64,
    stream: bool,
    stake: i64,
    expires_ms: i64,
    deadline_ms: i64,
}

/// The leases that a worker holds, oldest first, without those of these ids.
///
/// # Errors
/// The database.
pub async fn held_leases(
    conn: &mut Connection,
    worker: PartyId,
    except: &[LeaseId],
    limit: u32,
) -> StoreResult<Vec<HeldLease>> {
    let except: Vec<Uuid> = except.iter().map(|id| uuid(id.0)).collect();
    let rows: Vec<HeldRow> = sqlx::query_as(
        "select l.lease_id, l.job_id, j.model_id, j.input, j.price, j.stream, l.stake, l.expires_ms, l.deadline_ms
            from leases l join jobs j on j.job_id = l.job_id
            where l.worker_id = $1 and l.state = 'held' and l.lease_id <> all($2)
            order by l.lease_id limit $3",
    )
    .bind(worker.as_bytes().as_slice())
    .bind(except)
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await
    .map_err(failed("list a worker's leases"))?;
    rows.into_iter()
        .map(|row| {
            Ok(HeldLease {
                id: LeaseId(row.lease_id.into_bytes()),
                job: JobId(row.job_id.into_bytes()),
                model: bytes("a job's model", &row.model_id)?,
                input: row.input,
                price: Amount(row.price),
                stream: row.stream,
                stake: Amount(row.stake),
                expires: ServiceTime(row.expires_ms),
                deadline: ServiceTime(row.deadline_ms),
            })
        })
        .collect()
}

/// The name of an owner; empty where there is none.
///
/// # Errors
/// The database.
pub async fn owner_name(conn: &mut Connection, owner: OwnerId) -> StoreResult<String> {
    let name: Option<String> = sqlx::query_scalar("select name from owners where owner_id = $1")
        .bind(uuid(owner.0))
        .fetch_optional(conn)
        .await
        .map_err(failed("look up an owner's name"))?;
    Ok(name.unwrap_or_default())
}

/// How many leases a job had up to this one, itself included: ids of leases ascend with time.
///
/// # Errors
/// The database.
pub async fn lease_number(conn: &mut Connection, job: JobId, lease: LeaseId) -> StoreResult<u32> {
    let number: i64 = sqlx::query_scalar("select count(*) from leases where job_id = $1 and lease_id <= $2")
        .bind(uuid(job.0))
        .bind(uuid(lease.0))
        .fetch_one(conn)
        .await
        .map_err(failed("count a job's leases"))?;
    count("a count of leases", number)
}

/// How many of a job's claims had been rejected once this one was, itself included.
///
/// # Errors
/// The database.
pub async fn rejections_until(conn: &mut Connection, job: JobId, claim: ClaimId) -> StoreResult<u32> {
    let number: i64 = sqlx::query_scalar(
        "select count(*) from claims c join claims this on this.job_id = c.job_id and this.claim_id = $2
            where c.job_id = $1 and c.state = 'rejected' and c.posted_ms <= this.posted_ms",
    )
    .bind(uuid(job.0))
    .bind(claim.as_bytes().as_slice())
    .fetch_one(conn)
    .await
    .map_err(failed("count rejected claims"))?;
    count("a count of claims", number)
}
