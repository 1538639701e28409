//! Models on a CUDA device: the traces, the tokens and the bytes of every op are the CPU's.
//!
//! The device is emulated unless `GAINSAY_CUDA_REAL_DRIVER` is set, so that all of it runs where there is none.

#![cfg(feature = "cuda")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/decoder.rs"]
mod decoder;
#[path = "../examples/gpu_check/shape.rs"]
#[expect(dead_code, reason = "shared with the check of a card")]
mod shape;
#[path = "support/mod.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod support;

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use decoder::Decoder;
use gainsay_cuda_emulator::{Driver, install};
use gainsay_engine::{
    DeviceChoice, DeviceError, DeviceInfo, Fault, Model, Options, Progress, RunError, Runner, RunnerOptions,
    Simd, Trace, Work, devices, self_test,
};
use gainsay_program::lowering::{LanguageFiles, LowerOptions, lower_language};
use gainsay_program::toy::{Toy, ToyOptions};
use gainsay_program::{
    ActivationBits, ArithmeticProfile, Dtype, GenerationRequest, JobInput, KvDtype, Sampling, StopRules,
    ValidatedModel,
};
use shape::{Matrices, Shape, TINY};
use support::{Random, job};

type Weights = Vec<Arc<[u8]>>;

/// The driver, for one test at a time: what it counts and how much memory it has are the process's.
fn driver() -> (MutexGuard<'static, ()>, Option<&'static Driver>) {
    static TURN: Mutex<()> = Mutex::new(());
    (TURN.lock().unwrap_or_else(PoisonError::into_inner), install())
}

/// The model on the device and on the CPU.
fn both(model: &Arc<ValidatedModel>, weights: &Weights) -> [Model; 2] {
    [DeviceChoice::Cuda(0), DeviceChoice::Cpu].map(|device| {
        let options = Options { threads: 1, device, ..Options::default() };
        Model::new(Arc::clone(model), weights.clone(), options).unwrap()
    })
}

fn toy(options: &ToyOptions) -> [Model; 2] {
    let toy = Toy::new(options).unwrap();
    let weights = toy.weights.iter().map(|bytes| Arc::from(&bytes[..])).collect();
    both(&Arc::new(toy.model), &weights)
}

#[test]
fn every_operator_passes_the_self_test() {
    let _driver = driver();
    let found = self_test(DeviceChoice::Cuda(0), Simd::Auto).unwrap();
    let cpu = self_test(DeviceChoice::Cpu, Simd::Auto).unwrap();
    assert_eq!(found.checks, cpu.checks);
    assert!(matches!(found.device, DeviceInfo::Cuda { index: 0, .. }), "{found:?}");
    assert_eq!(devices().unwrap()[0], found.device);
    let chosen = self_test(DeviceChoice::Auto, Simd::Auto).unwrap();
    assert_eq!((chosen.device, chosen.passed_over), (found.device, None));
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let _driver = driver();
    let error = self_test(DeviceChoice::Cuda(1000), Simd::Auto).unwrap_err();
    assert!(matches!(error, DeviceError::Absent { index: 1000, count: 1.. }), "{error}");
}

#[test]
fn encoders_give_the_bytes_of_the_cpu() {
    let _driver = driver();
    let int8 = ToyOptions { arithmetic: ArithmeticProfile::ExactInt8V1, ..ToyOptions::default() };
    let all = [
        ToyOptions::default(),
        ToyOptions { dtype: Dtype::Bf16, blocks_per_layer: 2, seed: 2, ..ToyOptions::default() },
        ToyOptions { dtype: Dtype::F16, head_dim: 20, heads: 3, intermediate: 130, ..ToyOptions::default() },
        int8.clone(),
        ToyOptions { activation_bits: ActivationBits::Sixteen, seed: 3, ..int8 },
    ];
    for options in all {
        let [cuda, cpu] = toy(&options);
        let jobs = [job(cpu.model(), 1, &[3, 9]), job(cpu.model(), 2, &[1])];
        let faults = [
            None,
            Some(Fault::FlipBit { layer: 1, op: 2, element: 7, bit: 30 }),
            Some(Fault::SkipLayer { layer: 1 }),
        ];
        for fault in &faults {
            let expected = cpu.run(&jobs, fault.as_ref()).unwrap();
            assert_eq!(cuda.run(&jobs, fault.as_ref()).unwrap(), expected, "{options:?}, {fault:?}");
        }
        for layer in 0..cpu.model().layer_count() {
            let expected = cpu.layer_ops(&jobs[0], layer, None).unwrap();
            assert_eq!(
                cuda.layer_ops(&jobs[0], layer, None).unwrap(),
                expected,
                "{options:?}, layer {layer}"
            );
        }
    }
}

fn requests(vocabulary: u32) -> Vec<GenerationRequest> {
    let mut random = Random(5);
    let drawn = Sampling {
        temperature: 0.8,
        top_k: 30,
        top_p: 0.95,
        min_p: 0.01,
        repetition_penalty: 1.2,
        presence_penalty: 0.3,
        frequency_penalty: 0.1,
        logit_bias: vec![(3, 1.5), (7, -100.0)],
        seed: 11,
        choice: 1,
    };
    [(1, Sampling::default()), (140, drawn.clone()), (9, drawn)]
        .map(|(len, sampling)| GenerationRequest {
            prompt: (0..len).map(|_| (random.next_u64() % u64::from(vocabulary)) as u32).collect(),
            sampling,
            stop: StopRules::max_tokens(4),
        })
        .into()
}

