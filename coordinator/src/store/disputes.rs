//! Disputes: the fold, its countersigned log, and what was revealed.

use gainsay_commitment::{Canonical, ClaimId, DisputeId, MoveHash, PartyId, Signature, Signed};
use gainsay_protocol::ledger::Opening;
use gainsay_protocol::{
    Dispute, Entry, Event, JobId, Open, OwnerId, Reveal, Reveals, Role, ServiceTime, Verdict,
};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Connection, StoreError, StoreResult, bytes, count, failed, uuid};

/// Where a dispute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DisputeState {
    /// Being played.
    Open,
    /// The referee failed; clocks stand until an operator acts.
    Paused,
    /// Over.
    Ended(Verdict),
}

impl DisputeState {
    const ALL: [Self; 6] = [
        Self::Open,
        Self::Paused,
        Self::Ended(Verdict::ChallengerWins),
        Self::Ended(Verdict::WorkerWins),
        Self::Ended(Verdict::Moot),
        Self::Ended(Verdict::Void),
    ];

    /// The name in the database and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Ended(verdict) => verdict.name(),
        }
    }

    fn of(dispute: &Dispute) -> Self {
        match dispute.outcome() {
            Some(outcome) => Self::Ended(outcome.verdict),
            None if dispute.is_paused() => Self::Paused,
            None => Self::Open,
        }
    }

    fn parse(text: &str) -> StoreResult<Self> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or(StoreError::Corrupt { what: "a dispute's state" })
    }
}

/// A dispute on record.
#[derive(Debug, Clone)]
pub struct StoredDispute {
    /// The claim's job.
    pub job: JobId,
    /// The bond behind it.
    pub bond: [u8; 16],
    /// The state machine.
    pub dispute: Dispute,
    /// Where it stands.
    pub state: DisputeState,
    /// When it was opened.
    pub opened: ServiceTime,
}

#[derive(FromRow)]
struct DisputeRow {
    job_id: Uuid,
    bond_id: Uuid,
    state: String,
    fold: Vec<u8>,
    opened_ms: i64,
}

impl DisputeRow {
    fn read(self) -> StoreResult<StoredDispute> {
        Ok(StoredDispute {
            job: JobId(self.job_id.into_bytes()),
            bond: self.bond_id.into_bytes(),
            dispute: Dispute::from_bytes(&self.fold)
                .map_err(|_| StoreError::Corrupt { what: "a dispute's state" })?,
            state: DisputeState::parse(&self.state)?,
            opened: ServiceTime(self.opened_ms),
        })
    }
}

/// The readable columns of a dispute, all of them derived from the state machine.
struct Columns {
    state: &'static str,
    phase: &'static str,
    reason: Option<&'static str>,
    turn: Option<&'static str>,
    deadline_ms: Option<i64>,
    ended_ms: Option<i64>,
    fold: Vec<u8>,
}

impl Columns {
    fn of(dispute: &Dispute) -> Self {
        let outcome = dispute.outcome();
        Self {
            state: DisputeState::of(dispute).as_str(),
            phase: dispute.phase().name(),
            reason: outcome.map(|outcome| outcome.cause.name()),
            turn: dispute.turn().map(Role::name),
            deadline_ms: dispute.deadline().map(|deadline| deadline.0),
            ended_ms: outcome.map(|outcome| outcome.time.0),
            fold: dispute.to_bytes(),
        }
    }
}

/// Records a new dispute.
///
/// # Errors
/// The database.
pub async fn insert(
    conn: &mut Connection,
    job: JobId,
    bond: [u8; 16],
    dispute: &Dispute,
    at: ServiceTime,
) -> StoreResult<()> {
    let columns = Columns::of(dispute);
    let opening = dispute.opening();
    sqlx::query(
        "insert into disputes (job_id, dispute_id, claim_id, challenger_id, worker_id, bond_id, layer, commitment,
                state, phase, reason, turn, deadline_ms, fold, version, opened_ms, ended_ms)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 1, $15, $16)",
    )
    .bind(uuid(job.0))
    .bind(dispute.id().as_bytes().as_slice())
    .bind(opening.claim.as_bytes().as_slice())
    .bind(opening.challenger.as_bytes().as_slice())
    .bind(dispute.worker().as_bytes().as_slice())
    .bind(uuid(bond))
    .bind(i32::try_from(opening.layer).unwrap_or(i32::MAX))
    .bind(opening.commitment.as_bytes().as_slice())
    .bind(columns.state)
    .bind(columns.phase)
    .bind(columns.reason)
    .bind(columns.turn)
    .bind(columns.deadline_ms)
    .bind(columns.fold)
    .bind(at.0)
    .bind(columns.ended_ms)
    .execute(conn)
    .await
    .map_err(failed("record a dispute"))?;
    Ok(())
}

