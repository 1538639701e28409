//! What is not in the transition table is refused, in every phase, and changes nothing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;

use gainsay_commitment::{DisputeId, MoveHash, PartyId};
use gainsay_program::{OpPlace, Scope};
use gainsay_protocol::{
    Action, Authentic, Case, Choice, Closing, Dispute, DisputeTerms, MoveKind, Open, Phase, Refusal, Reveal,
    RevealContent, Reveals, Role, ServiceTime, SignedMove, Witness,
    dispute::MAX_REFUSALS_PER_TURN,
    strategy::first_difference,
    toy::{Credentials, Fault, Fixture, HonestChallenger, HonestWorker, Play, Player, Random, zoo},
};

const START: ServiceTime = ServiceTime(1_000);
const TERMS: DisputeTerms = DisputeTerms {
    window_closes: ServiceTime(2_000),
    worker_allowance_ms: 60_000,
    challenger_allowance_ms: 60_000,
};

fn name(byte: u8) -> Credentials {
    Credentials::Name(PartyId::from_bytes([byte; 32]))
}

/// A dispute with honest players on both sides, of which one defends a false claim.
struct Scene {
    fixture: Fixture,
    layer: u32,
    challenger: Credentials,
}

impl Scene {
    fn new(fault: Fault, challenger: u8) -> Self {
        let fixture = zoo::wide().build(fault, 4);
        let layer = first_difference(fixture.claim(), &fixture.honest().layers()).unwrap().unwrap();
        Self { fixture, layer, challenger: name(challenger) }
    }

    /// A fault in an expanded attention: every phase occurs, in the layer and in the virtual layer.
    fn expanded(challenger: u8) -> Self {
        let attention = OpPlace::in_layer(1, 3);
        Self::new(Fault::Flip { place: attention, element: 39 * 64, bit: 30 }, challenger)
    }

    /// A fault in an op with so many chunks that nodes are revealed twice.
    fn deep(challenger: u8) -> Self {
        let places = zoo::wide().places();
        let (place, elements) = *places.iter().max_by_key(|(_, elements)| *elements).unwrap();
        Self::new(Fault::Flip { place, element: elements - 1, bit: 30 }, challenger)
    }

    fn opening(&self) -> Authentic {
        let commitment = self.fixture.honest().layers()[self.layer as usize];
        let claim = self.fixture.case().claim_id();
        Open { claim, challenger: self.challenger.id(), layer: self.layer, commitment }.into()
    }

    fn open(&self, case: &Case<'_>) -> Dispute {
        Dispute::open(case, &mut Reveals::new(), &self.opening(), TERMS, START).unwrap().0
    }

    /// The honest move of whoever is on turn.
    fn next(&self, dispute: &Dispute, case: &Case<'_>) -> Authentic {
        let worker = Credentials::Name(self.fixture.claim().worker);
        let mut random = Random::new(0);
        let play =
            match dispute.turn().unwrap() {
                Role::Worker => HonestWorker { credentials: worker, trace: self.fixture.claimed().clone() }
                    .play(dispute, case, &mut random),
                Role::Challenger => {
                    let (credentials, trace) = (self.challenger.clone(), self.fixture.honest().clone());
                    HonestChallenger { credentials, trace }.play(dispute, case, &mut random)
                }
            };
        match play {
            Play::Move(made, _) => Authentic::trusted(*made),
            Play::Silence => panic!("an honest player has nothing to say in {}", dispute.phase()),
        }
    }

    /// Every position of the honest game with the move that was made there.
    fn positions(&self) -> Vec<(Dispute, Authentic)> {
        let case = self.fixture.case();
        let (mut dispute, mut positions) = (self.open(&case), Vec::new());
        while dispute.outcome().is_none() {
            let made = self.next(&dispute, &case);
            positions.push((dispute.clone(), made.clone()));
            dispute.apply(&case, &mut Reveals::new(), &made, START).unwrap();
        }
        positions.push((dispute, self.opening()));
        positions
    }
}

fn refuse(dispute: &Dispute, case: &Case<'_>, made: &Authentic, now: ServiceTime) -> Refusal {
    let (mut after, mut reveals) = (dispute.clone(), Reveals::new());
    let Err(refusal) = after.apply(case, &mut reveals, made, now) else {
        panic!("{} was accepted in {}", made.signed().kind(), dispute.phase())
    };
    assert!(reveals.is_empty(), "a refused reveal was kept");
    assert_eq!(after.refusals() - dispute.refusals(), u8::from(refusal.counts()), "{refusal}");
    let fold = |dispute: &Dispute| (dispute.phase(), dispute.next_seq(), dispute.head(), dispute.deadline());
    assert_eq!(fold(&after), fold(dispute));
    assert_eq!((after.position(), after.question()), (dispute.position(), dispute.question()));
    refusal
}

