//! Language models: `element` against the reference executor, and what a request may ask.

use gainsay_program::toy::{DecoderOptions, Toy, ToyOptions};
use gainsay_program::{
    ActivationBits, ArithmeticProfile, Dtype, GenerationRequest, JobError, JobInput, KvDtype, Manifest,
    ManifestError, OpKind, Operand, RequestError, Sampling, StopRules, reference, weights,
};
use proptest::prelude::*;

use crate::common::assert_agrees;
use crate::witness_table;

fn decoder_options() -> impl Strategy<Value = DecoderOptions> {
    let arithmetic = prop_oneof![Just(ArithmeticProfile::ExactF32V1), Just(ArithmeticProfile::ExactInt8V1)];
    let activation_bits = prop_oneof![Just(ActivationBits::Eight), Just(ActivationBits::Sixteen)];
    let dtype = prop_oneof![Just(Dtype::F32), Just(Dtype::Bf16), Just(Dtype::F16)];
    let kv_dtype = prop_oneof![Just(KvDtype::F32), Just(KvDtype::Bf16)];
    let kinds = (arithmetic, activation_bits, dtype, kv_dtype, any::<bool>(), any::<bool>());
    let sizes = (1..=3_u32, 1..=2_u32, 1..=3_u32, 1..=12_u32, 1..=2_u32, 1..=2_u32, 1..=40_u32, 0..=10_u32);
    (any::<u64>(), kinds, sizes).prop_map(|(seed, kinds, sizes)| {
        let (arithmetic, activation_bits, dtype, kv_dtype, ornate, tied) = kinds;
        let (half_head, kv_heads, heads_per_kv, intermediate, blocks, blocks_per_layer, vocabulary, expand) =
            sizes;
        DecoderOptions {
            seed,
            arithmetic,
            activation_bits,
            dtype,
            kv_dtype,
            half_head,
            kv_heads,
            heads_per_kv,
            intermediate,
            blocks,
            blocks_per_layer,
            vocabulary,
            max_sequence: 16,
            expand_from_rows: expand,
            ornate,
            tied,
        }
    })
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let bias = prop::collection::btree_map(0..40_u32, -9.0..9.0_f32, 0..4);
    let penalties = (0.5..2.0_f32, -2.0..2.0_f32, -2.0..2.0_f32);
    let shares = (0.0..=1.0_f32, 0.0..=1.0_f32);
    (0.0..3.0_f32, 1..=1024_u32, shares, penalties, bias, any::<u64>(), any::<u32>()).prop_map(
        |(temperature, top_k, (top_p, min_p), penalties, bias, seed, choice)| Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty: penalties.0,
            presence_penalty: penalties.1,
            frequency_penalty: penalties.2,
            logit_bias: bias.into_iter().collect(),
            seed,
            choice,
        },
    )
}

fn toy() -> Toy {
    Toy::decoder(&DecoderOptions::default()).expect("a small model")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_element_is_what_the_reference_computes(
        options in decoder_options(),
        sampling in sampling(),
        seed: u64,
        (prompt, answer) in (1..=8_u32, 1..=8_u32),
    ) {
        let toy = Toy::decoder(&options).expect("all sizes are at least 1");
        let tokens = toy.tokens(seed, prompt + answer);
        let (prompt, answer) = tokens.split_at(prompt as usize);
        let job = JobInput::generation(prompt, answer, sampling).expect("a generation");
        assert_agrees(&toy.model, &toy.weights, &job);
    }

    /// What makes one prefill enough: a run over prompt and answer draws the tokens that were drawn one at a time.
    #[test]
    fn one_run_over_prompt_and_answer_draws_the_same_tokens(sampling in sampling(), seed: u64, count in 1..=6_u32) {
        let toy = toy();
        let prompt = toy.tokens(seed, 5);
        let answer = toy.generate(&prompt, &sampling, count).expect("it runs");
        let job = JobInput::generation(&prompt, &answer, sampling).expect("a generation");
        let trace = reference::run(&toy.model, &toy.weights, &job).expect("it runs");
        let bytes: Vec<u8> = answer.iter().flat_map(|token| token.to_le_bytes()).collect();
        prop_assert_eq!(trace.answer(), bytes);
    }

    #[test]
    fn requests_survive_a_round_trip(sampling in sampling(), max_tokens in 1..9_u32, ignore_eos: bool) {
        use gainsay_commitment::encoding::{Decoder, Encoder};
        let stop = StopRules { max_tokens, stop: vec![b"stop".to_vec(), vec![0xff]], ignore_eos };
        let request = GenerationRequest { prompt: vec![1, u32::MAX], sampling, stop };
        let mut encoder = Encoder::new();
        request.encode(&mut encoder);
        let bytes = encoder.into_bytes();
        let mut decoder = Decoder::new(&bytes);
        prop_assert_eq!(GenerationRequest::decode(&mut decoder), Ok(request));
        prop_assert!(decoder.finish().is_ok());
    }
}

