//! What every [`Bus`] owes its callers, as checks that an implementation's own test calls.

use std::sync::Arc;
use std::time::Duration;

use gainsay_commitment::PartyId;
use gainsay_coordinator::bus::{Admission, Bus, BusState, Quota, Topic, Wake};
use gainsay_protocol::{JobId, ServiceTime};
use uuid::Uuid;

use crate::until;

/// Long enough for any bus on this machine; waited out only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(10);
/// Given to a wake-up that must not come.
const SILENCE: Duration = Duration::from_millis(50);

/// Runs every check against one bus. Keys and topics are fresh, so the bus may have been used before.
///
/// # Panics
/// Where the bus does not keep a promise.
pub async fn check(bus: Arc<dyn Bus>) {
    a_wake_up_reaches_everybody_who_listened_before_it(&bus).await;
    a_wake_up_between_looking_and_waiting_is_kept(&bus).await;
    several_wake_ups_count_as_one(&bus).await;
    topics_do_not_mix(&bus).await;
    a_wait_can_be_dropped_and_taken_up_again(&bus).await;
    presence_never_goes_backwards(&bus).await;
    a_rested_key_gets_its_burst_and_no_more(&bus).await;
    an_allowance_refills_at_its_rate(&bus).await;
    refusals_cost_nothing(&bus).await;
    keys_do_not_share_an_allowance(&bus).await;
    a_clock_that_goes_back_locks_nobody_out(&bus).await;
}

/// Runs every check that takes two processes, against two buses at one server, and the others against each of them.
///
/// # Panics
/// Where the buses do not keep a promise, or do not reach each other.
pub async fn check_shared(one: Arc<dyn Bus>, other: Arc<dyn Bus>) {
    assert_eq!((one.state(), other.state()), (BusState::Shared, BusState::Shared));
    check(Arc::clone(&one)).await;
    check(Arc::clone(&other)).await;
    a_wake_up_crosses_over(&one, &other).await;
    a_wake_up_crosses_over(&other, &one).await;
    presence_crosses_over_and_does_not_go_back(&one, &other).await;
    an_allowance_is_one_for_all(&one, &other).await;
}

fn fresh_topic() -> Topic {
    Topic::Job(JobId(*Uuid::now_v7().as_bytes()))
}

fn fresh_key() -> String {
    Uuid::now_v7().to_string()
}

fn fresh_party() -> PartyId {
    let (a, b) = (Uuid::now_v7(), Uuid::now_v7());
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(a.as_bytes());
    bytes[16..].copy_from_slice(b.as_bytes());
    PartyId::from(bytes)
}

async fn a_wake_up_reaches_everybody_who_listened_before_it(bus: &Arc<dyn Bus>) {
    let topic = fresh_topic();
    let mut first = bus.subscribe(topic).await;
    let mut second = bus.subscribe(topic).await;
    bus.publish(topic).await;
    assert_eq!(first.wait(PATIENCE).await, Wake::Published);
    assert_eq!(second.wait(PATIENCE).await, Wake::Published);
    let mut late = bus.subscribe(topic).await;
    assert_eq!(late.wait(SILENCE).await, Wake::TimedOut, "a subscriber heard what came before it");
}

async fn a_wake_up_between_looking_and_waiting_is_kept(bus: &Arc<dyn Bus>) {
    let topic = fresh_topic();
    let mut waiter = bus.subscribe(topic).await;
    let publisher = Arc::clone(bus);
    tokio::spawn(async move { publisher.publish(topic).await }).await.expect("publishing does not panic");
    assert_eq!(waiter.wait(PATIENCE).await, Wake::Published);
}

async fn several_wake_ups_count_as_one(bus: &Arc<dyn Bus>) {
    let topic = fresh_topic();
    let mut waiter = bus.subscribe(topic).await;
    let mut witness = bus.subscribe(topic).await;
    for _ in 0..100 {
        bus.publish(topic).await;
    }
    assert_eq!(waiter.wait(PATIENCE).await, Wake::Published);
    // An external bus may still be delivering; it must fall silent, not queue a hundred wake-ups.
    let mut more = 0;
    while waiter.wait(SILENCE).await == Wake::Published {
        more += 1;
        assert!(more < 100, "wake-ups queued up");
    }
    assert_eq!(witness.wait(PATIENCE).await, Wake::Published);
}

async fn topics_do_not_mix(bus: &Arc<dyn Bus>) {
    let (one, other) = (fresh_topic(), fresh_topic());
    let mut waiter = bus.subscribe(one).await;
    bus.publish(other).await;
    assert_eq!(waiter.wait(SILENCE).await, Wake::TimedOut);
    bus.publish(one).await;
    assert_eq!(waiter.wait(PATIENCE).await, Wake::Published);
}

async fn a_wait_can_be_dropped_and_taken_up_again(bus: &Arc<dyn Bus>) {
    let topic = fresh_topic();
    let mut waiter = bus.subscribe(topic).await;
    assert!(tokio::time::timeout(SILENCE, waiter.wait(PATIENCE)).await.is_err());
    bus.publish(topic).await;
    assert_eq!(waiter.wait(PATIENCE).await, Wake::Published);
}

