//! `GET /v1/info` and the health routes.

use actix_web::HttpResponse;
use actix_web::web::{Data, Json};
use gainsay_api::info::{Health, Info};

use super::error::ApiError;
use super::state::HttpState;
use super::views;
use crate::bus::BusState;

/// Who the coordinator is, what time it is, and by which numbers it works.
#[utoipa::path(
    get, path = "/v1/info", operation_id = "info", tag = "service",
    summary = "Who the coordinator is, what time it is, and by which numbers it works",
    responses((status = 200, description = "The same for everybody", body = Info)),
)]
pub(super) async fn info(state: Data<HttpState>) -> Result<Json<Info>, ApiError> {
    state.call(|app| async move { app.info().await }).await.map(|info| Json(views::info(&info)))
}

/// The process runs. Asks nobody, so that a database's outage does not get the process killed.
#[utoipa::path(
    get, path = "/health/live", operation_id = "live", tag = "service",
    summary = "Whether the process runs",
    responses((status = 200, description = "It does", body = Health)),
)]
pub(super) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "ok".to_owned() })
}

/// Requests can be served: the database answers, with the schema of this build, and the service is not stopping. Without
/// its Redis it is `degraded`, and serves.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "ready", tag = "service",
    summary = "Whether requests can be served",
    responses((status = 200, description = "They can: `ok`, or `degraded` without Redis", body = Health)),
)]
pub(super) async fn ready(state: Data<HttpState>) -> Result<HttpResponse, ApiError> {
    if state.stopping.is_cancelled() {
        return Err(ApiError::unavailable("The service is stopping"));
    }
    state.call(|app| async move { app.ready().await }).await?;
    let is_alone = state.app.config().redis.is_some() && state.app.bus().state() == BusState::Alone;
    Ok(HttpResponse::Ok().json(Health { status: if is_alone { "degraded" } else { "ok" }.to_owned() }))
}
