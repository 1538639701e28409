//! Every way in which a use case refuses or fails: one variant per reason, each with a stable meaning that
//! the HTTP layer maps to a status and a code. A refusal changes nothing.

use gainsay_commitment::{ClaimId, DisputeId, ModelId, PartyId, TensorCommitment};
use gainsay_protocol::{Amount, ClaimFault, EquivocationFault, JobId, LeaseId, OwnerId, ServiceTime};
use gainsay_text::TemplateError;

use crate::blob::FileError;
use crate::store::StoreError;
use crate::templates::RenderError;

/// Why a use case did not happen.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    // ── who asks ────────────────────────────────────────────────────────────────────────────────────────
    /// The API key belongs to no submitter (401).
    #[error("this API key is not known here")]
    UnknownApiKey,
    /// The key that signed is not registered in the role that the request needs (401).
    #[error("the key {party} is not registered as {role} here")]
    UnknownParty {
        /// The key that signed.
        party: PartyId,
        /// The role that was needed: `owner`, `worker` or `challenger`.
        role: &'static str,
    },
    /// The nonce of a signed request was seen before (401).
    #[error("this request was already received: a nonce serves once")]
    NonceUsed,
    /// The time stated in a signed request is too far from service time (401).
    #[error("the request is dated {stated_ms} but service time is {now_ms}; read /v1/info and sign again")]
    StaleRequest {
        /// Stated service time, ms.
        stated_ms: i64,
        /// Service time on receipt, ms.
        now_ms: i64,
    },
    /// The signed object is by another key than the one that must sign it, or the thing belongs to another (403).
    #[error("{what} belongs to another party")]
    Forbidden {
        /// What was touched.
        what: &'static str,
    },
    /// The worker is suspended after a conviction (403).
    #[error("the worker {0} is suspended after a conviction and gets no more work")]
    WorkerSuspended(PartyId),

    /// Tokens of an answer under way that do not go on from what is on record (422).
    #[error("{0}")]
    StreamRefused(&'static str),
    /// A claim whose answer does not begin with what was streamed under its lease (422).
    #[error("the claimed answer does not begin with the tokens streamed under lease {0}")]
    ClaimStreamed(LeaseId),
    /// The address of a webhook is none (400).
    #[error("a webhook is an http or https address of at most 1000 visible ASCII characters")]
    InvalidWebhook,

    // ── what they ask for ───────────────────────────────────────────────────────────────────────────────
    /// The key is registered already, in this or another role or with other details (409).
    #[error("the key {0} is registered already")]
    AlreadyRegistered(PartyId),
    /// The bytes are no public key that the protocol accepts (422).
    #[error("{0} is not an acceptable Ed25519 public key")]
    InvalidKey(PartyId),
    /// A name is empty, too long, or holds control characters (422).
    #[error("a name is 1 to 100 characters without control characters")]
    InvalidName,
    /// An amount is not above zero, or beyond what the ledger holds (422).
    #[error("an amount must be above zero and at most {max}")]
    InvalidAmount {
        /// The largest amount one posting may move.
        max: Amount,
    },
    /// Free balance does not cover what the request would take (402).
    #[error("this needs {needed} micro-credits and {available} are free; deposit the rest and try again")]
    InsufficientFunds {
        /// What the request takes.
        needed: Amount,
        /// What is free.
        available: Amount,
    },
    /// The idempotency key came with another request before (409).
    #[error("this idempotency key came with another request before; a new request needs a new key")]
    RequestKeyReused,
    /// Running the worker's undecided claims again would take too much of its dispute allowance (429).
    #[error(
        "running the undecided claims of {worker} again may take {rerun_ms} ms, and half of its dispute allowance is \
         {allowed_ms} ms: it gets no lease until some are decided"
    )]
    TooMuchToDefend {
        /// The worker.
        worker: PartyId,
        /// How long, in ms.
        rerun_ms: u64,
        /// How long it may take, in ms.
        allowed_ms: u64,
    },
    /// The two claims do not convict (422).
    #[error("this is no equivocation: {0}")]
    NoEquivocation(#[from] EquivocationFault),
    /// The lease has neither a claim nor an end: what it would cost its worker is not known yet (409).
    #[error("lease {0} is still held; report the two claims again once it has its claim or is lost")]
    LeaseHeld(LeaseId),
    /// No owner of this id (404).
    #[error("no account {0} is known here")]
    UnknownOwner(OwnerId),
    /// No model of this id (404).
    #[error("no model {0} is known here")]
    UnknownModel(ModelId),
    /// The model is registered but some of its tensors were not uploaded yet (409).
    #[error("model {model} takes no jobs yet: {missing} of its files are still to be uploaded")]
    ModelIncomplete {
        /// The model.
        model: ModelId,
        /// How many blobs are missing.
        missing: u64,
    },
    /// The operator withdrew the arithmetic profile: it takes neither models nor jobs (409).
    #[error("the arithmetic profile {arithmetic} was withdrawn; GET /v1/voids says why")]
    ProfileVoided {
        /// Its name.
        arithmetic: &'static str,
    },
    /// The reason of a withdrawal is empty, too long, or holds control characters (400).
    #[error("a reason is 1 to {max} bytes of text without control characters")]
    InvalidReason {
        /// The longest, in bytes.
        max: usize,
    },
    /// The manifest does not decode or breaks a rule of programs (422).
    #[error("the manifest is refused: {0}")]
    InvalidManifest(String),
    /// A chat template that does not compile, or does not take a conversation (422).
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The manifest hashes to another id than the one in the path (422).
    #[error("this manifest has the id {actual}, not {stated}")]
    ManifestIdMismatch {
        /// The id in the request.
        stated: ModelId,
        /// The id of the bytes received.
        actual: ModelId,
    },
    /// No registered manifest names a blob of this hash (404), or it was not uploaded.
    #[error("no registered model names a file with the hash {0}, or it was not uploaded yet")]
    UnknownBlob(TensorCommitment),
    /// The bytes uploaded do not hash to the name they were uploaded under, or have another length (422).
    #[error("the upload is refused: {actual_bytes} bytes that hash to {actual}, where {stated} was named")]
    BlobMismatch {
        /// The hash in the request.
        stated: TensorCommitment,
        /// The hash of what came.
        actual: TensorCommitment,
        /// How many bytes came.
        actual_bytes: u64,
    },
    /// The upload goes on past the length that the manifest gives, or the limit for tokenizer files (413).
    #[error("the upload is longer than the {limit} bytes that the manifest allows")]
    BlobTooLarge {
        /// Allowed bytes.
        limit: u64,
    },
    /// The job's sequences break a rule of the model (422).
    #[error("the input is refused: {0}")]
    InvalidInput(String),
    /// No job of this id, or it belongs to another submitter (404).
    #[error("no job {0} of yours is known here")]
    UnknownJob(JobId),
    /// The job cannot be cancelled any more: a worker has it or has answered (409).
    #[error("job {job} is {state} and can no longer be cancelled")]
    NotCancellable {
        /// The job.
        job: JobId,
        /// The state it is in.
        state: &'static str,
    },
    /// The job has no claim yet, hence no receipt (409).
    #[error("job {0} has no claim yet, so there is no receipt")]
    NoReceipt(JobId),

    // ── leases and claims ───────────────────────────────────────────────────────────────────────────────
    /// No lease of this id is the worker's (404).
    #[error("no lease {0} of yours is known here")]
    UnknownLease(LeaseId),
    /// The lease is over: lost, expired, or used (409).
    #[error("lease {0} is over; the job was given back to the queue or is decided")]
    LeaseOver(LeaseId),
    /// The signed claim does not decode or its signature does not verify (422).
    #[error("the claim is malformed: {0}")]
    MalformedClaim(String),
    /// A field of the claim disagrees with the job or with itself (422).
    #[error("the claim is refused: {0}")]
    ClaimRefused(#[from] ClaimFault),
    /// A different signed claim exists for this lease: equivocation, the worker was convicted (409).
    #[error("two different signed claims exist for lease {0}: this convicts the worker")]
    Equivocation(LeaseId),
    /// No claim of this id (404).
    #[error("no claim {0} is known here")]
    UnknownClaim(ClaimId),

    // ── disputes ────────────────────────────────────────────────────────────────────────────────────────
    /// No dispute of this id (404).
    #[error("no dispute {0} is known here")]
    UnknownDispute(DisputeId),
    /// The claim's challenge window is closed, or it is decided (409).
    #[error("the challenge window of claim {claim} closed at {closed}")]
    WindowClosed {
        /// The claim.
        claim: ClaimId,
        /// When the window closed.
        closed: ServiceTime,
    },
    /// The claim is final, rejected or void, so nothing can be disputed any more (409).
    #[error("claim {claim} is {state} and can no longer be disputed")]
    ClaimDecided {
        /// The claim.
        claim: ClaimId,
        /// What became of it.
        state: &'static str,
    },
    /// There is no verdict yet, hence no evidence bundle (409).
    #[error("dispute {0} has no verdict yet, so there is no evidence bundle")]
    NoVerdict(DisputeId),
    /// The signed move does not decode or its signature does not verify (422).
    #[error("the move is malformed: {0}")]
    MalformedMove(String),
    /// The move is refused by the rules of the game (409); `code` is stable.
    #[error("the move is refused: {message}")]
    MoveRefused {
        /// Stable code from the protocol.
        code: &'static str,
        /// What was wrong, for the mover.
        message: String,
    },

    /// The referee failed; the dispute is paused, and its clocks stand (503).
    #[error("the referee failed; dispute {0} is paused and no clock runs until an operator acts")]
    RefereeFailed(DisputeId),

    // ── limits ──────────────────────────────────────────────────────────────────────────────────────────
    /// A configured limit is reached (429).
    #[error("the limit on {what} ({limit}) is reached; try again later")]
    LimitReached {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },

    /// Too many wait for the texts of models: their tokenizers to be read, their templates to be rendered (503).
    #[error("too many requests wait for the texts of models; try again")]
    TextBusy,

    // ── failures: not the caller's doing (5xx) ──────────────────────────────────────────────────────────
    /// The key file cannot be read or made (500).
    #[error("the coordinator's key file cannot be used: {0}")]
    KeyFile(String),
    /// The connection to the database broke while a submission was being committed: the jobs may exist (503, and
    /// not to be repeated).
    #[error("the jobs may have been queued: the database went away while they were being recorded")]
    SubmissionUncertain {
        /// The jobs, if they exist.
        jobs: Vec<JobId>,
        /// What broke.
        #[source]
        source: StoreError,
    },
    /// The database failed (503 where it is worth another try).
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// No process that renders chat templates can be started (500).
    #[error("the process that renders chat templates does not start")]
    Renderer(#[source] std::io::Error),
    /// The blob store failed (503).
    #[error("the file store did not answer")]
    Blob(#[from] FileError),
}

impl From<RenderError> for AppError {
    fn from(error: RenderError) -> Self {
        match error {
            RenderError::Template(error) => Self::Template(error),
            RenderError::Busy => Self::TextBusy,
            RenderError::Start(error) => Self::Renderer(error),
        }
    }
}
