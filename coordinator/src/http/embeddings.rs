//! `POST /v1/embeddings`: the OpenAI shape. The answer is delivered as soon as it is claimed, marked `pending`.

use std::time::{Duration, Instant};

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use gainsay_api::ErrorCode;
use gainsay_api::embeddings::{
    Embedding, EmbeddingRequest, EmbeddingResponse, EncodingFormat, Part, Provenance, Usage, Vector,
};
use gainsay_api::limits::MAX_JSON_BYTES;
use gainsay_protocol::{JobId, OwnerId};

use super::auth::{Body, Submitter};
use super::error::ApiError;
use super::state::HttpState;
use super::submission::{self, Prepared};
use super::{headers, repeats, views};
use crate::app::{App, ClaimSummary, Finality, JobState, JobView};

/// Jobs and claims named in headers at most; the body names all.
const HEADER_IDS: usize = 16;

/// The handler.
#[utoipa::path(
    post, path = "/v1/embeddings", operation_id = "embed", tag = "embeddings",
    summary = "Embed texts, and wait for the vectors",
    params(("Idempotency-Key" = Option<String>, Header, description = "Names the request: sent again under the same key, it counts once")),
    request_body = EmbeddingRequest,
    responses((status = 200, description = "As soon as it is claimed. Ask for the job later to see whether it is final",
        body = EmbeddingResponse,
        headers(
            ("gainsay-job" = String, description = "The jobs, the first sixteen"),
            ("gainsay-claim" = String, description = "The claims, the first sixteen"),
            ("gainsay-finality" = String, description = "`pending` or `final`"),
        ))),
)]
pub(super) async fn embed(
    request: HttpRequest,
    submitter: Submitter,
    body: Body<MAX_JSON_BYTES>,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let owner = submitter.0.id;
    state.admit(format!("submit:{owner}"), state.config.submissions, "submissions").await?;
    let wanted: EmbeddingRequest = submission::parse(&body.0)?;
    let prepared = submission::prepare(&state, &wanted.model, wanted.input).await?;
    check_dimensions(&prepared, wanted.dimensions)?;
    let limits = (state.config.sequences_per_job, state.config.tokens_per_job);
    let inputs = submission::split(&prepared.sequences, limits.0, limits.1)?;
    submission::check_price(&state, &inputs, wanted.max_price)?;
    let model = prepared.model.id;
    let key = repeats::key(&request, owner, &body.0)?;
    let case = move |app: App| async move { app.submit_jobs(owner, model, inputs, key.as_ref()).await };
    let submitted = state.call(case).await?;
    let answered = answers(&state, owner, submitted).await?;
    Ok(respond(&prepared, &answered, wanted.encoding_format))
}

/// A vector has the width that the model gives it, and no other.
fn check_dimensions(prepared: &Prepared, wanted: Option<u32>) -> Result<(), ApiError> {
    let width = prepared.model.model.answer_width();
    match wanted {
        Some(wanted) if wanted != width => {
            let sentence =
                format!("This model's vectors have {width} dimensions, and cannot be cut to {wanted}");
            Err(ApiError::new(ErrorCode::UnsupportedParameter, sentence).param("dimensions"))
        }
        _ => Ok(()),
    }
}

/// A job with the claim that answers it.
struct Answered {
    job: JobView,
    claim: ClaimSummary,
}

/// Waits until every job is claimed. What is not in time goes on, and can be asked for by its id.
async fn answers(state: &HttpState, owner: OwnerId, jobs: Vec<JobView>) -> Result<Vec<Answered>, ApiError> {
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let deadline = Instant::now() + state.config.answer_time;
    let mut answered = Vec::with_capacity(ids.len());
    for id in &ids {
        let waited = wait(state, owner, *id, deadline).await;
        let waited = waited.map_err(|error| error.after_submission(&ids))?;
        let job = waited.ok_or_else(|| going_on(&ids))?;
        if matches!(job.state, JobState::Refunded | JobState::Voided) {
            let sentence = if job.state == JobState::Refunded {
                "No worker could answer this job, or no answer stood; its price was refunded"
            } else {
                "The model's arithmetic was withdrawn; the price was refunded (GET /v1/voids says why)"
            };
            return Err(ApiError::new(ErrorCode::JobFailed, sentence).with_jobs(ids));
        }
        let claim = job.claim.clone().filter(|claim| claim.finality != Finality::Revoked);
        let claim = claim.ok_or_else(|| going_on(&ids))?;
        answered.push(Answered { job, claim });
    }
    Ok(answered)
}

async fn wait(
    state: &HttpState,
    owner: OwnerId,
    job: JobId,
    deadline: Instant,
) -> Result<Option<JobView>, ApiError> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    state.wait(move |app| async move { app.wait_for_result(owner, job, left).await }).await
}

fn going_on(jobs: &[JobId]) -> ApiError {
    let sentence =
        "No worker has answered yet. The jobs go on: read each at /v1/jobs/{id} (header gainsay-job)";
    ApiError::new(ErrorCode::JobTimeout, sentence).with_jobs(jobs.to_vec())
}

fn respond(prepared: &Prepared, answered: &[Answered], format: EncodingFormat) -> HttpResponse {
    let tokens = prepared.tokens();
    let provenance = provenance(answered);
    // Headers name the first ones: enough for most requests, and never more than a proxy lets through.
    let shown = &answered[..answered.len().min(HEADER_IDS)];
    let jobs: Vec<String> = shown.iter().map(|part| part.job.id.to_string()).collect();
    let claims: Vec<String> = shown.iter().map(|part| part.claim.id.to_string()).collect();
    let finality =
        if provenance.finality == gainsay_api::jobs::Finality::Final { "final" } else { "pending" };
    HttpResponse::Ok()
        .insert_header((headers::JOB, jobs.join(", ")))
        .insert_header((headers::CLAIM, claims.join(", ")))
        .insert_header((headers::FINALITY, finality))
        .json(EmbeddingResponse {
            object: "list".to_owned(),
            data: vectors(prepared.model.model.answer_width(), answered, format),
            model: prepared.model.model.manifest().name.clone(),
            usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
            gainsay: provenance,
        })
}

/// One vector a sequence, numbered through all jobs. Outputs are as long as the program says: a claim of another
/// length is refused on receipt.
fn vectors(width: u32, answered: &[Answered], format: EncodingFormat) -> Vec<Embedding> {
    let row_bytes = width as usize * size_of::<f32>();
    let rows = answered.iter().flat_map(|part| part.claim.output.chunks_exact(row_bytes));
    let vector = |row: &[u8]| -> Vec<f32> {
        row.as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value)).collect()
    };
    let embedding = |(index, row): (usize, &[u8])| Embedding {
        object: "embedding".to_owned(),
        index: index as u32,
        embedding: Vector::encode(&vector(row), format),
    };
    rows.enumerate().map(embedding).collect()
}

fn provenance(answered: &[Answered]) -> Provenance {
    let first = answered.first().expect("a request has at least one job");
    let all_final = answered.iter().all(|part| part.claim.finality == Finality::Final);
    Provenance {
        job: first.job.id,
        claim: first.claim.id,
        finality: views::finality(if all_final { Finality::Final } else { Finality::Pending }),
        price: answered.iter().fold(0, |sum: i64, part| sum.saturating_add(part.job.price.0)),
        parts: answered
            .iter()
            .map(|part| Part {
                job: part.job.id,
                inputs: part.job.input.sequence_count() as u32,
                claim: part.claim.id,
                trace_root: part.claim.trace_root,
                worker: part.claim.worker,
            })
            .collect(),
    }
}