#[test]
fn between_them_the_scenes_reach_every_phase_inside_and_outside_a_virtual_layer() {
    let mut phases = BTreeSet::new();
    for scene in [Scene::expanded(9), Scene::deep(9)] {
        for (dispute, _) in scene.positions() {
            phases.insert((dispute.scope() != Scope::Layer, dispute.phase()));
        }
    }
    let outside = Phase::ALL.iter().all(|phase| phases.contains(&(false, *phase)));
    assert!(outside, "{phases:?}");
    for phase in [Phase::AwaitOps, Phase::AwaitOpChoice, Phase::AwaitChunk, Phase::AwaitElement, Phase::Ended]
    {
        assert!(phases.contains(&(true, phase)), "{phase} does not occur in a virtual layer");
    }
    let deep = Scene::deep(9).positions();
    let reveals = deep.iter().filter(|(_, made)| made.signed().kind() == MoveKind::RevealNodes).count();
    assert_eq!(reveals, 2, "nodes are revealed six levels a move");
}

#[test]
fn replayed_foreign_and_misplaced_moves_are_refused_in_every_phase() {
    let other_claim = Scene::new(Fault::Garbage(OpPlace::in_layer(0, 2)), 9);
    for scene in [Scene::expanded, Scene::deep] {
        let (scene, other_dispute) = (scene(9), scene(10));
        let case = scene.fixture.case();
        let arsenal: Vec<Authentic> = [&scene, &other_dispute, &other_claim]
            .iter()
            .flat_map(|scene| scene.positions().into_iter().map(|(_, made)| made))
            .collect();
        for (dispute, right) in &scene.positions() {
            for made in &arsenal {
                if made.signed() == right.signed() && dispute.outcome().is_none() {
                    continue;
                }
                let refusal = refuse(dispute, &case, made, START);
                assert!(!refusal.counts(), "anyone can resend {}: {refusal}", made.signed().kind());
            }
        }
    }
}

#[test]
fn a_right_move_with_a_wrong_signer_position_or_time_is_refused() {
    for scene in [Scene::expanded(9), Scene::deep(9)] {
        let case = scene.fixture.case();
        for (dispute, right) in scene.positions() {
            if dispute.outcome().is_some() {
                continue;
            }
            let deadline = dispute.deadline().unwrap();
            assert_eq!(refuse(&dispute, &case, &right, deadline), Refusal::Late);
            assert_eq!(refuse(&dispute, &case, &right, ServiceTime(START.0 - 1)), Refusal::TimeReversed);

            let stranger = match right.signed().clone() {
                SignedMove::Reveal(signed) => SignedMove::Reveal(name(33).sign(signed.body)),
                SignedMove::Choice(signed) => SignedMove::Choice(name(33).sign(signed.body)),
                SignedMove::Open(_) => continue,
            };
            assert_eq!(refuse(&dispute, &case, &Authentic::trusted(stranger), START), Refusal::ForeignSigner);

            let SignedMove::Choice(signed) = right.signed() else { continue };
            let choice = &signed.body;
            let wrong = [
                (Choice { seq: choice.seq + 1, ..choice.clone() }, Refusal::Stale),
                (Choice { seq: choice.seq - 1, ..choice.clone() }, Refusal::Stale),
                (Choice { previous: MoveHash::from_bytes([0; 32]), ..choice.clone() }, Refusal::Stale),
                (
                    Choice { dispute: DisputeId::from_bytes([0; 32]), ..choice.clone() },
                    Refusal::ForeignDispute,
                ),
            ];
            for (choice, expected) in wrong {
                let made = Authentic::trusted(scene.challenger.sign(choice).into());
                assert_eq!(refuse(&dispute, &case, &made, START), expected);
            }
        }
    }
}

#[test]
fn every_move_out_of_turn_or_out_of_phase_is_named_so() {
    let scene = Scene::expanded(9);
    let case = scene.fixture.case();
    for (dispute, _) in scene.positions() {
        for kind in MoveKind::ALL {
            if dispute.phase().admits(kind) {
                continue;
            }
            let refusal = refuse(&dispute, &case, &some_move(&scene, &dispute, kind), START);
            let phase = dispute.phase();
            let expected = match dispute.turn() {
                None => Refusal::Ended,
                Some(role) if role != kind.role() => Refusal::OutOfTurn { phase, found: kind },
                Some(_) => Refusal::WrongMove { phase, found: kind },
            };
            assert_eq!(refusal, expected);
        }
    }
}

