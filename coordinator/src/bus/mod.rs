//! What coordinators tell each other in passing: wake-ups, presence, rate limits.
//!
//! Nothing here is truth. The database is; losing everything a bus holds costs speed and no more, so
//! whoever waits for a wake-up also looks again on a timer, and nothing that decides about money or a
//! deadline reads from here. One process serves itself with [`InProcess`]; several share an external one
//! behind the same trait. The conformance suite of `gainsay-testkit` states what every implementation owes.

mod in_process;
mod wakeups;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use gainsay_commitment::{DisputeId, PartyId};
use gainsay_protocol::{JobId, ServiceTime};

pub use in_process::InProcess;
pub use wakeups::{Subscription, Wake, Wakeups};

/// What somebody can wait for. A wake-up says "look again", never what there is to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A job entered the queue: workers in a long poll look again.
    Queue,
    /// The job was claimed, decided or refunded.
    Job(JobId),
    /// A move or a verdict arrived in the dispute.
    Dispute(DisputeId),
    /// A row was added to the event log.
    Events,
}

impl fmt::Display for Topic {
    /// The channel's name where topics need one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue => f.write_str("queue"),
            Self::Job(id) => write!(f, "job:{id}"),
            Self::Dispute(id) => write!(f, "dispute:{id}"),
            Self::Events => f.write_str("events"),
        }
    }
}

/// How much one key may do: `burst` at once, refilled at one every `every`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests granted at once to a key that has rested. At least one.
    pub burst: u32,
    /// The time that earns one more request.
    pub every: Duration,
}

impl Quota {
    /// `burst` at once and `per_minute` in the long run; both at least one.
    #[must_use]
    pub const fn per_minute(burst: u32, per_minute: u32) -> Self {
        let burst = if burst == 0 { 1 } else { burst };
        let per_minute = if per_minute == 0 { 1 } else { per_minute };
        Self { burst, every: Duration::from_micros(60_000_000 / per_minute as u64) }
    }
}

/// The answer to [`Bus::admit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Counted and granted.
    Granted,
    /// Not counted; would be granted after this long, if nobody else asks under the key.
    RetryAfter(Duration),
}

/// Wake-ups, presence and rate limits, shared by the coordinators of one service.
///
/// Methods do not fail: an implementation that loses its server logs that, wakes everybody who waits, grants
/// every request, and knows of nobody's presence until the server is back.
#[async_trait]
pub trait Bus: Send + Sync + fmt::Debug + 'static {
    /// Wakes everybody who subscribed to the topic before this call. Call it after the commit that it tells of.
    async fn publish(&self, topic: Topic);

    /// Starts to listen. Subscribe first, look at the database second, wait third: then no change between
    /// looking and waiting is missed.
    async fn subscribe(&self, topic: Topic) -> Subscription;

    /// Notes that the party was heard of at `now`. Earlier times than the one on record change nothing.
    async fn mark_seen(&self, party: PartyId, now: ServiceTime);

    /// When the party was last heard of; `None` for a party never seen, or forgotten.
    async fn last_seen(&self, party: PartyId) -> Option<ServiceTime>;

    /// Takes one request from the key's allowance. `now` is the time since some fixed origin that all callers of
    /// one bus share; it decides about refill alone, so it need not be service time.
    async fn admit(&self, key: &str, quota: Quota, now: Duration) -> Admission;
}
