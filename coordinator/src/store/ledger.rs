//! Balances and the double entries they follow from. The database itself refuses postings that do not sum to
//! zero, or that would overdraw an account.

use gainsay_commitment::{ClaimId, DisputeId};
use gainsay_protocol::ledger::{Account, Transaction};
use gainsay_protocol::{Amount, JobId, OwnerId, ServiceTime};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Connection, StoreError, StoreResult, bytes, failed, uuid};

/// A transaction with what it is about.
#[derive(Debug, Clone)]
pub struct NewTransaction {
    /// Id; ascends with time.
    pub id: [u8; 16],
    /// The postings.
    pub transaction: Transaction,
    /// Which job.
    pub job: Option<JobId>,
    /// Which claim.
    pub claim: Option<ClaimId>,
    /// Which dispute.
    pub dispute: Option<DisputeId>,
}

/// Posts transactions, all or none. All accounts are locked in one order; so a database transaction posts once, as
/// the last thing it locks.
///
/// # Errors
/// The database, or an account that would be overdrawn.
pub async fn post(
    conn: &mut Connection,
    transactions: &[NewTransaction],
    at: ServiceTime,
) -> StoreResult<()> {
    if transactions.is_empty() {
        return Ok(());
    }
    insert_transactions(conn, transactions, at).await?;
    insert_entries(conn, transactions).await
}

async fn insert_transactions(
    conn: &mut Connection,
    transactions: &[NewTransaction],
    at: ServiceTime,
) -> StoreResult<()> {
    let events: Vec<&str> = transactions.iter().map(|new| new.transaction.kind().name()).collect();
    let jobs: Vec<Option<Uuid>> = transactions.iter().map(|new| new.job.map(|id| uuid(id.0))).collect();
    let claims: Vec<Option<Vec<u8>>> =
        transactions.iter().map(|new| new.claim.map(|id| id.as_bytes().to_vec())).collect();
    let disputes: Vec<Option<Vec<u8>>> =
        transactions.iter().map(|new| new.dispute.map(|id| id.as_bytes().to_vec())).collect();
    sqlx::query(
        "insert into ledger_transactions (transaction_id, event, job_id, claim_id, dispute_id, at_ms)
            select t, e, j, c, d, $6
            from unnest($1::uuid[], $2::text[], $3::uuid[], $4::bytea[], $5::bytea[]) as x (t, e, j, c, d)",
    )
    .bind(transactions.iter().map(|new| uuid(new.id)).collect::<Vec<_>>())
    .bind(events)
    .bind(jobs)
    .bind(claims)
    .bind(disputes)
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("record ledger transactions"))?;
    Ok(())
}

