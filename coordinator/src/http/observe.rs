//! Around every request: an id, a line in the log, the headers that keep browsers strict, and the one place where
//! errors become bodies.

use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    ALLOW, CACHE_CONTROL, HeaderName, HeaderValue, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse};
use gainsay_api::{ErrorBody, ErrorCode, ErrorDetail};
use tracing::Instrument as _;
use uuid::Uuid;

use super::error::{self, ApiError};
use super::headers::{JOB, REQUEST_ID, SHOULD_RETRY};
use crate::telemetry;

/// Letters of a request id that a client chose.
const ID_MAX: usize = 64;

/// The middleware.
pub(super) async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let id = request_id(&request);
    // Everything that is logged on the request's behalf carries its id.
    let span = tracing::info_span!("request", request_id = id);
    let method = method_name(request.method());
    let response = next.call(request).instrument(span.clone()).await?.map_into_boxed_body();
    let _in_span = span.enter();
    let mut response = if response.status().is_client_error() || response.status().is_server_error() {
        render(response, &id)
    } else {
        response
    };
    add_headers(&mut response, &id);
    // The route's pattern, never the path or query as sent: those are the client's and may hold anything.
    let route = response.request().match_pattern();
    let route = route.as_deref().unwrap_or("none");
    let status = response.status().as_u16();
    let elapsed = started.elapsed();
    telemetry::answered(method, route, status, elapsed);
    tracing::debug!(method, route, status, elapsed_us = elapsed.as_micros() as u64, "answered");
    Ok(response)
}

/// The id that the client or a proxy gave the request, where it is one that can go into a log; a new one otherwise.
fn request_id(request: &ServiceRequest) -> String {
    let is_plain = |text: &&str| {
        (1..=ID_MAX).contains(&text.len())
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
    };
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_plain);
    given.map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned)
}

/// The method as a label: clients may make methods up.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Gives an error its body. Errors of the framework (no such route, a broken request line) get one too.
fn render(response: ServiceResponse<BoxBody>, id: &str) -> ServiceResponse<BoxBody> {
    let (request, answer) = response.into_parts();
    let own = answer.error().and_then(|error| error.as_error::<ApiError>());
    if let Some(causes) = own.and_then(ApiError::causes) {
        tracing::error!(causes, "request failed");
    }
    let methods = answer.headers().get(ALLOW).cloned();
    let detail =
        own.map_or_else(|| foreign(answer.status(), methods.as_ref()), |error| error.detail().clone());
    let mut builder = HttpResponse::build(own.map_or(error::status(detail.code), |_| answer.status()));
    if let Some(seconds) = own.and_then(ApiError::retry_after_secs) {
        builder.insert_header((RETRY_AFTER, seconds));
    }
    // Which methods a route has, where this one is not among them.
    if let Some(methods) = methods {
        builder.insert_header((ALLOW, methods));
    }
    // Stock OpenAI clients repeat any 409 and 5xx by themselves. A submission that may have happened must not be
    // repeated: it would be a second job.
    let repeat = own.is_some_and(ApiError::may_be_repeated);
    builder.insert_header((SHOULD_RETRY, if repeat { "true" } else { "false" }));
    if let Some(jobs) = own.map(ApiError::jobs).filter(|jobs| !jobs.is_empty()) {
        let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
        builder.insert_header((JOB, jobs.join(", ")));
    }
    let answer = builder.json(ErrorBody { error: detail, request_id: id.to_owned() });
    ServiceResponse::new(request, answer)
}

/// What the framework's own refusals mean.
fn foreign(status: StatusCode, methods: Option<&HeaderValue>) -> ErrorDetail {
    let (code, message) = match status {
        StatusCode::NOT_FOUND => {
            (ErrorCode::RouteNotFound, "There is no such route; /docs shows those that there are")
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let methods = methods.and_then(|methods| methods.to_str().ok()).unwrap_or("other methods");
            let sentence = format!("The route exists, but not with this method: it takes {methods}");
            return ErrorDetail::new(ErrorCode::MethodNotAllowed, sentence);
        }
        StatusCode::PAYLOAD_TOO_LARGE => (ErrorCode::BodyTooLarge, "The body is too long"),
        status if status.is_server_error() => {
            (ErrorCode::Internal, "Something failed here; quote the request id when you report it")
        }
        _ => (ErrorCode::InvalidRequest, "The request is not well-formed HTTP for this route"),
    };
    ErrorDetail::new(code, message)
}

fn add_headers(response: &mut ServiceResponse<BoxBody>, id: &str) {
    let headers = response.headers_mut();
    let id = HeaderValue::from_str(id).expect("ids are letters, digits and few signs");
    headers.insert(HeaderName::from_static(REQUEST_ID), id);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}
