//! `/v1/claims`.

use actix_web::HttpRequest;
use actix_web::web::{Data, Json};
use gainsay_api::ErrorCode;
use gainsay_api::claims::{
    ClaimAccepted, ClaimFilter, ClaimList, ClaimState, ClaimView, EquivocationConvicted,
};
use gainsay_api::limits::{MAX_CLAIM_BYTES, MAX_EQUIVOCATION_BYTES, MAX_PAGE};
use gainsay_api::schema;
use gainsay_commitment::{ClaimId, Signed as SignedObject};
use gainsay_protocol::{Claim, Role};

use super::auth::{Player, Signed, Worker};
use super::error::ApiError;
use super::state::HttpState;
use super::{names, request, views};
use crate::app;

/// Items of a page where the asker does not say.
const PAGE: u32 = 100;

/// `POST /v1/claims`: the signed claim's bytes. The same bytes again are answered the same.
#[utoipa::path(
    post, path = "/v1/claims", operation_id = "post_claim", tag = "work",
    summary = "Claim a job",
    request_body(content = schema::Octets, content_type = "application/octet-stream", description = "`Signed<Claim>`: the claim's canonical encoding and its signature, at most 65 MiB"),
    responses((status = 200, description = "The same bytes again get the same answer", body = ClaimAccepted)),
)]
pub(super) async fn post(
    signed: Signed<Worker, MAX_CLAIM_BYTES>,
    state: Data<HttpState>,
) -> Result<Json<ClaimAccepted>, ApiError> {
    let claim = SignedObject::<Claim>::from_bytes(&signed.body).map_err(|error| {
        ApiError::new(
            ErrorCode::InvalidEncoding,
            format!("The body is not the encoding of a signed claim: {error}"),
        )
    })?;
    if claim.signer != signed.party {
        let sentence = "The claim is signed by another key than the request: a worker posts its own claims";
        return Err(ApiError::new(ErrorCode::Forbidden, sentence));
    }
    let bytes = signed.body;
    let receipt = state.call(move |app| async move { app.post_claim(&bytes).await }).await?;
    Ok(Json(views::accepted(&receipt)))
}

/// `GET /v1/claims/{id}`: all that a challenger needs.
#[utoipa::path(
    get, path = "/v1/claims/{id}", operation_id = "read_claim", tag = "work",
    summary = "A claim with all that a challenger needs",
    params(("id" = schema::ClaimId, Path, description = "The claim")),
    responses((status = 200, description = "The claim", body = ClaimView)),
)]
pub(super) async fn read(request: HttpRequest, state: Data<HttpState>) -> Result<Json<ClaimView>, ApiError> {
    let id: ClaimId = request::id(&request, "claim")?;
    let (claim, open) = state
        .call(move |app| async move { Ok((app.claim(id).await?, app.undecided_disputes(id).await?)) })
        .await?;
    let worker = names::party(&state, claim.worker, Role::Worker).await?;
    Ok(Json(views::claim(&claim, worker, open)))
}

/// `POST /v1/equivocations`: two signed claims of one lease, from whoever is registered as worker or challenger.
#[utoipa::path(
    post, path = "/v1/equivocations", operation_id = "report_equivocation", tag = "work",
    summary = "Report two different signed claims for one lease: they convict their worker",
    request_body(content = schema::Octets, content_type = "application/octet-stream", description = "Canonical `Equivocation`"),
    responses((status = 200, description = "What followed", body = EquivocationConvicted)),
)]
pub(super) async fn report(
    signed: Signed<Player, MAX_EQUIVOCATION_BYTES>,
    state: Data<HttpState>,
) -> Result<Json<EquivocationConvicted>, ApiError> {
    let (reporter, bytes) = (signed.party, signed.body);
    let case = move |app: app::App| async move { app.report_equivocation(reporter, &bytes).await };
    let app::Conviction { worker, lease, rejected } = state.call(case).await?;
    Ok(Json(EquivocationConvicted { worker, lease, rejected }))
}

/// `GET /v1/claims`: a page, oldest first.
#[utoipa::path(
    get, path = "/v1/claims", operation_id = "list_claims", tag = "work",
    summary = "Claims, oldest first",
    params(ClaimFilter),
    responses((status = 200, description = "A page", body = ClaimList)),
)]
pub(super) async fn list(request: HttpRequest, state: Data<HttpState>) -> Result<Json<ClaimList>, ApiError> {
    let filter: ClaimFilter = request::query(&request)?;
    let limit = filter.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let query = app::ClaimFilter {
        state: filter.state.map(|state| match state {
            ClaimState::Open => app::ClaimState::Pending,
            ClaimState::Finalized => app::ClaimState::Finalized,
            ClaimState::Rejected => app::ClaimState::Rejected,
            ClaimState::Voided => app::ClaimState::Voided,
        }),
        worker: filter.worker,
        after: filter.after,
    };
    // One more than the page shows whether more follow.
    let mut found = state.call(move |app| async move { app.list_claims(query, limit + 1).await }).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let mut claims = Vec::with_capacity(found.len());
    for claim in &found {
        let worker = names::party(&state, claim.worker, Role::Worker).await?;
        claims.push(views::claim_summary(claim, worker));
    }
    Ok(Json(ClaimList { claims, more }))
}