/// Saves a dispute that has changed.
///
/// # Errors
/// The database.
pub async fn update(conn: &mut Connection, job: JobId, dispute: &Dispute) -> StoreResult<()> {
    let columns = Columns::of(dispute);
    sqlx::query(
        "update disputes
            set state = $3, phase = $4, reason = $5, turn = $6, deadline_ms = $7, fold = $8, ended_ms = $9,
                version = version + 1
            where job_id = $1 and dispute_id = $2",
    )
    .bind(uuid(job.0))
    .bind(dispute.id().as_bytes().as_slice())
    .bind(columns.state)
    .bind(columns.phase)
    .bind(columns.reason)
    .bind(columns.turn)
    .bind(columns.deadline_ms)
    .bind(columns.fold)
    .bind(columns.ended_ms)
    .execute(conn)
    .await
    .map_err(failed("save a dispute"))?;
    Ok(())
}

/// A dispute.
///
/// # Errors
/// The database.
pub async fn get(conn: &mut Connection, id: DisputeId) -> StoreResult<Option<StoredDispute>> {
    let row: Option<DisputeRow> =
        sqlx::query_as("select job_id, bond_id, state, fold, opened_ms from disputes where dispute_id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(conn)
            .await
            .map_err(failed("look up a dispute"))?;
    row.map(DisputeRow::read).transpose()
}

/// A dispute, locked until the transaction ends.
///
/// # Errors
/// The database.
pub async fn lock(conn: &mut Connection, job: JobId, id: DisputeId) -> StoreResult<Option<StoredDispute>> {
    let row: Option<DisputeRow> = sqlx::query_as(
        "select job_id, bond_id, state, fold, opened_ms from disputes
            where job_id = $1 and dispute_id = $2 for no key update",
    )
    .bind(uuid(job.0))
    .bind(id.as_bytes().as_slice())
    .fetch_optional(conn)
    .await
    .map_err(failed("lock a dispute"))?;
    row.map(DisputeRow::read).transpose()
}

/// Locks the undecided disputes on a claim.
///
/// # Errors
/// The database.
pub async fn lock_undecided_on_claim(
    conn: &mut Connection,
    job: JobId,
    claim: ClaimId,
) -> StoreResult<Vec<StoredDispute>> {
    let rows: Vec<DisputeRow> = sqlx::query_as(
        "select job_id, bond_id, state, fold, opened_ms from disputes
            where job_id = $1 and claim_id = $2 and ended_ms is null
            order by dispute_id for no key update",
    )
    .bind(uuid(job.0))
    .bind(claim.as_bytes().as_slice())
    .fetch_all(conn)
    .await
    .map_err(failed("lock the disputes on a claim"))?;
    rows.into_iter().map(DisputeRow::read).collect()
}

/// Locks the undecided disputes that a bond backs.
///
/// # Errors
/// The database.
pub async fn lock_undecided_of_bond(
    conn: &mut Connection,
    bond: [u8; 16],
) -> StoreResult<Vec<StoredDispute>> {
    let rows: Vec<DisputeRow> = sqlx::query_as(
        "select job_id, bond_id, state, fold, opened_ms from disputes
            where bond_id = $1 and ended_ms is null
            order by job_id, dispute_id for no key update",
    )
    .bind(uuid(bond))
    .fetch_all(conn)
    .await
    .map_err(failed("lock the disputes of a bond"))?;
    rows.into_iter().map(DisputeRow::read).collect()
}

/// Whether the challenger has a dispute on the claim that is not decided.
///
/// # Errors
/// The database.
pub async fn is_disputing(
    conn: &mut Connection,
    job: JobId,
    claim: ClaimId,
    challenger: PartyId,
) -> StoreResult<bool> {
    sqlx::query_scalar(
        "select exists (
            select 1 from disputes
                where job_id = $1 and claim_id = $2 and challenger_id = $3 and ended_ms is null
        )",
    )
    .bind(uuid(job.0))
    .bind(claim.as_bytes().as_slice())
    .bind(challenger.as_bytes().as_slice())
    .fetch_one(conn)
    .await
    .map_err(failed("look for a challenger's dispute on a claim"))
}

/// The newest disputes, newest first.
///
/// # Errors
/// The database.
pub async fn newest(
    conn: &mut Connection,
    undecided_only: bool,
    limit: i64,
) -> StoreResult<Vec<StoredDispute>> {
    let rows: Vec<DisputeRow> = sqlx::query_as(
        "select job_id, bond_id, state, fold, opened_ms from disputes
            where not $1 or ended_ms is null
            order by opened_ms desc, dispute_id limit $2",
    )
    .bind(undecided_only)
    .bind(limit)
    .fetch_all(conn)
    .await
    .map_err(failed("list disputes"))?;
    rows.into_iter().map(DisputeRow::read).collect()
}

