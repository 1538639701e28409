//! Requests written by hand, byte for byte: what the typed client would never send.

use std::time::Duration;

use gainsay_api::signing::{Nonce, RequestToSign, SignedHeaders, body_hash};
use gainsay_api::{ErrorBody, ErrorCode};
use gainsay_commitment::{PartyId, SecretKey};
use gainsay_testkit::TestCoordinator;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::document;

/// Far longer than an answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type Header = (String, String);

pub(crate) fn bearer(token: &str) -> Vec<Header> {
    vec![("authorization".into(), format!("Bearer {token}"))]
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<Header>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Checks status, code and the shape that every refusal has.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: ErrorCode) -> ErrorBody {
        assert_eq!(self.status, status, "{}", self.text());
        let body: ErrorBody = serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not an error body: {error}: {}", self.text()));
        assert_eq!(body.error.code, code, "{}", self.text());
        assert_eq!(body.error.kind, code.kind());
        assert!(body.error.message.len() > 10, "no sentence: {}", body.error.message);
        let first = body.error.message.chars().next().expect("checked above");
        assert!(!first.is_lowercase(), "not a sentence: {}", body.error.message);
        assert_eq!(self.header("x-request-id"), Some(body.request_id.as_str()));
        body
    }
}

/// One request on a connection of its own.
pub(crate) async fn send(
    test: &TestCoordinator,
    method: &str,
    path: &str,
    headers: &[Header],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !headers.iter().any(|(name, _)| name == "content-length") {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    let mut bytes = (head + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    let answer = exchange(test, &bytes).await;
    document::announces(method, path, &answer);
    answer
}

/// Sends bytes and reads until the server closes.
pub(crate) async fn exchange(test: &TestCoordinator, bytes: &[u8]) -> Answer {
    let address = test.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.expect("the service listens");
    // A server that refuses early may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let read = read.expect("an answer comes in time");
    assert!(read.is_ok() || !answer.is_empty(), "no answer: {read:?}");
    parse(&answer)
}

fn parse(answer: &[u8]) -> Answer {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let headers: Vec<Header> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = &answer[end + 4..];
    Answer { status, headers, body: if chunked { unchunk(body) } else { body.to_vec() } }
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(&String::from_utf8_lossy(&rest[..end]), 16).unwrap_or(0);
        if size == 0 || rest.len() < end + 2 + size {
            break;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[(end + 4 + size).min(rest.len())..];
    }
    body
}

/// How a request is signed.
pub(crate) struct Signing<'a> {
    pub(crate) key: &'a SecretKey,
    pub(crate) coordinator: PartyId,
    pub(crate) time_ms: i64,
    pub(crate) nonce: [u8; 16],
}

impl<'a> Signing<'a> {
    pub(crate) async fn now(test: &TestCoordinator, key: &'a SecretKey) -> Self {
        let (coordinator, time_ms) = (test.id(), test.now().await.0);
        Self { key, coordinator, time_ms, nonce: *Uuid::new_v4().as_bytes() }
    }

    pub(crate) fn headers(&self, method: &str, path: &str, body: &[u8]) -> Vec<Header> {
        let request = RequestToSign {
            coordinator: self.coordinator,
            method: method.to_owned(),
            path: path.to_owned(),
            body: body_hash(body),
            time_ms: self.time_ms,
            nonce: Nonce(self.nonce),
        };
        let signed = SignedHeaders::sign(request, self.key);
        signed.to_pairs().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// A request signed as it should be.
pub(crate) async fn send_signed(
    test: &TestCoordinator,
    key: &SecretKey,
    method: &str,
    path: &str,
    body: &[u8],
) -> Answer {
    let headers = Signing::now(test, key).await.headers(method, path, body);
    send(test, method, path, &headers, body).await
}
