//! The paths of the API, in one place.
//!
//! | method and path | asked by | request → answer |
//! |---|---|---|
//! | `POST /v1/submitters` | anyone | [`RegisterSubmitter`] → [`SubmitterRegistered`] |
//! | `POST /v1/owners` | owner, signed | [`RegisterOwner`] → [`Registered`] |
//! | `POST /v1/workers`, `POST /v1/challengers` | owner, signed | [`Enlist`] → [`Registered`] |
//! | `POST /v1/deposits` | operator | [`Deposit`] → [`Accounts`] of the holder |
//! | `POST /v1/withdrawals` | submitter, or owner, signed | [`Withdraw`] → [`Accounts`] of the holder |
//! | `GET /v1/accounts` | submitter, owner (signed), or operator (`?all=true`) | → [`Accounts`] |
//! | `POST /v1/embeddings` | submitter | [`EmbeddingRequest`] → [`EmbeddingResponse`] |
//! | `POST /v1/chat/completions` | submitter | [`ChatRequest`] → [`ChatResponse`], or server-sent [`ChatChunk`]s |
//! | `POST /v1/completions` | submitter | [`CompletionRequest`] → [`Completion`], or server-sent ones |
//! | `POST /v1/jobs` | submitter | [`SubmitJob`] → [`JobView`] |
//! | `GET /v1/jobs` | submitter | → [`JobList`], by [`JobsQuery`] |
//! | `DELETE /v1/jobs/{id}` | submitter | → [`JobView`]: withdrawn, if no worker has it |
//! | `GET /v1/jobs/{id}` | submitter, operator | → [`JobView`]; `?wait_ms` waits for an answer, `?until=final` for the decision |
//! | `GET /v1/jobs/{id}/receipt` | submitter, operator | → [`Receipt`] |
//! | `GET /v1/models` | anyone | → [`ModelList`] |
//! | `GET /v1/models/{id}` | anyone | → the manifest's canonical bytes |
//! | `PUT /v1/models/{id}` | operator, or owner, signed | the manifest's canonical bytes → [`ModelView`] |
//! | `PUT /v1/blobs/{hash}` | operator, or owner, signed | the bytes → 204 |
//! | `GET /v1/blobs/{hash}` | anyone | → the bytes; `Range: bytes=N-` is honoured |
//! | `POST /v1/leases` | worker, signed | [`LeaseRequest`] → [`Leases`]; `?wait_ms` |
//! | `POST /v1/leases/{id}/heartbeat` | worker, signed | empty → [`Heartbeat`] |
//! | `POST /v1/leases/{id}/return` | worker, signed | [`ReturnLease`] → [`LeaseReturned`] |
//! | `POST /v1/leases/{id}/tokens` | worker, signed | place and tokens, u32 each → [`Streamed`] |
//! | `POST /v1/claims` | worker, signed | `Signed<Claim>` bytes → [`ClaimAccepted`] |
//! | `POST /v1/equivocations` | worker or challenger, signed | `Equivocation` bytes → [`EquivocationConvicted`] |
//! | `GET /v1/claims` | anyone | → [`ClaimList`], by [`ClaimFilter`] |
//! | `GET /v1/claims/{id}` | anyone | → [`ClaimView`] |
//! | `POST /v1/disputes` | challenger, signed | signed `Open` move → [`DisputeView`] |
//! | `GET /v1/disputes` | anyone | → [`DisputeList`], by [`DisputeFilter`] |
//! | `GET /v1/disputes/{id}` | anyone | → [`DisputeView`] |
//! | `POST /v1/disputes/{id}/moves` | the party whose turn it is, signed | signed move bytes → [`DisputeView`] |
//! | `GET /v1/disputes/{id}/evidence` | anyone | → the evidence bundle's bytes |
//! | `GET /v1/events` | anyone | → server-sent [`Event`]s; `Last-Event-ID` or `?after=` resumes |
//! | `POST /v1/disputes/{id}/resume` | operator | empty → [`DisputeView`]: the clocks run again that a failed referee had stopped |
//! | `POST /v1/voids` | operator | [`VoidProfile`] → [`VoidView`] |
//! | `GET /v1/voids` | anyone | → [`VoidList`] |
//! | `GET /v1/audit/books` | operator | → [`Books`]: the facts behind the balances, as of one moment |
//! | `GET /v1/audit/transactions` | operator | → [`LedgerPage`], by [`LedgerQuery`] |
//! | `GET /v1/info` | anyone | → [`Info`] |
//! | `GET /health/live`, `GET /health/ready` | anyone | → [`Health`] |
//!
//! [`RegisterSubmitter`]: crate::parties::RegisterSubmitter
//! [`SubmitterRegistered`]: crate::parties::SubmitterRegistered
//! [`RegisterOwner`]: crate::parties::RegisterOwner
//! [`Registered`]: crate::parties::Registered
//! [`Enlist`]: crate::parties::Enlist
//! [`Deposit`]: crate::accounts::Deposit
//! [`Withdraw`]: crate::accounts::Withdraw
//! [`Accounts`]: crate::accounts::Accounts
//! [`EmbeddingRequest`]: crate::embeddings::EmbeddingRequest
//! [`EmbeddingResponse`]: crate::embeddings::EmbeddingResponse
//! [`ChatRequest`]: crate::generation::ChatRequest
//! [`ChatResponse`]: crate::generation::ChatResponse
//! [`ChatChunk`]: crate::generation::ChatChunk
//! [`CompletionRequest`]: crate::generation::CompletionRequest
//! [`Completion`]: crate::generation::Completion
//! [`Streamed`]: crate::leases::Streamed
//! [`SubmitJob`]: crate::jobs::SubmitJob
//! [`JobList`]: crate::jobs::JobList
//! [`JobsQuery`]: crate::jobs::JobsQuery
//! [`JobView`]: crate::jobs::JobView
//! [`Receipt`]: crate::jobs::Receipt
//! [`ModelList`]: crate::models::ModelList
//! [`ModelView`]: crate::models::ModelView
//! [`LeaseRequest`]: crate::leases::LeaseRequest
//! [`Leases`]: crate::leases::Leases
//! [`Heartbeat`]: crate::leases::Heartbeat
//! [`ReturnLease`]: crate::leases::ReturnLease
//! [`LeaseReturned`]: crate::leases::LeaseReturned
//! [`ClaimAccepted`]: crate::claims::ClaimAccepted
//! [`EquivocationConvicted`]: crate::claims::EquivocationConvicted
//! [`ClaimList`]: crate::claims::ClaimList
//! [`ClaimFilter`]: crate::claims::ClaimFilter
//! [`ClaimView`]: crate::claims::ClaimView
//! [`DisputeList`]: crate::disputes::DisputeList
//! [`DisputeFilter`]: crate::disputes::DisputeFilter
//! [`DisputeView`]: crate::disputes::DisputeView
//! [`VoidProfile`]: crate::voids::VoidProfile
//! [`VoidView`]: crate::voids::VoidView
//! [`VoidList`]: crate::voids::VoidList
//! [`Books`]: crate::audit::Books
//! [`LedgerPage`]: crate::audit::LedgerPage
//! [`LedgerQuery`]: crate::audit::LedgerQuery
//! [`Event`]: crate::events::Event
//! [`Info`]: crate::info::Info
//! [`Health`]: crate::info::Health

