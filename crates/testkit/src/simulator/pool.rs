//! Jobs with their right answer and with wrong ones, made once and shared by all games.

use std::sync::Arc;

use gainsay_commitment::TensorCommitment;
use gainsay_program::ValidatedModel;
use gainsay_protocol::Job;
use gainsay_protocol::toy::{Fault, Fixture, Random, ToyRun, zoo};

/// Wrong answers to each job.
const WRONG_ANSWERS: usize = 40;

/// Jobs on toy models, with runs of them.
#[derive(Debug)]
pub struct Pool(Vec<Puzzle>);

/// One job.
#[derive(Debug)]
pub(super) struct Puzzle {
    right: Fixture,
    wrong: Vec<Arc<Fixture>>,
    layers: Vec<TensorCommitment>,
}

impl Pool {
    /// Runs every job, as it should be and with faults.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let puzzles = [zoo::small(), zoo::int8(), zoo::tiny(), zoo::wide()].into_iter().map(|builder| {
            let right = builder.build(Fault::None, 0);
            let mut wrong = Vec::new();
            while wrong.len() < WRONG_ANSWERS {
                let fixture = builder.build(builder.random_fault(&mut random), random.draw());
                // A fault that rounding absorbs makes no wrong answer.
                if !fixture.is_true() {
                    wrong.push(Arc::new(fixture));
                }
            }
            let layers = right.honest().layers();
            Puzzle { right, wrong, layers }
        });
        Self(puzzles.collect())
    }

    pub(super) fn puzzle(&self, index: usize) -> &Puzzle {
        &self.0[index]
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Puzzle {
    pub(super) fn model(&self) -> &ValidatedModel {
        self.right.model().model()
    }

    pub(super) fn job(&self) -> &Job {
        self.right.job()
    }

    /// The right layer commitments.
    pub(super) fn layers(&self) -> &[TensorCommitment] {
        &self.layers
    }

    pub(super) fn right_run(&self) -> &ToyRun {
        self.right.honest()
    }

    pub(super) fn right(&self) -> &Fixture {
        &self.right
    }

    pub(super) fn wrong(&self, random: &mut Random) -> Arc<Fixture> {
        Arc::clone(random.pick(&self.wrong))
    }
}
