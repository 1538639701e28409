//! Claims about generations of a toy language model, true and false.

use std::sync::Arc;

use gainsay_commitment::PartyId;
use gainsay_program::{
    GenerationRequest, JobInput, OpPlace, Sampling,
    toy::{DecoderOptions, Toy},
};

use super::{
    fixture::Fixture,
    run::{ToyModel, ToyRun},
};
use crate::{
    claim::LeaseTerms,
    ids::{JobId, LeaseId},
    job::Job,
};

/// Makes fixtures of one model and request that differ in the answer and in what is tampered with.
#[derive(Debug)]
pub struct GenerationBuilder {
    toy: Toy,
    model: Arc<ToyModel>,
    request: GenerationRequest,
}

impl GenerationBuilder {
    /// A request to a toy language model.
    ///
    /// # Panics
    /// The options describe no model.
    #[must_use]
    pub fn new(options: &DecoderOptions, request: GenerationRequest) -> Self {
        let toy = Toy::decoder(options).expect("the options describe a model");
        Self { model: Arc::new(ToyModel::of(toy.clone())), toy, request }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &ToyModel {
        &self.model
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> Job {
        Job::generation(self.model.model().id(), self.request.clone())
    }

    /// The tokens that the model draws, as many as the request allows; under other parameters than it asks for, if given.
    ///
    /// # Panics
    /// The request does not fit the model.
    #[must_use]
    pub fn answer(&self, sampling: Option<&Sampling>) -> Vec<u32> {
        let sampling = sampling.unwrap_or(&self.request.sampling);
        self.toy
            .generate(&self.request.prompt, sampling, self.request.stop.max_tokens)
            .expect("the request fits the model")
    }

    /// The op that draws tokens.
    #[must_use]
    pub fn draw(&self) -> OpPlace {
        let last = self.model.model().layer_count() - 1;
        OpPlace::in_layer(last, self.model.model().ops(last).len() as u32 - 1)
    }

    /// The claim of a worker who says that this is the answer, and whose run was tampered with before that: it forces the
    /// last op's output, for nothing else could make the claim fit its own output.
    ///
    /// # Panics
    /// The answer is not one to the request.
    #[must_use]
    pub fn claiming(&self, answer: &[u32], mut tamper: impl FnMut(OpPlace, &mut [u8])) -> Fixture {
        let sampling = self.request.sampling.clone();
        let input = JobInput::generation(&self.request.prompt, answer, sampling).expect("a generation");
        let output: Vec<u8> = answer.iter().flat_map(|token| token.to_le_bytes()).collect();
        let honest = ToyRun::new(Arc::clone(&self.model), input.clone(), |_, _| {});
        let claimed = ToyRun::new(Arc::clone(&self.model), input, |place, bytes| {
            tamper(place, bytes);
            if place == self.draw() {
                bytes.copy_from_slice(&output);
            }
        });
        let [worker, coordinator] = [1, 2].map(|byte| PartyId::from_bytes([byte; 32]));
        let lease = LeaseTerms { coordinator, job: JobId([3; 16]), lease: LeaseId([4; 16]), worker };
        Fixture::new(Arc::clone(&self.model), self.job(), lease, (honest, claimed))
    }
}
