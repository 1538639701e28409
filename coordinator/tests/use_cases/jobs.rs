use std::collections::HashSet;
use std::time::Duration;

use gainsay_coordinator::app::{AppError, Finality, JobState};
use gainsay_protocol::toy::Fault;
use gainsay_protocol::{Amount, LeaseId, OwnerId};

use crate::support::{FUNDS, PRICE, World, parameters};

#[tokio::test]
async fn an_honest_answer_is_delivered_at_once_and_paid_when_its_window_has_passed() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    let job = world.submit().await;
    assert_eq!(world.job(job).await.state, JobState::Submitted);
    assert_eq!(world.balance(world.submitter, "free").await, Amount(FUNDS.0 - PRICE.0));
    assert_eq!(world.system("escrow").await, PRICE);

    let grant = world.lease(&worker).await.expect("the job is leased");
    assert_eq!(grant.job, job);
    assert_eq!(world.job(job).await.state, JobState::Assigned);
    assert_eq!(world.balance(worker.owner, "locked").await, parameters().stake_per_job);

    let claimed = world.post(&worker, &grant, Fault::None).await;
    let view = world.job(job).await;
    assert_eq!(view.state, JobState::Claimed);
    let answer = view.claim.expect("the claim");
    assert_eq!((answer.id, answer.finality), (claimed.id, Finality::Pending));
    assert_eq!(answer.output, claimed.claim.body.output);

    // One millisecond before the window closes nothing is final.
    world.advance(parameters().window_ms - 1).await;
    assert_eq!(world.reconcile().await.claims, 0);
    assert_eq!(world.job(job).await.state, JobState::Claimed);
    world.advance(1).await;
    assert_eq!(world.reconcile().await.claims, 1);

    let view = world.job(job).await;
    assert_eq!((view.state, view.claim.unwrap().finality), (JobState::Finalized, Finality::Final));
    let fee = PRICE.share(parameters().fee_ppm);
    assert_eq!(world.balance(worker.owner, "free").await, Amount(FUNDS.0 + PRICE.0 - fee.0));
    assert_eq!(world.balance(worker.owner, "locked").await, Amount::ZERO);
    assert_eq!(world.system("treasury").await, fee);
    let receipt = world.app.receipt(world.submitter, job).await.unwrap();
    assert_eq!((receipt.paid_worker.0, receipt.paid_fee), (PRICE.0 - fee.0, fee));
    assert_eq!(receipt.returned, Amount::ZERO);
    receipt.claim.receipt.verify().expect("the coordinator's countersignature");
    assert_eq!(receipt.claim.layers, claimed.claim.body.layers);
}

#[tokio::test]
async fn a_claim_is_paid_once_however_many_coordinators_finalize_it() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    for _ in 0..8 {
        world.claimed(&worker, Fault::None).await;
    }
    let others = [world.second_coordinator().await, world.second_coordinator().await];
    world.advance(parameters().window_ms).await;
    let rounds = tokio::join!(
        world.app.finalize_claims(),
        others[0].finalize_claims(),
        others[1].finalize_claims(),
        world.app.finalize_claims()
    );
    rounds.0.unwrap();
    rounds.1.unwrap();
    rounds.2.unwrap();
    rounds.3.unwrap();
    // What one passed over because another held it is found by the next round.
    world.reconcile().await;
    assert_eq!(world.count("select count(*) from ledger_transactions where event = 'finalize'").await, 8);
    assert_eq!(world.count("select count(*) from settlements where kind = 'paid'").await, 8);
    let fee = PRICE.share(parameters().fee_ppm).0;
    assert_eq!(world.balance(worker.owner, "free").await, Amount(FUNDS.0 + 8 * (PRICE.0 - fee)));
}

#[tokio::test]
async fn batches_leave_nothing_behind() {
    let world = World::with(|config| config.limits.reconcile_batch = 2).await;
    let worker = world.worker("worker").await;
    for _ in 0..5 {
        world.claimed(&worker, Fault::None).await;
    }
    world.advance(parameters().window_ms).await;
    assert_eq!(world.reconcile().await.claims, 5);
    assert_eq!(world.count("select count(*) from jobs where state = 'finalized'").await, 5);
}

