//! Small models against the reference executor: every byte of every op.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::sync::Arc;

use gainsay_arithmetic::int8::ActivationBits;
use gainsay_commitment::tensor::tensor_commitment;
use gainsay_engine::{
    Fault, JobRefusal, LoadError, Model, Options, Progress, RunError, Runner, RunnerOptions, Simd, Trace,
    Work,
};
use gainsay_program::toy::{Toy, ToyOptions};
use gainsay_program::{ArithmeticProfile, Dtype, JobInput, LinearKind, Op, OpKind, Operand, reference};
use proptest::prelude::*;

fn toys() -> Vec<ToyOptions> {
    let int8 = ToyOptions { arithmetic: ArithmeticProfile::ExactInt8V1, ..ToyOptions::default() };
    vec![
        ToyOptions::default(),
        ToyOptions { dtype: Dtype::Bf16, blocks_per_layer: 2, seed: 2, ..ToyOptions::default() },
        ToyOptions { dtype: Dtype::F16, head_dim: 20, heads: 3, intermediate: 130, ..ToyOptions::default() },
        int8.clone(),
        ToyOptions { activation_bits: ActivationBits::Sixteen, seed: 3, ..int8 },
    ]
}

fn weights(toy: &Toy) -> Vec<Arc<[u8]>> {
    toy.weights.iter().map(|bytes| Arc::from(&bytes[..])).collect()
}

fn engine(toy: &Toy, simd: Simd, threads: usize) -> Model {
    Model::new(Arc::new(toy.model.clone()), weights(toy), Options { threads, simd, ..Options::default() })
        .unwrap()
}

/// Engines for one model that must not differ in a bit.
fn engines(toy: &Toy) -> Vec<Model> {
    let all = Simd::available().into_iter().flat_map(|simd| [1, 2].map(|threads| (simd, threads)));
    all.map(|(simd, threads)| engine(toy, simd, threads)).collect()
}

#[track_caller]
fn assert_agrees(model: &Model, job: &JobInput, expected: &reference::Trace, fault: Option<&Fault>) {
    let trace = model.run(std::slice::from_ref(job), fault).unwrap().remove(0);
    for (layer, expected) in expected.layers().iter().enumerate() {
        let ops = model.layer_ops(job, layer as u32, fault).unwrap();
        assert_eq!(ops.len(), expected.len(), "{model:?}, layer {layer}");
        for (op, (found, expected)) in ops.iter().zip(expected).enumerate() {
            let name = model.model().ops(layer as u32)[op].kind.name();
            assert!(found == expected, "{model:?}, {fault:?}, layer {layer}, op {op} ({name}) differs");
        }
        let last = expected.last().unwrap();
        assert_eq!(trace.layers[layer], tensor_commitment(last), "{model:?}, {fault:?}, layer {layer}");
        assert_eq!(&model.layer_output(job, layer as u32, fault).unwrap(), last);
    }
    assert_eq!(trace.output, expected.answer(), "{model:?}, {fault:?}");
}

#[test]
fn every_op_of_every_toy_equals_the_reference() {
    for options in toys() {
        let toy = Toy::new(&options).unwrap();
        for lengths in [&[1][..], &[9, 32, 2], &[17]] {
            let job = toy.job(7, lengths);
            let expected = reference::run(&toy.model, &toy.weights, &job).unwrap();
            for model in engines(&toy) {
                assert_agrees(&model, &job, &expected, None);
            }
        }
    }
}

#[test]
fn a_job_of_many_batches_is_hashed_as_one() {
    let toy = Toy::new(&ToyOptions { max_sequence: 300, ..ToyOptions::default() }).unwrap();
    let job = toy.job(3, &[300, 299, 300, 298, 300, 1, 300, 77]);
    let expected = reference::run(&toy.model, &toy.weights, &job).unwrap();
    for model in engines(&toy) {
        assert_agrees(&model, &job, &expected, None);
    }
}

