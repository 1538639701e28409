use gainsay_coordinator::reconcile::Round;
use gainsay_protocol::toy::Fault;

use crate::support::{World, parameters};

#[tokio::test]
async fn several_coordinators_do_not_make_time_faster() {
    let world = World::new().await;
    let other = world.second_coordinator().await;
    let elapsed = "select (extract(epoch from clock_timestamp()) * 1000)::bigint";
    world.app.tick().await.unwrap();
    let (start, from) = (world.count(elapsed).await, world.app.now().await.unwrap().0);
    for _ in 0..20 {
        let (one, two) = tokio::join!(world.app.tick(), other.tick());
        one.unwrap();
        two.unwrap();
    }
    let (end, to) = (world.count(elapsed).await, other.now().await.unwrap().0);
    assert!(to - from <= end - start + 1, "service time went {} ms in {} ms", to - from, end - start);
}

#[tokio::test]
async fn an_outage_counts_two_seconds_at_most() {
    let world = World::new().await;
    let before = world.app.now().await.unwrap().0;
    sqlx::query("update service_clock set advanced_at = clock_timestamp() - interval '1 day'")
        .execute(&world.pool)
        .await
        .unwrap();
    assert_eq!(world.app.tick().await.unwrap().0, before + 2_000);
}

#[tokio::test]
async fn time_never_runs_backwards() {
    let world = World::new().await;
    // The database's own clock was set back by a day.
    sqlx::query("update service_clock set advanced_at = clock_timestamp() + interval '1 day'")
        .execute(&world.pool)
        .await
        .unwrap();
    let before = world.app.now().await.unwrap();
    assert_eq!(world.app.tick().await.unwrap(), before);
    world.advance(5).await;
    for statement in ["update service_clock set now_ms = now_ms - 1", "delete from service_clock"] {
        assert!(sqlx::query(statement).execute(&world.pool).await.is_err(), "{statement}");
    }
}

/// Every coordinator was away for a day: nobody could move, so nobody has lost anything.
#[tokio::test]
async fn an_outage_closes_no_window_loses_no_lease_and_spends_no_clock() {
    let world = World::new().await;
    let (worker, challenger) = (world.worker("worker").await, world.challenger("challenger").await);
    let claimed = world.claimed(&worker, Fault::None).await;
    let wrong = gainsay_commitment::TensorCommitment::from_bytes([5; 32]);
    let dispute = claimed.open(&world, &claimed.opening_of(&challenger, 1, wrong)).await;
    world.submit().await;
    let grant = world.lease(&worker).await.unwrap();
    let before = world.app.now().await.unwrap();
    sqlx::query("update service_clock set advanced_at = clock_timestamp() - interval '1 day'")
        .execute(&world.pool)
        .await
        .unwrap();
    let other = world.second_coordinator().await;
    let (one, two) = tokio::join!(world.app.tick(), other.tick());
    assert!(
        one.unwrap().max(two.unwrap()) <= before.plus(2_100),
        "both woke up, and the day counts two seconds"
    );
    assert_eq!(world.reconcile().await, Round::default(), "nothing is due");

    // Everybody goes on where it stood, with what was left on its clock.
    world.app.heartbeat(worker.id(), grant.lease).await.unwrap();
    let view = world.app.dispute(dispute).await.unwrap();
    assert_eq!(view.deadline, Some(view.opened_at.plus(parameters().worker_allowance_ms)));
    let reply = claimed.next_move(&view, &worker, &challenger).unwrap();
    world.app.post_move(dispute, &reply.to_bytes()).await.unwrap();
    world.check().await;
}
