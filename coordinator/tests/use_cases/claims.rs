use gainsay_commitment::{SecretKey, Signed};
use gainsay_coordinator::app::{AppError, Finality, JobState};
use gainsay_protocol::toy::Fault;
use gainsay_protocol::{Amount, Claim, ClaimFault};

use crate::support::{FUNDS, World, fault, parameters};

#[tokio::test]
async fn the_same_claim_again_gets_the_same_receipt() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    world.submit().await;
    let grant = world.lease(&worker).await.unwrap();
    let claim = world.claim_for(&worker, &grant, &world.builder.build(Fault::None, 1)).to_bytes();
    let receipt = world.app.post_claim(&claim).await.unwrap();
    receipt.verify().unwrap();
    assert_eq!(receipt.signer, world.app.coordinator());
    world.advance(500).await;
    assert_eq!(world.app.post_claim(&claim).await.unwrap(), receipt);
    // Also after the lease would have been over, and after the claim is final.
    world.advance(parameters().window_ms).await;
    world.reconcile().await;
    assert_eq!(world.app.post_claim(&claim).await.unwrap(), receipt);
    assert_eq!(world.count("select count(*) from claims").await, 1);
    assert_eq!(world.count("select count(*) from claim_layers").await, 4);
}

#[tokio::test]
async fn a_claim_in_time_is_taken_up_to_the_last_millisecond() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    for (ms, taken) in [(parameters().heartbeat_ms - 1, true), (parameters().heartbeat_ms, false)] {
        world.submit().await;
        let grant = world.lease(&worker).await.unwrap();
        world.advance(ms).await;
        let claim = world.claim_for(&worker, &grant, &world.builder.build(Fault::None, 1));
        let answer = world.app.post_claim(&claim.to_bytes()).await;
        world.check().await;
        assert_eq!(answer.is_ok(), taken, "after {ms} ms: {answer:?}");
    }
}

#[tokio::test]
async fn every_field_of_a_claim_is_held_against_the_job() {
    let world = World::new().await;
    let (worker, other) = (world.worker("worker").await, world.worker("other").await);
    world.submit().await;
    let grant = world.lease(&worker).await.unwrap();
    let fixture = world.builder.build(Fault::None, 1);
    let right = world.claim_for(&worker, &grant, &fixture).body;
    let foreign = gainsay_commitment::TensorCommitment::from_bytes([1; 32]);

    type Twist = fn(&mut Claim);
    let twists: Vec<(Twist, ClaimFault)> = vec![
        (|claim| claim.coordinator = claim.worker, ClaimFault::Coordinator),
        (|claim| claim.model = gainsay_commitment::ModelId::from_bytes([1; 32]), ClaimFault::Model),
        (|claim| claim.input = gainsay_commitment::InputCommitment::from_bytes([1; 32]), ClaimFault::Input),
        (|claim| claim.trace = gainsay_commitment::TraceRoot::from_bytes([1; 32]), ClaimFault::TraceRoot),
        (|claim| claim.output[0] ^= 1, ClaimFault::OutputHash),
        (|claim| claim.layers.truncate(3), ClaimFault::LayerCount { expected: 4, found: 3 }),
    ];
    for (twist, expected) in twists {
        let mut claim = right.clone();
        twist(&mut claim);
        let answer = world.app.post_claim(&Signed::sign(claim, &worker.key).to_bytes()).await;
        assert!(matches!(&answer, Err(AppError::ClaimRefused(fault)) if *fault == expected), "{answer:?}");
    }
    let mut wrong_layer = right.clone();
    wrong_layer.layers[0] = foreign;
    let answer = world.app.post_claim(&Signed::sign(wrong_layer, &worker.key).to_bytes()).await;
    assert!(matches!(answer, Err(AppError::ClaimRefused(ClaimFault::TraceRoot))), "{answer:?}");

    // Another's lease, another's signature, nobody's signature, bytes that are no claim.
    let stolen = Claim { worker: other.id(), ..right.clone() };
    let answer = world.app.post_claim(&Signed::sign(stolen, &other.key).to_bytes()).await;
    assert!(matches!(answer, Err(AppError::UnknownLease(_))), "{answer:?}");
    let answer = world.app.post_claim(&Signed::sign(right.clone(), &other.key).to_bytes()).await;
    assert!(matches!(answer, Err(AppError::ClaimRefused(ClaimFault::Signer))), "{answer:?}");
    let mut bytes = Signed::sign(right.clone(), &worker.key).to_bytes();
    *bytes.last_mut().unwrap() ^= 1;
    assert!(matches!(world.app.post_claim(&bytes).await, Err(AppError::MalformedClaim(_))));
    assert!(matches!(world.app.post_claim(&bytes[1..]).await, Err(AppError::MalformedClaim(_))));
    let stranger = SecretKey::generate();
    let unknown = Claim { worker: stranger.id(), ..right.clone() };
    let answer = world.app.post_claim(&Signed::sign(unknown, &stranger).to_bytes()).await;
    assert!(matches!(answer, Err(AppError::UnknownParty { role: "worker", .. })), "{answer:?}");

    world.check().await;
    assert_eq!(world.count("select count(*) from claims").await, 0, "nothing of it was recorded");
    world.app.post_claim(&Signed::sign(right, &worker.key).to_bytes()).await.expect("the right one is taken");
}