/// What a runner makes of jobs of which some join before each step, and the first of which a fault strikes.
fn serve(model: &Model, jobs: &[JobInput], fault: Fault, rows: usize, joins: &[usize]) -> Vec<Trace> {
    let options = RunnerOptions { rows_per_step: rows, ..RunnerOptions::default() };
    let mut runner = Runner::new(model.clone(), options);
    let mut traces = vec![None; jobs.len()];
    let mut waiting = jobs.iter().enumerate();
    let mut joins = joins.iter().cycle();
    while waiting.len() > 0 || !runner.is_empty() {
        let join = joins.next().copied().unwrap_or(1).max(usize::from(runner.is_empty()));
        for (key, job) in waiting.by_ref().take(join) {
            runner.join_with(key, Work::Encode(job.clone()), (key == 0).then_some(fault)).unwrap();
        }
        for progress in runner.step().unwrap() {
            match progress {
                Progress::Done { key, trace } => assert!(traces[key].replace(trace).is_none()),
                other => panic!("{other:?}"),
            }
        }
    }
    traces.into_iter().map(Option::unwrap).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn neighbours_change_nothing(
        seed in any::<u64>(),
        jobs in prop::collection::vec(prop::collection::vec(1u32..=32, 1..4), 1..12),
        rows in 1usize..100,
        joins in prop::collection::vec(0usize..3, 1..20),
    ) {
        let toy = Toy::new(&ToyOptions::default()).unwrap();
        let model = engine(&toy, Simd::Auto, 2);
        let jobs: Vec<JobInput> =
            jobs.iter().enumerate().map(|(i, lengths)| toy.job(seed.wrapping_add(i as u64), lengths)).collect();
        let together = model.run(&jobs, None).unwrap();
        // The first job of a runner is struck, which is no business of the others.
        let fault = Fault::FlipBit { layer: 1, op: 2, element: seed, bit: 22 };
        let served = serve(&model, &jobs, fault, rows, &joins);
        for (index, (job, trace)) in jobs.iter().zip(together).enumerate() {
            let alone = |fault| model.run(std::slice::from_ref(job), fault).unwrap().remove(0);
            prop_assert_eq!(&alone(None), &trace);
            let expected = if index == 0 { alone(Some(&fault)) } else { trace };
            prop_assert_eq!(&served[index], &expected, "{} rows a step, joins {:?}", rows, joins);
        }
    }

    #[test]
    fn a_flipped_bit_is_carried_on_as_the_reference_carries_it(
        layer in 0u32..4,
        op in any::<prop::sample::Index>(),
        element in any::<u64>(),
        bit in 0u8..32,
        lengths in prop::collection::vec(1u32..=20, 1..4),
    ) {
        let toy = Toy::new(&ToyOptions::default()).unwrap();
        let layer = layer % toy.model.layer_count();
        let op = op.index(toy.model.ops(layer).len()) as u32;
        let job = toy.job(5, &lengths);
        let expected = reference::run_with(&toy.model, &toy.weights, &job, |place, bytes| {
            if (place.layer, place.op) == (layer, op) {
                let elements = bytes.len() as u64 / 4;
                let byte = (element % elements) as usize * 4 + usize::from(bit / 8);
                bytes[byte] ^= 1 << (bit % 8);
            }
        })
        .unwrap();
        let fault = Fault::FlipBit { layer, op, element, bit };
        for simd in Simd::available() {
            assert_agrees(&engine(&toy, simd, 1), &job, &expected, Some(&fault));
        }
    }
}

#[test]
fn a_fault_strikes_every_job_of_a_run() {
    let toy = Toy::new(&ToyOptions::default()).unwrap();
    let model = engine(&toy, Simd::Auto, 1);
    let jobs = [toy.job(1, &[4]), toy.job(2, &[3, 30])];
    let fault = Fault::FlipBit { layer: 1, op: 0, element: 5, bit: 30 };
    let together = model.run(&jobs, Some(&fault)).unwrap();
    for (job, trace) in jobs.iter().zip(together) {
        let job = std::slice::from_ref(job);
        assert_eq!(model.run(job, Some(&fault)).unwrap(), std::slice::from_ref(&trace));
        assert_ne!(model.run(job, None).unwrap(), [trace]);
    }
}

