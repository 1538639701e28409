//! A whole dispute over HTTP: the strategies of both sides, fed by nothing but what the service answers.

use std::sync::Arc;
use std::time::Duration;

use gainsay_api::claims::ClaimState;
use gainsay_api::client::Client;
use gainsay_api::disputes::{
    DisputeFilter, DisputeState, DisputeView, MoveKind, Side, Verdict, VerdictReason,
};
use gainsay_api::events::{EventCursor, EventKind};
use gainsay_api::jobs::{Finality, JobQuery, JobState};
use gainsay_commitment::{Canonical, ClaimId, SecretKey, Signed};
use gainsay_program::OpPlace;
use gainsay_protocol::strategy::{
    ChallengerStep, WorkerStep, challenger_next, first_difference, worker_next,
};
use gainsay_protocol::{Case, Claim, Dispute, EvidenceBundle, Job, Open, SignedMove};
use gainsay_testkit::{TestOwner, ToyRun};

use crate::world::World;

/// The claim and job as anyone can read them.
struct Public {
    claim: Claim,
    job: Job,
}

async fn public(world: &World, claim: ClaimId) -> Public {
    let view = world.client.claim(claim).await.expect("a claim is public");
    let signed = Signed::<Claim>::from_bytes(&view.signed.0).expect("the worker's words");
    Public { claim: signed.body, job: Job::from_bytes(&view.job.0).expect("the job") }
}

/// Plays to the end; answers the last view.
async fn play(
    world: &World,
    opened: DisputeView,
    worker: (&SecretKey, &mut ToyRun),
    challenger: (&SecretKey, &mut ToyRun),
) -> DisputeView {
    play_through(&[&world.client], world, opened, worker, challenger).await
}

/// Plays to the end, a move through each of the clients in turn; answers the last view.
pub(crate) async fn play_through(
    clients: &[&Client],
    world: &World,
    opened: DisputeView,
    worker: (&SecretKey, &mut ToyRun),
    challenger: (&SecretKey, &mut ToyRun),
) -> DisputeView {
    let Public { claim, job } = public(world, opened.summary.claim).await;
    let case = Case::new(&world.model.toy.model, &job, &claim).expect("they belong together");
    let (worker, worker_run) = worker;
    let (challenger, challenger_run) = challenger;
    let mut view = opened;
    for client in clients.iter().cycle().take(100) {
        let dispute = Dispute::from_bytes(&view.encoded.0).expect("the fold");
        let made = match worker_next(&dispute, &case, worker_run).expect("the worker can answer") {
            WorkerStep::Reveal(reveal) => (worker, SignedMove::Reveal(Signed::sign(reveal, worker))),
            WorkerStep::Over(_) => return view,
            WorkerStep::Wait => match challenger_next(&dispute, &case, challenger_run).expect("a move") {
                ChallengerStep::Choose(choice) => {
                    (challenger, SignedMove::Choice(Signed::sign(choice, challenger)))
                }
                step => panic!("nobody moves: {step:?}"),
            },
        };
        let id = view.summary.id;
        view = client.post_move(made.0, id, made.1.to_bytes()).await.expect("a legal move");
    }
    panic!("the dispute does not end");
}

/// A world in which the owner's worker has claimed a run with one falsified bit.
async fn cheated(text: &str, place: OpPlace) -> (World, ClaimId, ToyRun, ToyRun) {
    let world = World::new().await;
    world.submit(text).await;
    let lease = world.lease(&world.owner.worker).await.expect("there is a job");
    let false_run = world.run_with(&lease, |at, bytes| {
        if at == place {
            bytes[2] ^= 0x40;
        }
    });
    let honest = world.run(&lease);
    let claim = world.post(&false_run, &lease, &world.owner.worker).await.id;
    (world, claim, false_run, honest)
}

