//! `GET /v1/events`: the event log as server-sent events.
//!
//! Each open stream has a task of its own that reads the log and hands pieces to the connection. A reader that takes
//! nothing loses its stream, so that the number of streams bounds what readers can hold.

use std::time::Duration;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use gainsay_api::ErrorCode;
use gainsay_api::events::EventsQuery;
use gainsay_api::schema;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::error::ApiError;
use super::state::HttpState;
use super::{event_view, request};
use crate::app::EventCursor;
use crate::bus::Topic;

/// Events read from the log at a time.
const BATCH: u32 = 256;
/// Pieces that wait for a slow connection.
const WAITING: usize = 4;
/// The log is looked at this often even if no wake-up comes.
const RECHECK: Duration = Duration::from_secs(2);
/// The header in which a reader that comes back says how far it got.
const LAST_EVENT_ID: &str = "last-event-id";

/// The handler.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "events", tag = "events",
    summary = "Everything that happens, as server-sent events",
    params(
        EventsQuery,
        ("last-event-id" = Option<String>, Header, description = "Where a reader that comes back goes on; before `after`"),
    ),
    responses((status = 200, content_type = "text/event-stream", body = schema::ServerSentEvent,
        description = "Does not end. `data:` of each event is an `Event` as JSON, `event:` its type, `id:` where to go on")),
)]
pub(super) async fn stream(request: HttpRequest, state: Data<HttpState>) -> Result<HttpResponse, ApiError> {
    let after = start(&request, &state).await?;
    let permit = std::sync::Arc::clone(&state.streams).try_acquire_owned().map_err(|_| {
        let sentence =
            "Too many event streams are open here; read /v1/jobs, /v1/claims or /v1/disputes instead";
        ApiError::new(ErrorCode::Overloaded, sentence)
    })?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let pump = Pump { state: Data::clone(&state), sender, _permit: permit };
    state.spawn(pump.run(after));
    let pieces = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (Ok::<Bytes, std::convert::Infallible>(piece), receiver))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store, no-transform"))
        // Proxies of the nginx family hold answers back unless told not to.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(Box::pin(pieces)))
}

/// Where the stream starts: `Last-Event-ID`, which browsers send by themselves, before `?after`; without both, now.
async fn start(request: &HttpRequest, state: &HttpState) -> Result<EventCursor, ApiError> {
    let query: EventsQuery = request::query(request)?;
    let header =
        request.headers().get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or_default().to_owned());
    match header.or_else(|| query.after.map(|after| after.0)) {
        Some(text) if text == "0" => Ok(EventCursor::START),
        Some(text) => text.parse().map_err(|_| {
            let sentence =
                "`after` is no event's id; leave it out for news, or send 0 for everything that is kept";
            ApiError::new(ErrorCode::InvalidRequest, sentence).param("after")
        }),
        None => state.call(|app| async move { app.events_head().await }).await,
    }
}

/// Feeds one stream.
struct Pump {
    state: Data<HttpState>,
    sender: mpsc::Sender<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl Pump {
    async fn run(self, after: EventCursor) {
        tokio::select! {
            () = self.feed(after) => {}
            () = self.state.stopping.cancelled() => {}
            () = self.sender.closed() => {}
        }
    }

    /// Ends when the reader is gone or stalls, or the log cannot be read: the reader comes back by itself.
    async fn feed(&self, mut after: EventCursor) {
        // Something at once, so that the reader knows that it listens.
        if !self.send(Bytes::from_static(b": listening\n\n")).await {
            return;
        }
        let mut spoken = Instant::now();
        let mut wakeups = self.state.app.bus().subscribe(Topic::Events).await;
        loop {
            let events = match self.state.app.events_after(after, BATCH).await {
                Ok(events) => events,
                Err(error) => {
                    tracing::warn!(%error, "an event stream ends: the log cannot be read");
                    return;
                }
            };
            if let Some(last) = events.last() {
                after = last.cursor;
                let mut piece = String::new();
                for event in &events {
                    match event_view::frame(&self.state, event).await {
                        Ok(frame) => piece.push_str(&frame),
                        Err(error) => {
                            tracing::warn!(%error, "an event stream ends: an event cannot be told whole");
                            return;
                        }
                    }
                }
                if !self.send(Bytes::from(piece)).await {
                    return;
                }
                spoken = Instant::now();
                continue;
            }
            let silence = self.state.config.event_heartbeat.saturating_sub(spoken.elapsed());
            if silence.is_zero() {
                if !self.send(Bytes::from_static(b":\n\n")).await {
                    return;
                }
                spoken = Instant::now();
                continue;
            }
            wakeups.wait(silence.min(RECHECK)).await;
        }
    }

    async fn send(&self, piece: Bytes) -> bool {
        matches!(
            tokio::time::timeout(self.state.config.event_stall, self.sender.send(piece)).await,
            Ok(Ok(()))
        )
    }
}
