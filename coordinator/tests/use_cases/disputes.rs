use std::time::Duration;

use gainsay_commitment::{Canonical, DisputeId, SecretKey, Signature, Signed, TensorCommitment};
use gainsay_coordinator::app::{AppError, DisputeState, Finality, JobState};
use gainsay_coordinator::reconcile::Round;
use gainsay_coordinator::store::{disputes, parties};
use gainsay_protocol::toy::Fault;
use gainsay_protocol::{
    Action, Amount, Choice, Dispute, Equivocation, EvidenceBundle, Role, SignedMove, Verdict,
};

use crate::support::{Claimed, FUNDS, PRICE, Party, World, fault, parameters};

fn stake() -> Amount {
    parameters().stake_per_job
}

async fn is_suspended(world: &World, worker: &Party) -> bool {
    let asked = world.app.lease(worker.id(), &[world.toy().model.id()], Duration::ZERO).await;
    matches!(asked, Err(AppError::WorkerSuspended(_)))
}

async fn state(world: &World, id: DisputeId) -> DisputeState {
    world.app.dispute(id).await.unwrap().state
}

#[tokio::test]
async fn a_false_claim_is_convicted_down_to_one_element() {
    let world = World::new().await;
    let (cheat, challenger) = (world.worker("cheat").await, world.challenger("challenger").await);
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    let opening = claimed.opening(&challenger).expect("the claim is false");
    let id = claimed.open(&world, &opening).await;
    assert_eq!(world.balance(challenger.owner, "locked").await, parameters().bond);

    let view = claimed.play(&world, id, &cheat, &challenger).await;
    assert_eq!(view.state, DisputeState::Ended(Verdict::ChallengerWins));
    assert_eq!(view.reason.as_deref(), Some("proof"));
    assert_eq!((view.turn, view.deadline), (None, None));
    assert_eq!(view.entries.len() as u64, view.entries.last().unwrap().seq + 1);

    // Convicted: answer revoked, stake held, bond back, worker suspended, job back in the queue.
    assert_eq!(world.app.claim(claimed.id).await.unwrap().finality, Finality::Revoked);
    assert_eq!(world.system("held").await, stake());
    assert_eq!(world.balance(cheat.owner, "free").await, Amount(FUNDS.0 - stake().0));
    assert_eq!(world.balance(challenger.owner, "free").await, FUNDS);
    assert!(is_suspended(&world, &cheat).await);
    let job = world.job(claimed.job).await;
    assert_eq!((job.state, job.attempts), (JobState::Submitted, 1));
    assert_eq!(world.system("escrow").await, PRICE);

    // Another owner's worker answers; the stake is paid out when its time and the job are over.
    let honest = world.worker("honest").await;
    let grant = world.lease(&honest).await.expect("the job goes on");
    assert_eq!(grant.job, claimed.job);
    world.post(&honest, &grant, Fault::None).await;
    world.advance(parameters().window_ms).await;
    world.reconcile().await;
    assert_eq!(world.job(claimed.job).await.state, JobState::Finalized);
    assert_eq!(world.system("held").await, stake(), "the holding time is not over");
    world.advance(parameters().hold_ms).await;
    assert_eq!(world.reconcile().await.holds, 1);
    let p = parameters();
    let (to_treasury, to_submitter) =
        (stake().share(p.slash_to_treasury_ppm).0, stake().share(p.slash_to_submitter_ppm).0);
    let prover = Amount(FUNDS.0 + stake().0 - to_treasury - to_submitter);
    assert_eq!(world.balance(challenger.owner, "free").await, prover);
    let fee = PRICE.share(p.fee_ppm).0;
    assert_eq!(world.balance(honest.owner, "free").await, Amount(FUNDS.0 + PRICE.0 - fee));
    assert_eq!(world.balance(world.submitter, "free").await, Amount(FUNDS.0 - PRICE.0 + to_submitter));
    assert_eq!(world.system("treasury").await, Amount(fee + to_treasury));
    assert_eq!(world.reconcile().await.holds, 0, "paid out once");
}

#[tokio::test]
async fn the_exported_evidence_is_judged_the_same_offline() {
    let world = World::new().await;
    let (cheat, challenger) = (world.worker("cheat").await, world.challenger("challenger").await);
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    let id = claimed.open(&world, &claimed.opening(&challenger).unwrap()).await;
    assert!(matches!(world.app.evidence(id).await, Err(AppError::NoVerdict(_))));
    world.advance(7).await;
    claimed.play(&world, id, &cheat, &challenger).await;
    let bytes = world.app.evidence(id).await.unwrap();
    let bundle = EvidenceBundle::from_bytes(&bytes).unwrap();
    let judged = bundle.rejudge().unwrap();
    assert_eq!(judged.coordinator, world.app.coordinator());
    assert_eq!(judged.outcome.verdict, Verdict::ChallengerWins);
    assert_eq!(judged.dispute.id(), id);
    let nobody = DisputeId::from_bytes([0; 32]);
    assert!(matches!(world.app.evidence(nobody).await, Err(AppError::UnknownDispute(_))));
}