#[tokio::test]
async fn a_job_that_nobody_has_can_be_withdrawn_and_one_that_somebody_has_cannot() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    let job = world.submit().await;
    world.app.cancel_job(world.submitter, job).await.unwrap();
    // Sent again, since its answer was lost.
    let cancelled = world.app.cancel_job(world.submitter, job).await.unwrap();
    world.check().await;
    assert_eq!(cancelled.state, JobState::Cancelled);
    assert_eq!(world.balance(world.submitter, "free").await, FUNDS);
    assert!(world.lease(&worker).await.is_none(), "a cancelled job is not leased");

    let job = world.submit().await;
    let grant = world.lease(&worker).await.unwrap();
    let refused = world.app.cancel_job(world.submitter, job).await;
    assert!(matches!(refused, Err(AppError::NotCancellable { state: "assigned", .. })));
    world.post(&worker, &grant, Fault::None).await;
    let refused = world.app.cancel_job(world.submitter, job).await;
    assert!(matches!(refused, Err(AppError::NotCancellable { state: "claimed", .. })));
    let foreign = world.app.cancel_job(worker.owner, job).await;
    assert!(matches!(foreign, Err(AppError::UnknownJob(_))));
}

#[tokio::test]
async fn a_submitter_without_money_submits_nothing() {
    let world = World::new().await;
    let (poor, _) = world.app.register_submitter("poor").await.unwrap();
    world.app.deposit(poor.id, Amount(PRICE.0 - 1)).await.unwrap();
    let input = world.toy().job(1, &[3]);
    let model = world.toy().model.id();
    let refused = world.app.submit_job(poor.id, model, input.clone()).await;
    assert!(matches!(refused, Err(AppError::InsufficientFunds { needed: PRICE, .. })));
    world.check().await;
    assert_eq!(world.count("select count(*) from jobs").await, 0);
    world.app.deposit(poor.id, Amount(1)).await.unwrap();
    world.app.submit_job(poor.id, model, input).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn jobs_submitted_together_are_queued_all_or_none() {
    let world = World::new().await;
    let model = world.toy().model.id();
    let inputs = || (0..3).map(|seed| world.toy().job(seed, &[3])).collect::<Vec<_>>();
    let jobs = world.app.submit_jobs(world.submitter, model, inputs(), None).await.unwrap();
    world.check().await;
    assert_eq!(jobs.len(), 3);
    assert_eq!(world.balance(world.submitter, "free").await, Amount(FUNDS.0 - 3 * PRICE.0));

    let left = Amount(FUNDS.0 - 6 * PRICE.0 + 1);
    world.app.withdraw(world.submitter, left).await.unwrap();
    let refused = world.app.submit_jobs(world.submitter, model, inputs(), None).await;
    assert!(matches!(refused, Err(AppError::InsufficientFunds { .. })), "two of them would fit: {refused:?}");
    world.check().await;
    assert_eq!(world.count("select count(*) from jobs").await, 3);
}

#[tokio::test]
async fn undecided_jobs_are_limited_per_submitter() {
    let world = World::with(|config| config.limits.jobs_per_submitter = 2).await;
    world.submit().await;
    let job = world.submit().await;
    let input = world.toy().job(1, &[3]);
    let refused = world.app.submit_job(world.submitter, world.toy().model.id(), input).await;
    assert!(matches!(refused, Err(AppError::LimitReached { limit: 2, .. })));
    world.app.cancel_job(world.submitter, job).await.unwrap();
    world.submit().await;
}

#[tokio::test]
async fn workers_that_ask_at_once_get_different_jobs() {
    let world = World::new().await;
    let mut workers = Vec::new();
    for index in 0..4 {
        workers.push(world.worker(&format!("worker {index}")).await);
    }
    for _ in 0..10 {
        world.submit().await;
    }
    let model = world.toy().model.id();
    let asks = (0..12).map(|index| {
        let (app, worker) = (world.app.clone(), workers[index % workers.len()].id());
        tokio::spawn(async move { app.lease(worker, &[model], Duration::ZERO).await.unwrap() })
    });
    let mut leased = Vec::new();
    for ask in asks.collect::<Vec<_>>() {
        leased.extend(ask.await.unwrap());
    }
    world.check().await;
    // Whoever came while others held the rest of the queue went away empty; none is lost.
    while let Some(grant) = world.lease(&workers[0]).await {
        leased.push(grant);
    }
    let jobs: HashSet<_> = leased.iter().map(|grant| grant.job).collect();
    assert_eq!((jobs.len(), leased.len()), (10, 10));
}

/// A job on which every worker fails must not keep the others from theirs for ever.
#[tokio::test]
async fn the_oldest_job_comes_first_and_goes_to_the_end_when_its_lease_is_lost() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    let first = world.submit().await;
    world.advance(10).await;
    let second = world.submit().await;
    let grant = world.lease(&worker).await.unwrap();
    assert_eq!(grant.job, first);
    world.advance(parameters().heartbeat_ms).await;
    assert_eq!(world.reconcile().await.leases, 1);
    let other = world.worker("other").await;
    assert_eq!(world.lease(&other).await.unwrap().job, second);
    assert_eq!(world.lease(&other).await.unwrap().job, first);
}

