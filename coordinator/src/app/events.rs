//! The event log, for those who follow what happens.

use super::{App, AppResult, Event, EventCursor};
use crate::store::events;

impl App {
    /// Events after a cursor, oldest first. No event ever appears behind a cursor that was handed out.
    ///
    /// # Errors
    /// The database.
    pub async fn events_after(&self, cursor: EventCursor, limit: u32) -> AppResult<Vec<Event>> {
        let mut conn = self.connection().await?;
        let found = events::after(&mut conn, (cursor.position, cursor.event), limit.into()).await?;
        let view = |event: events::StoredEvent| Event {
            cursor: EventCursor { position: event.position, event: event.event_id },
            kind: event.kind,
            at: event.at,
            job: event.job,
            claim: event.claim,
            dispute: event.dispute,
            party: event.party,
            details: event.details,
        };
        Ok(found.into_iter().map(view).collect())
    }

    /// The newest cursor: where a reader starts who wants only news.
    ///
    /// # Errors
    /// The database.
    pub async fn events_head(&self) -> AppResult<EventCursor> {
        let mut conn = self.connection().await?;
        let (position, event) = events::head(&mut conn).await?;
        Ok(EventCursor { position, event })
    }
}
