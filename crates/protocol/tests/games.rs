//! Whole games: who wins, whatever the other side tries.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::sync::Arc;

use gainsay_commitment::PartyId;
use gainsay_program::{OpPlace, Scope};
use gainsay_protocol::{
    Authentic, Cause, Dispute, Refusal, Reveals, Role, Verdict,
    strategy::{StrategyError, challenger_next, first_difference, rehearse},
    toy::{
        ChallengerTwist, Credentials, Fault, Fixture, Game, GameOptions, HonestChallenger, HonestWorker,
        LyingRun, Player, Random, TwistedChallenger, TwistedWorker, WorkerTwist, play, zoo,
    },
};

fn challenger() -> Credentials {
    Credentials::Name(PartyId::from_bytes([9; 32]))
}

fn worker(fixture: &Fixture) -> Credentials {
    Credentials::Name(fixture.claim().worker)
}

/// The layer that an honest challenger disputes, if any.
fn disputed(fixture: &Fixture) -> Option<u32> {
    first_difference(fixture.claim(), &fixture.honest().layers()).unwrap()
}

/// An honest challenger against some worker.
fn challenge(fixture: &Fixture, layer: u32, worker: &mut dyn Player, random: &mut Random) -> Game {
    let own = fixture.honest().layers()[layer as usize];
    let mut honest = HonestChallenger { credentials: challenger(), trace: fixture.honest().clone() };
    let players = (worker, &mut honest as &mut dyn Player);
    let options = GameOptions::default();
    play(fixture, layer, own, &challenger(), players, &mut Reveals::new(), &options, random).unwrap()
}

/// An honest worker, or one who defends a tampered run with the honest code.
fn plain(fixture: &Fixture) -> HonestWorker<gainsay_protocol::toy::ToyRun> {
    HonestWorker { credentials: worker(fixture), trace: fixture.claimed().clone() }
}

fn convicts(fixture: &Fixture, worker: &mut dyn Player, random: &mut Random, what: &str) -> Game {
    let layer = disputed(fixture).unwrap_or_else(|| panic!("{what} does not make the claim false"));
    let game = challenge(fixture, layer, worker, random);
    assert_eq!(game.outcome.verdict, Verdict::ChallengerWins, "{what}: {:?}", game.outcome);
    game
}

#[test]
fn a_flipped_bit_in_any_op_is_convicted_wherever_a_layer_commitment_changed() {
    let mut random = Random::new(1);
    let (mut proven, mut absorbed) = (0, 0);
    for builder in zoo::all() {
        for (place, elements) in builder.places() {
            for element in [0, elements / 2, elements - 1] {
                for bit in [0, 22, 31] {
                    let fault = Fault::Flip { place, element, bit };
                    let fixture = builder.build(fault, 3);
                    if fixture.is_true() {
                        assert_eq!(disputed(&fixture), None);
                        absorbed += 1;
                        continue;
                    }
                    let game = convicts(&fixture, &mut plain(&fixture), &mut random, &format!("{fault:?}"));
                    let Cause::Proof { place: convicted, claimed, recomputed, .. } = game.outcome.cause
                    else {
                        panic!("{fault:?} was not proven: {:?}", game.outcome);
                    };
                    assert_eq!(convicted.layer, place.layer);
                    assert_ne!(claimed, recomputed);
                    proven += 1;
                }
            }
        }
    }
    assert!(proven > 500, "only {proven} faults were proven, {absorbed} absorbed");
}

#[test]
fn the_element_that_was_flipped_is_the_element_that_is_proven() {
    let builder = zoo::small();
    for (place, elements) in builder.places() {
        let element = elements - 1;
        let fixture = builder.build(Fault::Flip { place, element, bit: 30 }, 0);
        if fixture.is_true() {
            continue;
        }
        let game = convicts(&fixture, &mut plain(&fixture), &mut Random::new(5), "a flipped bit");
        let Cause::Proof { place: proven, element: at, .. } = game.outcome.cause else {
            panic!("{place}: {:?}", game.outcome)
        };
        match proven.scope {
            Scope::Layer => assert_eq!((proven, at), (place, element)),
            Scope::Virtual { op, element: at } => assert_eq!((op, at), (place.op, element)),
        }
    }
}

#[test]
fn skipped_layers_and_random_outputs_are_convicted() {
    let mut random = Random::new(2);
    for builder in zoo::all() {
        for (place, _) in builder.places() {
            let fixture = builder.build(Fault::Garbage(place), 5);
            if fixture.is_true() {
                // A lone token attends to itself, whatever its query and key.
                assert!(fixture.job().token_count() == 1 && place.op < 2, "{place}");
                continue;
            }
            let game = convicts(&fixture, &mut plain(&fixture), &mut random, &format!("garbage at {place}"));
            assert!(matches!(game.outcome.cause, Cause::Proof { .. }), "{place}: {:?}", game.outcome);
        }
    }
    let fixture = zoo::small().build(Fault::SkipLayer(1), 5);
    assert_eq!(disputed(&fixture), Some(1));
    convicts(&fixture, &mut plain(&fixture), &mut random, "a skipped layer");
}

