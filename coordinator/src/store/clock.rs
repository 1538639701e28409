//! Service time: one row, moved forward by every coordinator that lives.

use gainsay_protocol::ServiceTime;

use super::{Connection, StoreResult, failed};

/// Service time as of now. Read it after locking the row that a deadline is about.
///
/// # Errors
/// The database.
pub async fn now(conn: &mut Connection) -> StoreResult<ServiceTime> {
    let now_ms: i64 = sqlx::query_scalar("select now_ms from service_clock")
        .fetch_one(conn)
        .await
        .map_err(failed("read service time"))?;
    Ok(ServiceTime(now_ms))
}

/// Moves service time forward by what passed on the database's own clock since anybody last did, by two seconds
/// at most: several coordinators do not make it faster, and an outage does not count.
///
/// # Errors
/// The database.
pub async fn advance(conn: &mut Connection) -> StoreResult<ServiceTime> {
    let now_ms: i64 = sqlx::query_scalar(
        "update service_clock
            set now_ms = now_ms
                    + least(greatest(floor(extract(epoch from clock_timestamp() - advanced_at) * 1000), 0), 2000)::bigint,
                advanced_at = clock_timestamp()
            returning now_ms",
    )
    .fetch_one(conn)
    .await
    .map_err(failed("advance service time"))?;
    Ok(ServiceTime(now_ms))
}

/// Moves service time forward by hand: for tests and simulations.
///
/// # Errors
/// The database; `ms` beyond what the clock can count.
pub async fn advance_by(conn: &mut Connection, ms: u64) -> StoreResult<ServiceTime> {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    let now_ms: i64 = sqlx::query_scalar(
        "update service_clock set now_ms = now_ms + $1, advanced_at = clock_timestamp() returning now_ms",
    )
    .bind(ms)
    .fetch_one(conn)
    .await
    .map_err(failed("advance service time by hand"))?;
    Ok(ServiceTime(now_ms))
}
