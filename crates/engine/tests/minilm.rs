//! all-MiniLM-L6-v2: the same claim on any instructions, threads and neighbours, and the referee's elements.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;

use gainsay_engine::{Model, Options, Simd, Trace};
use gainsay_program::lowering::{ActivationWidths, LowerOptions};
use gainsay_program::{
    ActivationBits, ArithmeticProfile, JobInput, Missing, OpPlace, Oracle, Scope, TensorRef, element,
};
use support::{Loaded, Random, job, lower_minilm, minilm};

fn loaded() -> &'static Loaded {
    static LOADED: OnceLock<Loaded> = OnceLock::new();
    LOADED.get_or_init(|| minilm().unwrap_or_else(|error| panic!("{error:#}")))
}

fn engine(simd: Simd, threads: usize) -> Model {
    let Loaded { model, weights } = loaded();
    Model::new(model.clone(), weights.clone(), Options { threads, simd, ..Options::default() }).unwrap()
}

fn run_alone(model: &Model, job: &JobInput) -> Trace {
    model.run(std::slice::from_ref(job), None).unwrap().remove(0)
}

#[test]
fn one_claim_on_any_instructions_and_threads() {
    let model = &loaded().model;
    let (short, long) = (job(model, 1, &[5]), job(model, 2, &[128, 17, 300]));
    let reference = engine(Simd::Auto, 1);
    let expected = [run_alone(&reference, &short), run_alone(&reference, &long)];
    for simd in Simd::available_for_floats() {
        for threads in [1, 2] {
            let model = engine(simd, threads);
            assert_eq!(run_alone(&model, &short), expected[0], "{simd}, {threads} threads");
            if simd != Simd::Portable {
                assert_eq!(run_alone(&model, &long), expected[1], "{simd}, {threads} threads");
            }
        }
    }
}

/// The same claims in int8, by every path and with threads and neighbours of all kinds.
#[test]
fn one_claim_in_int8_on_any_instructions_threads_and_neighbours() {
    println!("paths of this machine: {:?}", Simd::available());
    for bits in [ActivationBits::Eight, ActivationBits::Sixteen] {
        let options = LowerOptions::new("all-MiniLM-L6-v2", ArithmeticProfile::ExactInt8V1);
        let options = LowerOptions { activations: ActivationWidths::all(bits), ..options };
        let Loaded { model, weights } = lower_minilm(&options).unwrap_or_else(|error| panic!("{error:#}"));
        let jobs =
            [&[5][..], &[130, 17, 1], &[200]].map(|lengths| job(&model, lengths.len() as u64, lengths));
        let engine = |simd, threads| {
            let options = Options { threads, simd, ..Options::default() };
            Model::new(model.clone(), weights.clone(), options).unwrap()
        };
        let reference = engine(Simd::Auto, 1);
        let expected: Vec<Trace> = jobs.iter().map(|job| run_alone(&reference, job)).collect();
        for simd in Simd::available() {
            for threads in [1, 2] {
                let model = engine(simd, threads);
                let some = if simd == Simd::Portable { 1 } else { jobs.len() };
                assert_eq!(model.run(&jobs[..some], None).unwrap(), expected[..some], "{simd}, {threads}");
            }
        }
    }
}

#[test]
fn one_claim_alone_and_among_31_neighbours() {
    let lengths = [3, 40, 128, 9, 77, 512, 1, 64];
    let jobs: Vec<JobInput> =
        (0..32).map(|i| job(&loaded().model, i as u64, &[lengths[i % lengths.len()]])).collect();
    let model = engine(Simd::Auto, 2);
    let together = model.run(&jobs, None).unwrap();
    for (i, (job, trace)) in jobs.iter().zip(together).enumerate().filter(|(i, _)| i % 3 == 0) {
        assert_eq!(run_alone(&model, job), trace, "job {i}");
    }
}

/// Everything that a run of the model has: layers are computed when they are first read.
struct EngineOracle<'a> {
    model: &'a Model,
    job: &'a JobInput,
    layers: HashMap<u32, Vec<Vec<u8>>>,
}

impl EngineOracle<'_> {
    fn ops(&mut self, layer: u32) -> &[Vec<u8>] {
        let ops = || self.model.layer_ops(self.job, layer, None).unwrap();
        self.layers.entry(layer).or_insert_with(ops)
    }
}

impl Oracle for EngineOracle<'_> {
    fn read(&mut self, tensor: TensorRef, bytes: Range<u64>, into: &mut [u8]) -> Result<(), Missing> {
        let range = bytes.start as usize..bytes.end as usize;
        let found = match tensor {
            TensorRef::Op(OpPlace { layer, scope: Scope::Layer, op }) => &self.ops(layer)[op as usize][range],
            TensorRef::LayerOutput(layer) => &self.ops(layer).last().unwrap()[range],
            TensorRef::Weight(index) => &loaded().weights[index as usize][range],
            TensorRef::Op(_) => return Err(Missing::new(tensor, &bytes)),
        };
        into.copy_from_slice(found);
        Ok(())
    }
}

#[test]
fn elements_of_every_op_are_the_referees() {
    let model = engine(Simd::Auto, 2);
    let validated = &loaded().model;
    let job = job(validated, 11, &[512, 70]);
    let mut random = Random(12);
    let mut oracle = EngineOracle { model: &model, job: &job, layers: HashMap::new() };
    for layer in 0..validated.layer_count() {
        for op in 0..validated.ops(layer).len() as u32 {
            let place = OpPlace::in_layer(layer, op);
            let elements = validated.op_shape(&job, place).unwrap().elements();
            let random = (0..10).map(|_| random.next_u64() % elements);
            for index in [0, elements - 1].into_iter().chain(random) {
                let expected = element(validated, &job, place, index, &mut oracle).unwrap();
                let found = &oracle.ops(layer)[op as usize][index as usize * 4..][..4];
                assert_eq!(found, expected, "{place}, element {index}");
            }
        }
    }
}
