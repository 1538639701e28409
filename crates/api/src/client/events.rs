//! Following the event stream.

use super::transport::{Answer, Call};
use super::{Client, ClientError};
use crate::events::{Event, EventCursor, EventKind, EventsQuery};
use crate::limits::MAX_EVENT_BYTES;
use crate::routes;
use reqwest::header::{ACCEPT, HeaderName, HeaderValue};
use serde::Deserialize;

/// The event stream, across reconnects: after a lost connection it goes on behind the last event it gave.
pub struct EventReader {
    client: Client,
    after: Option<EventCursor>,
    connection: Option<Connection>,
    failures: u32,
    gaps: u64,
}

struct Connection {
    answer: Answer,
    parser: Parser,
}

impl Client {
    /// Follows events after `after`; `None` gives only what happens from now on.
    #[must_use]
    pub fn events(&self, after: Option<EventCursor>) -> EventReader {
        EventReader { client: self.clone(), after, connection: None, failures: 0, gaps: 0 }
    }
}

impl EventReader {
    /// Waits until the stream stands, which [`EventReader::next`] does by itself: from then on nothing is missed.
    ///
    /// # Errors
    /// As [`EventReader::next`].
    pub async fn ready(&mut self) -> Result<(), ClientError> {
        while self.connection.is_none() {
            if let Err(error) = self.connect().await {
                self.lost(error).await?;
            }
        }
        Ok(())
    }

    /// How often the stream was connected without a place to go on from, so that what happened before is not in it: at
    /// first, where only what happens from now on was asked for, and after a loss before the first event.
    #[must_use]
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// The next event. Waits as long as it takes; a coordinator that is away is waited for.
    ///
    /// Safe to drop at any await: an event is either given or will be.
    ///
    /// # Errors
    /// A refusal that waiting does not mend, such as a cursor that the coordinator does not know.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            self.ready().await?;
            match self.advance().await {
                Ok(Some(event)) => {
                    self.failures = 0;
                    self.after = Some(event.id.clone());
                    return Ok(event);
                }
                // The server closes streams at will.
                Ok(None) => {
                    self.connection = None;
                    tokio::time::sleep(self.client.inner.retry.pause(1)).await;
                }
                Err(error) => self.lost(error).await?,
            }
        }
    }

    /// Lets go of the connection, and waits before the next, unless there is no point in one.
    async fn lost(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.connection = None;
        if !error.is_transient() {
            return Err(error);
        }
        self.failures += 1;
        if self.failures == 1 {
            tracing::warn!(%error, "lost the event stream; reconnecting");
        }
        tokio::time::sleep(self.client.inner.retry.pause(self.failures)).await;
        Ok(())
    }

    /// The next event of the present connection; `None` at its end, or where there is none.
    async fn advance(&mut self) -> Result<Option<Event>, ClientError> {
        let Some(connection) = self.connection.as_mut() else { return Ok(None) };
        loop {
            if let Some(frame) = connection.parser.next_frame() {
                if let Some(event) = read_event(&frame) {
                    return Ok(Some(event));
                }
                continue;
            }
            let Some(chunk) = self.client.next_chunk(&mut connection.answer).await? else {
                return Ok(None);
            };
            if !connection.parser.push(&chunk) {
                let limit = MAX_EVENT_BYTES as u64;
                return Err(ClientError::TooLarge { path: routes::EVENTS.to_owned(), limit });
            }
        }
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        let mut call = Call::get(routes::EVENTS).query(&EventsQuery { after: self.after.clone() })?;
        call.headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(value) = self.after.as_ref().and_then(|after| HeaderValue::from_str(&after.0).ok()) {
            call.headers.insert(HeaderName::from_static("last-event-id"), value);
        }
        let answer = self.client.stream(&call).await?;
        self.gaps += u64::from(self.after.is_none());
        self.connection = Some(Connection { answer, parser: Parser::default() });
        Ok(())
    }
}

/// The event of a frame. One whose type or fields this version does not know still moves the cursor.
fn read_event(frame: &Frame) -> Option<Event> {
    #[derive(Deserialize)]
    struct Place {
        id: EventCursor,
        at_ms: i64,
    }
    match serde_json::from_str(&frame.data) {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::debug!(%error, id = frame.id, "an event that this version does not understand");
            let Place { id, at_ms } = serde_json::from_str(&frame.data).ok()?;
            Some(Event { id, at_ms, kind: EventKind::Unknown })
        }
    }
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Frame {
    id: String,
    data: String,
}

/// Splits a byte stream into server-sent events. Comments and unknown fields are skipped.
#[derive(Default)]
struct Parser {
    buffer: Vec<u8>,
    frame: Frame,
}

impl Parser {
    /// Takes more bytes in; answers false when an unfinished event has grown beyond its limit.
    fn push(&mut self, bytes: &[u8]) -> bool {
        self.buffer.extend_from_slice(bytes);
        self.buffer.len() + self.frame.data.len() <= MAX_EVENT_BYTES
    }

    /// The next complete event, if its bytes are here.
    fn next_frame(&mut self) -> Option<Frame> {
        let mut read = 0;
        let mut complete = None;
        while let Some(length) = self.buffer[read..].iter().position(|&byte| byte == b'\n') {
            let line = String::from_utf8_lossy(&self.buffer[read..read + length]);
            let line = line.strip_suffix('\r').unwrap_or(&line);
            read += length + 1;
            if line.is_empty() && !self.frame.data.is_empty() {
                complete = Some(std::mem::take(&mut self.frame));
                break;
            }
            self.frame.take_line(line);
        }
        self.buffer.drain(..read);
        complete
    }
}

impl Frame {
    fn take_line(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.id),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(pieces: &[&str]) -> Vec<(String, String)> {
        let mut parser = Parser::default();
        let mut frames = Vec::new();
        for piece in pieces {
            assert!(parser.push(piece.as_bytes()));
            while let Some(frame) = parser.next_frame() {
                frames.push((frame.id, frame.data));
            }
        }
        frames
    }

    #[test]
    fn events_come_out_whole_however_the_bytes_are_cut() {
        let text =
            ": hello\n\nid: 1-2\nevent: payment\ndata: {\"a\":1}\n\nid: 1-3\r\ndata: x\r\ndata: y\r\n\r\n";
        let whole = frames(&[text]);
        assert_eq!(whole, [("1-2".into(), "{\"a\":1}".into()), ("1-3".into(), "x\ny".into())]);
        for cut in 1..text.len() {
            assert_eq!(frames(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_event_without_end_is_refused_at_its_limit() {
        let mut parser = Parser::default();
        assert!(parser.push(&vec![b'x'; MAX_EVENT_BYTES]));
        assert_eq!(parser.next_frame(), None);
        assert!(!parser.push(b"x"));
    }

    #[test]
    fn an_unknown_event_still_moves_the_cursor() {
        let data = r#"{"id":"4-1","at_ms":9,"type":"job_submitted","job":7}"#;
        let event = read_event(&Frame { id: "4-1".into(), data: data.into() }).unwrap();
        assert_eq!(event, Event { id: EventCursor("4-1".into()), at_ms: 9, kind: EventKind::Unknown });
    }
}
