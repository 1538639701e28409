//! Generations: the same claim whatever shares the steps, and the same as the reference executor's.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/decoder.rs"]
mod decoder;
#[path = "support/mod.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use decoder::Decoder;
use gainsay_commitment::tensor::tensor_commitment;
use gainsay_engine::measure::measure;
use gainsay_engine::{
    Fault, JoinRefusal, Model, Options, Progress, RunError, Runner, RunnerOptions, Simd, Trace, Work,
};
use gainsay_program::{
    Dtype, GenerationRequest, JobInput, KvDtype, OpKind, Sampling, StopRules, ValidatedModel, reference,
};
use support::Random;

type Weights = Vec<Arc<[u8]>>;

fn load((model, weights): &(Arc<ValidatedModel>, Weights), simd: Simd, threads: usize) -> Model {
    let options = Options { threads, simd, ..Options::default() };
    Model::new(Arc::clone(model), weights.clone(), options).unwrap()
}

fn engines(built: &(Arc<ValidatedModel>, Weights)) -> Vec<Model> {
    let all = Simd::available_for_floats().into_iter().flat_map(|simd| [1, 2].map(|threads| (simd, threads)));
    all.map(|(simd, threads)| load(built, simd, threads)).collect()
}

fn options(rows_per_step: usize, prefill_chunk: usize) -> RunnerOptions {
    RunnerOptions { rows_per_step, prefill_chunk, cache_bytes: 64 << 20 }
}

fn tokens(output: &[u8]) -> Vec<u32> {
    output.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect()
}

fn unstopped(request: GenerationRequest) -> Work {
    Work::Generate { request, stop: Box::new(|_| false) }
}

/// The trace of one request that runs alone.
fn alone(model: &Model, request: &GenerationRequest, fault: Option<Fault>, options: RunnerOptions) -> Trace {
    let mut runner = Runner::new(model.clone(), options);
    runner.join_with((), unstopped(request.clone()), fault).unwrap();
    let mut streamed = Vec::new();
    loop {
        for progress in runner.step().unwrap() {
            match progress {
                Progress::Token { token, .. } => streamed.push(token),
                Progress::Done { trace, .. } => {
                    assert!(runner.is_empty() && runner.free_bytes() == options.cache_bytes);
                    assert_eq!(tokens(&trace.output), streamed);
                    return trace;
                }
                Progress::Failed { error, .. } => panic!("{error}"),
            }
        }
    }
}

fn request(random: &mut Random, vocabulary: u32, prompt: usize, max_tokens: u32) -> GenerationRequest {
    let mut below = |limit: u32| (random.next_u64() % u64::from(limit)) as u32;
    let prompt = (0..prompt).map(|_| below(vocabulary)).collect();
    let sampling = match below(3) {
        0 => Sampling::default(),
        kind => Sampling {
            temperature: 0.7,
            top_k: 1 + below(80),
            top_p: 0.95,
            min_p: 0.01,
            repetition_penalty: if kind == 1 { 1.3 } else { 1.0 },
            presence_penalty: if kind == 1 { 0.4 } else { 0.0 },
            frequency_penalty: if kind == 1 { 0.2 } else { 0.0 },
            logit_bias: if kind == 1 { vec![(3, 1.5), (7, -100.0)] } else { Vec::new() },
            seed: u64::from(below(1000)) << 30,
            choice: below(4),
        },
    };
    GenerationRequest { prompt, sampling, stop: StopRules::max_tokens(max_tokens) }
}

fn job_of(request: &GenerationRequest, trace: &Trace) -> JobInput {
    JobInput::generation(&request.prompt, &tokens(&trace.output), request.sampling.clone()).unwrap()
}