pub(crate) async fn open(
    world: &World,
    claim: ClaimId,
    challenger: &SecretKey,
    honest: &ToyRun,
) -> DisputeView {
    let Public { claim: body, .. } = public(world, claim).await;
    let layer = first_difference(&body, &honest.layers()).expect("same model").expect("a difference");
    let commitment = honest.layers()[layer as usize];
    let opening = Open { claim, challenger: challenger.id(), layer, commitment };
    let bytes = SignedMove::Open(Signed::sign(opening, challenger)).to_bytes();
    world.client.open_dispute(challenger, bytes).await.expect("a dispute opens")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_convicted_down_to_one_element() {
    let (world, claim, mut false_run, mut honest) = cheated("one two three", OpPlace::in_layer(1, 0)).await;
    let other = TestOwner::register(&world.client, "watcher", 1_000_000).await;
    let opened = open(&world, claim, &other.challenger, &honest).await;
    assert_eq!(opened.summary.turn, Some(Side::Worker));
    assert_eq!(opened.summary.challenger.name, "watcher's challenger");
    // What the opener says the layer should be is nobody's to copy, in no form.
    let layer = honest.layers()[opened.summary.place.layer as usize];
    let hides = |view: &DisputeView| {
        view.summary.challenger_commitment.is_none()
            && !view.encoded.0.windows(32).any(|window| window == layer.as_bytes())
    };
    assert!(hides(&opened) && hides(&world.client.dispute(opened.summary.id).await.unwrap()));
    let listed = world.client.disputes(&DisputeFilter::default()).await.unwrap();
    assert_eq!(listed.disputes[0].challenger_commitment, None);
    let worker = (&world.owner.worker, &mut false_run);
    let ended = play(&world, opened, worker, (&other.challenger, &mut honest)).await;

    let decision = ended.summary.decision.clone().expect("a verdict");
    assert_eq!((decision.verdict, decision.reason), (Verdict::ChallengerWins, VerdictReason::Referee));
    assert_ne!(decision.claimed, decision.computed);
    assert_eq!(ended.summary.state, DisputeState::Decided);
    assert_eq!(ended.summary.challenger_commitment, Some(layer));
    let kinds: Vec<MoveKind> = ended.moves.iter().map(|made| made.kind).collect();
    assert_eq!(kinds[..3], [MoveKind::Open, MoveKind::RevealOps, MoveKind::ChooseOp]);
    let last = ended.moves.last().expect("moves");
    assert_eq!(last.kind, MoveKind::Prove);
    assert!(last.witness_bytes.is_some_and(|bytes| bytes > 0));
    assert_eq!((last.place.layer, last.place.op), (1, Some(0)));
    assert!(last.place.element.is_some());

    let view = world.client.claim(claim).await.expect("the claim");
    assert_eq!((view.summary.state, view.summary.finality), (ClaimState::Rejected, Finality::Revoked));
    assert_eq!(view.disputes, [ended.summary.id]);
    let key = &world.submitter.api_key;
    let job = world.client.job(key, view.summary.job_id, JobQuery::default()).await.expect("the job");
    assert_eq!((job.state, job.rejected_attempts), (JobState::Submitted, 1));
    assert_eq!(job.answer.expect("the revoked answer").finality, Finality::Revoked);

    let bundle = world.client.evidence(ended.summary.id).await.expect("the evidence");
    let bundle = EvidenceBundle::from_bytes(&bundle).expect("it decodes");
    let outcome = bundle.rejudge().expect("anyone comes to the same verdict");
    assert_eq!(outcome.outcome.verdict, gainsay_protocol::Verdict::ChallengerWins);

    told(&world, &ended).await;

    // Somebody else does the job, and is paid.
    let lease = world.lease(&other.worker).await.expect("the job is back in the queue");
    world.post(&world.run(&lease), &lease, &other.worker).await;
    world.close_windows().await;
    let job = world.client.job(key, view.summary.job_id, JobQuery::default()).await.expect("the job");
    assert_eq!(job.answer.expect("an answer").finality, Finality::Final);
    world.test.stop().await;
}

/// The stream tells the dispute move by move, with the verdict, the referee's time and what followed.
async fn told(world: &World, ended: &DisputeView) {
    let mut reader = world.client.events(Some(EventCursor::start()));
    let (mut moves, mut told) = (Vec::new(), Vec::new());
    while told.len() < 4 {
        let event = tokio::time::timeout(Duration::from_secs(30), reader.next()).await.expect("events come");
        match event.expect("the stream can be read").kind {
            EventKind::DisputeOpened { dispute, layer, bond, .. } => {
                assert_eq!((dispute, layer), (ended.summary.id, 1));
                assert_eq!(bond, world.test.app().config().parameters.bond.0);
                told.push("opened");
            }
            EventKind::DisputeMoved { moved, .. } => {
                assert_eq!(moved.referee_us.is_some(), moved.kind == MoveKind::Prove);
                moves.push(moved.kind);
            }
            EventKind::DisputeDecided { decision, referee_us, witness_bytes, place, .. } => {
                assert_eq!(Some(decision), ended.summary.decision);
                assert!(referee_us.is_some() && witness_bytes.is_some() && place.element.is_some());
                told.push("decided");
            }
            EventKind::ClaimRejected { claim, worker, dispute, reassigned, .. } => {
                assert_eq!((claim, dispute), (ended.summary.claim, Some(ended.summary.id)));
                assert_eq!((worker.name.as_str(), reassigned), ("owner's worker", true));
                told.push("rejected");
            }
            EventKind::WorkerSuspended { worker, claim, restarted_windows } => {
                assert_eq!((worker.id, claim), (world.owner.worker.id(), ended.summary.claim));
                assert_eq!(restarted_windows, 0);
                told.push("suspended");
            }
            _ => {}
        }
    }
    told.sort_unstable();
    assert_eq!(told, ["decided", "opened", "rejected", "suspended"]);
    let made: Vec<MoveKind> = ended.moves[1..].iter().map(|made| made.kind).collect();
    assert_eq!(moves, made);
}

/// A challenger that disputes what is right loses, and the claim stands.
#[tokio::test(flavor = "multi_thread")]
async fn silence_in_ones_own_dispute_loses_it() {
    let world = World::new().await;
    world.submit("one two three").await;
    let lease = world.lease(&world.owner.worker).await.expect("there is a job");
    let mut run = world.run(&lease);
    let claim = world.post(&run, &lease, &world.owner.worker).await.id;
    let other = TestOwner::register(&world.client, "griefer", 1_000_000).await;
    let opening = Open { claim, challenger: other.challenger.id(), layer: 1, commitment: [9; 32].into() };
    let bytes = SignedMove::Open(Signed::sign(opening, &other.challenger)).to_bytes();
    let opened = world.client.open_dispute(&other.challenger, bytes.clone()).await.expect("a dispute opens");
    let again = world.client.open_dispute(&other.challenger, bytes).await.expect("the same bytes again");
    assert_eq!(again.summary.id, opened.summary.id);

    let Public { claim: body, job } = public(&world, claim).await;
    let case = Case::new(&world.model.toy.model, &job, &body).expect("they belong together");
    let dispute = Dispute::from_bytes(&opened.encoded.0).expect("the fold");
    let WorkerStep::Reveal(reveal) = worker_next(&dispute, &case, &mut run).expect("an answer") else {
        panic!("it is the worker's turn");
    };
    let bytes = SignedMove::Reveal(Signed::sign(reveal, &world.owner.worker)).to_bytes();
    let answered =
        world.client.post_move(&world.owner.worker, opened.summary.id, bytes).await.expect("a move");
    assert_eq!(answered.summary.turn, Some(Side::Challenger));
    let filter = DisputeFilter { state: Some(DisputeState::Open), ..DisputeFilter::default() };
    assert_eq!(world.client.disputes(&filter).await.expect("a page").disputes.len(), 1);

    let allowance = world.test.app().config().parameters.challenger_allowance_ms;
    world.test.advance(allowance + 1).await;
    let view = world.client.dispute(opened.summary.id).await.expect("the dispute");
    let decision = view.summary.decision.expect("a verdict");
    assert_eq!((decision.verdict, decision.reason), (Verdict::WorkerWins, VerdictReason::ClockExpired));
    assert!(world.client.disputes(&filter).await.expect("a page").disputes.is_empty());
    let mine =
        DisputeFilter { party: Some(other.challenger.id()), claim: Some(claim), ..DisputeFilter::default() };
    assert_eq!(world.client.disputes(&mine).await.expect("a page").disputes.len(), 1);
    world.close_windows().await;
    let view = world.client.claim(claim).await.expect("the claim");
    assert_eq!(view.summary.state, ClaimState::Finalized);
    world.test.stop().await;
}

/// A long sequence goes on in a virtual layer; the wire shows where.
#[tokio::test(flavor = "multi_thread")]
async fn an_expanded_element_is_disputed_inside() {
    let text = ["one two three four five six"; 3].join(" ");
    let model = Arc::new(gainsay_testkit::ToyModel::default());
    let expanded = (0..)
        .map(|op| OpPlace::in_layer(1, op))
        .take_while(|place| model.toy.model.op_name(*place).is_some());
    let attention = expanded.into_iter().find(|place| model.toy.model.op_name(*place) == Some("attention"));
    let place = attention.expect("a block has attention");
    let (world, claim, mut false_run, mut honest) = cheated(&text, place).await;
    let other = TestOwner::register(&world.client, "watcher", 1_000_000).await;
    let opened = open(&world, claim, &other.challenger, &honest).await;
    let worker = (&world.owner.worker, &mut false_run);
    let ended = play(&world, opened, worker, (&other.challenger, &mut honest)).await;
    assert_eq!(ended.summary.decision.expect("a verdict").verdict, Verdict::ChallengerWins);
    let chosen =
        ended.moves.iter().find(|made| made.kind == MoveKind::ChooseElement).expect("it was expanded");
    assert_eq!(chosen.place.inside.map(|inside| inside.op), Some(place.op));
    assert!(ended.moves.last().expect("moves").place.inside.is_some());
    world.test.stop().await;
}
