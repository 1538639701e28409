use crate::support::World;

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
