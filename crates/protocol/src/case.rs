//! What a dispute is about: the records that every rule looks things up in.

use std::sync::Arc;

use gainsay_commitment::{ClaimId, TreeShape};
use gainsay_program::{JobInput, OpPlace, ValidatedModel};

use crate::{claim::Claim, job::Job};

/// A claim with the job and the model it is about. Shapes, lengths and positions come from here, never from a
/// message.
#[derive(Debug, Clone)]
pub struct Case<'a> {
    model: &'a ValidatedModel,
    job: &'a Job,
    input: CaseInput<'a>,
    claim: &'a Claim,
    claim_id: ClaimId,
}

/// What the program ran on: part of the job, or made of job and claim. Cheap to clone.
#[derive(Debug, Clone)]
enum CaseInput<'a> {
    Given(&'a JobInput),
    Made(Arc<JobInput>),
}

impl<'a> CaseInput<'a> {
    fn new(job: &'a Job, claim: &Claim) -> Result<Self, CaseMismatch> {
        match job.embedding_input() {
            Some(input) => Ok(Self::Given(input)),
            None => job
                .input_given(&claim.output)
                .map(|input| Self::Made(Arc::new(input)))
                .map_err(|_| CaseMismatch),
        }
    }
}

/// The claim, the job and the model at hand do not belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("claim, job and model do not belong together")]
pub struct CaseMismatch;

impl<'a> Case<'a> {
    /// Puts a claim together with its job and model. The claim must have passed [`Claim::check`] once; this checks
    /// only that the three belong together.
    ///
    /// # Errors
    /// Model or input commitment disagree, or the claim has not one commitment per layer, or its output is no answer to the
    /// job.
    pub fn new(model: &'a ValidatedModel, job: &'a Job, claim: &'a Claim) -> Result<Self, CaseMismatch> {
        let same_model = claim.model == job.model && job.model == model.id();
        let same_layers = claim.layers.len() as u64 == u64::from(model.layer_count());
        if !same_model || !same_layers || claim.input != job.commitment() {
            return Err(CaseMismatch);
        }
        Ok(Self { model, job, input: CaseInput::new(job, claim)?, claim, claim_id: claim.id() })
    }

    /// What [`new`](Self::new) made before, without hashing again.
    #[cfg(feature = "toy")]
    pub(crate) fn checked_before(
        model: &'a ValidatedModel,
        job: &'a Job,
        claim: &'a Claim,
        claim_id: ClaimId,
    ) -> Self {
        let input = CaseInput::new(job, claim).expect("the case was made before");
        Self { model, job, input, claim, claim_id }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &'a ValidatedModel {
        self.model
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> &'a Job {
        self.job
    }

    /// What the program ran on: the job's sequences, or the prompt with the claimed tokens.
    #[must_use]
    pub fn input(&self) -> &JobInput {
        match &self.input {
            CaseInput::Given(input) => input,
            CaseInput::Made(input) => input,
        }
    }

    /// The claim.
    #[must_use]
    pub fn claim(&self) -> &'a Claim {
        self.claim
    }

    /// The claim's id, computed once.
    #[must_use]
    pub fn claim_id(&self) -> ClaimId {
        self.claim_id
    }

    /// The tree of an op's output; nothing where there is no such op.
    #[must_use]
    pub fn tree_shape(&self, place: OpPlace) -> Option<TreeShape> {
        self.model.op_shape(self.input(), place).map(|shape| TreeShape::new(shape.bytes()))
    }
}
