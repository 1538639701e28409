//! `/v1/leases`: how workers get jobs and keep them.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::web::{Data, Json};
use gainsay_api::ErrorCode;
use gainsay_api::leases::{
    Heartbeat, LeaseQuery, LeaseRequest, LeaseReturned, Leases, ReturnLease, ReturnReason, Streamed,
};
use gainsay_api::limits::{MAX_HELD_LEASES, MAX_JSON_BYTES, MAX_LEASE_MODELS, MAX_TOKENS_BYTES};
use gainsay_api::schema;
use gainsay_commitment::{ModelId, PartyId};
use gainsay_protocol::LeaseId;

use super::auth::{Signed, Worker};
use super::error::ApiError;
use super::state::HttpState;
use super::{body, request, views};
use crate::app::{App, AppResult, GivenUp, LeaseGrant};

/// Leases given by one request.
const MAX_LEASES: u32 = 64;

/// `POST /v1/leases`: waits until there is a job, at most `?wait_ms`.
#[utoipa::path(
    post, path = "/v1/leases", operation_id = "lease", tag = "work",
    summary = "Get jobs to run",
    params(LeaseQuery),
    request_body = LeaseRequest,
    responses((status = 200, description = "Empty where there was no job in time", body = Leases)),
)]
pub(super) async fn lease(
    request: HttpRequest,
    signed: Signed<Worker, MAX_JSON_BYTES>,
    state: Data<HttpState>,
) -> Result<Json<Leases>, ApiError> {
    let worker = signed.party;
    state.admit(format!("lease:{worker}"), state.config.leases, "lease requests").await?;
    let query: LeaseQuery = request::query(&request)?;
    let LeaseRequest { models, max, held } = body::json(&signed.body)?;
    if max == 0 || models.len() > MAX_LEASE_MODELS || held.len() > MAX_HELD_LEASES {
        let sentence = format!(
            "Ask for at least one lease, naming at most {MAX_LEASE_MODELS} models and {MAX_HELD_LEASES} held leases"
        );
        return Err(ApiError::new(ErrorCode::InvalidRequest, sentence));
    }
    let (max, wait) = (max.min(MAX_LEASES), state.bounded_wait(query.wait_ms));
    let given =
        state.wait(move |app| async move { leases(&app, worker, &models, &held, max, wait).await }).await?;
    let leases = given.unwrap_or_default().iter().map(views::lease).collect();
    Ok(Json(Leases { leases }))
}

/// First what the worker holds without knowing, since its stake is locked for that already; then new jobs, waiting
/// for the first alone.
async fn leases(
    app: &App,
    worker: PartyId,
    models: &[ModelId],
    held: &[LeaseId],
    max: u32,
    wait: Duration,
) -> AppResult<Vec<LeaseGrant>> {
    let mut leases = app.forgotten_leases(worker, held, max).await?;
    while leases.len() < max as usize {
        let wait = if leases.is_empty() { wait } else { Duration::ZERO };
        match app.lease(worker, models, wait).await {
            Ok(Some(lease)) => leases.push(lease),
            Ok(None) => break,
            // What was given already must reach the worker, whatever keeps it from more.
            Err(refusal) if leases.is_empty() => return Err(refusal),
            Err(_) => break,
        }
    }
    Ok(leases)
}

/// `POST /v1/leases/{id}/tokens`: the place of the first token in the answer, then the tokens, each a little-endian u32.
#[utoipa::path(
    post, path = "/v1/leases/{id}/tokens", operation_id = "stream_tokens", tag = "work",
    summary = "Tokens of an answer under way: the first one's place, then the tokens, each a little-endian u32",
    params(("id" = schema::LeaseId, Path, description = "The lease")),
    request_body(content = schema::Octets, content_type = "application/octet-stream"),
    responses((status = 200, description = "How many tokens are on record. The same again changes nothing", body = Streamed)),
)]
pub(super) async fn tokens(
    request: HttpRequest,
    signed: Signed<Worker, MAX_TOKENS_BYTES>,
    state: Data<HttpState>,
) -> Result<Json<Streamed>, ApiError> {
    let (worker, lease): (_, LeaseId) = (signed.party, request::id(&request, "lease")?);
    let (words, rest) = signed.body.as_chunks();
    let [first, tokens @ ..] = words else { return Err(no_tokens()) };
    if tokens.is_empty() || !rest.is_empty() {
        return Err(no_tokens());
    }
    let first = u32::from_le_bytes(*first) as usize;
    let tokens: Vec<u32> = tokens.iter().map(|&token| u32::from_le_bytes(token)).collect();
    let case = move |app: App| async move { app.stream_tokens(worker, lease, first, &tokens).await };
    let known = state.call(case).await?;
    Ok(Json(Streamed { tokens: known as u32 }))
}

fn no_tokens() -> ApiError {
    let sentence = "The body is a place and at least one token, 4 bytes each";
    ApiError::new(ErrorCode::InvalidEncoding, sentence)
}

/// `POST /v1/leases/{id}/heartbeat`.
#[utoipa::path(
    post, path = "/v1/leases/{id}/heartbeat", operation_id = "heartbeat", tag = "work",
    summary = "Keep a lease. The body is empty",
    params(("id" = schema::LeaseId, Path, description = "The lease")),
    responses((status = 200, description = "By when the next one and the claim must come", body = Heartbeat)),
)]
pub(super) async fn heartbeat(
    request: HttpRequest,
    signed: Signed<Worker, 0>,
    state: Data<HttpState>,
) -> Result<Json<Heartbeat>, ApiError> {
    let (worker, lease): (_, LeaseId) = (signed.party, request::id(&request, "lease")?);
    let (expires, deadline) =
        state.call(move |app| async move { app.heartbeat(worker, lease).await }).await?;
    Ok(Json(Heartbeat { heartbeat_by_ms: expires.0, expires_at_ms: deadline.0 }))
}

/// `POST /v1/leases/{id}/return`.
#[utoipa::path(
    post, path = "/v1/leases/{id}/return", operation_id = "return_lease", tag = "work",
    summary = "Give up a lease on a job that the worker cannot run",
    params(("id" = schema::LeaseId, Path, description = "The lease")),
    request_body = ReturnLease,
    responses((status = 200, description = "What it cost. The same again changes nothing", body = LeaseReturned)),
)]
pub(super) async fn give_back(
    request: HttpRequest,
    signed: Signed<Worker, MAX_JSON_BYTES>,
    state: Data<HttpState>,
) -> Result<Json<LeaseReturned>, ApiError> {
    let (worker, lease): (_, LeaseId) = (signed.party, request::id(&request, "lease")?);
    let ReturnLease { reason } = body::json(&signed.body)?;
    let why = GivenUp { reason: reason.name(), is_for_good: reason == ReturnReason::TooLarge };
    let fee = state.call(move |app| async move { app.return_lease(worker, lease, why).await }).await?;
    Ok(Json(LeaseReturned { fee: fee.0 }))
}
