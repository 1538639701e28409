//! Answers as server-sent events, while they are generated.
//!
//! Each response has a task of its own that follows its jobs in the database and hands pieces to the connection; it looks
//! when something has changed. So any coordinator can serve the stream, whichever the worker talks to. Where a job is leased
//! anew after its worker was lost, the new answer goes on where the old one was, if it begins with the same tokens, as
//! an honest one does; otherwise the stream ends with an error.

use std::convert::Infallible;
use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Bytes, Data};
use futures_util::stream;
use gainsay_api::ErrorCode;
use gainsay_protocol::{JobId, LeaseId, OwnerId};
use gainsay_text::TextStream;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::error::ApiError;
use super::super::headers;
use super::super::state::HttpState;
use super::answer::{self, Answered, failure, going_on, provenance, standing};
use super::request::Wanted;
use super::shape::{Piece, Shape};

/// Pieces that wait for a slow connection.
const WAITING: usize = 16;

/// Room for so many more answers.
pub(super) fn permit(state: &HttpState, answers: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let answers = u32::try_from(answers).unwrap_or(u32::MAX);
    Arc::clone(&state.generations).try_acquire_many_owned(answers).map_err(|_| {
        let sentence = "Too many answers are being streamed here; try again, or ask without `stream`";
        ApiError::new(ErrorCode::Overloaded, sentence)
    })
}

/// The response; its task starts at once.
pub(super) fn respond(
    state: &Data<HttpState>,
    owner: OwnerId,
    jobs: Vec<JobId>,
    wanted: Wanted,
    shape: Shape,
    permit: OwnedSemaphorePermit,
    keyed: bool,
) -> HttpResponse {
    let (sender, receiver) = mpsc::channel(WAITING);
    let named = super::named(&jobs);
    let relay = Arc::new(Relay { state: Data::clone(state), owner, wanted, shape, sender });
    state.spawn(async move {
        let _permit = permit;
        relay.run(jobs, keyed).await;
    });
    let pieces = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (Ok::<Bytes, Infallible>(piece), receiver))
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((headers::JOB, named))
        .insert_header((CACHE_CONTROL, "no-store, no-transform"))
        // Proxies of the nginx family hold answers back unless told not to.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(Box::pin(pieces))
}

/// Feeds one response.
struct Relay {
    state: Data<HttpState>,
    owner: OwnerId,
    wanted: Wanted,
    shape: Shape,
    sender: mpsc::Sender<Bytes>,
}

/// The reader is gone or takes nothing.
struct Gone;

