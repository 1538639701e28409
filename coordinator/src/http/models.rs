//! `/v1/models`: manifests by id.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Data, Json};
use actix_web::{HttpRequest, HttpResponse};
use gainsay_api::ErrorCode;
use gainsay_api::limits::MAX_MANIFEST_BYTES;
use gainsay_api::models::{ModelList, ModelView};
use gainsay_api::schema;
use gainsay_api::signing::body_hash;
use gainsay_commitment::{ModelId, PartyId};

use super::auth::{self, Body, Operator};
use super::error::ApiError;
use super::state::HttpState;
use super::{headers, request, views};
use crate::app::Provider;

/// `GET /v1/models`: the OpenAI shape, newest first.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "list_models", tag = "models",
    summary = "The registered models, newest first",
    responses((status = 200, description = "The OpenAI shape, and more", body = ModelList)),
)]
pub(super) async fn list(state: Data<HttpState>) -> Result<Json<ModelList>, ApiError> {
    let (models, ages) =
        state.call(|app| async move { Ok((app.models().await?, app.registration_times().await?)) }).await?;
    let created = |id| ages.get(&id).copied().unwrap_or_default();
    let data = models.iter().rev().map(|model| views::model(model, created(model.id))).collect();
    Ok(Json(ModelList { object: "list".to_owned(), data }))
}

/// `GET /v1/models/{id}`: the manifest's canonical bytes, which hash to the id.
#[utoipa::path(
    get, path = "/v1/models/{id}", operation_id = "read_model", tag = "models",
    summary = "A model's manifest",
    params(("id" = schema::ModelId, Path, description = "The model")),
    responses((status = 200, description = "The manifest's canonical bytes, which hash to the id", content_type = "application/octet-stream", body = schema::Octets)),
)]
pub(super) async fn read(request: HttpRequest, state: Data<HttpState>) -> Result<HttpResponse, ApiError> {
    let id: ModelId = request::id(&request, "model")?;
    let bytes = state.call(move |app| async move { app.manifest_bytes(id).await }).await?;
    Ok(HttpResponse::Ok()
        .content_type("application/octet-stream")
        .insert_header((CACHE_CONTROL, headers::IMMUTABLE))
        .body(bytes))
}

/// `PUT /v1/models/{id}`, by the operator or an owner: answers which blobs are still to be uploaded.
#[utoipa::path(
    put, path = "/v1/models/{id}", operation_id = "register_model", tag = "models",
    summary = "Register a model",
    params(("id" = schema::ModelId, Path, description = "The hash of the manifest")),
    request_body(content = schema::Octets, content_type = "application/octet-stream", description = "The manifest's canonical bytes, at most 16 MiB"),
    responses((status = 200, description = "With the files that are still to be uploaded", body = ModelView)),
)]
pub(super) async fn register(
    request: HttpRequest,
    body: Body<MAX_MANIFEST_BYTES>,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let id: ModelId = request::id(&request, "model")?;
    if let Some(owner) = publisher(&request, &state, body_hash(&body.0)).await? {
        // Parties load what is registered, so that one who registers without end costs them all.
        state.admit(format!("model:{owner}"), state.config.registrations, "registrations of models").await?;
    }
    let bytes = body.0;
    let (model, ages) = state
        .call(move |app| async move {
            Ok((app.register_model(id, &bytes).await?, app.registration_times().await?))
        })
        .await?;
    let created = ages.get(&id).copied().unwrap_or_default();
    Ok(HttpResponse::Ok().json(views::model(&model, created)))
}

/// Lets the operator and registered owners through; an owner's key, where it is one.
pub(super) async fn publisher(
    request: &HttpRequest,
    state: &HttpState,
    body: [u8; 32],
) -> Result<Option<PartyId>, ApiError> {
    if !auth::is_signed(request) {
        return Operator::of(request, state).map(|_| None).map_err(|error| match error.detail().code {
            ErrorCode::MissingCredentials => ApiError::new(
                ErrorCode::MissingCredentials,
                "Models are published by owners, who sign the request, or by the operator with its token",
            ),
            _ => error,
        });
    }
    let signed = auth::signed_headers(request)?;
    auth::verify(request, state, &signed, body)?;
    auth::admit::<Provider>(state, &signed).await.map(|_| Some(signed.party))
}