/// The traces of requests that run together; the second of them under a fault.
fn generate(model: &Model, requests: &[GenerationRequest], fault: Option<Fault>) -> Vec<Trace> {
    let options = RunnerOptions { rows_per_step: 64, prefill_chunk: 50, cache_bytes: 64 << 20 };
    let mut runner = Runner::new(model.clone(), options);
    for (key, request) in requests.iter().enumerate() {
        let work = Work::Generate { request: request.clone(), stop: Box::new(|_| false) };
        runner.join_with(key, work, fault.filter(|_| key == 1)).unwrap();
    }
    let mut traces = vec![None; requests.len()];
    while !runner.is_empty() {
        for progress in runner.step().unwrap() {
            match progress {
                Progress::Done { key, trace } => traces[key] = Some(trace),
                Progress::Failed { error, .. } => panic!("{error:?}"),
                Progress::Token { .. } => {}
            }
        }
    }
    traces.into_iter().map(Option::unwrap).collect()
}

#[test]
fn generations_are_those_of_the_cpu() {
    let _driver = driver();
    for (kv_dtype, dtype) in [(KvDtype::Bf16, Dtype::F32), (KvDtype::F32, Dtype::Bf16)] {
        let (model, weights) = Decoder { kv_dtype, dtype, ..Decoder::small() }.build();
        let [cuda, cpu] = both(&model, &weights);
        let requests = requests(60);
        for fault in [None, Some(Fault::FlipBit { layer: 1, op: 9, element: 30, bit: 3 })] {
            let expected = generate(&cpu, &requests, fault);
            assert_eq!(generate(&cuda, &requests, fault), expected, "{dtype:?}, {fault:?}");
            if fault.is_none() {
                let answer: Vec<u32> =
                    expected[1].output.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect();
                let sampling = requests[1].sampling.clone();
                let job = JobInput::generation(&requests[1].prompt, &answer, sampling).unwrap();
                assert_eq!(cuda.run(&[job], None).unwrap(), expected[1..2]);
            }
        }
    }
}

/// Steps of decoding are launched as graphs where they are like earlier ones: with any number of rows, while answers grow
/// over the ends of pages, and while others come and go.
#[test]
fn steps_that_are_graphs_give_the_bits_of_the_cpu() {
    let (_turn, driver) = driver();
    let small =
        [KvDtype::Bf16, KvDtype::F32].map(|kv_dtype| Decoder { kv_dtype, ..Decoder::small() }.build());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    let small = small.into_iter().chain([lowered(&folder.join("llama3"), ArithmeticProfile::ExactInt8V1)]);
    let small = small.map(|(model, weights)| both(&model, &weights));
    // By channel, and as wide as the kernels for few rows want: queries, keys and values are one launch.
    let wide = [DeviceChoice::Cuda(0), DeviceChoice::Cpu].map(|on| WIDE.load(Matrices::Int8(0), on).unwrap());
    for [cuda, cpu] in small.chain([wide]) {
        let name = &cpu.model().manifest().name;
        let mut all = requests(60);
        all.extend(requests(60).pop());
        for (request, (len, answer)) in all.iter_mut().zip([(125, 9), (3, 8), (1, 5), (127, 7)]) {
            request.prompt = (0..len).map(|at| (at * 7 + len) % 60).collect();
            request.stop = StopRules { ignore_eos: true, ..StopRules::max_tokens(answer) };
        }
        let before = driver.map(Driver::usage);
        assert_eq!(generate(&cuda, &all, None), generate(&cpu, &all, None), "{name}");
        // A second run finds graphs that were made in the first, and the pages of others.
        assert_eq!(generate(&cuda, &all[1..], None), generate(&cpu, &all[1..], None), "{name}");
        if let (Some(driver), Some(before)) = (driver, before) {
            let graphs = driver.usage().graphs - before.graphs;
            assert!(graphs > 4, "{graphs} steps were graphs");
        }
    }
}

/// Each captures its steps, on a stream that both have: as many are graphs as if it were alone.
#[test]
fn two_models_decode_on_a_device_at_once() {
    let (_turn, driver) = driver();
    let models = [1, 2, 3].map(|seed| Decoder { seed, ..Decoder::small() }.build());
    let [alone, two @ ..] = models.map(|(model, weights)| both(&model, &weights));
    let mut all = requests(60);
    all.iter_mut().for_each(|request| {
        request.prompt.truncate(9);
        request.stop = StopRules { ignore_eos: true, ..StopRules::max_tokens(12) };
    });
    let check = |[cuda, cpu]: &[Model; 2]| assert_eq!(generate(cuda, &all, None), generate(cpu, &all, None));
    let graphs = || driver.map_or(0, |driver| driver.usage().graphs);
    let before = graphs();
    check(&alone);
    let of_one = graphs() - before;
    std::thread::scope(|scope| two.iter().for_each(|models| drop(scope.spawn(|| check(models)))));
    assert_eq!(graphs() - before, 3 * of_one);
    assert!(driver.is_none() || of_one > 4, "{of_one} steps were graphs");
}

