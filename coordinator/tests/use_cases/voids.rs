//! A profile version that is withdrawn gives back everything that is undecided, and nothing that is decided.

use std::time::Duration;

use gainsay_commitment::{Canonical, Signature, Signed, TensorCommitment};
use gainsay_coordinator::app::{AppError, ClaimState, DisputeState, Finality, JobState};
use gainsay_coordinator::store::{disputes, models, voids};
use gainsay_program::ArithmeticProfile;
use gainsay_protocol::toy::Fault;
use gainsay_protocol::{Amount, Dispute, EvidenceBundle, Verdict, VoidStatement};
use gainsay_testkit::until;
use sqlx::Executor;

use crate::support::{FUNDS, PRICE, World, fault, parameters};

const F32: ArithmeticProfile = ArithmeticProfile::ExactF32V1;

fn wrong() -> TensorCommitment {
    TensorCommitment::from_bytes([5; 32])
}

#[tokio::test]
async fn every_stake_bond_and_price_goes_back_where_it_came_from() {
    let world = World::new().await;
    let names = ["paid", "honest", "cheat", "leaser"];
    let [paid, honest, cheat, leaser] = {
        let mut workers = Vec::new();
        for name in names {
            workers.push(world.worker(name).await);
        }
        <[_; 4]>::try_from(workers).ok().unwrap()
    };
    let (right, wrongly) = (world.challenger("right").await, world.challenger("wrongly").await);
    // Final before the withdrawal: it stays.
    let before = world.claimed(&paid, Fault::None).await;
    world.advance(parameters().window_ms).await;
    world.reconcile().await;
    // A conviction, whose stake is held; its job waits in the queue, then is pending with another worker.
    let convicted = world.claimed(&cheat, fault(&world.builder)).await;
    let conviction = convicted.open(&world, &convicted.opening(&right).unwrap()).await;
    convicted.play(&world, conviction, &cheat, &right).await;
    let grant = world.lease(&honest).await.unwrap();
    let pending = world.post(&honest, &grant, Fault::None).await;
    // A bond lost on it, and held; and a dispute on it whose referee has failed.
    let lost = pending.open(&world, &pending.opening_of(&wrongly, 1, wrong())).await;
    world
        .app
        .post_move(lost, &{
            let view = world.app.dispute(lost).await.unwrap();
            pending.next_move(&view, &honest, &wrongly).unwrap().to_bytes()
        })
        .await
        .unwrap();
    world.advance(parameters().challenger_allowance_ms).await;
    world.reconcile().await;
    let paused = pending.open(&world, &pending.opening_of(&right, 1, wrong())).await;
    let mut dispute = Dispute::from_bytes(&world.app.dispute(paused).await.unwrap().fold).unwrap();
    let entry = dispute.pause(world.app.now().await.unwrap()).unwrap();
    let mut conn = world.pool.acquire().await.unwrap();
    disputes::update(&mut conn, pending.job, &dispute).await.unwrap();
    disputes::append(&mut conn, pending.job, &entry, Signature::from_bytes([0; 64]), None).await.unwrap();
    // A lease, and a job that nobody has.
    let queued = world.submit().await;
    assert_eq!(world.lease(&leaser).await.unwrap().job, queued);
    let waiting = world.submit().await;

    let void = world.app.void_profile(F32, "the exponential was wrong in one case").await.unwrap();
    world.check().await;
    let signed = Signed::<VoidStatement>::from_bytes(&void.statement).unwrap();
    signed.verify().unwrap();
    assert_eq!((signed.signer, signed.body.arithmetic), (world.app.coordinator(), F32));
    assert_eq!(world.app.voids().await.unwrap(), std::slice::from_ref(&void));

    let stake = parameters().stake_per_job;
    for provider in [&honest, &cheat, &leaser, &right, &wrongly] {
        assert_eq!(world.balance(provider.owner, "free").await, FUNDS);
        assert_eq!(world.balance(provider.owner, "locked").await, Amount::ZERO);
    }
    let earned = PRICE.0 - PRICE.share(parameters().fee_ppm).0;
    assert_eq!(world.balance(paid.owner, "free").await, Amount(FUNDS.0 + earned));
    assert_eq!(world.balance(world.submitter, "free").await, Amount(FUNDS.0 - PRICE.0));
    for kind in ["escrow", "held"] {
        assert_eq!(world.system(kind).await, Amount::ZERO, "of a stake of {stake}");
    }
    assert_eq!(world.job(before.job).await.state, JobState::Finalized);
    for job in [pending.job, queued, waiting] {
        assert_eq!(world.job(job).await.state, JobState::Voided);
    }
    let claim = world.app.claim(pending.id).await.unwrap();
    assert_eq!((claim.state, claim.finality), (ClaimState::Voided, Finality::Revoked));
    assert_eq!(world.app.dispute(paused).await.unwrap().state, DisputeState::Ended(Verdict::Void));

    // What was decided before stays as evidence, and the conviction's author works again once others can be leased.
    let bundle = world.app.evidence(conviction).await.unwrap();
    assert_eq!(
        EvidenceBundle::from_bytes(&bundle).unwrap().rejudge().unwrap().outcome.verdict,
        Verdict::ChallengerWins
    );
    let asked = world.app.lease(cheat.id(), &[world.toy().model.id()], Duration::ZERO).await;
    assert!(matches!(asked, Ok(None)), "reinstated, and nothing to do: {asked:?}");
    world.advance(10 * parameters().hold_ms).await;
    world.reconcile().await;
    assert_eq!(world.app.void_profile(F32, "another reason").await.unwrap(), void, "once is enough");
}

