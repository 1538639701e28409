//! Registration: `/v1/submitters`, `/v1/owners`, `/v1/workers`, `/v1/challengers`.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::web::Data;
use gainsay_api::ErrorCode;
use gainsay_api::parties::{
    Enlist, EnlistError, EnlistedRole, Enlistment, RegisterOwner, RegisterSubmitter, Registered, Role,
    SubmitterRegistered,
};
use gainsay_commitment::PartyId;
use gainsay_protocol::OwnerId;

use super::auth::{AnyKey, Body, Signed};
use super::body;
use super::error::ApiError;
use super::peer;
use super::state::HttpState;
use crate::app::Provider;

/// Registrations are small.
const MAX_BODY: usize = 16 << 10;

/// `POST /v1/submitters`: answers the API key, this once.
#[utoipa::path(
    post, path = "/v1/submitters", operation_id = "register_submitter", tag = "parties",
    summary = "Register a submitter",
    request_body = RegisterSubmitter,
    responses((status = 201, description = "The API key is shown this once", body = SubmitterRegistered)),
)]
pub(super) async fn register_submitter(
    request: HttpRequest,
    body: Body<MAX_BODY>,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    limit(&request, &state).await?;
    let RegisterSubmitter { name } = body::json(&body.0)?;
    let (submitter, key) = state.call(move |app| async move { app.register_submitter(&name).await }).await?;
    Ok(HttpResponse::Created().json(SubmitterRegistered {
        id: submitter.id,
        name: submitter.name,
        api_key: key.expose().to_owned(),
    }))
}

/// `POST /v1/owners`, signed by the key that registers.
#[utoipa::path(
    post, path = "/v1/owners", operation_id = "register_owner", tag = "parties",
    summary = "Register an owner, by the key that signs",
    request_body = RegisterOwner,
    responses((status = 201, description = "The same registration again changes nothing", body = Registered)),
)]
pub(super) async fn register_owner(
    signed: Signed<AnyKey, MAX_BODY>,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let RegisterOwner { name } = body::json(&signed.body)?;
    let key = signed.party;
    let owner = state.call(move |app| async move { app.register_owner(key, &name).await }).await?;
    Ok(registered(owner.key, owner.name, Role::Owner, owner.id))
}

/// `POST /v1/workers`, signed by the owner; the body holds the worker's own signed consent.
#[utoipa::path(
    post, path = "/v1/workers", operation_id = "register_worker", tag = "parties",
    summary = "Enlist a worker, signed by its owner",
    request_body = Enlist,
    responses((status = 201, description = "The same registration again changes nothing", body = Registered)),
)]
pub(super) async fn register_worker(
    signed: Signed<Provider, MAX_BODY>,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let (worker, enlist) = enlisted(&signed, &state, EnlistedRole::Worker)?;
    let device = enlist.device.unwrap_or_default();
    let (owner, name) = (signed.party, enlist.name);
    let agent = state
        .call(move |app| async move { app.register_worker(owner, worker, &name, &device).await })
        .await?;
    Ok(registered(agent.key, agent.name, Role::Worker, agent.owner))
}

/// `POST /v1/challengers`, likewise.
#[utoipa::path(
    post, path = "/v1/challengers", operation_id = "register_challenger", tag = "parties",
    summary = "Enlist a challenger, signed by its owner",
    request_body = Enlist,
    responses((status = 201, description = "The same registration again changes nothing", body = Registered)),
)]
pub(super) async fn register_challenger(
    signed: Signed<Provider, MAX_BODY>,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let (challenger, enlist) = enlisted(&signed, &state, EnlistedRole::Challenger)?;
    let (owner, name) = (signed.party, enlist.name);
    let agent =
        state.call(move |app| async move { app.register_challenger(owner, challenger, &name).await }).await?;
    Ok(registered(agent.key, agent.name, Role::Challenger, agent.owner))
}

/// The key that is enlisted, proven to agree with it.
fn enlisted(
    signed: &Signed<Provider, MAX_BODY>,
    state: &HttpState,
    role: EnlistedRole,
) -> Result<(PartyId, Enlist), ApiError> {
    let enlist: Enlist = body::json(&signed.body)?;
    let expected = Enlistment { coordinator: state.app.coordinator(), owner: signed.party, role };
    let key = enlist.verify(&expected).map_err(|error| {
        let code = match error {
            EnlistError::Malformed => ErrorCode::InvalidEncoding,
            EnlistError::Signature => ErrorCode::InvalidSignature,
            EnlistError::Mismatch => ErrorCode::Forbidden,
        };
        ApiError::new(code, error.to_string()).param("enlistment")
    })?;
    Ok((key, enlist))
}

fn registered(id: PartyId, name: String, role: Role, owner: OwnerId) -> HttpResponse {
    HttpResponse::Created().json(Registered { id, name, role, owner })
}

/// Registration needs no earlier one, so that only the address can be held to a rate.
pub(super) async fn limit(request: &HttpRequest, state: &HttpState) -> Result<(), ApiError> {
    let address = peer::client(request, &state.config.trusted_proxies);
    let address = address.map(|address| peer::site(address).to_string()).unwrap_or_default();
    state.admit(format!("register:{address}"), state.config.registrations, "registrations").await
}
