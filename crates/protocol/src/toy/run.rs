//! Runs of toy models as traces.

use std::{collections::BTreeMap, sync::Arc};

use gainsay_commitment::TensorCommitment;
use gainsay_program::{
    JobInput, OpPlace, Scope, TensorRef, ValidatedModel,
    reference::{self, Trace},
    toy::{Toy, ToyOptions},
};

use super::random::Random;
use crate::strategy::{TensorData, TraceError, TraceSource};

/// A toy model with its weights, hashed once.
#[derive(Debug)]
pub struct ToyModel {
    model: ValidatedModel,
    weights: Vec<TensorData>,
}

impl ToyModel {
    /// Builds the model.
    ///
    /// # Panics
    /// The options describe no model.
    #[must_use]
    pub fn new(options: &ToyOptions) -> Self {
        Self::of(Toy::new(options).expect("the options describe a model"))
    }

    /// A model that is built.
    #[must_use]
    pub fn of(toy: Toy) -> Self {
        let Toy { model, weights } = toy;
        Self { model, weights: weights.into_iter().map(TensorData::new).collect() }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &ValidatedModel {
        &self.model
    }
}

/// One run of a job, perhaps a tampered one, with every tensor at hand. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ToyRun {
    run: Arc<Run>,
    /// Virtual layers that were asked for.
    expanded: BTreeMap<TensorRef, TensorData>,
}

#[derive(Debug)]
struct Run {
    model: Arc<ToyModel>,
    input: JobInput,
    trace: Trace,
    tensors: BTreeMap<TensorRef, TensorData>,
}

impl ToyRun {
    /// Runs the job; `tamper` may falsify any op's output before later ops read it.
    ///
    /// # Panics
    /// The job does not fit the model.
    #[must_use]
    pub fn new(model: Arc<ToyModel>, input: JobInput, tamper: impl FnMut(OpPlace, &mut [u8])) -> Self {
        let weights: Vec<_> = model.weights.iter().map(|weight| weight.bytes.clone()).collect();
        let trace =
            reference::run_with(model.model(), &weights, &input, tamper).expect("the job fits the model");
        let mut tensors = BTreeMap::new();
        for (layer, ops) in (0..).zip(trace.layers()) {
            for (op, bytes) in (0..).zip(ops) {
                let data = TensorData::new(bytes.clone());
                tensors.insert(TensorRef::LayerOutput(layer), data.clone());
                tensors.insert(TensorRef::Op(OpPlace::in_layer(layer, op)), data);
            }
        }
        let weights = (0..).zip(&model.weights).map(|(index, data)| (TensorRef::Weight(index), data.clone()));
        tensors.extend(weights);
        Self { run: Arc::new(Run { model, input, trace, tensors }), expanded: BTreeMap::new() }
    }

    /// The commitments of all layer outputs.
    #[must_use]
    pub fn layers(&self) -> Vec<TensorCommitment> {
        let layers = 0..self.run.model.model().layer_count();
        layers.map(|layer| self.run.tensors[&TensorRef::LayerOutput(layer)].commitment()).collect()
    }

    /// What the submitter gets.
    #[must_use]
    pub fn answer(&self) -> &[u8] {
        self.run.trace.answer()
    }

    /// The output of an op of a layer.
    #[must_use]
    pub fn op(&self, layer: u32, op: u32) -> Option<&TensorData> {
        self.run.tensors.get(&TensorRef::Op(OpPlace::in_layer(layer, op)))
    }
}

impl TraceSource for ToyRun {
    fn tensor(&mut self, tensor: TensorRef) -> Result<TensorData, TraceError> {
        if let Some(data) = self.run.tensors.get(&tensor).or_else(|| self.expanded.get(&tensor)) {
            return Ok(data.clone());
        }
        let missing = || TraceError::new(tensor, "the run has no such tensor");
        let TensorRef::Op(OpPlace { layer, scope: Scope::Virtual { op, element }, .. }) = tensor else {
            return Err(missing());
        };
        let Run { model, input, trace, .. } = &*self.run;
        let outputs = reference::virtual_ops(model.model(), input, trace, layer, op, element);
        let scope = Scope::Virtual { op, element };
        for (op, bytes) in (0..).zip(outputs.ok_or_else(missing)?) {
            self.expanded.insert(TensorRef::Op(OpPlace { layer, scope, op }), TensorData::new(bytes));
        }
        self.expanded.get(&tensor).cloned().ok_or_else(missing)
    }
}

/// A run whose owner lies about how it got its layer outputs: other bytes stand in for some ops' outputs, as
/// consistent as lies can be. Every opening fits the commitment that was shown; what it must equal (the layer's
/// commitment, the expanded element) it does equal.
#[derive(Debug, Clone)]
pub struct LyingRun {
    run: ToyRun,
    lies: BTreeMap<TensorRef, TensorData>,
    random: Random,
    /// How many of a hundred ops are lied about.
    per_cent: u64,
}

impl LyingRun {
    /// Lies about this part of all ops.
    #[must_use]
    pub fn new(run: ToyRun, seed: u64, per_cent: u64) -> Self {
        Self { run, lies: BTreeMap::new(), random: Random::new(seed), per_cent }
    }

    /// What the lie must equal: nothing for ops in the middle.
    fn bound(&self, place: OpPlace) -> Option<TensorData> {
        let Run { model, input, .. } = &*self.run.run;
        let count = model.model().op_count(input, place.layer, place.scope)?;
        if place.op + 1 != count {
            return None;
        }
        match place.scope {
            Scope::Layer => self.run.op(place.layer, place.op).cloned(),
            Scope::Virtual { op, element } => {
                let claimed = self.run.op(place.layer, op)?.element(element)?;
                Some(TensorData::new(claimed.to_vec()))
            }
        }
    }

    fn lie(&mut self, place: OpPlace) -> Result<TensorData, TraceError> {
        if let Some(bound) = self.bound(place) {
            return Ok(bound);
        }
        let truth = self.run.tensor(TensorRef::Op(place))?;
        if !self.random.happens(self.per_cent) {
            return Ok(truth);
        }
        let mut bytes = truth.bytes.to_vec();
        let changed = 1 + self.random.below(3);
        for _ in 0..changed {
            let index = self.random.below(bytes.len() as u64) as usize;
            bytes[index] ^= 1 << self.random.below(8);
        }
        Ok(TensorData::new(bytes))
    }
}

impl TraceSource for LyingRun {
    fn tensor(&mut self, tensor: TensorRef) -> Result<TensorData, TraceError> {
        let TensorRef::Op(place) = tensor else { return self.run.tensor(tensor) };
        if let Some(lie) = self.lies.get(&tensor) {
            return Ok(lie.clone());
        }
        let lie = self.lie(place)?;
        self.lies.insert(tensor, lie.clone());
        Ok(lie)
    }
}