#[tokio::test]
async fn a_fault_in_every_op_of_every_layer_is_convicted() {
    let world = World::with(|config| config.parameters.attempts = 1).await;
    let challenger = world.challenger("challenger").await;
    for (index, (place, elements)) in world.builder.places().into_iter().enumerate() {
        let fault = Fault::Flip { place, element: elements / 2, bit: 24 };
        let cheat = world.worker(&format!("cheat {index}")).await;
        let claimed = world.claimed(&cheat, fault).await;
        let Some(opening) = claimed.opening(&challenger) else {
            assert!(claimed.fixture.is_true(), "{place}: a fault that changes a layer can be disputed");
            continue;
        };
        let id = claimed.open(&world, &opening).await;
        let view = claimed.play(&world, id, &cheat, &challenger).await;
        assert_eq!(view.state, DisputeState::Ended(Verdict::ChallengerWins), "{place}");
    }
}

#[tokio::test]
async fn a_silent_worker_loses_at_the_end_of_its_allowance() {
    let world = World::new().await;
    let (cheat, challenger) = (world.worker("cheat").await, world.challenger("challenger").await);
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    let id = claimed.open(&world, &claimed.opening(&challenger).unwrap()).await;
    let view = world.app.dispute(id).await.unwrap();
    let deadline = view.deadline.unwrap();
    assert_eq!((view.turn, deadline), (Some(Role::Worker), view.opened_at.plus(30_000)));

    world.advance(parameters().worker_allowance_ms - 1).await;
    assert_eq!(world.reconcile().await.disputes, 0, "a millisecond early");
    let reply = claimed.next_move(&view, &cheat, &challenger).unwrap().to_bytes();
    world.advance(1).await;
    // Too late at this very millisecond, although nobody has ended the dispute yet.
    let late = world.app.post_move(id, &reply).await;
    assert!(matches!(late, Err(AppError::MoveRefused { code: "move_late", .. })), "{late:?}");
    assert_eq!(world.reconcile().await.disputes, 1);
    let view = world.app.dispute(id).await.unwrap();
    assert_eq!(view.state, DisputeState::Ended(Verdict::ChallengerWins));
    assert_eq!(view.reason.as_deref(), Some("worker_timeout"));
    assert_eq!(view.ended_at, Some(deadline));
    assert!(is_suspended(&world, &cheat).await);
    assert_eq!(world.system("held").await, stake());
    EvidenceBundle::from_bytes(&world.app.evidence(id).await.unwrap()).unwrap().rejudge().unwrap();
}

#[tokio::test]
async fn a_move_in_the_last_millisecond_is_taken() {
    let world = World::new().await;
    let (cheat, challenger) = (world.worker("cheat").await, world.challenger("challenger").await);
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    let id = claimed.open(&world, &claimed.opening(&challenger).unwrap()).await;
    let view = world.app.dispute(id).await.unwrap();
    let reply = claimed.next_move(&view, &cheat, &challenger).unwrap().to_bytes();
    world.advance(parameters().worker_allowance_ms - 1).await;
    let view = world.app.post_move(id, &reply).await.unwrap();
    world.check().await;
    assert_eq!(view.turn, Some(Role::Challenger));
}

#[tokio::test]
async fn a_challenger_that_does_not_go_on_loses_its_bond() {
    let world = World::new().await;
    let (worker, challenger) = (world.worker("worker").await, world.challenger("griefer").await);
    let claimed = world.claimed(&worker, Fault::None).await;
    let wrong = TensorCommitment::from_bytes([5; 32]);
    let id = claimed.open(&world, &claimed.opening_of(&challenger, 1, wrong)).await;
    let view = world.app.dispute(id).await.unwrap();
    let reply = claimed.next_move(&view, &worker, &challenger).unwrap();
    world.app.post_move(id, &reply.to_bytes()).await.unwrap();

    // The window passes while the dispute is open: nothing is final before it has ended.
    world.advance(parameters().challenger_allowance_ms - 1).await;
    assert_eq!(world.reconcile().await.disputes, 0);
    world.advance(1).await;
    assert_eq!(world.reconcile().await.disputes, 1);
    let view = world.app.dispute(id).await.unwrap();
    assert_eq!(view.state, DisputeState::Ended(Verdict::WorkerWins));
    assert_eq!(world.system("held").await, parameters().bond);
    assert_eq!(world.balance(challenger.owner, "free").await, Amount(FUNDS.0 - parameters().bond.0));
    assert_eq!(world.app.claim(claimed.id).await.unwrap().finality, Finality::Pending);

    world.advance(parameters().window_ms).await;
    world.reconcile().await;
    assert_eq!(world.job(claimed.job).await.state, JobState::Finalized);
    world.advance(parameters().hold_ms).await;
    world.reconcile().await;
    let half = parameters().bond.share(parameters().forfeit_to_worker_ppm);
    let fee = PRICE.share(parameters().fee_ppm).0;
    assert_eq!(world.balance(worker.owner, "free").await, Amount(FUNDS.0 + PRICE.0 - fee + half.0));
    assert_eq!(world.system("held").await, Amount::ZERO);
}

