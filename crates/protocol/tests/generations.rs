//! Claims over generations: each way to be wrong is convicted in a dispute or refused on receipt.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use gainsay_commitment::{Canonical, PartyId, tensor::tensor_commitment, trace_root};
use gainsay_program::toy::DecoderOptions;
use gainsay_program::{
    ArithmeticProfile, FinishReason, GenerationRequest, LengthFault, OpPlace, Sampling, StopRules, TokenBytes,
};
use gainsay_protocol::toy::{
    Credentials, Fixture, Game, GameOptions, GenerationBuilder, HonestChallenger, HonestWorker, Random, play,
};
use gainsay_protocol::{
    AnswerFault, Case, Cause, Claim, ClaimFault, Job, Reveals, Task, Verdict,
    strategy::{first_difference, rehearse},
};

/// Token `n` is the byte `n`.
struct Bytes;

impl TokenBytes for Bytes {
    fn bytes(&self, id: u32) -> &[u8] {
        const ALL: [u8; 256] = {
            let mut all = [0; 256];
            let mut byte = 0;
            while byte < 256 {
                all[byte] = byte as u8;
                byte += 1;
            }
            all
        };
        ALL.get(id as usize..=id as usize).unwrap_or(&[])
    }
}

const PROMPT: [u32; 7] = [3, 14, 15, 9, 26, 5, 35];

fn sampled() -> Sampling {
    Sampling {
        temperature: 0.9,
        top_p: 0.95,
        repetition_penalty: 1.1,
        presence_penalty: 0.2,
        logit_bias: vec![(7, 0.5)],
        seed: 42,
        ..Sampling::default()
    }
}

fn builder(sampling: Sampling) -> GenerationBuilder {
    let stop = StopRules { ignore_eos: true, ..StopRules::max_tokens(8) };
    GenerationBuilder::new(
        &DecoderOptions::default(),
        GenerationRequest { prompt: PROMPT.to_vec(), sampling, stop },
    )
}

fn int8() -> GenerationBuilder {
    let options = DecoderOptions {
        arithmetic: ArithmeticProfile::ExactInt8V1,
        ornate: true,
        tied: false,
        blocks_per_layer: 2,
        ..DecoderOptions::default()
    };
    let stop = StopRules { ignore_eos: true, ..StopRules::max_tokens(8) };
    GenerationBuilder::new(&options, GenerationRequest { prompt: PROMPT.to_vec(), sampling: sampled(), stop })
}

fn dispute(fixture: &Fixture, layer: u32) -> Game {
    let challenger = Credentials::Name(PartyId::from_bytes([9; 32]));
    let mut honest = HonestChallenger { credentials: challenger.clone(), trace: fixture.honest().clone() };
    let credentials = Credentials::Name(fixture.claim().worker);
    let mut worker = HonestWorker { credentials, trace: fixture.claimed().clone() };
    let own = fixture.honest().layers()[layer as usize];
    let players = (&mut worker as _, &mut honest as _);
    let options = GameOptions::default();
    let mut random = Random::new(1);
    play(fixture, layer, own, &challenger, players, &mut Reveals::new(), &options, &mut random).unwrap()
}

/// The place and element that an honest challenger proves.
fn convicted(fixture: &Fixture, what: &str) -> (OpPlace, u64) {
    let layer = first_difference(fixture.claim(), &fixture.honest().layers()).unwrap();
    let layer = layer.unwrap_or_else(|| panic!("{what} does not make the claim false"));
    let game = dispute(fixture, layer);
    assert_eq!(game.outcome.verdict, Verdict::ChallengerWins, "{what}: {:?}", game.outcome);
    match game.outcome.cause {
        Cause::Proof { place, element, .. } => (place, element),
        other => panic!("{what}: {other:?}"),
    }
}

/// What the coordinator says on receipt.
fn received(builder: &GenerationBuilder, fixture: &Fixture) -> Result<Option<FinishReason>, ClaimFault> {
    let (model, claim) = (builder.model().model(), fixture.claim());
    claim.check(model, fixture.job(), fixture.lease())?;
    claim.check_length(model, fixture.job(), &Bytes)
}

