//! A party's own run of one job, as the strategies read it: nothing is kept from the first run, and everything is
//! re-computed when it is asked for.

use crate::models::LoadedModel;
use gainsay_engine::Fault;
use gainsay_program::{JobInput, OpPlace, Scope, TensorRef};
use gainsay_protocol::{TensorData, TraceError, TraceSource};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of tensors that a trace keeps between questions.
const CACHE_BYTES: usize = 512 << 20;

/// One job on one model, honest or with a fault.
pub struct EngineTrace {
    model: LoadedModel,
    job: JobInput,
    fault: Option<Fault>,
    cache: Cache,
}

/// Tensors that one run of the engine yields together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// All ops of a layer.
    Layer(u32),
    /// The output of a layer.
    Output(u32),
    /// All ops of the virtual layer of an element.
    Virtual { layer: u32, op: u32, element: u64 },
}

/// The program has no such tensor.
#[derive(Debug, thiserror::Error)]
#[error("the program has no such tensor")]
struct NoSuchTensor;

impl EngineTrace {
    /// The run of `job` on `model`, with `fault` if the party lied.
    #[must_use]
    pub fn new(model: LoadedModel, job: JobInput, fault: Option<Fault>) -> Self {
        Self { model, job, fault, cache: Cache::new(CACHE_BYTES) }
    }

    /// Bytes of the tensors that it keeps.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.cache.bytes()
    }

    fn of_group(&mut self, group: Group, index: usize, tensor: TensorRef) -> Result<TensorData, TraceError> {
        if let Some(tensors) = self.cache.get(group) {
            return tensors.get(index).cloned().ok_or_else(|| TraceError::new(tensor, NoSuchTensor));
        }
        let (engine, fault) = (self.model.engine(), self.fault.as_ref());
        let computed = match group {
            Group::Layer(layer) => engine.layer_ops(&self.job, layer, fault),
            Group::Output(layer) => engine.layer_output(&self.job, layer, fault).map(|output| vec![output]),
            Group::Virtual { layer, op, element } => {
                return self.of_virtual(layer, op, element, index, tensor);
            }
        };
        let computed = computed.map_err(|error| TraceError::new(tensor, error))?;
        self.keep(group, computed, index, tensor)
    }

    /// From the layer's ops, which one run gives for all of its elements: whoever disputes many elements at once must
    /// not have the model run again for each.
    fn of_virtual(
        &mut self,
        layer: u32,
        op: u32,
        element: u64,
        index: usize,
        tensor: TensorRef,
    ) -> Result<TensorData, TraceError> {
        let ops: Vec<_> = (0..self.model.model().ops(layer).len())
            .map(|op| self.of_group(Group::Layer(layer), op, tensor).map(|output| output.bytes))
            .collect::<Result<_, _>>()?;
        let input = match layer.checked_sub(1) {
            Some(before) if self.model.engine().reads_layer_input(layer, op) => {
                self.tensor(TensorRef::LayerOutput(before))?.bytes
            }
            _ => Arc::default(),
        };
        let computed = self.model.engine().virtual_ops_from(&self.job, (layer, op, element), &ops, &input);
        let computed = computed.map_err(|error| TraceError::new(tensor, error))?;
        self.keep(Group::Virtual { layer, op, element }, computed, index, tensor)
    }

    fn keep(
        &mut self,
        group: Group,
        computed: Vec<Vec<u8>>,
        index: usize,
        tensor: TensorRef,
    ) -> Result<TensorData, TraceError> {
        let tensors: Vec<TensorData> = computed.into_iter().map(TensorData::new).collect();
        let found = tensors.get(index).cloned();
        self.cache.put(group, tensors);
        found.ok_or_else(|| TraceError::new(tensor, NoSuchTensor))
    }
}

impl TraceSource for EngineTrace {
    fn tensor(&mut self, tensor: TensorRef) -> Result<TensorData, TraceError> {
        match tensor {
            TensorRef::Weight(index) => {
                self.model.weight(index).map_err(|error| TraceError::new(tensor, error))
            }
            TensorRef::LayerOutput(layer) => {
                // The last op of a layer is its output: no second run where the ops are at hand.
                let last = self.model.model().ops(layer).len().wrapping_sub(1);
                match self.cache.get(Group::Layer(layer)).and_then(|ops| ops.get(last)) {
                    Some(output) => Ok(output.clone()),
                    None => self.of_group(Group::Output(layer), 0, tensor),
                }
            }
            TensorRef::Op(OpPlace { layer, scope: Scope::Layer, op }) => {
                self.of_group(Group::Layer(layer), op as usize, tensor)
            }
            TensorRef::Op(OpPlace { layer, scope: Scope::Virtual { op: outer, element }, op }) => {
                self.of_group(Group::Virtual { layer, op: outer, element }, op as usize, tensor)
            }
        }
    }
}

