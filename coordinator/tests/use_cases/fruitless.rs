//! Leases that end without a claim: what they cost, who may have the job next, and when it is given up.

use gainsay_coordinator::app::{AppError, GivenUp, JobState};
use gainsay_protocol::toy::Fault;
use gainsay_protocol::{Amount, LeaseId};

use crate::support::{FUNDS, PRICE, Party, World, parameters};

const TOO_LARGE: GivenUp = GivenUp { reason: "too_large", is_for_good: true };
const SHUTTING_DOWN: GivenUp = GivenUp { reason: "shutting_down", is_for_good: false };

async fn free(world: &World, party: &Party) -> Amount {
    world.balance(party.owner, "free").await
}

#[tokio::test]
async fn a_lease_handed_back_soon_costs_nothing_and_its_job_goes_to_another() {
    let world = World::new().await;
    let (small, large) = (world.worker("small").await, world.worker("large").await);
    let job = world.submit().await;
    let grant = world.lease(&small).await.unwrap();
    world.advance(parameters().heartbeat_ms - 1).await;
    for _ in 0..2 {
        let fee = world.app.return_lease(small.id(), grant.lease, TOO_LARGE).await;
        assert_eq!(fee.unwrap(), Amount::ZERO, "the same again is answered the same");
        world.check().await;
    }
    assert_eq!(free(&world, &small).await, FUNDS, "the stake is back");
    assert_eq!(world.job(job).await.state, JobState::Submitted);
    world.advance(10 * parameters().lease_ms).await;
    assert!(world.lease(&small).await.is_none(), "what is too large for it is not offered again");
    let grant = world.lease(&large).await.unwrap();
    assert_eq!(grant.job, job);
}

/// Whoever shuts down comes back: where it is the only worker, its jobs must not wait for ever.
#[tokio::test]
async fn a_job_handed_back_or_lost_goes_to_others_first_and_comes_back_after_a_pause() {
    let world = World::new().await;
    let (worker, other) = (world.worker("worker").await, world.worker("other").await);
    let job = world.submit().await;
    let grant = world.lease(&worker).await.unwrap();
    world.app.return_lease(worker.id(), grant.lease, SHUTTING_DOWN).await.unwrap();
    world.advance(parameters().lease_ms - 1).await;
    assert!(world.lease(&worker).await.is_none(), "others come first");
    world.advance(1).await;
    let grant = world.lease(&worker).await.unwrap();
    world.advance(parameters().heartbeat_ms).await;
    assert_eq!(world.reconcile().await.leases, 1);
    assert!(world.lease(&worker).await.is_none(), "others come first");
    let refused = world.app.return_lease(worker.id(), grant.lease, SHUTTING_DOWN).await;
    assert!(matches!(refused, Err(AppError::LeaseOver(_))), "lost, and paid for");
    assert_eq!(world.lease(&other).await.unwrap().job, job);
}

#[tokio::test]
async fn only_its_worker_hands_a_lease_back_and_only_while_it_is_held() {
    let world = World::new().await;
    let (worker, other) = (world.worker("worker").await, world.worker("other").await);
    world.submit().await;
    let grant = world.lease(&worker).await.unwrap();
    for (party, lease) in [(&other, grant.lease), (&worker, LeaseId([7; 16]))] {
        let refused = world.app.return_lease(party.id(), lease, TOO_LARGE).await;
        assert!(matches!(refused, Err(AppError::UnknownLease(_))), "{refused:?}");
    }
    world.post(&worker, &grant, Fault::None).await;
    let refused = world.app.return_lease(worker.id(), grant.lease, TOO_LARGE).await;
    assert!(matches!(refused, Err(AppError::LeaseOver(_))), "a claim is not taken back: {refused:?}");
    world.check().await;
}

/// Nobody may keep a job from the others for hours at the price of a minute.
#[tokio::test]
async fn holding_a_job_for_nothing_costs_its_price_for_the_time_that_it_was_held() {
    let p = parameters();
    let world = World::new().await;
    for is_lost in [true, false] {
        let worker = world.worker(if is_lost { "loser" } else { "returner" }).await;
        world.submit().await;
        let grant = world.lease(&worker).await.unwrap();
        // Three quarters of the lease, kept by heartbeats.
        for _ in 0..3 {
            world.advance(p.heartbeat_ms - 1).await;
            world.app.heartbeat(worker.id(), grant.lease).await.unwrap();
        }
        let held = 3 * (p.heartbeat_ms - 1);
        let longest = grant.deadline.0 - grant.expires.0 + p.heartbeat_ms as i64;
        let beyond = |held: u64| (held - p.heartbeat_ms) as i64 * PRICE.0 / longest;
        let fee = if is_lost {
            world.advance(p.lease_ms).await;
            assert_eq!(world.reconcile().await.leases, 1);
            p.lost_lease_fee.0 + beyond(held + p.heartbeat_ms)
        } else {
            let fee = world.app.return_lease(worker.id(), grant.lease, SHUTTING_DOWN).await.unwrap();
            let again = world.app.return_lease(worker.id(), grant.lease, SHUTTING_DOWN).await.unwrap();
            assert_eq!((fee.0, again), (beyond(held), fee));
            fee.0
        };
        assert!(fee > 0);
        assert_eq!(free(&world, &worker).await, Amount(FUNDS.0 - fee));
        world.check().await;
    }
}

/// A job that no worker can run must not go round for ever: its submitter has its money back, and learns of it.
#[tokio::test]
async fn a_job_whose_leases_all_end_without_a_claim_is_refunded() {
    let world = World::with(|config| config.parameters.lease_attempts = 3).await;
    let job = world.submit().await;
    // What cost nothing does not count: else whoever comes under many names could end any job for nothing.
    for (name, is_lost) in [("one", true), ("two", false), ("three", true), ("four", false), ("five", true)] {
        assert_eq!(world.job(job).await.state, JobState::Submitted);
        let worker = world.worker(name).await;
        let grant = world.lease(&worker).await.unwrap();
        if is_lost {
            world.advance(parameters().heartbeat_ms).await;
            assert_eq!(world.reconcile().await.leases, 1);
        } else {
            world.app.return_lease(worker.id(), grant.lease, TOO_LARGE).await.unwrap();
        }
        world.check().await;
    }
    assert_eq!(world.job(job).await.state, JobState::Refunded);
    assert_eq!(world.balance(world.submitter, "free").await, FUNDS);
    let told = "select count(*) from events where kind = 'job_refunded' and details->>'leases' = '3'";
    assert_eq!(world.count(told).await, 1);
}

/// A worker that is kept busy by a job too long for it pays once, not until its submitter has its money back.
#[tokio::test]
async fn a_job_that_is_too_long_for_a_worker_does_not_come_back_to_it() {
    let p = parameters();
    let world = World::new().await;
    let (slow, other) = (world.worker("slow").await, world.worker("other").await);
    let job = world.submit().await;
    let grant = world.lease(&slow).await.unwrap();
    let mut kept = grant.expires;
    while kept < grant.deadline {
        world.advance(p.heartbeat_ms - 1).await;
        (kept, _) = world.app.heartbeat(slow.id(), grant.lease).await.unwrap();
    }
    world.advance(p.heartbeat_ms).await;
    assert_eq!(world.reconcile().await.leases, 1);
    world.advance(100 * p.lease_ms).await;
    assert!(world.lease(&slow).await.is_none());
    assert_eq!(world.lease(&other).await.unwrap().job, job);
}