#[tokio::test]
async fn a_silent_worker_loses_its_lease_and_a_fee_and_no_more() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    let job = world.submit().await;
    let grant = world.lease(&worker).await.unwrap();
    world.advance(parameters().heartbeat_ms - 1).await;
    assert_eq!(world.reconcile().await.leases, 0, "a millisecond early");
    world.advance(1).await;
    assert_eq!(world.reconcile().await.leases, 1);
    let fee = parameters().lost_lease_fee;
    assert_eq!(world.balance(worker.owner, "free").await, Amount(FUNDS.0 - fee.0));
    assert_eq!(world.balance(worker.owner, "locked").await, Amount::ZERO);
    assert_eq!(world.system("treasury").await, fee);
    let view = world.job(job).await;
    assert_eq!((view.state, view.attempts), (JobState::Submitted, 0), "a lost lease is no attempt");

    let late = world.claim_for(&worker, &grant, &world.builder.build(Fault::None, 1));
    let refused = world.app.post_claim(&late.to_bytes()).await;
    assert!(matches!(refused, Err(AppError::LeaseOver(id)) if id == grant.lease), "{refused:?}");
    let refused = world.app.heartbeat(worker.id(), grant.lease).await;
    assert!(matches!(refused, Err(AppError::LeaseOver(_))));
    assert_eq!(world.reconcile().await.leases, 0, "charged once");
}

#[tokio::test]
async fn coordinators_that_reclaim_the_same_lease_charge_once() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    for _ in 0..4 {
        world.submit().await;
        world.lease(&worker).await.unwrap();
    }
    let other = world.second_coordinator().await;
    world.advance(parameters().heartbeat_ms).await;
    let (one, two) = tokio::join!(world.app.reclaim_leases(), other.reclaim_leases());
    one.unwrap();
    two.unwrap();
    world.check().await;
    assert_eq!(world.system("treasury").await, Amount(4 * parameters().lost_lease_fee.0));
}

#[tokio::test]
async fn heartbeats_keep_a_lease_until_its_deadline() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    world.submit().await;
    let grant = world.lease(&worker).await.unwrap();
    let mut expires = grant.expires;
    while expires < grant.deadline {
        world.advance(parameters().heartbeat_ms - 1).await;
        assert_eq!(world.reconcile().await.leases, 0);
        let (next, deadline) = world.app.heartbeat(worker.id(), grant.lease).await.unwrap();
        assert!(next <= deadline && deadline == grant.deadline);
        expires = next;
    }
    let left = expires.since(world.app.now().await.unwrap());
    world.advance(left - 1).await;
    assert_eq!(world.app.heartbeat(worker.id(), grant.lease).await.unwrap().0, grant.deadline);
    world.advance(1).await;
    // Over at this very millisecond, although nobody has taken it back yet.
    let refused = world.app.heartbeat(worker.id(), grant.lease).await;
    assert!(matches!(refused, Err(AppError::LeaseOver(_))));
    assert_eq!(world.reconcile().await.leases, 1);
}

#[tokio::test]
async fn leases_belong_to_their_worker() {
    let world = World::new().await;
    let (worker, other) = (world.worker("worker").await, world.worker("other").await);
    world.submit().await;
    let grant = world.lease(&worker).await.unwrap();
    let refused = world.app.heartbeat(other.id(), grant.lease).await;
    assert!(matches!(refused, Err(AppError::UnknownLease(_))));
    let refused = world.app.heartbeat(worker.id(), LeaseId([5; 16])).await;
    assert!(matches!(refused, Err(AppError::UnknownLease(_))));
    let stranger = gainsay_commitment::SecretKey::generate().id();
    let refused = world.app.lease(stranger, &[], Duration::ZERO).await;
    assert!(matches!(refused, Err(AppError::UnknownParty { role: "worker", .. })));
}