async fn insert_entries(conn: &mut Connection, transactions: &[NewTransaction]) -> StoreResult<()> {
    let (mut ids, mut kinds, mut holders, mut amounts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for new in transactions {
        for posting in new.transaction.postings() {
            ids.push(uuid(new.id));
            kinds.push(posting.account.kind());
            holders.push(posting.account.holder());
            amounts.push(posting.amount.0);
        }
    }
    sqlx::query(
        "insert into ledger_entries (transaction_id, kind, holder, amount)
            select * from unnest($1::uuid[], $2::text[], $3::bytea[], $4::bigint[])",
    )
    .bind(ids)
    .bind(kinds)
    .bind(holders)
    .bind(amounts)
    .execute(conn)
    .await
    .map_err(failed("post ledger entries"))?;
    Ok(())
}

/// What an account holds.
///
/// # Errors
/// The database.
pub async fn balance(conn: &mut Connection, account: Account) -> StoreResult<Amount> {
    let balance: Option<i64> =
        sqlx::query_scalar("select balance from accounts where kind = $1 and holder = $2")
            .bind(account.kind())
            .bind(account.holder())
            .fetch_optional(conn)
            .await
            .map_err(failed("read a balance"))?;
    Ok(Amount(balance.unwrap_or(0)))
}

/// What an account holds, locked until the transaction ends. At most one account is locked in this way, before
/// posting: posting locks in its own order.
///
/// # Errors
/// The database.
pub async fn lock_balance(conn: &mut Connection, account: Account) -> StoreResult<Amount> {
    let balance: Option<i64> =
        sqlx::query_scalar("select balance from accounts where kind = $1 and holder = $2 for no key update")
            .bind(account.kind())
            .bind(account.holder())
            .fetch_optional(conn)
            .await
            .map_err(failed("lock a balance"))?;
    Ok(Amount(balance.unwrap_or(0)))
}

/// An account with its owner's name.
#[derive(Debug, Clone)]
pub struct StoredAccount {
    /// Which.
    pub kind: &'static str,
    /// Whose, of `free` and `locked`.
    pub owner: Option<OwnerId>,
    /// The owner's name.
    pub name: Option<String>,
    /// The owner's role.
    pub role: Option<String>,
    /// What it holds.
    pub balance: Amount,
}

const KINDS: [&str; 6] = ["free", "locked", "escrow", "held", "treasury", "outside"];

#[derive(FromRow)]
struct AccountRow {
    kind: String,
    owner_id: Option<Uuid>,
    name: Option<String>,
    role: Option<String>,
    balance: i64,
}

impl AccountRow {
    fn read(self) -> StoreResult<StoredAccount> {
        let kind = KINDS.into_iter().find(|kind| *kind == self.kind);
        Ok(StoredAccount {
            kind: kind.ok_or(StoreError::Corrupt { what: "an account's kind" })?,
            owner: self.owner_id.map(|id| OwnerId(id.into_bytes())),
            name: self.name,
            role: self.role,
            balance: Amount(self.balance),
        })
    }
}

/// The accounts of an owner.
///
/// # Errors
/// The database.
pub async fn accounts_of(conn: &mut Connection, owner: OwnerId) -> StoreResult<Vec<StoredAccount>> {
    let rows: Vec<AccountRow> = sqlx::query_as(
        "select k.kind, o.owner_id, o.name, o.role, coalesce(a.balance, 0) as balance
            from owners o cross join (values ('free'), ('locked')) as k (kind)
                left join accounts a on a.kind = k.kind and a.holder = uuid_send(o.owner_id)
            where o.owner_id = $1 order by k.kind",
    )
    .bind(uuid(owner.0))
    .fetch_all(conn)
    .await
    .map_err(failed("read an owner's accounts"))?;
    rows.into_iter().map(AccountRow::read).collect()
}

/// Everybody's accounts, one snapshot of them: owners by age, then the sums of all escrow and of all that is held,
/// then treasury and outside. They sum to zero.
///
/// # Errors
/// The database.
pub async fn accounts(conn: &mut Connection) -> StoreResult<Vec<StoredAccount>> {
    let rows: Vec<AccountRow> = sqlx::query_as(
        "select kind, owner_id, name, role, balance from (
            select 0 as place, o.created_at, a.kind, o.owner_id, o.name, o.role, a.balance
                from owners o join accounts a on a.holder = uuid_send(o.owner_id) and a.kind in ('free', 'locked')
            union all
            select case kind when 'escrow' then 1 when 'held' then 2 when 'treasury' then 3 else 4 end,
                    null, kind, null, null, null, sum(balance)::bigint
                from accounts where kind in ('escrow', 'held', 'treasury', 'outside') group by kind
        ) as everybody
        order by place, created_at, owner_id, kind",
    )
    .fetch_all(conn)
    .await
    .map_err(failed("read all accounts"))?;
    rows.into_iter().map(AccountRow::read).collect()
}

