//! The bus of a service that is several processes: a Redis server between them.
//!
//! Redis holds nothing that is needed. Everything is done in this process first, by an [`InProcess`] bus; Redis only
//! tells the other processes, and adds up what all of them granted. So its loss is never an error: a wake-up that
//! does not arrive is made up for by the waiters' timers, presence is what this process has seen, and rate limits are
//! held by each process on its own.
//!
//! `link` keeps the connections. Publishing and presence go through an outbox that it empties, so that no caller waits
//! for Redis; only [`Bus::admit`] and [`Bus::last_seen`] ask, for [`RedisConfig::answer_time`] at most, and the first
//! that gets no answer has the link taken for lost, so that the next ones do not wait.

mod link;
mod outbox;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gainsay_commitment::PartyId;
use gainsay_protocol::ServiceTime;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult, Script};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::outbox::Outbox;
use super::{Admission, Bus, BusState, InProcess, Quota, Subscription, Topic};
use crate::config::RedisConfig;

/// The generic cell rate algorithm, as in [`InProcess`]: read, decide and write in one step. Times are microseconds,
/// which a Lua number holds exactly. What is stored is forgotten when it would grant everything anyway.
const ADMIT: &str = r"
local stored = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
local now, every, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local whole = math.max(math.min(stored, now + every * burst), now)
local wait = whole - every * (burst - 1) - now
if wait <= 0 then whole = whole + every end
if wait <= 0 or whole < stored then
    redis.call('SET', KEYS[1], string.format('%.0f', whole), 'PX', math.ceil((whole - now) / 1000) + 1000)
end
return math.max(wait, 0)
";

/// A URL that does not say where a Redis server is.
#[derive(Debug, thiserror::Error)]
#[error(
    "the address of Redis cannot be used: expected redis://[user:password@]host[:port][/database] or unix:///path"
)]
pub struct RedisUrlError(#[source] RedisError);

/// Wake-ups, presence and rate limits by way of a Redis server (6.2 or newer), or what can be done of it while that is
/// away. Ends its connections when dropped.
pub struct Redis {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What the bus and the task that keeps its connections share.
struct Shared {
    client: redis::Client,
    prefix: String,
    answer_time: Duration,
    /// Tells this process's messages from the others'.
    instance: Uuid,
    local: InProcess,
    outbox: Mutex<Outbox>,
    filled: Notify,
    /// The connection for commands while there is one.
    line: watch::Sender<Option<Line>>,
    admit: Script,
}

/// A connection for commands, and the means to say that it is of no use.
#[derive(Clone)]
struct Line {
    connection: MultiplexedConnection,
    broken: CancellationToken,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password.
        f.debug_struct("Redis").field("prefix", &self.shared.prefix).finish_non_exhaustive()
    }
}

impl Redis {
    /// Starts to keep a connection, and waits until the first attempt has come up or failed: a server that is away is
    /// logged and tried again for as long as the bus lives.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub async fn connect(config: &RedisConfig) -> Result<Self, RedisUrlError> {
        let client = redis::Client::open(config.url.as_str()).map_err(RedisUrlError)?;
        let shared = Arc::new(Shared {
            client,
            prefix: config.prefix.clone(),
            answer_time: config.answer_time,
            instance: Uuid::now_v7(),
            local: InProcess::new(),
            outbox: Mutex::default(),
            filled: Notify::new(),
            line: watch::Sender::new(None),
            admit: Script::new(ADMIT),
        });
        let tried = CancellationToken::new();
        let bus = Self { task: tokio::spawn(link::keep(Arc::clone(&shared), tried.clone())), shared };
        tried.cancelled().await;
        Ok(bus)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn key(&self, kind: &str) -> String {
        format!("{}:{kind}", self.prefix)
    }

    fn line(&self) -> Option<Line> {
        self.line.borrow().clone()
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        // An outbox has no broken intermediate state.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer of the server; without one in time, the line is given up.
    async fn ask<T>(&self, line: &Line, request: impl Future<Output = RedisResult<T>>) -> Option<T> {
        let answer = tokio::time::timeout(self.answer_time, request).await;
        let reason = match answer {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::debug!(reason, "a request to Redis failed");
        line.broken.cancel();
        // At once, so that those who ask before the link's task has noticed do not wait as well.
        self.line.send_if_modified(|current| {
            let same = current.as_ref().is_some_and(|current| current.broken.is_cancelled());
            if same {
                *current = None;
            }
            same
        });
        None
    }
}

#[async_trait]
impl Bus for Redis {
    async fn publish(&self, topic: Topic) {
        self.shared.local.publish(topic).await;
        self.shared.outbox().publish(topic);
        self.shared.filled.notify_one();
    }

    async fn subscribe(&self, topic: Topic) -> Subscription {
        // One channel carries all topics, so there is nobody to tell and nothing to wait for.
        self.shared.local.subscribe(topic).await
    }

    async fn mark_seen(&self, party: PartyId, now: ServiceTime) {
        self.shared.local.mark_seen(party, now).await;
        self.shared.outbox().mark_seen(party, now);
        self.shared.filled.notify_one();
    }

    async fn last_seen(&self, party: PartyId) -> Option<ServiceTime> {
        let here = self.shared.local.last_seen(party).await;
        let Some(mut line) = self.shared.line() else { return here };
        let mut command = redis::cmd("ZSCORE");
        command.arg(self.shared.key("seen")).arg(party.to_string());
        let asked = line.clone();
        let request = command.query_async::<Option<f64>>(&mut line.connection);
        let elsewhere = self.shared.ask(&asked, request).await.flatten();
        // Scores are whole milliseconds, which an f64 holds exactly.
        here.max(elsewhere.map(|score| ServiceTime(score as i64)))
    }

    async fn admit(&self, key: &str, quota: Quota, now: Duration) -> Admission {
        if let Some(mut line) = self.shared.line() {
            let asked = line.clone();
            let mut script = self.shared.admit.key(self.shared.key(&format!("rate:{key}")));
            script.arg(now.as_micros() as u64).arg(quota.every.as_micros() as u64).arg(quota.burst.max(1));
            let request = script.invoke_async::<u64>(&mut line.connection);
            match self.shared.ask(&asked, request).await {
                Some(0) => {
                    // Counted here too: whoever has spent its allowance has not got another when Redis is lost.
                    self.shared.local.admit(key, quota, now).await;
                    return Admission::Granted;
                }
                Some(wait) => return Admission::RetryAfter(Duration::from_micros(wait)),
                None => {}
            }
        }
        self.shared.local.admit(key, quota, now).await
    }

    fn state(&self) -> BusState {
        if self.shared.line.borrow().is_some() { BusState::Shared } else { BusState::Alone }
    }
}