use gainsay_commitment::{ClaimId, DisputeId, ModelId, TensorCommitment};
use gainsay_protocol::{JobId, LeaseId};

/// The header that names a request about money, so that it may be sent again.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Registration of a submitter.
pub const SUBMITTERS: &str = "/v1/submitters";
/// Registration of an owner.
pub const OWNERS: &str = "/v1/owners";
/// Registration of a worker.
pub const WORKERS: &str = "/v1/workers";
/// Registration of a challenger.
pub const CHALLENGERS: &str = "/v1/challengers";
/// Money in.
pub const DEPOSITS: &str = "/v1/deposits";
/// Money out.
pub const WITHDRAWALS: &str = "/v1/withdrawals";
/// Balances.
pub const ACCOUNTS: &str = "/v1/accounts";
/// The OpenAI-compatible embeddings endpoint.
pub const EMBEDDINGS: &str = "/v1/embeddings";
/// `/v1/completions`.
pub const COMPLETIONS: &str = "/v1/completions";
/// Jobs.
pub const JOBS: &str = "/v1/jobs";
/// Models.
pub const MODELS: &str = "/v1/models";
/// Weights and tokenizers by hash.
pub const BLOBS: &str = "/v1/blobs";
/// Leases.
pub const LEASES: &str = "/v1/leases";
/// Claims.
pub const CLAIMS: &str = "/v1/claims";
/// Reports of two claims for one lease.
pub const EQUIVOCATIONS: &str = "/v1/equivocations";
/// Disputes.
pub const DISPUTES: &str = "/v1/disputes";
/// Server-sent events.
pub const EVENTS: &str = "/v1/events";
/// Withdrawn profile versions.
pub const VOIDS: &str = "/v1/voids";
/// The facts behind the balances.
pub const BOOKS: &str = "/v1/audit/books";
/// The ledger's log.
pub const LEDGER: &str = "/v1/audit/transactions";
/// The coordinator's identity, time and parameters.
pub const INFO: &str = "/v1/info";
/// Whether the process runs.
pub const LIVE: &str = "/health/live";
/// Whether it can serve.
pub const READY: &str = "/health/ready";

/// `/v1/jobs/{id}`.
#[must_use]
pub fn job(id: JobId) -> String {
    format!("{JOBS}/{id}")
}

/// `/v1/jobs/{id}/receipt`.
#[must_use]
pub fn receipt(id: JobId) -> String {
    format!("{JOBS}/{id}/receipt")
}

/// `/v1/models/{id}`.
#[must_use]
pub fn model(id: ModelId) -> String {
    format!("{MODELS}/{id}")
}

/// `/v1/blobs/{hash}`.
#[must_use]
pub fn blob(hash: TensorCommitment) -> String {
    format!("{BLOBS}/{hash}")
}

/// `/v1/leases/{id}/heartbeat`.
#[must_use]
pub fn heartbeat(id: LeaseId) -> String {
    format!("{LEASES}/{id}/heartbeat")
}

/// `/v1/leases/{id}/return`.
#[must_use]
pub fn return_lease(id: LeaseId) -> String {
    format!("{LEASES}/{id}/return")
}

/// `/v1/leases/{id}/tokens`.
#[must_use]
pub fn tokens(id: LeaseId) -> String {
    format!("{LEASES}/{id}/tokens")
}

/// `/v1/claims/{id}`.
#[must_use]
pub fn claim(id: ClaimId) -> String {
    format!("{CLAIMS}/{id}")
}

/// `/v1/disputes/{id}`.
#[must_use]
pub fn dispute(id: DisputeId) -> String {
    format!("{DISPUTES}/{id}")
}

/// `/v1/disputes/{id}/moves`.
#[must_use]
pub fn moves(id: DisputeId) -> String {
    format!("{DISPUTES}/{id}/moves")
}

/// `/v1/disputes/{id}/resume`.
#[must_use]
pub fn resume(id: DisputeId) -> String {
    format!("{DISPUTES}/{id}/resume")
}

/// `/v1/disputes/{id}/evidence`.
#[must_use]
pub fn evidence(id: DisputeId) -> String {
    format!("{DISPUTES}/{id}/evidence")
}