#[test]
fn a_skipped_layer_gives_its_input() {
    let toy = Toy::new(&ToyOptions::default()).unwrap();
    let model = engine(&toy, Simd::Auto, 2);
    let job = toy.job(9, &[12, 5]);
    let fault = Fault::SkipLayer { layer: 2 };
    let trace = model.run(std::slice::from_ref(&job), Some(&fault)).unwrap().remove(0);
    assert_eq!(trace.layers[2], trace.layers[1]);
    let honest = model.run(std::slice::from_ref(&job), None).unwrap().remove(0);
    assert_eq!(trace.layers[..2], honest.layers[..2]);
    assert_ne!(trace.layers[2..], honest.layers[2..]);
    let ops = model.layer_ops(&job, 2, Some(&fault)).unwrap();
    assert_eq!(tensor_commitment(ops.last().unwrap()), trace.layers[2]);
}

#[test]
fn faults_without_a_place_are_refused() {
    let toy = Toy::new(&ToyOptions::default()).unwrap();
    let model = engine(&toy, Simd::Auto, 1);
    let last = toy.model.layer_count() - 1;
    for fault in [
        Fault::SkipLayer { layer: 0 },
        Fault::SkipLayer { layer: last },
        Fault::SkipLayer { layer: last + 1 },
        Fault::FlipBit { layer: 0, op: 99, element: 0, bit: 0 },
        Fault::FlipBit { layer: last + 1, op: 0, element: 0, bit: 0 },
    ] {
        let refused = model.run(&[toy.job(1, &[3])], Some(&fault));
        assert!(matches!(refused, Err(RunError::Fault(found)) if found == fault), "{fault:?}");
    }
}

#[test]
fn virtual_ops_equal_the_reference_for_first_and_last_elements() {
    let toy = Toy::new(&ToyOptions::default()).unwrap();
    let job = toy.job(4, &[3, 20, 9]);
    let expected = reference::run(&toy.model, &toy.weights, &job).unwrap();
    let model = engine(&toy, Simd::Auto, 2);
    let mut expanded = 0;
    for layer in 0..toy.model.layer_count() {
        for op in 0..toy.model.ops(layer).len() as u32 {
            let elements = expected.op(layer, op).unwrap().len() as u64 / 4;
            for element in [0, elements / 2, elements - 1] {
                match reference::virtual_ops(&toy.model, &job, &expected, layer, op, element) {
                    Some(expected) => {
                        let found = model.virtual_ops(&job, layer, op, element, None).unwrap();
                        assert_eq!(found, expected, "layer {layer}, op {op}, element {element}");
                        expanded += 1;
                    }
                    None => {
                        let refused = model.virtual_ops(&job, layer, op, element, None);
                        assert!(matches!(refused, Err(RunError::NotExpanded { .. })));
                    }
                }
            }
        }
    }
    assert!(expanded >= 4, "only {expanded} elements were expanded");
}

#[test]
fn a_fault_shows_in_the_last_virtual_op_only() {
    let toy = Toy::new(&ToyOptions::default()).unwrap();
    let job = toy.job(4, &[20]);
    let model = engine(&toy, Simd::Auto, 1);
    let is_attention = |op: &gainsay_program::Op| op.kind.name() == "attention";
    let op = toy.model.ops(1).iter().position(is_attention).unwrap() as u32;
    let fault = Fault::FlipBit { layer: 1, op, element: 77, bit: 22 };
    let honest = model.virtual_ops(&job, 1, op, 77, None).unwrap();
    let faulty = model.virtual_ops(&job, 1, op, 77, Some(&fault)).unwrap();
    assert_eq!(honest[..3], faulty[..3]);
    assert_ne!(honest[3], faulty[3]);
}