#[test]
fn an_honest_generation_is_accepted_and_every_op_of_it_confirmed_by_the_referee() {
    for builder in [builder(Sampling::default()), builder(sampled()), int8()] {
        let fixture = builder.claiming(&builder.answer(None), |_, _| {});
        assert!(fixture.is_true());
        assert_eq!(received(&builder, &fixture), Ok(Some(FinishReason::Length)));
        for layer in 0..builder.model().model().layer_count() {
            rehearse(&fixture.case(), layer, &mut fixture.honest().clone()).unwrap();
        }
    }
}

#[test]
fn a_wrong_token_anywhere_is_convicted_at_the_op_that_draws_it() {
    for builder in [builder(Sampling::default()), builder(sampled()), int8()] {
        let right = builder.answer(None);
        for index in 0..right.len() {
            let mut wrong = right.clone();
            wrong[index] = (wrong[index] + 1) % 50;
            let fixture = builder.claiming(&wrong, |_, _| {});
            assert!(received(&builder, &fixture).is_ok(), "nothing but a run tells a wrong token");
            let (place, element) = convicted(&fixture, &format!("a wrong token {index}"));
            assert_eq!((place, element), (builder.draw(), index as u64));
        }
    }
}

#[test]
fn a_flipped_bit_in_any_op_of_a_generation_is_convicted() {
    for builder in [builder(sampled()), int8()] {
        let (right, model) = (builder.answer(None), builder.model().model());
        let mut proven = 0;
        for layer in 0..model.layer_count() {
            for op in 0..model.ops(layer).len() as u32 {
                let wrong = OpPlace::in_layer(layer, op);
                let fixture = builder.claiming(&right, |place, bytes| {
                    if place == wrong {
                        let middle = bytes.len() / 8 * 4 + 2;
                        bytes[middle] ^= 0x40;
                    }
                });
                // Of the last layer nothing is committed to but the tokens, and these are right.
                if fixture.is_true() {
                    assert_eq!(layer, builder.draw().layer, "{wrong} changed nothing");
                    continue;
                }
                assert_eq!(convicted(&fixture, &wrong.to_string()).0.layer, layer);
                proven += 1;
            }
        }
        assert!(proven > 20, "only {proven} faults were proven");
    }
}

#[test]
fn a_changed_seed_or_parameter_is_convicted_wherever_it_changed_a_token() {
    let builder = builder(Sampling { temperature: 2.0, ..sampled() });
    let (asked, right) = (Sampling { temperature: 2.0, ..sampled() }, builder.answer(None));
    let others = [
        ("seed", Sampling { seed: 43, ..asked.clone() }),
        ("choice", Sampling { choice: 1, ..asked.clone() }),
        ("temperature", Sampling { temperature: 0.0, ..asked.clone() }),
        ("top_k", Sampling { top_k: 1, ..asked.clone() }),
        ("repetition penalty", Sampling { repetition_penalty: 100.0, ..asked.clone() }),
        ("bias", Sampling { logit_bias: vec![(7, 100.0)], ..asked }),
    ];
    for (name, sampling) in others {
        let cheap = builder.answer(Some(&sampling));
        assert_ne!(cheap, right, "another {name} draws other tokens here");
        let fixture = builder.claiming(&cheap, |_, _| {});
        assert_eq!(convicted(&fixture, name).0, builder.draw(), "{name}");
    }
}

/// The tokens of a cheaper model under the right model's activations.
#[test]
fn the_tokens_of_another_model_are_convicted() {
    let builder = builder(sampled());
    let stop = StopRules { ignore_eos: true, ..StopRules::max_tokens(8) };
    let request = GenerationRequest { prompt: PROMPT.to_vec(), sampling: sampled(), stop };
    let cheap =
        GenerationBuilder::new(&DecoderOptions { blocks: 1, seed: 2, ..DecoderOptions::default() }, request);
    let fixture = builder.claiming(&cheap.answer(None), |_, _| {});
    assert_eq!(convicted(&fixture, "another model's tokens").0, builder.draw());
}