#[test]
fn every_op_equals_the_reference_whether_fed_or_generated() {
    for (kv_dtype, dtype) in [(KvDtype::Bf16, Dtype::F32), (KvDtype::F32, Dtype::Bf16)] {
        let built = Decoder { kv_dtype, dtype, ..Decoder::small() }.build();
        let mut random = Random(7);
        for (prompt, answer) in [(1, 1), (1, 20), (23, 9)] {
            let request = request(&mut random, 60, prompt, answer);
            let mut first: Option<(Trace, reference::Trace)> = None;
            for model in engines(&built) {
                let trace = alone(&model, &request, None, options(8, 5));
                let job = job_of(&request, &trace);
                let (expected_trace, expected) = first.get_or_insert_with(|| {
                    (trace.clone(), reference::run(&built.0, &built.1, &job).unwrap())
                });
                assert_eq!(trace, *expected_trace, "{model:?}");
                assert_eq!(trace.output, expected.answer(), "{model:?}");
                let checked = model.run(std::slice::from_ref(&job), None).unwrap();
                assert_eq!(checked, std::slice::from_ref(&trace), "{model:?}");
                for (layer, ops) in (0..).zip(expected.layers()) {
                    assert_eq!(&model.layer_ops(&job, layer, None).unwrap(), ops, "{model:?}, layer {layer}");
                    let last = ops.last().unwrap();
                    assert_eq!(&model.layer_output(&job, layer, None).unwrap(), last);
                    assert_eq!(trace.layers[layer as usize], tensor_commitment(last));
                }
            }
        }
    }
}

#[test]
fn virtual_ops_of_causal_attention_equal_the_reference() {
    let built = Decoder::small().build();
    let request = request(&mut Random(3), 60, 25, 10);
    let model = load(&built, Simd::Auto, 2);
    let job = job_of(&request, &alone(&model, &request, None, options(64, 64)));
    let expected = reference::run(&built.0, &built.1, &job).unwrap();
    let attention = |op: &gainsay_program::Op| matches!(op.kind, OpKind::Attention { .. });
    let op = built.0.ops(1).iter().position(attention).unwrap() as u32;
    let width = u64::from(built.0.output_type(1, op).unwrap().width);
    let mut expanded = 0;
    for element in [0, 15 * width, 16 * width + 30, 20 * width + 13, 34 * width - 1] {
        let reference = reference::virtual_ops(&built.0, &job, &expected, 1, op, element);
        let found = model.virtual_ops(&job, 1, op, element, None);
        match reference {
            Some(reference) => {
                assert_eq!(found.unwrap(), reference, "element {element}");
                expanded += 1;
            }
            None => assert!(matches!(found, Err(RunError::NotExpanded { .. })), "element {element}"),
        }
    }
    assert_eq!(expanded, 3);
}

/// Prompts longer than a page, in portions of every size and with answers that cross into the next.
#[test]
fn portions_of_prompts_change_nothing() {
    let built = Decoder::small().build();
    let request = request(&mut Random(11), 60, 140, 130);
    let mut expected: Option<Trace> = None;
    for (model, chunk) in engines(&built).into_iter().skip(2).zip([1, 3, 16, 64, 140, 7].into_iter().cycle())
    {
        for chunk in [chunk, 140] {
            let trace = alone(&model, &request, None, options(200, chunk));
            let expected = expected.get_or_insert_with(|| trace.clone());
            assert_eq!(trace, *expected, "{model:?}, chunks of {chunk}");
        }
    }
    let expected = expected.unwrap();
    let model = load(&built, Simd::Auto, 2);
    for chunk in [1, 3, 16, 64] {
        assert_eq!(alone(&model, &request, None, options(200, chunk)), expected, "chunks of {chunk}");
    }
    assert_eq!(model.run(&[job_of(&request, &expected)], None).unwrap(), [expected]);
}

/// Jobs that come, go and are dropped at any step, in steps and portions of any size.
#[test]
fn neighbours_change_nothing() {
    let seed = std::env::var("GAINSAY_SEED").map_or_else(
        |_| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        |seed| seed.parse().unwrap(),
    );
    println!("GAINSAY_SEED={seed}");
    let built = Decoder::small().build();
    let mut random = Random(seed);
    let requests: Vec<_> = (0..10)
        .map(|_| {
            let (prompt, answer) = (1 + random.next_u64() as usize % 90, 1 + random.next_u64() as u32 % 40);
            request(&mut random, 60, prompt, answer)
        })
        .collect();
    let model = load(&built, Simd::Auto, 1);
    let expected: Vec<_> = requests.iter().map(|it| alone(&model, it, None, options(300, 300))).collect();
    let jobs: Vec<_> =
        requests.iter().zip(&expected).map(|(request, trace)| job_of(request, trace)).collect();
    assert_eq!(model.run(&jobs, None).unwrap(), expected, "checked together, seed {seed}");
    for simd in [Simd::Auto, Simd::Avx2]
        .into_iter()
        .filter(|simd| *simd == Simd::Auto || Simd::available().contains(simd))
    {
        for threads in [1, 3] {
            let model = load(&built, simd, threads);
            let rows = 1 + random.next_u64() as usize % 40;
            let chunk = 1 + random.next_u64() as usize % 64;
            let what = format!("seed {seed}, {simd}, {threads} threads, {rows} rows, chunks of {chunk}");
            mix(&model, options(rows, chunk), &mut random, (&requests, &jobs, &expected), &what);
        }
    }
}

