//! Which claims are checked next: one line of claims for each model, so that a model that is slow to come keeps nobody
//! waiting but the claims on it.

use gainsay_commitment::{ClaimId, ModelId};
use std::collections::{BTreeMap, BTreeSet};

/// By how much a claim that could not be checked yet is put behind others.
const PUT_BEHIND_MS: i64 = 10_000;

/// A claim to be checked, and the model that it is said to be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sighting {
    /// When it is due: its window closes then, or, if it was tried before, some time after. In ms of service time.
    pub(crate) due_ms: i64,
    pub(crate) claim: ClaimId,
    pub(crate) model: ModelId,
}

impl Sighting {
    /// The claim after a try that came to nothing: others come first, so that those that cannot be had for long do not
    /// keep their model's line to themselves.
    pub(crate) fn put_behind(self) -> Self {
        Self { due_ms: self.due_ms.saturating_add(PUT_BEHIND_MS), ..self }
    }
}

/// Claims that wait, by model, those that are due first in front. At most one batch of a model is under way at a time.
#[derive(Default)]
pub(crate) struct Lanes {
    waiting: BTreeMap<ModelId, BTreeSet<Sighting>>,
    busy: BTreeSet<ModelId>,
    /// The model that was served last; those after it come first.
    last: Option<ModelId>,
}

impl Lanes {
    pub(crate) fn push(&mut self, sighting: Sighting) {
        self.waiting.entry(sighting.model).or_default().insert(sighting);
    }

    /// Claims that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.values().map(BTreeSet::len).sum()
    }

    /// The next batch: up to `most` claims on one model, by turns. [`Lanes::done`] says when it is over.
    pub(crate) fn next(&mut self, most: usize) -> Option<(ModelId, Vec<Sighting>)> {
        let free = |model: &&ModelId| !self.busy.contains(model);
        let later = self.waiting.keys().filter(|model| Some(**model) > self.last).find(free);
        let model = *later.or_else(|| self.waiting.keys().find(free))?;
        let lane = self.waiting.get_mut(&model)?;
        let claims = std::iter::from_fn(|| lane.pop_first()).take(most).collect();
        if lane.is_empty() {
            self.waiting.remove(&model);
        }
        self.busy.insert(model);
        self.last = Some(model);
        Some((model, claims))
    }

    pub(crate) fn done(&mut self, model: ModelId) {
        self.busy.remove(&model);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(model: u8, claim: u8) -> Sighting {
        let due_ms = i64::from(claim) * 1_000;
        Sighting { due_ms, model: ModelId::from_bytes([model; 32]), claim: ClaimId::from_bytes([claim; 32]) }
    }

    fn next(lanes: &mut Lanes) -> Option<(u8, Vec<u8>)> {
        let (model, claims) = lanes.next(2)?;
        Some((model.as_bytes()[0], claims.iter().map(|it| it.claim.as_bytes()[0]).collect()))
    }

    #[test]
    fn the_window_that_closes_first_comes_first_and_a_failed_try_goes_behind() {
        let mut lanes = Lanes::default();
        for claim in [7, 3, 9, 1] {
            lanes.push(sighting(1, claim));
        }
        lanes.push(sighting(1, 2).put_behind());
        assert_eq!(next(&mut lanes), Some((1, vec![1, 3])));
        lanes.done(ModelId::from_bytes([1; 32]));
        assert_eq!(next(&mut lanes), Some((1, vec![7, 9])));
        lanes.done(ModelId::from_bytes([1; 32]));
        assert_eq!(next(&mut lanes), Some((1, vec![2])));
    }

    #[test]
    fn models_take_turns_and_a_slow_one_holds_up_none_but_itself() {
        let mut lanes = Lanes::default();
        for (model, claim) in [(1, 1), (1, 2), (1, 3), (2, 4), (3, 5)] {
            lanes.push(sighting(model, claim));
        }
        assert_eq!(next(&mut lanes), Some((1, vec![1, 2])));
        assert_eq!(next(&mut lanes), Some((2, vec![4])));
        assert_eq!(next(&mut lanes), Some((3, vec![5])));
        assert_eq!(next(&mut lanes), None, "the first is still under way");
        lanes.done(ModelId::from_bytes([2; 32]));
        lanes.push(sighting(2, 6));
        assert_eq!(next(&mut lanes), Some((2, vec![6])));
        assert_eq!(lanes.len(), 1);
        lanes.done(ModelId::from_bytes([1; 32]));
        assert_eq!(next(&mut lanes), Some((1, vec![3])));
        assert_eq!(next(&mut lanes), None);
    }
}