#[tokio::test]
async fn nothing_is_final_while_a_dispute_is_open() {
    let world = World::with(|config| config.parameters.worker_allowance_ms = 1_000_000).await;
    let (worker, challenger) = (world.worker("worker").await, world.challenger("challenger").await);
    let claimed = world.claimed(&worker, Fault::None).await;
    world.advance(parameters().window_ms - 1).await;
    let wrong = TensorCommitment::from_bytes([5; 32]);
    claimed.open(&world, &claimed.opening_of(&challenger, 1, wrong)).await;
    world.advance(1).await;
    assert_eq!(world.reconcile().await.claims, 0);
    assert_eq!(world.job(claimed.job).await.state, JobState::Claimed);
}

#[tokio::test]
async fn the_window_closes_at_its_millisecond() {
    let world = World::new().await;
    let (cheat, challenger) = (world.worker("cheat").await, world.challenger("challenger").await);
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    world.advance(parameters().window_ms).await;
    let opening = SignedMove::from(claimed.opening(&challenger).unwrap()).to_bytes();
    let late = world.app.open_dispute(&opening).await;
    assert!(matches!(late, Err(AppError::WindowClosed { .. })), "{late:?}");
    world.reconcile().await;
    let late = world.app.open_dispute(&opening).await;
    assert!(matches!(late, Err(AppError::ClaimDecided { state: "finalized", .. })), "{late:?}");
    assert_eq!(world.balance(challenger.owner, "free").await, FUNDS);
    assert_eq!(world.count("select count(*) from disputes").await, 0);
}

#[tokio::test]
async fn opening_needs_a_registered_challenger_with_a_bond_and_something_to_dispute() {
    let world = World::new().await;
    let (worker, challenger) = (world.worker("worker").await, world.challenger("challenger").await);
    let claimed = world.claimed(&worker, Fault::None).await;
    let wrong = TensorCommitment::from_bytes([5; 32]);
    let open = |opening: Signed<gainsay_protocol::Open>| {
        let app = world.app.clone();
        async move { app.open_dispute(&SignedMove::from(opening).to_bytes()).await }
    };
    let answer = open(claimed.opening_of(&worker, 1, wrong)).await;
    assert!(matches!(answer, Err(AppError::UnknownParty { role: "challenger", .. })), "{answer:?}");
    let answer = open(claimed.opening_of(&challenger, 99, wrong)).await;
    assert!(matches!(answer, Err(AppError::MoveRefused { code: "no_such_layer", .. })), "{answer:?}");
    let same = claimed.claim.body.layers[1];
    let answer = open(claimed.opening_of(&challenger, 1, same)).await;
    assert!(matches!(answer, Err(AppError::MoveRefused { code: "nothing_disputed", .. })), "{answer:?}");
    let mut foreign = claimed.opening_of(&challenger, 1, wrong);
    foreign.body.claim = gainsay_commitment::ClaimId::from_bytes([1; 32]);
    let answer = open(Signed::sign(foreign.body, &challenger.key)).await;
    assert!(matches!(answer, Err(AppError::UnknownClaim(_))), "{answer:?}");
    let mut forged = claimed.opening_of(&challenger, 1, wrong);
    forged.body.layer = 2;
    let answer = open(forged).await;
    assert!(matches!(answer, Err(AppError::MalformedMove(_))), "{answer:?}");
    let other = Signed::sign(claimed.opening_of(&challenger, 1, wrong).body, &worker.key);
    let answer = open(other).await;
    assert!(matches!(answer, Err(AppError::MoveRefused { code: "foreign_signer", .. })), "{answer:?}");
    world.check().await;

    world.app.withdraw(challenger.owner, Amount(FUNDS.0 - parameters().bond.0 + 1)).await.unwrap();
    let answer = open(claimed.opening_of(&challenger, 1, wrong)).await;
    assert!(matches!(answer, Err(AppError::InsufficientFunds { .. })), "{answer:?}");
    world.check().await;
    assert_eq!(world.count("select count(*) from disputes").await, 0);
    assert_eq!(world.count("select count(*) from bonds").await, 0);
}

#[tokio::test]
async fn opening_and_moving_again_with_the_same_bytes_changes_nothing() {
    let world = World::new().await;
    let (cheat, challenger) = (world.worker("cheat").await, world.challenger("challenger").await);
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    let opening = claimed.opening(&challenger).unwrap();
    let id = claimed.open(&world, &opening).await;
    assert_eq!(claimed.open(&world, &opening).await, id);
    let view = world.app.dispute(id).await.unwrap();
    let reply = claimed.next_move(&view, &cheat, &challenger).unwrap().to_bytes();
    let once = world.app.post_move(id, &reply).await.unwrap();
    world.advance(100).await;
    let twice = world.app.post_move(id, &reply).await.unwrap();
    assert_eq!((once.fold, once.entries.len()), (twice.fold, twice.entries.len()));
    assert_eq!(world.count("select count(*) from disputes").await, 1);
    world.check().await;
}