/// Runs every request and every check of one together, and drops some.
fn mix(
    model: &Model,
    options: RunnerOptions,
    random: &mut Random,
    (requests, jobs, expected): (&[GenerationRequest], &[JobInput], &[Trace]),
    what: &str,
) {
    let mut runner = Runner::new(model.clone(), options);
    let works = requests.len() + jobs.len() + 4;
    let mut waiting: Vec<usize> = (0..works).collect();
    let (mut found, mut streamed) = (BTreeMap::new(), BTreeMap::<usize, Vec<u32>>::new());
    let mut cancelled = 0;
    while !(waiting.is_empty() && runner.is_empty()) {
        while !waiting.is_empty() && (runner.is_empty() || random.next_u64().is_multiple_of(3)) {
            let key = waiting.swap_remove(random.next_u64() as usize % waiting.len());
            let work = match key.checked_sub(requests.len()) {
                Some(job) if job < jobs.len() => Work::Encode(jobs[job].clone()),
                _ => unstopped(requests[key % requests.len()].clone()),
            };
            runner.join(key, work).unwrap();
        }
        // The last of the keys are there to be dropped.
        if random.next_u64().is_multiple_of(5) {
            let key = works - 1 - random.next_u64() as usize % 4;
            cancelled += usize::from(runner.cancel(&key));
        }
        for progress in runner.step().unwrap() {
            match progress {
                Progress::Token { key, token } => streamed.entry(key).or_default().push(token),
                Progress::Done { key, trace } => {
                    assert!(found.insert(key, trace).is_none(), "{what}");
                }
                Progress::Failed { key, error } => panic!("job {key} failed: {error}; {what}"),
            }
        }
    }
    assert_eq!(runner.free_bytes(), options.cache_bytes, "{what}");
    assert!(found.len() + cancelled == works, "{what}");
    for (key, trace) in found {
        let expected = &expected[key % requests.len()];
        assert!(trace == *expected, "job {key} differs; {what}");
        if !(requests.len()..requests.len() + jobs.len()).contains(&key) {
            assert_eq!(streamed[&key], tokens(&expected.output), "{what}");
        }
    }
}

#[test]
fn an_answer_ends_where_it_is_told_to() {
    let built = Decoder::small().build();
    let model = load(&built, Simd::Auto, 1);
    let request = request(&mut Random(5), 60, 9, 30);
    let whole = tokens(&alone(&model, &request, None, options(64, 64)).output);
    let mut runner = Runner::new(model.clone(), options(64, 64));
    let mut seen = 0;
    let stop = Box::new(move |_| {
        seen += 1;
        seen == 11
    });
    runner.join("eleven", Work::Generate { request: request.clone(), stop }).unwrap();
    let panics = Box::new(|_| panic!("a fault of whoever watches"));
    runner.join("panics", Work::Generate { request: request.clone(), stop: panics }).unwrap();
    let mut results = BTreeMap::new();
    while !runner.is_empty() {
        for progress in runner.step().unwrap() {
            match progress {
                Progress::Done { key, trace } => drop(results.insert(key, Some(trace))),
                Progress::Failed { key, error: RunError::Stop } => drop(results.insert(key, None)),
                Progress::Token { key, .. } => assert_eq!(key, "eleven"),
                Progress::Failed { error, .. } => panic!("{error}"),
            }
        }
    }
    assert_eq!(results["panics"], None, "what watches one answer ends that one alone");
    let trace = results["eleven"].clone().unwrap();
    assert_eq!(tokens(&trace.output), whole[..11]);
    let shorter = GenerationRequest { stop: StopRules::max_tokens(11), ..request };
    assert_eq!(trace, alone(&model, &shorter, None, options(3, 2)), "how it ends is not in the trace");
}

