//! The ledger's log and the facts that its balances stand for, as of one moment: what an audit reads.
//!
//! The facts are read in one snapshot, whose name goes out with them. The log is read in pages, each in a database
//! transaction of its own, by that name: a page holds what the snapshot saw, however much was posted since.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use gainsay_commitment::{ClaimId, DisputeId};
use gainsay_protocol::ledger::audit::{Facts, Lock, Logged};
use gainsay_protocol::ledger::{Account, Hold, Posting, TransactionKind};
use gainsay_protocol::lifecycle::ClaimState;
use gainsay_protocol::{Amount, JobId, OwnerId};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Connection, StoreError, StoreResult, bytes, claims, count, failed, uuid};

/// Characters of a snapshot's name: as many transactions as may run at once, in decimals.
const SNAPSHOT_CHARS_MAX: usize = 16 << 10;

/// Which database transactions a reader sees: all before `from`, none at or after `to`, and of those between, the
/// ones that the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What is added to transaction ids to make places.
    base: i64,
    /// The server's own words: `xmin:xmax:xip,…`.
    words: String,
    from: i64,
    to: i64,
}

/// The text names no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not the name of a snapshot that this service gave")]
pub struct InvalidSnapshot;

impl FromStr for Snapshot {
    type Err = InvalidSnapshot;

    fn from_str(text: &str) -> Result<Self, InvalidSnapshot> {
        let number = |text: &str| text.parse::<i64>().ok().filter(|n| *n >= 0).ok_or(InvalidSnapshot);
        if text.len() > SNAPSHOT_CHARS_MAX {
            return Err(InvalidSnapshot);
        }
        let (base, words) = text.split_once('/').ok_or(InvalidSnapshot)?;
        let mut parts = words.splitn(3, ':');
        let mut part = || parts.next().ok_or(InvalidSnapshot);
        let (base, xmin, xmax, running) = (number(base)?, number(part()?)?, number(part()?)?, part()?);
        let place = |xid: i64| base.checked_add(xid).ok_or(InvalidSnapshot);
        for xid in running.split(',').filter(|xid| !xid.is_empty()) {
            let xid = number(xid)?;
            if !(xmin..xmax).contains(&xid) {
                return Err(InvalidSnapshot);
            }
        }
        Ok(Self { base, words: words.to_owned(), from: place(xmin)?, to: place(xmax)? })
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.words)
    }
}

/// The facts as the snapshot sees them that this connection is in ([`Store::begin_snapshot`](super::Store)), and its
/// name for the log.
///
/// # Errors
/// The database.
pub async fn facts(conn: &mut Connection) -> StoreResult<(Snapshot, Facts)> {
    let name: String =
        sqlx::query_scalar("select base::text || '/' || pg_current_snapshot()::text from event_base")
            .fetch_one(&mut *conn)
            .await
            .map_err(failed("name a snapshot"))?;
    let snapshot = name.parse().map_err(|_| StoreError::Corrupt { what: "the name of a snapshot" })?;
    let facts = Facts {
        balances: balances(conn).await?,
        escrowed: escrowed(conn).await?,
        locked: locked(conn).await?,
        held: held(conn).await?,
        finalized_claims: claims_in(conn, ClaimState::Finalized).await?,
        rejected_claims: claims_in(conn, ClaimState::Rejected).await?,
    };
    Ok((snapshot, facts))
}

fn account(kind: &str, holder: &[u8], of_bond: bool) -> StoreResult<Account> {
    Account::parse(kind, holder, of_bond).ok_or(StoreError::Corrupt { what: "an account" })
}

async fn balances(conn: &mut Connection) -> StoreResult<Vec<(Account, Amount)>> {
    let rows: Vec<(String, Vec<u8>, i64, bool)> = sqlx::query_as(
        "select a.kind, a.holder, a.balance, coalesce(h.cause = 'bond', false)
            from accounts a left join holds h on a.kind = 'held' and h.holder = a.holder
            where a.balance <> 0",
    )
    .fetch_all(conn)
    .await
    .map_err(failed("read all balances"))?;
    rows.iter()
        .map(|(kind, holder, balance, of_bond)| Ok((account(kind, holder, *of_bond)?, Amount(*balance))))
        .collect()
}

async fn escrowed(conn: &mut Connection) -> StoreResult<Vec<(JobId, Amount)>> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as("select job_id, price from jobs where decided_ms is null")
        .fetch_all(conn)
        .await
        .map_err(failed("read the prices of undecided jobs"))?;
    Ok(rows.into_iter().map(|(job, price)| (JobId(job.into_bytes()), Amount(price))).collect())
}

async fn locked(conn: &mut Connection) -> StoreResult<Vec<Lock>> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "select owner_id, sum(amount)::bigint from (
                select owner_id, stake as amount from leases where state = 'held'
                union all select owner_id, stake from claims where state = 'pending'
                union all select owner_id, amount from bonds where state = 'locked'
            ) as locks group by owner_id",
    )
    .fetch_all(conn)
    .await
    .map_err(failed("read what is locked"))?;
    let lock =
        |(owner, amount): (Uuid, i64)| Lock { owner: OwnerId(owner.into_bytes()), amount: Amount(amount) };
    Ok(rows.into_iter().map(lock).collect())
}