#[tokio::test]
async fn refused_moves_change_nothing_and_are_counted_only_against_their_author() {
    let world = World::new().await;
    let (cheat, challenger) = (world.worker("cheat").await, world.challenger("challenger").await);
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    let id = claimed.open(&world, &claimed.opening(&challenger).unwrap()).await;
    let view = world.app.dispute(id).await.unwrap();
    let fold = Dispute::from_bytes(&view.fold).unwrap();
    let choice = |op, key: &Party| {
        let (dispute, seq, previous) = (id, fold.next_seq(), fold.head());
        let body = Choice { dispute, seq, previous, action: Action::ChooseOp { op } };
        SignedMove::from(Signed::sign(body, &key.key)).to_bytes()
    };
    let answer = world.app.post_move(id, &choice(0, &challenger)).await;
    assert!(matches!(answer, Err(AppError::MoveRefused { code: "out_of_turn", .. })), "{answer:?}");
    let nobodys = world.app.post_move(id, b"no move").await;
    assert!(matches!(nobodys, Err(AppError::MalformedMove(_))));
    let elsewhere = world.app.post_move(DisputeId::from_bytes([3; 32]), &choice(0, &challenger)).await;
    assert!(matches!(elsewhere, Err(AppError::UnknownDispute(_))));
    assert_eq!(world.app.dispute(id).await.unwrap().fold, view.fold);

    let reply = claimed.next_move(&view, &cheat, &challenger).unwrap();
    let view = world.app.post_move(id, &reply.to_bytes()).await.unwrap();
    let fold = Dispute::from_bytes(&view.fold).unwrap();
    let choice = |op| {
        let body = Choice {
            dispute: id,
            seq: fold.next_seq(),
            previous: fold.head(),
            action: Action::ChooseOp { op },
        };
        SignedMove::from(Signed::sign(body, &challenger.key)).to_bytes()
    };
    for refusal in 1..=9 {
        let answer = world.app.post_move(id, &choice(1_000 + refusal)).await;
        let expected = if refusal <= 8 { "no_such_op" } else { "too_many_refusals" };
        assert!(
            matches!(&answer, Err(AppError::MoveRefused { code, .. }) if *code == expected),
            "{answer:?}"
        );
    }
    let after = world.app.dispute(id).await.unwrap();
    assert_eq!(Dispute::from_bytes(&after.fold).unwrap().refusals(), 8);
    assert_eq!(after.entries.len(), view.entries.len());
    assert_eq!(world.count("select count(*) from move_refusals").await, 8);
    world.check().await;
}

/// The confederate disputes first and loses on purpose; the honest challenger still wins.
#[tokio::test]
async fn a_sham_dispute_shields_nothing() {
    let world = World::new().await;
    let cheat = world.worker("cheat").await;
    let (sham, honest) = (world.challenger("sham").await, world.challenger("honest").await);
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    let wrong = TensorCommitment::from_bytes([5; 32]);
    let first = claimed.open(&world, &claimed.opening_of(&sham, 0, wrong)).await;
    let second = claimed.open(&world, &claimed.opening(&honest).unwrap()).await;
    // The sham challenger is answered and falls silent; the honest one plays on at the same time.
    let view = world.app.dispute(first).await.unwrap();
    let reply = claimed.next_move(&view, &cheat, &sham).unwrap();
    world.app.post_move(first, &reply.to_bytes()).await.unwrap();
    let view = claimed.play(&world, second, &cheat, &honest).await;
    assert_eq!(view.state, DisputeState::Ended(Verdict::ChallengerWins));
    assert_eq!(state(&world, first).await, DisputeState::Ended(Verdict::Moot));
    assert_eq!(world.balance(sham.owner, "free").await, FUNDS, "moot: the bond goes back");
    assert_eq!(world.balance(honest.owner, "free").await, FUNDS);
    EvidenceBundle::from_bytes(&world.app.evidence(first).await.unwrap()).unwrap().rejudge().unwrap();
}

/// The cheat's confederate takes the reward by playing faster; the honest challenger, who was earlier, has its refund.
#[tokio::test]
async fn an_earlier_opener_whom_the_accepted_claim_confirms_gets_its_refund() {
    let world = World::new().await;
    let cheat = world.worker("cheat").await;
    let (slow, fast) = (world.challenger("slow").await, world.challenger("fast").await);
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    claimed.open(&world, &claimed.opening(&slow).unwrap()).await;
    world.advance(1).await;
    let id = claimed.open(&world, &claimed.opening(&fast).unwrap()).await;
    claimed.play(&world, id, &cheat, &fast).await;
    let honest = world.worker("honest").await;
    let grant = world.lease(&honest).await.unwrap();
    world.post(&honest, &grant, Fault::None).await;
    world.advance(parameters().hold_ms).await;
    world.reconcile().await;
    assert_eq!(world.system("held").await, Amount::ZERO);
    let refund = parameters().opener_refund;
    assert_eq!(world.balance(slow.owner, "free").await, Amount(FUNDS.0 + refund.0));
    let p = parameters();
    let prover = stake().0
        - stake().share(p.slash_to_treasury_ppm).0
        - stake().share(p.slash_to_submitter_ppm).0
        - refund.0;
    assert_eq!(world.balance(fast.owner, "free").await, Amount(FUNDS.0 + prover));
}