/// A panic of the engine on one job fails that job alone, and its neighbours' claims and streams are what they would be.
#[test]
fn a_panic_on_one_job_costs_its_neighbours_nothing_but_time() {
    let built = Decoder::small().build();
    let model = load(&built, Simd::Auto, 2);
    let mut random = Random(31);
    let requests: Vec<_> =
        [(30, 12), (5, 25), (90, 3)].map(|(prompt, answer)| request(&mut random, 60, prompt, answer)).into();
    let expected: Vec<_> = requests.iter().map(|it| alone(&model, it, None, options(64, 64))).collect();
    let check = job_of(&requests[0], &expected[0]);
    // In the prompt; in the middle of the answer; at its last row.
    for (row, streamed_by_the_bad) in [(2, 0), (35, 6), (40, 11)] {
        let bad = Fault::Panic { layer: 2, row };
        let mut runner = Runner::new(model.clone(), options(48, 16));
        runner.join(0, unstopped(requests[0].clone())).unwrap();
        runner.join_with(1, unstopped(requests[0].clone()), Some(bad)).unwrap();
        runner.join(2, unstopped(requests[1].clone())).unwrap();
        runner.join(3, unstopped(requests[2].clone())).unwrap();
        runner.join(4, Work::Encode(check.clone())).unwrap();
        let (mut found, mut streamed) = (BTreeMap::new(), BTreeMap::<i32, Vec<u32>>::new());
        let mut failed = Vec::new();
        while !runner.is_empty() {
            for progress in runner.step().unwrap() {
                match progress {
                    Progress::Token { key, token } => streamed.entry(key).or_default().push(token),
                    Progress::Done { key, trace } => drop(found.insert(key, trace)),
                    Progress::Failed { key, error } => failed.push((key, error.to_string())),
                }
            }
        }
        let [(1, why)] = &failed[..] else { panic!("row {row}: {failed:?}") };
        assert!(why.contains("the engine has panicked") && why.contains(&format!("row {row}")), "{why}");
        assert_eq!(streamed.get(&1).map_or(0, Vec::len), streamed_by_the_bad, "row {row}");
        for (key, trace) in [(0, &expected[0]), (2, &expected[1]), (3, &expected[2]), (4, &expected[0])] {
            assert_eq!(&found[&key], trace, "row {row}, job {key}");
            let told = streamed.get(&key).cloned().unwrap_or_default();
            assert_eq!(
                told,
                if key == 4 { Vec::new() } else { tokens(&trace.output) },
                "row {row}, job {key}"
            );
        }
        assert_eq!(runner.free_bytes(), options(48, 16).cache_bytes);
        // Whoever runs it at once is told, too, and the model goes on.
        let ran = model.run(std::slice::from_ref(&check), Some(&bad));
        assert!(matches!(ran, Err(RunError::Panicked(_))), "{ran:?}");
        assert_eq!(model.run(std::slice::from_ref(&check), None).unwrap(), expected[..1]);
    }
}