async fn presence_never_goes_backwards(bus: &Arc<dyn Bus>) {
    let party = fresh_party();
    assert_eq!(bus.last_seen(party).await, None);
    bus.mark_seen(party, ServiceTime(5_000)).await;
    bus.mark_seen(party, ServiceTime(4_000)).await;
    assert_eq!(bus.last_seen(party).await, Some(ServiceTime(5_000)));
    bus.mark_seen(party, ServiceTime(6_000)).await;
    assert_eq!(bus.last_seen(party).await, Some(ServiceTime(6_000)));
}

const QUOTA: Quota = Quota { burst: 3, every: Duration::from_secs(2) };
/// Where the checks' own clock starts.
const START: Duration = Duration::from_secs(1_000);

async fn exhaust(bus: &Arc<dyn Bus>, key: &str) {
    for n in 0..QUOTA.burst {
        assert_eq!(bus.admit(key, QUOTA, START).await, Admission::Granted, "request {n} of the burst");
    }
}

async fn a_rested_key_gets_its_burst_and_no_more(bus: &Arc<dyn Bus>) {
    let key = fresh_key();
    exhaust(bus, &key).await;
    assert_eq!(bus.admit(&key, QUOTA, START).await, Admission::RetryAfter(QUOTA.every));
}

async fn an_allowance_refills_at_its_rate(bus: &Arc<dyn Bus>) {
    let key = fresh_key();
    exhaust(bus, &key).await;
    let almost = START + QUOTA.every - Duration::from_millis(1);
    assert_eq!(bus.admit(&key, QUOTA, almost).await, Admission::RetryAfter(Duration::from_millis(1)));
    assert_eq!(bus.admit(&key, QUOTA, START + QUOTA.every).await, Admission::Granted);
    assert_ne!(bus.admit(&key, QUOTA, START + QUOTA.every).await, Admission::Granted);
    // However long it rests, it never has more than the burst.
    let later = START + QUOTA.every * 1_000;
    for _ in 0..QUOTA.burst {
        assert_eq!(bus.admit(&key, QUOTA, later).await, Admission::Granted);
    }
    assert_ne!(bus.admit(&key, QUOTA, later).await, Admission::Granted);
}

async fn refusals_cost_nothing(bus: &Arc<dyn Bus>) {
    let key = fresh_key();
    exhaust(bus, &key).await;
    for _ in 0..50 {
        assert_eq!(bus.admit(&key, QUOTA, START).await, Admission::RetryAfter(QUOTA.every));
    }
    assert_eq!(bus.admit(&key, QUOTA, START + QUOTA.every).await, Admission::Granted);
}

async fn keys_do_not_share_an_allowance(bus: &Arc<dyn Bus>) {
    let (one, other) = (fresh_key(), fresh_key());
    exhaust(bus, &one).await;
    assert_eq!(bus.admit(&other, QUOTA, START).await, Admission::Granted);
}

async fn a_clock_that_goes_back_locks_nobody_out(bus: &Arc<dyn Bus>) {
    let key = fresh_key();
    exhaust(bus, &key).await;
    let before = START / 2;
    assert_eq!(bus.admit(&key, QUOTA, before).await, Admission::RetryAfter(QUOTA.every));
    assert_eq!(bus.admit(&key, QUOTA, before + QUOTA.every * QUOTA.burst).await, Admission::Granted);
}

async fn a_wake_up_crosses_over(from: &Arc<dyn Bus>, to: &Arc<dyn Bus>) {
    let (topic, dispute) = (fresh_topic(), Topic::Dispute((*fresh_party().as_bytes()).into()));
    for topic in [topic, dispute, Topic::Queue, Topic::Events] {
        let mut waiter = to.subscribe(topic).await;
        from.publish(topic).await;
        assert_eq!(waiter.wait(PATIENCE).await, Wake::Published, "{topic} did not cross over");
    }
}

async fn presence_crosses_over_and_does_not_go_back(one: &Arc<dyn Bus>, other: &Arc<dyn Bus>) {
    let party = fresh_party();
    one.mark_seen(party, ServiceTime(7_000)).await;
    let on_other = async || (other.last_seen(party).await == Some(ServiceTime(7_000))).then_some(());
    until("presence on the other side", on_other).await;
    other.mark_seen(party, ServiceTime(6_000)).await;
    other.mark_seen(party, ServiceTime(9_000)).await;
    let on_one = async || (one.last_seen(party).await == Some(ServiceTime(9_000))).then_some(());
    until("presence from the other side", on_one).await;
}

/// However the callers are spread and however they race, no more is granted than to one.
async fn an_allowance_is_one_for_all(one: &Arc<dyn Bus>, other: &Arc<dyn Bus>) {
    let key = fresh_key();
    let quota = Quota { burst: 10, every: Duration::from_secs(60) };
    let ask = |bus: &Arc<dyn Bus>| {
        let (bus, key) = (Arc::clone(bus), key.clone());
        tokio::spawn(async move { bus.admit(&key, quota, START).await })
    };
    let asked: Vec<_> = (0..20).flat_map(|_| [ask(one), ask(other)]).collect();
    let mut granted = 0;
    for answer in asked {
        granted += u32::from(answer.await.expect("asking does not panic") == Admission::Granted);
    }
    assert_eq!(granted, quota.burst);
}