/// A cheat's confederate, with two keys of another owner, was earlier and is as right: each owner is refunded once, by the
/// order of openings, however many keys it has.
#[tokio::test]
async fn one_owners_many_keys_do_not_dilute_the_refunds_of_others() {
    let world = World::with(|config| config.parameters.opener_refund_cap_ppm = 75_000).await;
    let cheat = world.worker("cheat").await;
    let (owner_key, owner) = world.provider("many").await;
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    for name in ["one", "two", "three"] {
        let key = SecretKey::generate();
        world.app.register_challenger(owner_key.id(), key.id(), name).await.unwrap();
        claimed.open(&world, &claimed.opening(&Party { key, owner }).unwrap()).await;
        world.advance(1).await;
    }
    let (other, prover) = (world.challenger("other").await, world.challenger("prover").await);
    claimed.open(&world, &claimed.opening(&other).unwrap()).await;
    let id = claimed.open(&world, &claimed.opening(&prover).unwrap()).await;
    claimed.play(&world, id, &cheat, &prover).await;
    done_honestly(&world).await;
    // A refund is 20,000 and all of them at most 30,000.
    assert_eq!(world.balance(owner, "free").await, Amount(FUNDS.0 + 20_000));
    assert_eq!(world.balance(other.owner, "free").await, Amount(FUNDS.0 + 10_000));
    assert_eq!(world.balance(prover.owner, "free").await, Amount(FUNDS.0 + provers_share() - 30_000));
}

/// What a conviction leaves beside the fixed parts.
fn provers_share() -> i64 {
    let p = parameters();
    stake().0 - stake().share(p.slash_to_treasury_ppm).0 - stake().share(p.slash_to_submitter_ppm).0
}

/// An honest worker of another owner does the job after all; then everything held is paid.
async fn done_honestly(world: &World) {
    let honest = world.worker("honest").await;
    let grant = world.lease(&honest).await.unwrap();
    world.post(&honest, &grant, Fault::None).await;
    world.advance(parameters().window_ms + parameters().hold_ms).await;
    world.reconcile().await;
    world.reconcile().await;
    assert_eq!(world.system("held").await, Amount::ZERO);
}

/// The confederate was first, has the longest clock against a worker that lets it win, and shows nothing.
#[tokio::test]
async fn who_wins_by_a_workers_silence_gains_nothing_unless_it_was_right() {
    let world = World::new().await;
    let cheat = world.worker("cheat").await;
    let (confederate, honest) = (world.challenger("confederate").await, world.challenger("honest").await);
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    let first = claimed.open(&world, &claimed.opening_of(&confederate, 0, [9; 32].into())).await;
    world.advance(1).await;
    let second = claimed.open(&world, &claimed.opening(&honest).unwrap()).await;
    world.advance(parameters().worker_allowance_ms - 1).await;
    world.reconcile().await;
    assert_eq!(state(&world, first).await, DisputeState::Ended(Verdict::ChallengerWins));
    assert_eq!(state(&world, second).await, DisputeState::Ended(Verdict::Moot));
    done_honestly(&world).await;
    assert_eq!(world.balance(confederate.owner, "free").await, FUNDS);
    assert_eq!(world.balance(honest.owner, "free").await, Amount(FUNDS.0 + provers_share()));
}

/// The submitter has a true claim disputed while its worker is away, and withdraws the job before anybody can confirm the
/// claim.
#[tokio::test]
async fn nobody_gains_by_the_absence_of_a_worker_whose_job_is_withdrawn() {
    let world = World::new().await;
    let (away, confederate) = (world.worker("away").await, world.challenger("confederate").await);
    let claimed = world.claimed(&away, Fault::None).await;
    claimed.open(&world, &claimed.opening_of(&confederate, 0, [9; 32].into())).await;
    world.advance(parameters().worker_allowance_ms).await;
    world.reconcile().await;
    world.app.cancel_job(world.submitter, claimed.job).await.unwrap();
    world.advance(parameters().hold_ms).await;
    world.reconcile().await;
    assert_eq!(world.system("held").await, Amount::ZERO);
    for owner in [confederate.owner, world.submitter] {
        assert_eq!(world.balance(owner, "free").await, FUNDS);
    }
    world.check().await;
}

/// A confederate that has run the job itself shares with whoever else was right, and takes nothing from it by being first.
#[tokio::test]
async fn a_silent_workers_stake_is_shared_by_all_who_were_right() {
    let world = World::new().await;
    let cheat = world.worker("cheat").await;
    let (confederate, honest) = (world.challenger("confederate").await, world.challenger("honest").await);
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    claimed.open(&world, &claimed.opening(&confederate).unwrap()).await;
    world.advance(1).await;
    claimed.open(&world, &claimed.opening(&honest).unwrap()).await;
    world.advance(parameters().worker_allowance_ms - 1).await;
    world.reconcile().await;
    done_honestly(&world).await;
    for opener in [&confederate, &honest] {
        assert_eq!(world.balance(opener.owner, "free").await, Amount(FUNDS.0 + provers_share() / 2));
    }
}

