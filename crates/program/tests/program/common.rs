//! What several test files share.

use std::ops::Range;
use std::path::PathBuf;

use gainsay_program::{
    JobInput, Missing, OpPlace, Oracle, Scope, TensorRef, ValidatedModel, element, reference,
};

/// Asserts of every read that it lies inside its tensor, on element boundaries, and fills its buffer.
pub(crate) struct Checked<'a, O> {
    pub(crate) model: &'a ValidatedModel,
    pub(crate) job: &'a JobInput,
    pub(crate) inner: O,
}

impl<O: Oracle> Oracle for Checked<'_, O> {
    fn read(&mut self, tensor: TensorRef, bytes: Range<u64>, into: &mut [u8]) -> Result<(), Missing> {
        let shape = self.model.shape_of(self.job, tensor).unwrap_or_else(|| panic!("there is no {tensor}"));
        assert!(bytes.start < bytes.end && bytes.end <= shape.bytes(), "{bytes:?} of {tensor} {shape:?}");
        assert_eq!(bytes.end - bytes.start, into.len() as u64);
        assert!(
            bytes.start.is_multiple_of(shape.dtype.bytes()) && bytes.end.is_multiple_of(shape.dtype.bytes())
        );
        self.inner.read(tensor, bytes, into)
    }
}

/// The output of the op at `place`, element by element.
pub(crate) fn all_elements<O: Oracle>(
    model: &ValidatedModel,
    job: &JobInput,
    place: OpPlace,
    oracle: &mut O,
) -> Vec<u8> {
    let elements = model.op_shape(job, place).expect("the op exists").elements();
    let value = |index| element(model, job, place, index, oracle).expect("the oracle holds everything");
    (0..elements).flat_map(value).collect()
}

/// Asserts that `element` agrees with the reference executor on every element of every op, virtual layers included,
/// and returns how many elements were compared.
pub(crate) fn assert_agrees(model: &ValidatedModel, weights: &[Vec<u8>], job: &JobInput) -> u64 {
    let trace = reference::run(model, weights, job).expect("the job fits the model");
    let mut compared = 0;
    for layer in 0..model.layer_count() {
        for op in 0..model.ops(layer).len() as u32 {
            let place = OpPlace::in_layer(layer, op);
            let oracle = reference::TraceOracle { trace: &trace, weights, virtual_layer: None };
            let expected = trace.op(layer, op).expect("the trace holds every op");
            let found = all_elements(model, job, place, &mut Checked { model, job, inner: oracle });
            assert_eq!(found, expected, "{place}: {}", model.op_name(place).expect("the op has a name"));
            compared += expected.len() as u64 / 4;
            for (index, bytes) in expected.chunks(4).enumerate() {
                compared +=
                    assert_virtual_layer_agrees(model, weights, job, &trace, place, index as u64, bytes);
            }
        }
    }
    compared
}

fn assert_virtual_layer_agrees(
    model: &ValidatedModel,
    weights: &[Vec<u8>],
    job: &JobInput,
    trace: &reference::Trace,
    place: OpPlace,
    index: u64,
    bytes: &[u8],
) -> u64 {
    let scope = Scope::Virtual { op: place.op, element: index };
    let Some(outputs) = reference::virtual_ops(model, job, trace, place.layer, place.op, index) else {
        assert!(!model.is_expanded(job, place.layer, place.op, index));
        assert_eq!(model.op_count(job, place.layer, scope), None);
        return 0;
    };
    assert_eq!(model.op_count(job, place.layer, scope), Some(outputs.len() as u32));
    assert_eq!(outputs.last().map(Vec::as_slice), Some(bytes), "{place}: `out` is element {index}");
    let virtual_layer = Some((place.layer, scope, outputs.as_slice()));
    let mut oracle = Checked { model, job, inner: reference::TraceOracle { trace, weights, virtual_layer } };
    for (op, expected) in outputs.iter().enumerate() {
        let place = OpPlace { layer: place.layer, scope, op: op as u32 };
        assert_eq!(&all_elements(model, job, place, &mut oracle), expected, "{place}");
    }
    outputs.iter().map(|output| output.len() as u64 / 4).sum()
}

/// The folder of the real model.
pub(crate) fn model_dir() -> PathBuf {
    let default = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/models/all-MiniLM-L6-v2"));
    let dir = std::env::var_os("GAINSAY_MODEL_DIR").map_or(default, PathBuf::from);
    let found = dir.join("model.safetensors").is_file();
    assert!(
        found,
        "{} does not hold the model: run `cargo xtask fetch-model`, or set GAINSAY_MODEL_DIR",
        dir.display()
    );
    dir
}