/// What a job's finalization paid: to its worker's owner, to the treasury, and back to its submitter. Of a worker
/// whose owner is the submitter too, the shares cannot be told apart and count as the worker's.
///
/// # Errors
/// The database.
pub async fn paid(conn: &mut Connection, job: JobId) -> StoreResult<Vec<(Option<OwnerId>, String, Amount)>> {
    let rows: Vec<(String, Vec<u8>, i64)> = sqlx::query_as(
        "select e.kind, e.holder, e.amount from ledger_transactions t join ledger_entries e using (transaction_id)
            where t.job_id = $1 and t.event = 'finalize'",
    )
    .bind(uuid(job.0))
    .fetch_all(conn)
    .await
    .map_err(failed("read a job's payment"))?;
    rows.into_iter()
        .map(|(kind, holder, amount)| {
            let owner = match kind.as_str() {
                "free" | "locked" => Some(OwnerId(bytes("an account's owner", &holder)?)),
                _ => None,
            };
            Ok((owner, kind, Amount(amount)))
        })
        .collect()
}

// ── holds ───────────────────────────────────────────────────────────────────────────────────────────────────

/// Why money is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldCause {
    /// A claim was rejected.
    Stake,
    /// A dispute was lost.
    Bond,
}

impl HoldCause {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stake => "stake",
            Self::Bond => "bond",
        }
    }
}

/// Money held on record.
#[derive(Debug, Clone, Copy)]
pub struct StoredHold {
    /// What for.
    pub cause: HoldCause,
    /// The claim's job.
    pub job: JobId,
    /// The claim that was rejected, or stood.
    pub claim: ClaimId,
    /// The dispute that decided; none for an equivocation.
    pub dispute: Option<DisputeId>,
    /// Who gets what fixed parts leave: the owner of the prover or reporter, or of the worker that was disputed wrongly.
    /// None where a worker convicted itself, by silence or a second claim.
    pub beneficiary: Option<OwnerId>,
    /// How much.
    pub amount: Amount,
    /// From when on it is paid out.
    pub release: ServiceTime,
}

impl StoredHold {
    /// Whether it is the stake of a worker that signed two claims for one lease: guilt that no arithmetic explains, so
    /// that it is paid out even where the profile was withdrawn.
    #[must_use]
    pub fn is_of_equivocation(&self) -> bool {
        self.cause == HoldCause::Stake && self.dispute.is_none()
    }

    fn holder(&self) -> StoreResult<Vec<u8>> {
        match (self.cause, self.dispute) {
            (HoldCause::Stake, _) => Ok(self.claim.to_bytes().to_vec()),
            (HoldCause::Bond, Some(dispute)) => Ok(dispute.to_bytes().to_vec()),
            (HoldCause::Bond, None) => Err(StoreError::Corrupt { what: "a hold of a bond" }),
        }
    }
}

/// Records money that is held from now on.
///
/// # Errors
/// The database.
pub async fn insert_hold(conn: &mut Connection, hold: &StoredHold, at: ServiceTime) -> StoreResult<()> {
    sqlx::query(
        "insert into holds (holder, cause, job_id, claim_id, dispute_id, beneficiary_id, amount, state, held_ms,
                release_ms)
            values ($1, $2, $3, $4, $5, $6, $7, 'held', $8, $9)",
    )
    .bind(hold.holder()?)
    .bind(hold.cause.as_str())
    .bind(uuid(hold.job.0))
    .bind(hold.claim.as_bytes().as_slice())
    .bind(hold.dispute.map(|id| id.as_bytes().to_vec()))
    .bind(hold.beneficiary.map(|owner| uuid(owner.0)))
    .bind(hold.amount.0)
    .bind(at.0)
    .bind(hold.release.0)
    .execute(conn)
    .await
    .map_err(failed("hold money"))?;
    Ok(())
}

#[derive(FromRow)]
struct HoldRow {
    cause: String,
    job_id: Uuid,
    claim_id: Vec<u8>,
    dispute_id: Option<Vec<u8>>,
    beneficiary_id: Option<Uuid>,
    amount: i64,
    release_ms: i64,
}