/// Disputes whose clock has run out, with their workers. Not locked: look again under the locks.
///
/// # Errors
/// The database.
pub async fn expired(conn: &mut Connection, now: ServiceTime, limit: i64) -> StoreResult<Vec<DisputeId>> {
    let rows: Vec<Vec<u8>> = sqlx::query_scalar(
        "select dispute_id from disputes where state = 'open' and deadline_ms <= $1
            order by deadline_ms limit $2",
    )
    .bind(now.0)
    .bind(limit)
    .fetch_all(conn)
    .await
    .map_err(failed("find disputes out of time"))?;
    rows.iter().map(|id| bytes("a dispute's id", id)).collect()
}

#[derive(FromRow)]
struct OpenerRow {
    challenger_id: Vec<u8>,
    owner_id: Uuid,
    layer: i32,
    commitment: Vec<u8>,
    is_lost: bool,
}

impl OpenerRow {
    fn read(self, claim: ClaimId) -> StoreResult<Opening> {
        Ok(Opening {
            open: Open {
                claim,
                challenger: bytes("a dispute's challenger", &self.challenger_id)?,
                layer: count("a dispute's layer", self.layer)?,
                commitment: bytes("a dispute's commitment", &self.commitment)?,
            },
            owner: OwnerId(self.owner_id.into_bytes()),
            is_lost: self.is_lost,
        })
    }
}

/// How the disputes on a claim were opened, and whether they were lost. Oldest first.
///
/// # Errors
/// The database.
pub async fn openings(conn: &mut Connection, job: JobId, claim: ClaimId) -> StoreResult<Vec<Opening>> {
    let rows: Vec<OpenerRow> = sqlx::query_as(
        "select d.challenger_id, c.owner_id, d.layer, d.commitment, d.state = 'worker_wins' as is_lost
            from disputes d join challengers c using (challenger_id)
            where d.job_id = $1 and d.claim_id = $2
            order by d.opened_ms, d.created_at, d.dispute_id",
    )
    .bind(uuid(job.0))
    .bind(claim.as_bytes().as_slice())
    .fetch_all(conn)
    .await
    .map_err(failed("list the openers of disputes"))?;
    rows.into_iter().map(|row| row.read(claim)).collect()
}

// ── the log ─────────────────────────────────────────────────────────────────────────────────────────────────

/// An entry of the log with the coordinator's signature.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    /// Number.
    pub seq: u64,
    /// A move's name, or what else happened.
    pub kind: String,
    /// Whose move.
    pub mover: Option<Role>,
    /// Canonical bytes of the record.
    pub record: Vec<u8>,
    /// Their hash.
    pub hash: MoveHash,
    /// The signed move.
    pub signed_move: Option<Vec<u8>>,
    /// The coordinator's signature over the record.
    pub countersignature: Signature,
    /// How long the referee took over the move, µs, where it judged.
    pub referee_us: Option<u64>,
    /// When.
    pub at: ServiceTime,
}

#[derive(FromRow)]
struct EntryRow {
    seq: i32,
    kind: String,
    mover: Option<String>,
    record: Vec<u8>,
    record_hash: Vec<u8>,
    signed_move: Option<Vec<u8>>,
    countersignature: Vec<u8>,
    referee_us: Option<i64>,
    at_ms: i64,
}

impl EntryRow {
    fn read(self) -> StoreResult<StoredEntry> {
        let role = |name: String| match name.as_str() {
            "worker" => Ok(Role::Worker),
            "challenger" => Ok(Role::Challenger),
            _ => Err(StoreError::Corrupt { what: "a mover" }),
        };
        Ok(StoredEntry {
            seq: count("a record's number", self.seq)?,
            kind: self.kind,
            mover: self.mover.map(role).transpose()?,
            record: self.record,
            hash: bytes("a record's hash", &self.record_hash)?,
            signed_move: self.signed_move,
            countersignature: bytes("a record's countersignature", &self.countersignature)?,
            referee_us: self.referee_us.map(i64::unsigned_abs),
            at: ServiceTime(self.at_ms),
        })
    }
}

/// The name of what an entry records.
#[must_use]
pub fn entry_kind(entry: &Entry) -> &'static str {
    match (&entry.record.event, &entry.signed_move) {
        (_, Some(made)) => made.kind().name(),
        (Event::Opened { .. }, None) => "open",
        (Event::Moved { .. }, None) => "moved",
        (Event::Paused, None) => "paused",
        (Event::Resumed, None) => "resumed",
        (Event::Expired, None) => "expired",
        (Event::Closed(_), None) => "closed",
    }
}

