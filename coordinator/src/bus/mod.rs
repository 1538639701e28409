//! What coordinators tell each other in passing: wake-ups, presence, rate limits.
//!
//! Nothing here is truth. The database is; losing everything a bus holds costs speed and no more, so
//! whoever waits for a wake-up also looks again on a timer, and nothing that decides about money or a
//! deadline reads from here. One process serves itself with [`InProcess`]; several share a server by [`Redis`],
//! behind the same trait. The conformance suite of `gainsay-testkit` states what every implementation owes.

mod in_process;
mod redis;
mod wakeups;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use gainsay_commitment::{DisputeId, PartyId};
use gainsay_protocol::{JobId, ServiceTime};

pub use in_process::InProcess;
pub use redis::{Redis, RedisUrlError};
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

/// A text that is no topic's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a topic")]
pub struct ParseTopicError;

impl FromStr for Topic {
    type Err = ParseTopicError;

    fn from_str(text: &str) -> Result<Self, ParseTopicError> {
        let topic = match text.split_once(':') {
            None if text == "queue" => Some(Self::Queue),
            None if text == "events" => Some(Self::Events),
            Some(("job", id)) => id.parse().ok().map(Self::Job),
            Some(("dispute", id)) => id.parse().ok().map(Self::Dispute),
            _ => None,
        };
        topic.ok_or(ParseTopicError)
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

    /// Requests granted in a minute in the long run.
    #[must_use]
    pub fn rate_per_minute(&self) -> u32 {
        u32::try_from(60_000_000 / self.every.as_micros().max(1)).unwrap_or(u32::MAX)
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

/// Whom a bus reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusState {
    /// This process alone: it was asked for no more, or its server is away.
    Alone,
    /// All coordinators at the same server.
    Shared,
}

/// Wake-ups, presence and rate limits, shared by the coordinators of one service.
///
/// Methods do not fail, and answer soon: an implementation that loses its server logs that, wakes everybody who waits,
/// and serves its own process alone until the server is back. Then each process holds callers to the whole quota, and
/// knows of those parties alone that it heard of itself.
#[async_trait]
pub trait Bus: Send + Sync + fmt::Debug + 'static {
    /// Wakes everybody who subscribed to the topic before this call. Call it after the commit that it tells of.
    async fn publish(&self, topic: Topic);

    /// Starts to listen. Subscribe first, look at the database second, wait third: then no change between
    /// looking and waiting is missed.
    async fn subscribe(&self, topic: Topic) -> Subscription;

    /// Notes that the party was heard of at `now`. Earlier times than the one on record change nothing.
    async fn mark_seen(&self, party: PartyId, now: ServiceTime);

    /// When the party was last heard of; `None` for a party never seen, or forgotten. What other processes heard may
    /// come late.
    async fn last_seen(&self, party: PartyId) -> Option<ServiceTime>;

    /// Takes one request from the key's allowance. `now` is the time since some fixed origin that all callers of
    /// one bus share; it decides about refill alone, so it need not be service time, and one that goes back costs a
    /// key no more than its burst.
    async fn admit(&self, key: &str, quota: Quota, now: Duration) -> Admission;

    /// Whom it reaches now.
    fn state(&self) -> BusState;
}