/// About to be convicted, the worker sends a second claim, itself or by a confederate: who was disputing it loses nothing.
#[tokio::test]
async fn equivocation_does_not_rob_who_was_about_to_prove_the_claim_wrong() {
    for reported in [false, true] {
        let world = World::new().await;
        let cheat = world.worker("cheat").await;
        let (honest, wrong) = (world.challenger("honest").await, world.challenger("wrong").await);
        world.submit().await;
        let grant = world.lease(&cheat).await.unwrap();
        let claimed = world.post(&cheat, &grant, fault(&world.builder)).await;
        claimed.open(&world, &claimed.opening_of(&wrong, 0, [9; 32].into())).await;
        let id = claimed.open(&world, &claimed.opening(&honest).unwrap()).await;
        let second = world.claim_for(&cheat, &grant, &world.builder.build(Fault::None, 1));
        if reported {
            let confederate = world.worker("confederate").await;
            let pair = Equivocation::new(claimed.claim.clone(), second).to_bytes();
            world.app.report_equivocation(confederate.id(), &pair).await.unwrap();
            world.check().await;
            done_honestly(&world).await;
            assert_eq!(world.balance(confederate.owner, "free").await, FUNDS);
        } else {
            let refused = world.app.post_claim(&second.to_bytes()).await;
            assert!(matches!(refused, Err(AppError::Equivocation(_))), "{refused:?}");
            done_honestly(&world).await;
        }
        assert_eq!(state(&world, id).await, DisputeState::Ended(Verdict::Moot));
        assert_eq!(world.balance(cheat.owner, "free").await, Amount(FUNDS.0 - stake().0));
        assert_eq!(world.balance(honest.owner, "free").await, Amount(FUNDS.0 + provers_share()));
        assert_eq!(world.balance(wrong.owner, "free").await, FUNDS);
    }
}

/// Whoever could make the service lock a dispute's rows could run its parties' clocks down.
#[tokio::test]
async fn a_stranger_is_refused_before_anything_is_locked_for_its_move() {
    let world = World::new().await;
    let (cheat, challenger) = (world.worker("cheat").await, world.challenger("challenger").await);
    let stranger = world.worker("stranger").await;
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    let id = claimed.open(&world, &claimed.opening(&challenger).unwrap()).await;
    let view = world.app.dispute(id).await.unwrap();
    let foreign = claimed.next_move(&view, &stranger, &challenger).unwrap().to_bytes();
    let mut busy = world.pool.begin().await.unwrap();
    parties::lock_worker(&mut busy, cheat.id()).await.unwrap();
    let refused = world.app.post_move(id, &foreign).await;
    assert!(matches!(refused, Err(AppError::MoveRefused { code: "foreign_signer", .. })), "{refused:?}");
}

#[tokio::test]
async fn what_was_revealed_once_serves_every_dispute_on_the_claim() {
    let world = World::new().await;
    let cheat = world.worker("cheat").await;
    let (one, two) = (world.challenger("one").await, world.challenger("two").await);
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    let first = claimed.open(&world, &claimed.opening(&one).unwrap()).await;
    let second = claimed.open(&world, &claimed.opening(&two).unwrap()).await;
    let view = world.app.dispute(first).await.unwrap();
    let reply = claimed.next_move(&view, &cheat, &one).unwrap();
    world.app.post_move(first, &reply.to_bytes()).await.unwrap();
    world.check().await;
    // The second dispute waited for the same thing, and has moved on without the worker.
    let view = world.app.dispute(second).await.unwrap();
    assert_eq!((view.turn, view.entries.len()), (Some(Role::Challenger), 2));
    // One that is opened later starts there.
    let three = world.challenger("three").await;
    let third = claimed.open(&world, &claimed.opening(&three).unwrap()).await;
    let view = world.app.dispute(third).await.unwrap();
    assert_eq!((view.turn, view.entries.len()), (Some(Role::Challenger), 2));
    let view = claimed.play(&world, third, &cheat, &three).await;
    assert_eq!(view.state, DisputeState::Ended(Verdict::ChallengerWins));
    for other in [first, second] {
        assert_eq!(state(&world, other).await, DisputeState::Ended(Verdict::Moot));
    }
    EvidenceBundle::from_bytes(&world.app.evidence(third).await.unwrap()).unwrap().rejudge().unwrap();
}

#[tokio::test]
async fn one_bond_backs_all_disputes_of_a_pair_and_its_loss_ends_them() {
    let world = World::new().await;
    let (worker, challenger) = (world.worker("worker").await, world.challenger("griefer").await);
    let wrong = TensorCommitment::from_bytes([5; 32]);
    let mut disputes = Vec::new();
    for _ in 0..3 {
        let claimed = world.claimed(&worker, Fault::None).await;
        let id = claimed.open(&world, &claimed.opening_of(&challenger, 1, wrong)).await;
        disputes.push((claimed, id));
    }
    assert_eq!(world.balance(challenger.owner, "locked").await, parameters().bond);
    let (claimed, id) = &disputes[1];
    let view = world.app.dispute(*id).await.unwrap();
    let reply = claimed.next_move(&view, &worker, &challenger).unwrap();
    world.app.post_move(*id, &reply.to_bytes()).await.unwrap();
    // The other two wait for the worker: it would lose them by silence, had the bond not gone first.
    world.advance(parameters().challenger_allowance_ms - 1).await;
    for (claimed, id) in [&disputes[0], &disputes[2]] {
        let view = world.app.dispute(*id).await.unwrap();
        let reply = claimed.next_move(&view, &worker, &challenger).unwrap();
        world.app.post_move(*id, &reply.to_bytes()).await.unwrap();
    }
    world.advance(1).await;
    world.reconcile().await;
    for (_, id) in &disputes {
        assert_eq!(state(&world, *id).await, DisputeState::Ended(Verdict::WorkerWins));
    }
    assert_eq!(world.balance(challenger.owner, "locked").await, Amount::ZERO);
    assert_eq!(world.system("held").await, parameters().bond, "one bond, lost once");
    world.advance(parameters().window_ms).await;
    world.reconcile().await;
    for (claimed, _) in &disputes {
        assert_eq!(world.job(claimed.job).await.state, JobState::Finalized);
    }
}

