//! all-MiniLM-L6-v2, as it is published.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::sync::LazyLock;

use gainsay_program::lowering::{
    ActivationWidths, LowerOptions, Lowered, SourceFiles, Transform, lower_bert,
};
use gainsay_program::{
    ActivationBits, ArithmeticProfile, Cost, JobInput, Missing, OpPlace, Oracle, Scope, TensorRef,
    ValidatedModel, element, reference, weights,
};

use crate::common::{Checked, model_dir};

/// Lowered once for all tests: the files are read and hashed whole.
static MINILM: LazyLock<(ValidatedModel, Vec<Vec<u8>>)> = LazyLock::new(|| {
    let Lowered { manifest, weights, .. } = lower(ArithmeticProfile::ExactF32V1);
    (manifest.validate().expect("lowered manifests validate"), weights)
});

fn lower(arithmetic: ArithmeticProfile) -> Lowered {
    let dir = model_dir();
    let files =
        SourceFiles::load(|name| fs::read(dir.join(name))).expect("the folder holds the model's files");
    lower_bert(&files, &LowerOptions::new("all-MiniLM-L6-v2", arithmetic)).expect("the model lowers")
}

#[test]
fn the_model_has_the_expected_shape_and_id() {
    let (model, weights) = &*MINILM;
    assert_eq!((model.layer_count(), model.answer_width(), weights.len()), (8, 384, 101));
    assert_eq!((model.manifest().vocabulary, model.manifest().max_sequence), (30_522, 512));
    let id = "91520f82908f38616154963cfe350bf4437eb7d8c83972203e7787bf2f4755a4";
    assert_eq!(model.id().to_string(), id, "lowering or the encoding of manifests has changed");
    for (spec, bytes) in model.manifest().tensors.iter().zip(weights) {
        weights::check(spec, bytes).expect("lowered weights pass the check that uploads must pass");
    }
}

#[test]
fn the_int8_model_quantizes_the_36_linears_of_its_blocks() {
    let Lowered { manifest, transforms, .. } = lower(ArithmeticProfile::ExactInt8V1);
    let quantized =
        transforms.iter().filter(|applied| applied.transform == Transform::Quantized { group: 128 });
    assert_eq!(quantized.count(), 36);
    let id = "8d0d956baf3af4c83e832f671e3e461530708cac19af7f3deb2dbebcbe500a7f";
    assert_eq!(manifest.id().to_string(), id, "quantization or the encoding of manifests has changed");
}

/// The same files and options give the same model; any other option gives another.
#[test]
fn lowering_is_a_function_of_files_and_options() {
    let dir = model_dir();
    let files =
        SourceFiles::load(|name| fs::read(dir.join(name))).expect("the folder holds the model's files");
    let options = LowerOptions::new("all-MiniLM-L6-v2", ArithmeticProfile::ExactInt8V1);
    let sixteen = ActivationWidths::all(ActivationBits::Sixteen);
    let others = [
        LowerOptions { int8_group: 64, ..options.clone() },
        LowerOptions { activations: sixteen, ..options.clone() },
        LowerOptions {
            activations: ActivationWidths { attention: ActivationBits::Eight, ..options.activations },
            ..options.clone()
        },
        LowerOptions { name: "another".to_owned(), ..options.clone() },
    ];
    let mut ids = BTreeSet::new();
    for options in [options].iter().chain(&others) {
        let [first, second] = [(); 2].map(|()| lower_bert(&files, options).expect("the model lowers"));
        assert_eq!(first, second, "{options:?}");
        assert!(ids.insert(first.manifest.id()), "{options:?} gives a model that another gives too");
    }
}

/// The expected values are those of the same computation in binary64, by other code.
#[test]
fn embeddings_are_the_model_s() {
    let (model, weights) = &*MINILM;
    let job = JobInput::new([vec![101, 7592, 2088, 102], vec![101, 1037, 102]]).expect("two sequences");
    let trace = reference::run(model, weights, &job).expect("the job fits");
    let hello_world =
        [-0.034_477_3, 0.031_023_2, 0.006_735, 0.026_109, -0.039_362, -0.160_302_5, 0.066_924, -0.006_441_5];
    let a = [
        -0.036_432_9,
        0.034_703_4,
        -0.045_959_9,
        0.034_325_6,
        -0.080_823_4,
        0.032_838_6,
        0.116_975_6,
        -0.023_309_3,
    ];
    let answer = weights::widen(gainsay_program::Dtype::F32, trace.answer());
    for (found, expected) in answer.chunks(384).zip([hello_world, a]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }
    assert_spot_checks(model, weights, &job, &trace);
}