/// A move of this kind for this dispute, signed by the right party.
fn some_move(scene: &Scene, dispute: &Dispute, kind: MoveKind) -> Authentic {
    let worker = Credentials::Name(scene.fixture.claim().worker);
    let reveal = |content| {
        let claim = dispute.claim();
        worker.sign(Reveal { claim, layer: scene.layer, scope: dispute.scope(), content }).into()
    };
    let choose = |action| {
        let (seq, previous) = (dispute.next_seq(), dispute.head());
        scene.challenger.sign(Choice { dispute: dispute.id(), seq, previous, action }).into()
    };
    let node = gainsay_commitment::NodeAddress { height: 1, index: 0 };
    Authentic::trusted(match kind {
        MoveKind::Open => return scene.opening(),
        MoveKind::RevealOps => reveal(RevealContent::Ops { commitments: Vec::new() }),
        MoveKind::RevealNodes => reveal(RevealContent::Nodes { op: 0, node, children: Vec::new() }),
        MoveKind::RevealChunk => reveal(RevealContent::Chunk { op: 0, chunk: 0, bytes: Vec::new() }),
        MoveKind::ChooseOp => choose(Action::ChooseOp { op: 0 }),
        MoveKind::ChooseNode => choose(Action::ChooseNode { child: 0 }),
        MoveKind::ChooseElement => choose(Action::ChooseElement { element: 0 }),
        MoveKind::Prove => choose(Action::Prove { element: 0, witness: Witness::default() }),
    })
}

#[test]
fn an_expanded_element_must_be_entered_and_a_direct_one_proven() {
    let scene = Scene::expanded(9);
    let case = scene.fixture.case();
    let element_choices: Vec<_> =
        scene.positions().into_iter().filter(|(dispute, _)| dispute.phase() == Phase::AwaitElement).collect();
    assert_eq!(element_choices.len(), 2, "once in the layer, once in the virtual layer");
    let choose = |dispute: &Dispute, action| {
        let (seq, previous) = (dispute.next_seq(), dispute.head());
        Authentic::trusted(
            scene.challenger.sign(Choice { dispute: dispute.id(), seq, previous, action }).into(),
        )
    };
    let (outside, right) = &element_choices[0];
    let SignedMove::Choice(right) = right.signed() else { panic!() };
    let Action::ChooseElement { element } = right.body.action else { panic!("{:?}", right.body.action) };
    let prove = choose(outside, Action::Prove { element, witness: Witness::default() });
    assert_eq!(refuse(outside, &case, &prove, START), Refusal::MustExpand { element });
    let far = choose(outside, Action::ChooseElement { element: element + 256 });
    assert_eq!(refuse(outside, &case, &far, START), Refusal::ElementOutsideChunk { element: element + 256 });

    let (inside, _) = &element_choices[1];
    let again = choose(inside, Action::ChooseElement { element: 0 });
    assert_eq!(refuse(inside, &case, &again, START), Refusal::NotExpanded { element: 0 });
}

#[test]
fn eight_refusals_close_a_turn_and_a_move_opens_the_next() {
    let scene = Scene::deep(9);
    let case = scene.fixture.case();
    let mut dispute = scene.open(&case);
    let bad = some_move(&scene, &dispute, MoveKind::RevealOps);
    for count in 0..MAX_REFUSALS_PER_TURN {
        assert_eq!(dispute.refusals(), count);
        let refusal = dispute.apply(&case, &mut Reveals::new(), &bad, START).unwrap_err();
        assert!(matches!(refusal, Refusal::OpCount { found: 0, .. }));
    }
    let good = scene.next(&dispute, &case);
    assert_eq!(refuse(&dispute, &case, &good, START), Refusal::TooManyRefusals);
    let end = dispute.deadline().unwrap();
    assert!(dispute.timeout(end).is_some(), "the clock decides");

    let mut patient = scene.open(&case);
    patient.apply(&case, &mut Reveals::new(), &bad, START).unwrap_err();
    patient.apply(&case, &mut Reveals::new(), &good, START).unwrap();
    assert_eq!(patient.refusals(), 0, "a turn's refusals do not burden the next");
}