/// Otherwise one bond pays for as many disputes on one claim as it takes to run an honest worker out of time.
#[tokio::test]
async fn a_challenger_has_one_dispute_on_a_claim_at_a_time() {
    let world = World::new().await;
    let (worker, griefer) = (world.worker("worker").await, world.challenger("griefer").await);
    let claimed = world.claimed(&worker, Fault::None).await;
    let wrong = TensorCommitment::from_bytes([5; 32]);
    claimed.open(&world, &claimed.opening_of(&griefer, 1, wrong)).await;
    for (layer, byte) in [(2, 5), (1, 6)] {
        let opening = claimed.opening_of(&griefer, layer, TensorCommitment::from_bytes([byte; 32]));
        let answer = world.app.open_dispute(&SignedMove::from(opening).to_bytes()).await;
        assert!(matches!(answer, Err(AppError::MoveRefused { code: "duplicate_dispute", .. })), "{answer:?}");
    }
    let other = world.challenger("other").await;
    claimed.open(&world, &claimed.opening_of(&other, 2, wrong)).await;
    assert_eq!(world.app.claim(claimed.id).await.unwrap().disputes.len(), 2);
}

#[tokio::test]
async fn a_conviction_restarts_the_windows_of_the_workers_other_claims() {
    let world = World::new().await;
    let (cheat, challenger) = (world.worker("cheat").await, world.challenger("challenger").await);
    let other = world.claimed(&cheat, Fault::None).await;
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    world.advance(1_000).await;
    let id = claimed.open(&world, &claimed.opening(&challenger).unwrap()).await;
    claimed.play(&world, id, &cheat, &challenger).await;
    let view = world.app.claim(other.id).await.unwrap();
    assert_eq!(view.window_ends, view.receipt.body.terms.window_closes.plus(1_000));
    world.advance(parameters().window_ms - 1).await;
    assert_eq!(world.reconcile().await.claims, 0);
    world.advance(1).await;
    assert_eq!(world.reconcile().await.claims, 1);
    assert_eq!(world.job(other.job).await.state, JobState::Finalized);
}

#[tokio::test]
async fn a_job_goes_to_another_owner_and_back_to_its_submitter_when_attempts_run_out() {
    let world = World::new().await;
    let challenger = world.challenger("challenger").await;
    let (owner_key, owner) = world.provider("first").await;
    let mut siblings = Vec::new();
    for name in ["one", "two"] {
        let key = gainsay_commitment::SecretKey::generate();
        world.app.register_worker(owner_key.id(), key.id(), name, "").await.unwrap();
        siblings.push(Party { key, owner });
    }
    let convict = async |cheat: &Party, claimed: &Claimed| {
        let id = claimed.open(&world, &claimed.opening(&challenger).unwrap()).await;
        claimed.play(&world, id, cheat, &challenger).await;
    };
    let claimed = world.claimed(&siblings[0], fault(&world.builder)).await;
    convict(&siblings[0], &claimed).await;
    assert!(world.lease(&siblings[1]).await.is_none(), "not to another worker of the same owner");

    let second = world.worker("second").await;
    let grant = world.lease(&second).await.unwrap();
    assert_eq!(grant.job, claimed.job);
    let again = world.post(&second, &grant, fault(&world.builder)).await;
    convict(&second, &again).await;
    let job = world.job(claimed.job).await;
    assert_eq!((job.state, job.attempts), (JobState::Refunded, 2));
    assert_eq!(world.balance(world.submitter, "free").await, FUNDS);
    // No claim was accepted; the stakes are paid out all the same.
    world.advance(parameters().hold_ms).await;
    assert_eq!(world.reconcile().await.holds, 2);
    assert_eq!(world.system("held").await, Amount::ZERO);
}

/// The last statement of the verdict's transaction fails: no half of it may last.
#[tokio::test]
async fn a_verdict_happens_whole_or_not_at_all() {
    let world = World::new().await;
    let (cheat, challenger) = (world.worker("cheat").await, world.challenger("challenger").await);
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    let id = claimed.open(&world, &claimed.opening(&challenger).unwrap()).await;
    world.break_events("claim_rejected").await;
    let proof = loop {
        let view = world.app.dispute(id).await.unwrap();
        let made = claimed.next_move(&view, &cheat, &challenger).unwrap().to_bytes();
        match world.app.post_move(id, &made).await {
            Ok(_) => world.check().await,
            Err(AppError::Store(_)) => break made,
            Err(error) => panic!("{error}"),
        }
    };
    world.check().await;
    assert_eq!(state(&world, id).await, DisputeState::Open);
    assert_eq!(world.app.claim(claimed.id).await.unwrap().finality, Finality::Pending);
    assert!(!is_suspended(&world, &cheat).await);
    world.mend_events().await;
    let view = world.app.post_move(id, &proof).await.expect("the same bytes decide afterwards");
    world.check().await;
    assert_eq!(view.state, DisputeState::Ended(Verdict::ChallengerWins));
}

