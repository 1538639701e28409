//! Who asks: API keys, the operator's token, and signed requests. Extractors, so that a handler's signature says
//! who may call it. Checks run in the order of what they cost: headers, body, signature, database.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::web::{Bytes, Data};
use actix_web::{FromRequest, HttpRequest};
use gainsay_api::ErrorCode;
use gainsay_api::signing::{PARTY_HEADER, SignedHeaders, SigningError, body_hash};
use gainsay_commitment::PartyId;
use gainsay_protocol::ServiceTime;

use super::error::ApiError;
use super::state::HttpState;
use super::{body, parties};
use crate::app::{App, AppError, AppResult, Provider};

type Extracted<T> = Pin<Box<dyn Future<Output = Result<T, ApiError>>>>;

/// The service's state, which every route is built with.
pub(super) fn state(request: &HttpRequest) -> Data<HttpState> {
    request.app_data::<Data<HttpState>>().expect("every route is built with the state").clone()
}

/// The token after `Authorization: Bearer`.
fn bearer(request: &HttpRequest) -> Result<String, ApiError> {
    let value = request.headers().get(AUTHORIZATION).ok_or_else(|| {
        ApiError::new(ErrorCode::MissingCredentials, "Send the key as `Authorization: Bearer KEY`")
    })?;
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    token.filter(|token| !token.is_empty() && token.len() <= 256).ok_or_else(|| {
        ApiError::new(ErrorCode::MissingCredentials, "The authorization header is not `Bearer KEY`")
    })
}

/// A submitter, proven by its API key.
#[derive(Debug)]
pub(super) struct Submitter(pub(super) crate::app::Submitter);

impl Submitter {
    pub(super) async fn of(request: &HttpRequest, state: &HttpState) -> Result<Self, ApiError> {
        let key = bearer(request)?;
        state.call(move |app| async move { app.authenticate(&key).await }).await.map(Self)
    }
}

impl FromRequest for Submitter {
    type Error = ApiError;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { Self::of(&request, &state(&request)).await })
    }
}

/// The operator, proven by its token.
#[derive(Debug)]
pub(super) struct Operator;

impl Operator {
    pub(super) fn of(request: &HttpRequest, state: &HttpState) -> Result<Self, ApiError> {
        let token = bearer(request)?;
        let refused = |sentence| Err(ApiError::new(ErrorCode::InvalidOperatorToken, sentence));
        let Some(expected) = state.app.config().operator_token.as_deref() else {
            return refused("This service was started without an operator token, so nobody may do this");
        };
        // Hashes of equal length are compared, in constant time: neither length nor prefix of the token leaks.
        if blake3::hash(token.as_bytes()) == blake3::hash(expected.as_bytes()) {
            Ok(Self)
        } else {
            refused("The operator token is wrong")
        }
    }
}

impl FromRequest for Operator {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(Self::of(request, &state(request)))
    }
}

/// Whether the request claims to be signed by a key.
pub(super) fn is_signed(request: &HttpRequest) -> bool {
    request.headers().contains_key(PARTY_HEADER)
}

/// Checks that the request with this body hash is signed by the key that it names. Time and nonce are still to
/// be checked, by [`admit`].
pub(super) fn verify(
    request: &HttpRequest,
    state: &HttpState,
    headers: &SignedHeaders,
    body: [u8; 32],
) -> Result<(), ApiError> {
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    // Service time is the database's to tell: it judges the stated time together with the nonce.
    let stated = headers.time_ms;
    headers
        .verify(state.app.coordinator(), request.method().as_str(), path, body, stated)
        .map_err(|error| signing_error(&error))
}

/// The headers of a signed request.
pub(super) fn signed_headers(request: &HttpRequest) -> Result<SignedHeaders, ApiError> {
    SignedHeaders::parse(|name| request.headers().get(name)?.to_str().ok())
        .map_err(|error| signing_error(&error))
}

