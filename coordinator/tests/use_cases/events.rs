use std::str::FromStr;

use gainsay_coordinator::app::{Event, EventCursor};
use gainsay_protocol::OwnerId;
use gainsay_protocol::toy::Fault;

use crate::support::World;

/// Waits for what older transactions of the shared server hold back.
async fn next(world: &World, cursor: EventCursor) -> Vec<Event> {
    loop {
        let events = world.app.events_after(cursor, 100).await.unwrap();
        if !events.is_empty() {
            return events;
        }
        tokio::task::yield_now().await;
    }
}

/// Reads on until an event satisfies the condition.
async fn read_until(world: &World, mut cursor: EventCursor, last: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut seen: Vec<Event> = Vec::new();
    while !seen.iter().any(&last) {
        let events = next(world, cursor).await;
        cursor = events.last().unwrap().cursor;
        seen.extend(events);
    }
    seen
}

fn deposit_to(owner: OwnerId) -> impl Fn(&Event) -> bool {
    move |event| event.kind == "deposited" && event.details["owner"] == owner.to_string()
}

#[tokio::test]
async fn the_log_tells_a_jobs_life_in_order_and_from_any_place() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    let claimed = world.claimed(&worker, Fault::None).await;
    let seen = read_until(&world, EventCursor::START, |event| event.kind == "claim_posted").await;
    let of_job: Vec<_> =
        seen.iter().filter(|event| event.job == Some(claimed.job)).map(|event| event.kind.as_str()).collect();
    assert_eq!(of_job, ["job_submitted", "job_leased", "claim_posted"]);
    assert!(seen.windows(2).all(|pair| pair[0].cursor < pair[1].cursor));
    let last = seen.last().unwrap();
    assert_eq!((last.claim, last.party), (Some(claimed.id), Some(worker.id())));

    for (place, event) in seen.iter().enumerate() {
        let cursor = EventCursor::from_str(&event.cursor.to_string()).unwrap();
        let rest = world.app.events_after(cursor, 1000).await.unwrap();
        assert_eq!(rest.len(), seen.len() - place - 1);
    }
    assert_eq!(world.app.events_head().await.unwrap(), last.cursor);
    assert_eq!(world.app.events_after(EventCursor::START, 2).await.unwrap().len(), 2);
}

/// A transaction that began to write first and commits last must not be skipped by a reader in between.
#[tokio::test]
async fn nothing_appears_behind_a_place_that_was_read() {
    let world = World::new().await;
    let (_, first) = world.provider("first").await;
    let before = read_until(&world, EventCursor::START, deposit_to(first)).await;
    let cursor = before.last().unwrap().cursor;

    let mut slow = world.pool.begin().await.unwrap();
    sqlx::query("insert into events (kind, at_ms) values ('slow', 0)").execute(&mut *slow).await.unwrap();
    let (_, fast) = world.provider("fast").await;
    let held_back = world.app.events_after(cursor, 1000).await.unwrap();
    assert!(held_back.is_empty(), "{held_back:?} could be read although an older transaction still writes");
    slow.commit().await.unwrap();
    let after = read_until(&world, cursor, deposit_to(fast)).await;
    assert_eq!(after[0].kind, "slow");
}

/// Where a dump is restored, transaction ids start low again.
#[tokio::test]
async fn places_ascend_after_a_restore_into_another_cluster() {
    let world = World::new().await;
    let far = 1_i64 << 50;
    sqlx::query("insert into events (position, kind, at_ms) values ($1, 'restored', 0)")
        .bind(far)
        .execute(&world.pool)
        .await
        .unwrap();
    world.second_coordinator().await;
    let (_, new) = world.provider("new").await;
    let seen = read_until(&world, EventCursor::START, deposit_to(new)).await;
    let restored = seen.iter().position(|event| event.kind == "restored").expect("the old event is readable");
    let newest = seen.iter().position(deposit_to(new)).expect("read until it");
    assert!(restored < newest, "new events come after what was there");
    // Starting again does not move the base again.
    let base = world.count("select base from event_base").await;
    world.second_coordinator().await;
    assert_eq!(world.count("select base from event_base").await, base);
}

#[test]
fn only_cursors_of_this_service_parse() {
    for text in ["", "5", "5-", "-5", "a-b", "-1-2", "1--2", "99999999999999999999-1"] {
        assert!(EventCursor::from_str(text).is_err(), "{text}");
    }
}
