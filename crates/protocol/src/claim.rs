//! A worker's signed statement about one job, and what is checked of it without executing anything.

use gainsay_commitment::{
    Canonical, ClaimId, CoordinatorId, DecodeError, Decoder, Encoder, InputCommitment, ModelId, PartyId,
    SignatureError, Signed, TensorCommitment, TraceRoot, tensor::tensor_commitment, trace_root,
};
use gainsay_program::{
    ArithmeticProfile, FinishReason, JobInput, LengthFault, MAX_LAYERS, OpPlace, Scope, TokenBytes,
    ValidatedModel, finish_reason,
};

use crate::{
    codec::{get_arithmetic, get_job_id, get_lease_id, get_time, put_arithmetic, put_time},
    dispute::DisputeTerms,
    ids::{JobId, LeaseId},
    job::{AnswerFault, Job},
    time::ServiceTime,
};

/// The longest output that a claim may carry, in bytes.
pub const MAX_OUTPUT_BYTES: usize = gainsay_program::MAX_OUTPUT_BYTES as usize;

/// What a worker promises about one job.
///
/// Everything the submitter receives is in the claim or computed from it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The coordinator that gave the lease. A claim made to one means nothing to another.
    pub coordinator: CoordinatorId,
    /// The job answered.
    pub job: JobId,
    /// The lease under which it was answered.
    pub lease: LeaseId,
    /// The model that was run.
    pub model: ModelId,
    /// The arithmetic that it was run in.
    pub arithmetic: ArithmeticProfile,
    /// [`Job::commitment`] of the job.
    pub input: InputCommitment,
    /// The last layer's output: row-major little-endian bytes. Of a generation the token ids of its answer.
    pub output: Vec<u8>,
    /// The commitment of every layer's output, in order.
    pub layers: Vec<TensorCommitment>,
    /// The Merkle root over `layers`.
    pub trace: TraceRoot,
    /// Whose statement this is.
    pub worker: PartyId,
}

/// What the coordinator recorded when it gave the lease: what a claim under it must repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTerms {
    /// The coordinator that gave the lease.
    pub coordinator: CoordinatorId,
    /// The job leased.
    pub job: JobId,
    /// The lease.
    pub lease: LeaseId,
    /// The worker it was given to.
    pub worker: PartyId,
}

/// Why a claim is refused on receipt. A refused claim convicts nobody: it is as if it had not been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimFault {
    /// The claim names another coordinator.
    #[error("the claim is made to another coordinator")]
    Coordinator,
    /// The claim names another job than the lease.
    #[error("the claim names another job than its lease")]
    Job,
    /// The claim names another lease.
    #[error("the claim names another lease")]
    Lease,
    /// The claim names another worker than the lease.
    #[error("the claim names another worker than its lease")]
    Worker,
    /// The claim, the job or the manifest at hand disagree about the model.
    #[error("the claim names another model than the job")]
    Model,
    /// The claim names another arithmetic than the model's manifest.
    #[error("the claim names another arithmetic profile than the model's")]
    Arithmetic,
    /// The claim's input commitment is not the job's.
    #[error("the input commitment is not the job's")]
    Input,
    /// There is not exactly one commitment per layer.
    #[error("the claim holds {found} layer commitments where the program has {expected} layers")]
    LayerCount {
        /// Layers of the program.
        expected: usize,
        /// Commitments in the claim.
        found: usize,
    },
    /// The output has another length than the program gives it.
    #[error("the output holds {found} bytes where the program gives {expected}")]
    OutputLength {
        /// Bytes that the program and the job imply.
        expected: u64,
        /// Bytes in the claim.
        found: u64,
    },
    /// The output is no answer to the job.
    #[error(transparent)]
    Answer(#[from] AnswerFault),
    /// The answer does not end where the job's stop rules end it.
    #[error(transparent)]
    Length(#[from] LengthFault),
    /// The output is not what the last layer's commitment binds.
    #[error("the output does not hash to the last layer's commitment")]
    OutputHash,
    /// The trace root is not the root over the layer commitments.
    #[error("the trace root is not the Merkle root of the layer commitments")]
    TraceRoot,
    /// The envelope is signed by another key than the claim's worker.
    #[error("the claim is not signed by the worker it names")]
    Signer,
    /// The signature does not verify.
    #[error("the claim's signature does not verify")]
    Signature(#[from] SignatureError),
}

impl ClaimFault {
    /// A stable name for interfaces.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Coordinator => "claim_coordinator",
            Self::Job => "claim_job",
            Self::Lease => "claim_lease",
            Self::Worker => "claim_worker",
            Self::Model => "claim_model",
            Self::Arithmetic => "claim_arithmetic",
            Self::Input => "claim_input",
            Self::LayerCount { .. } => "claim_layer_count",
            Self::OutputLength { .. } => "claim_output_length",
            Self::Answer(_) => "claim_answer",
            Self::Length(_) => "claim_length",
            Self::OutputHash => "claim_output_hash",
            Self::TraceRoot => "claim_trace_root",
            Self::Signer => "claim_signer",
            Self::Signature(_) => "claim_signature",
        }
    }
}

