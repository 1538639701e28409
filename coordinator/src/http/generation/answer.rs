//! Answers that are claimed: waited for, and read as text.

use std::time::{Duration, Instant};

use gainsay_api::ErrorCode;
use gainsay_api::embeddings::{Part, Provenance};
use gainsay_api::generation::FinishReason;
use gainsay_program::{FinishReason as Reason, GenerationRequest, finish_reason};
use gainsay_protocol::{JobId, OwnerId};
use gainsay_text::{TextStream, TokenTable};

use super::super::error::ApiError;
use super::super::state::HttpState;
use super::super::views;
use super::request::Wanted;
use crate::app::{ClaimSummary, Finality, JobState, JobView, ModelView};

/// An answer.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) job: JobView,
    pub(super) claim: ClaimSummary,
    pub(super) read: Read,
}

/// What an answer says.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) tokens: Vec<u32>,
    /// Up to where a stop string begins.
    pub(super) text: String,
    pub(super) finish: FinishReason,
}

/// The tokens of a claimed output.
pub(super) fn tokens(output: &[u8]) -> Vec<u32> {
    output.as_chunks::<4>().0.iter().map(|&token| u32::from_le_bytes(token)).collect()
}

/// Reads a claimed output.
pub(super) fn read(
    output: &[u8],
    request: &GenerationRequest,
    model: &ModelView,
    table: &TokenTable,
) -> Result<Read, ApiError> {
    let tokens = tokens(output);
    let stop_ids = model.model.manifest().generation.as_ref().map_or(&[][..], |spec| &spec.stop_ids);
    let reason = finish_reason(request, stop_ids, &tokens, table);
    let finish = match reason.map_err(ApiError::internal)? {
        Reason::Eos | Reason::StopString => FinishReason::Stop,
        Reason::Length => FinishReason::Length,
    };
    let text = TextStream::whole(&request.stop.stop, &table.concat(&tokens));
    Ok(Read { tokens, text, finish })
}

/// Waits until every job is claimed. What is not in time goes on, and can be asked for by its id.
pub(super) async fn wait_for_all(
    state: &HttpState,
    owner: OwnerId,
    jobs: &[JobId],
    wanted: &Wanted,
) -> Result<Vec<Answered>, ApiError> {
    let deadline = Instant::now() + state.config.generation_time;
    let mut answered = Vec::with_capacity(jobs.len());
    for (job, request) in jobs.iter().zip(&wanted.requests) {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let id = *job;
        let job = state.wait(move |app| async move { app.wait_for_result(owner, id, left).await }).await?;
        let job = job.ok_or_else(going_on)?;
        if let Some(error) = failure(job.state) {
            return Err(error);
        }
        let claim = standing(&job).ok_or_else(going_on)?;
        let read = read(&claim.output, request, &wanted.model, &wanted.table)?;
        answered.push(Answered { job, claim, read });
    }
    Ok(answered)
}

/// The claim that answers a job now, if one does.
pub(super) fn standing(job: &JobView) -> Option<ClaimSummary> {
    let answered = matches!(job.state, JobState::Claimed | JobState::Finalized);
    job.claim.clone().filter(|claim| answered && claim.finality != Finality::Revoked)
}

/// Why a job will never have an answer, if it is so.
pub(super) fn failure(state: JobState) -> Option<ApiError> {
    let sentence = match state {
        JobState::Refunded => "No worker could answer this job, or no answer stood; its price was refunded",
        JobState::Voided => {
            "The model's arithmetic was withdrawn; the price was refunded (GET /v1/voids says why)"
        }
        JobState::Cancelled => "The job was withdrawn; its price was refunded",
        _ => return None,
    };
    Some(ApiError::new(ErrorCode::JobFailed, sentence))
}

/// The answer did not come in time.
pub(super) fn going_on() -> ApiError {
    let sentence =
        "No worker has answered yet. The jobs go on: read each at /v1/jobs/{id} (header gainsay-job)";
    ApiError::new(ErrorCode::JobTimeout, sentence)
}

/// Where answers came from, and how final they are.
pub(super) fn provenance(answered: &[&Answered]) -> Option<Provenance> {
    let first = answered.first()?;
    let all_final = answered.iter().all(|part| part.claim.finality == Finality::Final);
    let part = |part: &&Answered| Part {
        job: part.job.id,
        inputs: 1,
        claim: part.claim.id,
        trace_root: part.claim.trace_root,
        worker: part.claim.worker,
    };
    Some(Provenance {
        job: first.job.id,
        claim: first.claim.id,
        finality: views::finality(if all_final { Finality::Final } else { Finality::Pending }),
        price: answered.iter().fold(0, |sum: i64, part| sum.saturating_add(price(part))),
        parts: answered.iter().map(part).collect(),
    })
}

/// What an answer costs if it becomes final.
fn price(answered: &Answered) -> i64 {
    let most = answered.job.input.generation_request().map_or(0, |request| request.stop.max_tokens);
    let unused = i64::from(most).saturating_sub(answered.read.tokens.len() as i64);
    answered.job.price.0.saturating_sub(answered.job.unused_token_price.0.saturating_mul(unused))
}
