//! `/v1/disputes`: opening, moves, reading, evidence.

use actix_web::http::header::CONTENT_DISPOSITION;
use actix_web::web::{Data, Json};
use actix_web::{HttpRequest, HttpResponse};
use gainsay_api::ErrorCode;
use gainsay_api::disputes::{DisputeFilter, DisputeList, DisputeView};
use gainsay_api::limits::{MAX_MOVE_BYTES, MAX_PAGE};
use gainsay_api::schema;
use gainsay_commitment::{Canonical, DisputeId, PartyId};
use gainsay_protocol::{Dispute, SignedMove};

use super::auth::{Challenger, Operator, Player, Signed};
use super::dispute_view::{self, Parties};
use super::error::ApiError;
use super::state::HttpState;
use super::{catalog, request};
use crate::app;

/// Items of a page where the asker does not say.
const PAGE: u32 = 100;

/// `POST /v1/disputes`: a signed `open` move. The same bytes again are answered the same.
#[utoipa::path(
    post, path = "/v1/disputes", operation_id = "open_dispute", tag = "disputes",
    summary = "Dispute a claim",
    request_body(content = schema::Octets, content_type = "application/octet-stream", description = "A signed `open` move"),
    responses((status = 200, description = "The same bytes again get the same answer", body = DisputeView)),
)]
pub(super) async fn open(
    signed: Signed<Challenger, MAX_MOVE_BYTES>,
    state: Data<HttpState>,
) -> Result<Json<DisputeView>, ApiError> {
    state.admit(format!("open:{}", signed.party), state.config.openings, "disputes opened at once").await?;
    check_signer(&signed.body, signed.party)?;
    let bytes = signed.body;
    let dispute = state.call(move |app| async move { app.open_dispute(&bytes).await }).await?;
    view(&state, dispute).await.map(Json)
}

/// `POST /v1/disputes/{id}/moves`: a signed move. Never limited in rate: clocks are running.
#[utoipa::path(
    post, path = "/v1/disputes/{id}/moves", operation_id = "post_move", tag = "disputes",
    summary = "Make a move. Never limited in rate",
    params(("id" = schema::DisputeId, Path, description = "The dispute")),
    request_body(content = schema::Octets, content_type = "application/octet-stream", description = "The signed move, at most 16 MiB"),
    responses((status = 200, description = "The dispute after the move", body = DisputeView)),
)]
pub(super) async fn play(
    request: HttpRequest,
    signed: Signed<Player, MAX_MOVE_BYTES>,
    state: Data<HttpState>,
) -> Result<Json<DisputeView>, ApiError> {
    let id: DisputeId = request::id(&request, "dispute")?;
    check_signer(&signed.body, signed.party)?;
    let bytes = signed.body;
    let dispute = state.call(move |app| async move { app.post_move(id, &bytes).await }).await?;
    view(&state, dispute).await.map(Json)
}

/// A party posts its own moves: whoever resent another's would be examined in that party's name.
fn check_signer(bytes: &[u8], party: PartyId) -> Result<(), ApiError> {
    let signed_move = SignedMove::from_bytes(bytes).map_err(|error| {
        ApiError::new(
            ErrorCode::InvalidEncoding,
            format!("The body is not the encoding of a signed move: {error}"),
        )
    })?;
    if signed_move.signer() == party {
        return Ok(());
    }
    let sentence = "The move is signed by another key than the request: a party posts its own moves";
    Err(ApiError::new(ErrorCode::Forbidden, sentence))
}

/// `POST /v1/disputes/{id}/resume`, by the operator: the clocks run again that a failed referee had stopped.
#[utoipa::path(
    post, path = "/v1/disputes/{id}/resume", operation_id = "resume_dispute", tag = "disputes",
    summary = "Let the clocks run again that a failed referee had stopped",
    params(("id" = schema::DisputeId, Path, description = "The dispute")),
    responses((status = 200, description = "The dispute", body = DisputeView)),
)]
pub(super) async fn resume(
    request: HttpRequest,
    _: Operator,
    state: Data<HttpState>,
) -> Result<Json<DisputeView>, ApiError> {
    let id: DisputeId = request::id(&request, "dispute")?;
    let dispute = state.call(move |app| async move { app.resume_dispute(id).await }).await?;
    view(&state, dispute).await.map(Json)
}