/// Why an answer was not streamed to its end.
enum Ended {
    Gone,
    Failed(ApiError),
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<ApiError> for Ended {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl Relay {
    async fn run(self: Arc<Self>, jobs: Vec<JobId>, keyed: bool) {
        let left = tokio::select! {
            () = self.sender.closed() => true,
            () = self.state.stopping.cancelled() => {
                let error = ApiError::unavailable("The service is stopping; the jobs go on (header gainsay-job)");
                let _ = self.send(&error_event(&error)).await;
                false
            }
            ended = self.feed(&jobs) => ended.is_err(),
        };
        // Nobody waits: what no worker has is withdrawn. A worker that has begun is paid for its work, and the submitter
        // finds the answer at /v1/jobs. A request under a key may come again, and means the same jobs.
        if left && !keyed {
            self.state.app.abandon_jobs(self.owner, &jobs).await;
        }
    }

    /// Follows all jobs at once, and keeps the connection alive in between.
    async fn feed(self: &Arc<Self>, jobs: &[JobId]) -> Result<(), Gone> {
        let mut answers = JoinSet::new();
        for (index, job) in (0..).zip(jobs) {
            let (relay, job) = (Arc::clone(self), *job);
            answers.spawn(async move { relay.follow(index, job).await });
        }
        let mut generated = 0;
        loop {
            let beat = tokio::time::sleep(self.state.config.event_heartbeat);
            let ended = tokio::select! {
                ended = answers.join_next() => ended,
                () = beat => {
                    self.send_bytes(Bytes::from_static(b":\n\n")).await?;
                    continue;
                }
            };
            match ended {
                None => break,
                Some(Ok(Ok(tokens))) => generated += tokens,
                Some(Ok(Err(Ended::Gone))) => return Err(Gone),
                Some(Ok(Err(Ended::Failed(error)))) => {
                    if let Some(causes) = error.causes() {
                        tracing::error!(causes, "a streamed answer ended");
                    }
                    return self.send(&error_event(&error)).await;
                }
                Some(Err(broken)) => return self.send(&error_event(&ApiError::internal(broken))).await,
            }
        }
        if self.wanted.include_usage {
            self.send(&self.shape.usage(self.wanted.prompt_tokens, generated)).await?;
        }
        self.send_bytes(Bytes::from_static(b"data: [DONE]\n\n")).await
    }

    /// Streams one answer to its end. How many tokens it has.
    async fn follow(&self, index: u32, job: JobId) -> Result<u64, Ended> {
        let deadline = Instant::now() + self.state.config.generation_time;
        let request = &self.wanted.requests[index as usize];
        let mut text = TextStream::new(&request.stop.stop);
        let mut place = Place::default();
        self.piece(index, Piece::Begin).await?;
        let mut news = self.state.app.follow(job).await;
        loop {
            let (owner, lease, from) = (self.owner, place.lease, place.seen);
            let progress = self.state.app.progress(owner, job, lease, from).await.map_err(ApiError::from)?;
            if let Some(error) = failure(progress.job.state) {
                return Err(error.into());
            }
            if let Some(claim) = standing(&progress.job) {
                let read = answer::read(&claim.output, request, &self.wanted.model, &self.wanted.table)?;
                place.restart();
                let fresh = place.finish(&read.tokens, text.is_stopped()).ok_or_else(|| differs(job))?;
                self.text(index, text.push(&self.wanted.table.concat(fresh))).await?;
                self.text(index, text.finish()).await?;
                let (tokens, finish) = (read.tokens.len() as u64, read.finish);
                let answered = Answered { job: progress.job, claim, read };
                let gainsay = provenance(&[&answered]).expect("there is one answer");
                self.piece(index, Piece::End(finish, Box::new(gainsay))).await?;
                return Ok(tokens);
            }
            if progress.lease != place.lease {
                place.restart();
                place.lease = progress.lease;
            }
            let fresh = place.advance(&progress.tokens).ok_or_else(|| differs(job))?;
            self.text(index, text.push(&self.wanted.table.concat(fresh))).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(going_on().into());
            }
            news.wait(left).await;
        }
    }

    async fn text(&self, index: u32, text: String) -> Result<(), Gone> {
        if text.is_empty() { Ok(()) } else { self.piece(index, Piece::Text(text)).await }
    }

    async fn piece(&self, index: u32, piece: Piece) -> Result<(), Gone> {
        match self.shape.piece(index, piece) {
            Some(piece) => self.send(&piece).await,
            None => Ok(()),
        }
    }

    async fn send(&self, piece: &Value) -> Result<(), Gone> {
        self.send_bytes(Bytes::from(format!("data: {piece}\n\n"))).await
    }

    async fn send_bytes(&self, piece: Bytes) -> Result<(), Gone> {
        let sent = tokio::time::timeout(self.state.config.event_stall, self.sender.send(piece)).await;
        if matches!(sent, Ok(Ok(()))) { Ok(()) } else { Err(Gone) }
    }
}

/// How far an answer was told.
#[derive(Debug, Default)]
struct Place {
    /// The lease whose tokens are followed.
    lease: Option<LeaseId>,
    /// Tokens of it that were looked at.
    seen: usize,
    /// Tokens told.
    told: Vec<u32>,
}

impl Place {
    /// Looks at another source of the same answer, from its beginning.
    fn restart(&mut self) {
        self.seen = 0;
    }

    /// Takes what follows in the source; what of it is to be told. None if it differs from what was.
    fn advance<'a>(&mut self, tokens: &'a [u32]) -> Option<&'a [u32]> {
        let known = &self.told[self.seen..];
        let common = known.len().min(tokens.len());
        if known[..common] != tokens[..common] {
            return None;
        }
        self.seen += tokens.len();
        let fresh = &tokens[common..];
        self.told.extend_from_slice(fresh);
        Some(fresh)
    }

    /// Takes the whole answer as it is claimed. None if it differs from what was told, or is shorter: nobody can take back
    /// what a client has read. Behind a stop string it has read nothing.
    fn finish<'a>(&mut self, tokens: &'a [u32], is_stopped: bool) -> Option<&'a [u32]> {
        if self.told.len() > tokens.len() && !is_stopped { None } else { self.advance(tokens) }
    }
}

fn differs(job: JobId) -> ApiError {
    let sentence = format!(
        "The worker was lost, and its successor answers otherwise; read the answer at /v1/jobs/{job}"
    );
    ApiError::new(ErrorCode::JobFailed, sentence)
}

/// The form in which OpenAI's clients expect an error in a stream.
fn error_event(error: &ApiError) -> Value {
    json!({ "error": error.detail() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A successor's answer must go on where the first one broke off, or the client learns that it does not.
    #[test]
    fn a_second_source_is_held_against_what_was_told() {
        let mut place = Place::default();
        assert_eq!(place.advance(&[1, 2]), Some(&[1, 2][..]));
        assert_eq!(place.advance(&[3]), Some(&[3][..]));
        place.restart();
        assert_eq!(place.advance(&[1]), Some(&[][..]));
        assert_eq!(place.advance(&[2, 3, 4]), Some(&[4][..]));
        place.restart();
        assert_eq!(place.advance(&[1, 2, 9]), None);
        assert_eq!(place.finish(&[1, 2, 3, 4, 5], false), Some(&[5][..]));
        place.restart();
        assert_eq!(place.finish(&[1, 2, 3], false), None, "the client has read more than is claimed");
        assert_eq!(place.finish(&[1, 2, 3], true), Some(&[][..]), "it has not, behind a stop string");
    }
}