#[tokio::test]
async fn a_second_claim_for_one_lease_convicts_without_dispute() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    let job = world.submit().await;
    let grant = world.lease(&worker).await.unwrap();
    let first = world.post(&worker, &grant, Fault::None).await;
    let second = world.claim_for(&worker, &grant, &world.builder.build(fault(&world.builder), 1));
    let answer = world.app.post_claim(&second.to_bytes()).await;
    assert!(matches!(answer, Err(AppError::Equivocation(lease)) if lease == grant.lease), "{answer:?}");
    world.check().await;

    let claim = world.app.claim(first.id).await.unwrap();
    assert_eq!(claim.finality, Finality::Revoked);
    assert_eq!(world.job(job).await.state, JobState::Submitted);
    assert_eq!(world.system("held").await, parameters().stake_per_job);
    let lost = FUNDS.0 - parameters().stake_per_job.0;
    assert_eq!(world.balance(worker.owner, "free").await, Amount(lost));
    let model = [world.toy().model.id()];
    let refused = world.app.lease(worker.id(), &model, std::time::Duration::ZERO).await;
    assert!(matches!(refused, Err(AppError::WorkerSuspended(_))));

    // Sending it again is no second crime.
    assert!(matches!(world.app.post_claim(&second.to_bytes()).await, Err(AppError::Equivocation(_))));
    world.check().await;
    assert_eq!(world.system("held").await, parameters().stake_per_job);

    // Nobody reported it but the worker itself, and nobody disputed it: the treasury gets the share, the worker nothing.
    let honest = world.worker("honest").await;
    let grant = world.lease(&honest).await.expect("the job goes to another owner");
    world.post(&honest, &grant, Fault::None).await;
    world.advance(parameters().hold_ms).await;
    world.reconcile().await;
    assert_eq!(world.system("held").await, Amount::ZERO);
    assert_eq!(world.balance(worker.owner, "free").await, Amount(lost));
    assert_eq!(world.job(job).await.state, JobState::Finalized);
}

/// The last statement of the transaction fails: as a crash between any two would, it leaves nothing.
#[tokio::test]
async fn a_claim_is_recorded_whole_or_not_at_all() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    let job = world.submit().await;
    let grant = world.lease(&worker).await.unwrap();
    let claim = world.claim_for(&worker, &grant, &world.builder.build(Fault::None, 1)).to_bytes();
    world.break_events("claim_posted").await;
    assert!(matches!(world.app.post_claim(&claim).await, Err(AppError::Store(_))));
    world.check().await;
    assert_eq!(world.job(job).await.state, JobState::Assigned);
    assert_eq!(world.count("select count(*) from claims").await, 0);
    world.mend_events().await;
    world.app.post_claim(&claim).await.expect("the same bytes are taken afterwards");
    world.check().await;
}

#[tokio::test]
async fn a_payment_happens_whole_or_not_at_all() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    let claimed = world.claimed(&worker, Fault::None).await;
    world.advance(parameters().window_ms).await;
    world.break_events("claim_finalized").await;
    assert!(world.app.finalize_claims().await.is_err());
    world.check().await;
    assert_eq!(world.app.claim(claimed.id).await.unwrap().finality, Finality::Pending);
    assert_eq!(world.count("select count(*) from ledger_transactions where event = 'finalize'").await, 0);
    world.mend_events().await;
    assert_eq!(world.reconcile().await.claims, 1);
    assert_eq!(world.count("select count(*) from ledger_transactions where event = 'finalize'").await, 1);
}

#[tokio::test]
async fn a_claim_cannot_be_settled_twice_whatever_code_runs() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    world.claimed(&worker, Fault::None).await;
    world.advance(parameters().window_ms).await;
    world.reconcile().await;
    for kind in ["paid", "slashed"] {
        let refused = sqlx::query(
            "insert into settlements select job_id, claim_id, $1, transaction_id, at_ms from settlements",
        )
        .bind(kind)
        .execute(&world.pool)
        .await
        .unwrap_err();
        let refused = refused.as_database_error().unwrap();
        assert_eq!(refused.constraint(), Some("settlements_pkey"), "{kind}");
    }
}