#[tokio::test]
async fn without_free_stake_there_is_no_work() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    let stake = parameters().stake_per_job;
    let left = Amount(stake.0 - 1);
    world.app.withdraw(worker.owner, Amount(FUNDS.0 - left.0)).await.unwrap();
    world.submit().await;
    let refused = world.app.lease(worker.id(), &[world.toy().model.id()], Duration::ZERO).await;
    assert!(matches!(refused, Err(AppError::InsufficientFunds { .. })), "{refused:?}");
    world.check().await;
    world.app.deposit(worker.owner, Amount(1)).await.unwrap();
    assert!(world.lease(&worker).await.is_some());
    // The same stake does not back a second lease.
    world.submit().await;
    let refused = world.app.lease(worker.id(), &[world.toy().model.id()], Duration::ZERO).await;
    assert!(matches!(refused, Err(AppError::InsufficientFunds { .. })));
    let refused = world.app.withdraw(worker.owner, Amount(1)).await;
    assert!(matches!(refused, Err(AppError::InsufficientFunds { available: Amount::ZERO, .. })));
    world.check().await;
}

/// A false answer must cost more than false answers earn while they are not found, however dear the job is; and a job that is
/// too dear for one worker must neither keep it from cheaper ones nor be lost.
#[tokio::test]
async fn a_dear_job_needs_more_stake_and_is_left_for_those_who_have_it() {
    let mut world = World::with(|config| config.prices.per_job = Amount(30 * PRICE.0)).await;
    let dear = world.submit().await;
    let needed = parameters().stake(Amount(30 * PRICE.0));
    assert_eq!(needed, Amount(1_200 * PRICE.0), "forty times its price");
    world.change_price(PRICE).await;
    let cheap = world.submit().await;
    let (poor, rich) = (world.worker("poor").await, world.worker("rich").await);
    world.app.deposit(rich.owner, Amount(needed.0 - FUNDS.0)).await.unwrap();
    let grant = world.lease(&poor).await.unwrap();
    assert_eq!((grant.job, grant.stake), (cheap, parameters().stake_per_job));
    assert!(world.lease(&poor).await.is_none(), "too dear for it");
    let grant = world.lease(&rich).await.unwrap();
    assert_eq!((grant.job, grant.stake), (dear, needed));
    assert_eq!(world.balance(rich.owner, "locked").await, needed);
    world.advance(parameters().heartbeat_ms).await;
    world.reconcile().await;
    let left = Amount(needed.0 - parameters().lost_lease_fee.0);
    assert_eq!(world.balance(rich.owner, "free").await, left, "what was locked comes back, less the fee");
}

#[tokio::test]
async fn a_worker_holds_so_many_leases_and_no_more() {
    let world = World::with(|config| config.limits.leases_per_worker = 1).await;
    let worker = world.worker("worker").await;
    world.submit().await;
    world.submit().await;
    let grant = world.lease(&worker).await.unwrap();
    let refused = world.app.lease(worker.id(), &[world.toy().model.id()], Duration::ZERO).await;
    assert!(matches!(refused, Err(AppError::LimitReached { limit: 1, .. })));
    world.post(&worker, &grant, Fault::None).await;
    assert!(world.lease(&worker).await.is_some());
}

#[tokio::test]
async fn those_who_wait_are_woken() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    let (app, id, model) = (world.app.clone(), worker.id(), world.toy().model.id());
    let waiting = tokio::spawn(async move { app.lease(id, &[model], Duration::from_secs(60)).await });
    let job = world.submit().await;
    let grant = waiting.await.unwrap().unwrap().expect("woken with the job");
    assert_eq!(grant.job, job);

    let (app, submitter) = (world.app.clone(), world.submitter);
    let waiting =
        tokio::spawn(async move { app.wait_for_result(submitter, job, Duration::from_secs(60)).await });
    world.post(&worker, &grant, Fault::None).await;
    assert_eq!(waiting.await.unwrap().unwrap().state, JobState::Claimed);
    let soon = world.app.wait_for_result(world.submitter, world.submit().await, Duration::ZERO).await;
    assert_eq!(soon.unwrap().state, JobState::Submitted, "as it stands when nothing happened");
}

#[tokio::test]
async fn a_job_is_its_submitters_alone() {
    let world = World::new().await;
    let job = world.submit().await;
    let stranger = OwnerId([1; 16]);
    assert!(matches!(world.app.job(stranger, job).await, Err(AppError::UnknownJob(_))));
    assert!(matches!(world.app.receipt(stranger, job).await, Err(AppError::UnknownJob(_))));
    assert!(matches!(world.app.receipt(world.submitter, job).await, Err(AppError::NoReceipt(_))));
    assert!(world.app.jobs(stranger, 10).await.unwrap().is_empty());
    let newest = world.submit().await;
    let listed: Vec<_> =
        world.app.jobs(world.submitter, 10).await.unwrap().iter().map(|job| job.id).collect();
    assert_eq!(listed, [newest, job]);
}
