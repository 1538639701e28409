//! The event log: what happened, in an order that no reader can fall between.

use gainsay_commitment::{ClaimId, DisputeId, PartyId};
use gainsay_protocol::{JobId, ServiceTime};
use serde_json::Value;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Connection, StoreResult, bytes, failed, uuid};

/// An event to be written.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Stable name.
    pub kind: &'static str,
    /// Which job.
    pub job: Option<JobId>,
    /// Which claim.
    pub claim: Option<ClaimId>,
    /// Which dispute.
    pub dispute: Option<DisputeId>,
    /// Which party.
    pub party: Option<PartyId>,
    /// Details by kind.
    pub details: Value,
}

/// An event on record.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Place of the transaction that wrote it.
    pub position: i64,
    /// Place within it.
    pub event_id: i64,
    /// Stable name.
    pub kind: String,
    /// When.
    pub at: ServiceTime,
    /// Which job.
    pub job: Option<JobId>,
    /// Which claim.
    pub claim: Option<ClaimId>,
    /// Which dispute.
    pub dispute: Option<DisputeId>,
    /// Which party.
    pub party: Option<PartyId>,
    /// Details by kind.
    pub details: Value,
}

#[derive(FromRow)]
struct EventRow {
    position: i64,
    event_id: i64,
    kind: String,
    job_id: Option<Uuid>,
    claim_id: Option<Vec<u8>>,
    dispute_id: Option<Vec<u8>>,
    party_id: Option<Vec<u8>>,
    details: Value,
    at_ms: i64,
}

impl EventRow {
    fn read(self) -> StoreResult<StoredEvent> {
        Ok(StoredEvent {
            position: self.position,
            event_id: self.event_id,
            kind: self.kind,
            at: ServiceTime(self.at_ms),
            job: self.job_id.map(|id| JobId(id.into_bytes())),
            claim: self.claim_id.map(|id| bytes("an event's claim", &id)).transpose()?,
            dispute: self.dispute_id.map(|id| bytes("an event's dispute", &id)).transpose()?,
            party: self.party_id.map(|id| bytes("an event's party", &id)).transpose()?,
            details: self.details,
        })
    }
}

/// Writes events, in order.
///
/// # Errors
/// The database.
pub async fn append(conn: &mut Connection, events: &[NewEvent], at: ServiceTime) -> StoreResult<()> {
    if events.is_empty() {
        return Ok(());
    }
    let kinds: Vec<&str> = events.iter().map(|event| event.kind).collect();
    let jobs: Vec<Option<Uuid>> = events.iter().map(|event| event.job.map(|id| uuid(id.0))).collect();
    let claims: Vec<Option<Vec<u8>>> =
        events.iter().map(|event| event.claim.map(|id| id.as_bytes().to_vec())).collect();
    let disputes: Vec<Option<Vec<u8>>> =
        events.iter().map(|event| event.dispute.map(|id| id.as_bytes().to_vec())).collect();
    let parties: Vec<Option<Vec<u8>>> =
        events.iter().map(|event| event.party.map(|id| id.as_bytes().to_vec())).collect();
    let details: Vec<Value> = events.iter().map(|event| event.details.clone()).collect();
    sqlx::query(
        "insert into events (kind, job_id, claim_id, dispute_id, party_id, details, at_ms)
            select k, j, c, d, p, x, $7
            from unnest($1::text[], $2::uuid[], $3::bytea[], $4::bytea[], $5::bytea[], $6::jsonb[])
                with ordinality as e (k, j, c, d, p, x, n)
            order by n",
    )
    .bind(kinds)
    .bind(jobs)
    .bind(claims)
    .bind(disputes)
    .bind(parties)
    .bind(details)
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("write events"))?;
    Ok(())
}

/// The events after a place, oldest first, as far as no older one can still appear.
///
/// # Errors
/// The database.
pub async fn after(conn: &mut Connection, place: (i64, i64), limit: i64) -> StoreResult<Vec<StoredEvent>> {
    let rows: Vec<EventRow> = sqlx::query_as(
        "select position, event_id, kind, job_id, claim_id, dispute_id, party_id, details, at_ms from events
            where (position, event_id) > ($1, $2) and position < event_horizon()
            order by position, event_id limit $3",
    )
    .bind(place.0)
    .bind(place.1)
    .bind(limit)
    .fetch_all(conn)
    .await
    .map_err(failed("read events"))?;
    rows.into_iter().map(EventRow::read).collect()
}

/// The place of the newest event that can be read.
///
/// # Errors
/// The database.
pub async fn head(conn: &mut Connection) -> StoreResult<(i64, i64)> {
    let place: Option<(i64, i64)> = sqlx::query_as(
        "select position, event_id from events where position < event_horizon()
            order by position desc, event_id desc limit 1",
    )
    .fetch_optional(conn)
    .await
    .map_err(failed("read the newest event"))?;
    Ok(place.unwrap_or_default())
}
