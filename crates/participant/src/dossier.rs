//! A claim with its job and model: all that a party needs to run it again and to argue about it.

use crate::ParticipantError;
use crate::models::{LoadedModel, ModelStore};
use gainsay_api::claims::ClaimView;
use gainsay_api::client::Client;
use gainsay_commitment::{Canonical, ClaimId, Signed};
use gainsay_program::JobInput;
use gainsay_protocol::{Case, Claim, Job};

/// A claim, its job and its model, which belong together.
pub struct Dossier {
    /// The model.
    pub model: LoadedModel,
    /// The job.
    pub job: Job,
    /// The claim.
    pub claim: Claim,
    input: JobInput,
    id: ClaimId,
}

impl Dossier {
    /// Checks that claim, job and model belong together.
    ///
    /// # Errors
    /// [`ParticipantError::Claim`] if not.
    pub fn new(model: LoadedModel, job: Job, claim: Claim) -> Result<Self, ParticipantError> {
        let id = claim.id();
        let refused = |reason: String| ParticipantError::Claim { claim: id, reason };
        let input = job.input_given(&claim.output).map_err(|error| refused(error.to_string()))?;
        model.engine().check_job(&input).map_err(|error| refused(error.to_string()))?;
        Case::new(model.model(), &job, &claim).map_err(|error| refused(error.to_string()))?;
        Ok(Self { model, job, claim, input, id })
    }

    /// Fetches a claim and loads its model. Nothing that the coordinator says is taken for granted: the bytes must be
    /// the claim of that id, signed by its worker, about that job, for this coordinator.
    ///
    /// # Errors
    /// [`ParticipantError::Claim`] for a view that does not hold together; otherwise why it cannot be had.
    pub async fn fetch(
        client: &Client,
        models: &ModelStore,
        id: ClaimId,
    ) -> Result<(Self, ClaimView), ParticipantError> {
        let view = client.claim(id).await?;
        let refused = |reason: String| ParticipantError::Claim { claim: id, reason };
        let signed = Signed::<Claim>::from_bytes(&view.signed.0)
            .map_err(|error| refused(format!("the claim cannot be read: {error}")))?;
        let job = Job::from_bytes(&view.job.0)
            .map_err(|error| refused(format!("its job cannot be read: {error}")))?;
        if signed.body.id() != id {
            return Err(refused(format!("the bytes are those of claim {}", signed.body.id())));
        }
        if signed.body.coordinator != client.coordinator() {
            return Err(refused("it was made to another coordinator".to_owned()));
        }
        if signed.signer != signed.body.worker {
            return Err(refused("another key than its worker's has signed it".to_owned()));
        }
        signed.verify().map_err(|error| refused(error.to_string()))?;
        let model = models.get(signed.body.model).await?;
        Self::new(model, job, signed.body).map(|dossier| (dossier, view))
    }

    /// The claim's id.
    #[must_use]
    pub fn id(&self) -> ClaimId {
        self.id
    }

    /// What the program ran on.
    #[must_use]
    pub fn input(&self) -> &JobInput {
        &self.input
    }

    /// The records that every rule of a dispute looks things up in.
    #[must_use]
    pub fn case(&self) -> Case<'_> {
        Case::new(self.model.model(), &self.job, &self.claim).expect("checked when the dossier was made")
    }
}