/// Two claims for one lease are guilt that no arithmetic explains.
#[tokio::test]
async fn a_withdrawal_does_not_give_back_what_equivocation_cost() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    world.submit().await;
    let grant = world.lease(&worker).await.unwrap();
    world.post(&worker, &grant, Fault::None).await;
    let second = world.claim_for(&worker, &grant, &world.builder.build(fault(&world.builder), 1));
    assert!(matches!(world.app.post_claim(&second.to_bytes()).await, Err(AppError::Equivocation(_))));
    world.app.void_profile(F32, "a fault").await.unwrap();
    world.check().await;
    let stake = parameters().stake_per_job;
    assert_eq!(world.system("held").await, stake);
    world.advance(parameters().hold_ms).await;
    assert_eq!(world.reconcile().await.holds, 1);
    assert_eq!(world.balance(worker.owner, "free").await, Amount(FUNDS.0 - stake.0));
    let asked = world.app.lease(worker.id(), &[world.toy().model.id()], Duration::ZERO).await;
    assert!(matches!(asked, Err(AppError::WorkerSuspended(_))), "{asked:?}");
}

/// The round that makes claims final has read them when the withdrawal is committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_made_final_of_a_profile_that_is_being_withdrawn() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    let claimed = world.claimed(&worker, Fault::None).await;
    world.advance(parameters().window_ms).await;
    let mut withdrawal = world.pool.begin().await.unwrap();
    voids::lock(&mut withdrawal).await.unwrap();
    models::withdraw(&mut withdrawal, &[world.toy().model.id()]).await.unwrap();
    let app = world.app.clone();
    let round = tokio::spawn(async move { app.finalize_claims().await });
    let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted
        and database = (select oid from pg_database where datname = current_database())";
    until("the round waits for the withdrawal", async || {
        (round.is_finished() || world.count(waits).await == 1).then_some(())
    })
    .await;
    withdrawal.commit().await.unwrap();
    assert_eq!(round.await.unwrap().unwrap(), 0);
    assert_eq!(world.app.claim(claimed.id).await.unwrap().state, ClaimState::Pending);
    assert_eq!(world.reconcile().await.voided, 1);
    assert_eq!(world.balance(worker.owner, "free").await, FUNDS);
}

