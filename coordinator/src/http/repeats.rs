//! The header `Idempotency-Key`: a request about money that may be sent again.

use actix_web::HttpRequest;
use gainsay_api::ErrorCode;
use gainsay_api::limits::MAX_IDEMPOTENCY_KEY;
use gainsay_api::routes::IDEMPOTENCY_KEY;
use gainsay_protocol::OwnerId;

use super::error::ApiError;
use crate::app::RequestKey;

/// Whose keys the operator's are.
pub(super) const OPERATOR: OwnerId = OwnerId([0; 16]);

const CONTEXT: &str = "gainsay v1 idempotent request";

/// The key that the request names, with the hash of what it asks for.
pub(super) fn key(
    request: &HttpRequest,
    scope: OwnerId,
    body: &[u8],
) -> Result<Option<RequestKey>, ApiError> {
    let Some(value) = request.headers().get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let fits = |text: &&str| {
        (1..=MAX_IDEMPOTENCY_KEY).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let key = value.to_str().ok().filter(fits).ok_or_else(|| {
        let sentence = format!(
            "An idempotency key is 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters without spaces"
        );
        ApiError::new(ErrorCode::InvalidRequest, sentence).param(IDEMPOTENCY_KEY)
    })?;
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    // No path holds a zero byte, so that path and body cannot be shifted against each other.
    hasher.update(request.uri().path().as_bytes()).update(&[0]).update(body);
    Ok(Some(RequestKey { scope, key: key.to_owned(), request: hasher.finalize().into() }))
}
