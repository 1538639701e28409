//! Totals of the service, for those who watch it.

use gainsay_protocol::{Amount, ServiceTime};
use sqlx::FromRow;

use super::{Connection, StoreResult, failed, reads};

/// How much there is of everything. Taken without locks, so that the parts may be a moment apart.
#[derive(Debug, Clone)]
pub struct Measures {
    /// Service time.
    pub now: ServiceTime,
    /// Jobs by state.
    pub jobs: Vec<(String, u64)>,
    /// Claims by state.
    pub claims: Vec<(String, u64)>,
    /// Undecided disputes by state.
    pub disputes: Vec<(String, u64)>,
    /// Leases that are held.
    pub leases: u64,
    /// Workers registered.
    pub workers: u64,
    /// Workers suspended.
    pub suspended: u64,
    /// Models that serve.
    pub models: u64,
    /// How long the job at the head of the queue has been in it, ms.
    pub oldest_queued_ms: Option<u64>,
    /// How long ago what should have happened by now was due, ms; zero where nothing is overdue.
    pub overdue_ms: u64,
    /// Sum of balances by kind of account.
    pub balances: Vec<(String, Amount)>,
}

#[derive(FromRow)]
struct Row {
    now_ms: i64,
    leases: i64,
    workers: i64,
    suspended: i64,
    models: i64,
    oldest_queued_ms: Option<i64>,
    overdue_ms: Option<i64>,
}

/// Takes the measures.
///
/// # Errors
/// The database.
pub async fn take(conn: &mut Connection) -> StoreResult<Measures> {
    // Everything but the counts of workers is found in an index over what is not decided yet.
    let row: Row = sqlx::query_as(
        "select c.now_ms,
            (select count(*) from leases where state = 'held') as leases,
            (select count(*) from workers) as workers,
            (select count(*) from workers where suspended_ms is not null) as suspended,
            (select count(*) from models where state = 'serving') as models,
            c.now_ms - (select min(queued_ms) from jobs where state = 'submitted') as oldest_queued_ms,
            c.now_ms - least(
                (select min(expires_ms) from leases where state = 'held'),
                (select min(deadline_ms) from disputes where state = 'open'),
                (select min(window_ends_ms) from claims where state = 'pending' and open_disputes = 0)
            ) as overdue_ms
            from service_clock as c",
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(failed("take the service's measures"))?;
    let count = |number: i64| number.max(0).unsigned_abs();
    Ok(Measures {
        now: ServiceTime(row.now_ms),
        jobs: by_state(conn, "select state, count(*) from jobs group by state order by state").await?,
        claims: by_state(conn, "select state, count(*) from claims group by state order by state").await?,
        disputes: by_state(
            conn,
            "select state, count(*) from disputes where ended_ms is null group by state order by state",
        )
        .await?,
        leases: count(row.leases),
        workers: count(row.workers),
        suspended: count(row.suspended),
        models: count(row.models),
        oldest_queued_ms: row.oldest_queued_ms.map(count),
        overdue_ms: row.overdue_ms.map_or(0, count),
        balances: reads::balances_by_kind(conn).await?,
    })
}

async fn by_state(conn: &mut Connection, query: &'static str) -> StoreResult<Vec<(String, u64)>> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as(query).fetch_all(conn).await.map_err(failed("count by state"))?;
    Ok(rows.into_iter().map(|(state, number)| (state, number.unsigned_abs())).collect())
}