#[test]
fn consistent_lies_about_the_ops_in_between_do_not_help() {
    let mut random = Random::new(3);
    let mut proofs = 0;
    for builder in zoo::all() {
        for seed in 0..60 {
            let fixture = builder.build(builder.random_fault(&mut random), seed);
            if fixture.is_true() {
                continue;
            }
            for per_cent in [10, 50, 100] {
                let trace = LyingRun::new(fixture.claimed().clone(), seed, per_cent);
                let mut liar = HonestWorker { credentials: worker(&fixture), trace };
                let game = convicts(&fixture, &mut liar, &mut random, "a lying worker");
                proofs += u32::from(matches!(game.outcome.cause, Cause::Proof { .. }));
            }
        }
    }
    assert!(proofs > 200, "lies were proven only {proofs} times");
}

#[test]
fn no_twist_saves_a_false_claim() {
    let mut random = Random::new(4);
    for builder in zoo::all() {
        for seed in 0..8 {
            let fixture = builder.build(builder.random_fault(&mut random), seed);
            if fixture.is_true() {
                continue;
            }
            for twist in WorkerTwist::ALL {
                let trace = LyingRun::new(fixture.claimed().clone(), seed, 30);
                let honest = HonestWorker { credentials: worker(&fixture), trace };
                let mut twisted = TwistedWorker { honest, twist, asked: 0 };
                convicts(&fixture, &mut twisted, &mut random, &format!("{twist:?}"));
            }
        }
    }
}

#[test]
fn a_worker_who_shows_the_honest_run_in_place_of_its_own_is_refused_and_loses() {
    let mut random = Random::new(9);
    for builder in zoo::all() {
        let (place, elements) = builder.places()[2];
        let fixture = builder.build(Fault::Flip { place, element: elements - 1, bit: 30 }, 6);
        let mut worker = HonestWorker { credentials: worker(&fixture), trace: fixture.honest().clone() };
        let game = convicts(&fixture, &mut worker, &mut random, "the honest run");
        assert_eq!(game.outcome.cause, Cause::Timeout(Role::Worker));
        assert!(game.refusals.contains(&Refusal::LastOp), "{:?}", game.refusals);
    }
}

#[test]
fn an_honest_worker_never_loses_whatever_is_disputed_and_however() {
    let mut random = Random::new(5);
    for builder in zoo::all() {
        let fixture = builder.build(Fault::None, 1);
        for twist in ChallengerTwist::ALL {
            for layer in 0..fixture.claim().layers.len() as u32 {
                let own = random.bytes().into();
                let mut attacker = TwistedChallenger {
                    credentials: challenger(),
                    trace: fixture.honest().clone(),
                    twist,
                    asked: 0,
                };
                let mut honest = plain(&fixture);
                let players = (&mut honest as &mut dyn Player, &mut attacker as &mut dyn Player);
                let (mut reveals, options) = (Reveals::new(), GameOptions::default());
                let game =
                    play(&fixture, layer, own, &challenger(), players, &mut reveals, &options, &mut random)
                        .unwrap();
                assert_eq!(game.outcome.verdict, Verdict::WorkerWins, "{twist:?}: {:?}", game.outcome);
            }
        }
    }
}

#[test]
fn an_honest_challenger_finds_nothing_to_prove_against_a_true_claim() {
    let fixture = zoo::small().build(Fault::None, 1);
    let mut honest = HonestChallenger { credentials: challenger(), trace: fixture.honest().clone() };
    let mut worker = plain(&fixture);
    let players = (&mut worker as &mut dyn Player, &mut honest as &mut dyn Player);
    let (mut reveals, options) = (Reveals::new(), GameOptions::default());
    let mut random = Random::new(8);
    let own = random.bytes().into();
    let game = play(&fixture, 0, own, &challenger(), players, &mut reveals, &options, &mut random).unwrap();
    assert_eq!(game.outcome.cause, Cause::Timeout(Role::Challenger));
    assert!(game.refusals.is_empty(), "it sent what it could not win with: {:?}", game.refusals);
}