/// Appends an entry with its countersignature.
///
/// # Errors
/// The database.
pub async fn append(
    conn: &mut Connection,
    job: JobId,
    entry: &Entry,
    countersignature: Signature,
    referee_us: Option<u64>,
) -> StoreResult<()> {
    let record = &entry.record;
    sqlx::query(
        "insert into dispute_records (job_id, dispute_id, seq, kind, mover, record, record_hash, signed_move,
                countersignature, referee_us, at_ms)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(uuid(job.0))
    .bind(record.dispute.as_bytes().as_slice())
    .bind(i32::try_from(record.seq).unwrap_or(i32::MAX))
    .bind(entry_kind(entry))
    .bind(entry.signed_move.as_ref().map(|made| made.role().name()))
    .bind(record.to_bytes())
    .bind(record.hash().as_bytes().as_slice())
    .bind(entry.signed_move.as_ref().map(gainsay_protocol::SignedMove::to_bytes))
    .bind(countersignature.as_bytes().as_slice())
    .bind(referee_us.map(|us| i64::try_from(us).unwrap_or(i64::MAX)))
    .bind(record.time.0)
    .execute(conn)
    .await
    .map_err(failed("append to a dispute's log"))?;
    Ok(())
}

/// The whole log of a dispute, in order.
///
/// # Errors
/// The database.
pub async fn log(conn: &mut Connection, job: JobId, id: DisputeId) -> StoreResult<Vec<StoredEntry>> {
    let rows: Vec<EntryRow> = sqlx::query_as(
        "select seq, kind, mover, record, record_hash, signed_move, countersignature, referee_us, at_ms
            from dispute_records where job_id = $1 and dispute_id = $2 order by seq",
    )
    .bind(uuid(job.0))
    .bind(id.as_bytes().as_slice())
    .fetch_all(conn)
    .await
    .map_err(failed("read a dispute's log"))?;
    rows.into_iter().map(EntryRow::read).collect()
}

/// Whether these very bytes were accepted as a move of the dispute.
///
/// # Errors
/// The database.
pub async fn has_move(conn: &mut Connection, job: JobId, id: DisputeId, signed: &[u8]) -> StoreResult<bool> {
    sqlx::query_scalar(
        "select exists (
            select 1 from dispute_records where job_id = $1 and dispute_id = $2 and signed_move = $3
        )",
    )
    .bind(uuid(job.0))
    .bind(id.as_bytes().as_slice())
    .bind(signed)
    .fetch_one(conn)
    .await
    .map_err(failed("look for a move"))
}

/// Notes a refused move.
///
/// # Errors
/// The database.
pub async fn record_refusal(
    conn: &mut Connection,
    stored: &StoredDispute,
    mover: PartyId,
    code: &str,
    message_hash: [u8; 32],
    at: ServiceTime,
) -> StoreResult<()> {
    sqlx::query(
        "insert into move_refusals (job_id, dispute_id, mover, code, message_hash, at_ms)
            values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(uuid(stored.job.0))
    .bind(stored.dispute.id().as_bytes().as_slice())
    .bind(mover.as_bytes().as_slice())
    .bind(code)
    .bind(message_hash.as_slice())
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("note a refused move"))?;
    Ok(())
}

// ── reveals ─────────────────────────────────────────────────────────────────────────────────────────────────

/// What was revealed of a claim.
///
/// # Errors
/// The database.
pub async fn reveals(conn: &mut Connection, job: JobId, claim: ClaimId) -> StoreResult<Reveals> {
    let rows: Vec<Vec<u8>> =
        sqlx::query_scalar("select signed from reveals where job_id = $1 and claim_id = $2 order by place")
            .bind(uuid(job.0))
            .bind(claim.as_bytes().as_slice())
            .fetch_all(conn)
            .await
            .map_err(failed("read a claim's reveals"))?;
    let decode = |signed: &Vec<u8>| {
        Signed::<Reveal>::from_bytes(signed).map_err(|_| StoreError::Corrupt { what: "a reveal" })
    };
    rows.iter().map(decode).collect()
}

/// Keeps a reveal; the first one of a place stands.
///
/// # Errors
/// The database.
pub async fn insert_reveal(
    conn: &mut Connection,
    job: JobId,
    reveal: &Signed<Reveal>,
    at: ServiceTime,
) -> StoreResult<()> {
    sqlx::query(
        "insert into reveals (job_id, claim_id, place, signed, given_ms) values ($1, $2, $3, $4, $5)
            on conflict do nothing",
    )
    .bind(uuid(job.0))
    .bind(reveal.body.claim.as_bytes().as_slice())
    .bind(reveal.body.key().to_bytes())
    .bind(reveal.to_bytes())
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("keep a reveal"))?;
    Ok(())
}