/// Wide enough for the kernels that multiply few rows of levels.
const WIDE: Shape = Shape { head_dim: 16, intermediate: 128, ..TINY };

/// Launches and waits of each step of an answer.
fn steps(driver: &Driver, model: Model) -> Vec<(u64, u64)> {
    let mut runner = Runner::new(model, RunnerOptions::default());
    let mut request = requests(60).remove(0);
    request.stop = StopRules { ignore_eos: true, ..StopRules::max_tokens(8) };
    runner.join(0, Work::Generate { request, stop: Box::new(|_| false) }).unwrap();
    let mut steps = Vec::new();
    while !runner.is_empty() {
        let before = driver.usage();
        runner.step().unwrap();
        let after = driver.usage();
        steps.push((after.launches - before.launches, after.waits - before.waits));
    }
    steps
}

#[test]
fn a_step_that_is_a_graph_is_one_launch() {
    let (_turn, Some(driver)) = driver() else { return };
    let (model, weights) = Decoder::small().build();
    let [cuda, _] = both(&model, &weights);
    let steps = steps(driver, cuda);
    println!("launches and waits by step: {steps:?}");
    assert!(steps[0].0 > 20, "the first of its kind: {steps:?}");
    assert!(steps[3..7].iter().all(|&step| step == (1, 1)), "{steps:?}");
}

/// Queries, keys and values of a block are one launch where there is a kernel for that: not for groups of sixteen.
#[test]
fn maps_that_read_the_same_levels_are_one_launch() {
    let (_turn, Some(driver)) = driver() else { return };
    let launches = |group| {
        let model = WIDE.load(Matrices::Int8(group), DeviceChoice::Cuda(0)).unwrap();
        steps(driver, model)[0].0
    };
    let (alone, together) = (launches(16), launches(0));
    println!("launches of a step of {} blocks: {alone} and {together}", WIDE.blocks);
    assert_eq!(alone - together, 2 * u64::from(WIDE.blocks));
}

/// The model of a family's fixture.
fn lowered(family: &Path, arithmetic: ArithmeticProfile) -> (Arc<ValidatedModel>, Weights) {
    let files = LanguageFiles::load(|name| Ok::<_, Infallible>(std::fs::read(family.join(name)).ok()));
    let options = LowerOptions { int8_group: 8, ..LowerOptions::new("small", arithmetic) };
    let lowered = lower_language(&files.unwrap(), &options).unwrap();
    let weights = lowered.weights.iter().map(|bytes| Arc::from(&bytes[..])).collect();
    (Arc::new(lowered.manifest.validate().unwrap()), weights)
}

/// Whatever a family asks of the program: its linear maps, norms and rotations, with 16-bit keys, and in int8.
#[test]
fn every_family_is_that_of_the_cpu() {
    let _driver = driver();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    let families = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut seen = 0;
    for family in families.filter(|path| path.is_dir()) {
        for arithmetic in ArithmeticProfile::ALL {
            let (model, weights) = lowered(&family, arithmetic);
            let [cuda, cpu] = both(&model, &weights);
            let sampling =
                Sampling { temperature: 0.8, seed: 3, presence_penalty: 0.5, ..Sampling::default() };
            let job = JobInput::generation(&[5, 6, 7, 8, 9], &[10, 11], sampling).unwrap();
            let jobs = std::slice::from_ref(&job);
            let expected = cpu.run(jobs, None).unwrap();
            assert_eq!(cuda.run(jobs, None).unwrap(), expected, "{family:?}, {}", arithmetic.name());
            seen += 1;
        }
    }
    assert!(seen >= 7 * ArithmeticProfile::ALL.len(), "all families are there");
}

#[test]
fn a_step_waits_for_the_device_a_few_times_whatever_its_layers() {
    let (_turn, Some(driver)) = driver() else { return };
    let waits = |blocks| {
        let [cuda, _] = toy(&ToyOptions { blocks, ..ToyOptions::default() });
        let jobs = [job(cuda.model(), 1, &[3])];
        let before = driver.usage().waits;
        cuda.run(&jobs, None).unwrap();
        driver.usage().waits - before
    };
    assert_eq!(waits(1), waits(3));
}

#[test]
fn a_job_that_the_device_has_no_memory_for_fails_alone() {
    let (_turn, Some(driver)) = driver() else { return };
    let [cuda, _] = toy(&ToyOptions::default());
    let job = job(cuda.model(), 1, &[30]);
    let before = driver.usage();
    driver.limit_memory(before.bytes + 8192);
    let refused = cuda.run(std::slice::from_ref(&job), None);
    driver.limit_memory(before.limit);
    assert!(matches!(refused, Err(RunError::OutOfMemory(_))), "{refused:?}");
    assert_eq!(driver.usage().bytes, before.bytes, "what a failed run took is given back");
    cuda.run(&[job], None).unwrap();
}
