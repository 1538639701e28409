//! The bus over Redis: what it promises while the server lives, and that nothing but speed is lost when it does not.

use std::sync::Arc;
use std::time::Duration;

use gainsay_commitment::PartyId;
use gainsay_coordinator::bus::{Admission, Bus, BusState, Quota, Redis, Topic, Wake};
use gainsay_coordinator::config::{Config, RedisConfig};
use gainsay_coordinator::{Coordinator, StartError};
use gainsay_protocol::{JobId, ServiceTime};
use gainsay_testkit::{PrivateRedis, TestCoordinator, bus_conformance, until};

use crate::raw::send;

/// Waited out only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);
const NOW: Duration = Duration::from_secs(1_000);
const QUOTA: Quota = Quota { burst: 3, every: Duration::from_secs(60) };
const TOPIC: Topic = Topic::Job(JobId([7; 16]));

async fn connect(config: &RedisConfig) -> Arc<Redis> {
    Arc::new(Redis::connect(config).await.expect("the URL can be read"))
}

async fn becomes(bus: &Redis, state: BusState) {
    until("the bus to notice", async || (bus.state() == state).then_some(())).await;
}

/// Everything that a request may ask of a bus.
async fn use_everything(bus: &Redis) {
    bus.publish(TOPIC).await;
    bus.mark_seen(PartyId::from([1; 32]), ServiceTime(1)).await;
    bus.last_seen(PartyId::from([2; 32])).await;
    bus.admit("somebody", QUOTA, NOW).await;
    bus.subscribe(TOPIC).await;
}