#[test]
fn rows_of_an_answer_belong_to_the_tokens_before_them() {
    let job = JobInput::generation(&[1, 2, 3], &[4, 5], Sampling::default()).expect("a generation");
    assert_eq!(job.token_ids(), [1, 2, 3, 4], "the last token is no input");
    assert_eq!((job.token_count(), job.answer_count()), (4, 2));
    assert_eq!([0, 1, 2].map(|row| job.token_of_answer(row)), [Some(2), Some(3), None]);
    let empty = |prompt: &[u32], answer: &[u32]| JobInput::generation(prompt, answer, Sampling::default());
    assert_eq!(empty(&[1], &[]), Err(JobError::NoAnswer));
    assert_eq!(empty(&[], &[1]), Err(JobError::EmptySequence { sequence: 0 }));
}

#[test]
fn cached_keys_and_values_fit_into_sixteen_bits_where_the_manifest_says_so() {
    let toy = toy();
    let job = JobInput::generation(&toy.tokens(1, 6), &[1, 2, 3], Sampling::default()).expect("a generation");
    let trace = reference::run(&toy.model, &toy.weights, &job).expect("it runs");
    let attention = toy.model.ops(1).iter().find(|op| matches!(op.kind, OpKind::Attention { .. }));
    for input in &attention.expect("a block attends").inputs[1..] {
        let Operand::Op(op) = *input else { panic!("{input:?}") };
        let rows = weights::widen(Dtype::F32, trace.op(1, op).expect("the op has run"));
        assert!(rows.iter().all(|value| value.to_bits() & 0xffff == 0));
        assert!(rows.iter().any(|value| *value != 0.0));
    }
}

/// A language model that could not be run token by token, or whose tokens are not drawn last, is refused.
#[test]
fn programs_that_no_cache_can_run_are_refused() {
    let refused = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = toy().model.manifest().clone();
        change(&mut manifest);
        manifest.validate().expect_err("the change is refused")
    };
    let attention = |manifest: &mut Manifest, wanted: bool| {
        for op in manifest.program.layers.iter_mut().flat_map(|layer| &mut layer.ops) {
            if let OpKind::Attention { causal, .. } = &mut op.kind {
                *causal = wanted;
            }
        }
    };
    assert!(matches!(refused(&|m| attention(m, false)), ManifestError::Misplaced { .. }));
    let uncast = |manifest: &mut Manifest| {
        for layer in &mut manifest.program.layers {
            for op in &mut layer.ops {
                if op.kind == OpKind::CastBf16 {
                    op.kind = OpKind::Silu;
                }
            }
        }
    };
    assert!(matches!(refused(&uncast), ManifestError::Misplaced { .. }), "keys are not rounded as promised");
    assert_eq!(refused(&|m| m.generation = None), ManifestError::Output);
    let without_sample = |m: &mut Manifest| {
        m.program.layers.last_mut().expect("layers").ops.pop();
    };
    assert_eq!(refused(&without_sample), ManifestError::Output);
    for ids in [vec![5, 5], vec![7, 3], vec![50]] {
        let change =
            |m: &mut Manifest| m.generation.as_mut().expect("a language model").stop_ids = ids.clone();
        assert_eq!(refused(&change), ManifestError::StopIds, "{ids:?}");
    }
}