/// The first, a middle and the last element of every op.
fn assert_spot_checks(model: &ValidatedModel, weights: &[Vec<u8>], job: &JobInput, trace: &reference::Trace) {
    for place in places(model) {
        let expected = trace.op(place.layer, place.op).expect("the trace holds every op");
        let elements = expected.len() as u64 / 4;
        for index in [0, elements / 2, elements - 1] {
            let inner = reference::TraceOracle { trace, weights, virtual_layer: None };
            let found =
                element(model, job, place, index, &mut Checked { model, job, inner }).expect("all is there");
            assert_eq!(found, expected[4 * index as usize..][..4], "{place} element {index}");
        }
    }
}

fn places(model: &ValidatedModel) -> impl Iterator<Item = OpPlace> {
    (0..model.layer_count())
        .flat_map(|layer| (0..model.ops(layer).len() as u32).map(move |op| OpPlace::in_layer(layer, op)))
}

/// What a challenger sends stays small, whatever is disputed, and within the bound that validation computed.
#[test]
fn witnesses_stay_within_256_kib() {
    let (model, _) = &*MINILM;
    let mut largest = 0;
    for tokens in [1, 64, 65, 128, 512] {
        // The disputed sequence begins inside a chunk and is not alone.
        let job = JobInput::new([vec![101; 3], vec![101; tokens], vec![102; 500]]).expect("three sequences");
        for place in places(model) {
            let bound = model.worst_cost(place.layer, place.op).expect("the op exists");
            for size in witness_sizes(model, &job, place) {
                assert!(size <= bound.witness_bytes, "{place}: {size} bytes are over the bound {bound:?}");
                assert!(size <= 256 << 10, "{place} over {tokens} tokens needs {size} bytes");
                largest = largest.max(size);
            }
        }
    }
    assert!(largest > 100_000, "direct attention over 64 tokens reads 129 chunks or so, not {largest} bytes");
}

#[test]
fn work_stays_small() {
    let (model, _) = &*MINILM;
    let work = places(model)
        .filter_map(|place| model.worst_cost(place.layer, place.op))
        .map(|Cost { work, .. }| work);
    assert_eq!(work.max(), Some(2304), "attention over 64 tokens: 64 · (32 + 4)");
}

/// Witness sizes of some elements of an op; of expanded elements, of the ops of their virtual layer.
fn witness_sizes(model: &ValidatedModel, job: &JobInput, place: OpPlace) -> Vec<u64> {
    let shape = model.op_shape(job, place).expect("the op exists");
    let mut sizes = Vec::new();
    for row in [1, 5.min(shape.rows - 1), shape.rows - 1] {
        for column in [0, shape.width / 2 + 1, shape.width - 1] {
            let index = row * shape.width + column;
            if model.is_expanded(job, place.layer, place.op, index) {
                sizes.extend(virtual_witness_sizes(model, job, place, index));
            } else {
                sizes.push(witness_size(model, job, place, index));
            }
        }
    }
    sizes
}

fn virtual_witness_sizes(model: &ValidatedModel, job: &JobInput, place: OpPlace, index: u64) -> Vec<u64> {
    let scope = Scope::Virtual { op: place.op, element: index };
    let ops = model.op_count(job, place.layer, scope).expect("the element is expanded");
    (0..ops).map(|op| witness_size(model, job, OpPlace { layer: place.layer, scope, op }, 0)).collect()
}

fn witness_size(model: &ValidatedModel, job: &JobInput, place: OpPlace, index: u64) -> u64 {
    let mut chunks = Chunks::default();
    element(model, job, place, index, &mut Checked { model, job, inner: &mut chunks }).expect("all is there");
    let size = |&(tensor, _): &(TensorRef, u64)| {
        let chunks = model.shape_of(job, tensor).expect("the tensor exists").bytes().div_ceil(1024);
        1024 + 32 * u64::from(chunks.next_power_of_two().trailing_zeros())
    };
    chunks.touched.iter().map(size).sum()
}

/// An oracle full of zeros that remembers which chunks were read.
#[derive(Default)]
struct Chunks {
    touched: BTreeSet<(TensorRef, u64)>,
}

impl Oracle for &mut Chunks {
    fn read(&mut self, tensor: TensorRef, bytes: Range<u64>, into: &mut [u8]) -> Result<(), Missing> {
        self.touched.extend((bytes.start / 1024..=(bytes.end - 1) / 1024).map(|chunk| (tensor, chunk)));
        into.fill(0);
        Ok(())
    }
}