/// Many challengers dispute many claims of one worker at once, through two coordinators.
#[tokio::test]
async fn concurrent_disputes_end_without_deadlock_and_with_one_conviction_a_claim() {
    let world = World::with(|config| config.parameters.attempts = 1).await;
    let second = world.second_coordinator().await;
    let cheat = world.worker("cheat").await;
    let challengers =
        [world.challenger("one").await, world.challenger("two").await, world.challenger("three").await];
    let mut claims = Vec::new();
    for _ in 0..3 {
        claims.push(world.claimed(&cheat, fault(&world.builder)).await);
    }
    let plays = claims.iter().flat_map(|claimed| challengers.iter().map(move |by| (claimed, by)));
    let plays = plays.enumerate().map(|(index, (claimed, challenger))| {
        let app = if index % 2 == 0 { world.app.clone() } else { second.clone() };
        let cheat = &cheat;
        async move {
            let opening = SignedMove::from(claimed.opening(challenger).unwrap()).to_bytes();
            let id = match app.open_dispute(&opening).await {
                Ok(view) => view.id,
                Err(AppError::ClaimDecided { .. }) => return,
                Err(error) => panic!("{error}"),
            };
            loop {
                let view = app.dispute(id).await.unwrap();
                let Some(made) = claimed.next_move(&view, cheat, challenger) else { return };
                match app.post_move(id, &made.to_bytes()).await {
                    // Another dispute revealed the same, or decided the claim, in between.
                    Ok(_) | Err(AppError::MoveRefused { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    futures_util::future::join_all(plays).await;
    world.check().await;
    assert_eq!(world.count("select count(*) from claims where state = 'rejected'").await, 3);
    assert_eq!(world.count("select count(*) from settlements where kind = 'slashed'").await, 3);
    assert_eq!(world.count("select count(*) from bonds where state = 'locked'").await, 0);
    assert_eq!(world.count("select count(*) from disputes where ended_ms is null").await, 0);
    assert_eq!(world.count("select count(*) from jobs where state = 'refunded'").await, 3);
}

#[tokio::test]
async fn disputes_are_listed_newest_first() {
    let world = World::new().await;
    let (one, two) = (world.challenger("one").await, world.challenger("two").await);
    let claimed = world.claimed(&world.worker("worker").await, Fault::None).await;
    let wrong = TensorCommitment::from_bytes([5; 32]);
    let first = claimed.open(&world, &claimed.opening_of(&one, 1, wrong)).await;
    world.advance(1).await;
    let second = claimed.open(&world, &claimed.opening_of(&two, 2, wrong)).await;
    let listed: Vec<_> = world.app.disputes(true, 10).await.unwrap().iter().map(|view| view.id).collect();
    assert_eq!(listed, [second, first]);
    assert_eq!(world.app.claim(claimed.id).await.unwrap().disputes, [first, second]);
}

/// What a failing referee leaves behind. No input is known that makes it fail, so the test writes it.
#[tokio::test]
async fn no_clock_runs_while_a_dispute_is_paused() {
    let world = World::new().await;
    let (cheat, challenger) = (world.worker("cheat").await, world.challenger("challenger").await);
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    let id = claimed.open(&world, &claimed.opening(&challenger).unwrap()).await;
    let running = world.app.resume_dispute(id).await;
    assert!(matches!(running, Err(AppError::MoveRefused { code: "dispute_not_paused", .. })), "{running:?}");

    world.advance(parameters().worker_allowance_ms - 10).await;
    let mut dispute = Dispute::from_bytes(&world.app.dispute(id).await.unwrap().fold).unwrap();
    let mut conn = world.pool.acquire().await.unwrap();
    let paused = dispute.pause(world.app.now().await.unwrap()).unwrap();
    disputes::update(&mut conn, claimed.job, &dispute).await.unwrap();
    let nobodys = Signature::from_bytes([0; 64]);
    disputes::append(&mut conn, claimed.job, &paused, nobodys, None).await.unwrap();

    world.advance(10 * parameters().window_ms).await;
    assert_eq!(world.reconcile().await, Round::default(), "neither lost nor final");
    let view = world.app.dispute(id).await.unwrap();
    assert_eq!((view.state, view.deadline), (DisputeState::Paused, None));
    let reply = claimed.next_move(&view, &cheat, &challenger).map(|made| made.to_bytes());
    if let Some(reply) = reply {
        let refused = world.app.post_move(id, &reply).await;
        assert!(matches!(refused, Err(AppError::MoveRefused { code: "dispute_paused", .. })), "{refused:?}");
    }
    let view = world.app.resume_dispute(id).await.unwrap();
    assert_eq!(
        view.deadline,
        Some(world.app.now().await.unwrap().plus(10)),
        "the clock goes on where it stood"
    );
    world.advance(10).await;
    assert_eq!(world.reconcile().await.disputes, 1);
}