#[test]
fn one_job_that_cannot_be_run_spoils_no_other() {
    let built = Decoder::small().build();
    let model = load(&built, Simd::Auto, 1);
    let request = request(&mut Random(3), 60, 9, 4);
    let expected = alone(&model, &request, None, options(64, 64));
    let unknown = JobInput::generation(&[1, 60, 2], &[5], Sampling::default()).unwrap();
    let good = job_of(&request, &expected);
    let [first, refused, last] = &model.run_each(&[good.clone(), unknown, good])[..] else {
        panic!("three jobs")
    };
    assert_eq!((first.as_ref().unwrap(), last.as_ref().unwrap()), (&expected, &expected));
    assert!(matches!(refused, Err(RunError::Job { .. })), "{refused:?}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let built = Decoder::small().build();
    let model = load(&built, Simd::Auto, 1);
    let mut random = Random(8);
    let mut ask = |prompt, answer| unstopped(request(&mut random, 60, prompt, answer));
    // One page, for up to 128 tokens: two blocks of two heads of twelve columns, twice, in 16 bits.
    let page = 2 * 2 * 12 * 2 * 128 * 2 + 128;
    let small = RunnerOptions { cache_bytes: 2 * page, ..options(16, 16) };
    let mut runner = Runner::new(model, small);
    assert!(matches!(runner.join(0, ask(301, 1)), Err(JoinRefusal::Job(_))), "beyond the longest sequence");
    let refused = runner.join(0, ask(200, 101));
    assert_eq!(refused, Err(JoinRefusal::Cache { bytes: 3 * page, allowed: 2 * page }));
    runner.join(1, ask(100, 29)).unwrap();
    assert_eq!(runner.join(1, ask(1, 1)), Err(JoinRefusal::KeyInUse));
    assert_eq!(runner.check(&ask(100, 30)), Err(JoinRefusal::Full { bytes: 2 * page, free: page }));
    assert_eq!(runner.join(2, ask(100, 30)), Err(JoinRefusal::Full { bytes: 2 * page, free: page }));
    runner.join(2, ask(100, 1)).unwrap();
    assert!(runner.cancel(&1) && !runner.cancel(&1));
    assert_eq!((runner.len(), runner.free_bytes()), (1, page));
    while !runner.is_empty() {
        runner.step().unwrap();
    }
    runner.join(3, ask(100, 30)).unwrap();
}

/// A claim of a generation that a fault has struck is what the same fault makes of the job that is told its answer: so
/// whoever has cheated can show the layers that were committed to.
#[test]
fn faults_strike_a_generation_as_they_strike_its_check() {
    let built = Decoder::small().build();
    let model = load(&built, Simd::Auto, 2);
    let request = request(&mut Random(21), 60, 30, 12);
    let honest = alone(&model, &request, None, options(64, 64));
    let other = (tokens(&honest.output)[5] + 1) % 60;
    let width = u64::from(built.0.output_type(1, 0).unwrap().width);
    let cast = built.0.ops(2).iter().position(|op| op.kind == OpKind::CastBf16).unwrap() as u32;
    let faults = [
        (Fault::Token { answer: 5, token: other }, true),
        (Fault::Token { answer: 11, token: 59 - tokens(&honest.output)[11] }, true),
        (Fault::FlipBit { layer: 3, op: 4, element: 3, bit: 5 }, true),
        (Fault::FlipBit { layer: 1, op: 0, element: 33 * width + 2, bit: 30 }, true),
        (Fault::FlipBit { layer: 2, op: cast, element: 7, bit: 2 }, true),
        (Fault::SkipLayer { layer: 2 }, true),
        (Fault::FlipBit { layer: 1, op: 0, element: 41 * width, bit: 30 }, false),
    ];
    for (fault, strikes) in faults {
        let found = alone(&model, &request, Some(fault), options(16, 7));
        assert_eq!(found != honest, strikes, "{fault:?}");
        let job = job_of(&request, &found);
        let shown = model.run(std::slice::from_ref(&job), Some(&fault)).unwrap().remove(0);
        assert_eq!(shown, found, "{fault:?}");
        for (layer, commitment) in (0..).zip(&found.layers) {
            let ops = model.layer_ops(&job, layer, Some(&fault)).unwrap();
            assert_eq!(tensor_commitment(ops.last().unwrap()), *commitment, "{fault:?}, layer {layer}");
        }
        assert!(!strikes || model.run(&[job], None).unwrap()[0] != found, "{fault:?} can be told");
    }
    // A faulty job leaves its neighbours alone.
    let mut runner = Runner::new(model.clone(), options(64, 64));
    runner.join_with(0, unstopped(request.clone()), Some(faults[0].0)).unwrap();
    runner.join(1, unstopped(request.clone())).unwrap();
    while !runner.is_empty() {
        for progress in runner.step().unwrap() {
            if let Progress::Done { key, trace } = progress {
                assert_eq!(trace == honest, key == 1);
            }
        }
    }
    // The tokens of another model, under this model's layers.
    let answer: Vec<u32> = (0..12).map(|i| (i * 7) % 60).collect();
    let job = JobInput::generation(&request.prompt, &answer, request.sampling.clone()).unwrap();
    let found = model.run(std::slice::from_ref(&job), Some(&Fault::TokensAsGiven)).unwrap().remove(0);
    let honest = model.run(&[job], None).unwrap().remove(0);
    assert_eq!(tokens(&found.output)[..11], answer[..11]);
    assert_eq!(found.layers[..3], honest.layers[..3]);
    assert_ne!(found.layers[3], honest.layers[3]);
}

#[test]
fn a_measured_generation_is_checked() {
    let built = Decoder::small().build();
    let model = load(&built, Simd::Auto, 1);
    let request = request(&mut Random(2), 60, 16, 32);
    let measured = measure(&model, &request, 1).unwrap();
    assert_eq!(measured.trace, alone(&model, &request, None, options(64, 64)));
    assert_eq!(measured.job.answer_count(), 32);
}