#[test]
fn a_reveal_that_contradicts_an_earlier_one_is_refused() {
    let scene = Scene::deep(9);
    let case = scene.fixture.case();
    let mut first = scene.open(&case);
    let mut second = Scene::deep(12).open(&case);
    let mut reveals = Reveals::new();
    let right = scene.next(&first, &case);
    first.apply(&case, &mut reveals, &right, START).unwrap();

    let SignedMove::Reveal(signed) = right.signed() else { panic!() };
    let RevealContent::Ops { mut commitments } = signed.body.content.clone() else { panic!() };
    commitments[0] = [7; 32].into();
    let other = Reveal { content: RevealContent::Ops { commitments }, ..signed.body.clone() };
    let worker = Credentials::Name(scene.fixture.claim().worker);
    let other = Authentic::trusted(worker.sign(other).into());
    assert_eq!(second.apply(&case, &mut reveals, &other, START), Err(Refusal::Contradiction));

    let taken = second.advance(&case, &reveals, START.plus(5));
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].signed_move.as_ref(), Some(right.signed()));
    assert_eq!(second.phase(), Phase::AwaitOpChoice);
}

#[test]
fn openings_are_refused_for_what_is_wrong_with_them() {
    let scene = Scene::expanded(9);
    let case = scene.fixture.case();
    let SignedMove::Open(signed) = scene.opening().into_signed() else { panic!() };
    let open = signed.body;
    let try_open =
        |made: Authentic, now| Dispute::open(&case, &mut Reveals::new(), &made, TERMS, now).unwrap_err();
    let last = ServiceTime(TERMS.window_closes.0 - 1);
    assert!(Dispute::open(&case, &mut Reveals::new(), &open.into(), TERMS, last).is_ok());
    assert_eq!(try_open(open.into(), TERMS.window_closes), Refusal::WindowClosed);
    assert_eq!(try_open(Open { claim: [1; 32].into(), ..open }.into(), START), Refusal::ForeignClaim);
    let layer = scene.fixture.claim().layers.len() as u32;
    assert_eq!(try_open(Open { layer, ..open }.into(), START), Refusal::NoSuchLayer { layer });
    let commitment = scene.fixture.claim().layers[open.layer as usize];
    assert_eq!(try_open(Open { commitment, ..open }.into(), START), Refusal::NothingDisputed);
    let stranger = Authentic::trusted(name(50).sign(open).into());
    assert_eq!(try_open(stranger, START), Refusal::ForeignSigner);
    let no_opening = some_move(&scene, &scene.open(&case), MoveKind::ChooseOp);
    assert!(matches!(try_open(no_opening, START), Refusal::WrongMove { .. }));
}

#[test]
fn each_clock_runs_on_its_own_turn_only_and_stands_while_paused() {
    let scene = Scene::deep(9);
    let case = scene.fixture.case();
    let (mut dispute, mut reveals) = (scene.open(&case), Reveals::new());
    let mut step = |dispute: &mut Dispute, now| {
        let made = scene.next(dispute, &case);
        dispute.apply(&case, &mut reveals, &made, ServiceTime(now)).unwrap();
    };
    step(&mut dispute, 11_000);
    let left = |dispute: &Dispute, now| {
        [Role::Worker, Role::Challenger].map(|role| dispute.time_left(role, ServiceTime(now)))
    };
    assert_eq!(left(&dispute, 11_000), [50_000, 60_000]);
    assert_eq!(left(&dispute, 31_000), [50_000, 40_000]);

    dispute.pause(ServiceTime(31_000)).unwrap();
    assert!(dispute.is_paused() && dispute.deadline().is_none());
    assert_eq!(dispute.timeout(ServiceTime(i64::MAX)), None, "no clock runs");
    let made = scene.next_even_if_paused(&dispute, &case);
    assert_eq!(refuse(&dispute, &case, &made, ServiceTime(31_001)), Refusal::Paused);
    assert_eq!(dispute.pause(ServiceTime(31_001)), Err(Refusal::Paused));
    dispute.resume(ServiceTime(500_000)).unwrap();
    assert_eq!(dispute.resume(ServiceTime(500_000)), Err(Refusal::NotPaused));
    assert_eq!(left(&dispute, 500_000), [50_000, 40_000]);

    assert_eq!(dispute.timeout(ServiceTime(539_999)), None);
    assert!(dispute.timeout(ServiceTime(540_000)).is_some());
    assert_eq!(dispute.timeout(ServiceTime(540_001)), None, "a dispute ends once");
    assert_eq!(dispute.close(Closing::Void, ServiceTime(540_001)), None, "the first verdict stands");
    assert_eq!(dispute.pause(ServiceTime(540_001)), Err(Refusal::Ended));
}

impl Scene {
    fn next_even_if_paused(&self, dispute: &Dispute, case: &Case<'_>) -> Authentic {
        let mut running = dispute.clone();
        running.resume(ServiceTime(31_000)).unwrap();
        let SignedMove::Choice(signed) = self.next(&running, case).into_signed() else { panic!() };
        let choice = Choice { seq: dispute.next_seq(), previous: dispute.head(), ..signed.body };
        Authentic::trusted(self.challenger.sign(choice).into())
    }
}