impl Claim {
    /// The claim's identity: the digest of its unsigned encoding.
    #[must_use]
    pub fn id(&self) -> ClaimId {
        ClaimId::from_bytes(self.digest())
    }

    /// Checks everything about a claim that needs no execution: every field against lease, job and manifest,
    /// the output's length and hash, the number of layers and the trace root.
    ///
    /// # Errors
    /// The first fault found, cheap checks first.
    pub fn check(&self, model: &ValidatedModel, job: &Job, lease: &LeaseTerms) -> Result<(), ClaimFault> {
        ensure(self.coordinator == lease.coordinator, ClaimFault::Coordinator)?;
        ensure(self.job == lease.job, ClaimFault::Job)?;
        ensure(self.lease == lease.lease, ClaimFault::Lease)?;
        ensure(self.worker == lease.worker, ClaimFault::Worker)?;
        self.check_content(model, job)
    }

    /// The part of [`check`](Self::check) that needs no lease: what anyone can verify offline.
    ///
    /// # Errors
    /// The first fault found, cheap checks first.
    pub fn check_content(&self, model: &ValidatedModel, job: &Job) -> Result<(), ClaimFault> {
        ensure(self.model == job.model && self.model == model.id(), ClaimFault::Model)?;
        ensure(self.arithmetic == model.manifest().arithmetic, ClaimFault::Arithmetic)?;
        self.check_layers(model, job)?;
        ensure(self.input == job.commitment(), ClaimFault::Input)?;
        ensure(trace_root(&self.layers) == Ok(self.trace), ClaimFault::TraceRoot)?;
        let last = self.layers.last().ok_or(ClaimFault::OutputHash)?;
        ensure(tensor_commitment(&self.output) == *last, ClaimFault::OutputHash)
    }

    fn check_layers(&self, model: &ValidatedModel, job: &Job) -> Result<(), ClaimFault> {
        let expected = model.manifest().program.layers.len();
        ensure(self.layers.len() == expected, ClaimFault::LayerCount { expected, found: self.layers.len() })?;
        let Some(input) = job.embedding_input() else {
            return self.answer(model, job).map(|_| ());
        };
        let expected = output_bytes(model, input).ok_or(ClaimFault::Model)?;
        let found = self.output.len() as u64;
        ensure(found == expected, ClaimFault::OutputLength { expected, found })
    }

    /// The tokens of an answer to a generation, all of them tokens of the model; none for an embedding.
    fn answer(&self, model: &ValidatedModel, job: &Job) -> Result<Vec<u32>, ClaimFault> {
        let tokens = job.answer_tokens(&self.output)?.unwrap_or_default();
        let vocabulary = model.manifest().vocabulary;
        match tokens.iter().enumerate().find(|&(_, &id)| id >= vocabulary) {
            None => Ok(tokens),
            Some((index, &id)) => Err(AnswerFault::UnknownToken { index, id, vocabulary }.into()),
        }
    }