/// Two buses reach each other, which takes both a moment after a failure.
async fn reach_each_other(one: &Redis, other: &Redis) {
    until("a wake-up to cross over", async || {
        let mut waiter = other.subscribe(TOPIC).await;
        one.publish(TOPIC).await;
        (waiter.wait(Duration::from_millis(50)).await == Wake::Published).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_over_redis_conforms() {
    let redis = PrivateRedis::start();
    let (one, other) = (connect(&redis.config()).await, connect(&redis.config()).await);
    bus_conformance::check_shared(one, other).await;
}

/// A service's keys must not fill a server that others use as well, nor be mistaken for another service's.
#[tokio::test(flavor = "multi_thread")]
async fn services_with_other_prefixes_do_not_meet() {
    let redis = PrivateRedis::start();
    let ours = connect(&redis.config()).await;
    let theirs = connect(&RedisConfig { prefix: "theirs".to_owned(), ..redis.config() }).await;
    let mut waiter = ours.subscribe(TOPIC).await;
    theirs.publish(TOPIC).await;
    theirs.mark_seen(PartyId::from([1; 32]), ServiceTime(5)).await;
    for _ in 0..QUOTA.burst {
        assert_eq!(theirs.admit("key", QUOTA, NOW).await, Admission::Granted);
    }
    assert_eq!(ours.admit("key", QUOTA, NOW).await, Admission::Granted);
    assert_eq!(ours.last_seen(PartyId::from([1; 32])).await, None);
    assert_eq!(waiter.wait(Duration::from_millis(50)).await, Wake::TimedOut);
}

/// Whoever waits when the server goes must look again, and what a process does for itself must go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_wakes_everybody_and_costs_no_more_than_reach() {
    let mut redis = PrivateRedis::start();
    let (one, other) = (connect(&redis.config()).await, connect(&redis.config()).await);
    for _ in 0..QUOTA.burst {
        assert_eq!(one.admit("spent", QUOTA, NOW).await, Admission::Granted);
    }
    let mut waiter = one.subscribe(TOPIC).await;
    redis.kill();
    assert_eq!(waiter.wait(PATIENCE).await, Wake::Published, "a waiter slept through the loss");
    becomes(&one, BusState::Alone).await;
    becomes(&other, BusState::Alone).await;

    // The first attempts to come back may wake it again.
    let mut here = one.subscribe(TOPIC).await;
    one.publish(TOPIC).await;
    assert_eq!(here.wait(PATIENCE).await, Wake::Published);
    assert_ne!(one.admit("spent", QUOTA, NOW).await, Admission::Granted, "the loss renewed an allowance");
    assert_eq!(one.admit("fresh", QUOTA, NOW).await, Admission::Granted);
    one.mark_seen(PartyId::from([3; 32]), ServiceTime(9)).await;
    assert_eq!(one.last_seen(PartyId::from([3; 32])).await, Some(ServiceTime(9)));

    redis.start_again();
    reach_each_other(&one, &other).await;
    becomes(&one, BusState::Shared).await;
    let party = PartyId::from([3; 32]);
    until("what was seen meanwhile", async || other.last_seen(party).await.filter(|at| at.0 == 9)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_server_forgets_and_goes_on() {
    let redis = PrivateRedis::start();
    let (one, other) = (connect(&redis.config()).await, connect(&redis.config()).await);
    use_everything(&one).await;
    until("keys", async || (redis.key_count() == 2).then_some(())).await;
    redis.flush();
    assert_eq!(redis.key_count(), 0);
    for _ in 0..QUOTA.burst {
        assert_eq!(other.admit("somebody", QUOTA, NOW).await, Admission::Granted);
    }
    assert_ne!(other.admit("somebody", QUOTA, NOW).await, Admission::Granted);
    assert_eq!(one.last_seen(PartyId::from([1; 32])).await, Some(ServiceTime(1)), "seen here");
    reach_each_other(&one, &other).await;
    assert_eq!((one.state(), other.state()), (BusState::Shared, BusState::Shared));
}

/// A server that takes connections and answers nothing must not hang a request, nor keep hold of the bus.
#[tokio::test(flavor = "multi_thread")]
async fn a_hung_server_hangs_nobody() {
    let redis = PrivateRedis::start();
    let config = RedisConfig { answer_time: Duration::from_millis(100), ..redis.config() };
    let (one, other) = (connect(&config).await, connect(&config).await);
    reach_each_other(&one, &other).await;
    redis.hang();
    let everything = async {
        for _ in 0..20 {
            use_everything(&one).await;
        }
    };
    tokio::time::timeout(PATIENCE, everything).await.expect("a hung server hangs the bus");
    becomes(&one, BusState::Alone).await;
    // Nobody asked this one anything: it has to find out by itself.
    becomes(&other, BusState::Alone).await;
    // Connections to a stopped process come up, and a coordinator must start all the same.
    let third =
        tokio::time::timeout(PATIENCE, connect(&config)).await.expect("a hung server hangs the start");
    assert_eq!(third.state(), BusState::Alone);
    redis.go_on();
    reach_each_other(&one, &other).await;
    reach_each_other(&one, &third).await;
}

/// The truth is elsewhere, so a service without its Redis is worse, not down.
#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_starts_and_is_ready_without_its_redis() {
    let mut redis = PrivateRedis::away();
    let test = TestCoordinator::builder().redis(redis.config()).start().await;
    let ready = send(&test, "GET", "/health/ready", &[], &[]).await;
    assert_eq!((ready.status, ready.json()["status"].as_str()), (200, Some("degraded")));
    redis.start_again();
    until("the service to be whole again", async || {
        let ready = send(&test, "GET", "/health/ready", &[], &[]).await;
        (ready.status == 200 && ready.json()["status"] == "ok").then_some(())
    })
    .await;
    test.stop().await;
}

/// A typing mistake must not look like an outage.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_none_is_refused_at_the_start() {
    for url in ["", "localhost:6379", "redis://:secret@host:port", "rediss://h", "http://h"] {
        let config = Config { redis: Some(RedisConfig::new(url)), ..Config::new("postgres://nowhere") };
        let config = Config { listen: ([127, 0, 0, 1], 0).into(), ..config };
        let refusal = Coordinator::new(config).start().await.expect_err("this is no address of a Redis");
        assert!(matches!(refusal, StartError::Redis(_)), "{url}: {refusal}");
        assert!(!refusal.to_string().contains("secret"), "{refusal}");
    }
}
