//! Which claims are checked next: one line of claims for each model, so that a model that is slow to come keeps nobody
//! waiting but the claims on it.

use gainsay_commitment::{ClaimId, ModelId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A claim to be checked, and the model that it is said to be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) claim: ClaimId,
    pub(crate) model: ModelId,
}

/// Claims that wait, by model. At most one batch of a model is under way at a time.
#[derive(Default)]
pub(crate) struct Lanes {
    waiting: BTreeMap<ModelId, VecDeque<ClaimId>>,
    busy: BTreeSet<ModelId>,
    /// The model that was served last; those after it come first.
    last: Option<ModelId>,
}

impl Lanes {
    pub(crate) fn push(&mut self, Sighting { claim, model }: Sighting) {
        self.waiting.entry(model).or_default().push_back(claim);
    }

    /// Claims that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// The next batch: up to `most` claims on one model, by turns. [`Lanes::done`] says when it is over.
    pub(crate) fn next(&mut self, most: usize) -> Option<(ModelId, Vec<ClaimId>)> {
        let free = |model: &&ModelId| !self.busy.contains(model);
        let later = self.waiting.keys().filter(|model| Some(**model) > self.last).find(free);
        let model = *later.or_else(|| self.waiting.keys().find(free))?;
        let lane = self.waiting.get_mut(&model)?;
        let claims = lane.drain(..most.min(lane.len())).collect();
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
        Sighting { model: ModelId::from_bytes([model; 32]), claim: ClaimId::from_bytes([claim; 32]) }
    }

    fn next(lanes: &mut Lanes) -> Option<(u8, Vec<u8>)> {
        let (model, claims) = lanes.next(2)?;
        Some((model.as_bytes()[0], claims.iter().map(|claim| claim.as_bytes()[0]).collect()))
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