/// Of two maps of the same weights, only one may run with activations of eight bits.
#[test]
fn linear_maps_that_share_weights_keep_their_own_activations() {
    let options = ToyOptions { arithmetic: ArithmeticProfile::ExactInt8V1, ..ToyOptions::default() };
    let mut toy = Toy::new(&options).unwrap();
    let mut manifest = toy.model.manifest().clone();
    let ops = &mut manifest.program.layers[1].ops;
    let linear = ops.iter().find(|op| matches!(op.kind, OpKind::Linear(_))).unwrap().clone();
    let OpKind::Linear(LinearKind::Int8 { group, .. }) = linear.kind else { panic!("an int8 toy") };
    let finer = LinearKind::Int8 { group, activation_bits: ActivationBits::Sixteen };
    let last = ops.len() as u32 - 1;
    let sum = [last + 1, last].map(Operand::Op).to_vec();
    ops.push(Op { kind: OpKind::Linear(finer), ..linear });
    ops.push(Op { kind: OpKind::Add, inputs: sum });
    toy.model = manifest.validate().unwrap();
    let job = toy.job(1, &[9, 2]);
    let expected = reference::run(&toy.model, &toy.weights, &job).unwrap();
    for model in engines(&toy) {
        assert_agrees(&model, &job, &expected, None);
    }
}

#[test]
fn wrong_weights_are_refused() {
    let toy = Toy::new(&ToyOptions::default()).unwrap();
    let load = |weights| Model::new(Arc::new(toy.model.clone()), weights, Options::default());
    let mut changed = toy.weights.clone();
    changed[3][0] ^= 1;
    let changed: Vec<Arc<[u8]>> = changed.into_iter().map(Arc::from).collect();
    assert!(matches!(load(changed), Err(LoadError::Weight(_))));
    let mut short = weights(&toy);
    short.pop();
    assert!(matches!(load(short), Err(LoadError::WeightCount { .. })));
}

#[test]
fn jobs_that_do_not_fit_are_refused_by_number() {
    let toy = Toy::new(&ToyOptions::default()).unwrap();
    let model = engine(&toy, Simd::Auto, 1);
    let unknown = JobInput::new([[u32::MAX]]).unwrap();
    let refused = model.run(&[toy.job(1, &[2]), unknown], None);
    assert!(matches!(refused, Err(RunError::Job { job: 1, .. })));
    assert!(matches!(model.layer_ops(&toy.job(1, &[2]), 99, None), Err(RunError::NoSuchLayer(99))));
    assert!(model.run(&[], None).unwrap().is_empty());
}

#[test]
fn what_takes_more_memory_than_allowed_is_refused() {
    let toy = Toy::new(&ToyOptions::default()).unwrap();
    let load = |weights_of, memory| {
        Model::new(
            Arc::new(toy.model.clone()),
            weights(&toy),
            Options { weights: weights_of, memory, threads: 1, ..Options::default() },
        )
    };
    let needed = toy.model.weight_memory();
    assert!(matches!(load(needed - 1, u64::MAX), Err(LoadError::Memory { .. })));
    let model = load(needed, needed).unwrap();
    let (small, large) = (toy.job(1, &[3]), toy.job(1, &[32; 200]));
    assert!(toy.model.job_memory(&small) <= needed && toy.model.job_memory(&large) > needed);
    assert!(model.run(std::slice::from_ref(&small), None).is_ok());
    let refused = model.run(&[small, large.clone()], None);
    let too_large = |source: &JobRefusal| matches!(source, JobRefusal::Memory { .. });
    assert!(matches!(refused, Err(RunError::Job { job: 1, source }) if too_large(&source)));
    let refused = model.layer_ops(&large, 0, None);
    assert!(matches!(refused, Err(RunError::Job { job: 0, source }) if too_large(&source)));
}