/// The rules for manifests may become stricter, and what is on record stays on record.
#[tokio::test]
async fn a_manifest_of_long_ago_keeps_neither_models_from_the_list_nor_profiles_from_withdrawal() {
    let world = World::new().await;
    world
        .pool
        .execute(
            "insert into models (model_id, name, manifest, state, registered_ms)
                values (sha256('old'), 'old', 'of another age', 'serving', 0)",
        )
        .await
        .unwrap();
    let listed = world.app.models().await.unwrap();
    assert_eq!(listed.iter().map(|model| model.id).collect::<Vec<_>>(), [world.toy().model.id()]);
    world.app.void_profile(F32, "a fault").await.unwrap();
    assert!(!world.app.model(world.toy().model.id()).await.unwrap().is_serving());
}

#[tokio::test]
async fn a_voided_dispute_judges_again_to_what_it_was() {
    let world = World::new().await;
    let (worker, challenger) = (world.worker("worker").await, world.challenger("challenger").await);
    let claimed = world.claimed(&worker, Fault::None).await;
    let id = claimed.open(&world, &claimed.opening_of(&challenger, 1, wrong())).await;
    world.app.void_profile(F32, "a fault").await.unwrap();
    world.check().await;
    let bundle = EvidenceBundle::from_bytes(&world.app.evidence(id).await.unwrap()).unwrap();
    assert_eq!(bundle.rejudge().unwrap().outcome.verdict, Verdict::Void);
}

#[tokio::test]
async fn a_withdrawn_profile_takes_neither_jobs_nor_models_nor_leases() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    world.app.void_profile(F32, "a fault").await.unwrap();
    let model = world.toy().model.id();
    let input = world.builder.build(Fault::None, 0).job().embedding_input().unwrap().clone();
    let refused = world.app.submit_job(world.submitter, model, input).await;
    assert!(matches!(refused, Err(AppError::ProfileVoided { arithmetic: "exact-f32/1" })), "{refused:?}");
    let manifest = world.toy().model.manifest().to_bytes();
    let refused = world.app.register_model(model, &manifest).await;
    assert!(matches!(refused, Err(AppError::ProfileVoided { .. })), "{refused:?}");
    assert!(world.lease(&worker).await.is_none());
    let too_long = "x".repeat(1_001);
    for reason in ["", "two\nlines", too_long.as_str()] {
        let refused = world.app.void_profile(ArithmeticProfile::ExactInt8V1, reason).await;
        assert!(matches!(refused, Err(AppError::InvalidReason { .. })), "{refused:?}");
    }
    assert_eq!(world.app.voids().await.unwrap().len(), 1);
}

/// The statement is out and the coordinator dies: another one goes on, and nothing is paid meanwhile.
#[tokio::test]
async fn giving_back_goes_on_where_it_stopped() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    let claimed = world.claimed(&worker, Fault::None).await;
    let waiting = world.submit().await;
    world.break_events("job_voided").await;
    let failed = world.app.void_profile(F32, "a fault").await;
    assert!(failed.is_err(), "{failed:?}");
    world.advance(parameters().window_ms).await;
    assert_eq!(world.app.finalize_claims().await.unwrap(), 0, "what is withdrawn is not paid");
    assert!(world.lease(&worker).await.is_none());
    world.mend_events().await;
    assert_eq!(world.reconcile().await.voided, 2);
    assert_eq!(world.reconcile().await.voided, 0);
    for job in [claimed.job, waiting] {
        assert_eq!(world.job(job).await.state, JobState::Voided);
    }
    assert_eq!(world.balance(worker.owner, "free").await, FUNDS);
}

/// A job whose submission had begun when the profile was withdrawn is found later.
#[tokio::test]
async fn a_job_that_slips_in_is_given_back_too() {
    let world = World::new().await;
    world.app.void_profile(F32, "a fault").await.unwrap();
    world.pool.execute("update models set state = 'serving'").await.unwrap();
    let job = world.submit().await;
    world.pool.execute("update models set state = 'voided'").await.unwrap();
    world.reconcile().await;
    assert_eq!(world.job(job).await.state, JobState::Voided);
    assert_eq!(world.balance(world.submitter, "free").await, FUNDS);
}
