//! The in-process bus keeps what every bus promises.

use std::sync::Arc;
use std::time::Duration;

use gainsay_coordinator::bus::{Admission, Bus, InProcess, Quota, Topic};

#[tokio::test]
async fn the_in_process_bus_conforms() {
    gainsay_testkit::bus_conformance::check(Arc::new(InProcess::new())).await;
}

/// A topic kept for every job ever waited for would fill the memory.
#[tokio::test]
async fn topics_are_forgotten_with_their_last_subscriber() {
    let bus = InProcess::new();
    let first = bus.subscribe(Topic::Events).await;
    let second = bus.subscribe(Topic::Events).await;
    drop(first);
    assert_eq!(bus.topic_count(), 1);
    drop(second);
    assert_eq!(bus.topic_count(), 0);
}

/// A flood of keys must not lock out one that behaves, however the map is swept.
#[tokio::test]
async fn a_flood_of_keys_does_not_change_anybodys_allowance() {
    let bus = InProcess::new();
    let quota = Quota { burst: 1, every: Duration::from_secs(60) };
    let now = Duration::from_secs(1);
    assert_eq!(bus.admit("mine", quota, now).await, Admission::Granted);
    for n in 0..40_000 {
        assert_eq!(bus.admit(&format!("other {n}"), quota, now).await, Admission::Granted);
    }
    assert_ne!(bus.admit("mine", quota, now).await, Admission::Granted, "the sweep forgot a spent allowance");
}
