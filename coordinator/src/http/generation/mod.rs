//! `POST /v1/chat/completions` and `POST /v1/completions`: text generation in the OpenAI shape, whole or streamed.
//!
//! Each answer is a job of its own. It is delivered as soon as it is claimed, marked `pending`, or token by token while it
//! is being generated; what was streamed is what is claimed.

mod answer;
mod request;
mod shape;
mod stream;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use gainsay_api::generation::{ChatRequest, ChatResponse, Completion, CompletionRequest};
use gainsay_api::jobs::{Generated, JobView as WireJob};
use gainsay_api::limits::MAX_JSON_BYTES;
use gainsay_protocol::{Job, JobId, OwnerId};
use serde_json::{Map, Value};

use super::auth::{Body, Submitter};
use super::error::ApiError;
use super::state::HttpState;
use super::{headers, repeats};
use crate::app::{App, Delivery, JobView, ModelView};
use request::Wanted;
use shape::{Form, Shape};

/// Jobs named in a header at most.
const HEADER_IDS: usize = 16;

/// `POST /v1/chat/completions`.
#[utoipa::path(
    post, path = "/v1/chat/completions", operation_id = "chat", tag = "generation",
    summary = "Continue a conversation, whole or streamed",
    params(("Idempotency-Key" = Option<String>, Header, description = "Names the request: sent again under the same key, it counts once")),
    request_body = ChatRequest,
    responses((status = 200, description = "As soon as it is claimed; with `stream`, server-sent `ChatChunk`s as it is generated, and `[DONE]`",
        content((ChatResponse = "application/json"), (gainsay_api::schema::ServerSentEvent = "text/event-stream")),
        headers(("gainsay-job" = String, description = "The jobs, the first sixteen")))),
)]
pub(super) async fn chat(
    request: HttpRequest,
    submitter: Submitter,
    body: Body<MAX_JSON_BYTES>,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let owner = submitter.0.id;
    state.admit(format!("submit:{owner}"), state.config.submissions, "submissions").await?;
    let wanted = request::chat(&state, request::fields(&body.0)?).await?;
    run(&request, owner, &body.0, &state, wanted, Form::Chat).await
}

/// `POST /v1/completions`.
#[utoipa::path(
    post, path = "/v1/completions", operation_id = "complete", tag = "generation",
    summary = "Continue texts, whole or streamed",
    params(("Idempotency-Key" = Option<String>, Header, description = "Names the request: sent again under the same key, it counts once")),
    request_body = CompletionRequest,
    responses((status = 200, description = "As soon as it is claimed; with `stream`, server-sent pieces as it is generated, and `[DONE]`",
        content((Completion = "application/json"), (gainsay_api::schema::ServerSentEvent = "text/event-stream")),
        headers(("gainsay-job" = String, description = "The jobs, the first sixteen")))),
)]
pub(super) async fn complete(
    request: HttpRequest,
    submitter: Submitter,
    body: Body<MAX_JSON_BYTES>,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let owner = submitter.0.id;
    state.admit(format!("submit:{owner}"), state.config.submissions, "submissions").await?;
    let wanted = request::completion(&state, request::fields(&body.0)?).await?;
    run(&request, owner, &body.0, &state, wanted, Form::Completion).await
}

async fn run(
    request: &HttpRequest,
    owner: OwnerId,
    body: &[u8],
    state: &Data<HttpState>,
    wanted: Wanted,
    form: Form,
) -> Result<HttpResponse, ApiError> {
    let key = repeats::key(request, owner, body)?;
    // Before anything is queued: a stream that cannot be served must not leave jobs behind.
    let permit = if wanted.stream { Some(stream::permit(state, wanted.requests.len())?) } else { None };
    let keyed = key.is_some();
    let jobs = submit(state, owner, &wanted, key).await?;
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let shape = Shape::new(form, ids[0], &wanted);
    if let Some(permit) = permit {
        return Ok(stream::respond(state, owner, ids, wanted, shape, permit, keyed));
    }
    // The jobs exist: whatever fails from here on must not be taken for a request that may be sent again.
    let answered = answer::wait_for_all(state, owner, &ids, &wanted).await;
    let answered = answered.map_err(|error| error.after_submission(&ids))?;
    Ok(HttpResponse::Ok().insert_header((headers::JOB, named(&ids))).json(shape.whole(&wanted, &answered)))
}

async fn submit(
    state: &HttpState,
    owner: OwnerId,
    wanted: &Wanted,
    key: Option<crate::app::RequestKey>,
) -> Result<Vec<JobView>, ApiError> {
    let model = wanted.model.id;
    let tasks = wanted.requests.iter().cloned().map(|request| Job::generation(model, request)).collect();
    let delivery = Delivery { stream: wanted.stream, webhook: wanted.webhook.clone() };
    let case =
        move |app: App| async move { app.submit_tasks(owner, model, tasks, &delivery, key.as_ref()).await };
    state.call(case).await
}

fn named(ids: &[JobId]) -> String {
    let shown: Vec<String> = ids.iter().take(HEADER_IDS).map(ToString::to_string).collect();
    shown.join(", ")
}

/// Whether the fields of a `POST /v1/jobs` ask for a generation.
pub(super) fn is_generation(fields: &Map<String, Value>) -> bool {
    fields.contains_key("messages") || fields.contains_key("prompt")
}

/// A job of a `POST /v1/jobs` that asks for a generation.
pub(super) async fn submit_one(
    request: &HttpRequest,
    owner: OwnerId,
    body: &[u8],
    state: &HttpState,
) -> Result<(JobView, std::sync::Arc<ModelView>), ApiError> {
    let fields = request::fields(body)?;
    let wanted = match fields.contains_key("messages") {
        true => request::chat(state, fields).await?,
        false => request::completion(state, fields).await?,
    };
    if wanted.requests.len() != 1 || wanted.stream {
        return Err(request::refused(
            if wanted.stream { "stream" } else { "n" },
            "This route makes one job, whose answer is read at /v1/jobs/{id}",
        ));
    }
    let key = repeats::key(request, owner, body)?;
    let jobs = submit(state, owner, &wanted, key).await?;
    let job = jobs.into_iter().next();
    let job = job.ok_or_else(|| ApiError::internal("a submission of one job made none"))?;
    Ok((job, wanted.model))
}

/// Adds the text to a job's view, where it is a generation that has an answer.
pub(super) async fn add_text(
    state: &HttpState,
    view: &mut WireJob,
    job: &JobView,
    model: &ModelView,
) -> Result<(), ApiError> {
    let (Some(answer), Some(claim), Some(request)) =
        (view.answer.as_mut(), job.claim.as_ref(), job.input.generation_request())
    else {
        return Ok(());
    };
    let Some(table) = request::table(state, model).await? else { return Ok(()) };
    let read = answer::read(&claim.output, request, model, &table)?;
    answer.rows = read.tokens.len() as u64;
    answer.generated =
        Some(Generated { text: read.text, token_ids: read.tokens, finish_reason: read.finish });
    Ok(())
}