#[test]
fn a_truncated_or_padded_answer_is_refused_on_receipt() {
    let builder = builder(sampled());
    let right = builder.answer(None);
    let short = builder.claiming(&right[..5], |_, _| {});
    assert!(short.is_true(), "every token of it is right");
    assert_eq!(received(&builder, &short), Err(ClaimFault::Length(LengthFault::TooShort { tokens: 5 })));

    let padded = [right.as_slice(), &[1]].concat();
    let claim = with_output(builder.claiming(&right, |_, _| {}).claim(), &padded);
    let fault = AnswerFault::TooLong { tokens: 9, max_tokens: 8 };
    assert_eq!(claim.check_content(builder.model().model(), &builder.job()), Err(fault.into()));
}

#[test]
fn an_answer_that_goes_on_after_its_end_is_refused_on_receipt() {
    let ends = |stop: Vec<Vec<u8>>, ignore_eos| {
        let stop = StopRules { max_tokens: 8, stop, ignore_eos };
        let request = GenerationRequest { prompt: PROMPT.to_vec(), sampling: sampled(), stop };
        GenerationBuilder::new(&DecoderOptions::default(), request)
    };
    let builder = ends(vec![vec![7, 8]], true);
    let fixture = builder.claiming(&[1, 7, 8, 2], |_, _| {});
    let fault = LengthFault::TooLong { end: 3, tokens: 4 };
    assert_eq!(received(&builder, &fixture), Err(ClaimFault::Length(fault)));
    let fixture = builder.claiming(&[1, 7, 8], |_, _| {});
    assert_eq!(received(&builder, &fixture), Ok(Some(FinishReason::StopString)));
    // Token 0 ends the toy's answers.
    let builder = ends(Vec::new(), false);
    let fixture = builder.claiming(&[1, 0, 2], |_, _| {});
    assert_eq!(
        received(&builder, &fixture),
        Err(ClaimFault::Length(LengthFault::TooLong { end: 2, tokens: 3 }))
    );
    assert_eq!(received(&builder, &builder.claiming(&[1, 0], |_, _| {})), Ok(Some(FinishReason::Eos)));
}

fn with_output(claim: &Claim, tokens: &[u32]) -> Claim {
    let output: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    let mut layers = claim.layers.clone();
    *layers.last_mut().unwrap() = tensor_commitment(&output);
    Claim { output, trace: trace_root(&layers).unwrap(), layers, ..claim.clone() }
}

#[test]
fn bytes_that_are_no_tokens_of_the_model_are_refused_on_receipt() {
    let builder = builder(sampled());
    let honest = builder.claiming(&builder.answer(None), |_, _| {});
    let check = |claim: &Claim| claim.check_content(builder.model().model(), &builder.job()).unwrap_err();
    let unknown = AnswerFault::UnknownToken { index: 2, id: 50, vocabulary: 50 };
    assert_eq!(check(&with_output(honest.claim(), &[1, 2, 50])), unknown.into());
    assert_eq!(check(&with_output(honest.claim(), &[])), AnswerFault::Form { bytes: 0 }.into());
    let odd = Claim { output: vec![1, 2, 3], ..honest.claim().clone() };
    assert_eq!(check(&odd), AnswerFault::Form { bytes: 3 }.into());
    let (model, job) = (builder.model().model(), builder.job());
    assert!(Case::new(model, &job, &odd).is_err());
}

#[test]
fn everything_about_a_generation_is_bound_by_its_commitment() {
    let job = builder(sampled()).job();
    assert_eq!(Job::from_bytes(&job.to_bytes()), Ok(job.clone()));
    let changes: [fn(&mut GenerationRequest); 9] = [
        |request| request.prompt[0] += 1,
        |request| request.sampling.seed += 1,
        |request| request.sampling.choice += 1,
        |request| request.sampling.temperature = -0.0,
        |request| request.sampling.top_k = 5,
        |request| request.sampling.logit_bias[0].0 += 1,
        |request| request.stop.max_tokens += 1,
        |request| request.stop.stop.push(vec![1]),
        |request| request.stop.ignore_eos = false,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut other = job.clone();
        let Task::Generation(request) = &mut other.task else { panic!("a generation") };
        change(request);
        assert_ne!(other.commitment(), job.commitment(), "change {index}");
    }
}
