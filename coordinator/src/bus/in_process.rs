//! The bus of a service that is one process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gainsay_commitment::PartyId;
use gainsay_protocol::ServiceTime;

use super::{Admission, Bus, BusState, Quota, Subscription, Topic, Wakeups};

/// Keys kept before those that have rested are dropped.
const RATE_KEYS_SWEEP: usize = 16_384;
/// Parties whose presence is kept; the one heard of longest ago goes first.
const PRESENCE_MAX: usize = 65_536;

/// Wake-ups, presence and rate limits in memory. Correct only while no other process serves the same database
/// (with several, wake-ups arrive by the waiters' timers, and each process grants the whole quota).
#[derive(Debug, Default)]
pub struct InProcess {
    wakeups: Wakeups,
    seen: Mutex<HashMap<PartyId, ServiceTime>>,
    rates: Mutex<Rates>,
}

impl InProcess {
    /// A bus that nobody listens to yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many topics somebody listens to: a service at rest has none.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.wakeups.topic_count()
    }

    /// Wakes those who wait for a topic, as news from elsewhere do.
    pub(super) fn wake(&self, topic: Topic) {
        self.wakeups.wake(topic);
    }

    /// Wakes everybody, where nobody knows what was missed.
    pub(super) fn wake_all(&self) {
        self.wakeups.wake_all();
    }
}

#[async_trait]
impl Bus for InProcess {
    async fn publish(&self, topic: Topic) {
        self.wakeups.wake(topic);
    }

    async fn subscribe(&self, topic: Topic) -> Subscription {
        self.wakeups.listen(topic)
    }

    async fn mark_seen(&self, party: PartyId, now: ServiceTime) {
        let mut seen = locked(&self.seen);
        if seen.len() >= PRESENCE_MAX && !seen.contains_key(&party) {
            let oldest = seen.iter().min_by_key(|(_, time)| **time).map(|(party, _)| *party);
            if let Some(oldest) = oldest {
                seen.remove(&oldest);
            }
        }
        let time = seen.entry(party).or_insert(now);
        *time = (*time).max(now);
    }

    async fn last_seen(&self, party: PartyId) -> Option<ServiceTime> {
        locked(&self.seen).get(&party).copied()
    }

    async fn admit(&self, key: &str, quota: Quota, now: Duration) -> Admission {
        locked(&self.rates).admit(key, quota, now)
    }

    fn state(&self) -> BusState {
        BusState::Alone
    }
}

/// The generic cell rate algorithm: one number a key, the time at which its allowance is whole again.
#[derive(Debug, Default)]
struct Rates {
    whole_at: HashMap<String, Duration>,
    sweep_at: usize,
}

impl Rates {
    fn admit(&mut self, key: &str, quota: Quota, now: Duration) -> Admission {
        let stored = self.whole_at.get(key).copied().unwrap_or_default();
        // Nothing that was granted reaches further than this: a clock that was set back locks no key out.
        let furthest = now + quota.every * quota.burst.max(1);
        let whole_at = stored.clamp(now, furthest);
        let slack = quota.every * (quota.burst.max(1) - 1);
        let granted_from = whole_at.saturating_sub(slack);
        if granted_from > now {
            if whole_at < stored {
                self.whole_at.insert(key.to_owned(), whole_at);
            }
            return Admission::RetryAfter(granted_from - now);
        }
        self.sweep(now);
        self.whole_at.insert(key.to_owned(), whole_at + quota.every);
        Admission::Granted
    }

    /// Drops the keys whose allowance is whole, each time the map has doubled: constant work a request.
    fn sweep(&mut self, now: Duration) {
        if self.whole_at.len() < self.sweep_at.max(RATE_KEYS_SWEEP) {
            return;
        }
        self.whole_at.retain(|_, whole_at| *whole_at > now);
        self.sweep_at = self.whole_at.len() * 2;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps are consistent between any two statements, so a panic elsewhere under the lock spoils nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