#[test]
fn encoders_take_sequences_and_language_models_take_prompts() {
    let (encoder, decoder) = (Toy::new(&ToyOptions::default()).expect("a small model"), toy());
    let sequences = JobInput::new([[1, 2]]).expect("one sequence");
    let generation = JobInput::generation(&[1, 2], &[3], Sampling::default()).expect("a generation");
    assert_eq!(encoder.model.check_job(&generation), Err(JobError::Kind { generates: false }));
    assert_eq!(decoder.model.check_job(&sequences), Err(JobError::Kind { generates: true }));
    let request = request(|_| {});
    assert_eq!(encoder.model.check_request(&request), Err(JobError::Kind { generates: false }));
    assert_eq!(decoder.model.check_request(&request), Ok(()));
}

fn request(change: impl FnOnce(&mut GenerationRequest)) -> GenerationRequest {
    let (sampling, stop) = (Sampling::default(), StopRules::max_tokens(4));
    let mut request = GenerationRequest { prompt: vec![1, 2], sampling, stop };
    change(&mut request);
    request
}

#[test]
fn a_request_fits_the_model_for_every_answer_that_it_allows() {
    let model = toy().model;
    let check = |change: fn(&mut GenerationRequest)| model.check_request(&request(change));
    assert_eq!(check(|r| r.stop.max_tokens = 31), Ok(()), "the last token is no input: 2 + 31 − 1 rows");
    let too_long = JobError::SequenceTooLong { sequence: 0, tokens: 33, max_sequence: 32 };
    assert_eq!(check(|r| r.stop.max_tokens = 32), Err(too_long));
    assert_eq!(check(|r| r.prompt.clear()), Err(JobError::EmptySequence { sequence: 0 }));
    assert!(matches!(check(|r| r.prompt[1] = 50), Err(JobError::UnknownToken { index: 1, id: 50, .. })));
    assert!(matches!(check(|r| r.sampling.logit_bias = vec![(50, 1.0)]), Err(JobError::UnknownToken { .. })));
    let refused = |change: fn(&mut GenerationRequest)| {
        assert!(matches!(check(change), Err(JobError::Request(_))), "{:?}", request(change));
    };
    refused(|r| r.stop.max_tokens = 0);
    refused(|r| r.stop.stop = vec![Vec::new()]);
    refused(|r| r.stop.stop = vec![vec![1]; 5]);
    refused(|r| r.stop.stop = vec![vec![1; 257]]);
    refused(|r| r.sampling.temperature = f32::NAN);
    refused(|r| r.sampling.temperature = -0.1);
    refused(|r| r.sampling.top_k = 0);
    refused(|r| r.sampling.top_k = 1025);
    refused(|r| r.sampling.top_p = 1.1);
    refused(|r| r.sampling.min_p = f32::INFINITY);
    refused(|r| r.sampling.repetition_penalty = 0.0);
    refused(|r| r.sampling.frequency_penalty = 101.0);
    refused(|r| r.sampling.logit_bias = vec![(3, 1.0), (3, 2.0)]);
    refused(|r| r.sampling.logit_bias = (0..1025).map(|id| (id, 0.0)).collect());
    let message = Sampling { top_p: 2.0, ..Sampling::default() }.check().expect_err("refused").to_string();
    assert_eq!(message, "top_p must be between 0 and 1");
    assert_eq!(
        StopRules::max_tokens(0).check().map_err(|error| matches!(error, RequestError::OutOfRange { .. })),
        Err(true)
    );
}

/// What a dispute may cost: a change of formats that breaks it must show.
#[test]
fn witnesses_and_moves_of_a_large_model_stay_within_their_bounds() {
    for row in witness_table::rows() {
        assert!(row.sample <= 5 * witness_table::VOCABULARY, "{row:?}");
        assert!(row.largest_but_sample() <= gainsay_program::MAX_WITNESS_BYTES, "{row:?}");
        if row.tokens <= 2048 {
            assert!(row.largest_but_sample() <= 256 << 10 && row.moves <= 8, "{row:?}");
        }
    }
}
