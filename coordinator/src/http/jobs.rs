//! `/v1/jobs`: submission without waiting, state and answer, receipt.

use actix_web::web::{Data, Json};
use actix_web::{HttpRequest, HttpResponse};
use gainsay_api::jobs::{JobList, JobQuery, JobView, JobsQuery, Receipt, SubmitJob, WaitFor};
use gainsay_api::limits::MAX_JSON_BYTES;
use gainsay_api::schema;
use gainsay_protocol::{JobId, Role};

use super::auth::{Body, Submitter};
use super::error::ApiError;
use super::state::HttpState;
use super::{body, catalog, generation, headers, names, repeats, request, submission, views};
use crate::app;

/// Jobs that one listing holds at most: each may hold an answer.
const PAGE: u32 = 100;

/// `POST /v1/jobs`: one job, answered as soon as it is queued.
#[utoipa::path(
    post, path = "/v1/jobs", operation_id = "submit_job", tag = "jobs",
    summary = "Submit a job without waiting",
    params(("Idempotency-Key" = Option<String>, Header, description = "Names the request: sent again under the same key, it counts once")),
    request_body = SubmitJob,
    responses((status = 202, description = "It is queued", body = JobView)),
)]
pub(super) async fn submit(
    request: HttpRequest,
    submitter: Submitter,
    body: Body<MAX_JSON_BYTES>,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let owner = submitter.0.id;
    state.admit(format!("submit:{owner}"), state.config.submissions, "submissions").await?;
    let fields: serde_json::Map<String, serde_json::Value> = body::json(&body.0)?;
    if generation::is_generation(&fields) {
        let (job, model) = generation::submit_one(&request, owner, &body.0, &state).await?;
        return Ok(HttpResponse::Accepted()
            .insert_header((headers::JOB, job.id.to_string()))
            .json(views::job(&job, &model.model)));
    }
    let wanted: SubmitJob = submission::parse(&body.0)?;
    let prepared = submission::prepare(&state, &wanted.model, wanted.input).await?;
    let inputs = vec![submission::one_job(&state, &prepared.sequences)?];
    submission::check_price(&state, &inputs, wanted.max_price)?;
    let model = prepared.model.id;
    let key = repeats::key(&request, owner, &body.0)?;
    let case = move |app: app::App| async move { app.submit_jobs(owner, model, inputs, key.as_ref()).await };
    let jobs = state.call(case).await?;
    let job = jobs.first().ok_or_else(|| ApiError::internal("a submission of one job made none"))?;
    Ok(HttpResponse::Accepted()
        .insert_header((headers::JOB, job.id.to_string()))
        .json(views::job(job, &prepared.model.model)))
}

/// `GET /v1/jobs`: the submitter's newest, newest first.
#[utoipa::path(
    get, path = "/v1/jobs", operation_id = "list_jobs", tag = "jobs",
    summary = "The submitter's newest jobs, newest first",
    params(JobsQuery),
    responses((status = 200, description = "At most 100", body = JobList)),
)]
pub(super) async fn list(
    request: HttpRequest,
    submitter: Submitter,
    state: Data<HttpState>,
) -> Result<Json<JobList>, ApiError> {
    let JobsQuery { limit } = request::query(&request)?;
    let (owner, limit) = (submitter.0.id, limit.unwrap_or(PAGE).clamp(1, PAGE));
    let found = state.call(move |app| async move { app.jobs(owner, limit).await }).await?;
    let mut jobs = Vec::with_capacity(found.len());
    for job in &found {
        jobs.push(view(&state, job).await?);
    }
    Ok(Json(JobList { jobs }))
}

/// `DELETE /v1/jobs/{id}`: withdraws a job that no worker has; its price comes back.
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", operation_id = "cancel_job", tag = "jobs",
    summary = "Withdraw a job that no worker has",
    params(("id" = schema::JobId, Path, description = "The job")),
    responses((status = 200, description = "Its price came back", body = JobView)),
)]
pub(super) async fn cancel(
    request: HttpRequest,
    submitter: Submitter,
    state: Data<HttpState>,
) -> Result<Json<JobView>, ApiError> {
    let id: JobId = request::id(&request, "job")?;
    let owner = submitter.0.id;
    let job = state.call(move |app| async move { app.cancel_job(owner, id).await }).await?;
    view(&state, &job).await.map(Json)
}

async fn view(state: &HttpState, job: &app::JobView) -> Result<JobView, ApiError> {
    let model = catalog::by_id(state, job.model).await?;
    let mut view = views::job(job, &model.model);
    generation::add_text(state, &mut view, job, &model).await?;
    Ok(view)
}

/// `GET /v1/jobs/{id}`, with `?wait_ms` until there is an answer, or with `until=final` until it is decided.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", operation_id = "read_job", tag = "jobs",
    summary = "A job and its answer",
    params(("id" = schema::JobId, Path, description = "The job"), JobQuery),
    responses((status = 200, description = "As it is now, or as it is at the end of the wait", body = JobView)),
)]
pub(super) async fn read(
    request: HttpRequest,
    submitter: Submitter,
    state: Data<HttpState>,
) -> Result<Json<JobView>, ApiError> {
    let id: JobId = request::id(&request, "job")?;
    let query: JobQuery = request::query(&request)?;
    let (owner, wait) = (submitter.0.id, state.bounded_wait(query.wait_ms));
    let waited = match query.until {
        _ if wait.is_zero() => None,
        WaitFor::Answer => {
            state.wait(move |app| async move { app.wait_for_result(owner, id, wait).await }).await?
        }
        WaitFor::Final => {
            state.wait(move |app| async move { app.wait_for_decision(owner, id, wait).await }).await?
        }
    };
    let job = match waited {
        Some(job) => job,
        None => state.call(move |app| async move { app.job(owner, id).await }).await?,
    };
    view(&state, &job).await.map(Json)
}

/// `GET /v1/jobs/{id}/receipt`.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/receipt", operation_id = "read_receipt", tag = "jobs",
    summary = "Where the answer ran, which model gave it, who earned what",
    params(("id" = schema::JobId, Path, description = "The job")),
    responses((status = 200, description = "The receipt", body = Receipt)),
)]
pub(super) async fn receipt(
    request: HttpRequest,
    submitter: Submitter,
    state: Data<HttpState>,
) -> Result<Json<Receipt>, ApiError> {
    let id: JobId = request::id(&request, "job")?;
    let owner = submitter.0.id;
    let receipt = state.call(move |app| async move { app.receipt(owner, id).await }).await?;
    let model = catalog::by_id(&state, receipt.claim.model).await?;
    let worker = names::party(&state, receipt.claim.worker, Role::Worker).await?;
    Ok(Json(views::receipt(&receipt, &model.model, worker)))
}