/// Groups of tensors, least recently used first, bounded in bytes (but never less than the newest group).
struct Cache {
    groups: VecDeque<(Group, Vec<TensorData>)>,
    limit: usize,
}

impl Cache {
    fn new(limit: usize) -> Self {
        Self { groups: VecDeque::new(), limit }
    }

    fn get(&mut self, group: Group) -> Option<&[TensorData]> {
        let at = self.groups.iter().position(|(held, _)| *held == group)?;
        let found = self.groups.remove(at)?;
        self.groups.push_back(found);
        self.groups.back().map(|(_, tensors)| tensors.as_slice())
    }

    fn put(&mut self, group: Group, tensors: Vec<TensorData>) {
        self.groups.push_back((group, tensors));
        while self.groups.len() > 1 && self.bytes() > self.limit {
            self.groups.pop_front();
        }
    }

    fn bytes(&self) -> usize {
        self.groups.iter().flat_map(|(_, tensors)| tensors).map(|tensor| tensor.bytes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gainsay_engine::Options;
    use gainsay_program::toy::{Toy, ToyOptions};

    fn trace(fault: Option<Fault>) -> (EngineTrace, JobInput) {
        let toy = Toy::new(&ToyOptions::default()).unwrap();
        let job = toy.job(1, &[12, 3]);
        let weights = toy.weights.into_iter().map(Arc::from).collect();
        let options = Options { threads: 1, ..Options::default() };
        let model = LoadedModel::new(Arc::new(toy.model), weights, options).unwrap();
        (EngineTrace::new(model, job.clone(), fault), job)
    }

    #[test]
    fn what_is_shown_later_is_what_was_claimed() {
        let flip = Fault::FlipBit { layer: 1, op: 0, element: 3, bit: 20 };
        for fault in [None, Some(flip), Some(Fault::SkipLayer { layer: 2 })] {
            let (mut trace, job) = trace(fault);
            let claimed = trace.model.engine().run(&[job], fault.as_ref()).unwrap().remove(0);
            for (layer, commitment) in (0..).zip(&claimed.layers) {
                let output = trace.tensor(TensorRef::LayerOutput(layer)).unwrap();
                assert_eq!(output.commitment(), *commitment, "{fault:?}, layer {layer}");
                let last = trace.model.model().ops(layer).len() as u32 - 1;
                let last = trace.tensor(TensorRef::Op(OpPlace::in_layer(layer, last))).unwrap();
                assert_eq!(last.commitment(), *commitment, "{fault:?}, layer {layer}");
            }
        }
    }

    #[test]
    fn virtual_ops_come_from_the_ops_of_the_layer_and_equal_the_engines() {
        let (mut trace, job) = trace(None);
        let mut expanded = 0;
        for layer in 0..trace.model.model().layer_count() {
            for op in 0..trace.model.model().ops(layer).len() as u32 {
                let Ok(expected) = trace.model.engine().virtual_ops(&job, layer, op, 5, None) else {
                    continue;
                };
                for (index, expected) in (0..).zip(&expected) {
                    let scope = Scope::Virtual { op, element: 5 };
                    let found = trace.tensor(TensorRef::Op(OpPlace { layer, scope, op: index })).unwrap();
                    assert_eq!(&found.bytes[..], &expected[..], "layer {layer} op {op}, virtual op {index}");
                }
                expanded += 1;
            }
        }
        assert!(expanded >= 2, "only {expanded} elements were expanded");
    }

    #[test]
    fn a_tensor_that_is_not_there_is_an_error() {
        let (mut trace, _) = trace(None);
        for tensor in [
            TensorRef::Weight(10_000),
            TensorRef::LayerOutput(99),
            TensorRef::Op(OpPlace::in_layer(0, 99)),
            TensorRef::Op(OpPlace { layer: 0, scope: Scope::Virtual { op: 0, element: 0 }, op: 0 }),
        ] {
            assert!(trace.tensor(tensor).is_err(), "{tensor}");
        }
    }

    #[test]
    fn the_cache_forgets_the_least_recently_used_first() {
        let tensor = |bytes: usize| vec![TensorData::new(vec![0; bytes])];
        let mut cache = Cache::new(100);
        cache.put(Group::Layer(0), tensor(40));
        cache.put(Group::Layer(1), tensor(40));
        assert!(cache.get(Group::Layer(0)).is_some());
        cache.put(Group::Layer(2), tensor(40));
        assert!(cache.get(Group::Layer(1)).is_none());
        assert!(cache.get(Group::Layer(0)).is_some());
        cache.put(Group::Layer(3), tensor(1_000));
        assert_eq!(cache.groups.len(), 1, "the newest stays, however large");
    }
}