/// Looks up the signer in its role, then uses up the nonce: strangers cannot fill the memory of nonces.
pub(super) async fn admit<R: Signer>(state: &HttpState, headers: &SignedHeaders) -> Result<R, ApiError> {
    let (party, nonce, stated) = (headers.party, headers.nonce.0, ServiceTime(headers.time_ms));
    let signer = state
        .call(move |app| async move {
            let signer = R::find(&app, party).await?;
            app.record_nonce(party, nonce, stated).await?;
            app.bus().mark_seen(party, stated).await;
            Ok(signer)
        })
        .await?;
    Ok(signer)
}

fn signing_error(error: &SigningError) -> ApiError {
    let code = match error {
        SigningError::Missing => ErrorCode::MissingCredentials,
        SigningError::Malformed { .. } | SigningError::Signature => ErrorCode::InvalidSignature,
        SigningError::Stale { .. } => ErrorCode::StaleRequest,
    };
    ApiError::new(code, super::error::sentence(&error.to_string()))
}

/// A role in which requests are signed.
pub(super) trait Signer: Sized + Send + 'static {
    /// The registered holder of the key, in this role.
    fn find(app: &App, key: PartyId) -> impl Future<Output = AppResult<Self>> + Send;

    /// What a request is held to before anything of it is kept.
    fn limit(_: &HttpRequest, _: &HttpState) -> impl Future<Output = Result<(), ApiError>> {
        std::future::ready(Ok(()))
    }
}

/// Any key: for registration, which needs no earlier one.
#[derive(Debug)]
pub(super) struct AnyKey;
/// A registered worker.
#[derive(Debug)]
pub(super) struct Worker;
/// A registered challenger.
#[derive(Debug)]
pub(super) struct Challenger;

/// A registered worker or challenger.
#[derive(Debug)]
pub(super) struct Player;

impl Signer for Player {
    async fn find(app: &App, key: PartyId) -> AppResult<Self> {
        match app.worker(key).await {
            Err(AppError::UnknownParty { .. }) => app.challenger(key).await.map(|_| Self),
            found => found.map(|_| Self),
        }
    }
}

impl Signer for AnyKey {
    async fn find(_: &App, _: PartyId) -> AppResult<Self> {
        Ok(Self)
    }

    async fn limit(request: &HttpRequest, state: &HttpState) -> Result<(), ApiError> {
        parties::limit(request, state).await
    }
}

impl Signer for Provider {
    async fn find(app: &App, key: PartyId) -> AppResult<Self> {
        app.owner(key).await
    }
}

impl Signer for Worker {
    async fn find(app: &App, key: PartyId) -> AppResult<Self> {
        app.worker(key).await.map(|_| Self)
    }
}

impl Signer for Challenger {
    async fn find(app: &App, key: PartyId) -> AppResult<Self> {
        app.challenger(key).await.map(|_| Self)
    }
}

/// A signed request in the role `R`, with a body of at most `LIMIT` bytes. Fresh: its nonce is used up.
#[derive(Debug)]
pub(super) struct Signed<R, const LIMIT: usize> {
    /// The key that signed.
    pub(super) party: PartyId,
    /// The body that the signature covers.
    pub(super) body: Bytes,
    role: PhantomData<R>,
}

impl<R: Signer, const LIMIT: usize> FromRequest for Signed<R, LIMIT> {
    type Error = ApiError;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let mut payload = payload.take();
        Box::pin(async move {
            let state = state(&request);
            let headers = signed_headers(&request)?;
            R::limit(&request, &state).await?;
            let body = body::read(&request, &mut payload, LIMIT, state.config.body_time).await?;
            verify(&request, &state, &headers, body_hash(&body))?;
            admit::<R>(&state, &headers).await?;
            Ok(Self { party: headers.party, body, role: PhantomData })
        })
    }
}

/// An unsigned body of at most `LIMIT` bytes.
#[derive(Debug)]
pub(super) struct Body<const LIMIT: usize>(pub(super) Bytes);

impl<const LIMIT: usize> FromRequest for Body<LIMIT> {
    type Error = ApiError;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let mut payload = payload.take();
        Box::pin(async move {
            let time = state(&request).config.body_time;
            body::read(&request, &mut payload, LIMIT, time).await.map(Self)
        })
    }
}