    /// The length rule: why the answer to a generation ended, if it ends where the job's stop rules and the model's end
    /// tokens end it; nothing for an embedding. `bytes_of` must be of the model's tokenizer. Whoever holds that checks this
    /// on receipt, beside [`check`](Self::check).
    ///
    /// # Errors
    /// The output is no answer to the job, or ends too early or too late.
    pub fn check_length(
        &self,
        model: &ValidatedModel,
        job: &Job,
        bytes_of: &(impl TokenBytes + ?Sized),
    ) -> Result<Option<FinishReason>, ClaimFault> {
        let Some(request) = job.generation_request() else { return Ok(None) };
        let generation = model.manifest().generation.as_ref().ok_or(ClaimFault::Model)?;
        let tokens = self.answer(model, job)?;
        Ok(Some(finish_reason(request, &generation.stop_ids, &tokens, bytes_of)?))
    }

    /// [`check`](Self::check) of a claim as it arrives, with its signature.
    ///
    /// # Errors
    /// The first fault found, cheap checks first.
    pub fn check_signed(
        signed: &Signed<Self>,
        model: &ValidatedModel,
        job: &Job,
        lease: &LeaseTerms,
    ) -> Result<(), ClaimFault> {
        ensure(signed.signer == signed.body.worker, ClaimFault::Signer)?;
        signed.body.check(model, job, lease)?;
        Ok(signed.verify()?)
    }
}

/// Length of the last layer's output, in bytes.
fn output_bytes(model: &ValidatedModel, input: &JobInput) -> Option<u64> {
    let layers = &model.manifest().program.layers;
    let layer = u32::try_from(layers.len().checked_sub(1)?).ok()?;
    let op = u32::try_from(layers.last()?.ops.len().checked_sub(1)?).ok()?;
    model.op_shape(input, OpPlace { layer, scope: Scope::Layer, op }).map(|shape| shape.bytes())
}

fn ensure<E>(holds: bool, otherwise: E) -> Result<(), E> {
    if holds { Ok(()) } else { Err(otherwise) }
}

impl Canonical for Claim {
    const CONTEXT: &'static str = "gainsay v1 claim";

    fn encode_fields(&self, e: &mut Encoder) {
        e.hash(&self.coordinator).array(&self.job.0).array(&self.lease.0).hash(&self.model);
        put_arithmetic(e, self.arithmetic);
        e.hash(&self.input).bytes(&self.output);
        e.list(&self.layers, |e, layer| {
            e.hash(layer);
        });
        e.hash(&self.trace).hash(&self.worker);
    }

    fn decode_fields(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            coordinator: d.hash()?,
            job: get_job_id(d)?,
            lease: get_lease_id(d)?,
            model: d.hash()?,
            arithmetic: get_arithmetic(d)?,
            input: d.hash()?,
            output: d.bytes(MAX_OUTPUT_BYTES)?,
            layers: d.list(MAX_LAYERS, Decoder::hash)?,
            trace: d.hash()?,
            worker: d.hash()?,
        })
    }
}

/// The coordinator's countersignature: when it took a claim, until when disputes may be opened, and how long each
/// party has for its turns of one. Without the allowances in it a coordinator could invent a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimReceipt {
    /// The claim taken.
    pub claim: ClaimId,
    /// When it was taken.
    pub time: ServiceTime,
    /// The terms of every dispute on the claim. A suspension of the worker may lengthen the window; the allowances stay.
    pub terms: DisputeTerms,
}

impl Canonical for ClaimReceipt {
    const CONTEXT: &'static str = "gainsay v1 claim receipt";

    fn encode_fields(&self, e: &mut Encoder) {
        e.hash(&self.claim);
        put_time(e, self.time);
        self.terms.encode(e);
    }

    fn decode_fields(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { claim: d.hash()?, time: get_time(d)?, terms: DisputeTerms::decode(d)? })
    }
}
