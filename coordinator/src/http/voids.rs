//! `/v1/voids`: profile versions that the operator has withdrawn.

use actix_web::web::{Data, Json};
use gainsay_api::ErrorCode;
use gainsay_api::voids::{VoidList, VoidProfile, VoidView};
use gainsay_api::wire::Base64;
use gainsay_program::ArithmeticProfile;

use super::auth::{Body, Operator};
use super::body;
use super::error::ApiError;
use super::state::HttpState;
use crate::app;

/// A name and a reason are short.
const MAX_BODY: usize = 4 << 10;

/// `POST /v1/voids`, by the operator: withdraws a profile version, and gives back all that is undecided.
#[utoipa::path(
    post, path = "/v1/voids", operation_id = "void_profile", tag = "money",
    summary = "Withdraw an arithmetic profile, and give back everything undecided",
    request_body = VoidProfile,
    responses((status = 200, description = "The signed statement", body = VoidView)),
)]
pub(super) async fn void(
    _: Operator,
    body: Body<MAX_BODY>,
    state: Data<HttpState>,
) -> Result<Json<VoidView>, ApiError> {
    let VoidProfile { arithmetic, reason } = body::json(&body.0)?;
    let profile = ArithmeticProfile::parse(&arithmetic).ok_or_else(|| {
        let known = ArithmeticProfile::ALL.map(ArithmeticProfile::name).join(", ");
        let sentence = format!("No arithmetic profile has this name; known are {known}");
        ApiError::new(ErrorCode::InvalidRequest, sentence).param("arithmetic")
    })?;
    let void = state.call(move |app| async move { app.void_profile(profile, &reason).await }).await?;
    Ok(Json(view(void)))
}

/// `GET /v1/voids`: oldest first.
#[utoipa::path(
    get, path = "/v1/voids", operation_id = "list_voids", tag = "money",
    summary = "Arithmetic profiles that were withdrawn, oldest first",
    responses((status = 200, description = "The signed statements", body = VoidList)),
)]
pub(super) async fn list(state: Data<HttpState>) -> Result<Json<VoidList>, ApiError> {
    let voids = state.call(|app| async move { app.voids().await }).await?;
    Ok(Json(VoidList { voids: voids.into_iter().map(view).collect() }))
}

fn view(void: app::VoidView) -> VoidView {
    let app::VoidView { arithmetic, reason, at, statement } = void;
    VoidView { arithmetic, reason, at_ms: at.0, statement: Base64(statement) }
}