impl HoldRow {
    fn read(self) -> StoreResult<StoredHold> {
        let cause =
            [HoldCause::Stake, HoldCause::Bond].into_iter().find(|cause| cause.as_str() == self.cause);
        Ok(StoredHold {
            cause: cause.ok_or(StoreError::Corrupt { what: "a hold's cause" })?,
            job: JobId(self.job_id.into_bytes()),
            claim: bytes("a hold's claim", &self.claim_id)?,
            dispute: self.dispute_id.map(|id| bytes("a hold's dispute", &id)).transpose()?,
            beneficiary: self.beneficiary_id.map(|id| OwnerId(id.into_bytes())),
            amount: Amount(self.amount),
            release: ServiceTime(self.release_ms),
        })
    }
}

/// Money held for disputes on withdrawn models. Not locked.
///
/// # Errors
/// The database.
pub async fn holds_to_void(conn: &mut Connection, limit: i64) -> StoreResult<Vec<StoredHold>> {
    let rows: Vec<HoldRow> = sqlx::query_as(
        "select h.cause, h.job_id, h.claim_id, h.dispute_id, h.beneficiary_id, h.amount, h.release_ms
            from holds h join claims c using (job_id, claim_id) join models m using (model_id)
            where h.state = 'held' and m.state = 'voided' and h.dispute_id is not null
            order by h.holder limit $1",
    )
    .bind(limit)
    .fetch_all(conn)
    .await
    .map_err(failed("find holds to give back"))?;
    rows.into_iter().map(HoldRow::read).collect()
}

/// Holds that are due: time is over, and for a stake, the job is decided or the time was over at `overdue` already;
/// those of disputes on withdrawn models are passed over. Not locked: see [`lock_hold`].
///
/// # Errors
/// The database.
pub async fn due_holds(
    conn: &mut Connection,
    now: ServiceTime,
    overdue: ServiceTime,
    limit: i64,
) -> StoreResult<Vec<StoredHold>> {
    let rows: Vec<HoldRow> = sqlx::query_as(
        "select cause, job_id, claim_id, dispute_id, beneficiary_id, amount, release_ms from holds
            where state = 'held' and release_ms <= $1
                and (cause = 'bond' or release_ms <= $2
                    or exists (select 1 from jobs j where j.job_id = holds.job_id and j.decided_ms is not null))
                and (dispute_id is null or not exists (
                    select 1 from claims c join models m using (model_id)
                        where c.job_id = holds.job_id and c.claim_id = holds.claim_id and m.state = 'voided'
                ))
            order by release_ms, holder limit $3",
    )
    .bind(now.0)
    .bind(overdue.0)
    .bind(limit)
    .fetch_all(conn)
    .await
    .map_err(failed("find holds that are due"))?;
    rows.into_iter().map(HoldRow::read).collect()
}

/// Where money goes that was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldEnd {
    /// To whom it was due.
    Released,
    /// Back where it came from.
    Voided,
}

/// Locks a hold that has not ended, if it has not.
///
/// # Errors
/// The database.
pub async fn lock_hold(conn: &mut Connection, hold: &StoredHold) -> StoreResult<bool> {
    sqlx::query("select 1 from holds where holder = $1 and state = 'held' for no key update")
        .bind(hold.holder()?)
        .fetch_optional(conn)
        .await
        .map_err(failed("lock a hold"))
        .map(|row| row.is_some())
}

/// Ends a hold.
///
/// # Errors
/// The database.
pub async fn end_hold(
    conn: &mut Connection,
    hold: &StoredHold,
    end: HoldEnd,
    at: ServiceTime,
) -> StoreResult<()> {
    let state = match end {
        HoldEnd::Released => "released",
        HoldEnd::Voided => "voided",
    };
    sqlx::query("update holds set state = $3, released_ms = $2 where holder = $1 and state = 'held'")
        .bind(hold.holder()?)
        .bind(at.0)
        .bind(state)
        .execute(conn)
        .await
        .map_err(failed("release a hold"))?;
    Ok(())
}
