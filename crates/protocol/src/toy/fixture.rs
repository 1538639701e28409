//! Claims about toy runs, true and false.

use std::sync::Arc;

use gainsay_commitment::{ClaimId, PartyId, trace_root};
use gainsay_program::{JobInput, OpPlace, toy::Toy, toy::ToyOptions};

use super::{
    random::Random,
    run::{ToyModel, ToyRun},
};
use crate::{
    case::Case,
    claim::{Claim, LeaseTerms},
    ids::{JobId, LeaseId},
    job::Job,
};

/// What went wrong in a worker's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing.
    None,
    /// One bit of one element of one op's output was flipped, and the run carried on with it.
    Flip {
        /// The op.
        place: OpPlace,
        /// The element.
        element: u64,
        /// The bit, 0 to 31.
        bit: u32,
    },
    /// A layer passed its input on.
    SkipLayer(u32),
    /// An op's output is random bytes, NaNs and infinities among them.
    Garbage(OpPlace),
}

/// A job, what it gives, and what a worker claims that it gives.
#[derive(Debug)]
pub struct Fixture {
    model: Arc<ToyModel>,
    job: Job,
    lease: LeaseTerms,
    claim: Claim,
    claim_id: ClaimId,
    honest: ToyRun,
    claimed: ToyRun,
}

/// Makes fixtures of one model and job that differ in their fault.
#[derive(Debug, Clone)]
pub struct FixtureBuilder {
    model: Arc<ToyModel>,
    job: Job,
    input: JobInput,
    honest: ToyRun,
    worker: PartyId,
    coordinator: PartyId,
}

impl FixtureBuilder {
    /// A job of sequences of these lengths, with token ids from `seed`.
    #[must_use]
    pub fn new(options: &ToyOptions, seed: u64, lengths: &[u32]) -> Self {
        let toy = Toy::new(options).expect("the options describe a model");
        let input = toy.job(seed, lengths);
        let model = Arc::new(ToyModel::new(options));
        let honest = ToyRun::new(Arc::clone(&model), input.clone(), |_, _| {});
        let job = Job::embedding(model.model().id(), input.clone());
        let [worker, coordinator] = [1, 2].map(|byte| PartyId::from_bytes([byte; 32]));
        Self { model, job, input, honest, worker, coordinator }
    }

    /// Names the parties by keys that can sign.
    #[must_use]
    pub fn parties(mut self, worker: PartyId, coordinator: PartyId) -> Self {
        (self.worker, self.coordinator) = (worker, coordinator);
        self
    }

    /// Every op of every layer, with the number of its elements.
    #[must_use]
    pub fn places(&self) -> Vec<(OpPlace, u64)> {
        let model = self.model.model();
        let places = (0..model.layer_count())
            .flat_map(|layer| (0..model.ops(layer).len() as u32).map(move |op| OpPlace::in_layer(layer, op)));
        let elements = |place| model.op_shape(&self.input, place).map_or(0, |shape| shape.elements());
        places.map(|place| (place, elements(place))).collect()
    }

    /// A random fault anywhere in the program.
    #[must_use]
    pub fn random_fault(&self, random: &mut Random) -> Fault {
        let places = self.places();
        let (place, elements) = *random.pick(&places);
        match random.below(10) {
            0 => Fault::SkipLayer(1 + random.below(u64::from(self.model.model().layer_count()) - 1) as u32),
            1 => Fault::Garbage(place),
            _ => Fault::Flip { place, element: random.below(elements), bit: random.below(32) as u32 },
        }
    }

    /// The claim of a worker whose run had this fault. `seed` fills what is random about it, its lease included.
    #[must_use]
    pub fn build(&self, fault: Fault, seed: u64) -> Fixture {
        let mut random = Random::new(seed);
        let claimed = match fault {
            Fault::None => self.honest.clone(),
            _ => tampered(&self.model, &self.input, fault, &mut random),
        };
        let lease = LeaseTerms {
            coordinator: self.coordinator,
            job: JobId(random.bytes()),
            lease: LeaseId(random.bytes()),
            worker: self.worker,
        };
        Fixture::new(Arc::clone(&self.model), self.job.clone(), lease, (self.honest.clone(), claimed))
    }
}

fn tampered(model: &Arc<ToyModel>, input: &JobInput, fault: Fault, random: &mut Random) -> ToyRun {
    let last_op = |layer: u32| model.model().ops(layer).len() as u32 - 1;
    let mut previous: Vec<u8> = Vec::new();
    ToyRun::new(Arc::clone(model), input.clone(), |place, bytes| {
        match fault {
            Fault::Flip { place: wrong, element, bit } if wrong == place => {
                let byte = element as usize * 4 + bit as usize / 8;
                bytes[byte] ^= 1 << (bit % 8);
            }
            Fault::SkipLayer(layer)
                if layer == place.layer && place.op == last_op(layer) && bytes.len() == previous.len() =>
            {
                bytes.copy_from_slice(&previous);
            }
            Fault::Garbage(wrong) if wrong == place => {
                bytes.iter_mut().for_each(|byte| *byte = random.draw() as u8);
            }
            _ => {}
        }
        if place.op == last_op(place.layer) {
            previous = bytes.to_vec();
        }
    })
}

impl Fixture {
    /// The claim of a worker under a lease who says that the second run is what the first one is.
    pub(super) fn new(
        model: Arc<ToyModel>,
        job: Job,
        lease: LeaseTerms,
        (honest, claimed): (ToyRun, ToyRun),
    ) -> Self {
        let layers = claimed.layers();
        let claim = Claim {
            coordinator: lease.coordinator,
            job: lease.job,
            lease: lease.lease,
            model: job.model,
            arithmetic: model.model().manifest().arithmetic,
            input: job.commitment(),
            output: claimed.answer().to_vec(),
            trace: trace_root(&layers).expect("a program has layers"),
            layers,
            worker: lease.worker,
        };
        let claim_id = Case::new(model.model(), &job, &claim).expect("the claim is about the job").claim_id();
        Self { model, job, lease, claim, claim_id, honest, claimed }
    }

    /// Claim, job and model, as the rules want them.
    #[must_use]
    pub fn case(&self) -> Case<'_> {
        Case::checked_before(self.model.model(), &self.job, &self.claim, self.claim_id)
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &ToyModel {
        &self.model
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The lease that the claim was made under.
    #[must_use]
    pub fn lease(&self) -> &LeaseTerms {
        &self.lease
    }

    /// The claim.
    #[must_use]
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// The run as the program defines it.
    #[must_use]
    pub fn honest(&self) -> &ToyRun {
        &self.honest
    }

    /// The run that the worker claims.
    #[must_use]
    pub fn claimed(&self) -> &ToyRun {
        &self.claimed
    }

    /// Whether the claim is right. A fault that rounding absorbs is no fault.
    #[must_use]
    pub fn is_true(&self) -> bool {
        self.claim.layers == self.honest.layers()
    }
}