async fn held(conn: &mut Connection) -> StoreResult<Vec<(Hold, Amount)>> {
    let rows: Vec<(Vec<u8>, bool, i64)> =
        sqlx::query_as("select holder, cause = 'bond', amount from holds where state = 'held'")
            .fetch_all(conn)
            .await
            .map_err(failed("read what is held"))?;
    rows.iter()
        .map(|(holder, of_bond, amount)| {
            let hold = if *of_bond {
                Hold::Bond(bytes("a hold's dispute", holder)?)
            } else {
                Hold::Stake(bytes("a hold's claim", holder)?)
            };
            Ok((hold, Amount(*amount)))
        })
        .collect()
}

async fn claims_in(conn: &mut Connection, state: ClaimState) -> StoreResult<u64> {
    let found: i64 = sqlx::query_scalar("select count(*) from claims where state = $1")
        .bind(state.name())
        .fetch_one(conn)
        .await
        .map_err(failed("count claims"))?;
    count("a count of claims", found)
}

#[derive(FromRow)]
struct LoggedRow {
    transaction_id: Uuid,
    event: String,
    job_id: Option<Uuid>,
    claim_id: Option<Vec<u8>>,
    dispute_id: Option<Vec<u8>>,
    claim_state: Option<String>,
    is_settlement: bool,
}

impl LoggedRow {
    fn read(self, postings: Vec<EntryRow>) -> StoreResult<Logged> {
        let kind = TransactionKind::parse(&self.event);
        let kind = kind.ok_or(StoreError::Corrupt { what: "a ledger transaction's event" })?;
        let claim: Option<ClaimId> =
            self.claim_id.map(|id| bytes("a transaction's claim", &id)).transpose()?;
        let dispute: Option<DisputeId> =
            self.dispute_id.map(|id| bytes("a transaction's dispute", &id)).transpose()?;
        let posting = |entry: EntryRow| {
            let account = account(&entry.kind, &entry.holder, kind.is_of_bond())?;
            Ok(Posting { account, amount: Amount(entry.amount) })
        };
        Ok(Logged {
            id: self.transaction_id.into_bytes(),
            kind,
            job: self.job_id.map(|id| JobId(id.into_bytes())),
            claim,
            dispute,
            claim_state: self.claim_state.as_deref().map(claims::parse_state).transpose()?,
            is_settlement: self.is_settlement,
            postings: postings.into_iter().map(posting).collect::<StoreResult<_>>()?,
        })
    }
}

#[derive(FromRow)]
struct EntryRow {
    transaction_id: Uuid,
    kind: String,
    holder: Vec<u8>,
    amount: i64,
}

/// A page of the log as the snapshot saw it: what follows this transaction, by id. Shorter than `limit` at the end.
///
/// # Errors
/// The database.
pub async fn log(
    conn: &mut Connection,
    snapshot: &Snapshot,
    after: Option<[u8; 16]>,
    limit: u32,
) -> StoreResult<Vec<Logged>> {
    // The state of a decided claim never changes, so that it may be read later than the snapshot.
    let rows: Vec<LoggedRow> = sqlx::query_as(
        "select t.transaction_id, t.event, t.job_id, t.claim_id, t.dispute_id, c.state as claim_state,
                coalesce(s.transaction_id = t.transaction_id
                    and s.kind = case t.event when 'finalize' then 'paid' when 'convict' then 'slashed' end,
                    false) as is_settlement
            from ledger_transactions t
                left join claims c on c.job_id = t.job_id and c.claim_id = t.claim_id
                left join settlements s on s.job_id = t.job_id and s.claim_id = t.claim_id
            where t.transaction_id > $1
                and (t.position < $2
                    or t.position < $3
                        and pg_visible_in_snapshot((t.position - $4)::text::xid8, $5::text::pg_snapshot))
            order by t.transaction_id limit $6",
    )
    .bind(uuid(after.unwrap_or_default()))
    .bind(snapshot.from)
    .bind(snapshot.to)
    .bind(snapshot.base)
    .bind(&snapshot.words)
    .bind(i64::from(limit))
    .fetch_all(&mut *conn)
    .await
    .map_err(failed("read the ledger's log"))?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.transaction_id).collect();
    let entries: Vec<EntryRow> = sqlx::query_as(
        "select transaction_id, kind, holder, amount from ledger_entries where transaction_id = any($1)",
    )
    .bind(ids)
    .fetch_all(conn)
    .await
    .map_err(failed("read the ledger's entries"))?;
    let mut of: HashMap<Uuid, Vec<EntryRow>> = HashMap::new();
    for entry in entries {
        of.entry(entry.transaction_id).or_default().push(entry);
    }
    rows.into_iter()
        .map(|row| {
            let postings = of.remove(&row.transaction_id).unwrap_or_default();
            row.read(postings)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_reads_back_as_it_was_written_and_nothing_else_is_one() {
        for text in ["0/10:10:", "7/10:20:10,12,19"] {
            assert_eq!(text.parse::<Snapshot>().unwrap().to_string(), text);
        }
        let snapshot: Snapshot = "7/10:20:12".parse().unwrap();
        assert_eq!((snapshot.from, snapshot.to), (17, 27));
        for text in
            ["", "1", "1/2", "1/2:3", "-1/2:3:", "1/2:3:x", "1/2:9:9", "1/2:9:1", "1/x:9:", "1/2:3:2;drop"]
        {
            assert_eq!(text.parse::<Snapshot>(), Err(InvalidSnapshot), "{text}");
        }
    }
}