/// `GET /v1/disputes/{id}`.
#[utoipa::path(
    get, path = "/v1/disputes/{id}", operation_id = "read_dispute", tag = "disputes",
    summary = "A dispute: place, clocks, moves, verdict",
    params(("id" = schema::DisputeId, Path, description = "The dispute")),
    responses((status = 200, description = "The dispute", body = DisputeView)),
)]
pub(super) async fn read(
    request: HttpRequest,
    state: Data<HttpState>,
) -> Result<Json<DisputeView>, ApiError> {
    let id: DisputeId = request::id(&request, "dispute")?;
    let dispute = state.call(move |app| async move { app.dispute(id).await }).await?;
    view(&state, dispute).await.map(Json)
}

/// `GET /v1/disputes`: a page, oldest first.
#[utoipa::path(
    get, path = "/v1/disputes", operation_id = "list_disputes", tag = "disputes",
    summary = "Disputes, oldest first",
    params(DisputeFilter),
    responses((status = 200, description = "A page", body = DisputeList)),
)]
pub(super) async fn list(
    request: HttpRequest,
    state: Data<HttpState>,
) -> Result<Json<DisputeList>, ApiError> {
    let filter: DisputeFilter = request::query(&request)?;
    let limit = filter.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let query = app::DisputeFilter {
        stage: filter.state.map(dispute_view::stage),
        claim: filter.claim,
        party: filter.party,
        after: filter.after,
    };
    // One more than the page shows whether more follow.
    let mut found = state.call(move |app| async move { app.list_disputes(query, limit + 1).await }).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let now = state.call(|app| async move { app.now().await }).await?;
    let mut disputes = Vec::with_capacity(found.len());
    for listed in &found {
        let parties = Parties::of_dispute(&state, &listed.dispute).await?;
        let model = catalog::by_id(&state, listed.model).await?;
        let (job, opened) = (listed.job, listed.opened);
        disputes.push(dispute_view::summary(&listed.dispute, job, opened, &model.model, parties, now));
    }
    Ok(Json(DisputeList { disputes, more }))
}

/// `GET /v1/disputes/{id}/evidence`: the bundle that anyone can judge again, offline.
#[utoipa::path(
    get, path = "/v1/disputes/{id}/evidence", operation_id = "read_evidence", tag = "disputes",
    summary = "The bundle that anyone can judge again, offline",
    params(("id" = schema::DisputeId, Path, description = "The dispute")),
    responses((status = 200, description = "For `gainsay verify FILE`", content_type = "application/octet-stream", body = schema::Octets)),
)]
pub(super) async fn evidence(request: HttpRequest, state: Data<HttpState>) -> Result<HttpResponse, ApiError> {
    let id: DisputeId = request::id(&request, "dispute")?;
    let bundle = state.call(move |app| async move { app.evidence(id).await }).await?;
    let file = format!("attachment; filename=\"dispute-{id:.16}.gainsay\"");
    Ok(HttpResponse::Ok()
        .content_type("application/octet-stream")
        .insert_header((CONTENT_DISPOSITION, file))
        .body(bundle))
}

/// The whole view of a dispute, with names and places.
pub(super) async fn view(state: &HttpState, dispute: app::DisputeView) -> Result<DisputeView, ApiError> {
    let fold = Dispute::from_bytes(&dispute.fold).map_err(ApiError::internal)?;
    let parties = Parties::of_dispute(state, &fold).await?;
    let claim = dispute.claim;
    let (now, claim) =
        state.call(move |app| async move { Ok((app.now().await?, app.claim(claim).await?)) }).await?;
    let model = catalog::by_id(state, claim.model).await?;
    dispute_view::dispute(&dispute, &fold, &model.model, parties, now).map_err(ApiError::internal)
}
