//! Request bodies: bounded in size and in time, checked in the order of what a check costs.

use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use actix_web::web::{Bytes, BytesMut};
use actix_web::{HttpMessage, HttpRequest};
use futures_util::StreamExt;
use gainsay_api::ErrorCode;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::auth;
use super::error::ApiError;

/// Bytes of a body that need no room of their own; beyond, a body takes room in parts of as many.
pub(super) const BODY_PART: usize = 64 << 10;
/// Parts that all large bodies together may take: a signature is checked only once its body is here, so that anybody
/// can send one.
pub(super) const BODY_PARTS: usize = (1 << 30) / BODY_PART;

/// What the headers alone already refuse: a body too long, or one that would have to be unpacked.
pub(super) fn check_headers(request: &HttpRequest, limit: u64) -> Result<(), ApiError> {
    let headers = request.headers();
    if headers.get(CONTENT_ENCODING).is_some_and(|value| value.as_bytes() != b"identity") {
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, "Send the body without content-encoding"));
    }
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > limit) {
        return Err(too_large(limit));
    }
    Ok(())
}

/// The whole body, at most `limit` bytes, arrived within `time`.
pub(super) async fn read(
    request: &HttpRequest,
    payload: &mut Payload,
    limit: usize,
    time: Duration,
) -> Result<Bytes, ApiError> {
    check_headers(request, limit as u64)?;
    tokio::time::timeout(time, collect(request, payload, limit)).await.unwrap_or_else(|_| Err(too_slow()))
}

async fn collect(request: &HttpRequest, payload: &mut Payload, limit: usize) -> Result<Bytes, ApiError> {
    let room = Arc::clone(&auth::state(request).bodies);
    let mut body = BytesMut::new();
    let mut taken = None;
    let mut covered = BODY_PART;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| broken())?;
        if body.len() + chunk.len() > limit {
            return Err(too_large(limit as u64));
        }
        while body.len() + chunk.len() > covered {
            let part = Arc::clone(&room).try_acquire_owned().map_err(|_| no_room())?;
            match &mut taken {
                None => taken = Some(part),
                Some(taken) => taken.merge(part),
            }
            covered += BODY_PART;
        }
        body.extend_from_slice(&chunk);
    }
    // The room is given back with the request.
    if let Some(taken) = taken {
        request.extensions_mut().insert(taken);
    }
    Ok(body.freeze())
}

/// The body as JSON. serde_json refuses what nests deeper than 128 levels.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let what = match error.classify() {
            Category::Data => "The JSON body does not fit this route",
            _ => "The body is not JSON",
        };
        // The parser's words may quote what was sent, at any length.
        let reason: String = error.to_string().chars().take(200).collect();
        ApiError::new(ErrorCode::InvalidRequest, format!("{what}: {reason}"))
    })
}

/// The body is longer than the route takes.
pub(super) fn too_large(limit: u64) -> ApiError {
    ApiError::new(ErrorCode::BodyTooLarge, format!("The body may have at most {limit} bytes here"))
}

fn no_room() -> ApiError {
    ApiError::new(ErrorCode::Overloaded, "Too many large bodies are being received; send it again in a while")
}

/// The body did not arrive in time.
pub(super) fn too_slow() -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, "The body did not arrive in time")
        .with_status(StatusCode::REQUEST_TIMEOUT)
}

/// The body ended before its end.
pub(super) fn broken() -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, "The body broke off before its end")
}