#[test]
fn a_challenger_with_a_broken_machine_does_not_send_the_proof_that_would_lose() {
    let builder = zoo::small();
    let (place, _) = builder.places()[1];
    let broken = builder.build(Fault::Flip { place, element: 0, bit: 30 }, 1).claimed().clone();
    let fixture = builder.build(Fault::None, 1);
    let layer = first_difference(fixture.claim(), &broken.layers()).unwrap().unwrap();
    let own = broken.layers()[layer as usize];
    let mut mistaken = HonestChallenger { credentials: challenger(), trace: broken.clone() };
    let mut worker = plain(&fixture);
    let players = (&mut worker as &mut dyn Player, &mut mistaken as &mut dyn Player);
    let (mut reveals, options) = (Reveals::new(), GameOptions::default());
    let game =
        play(&fixture, layer, own, &challenger(), players, &mut reveals, &options, &mut Random::new(1))
            .unwrap();
    assert_eq!(game.outcome.cause, Cause::Timeout(Role::Challenger));
    assert!(game.refusals.is_empty());

    // The same position once more, to see why it fell silent.
    let case = fixture.case();
    let opening = game.entries[0].signed_move.clone().unwrap();
    let (mut dispute, mut reveals) = (None, Reveals::new());
    for entry in game.entries.iter().filter(|entry| entry.signed_move.is_some()) {
        let made = Authentic::trusted(entry.signed_move.clone().unwrap());
        match &mut dispute {
            None => {
                let made = Authentic::trusted(opening.clone());
                let opened = Dispute::open(&case, &mut reveals, &made, options.terms, options.start);
                dispute = Some(opened.unwrap().0);
            }
            Some(dispute) => drop(dispute.apply(&case, &mut reveals, &made, entry.record.time).unwrap()),
        }
    }
    let reason = challenger_next(&dispute.unwrap(), &case, &mut broken.clone()).unwrap_err();
    assert!(
        matches!(reason, StrategyError::WouldLose { place: lost, element: 0 } if lost == place),
        "{reason}"
    );
}

#[test]
fn a_claim_cannot_be_disputed_with_its_own_commitment() {
    let fixture = zoo::tiny().build(Fault::None, 1);
    let own = fixture.claim().layers[0];
    let (mut one, mut other) = (plain(&fixture), plain(&fixture));
    let players = (&mut one as &mut dyn Player, &mut other as &mut dyn Player);
    let options = GameOptions::default();
    let refused =
        play(&fixture, 0, own, &challenger(), players, &mut Reveals::new(), &options, &mut Random::new(0));
    assert_eq!(refused.unwrap_err(), Refusal::NothingDisputed);
}

#[test]
fn what_was_shown_once_serves_the_next_dispute_at_no_cost() {
    let fixture = zoo::wide().build(Fault::Garbage(OpPlace::in_layer(1, 8)), 2);
    let layer = disputed(&fixture).unwrap();
    let own = fixture.honest().layers()[layer as usize];
    let (mut reveals, mut random) = (Reveals::new(), Random::new(6));
    let options = GameOptions::default();
    let mut run = |worker: &mut dyn Player, name: u8| {
        let credentials = Credentials::Name(PartyId::from_bytes([name; 32]));
        let mut honest =
            HonestChallenger { credentials: credentials.clone(), trace: fixture.honest().clone() };
        let players = (worker, &mut honest as &mut dyn Player);
        play(&fixture, layer, own, &credentials, players, &mut reveals, &options, &mut random).unwrap()
    };
    let first = run(&mut plain(&fixture), 20);
    assert!(matches!(first.outcome.cause, Cause::Proof { .. }));

    struct Absent;
    impl Player for Absent {
        fn play(
            &mut self,
            _: &Dispute,
            _: &gainsay_protocol::Case<'_>,
            _: &mut Random,
        ) -> gainsay_protocol::toy::Play {
            panic!("the worker was asked for what it had shown before")
        }
    }
    let second = run(&mut Absent, 21);
    assert_eq!(second.outcome.cause, first.outcome.cause);
    assert_eq!(second.entries.len(), first.entries.len());
    let allowance = options.terms.worker_allowance_ms;
    let left = second.dispute.time_left(Role::Worker, second.outcome.time);
    assert_eq!(left, allowance, "a known reveal cost the worker time");
}

#[test]
fn a_rehearsal_passes_on_the_honest_run_and_fails_on_a_broken_machine() {
    for builder in zoo::all() {
        let fixture = Arc::new(builder.build(Fault::None, 1));
        for layer in 0..fixture.claim().layers.len() as u32 {
            let rehearsal = rehearse(&fixture.case(), layer, &mut fixture.honest().clone()).unwrap();
            assert!(rehearsal.elements >= 3 && rehearsal.max_witness_bytes <= 256 << 10, "{rehearsal:?}");
        }
        let (place, _) = builder.places()[1];
        let broken = builder.build(Fault::Flip { place, element: 0, bit: 30 }, 1);
        assert!(rehearse(&broken.case(), place.layer, &mut broken.claimed().clone()).is_err());
    }
}
