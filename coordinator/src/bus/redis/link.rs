//! Two connections to Redis, one that listens and one for commands, kept up by one task for as long as the bus lives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use redis::aio::PubSubStream;
use redis::{AsyncConnectionConfig, RedisError};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::outbox::{self, Heard, Outbox};
use super::{Line, Shared};

/// For both connections to come up.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// How often the link says something to itself, so that its loss is noticed at rest too.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Without its own heartbeat for so long, the listening connection is dead, whatever the other one does.
const SILENCE: Duration = Duration::from_secs(7);
/// Pauses between attempts double from the one to the other.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The same complaint is not made more often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);
/// Parties whose presence is kept in Redis; the one heard of longest ago goes first.
const PRESENCE_MAX: isize = 65_536;
/// Presence that nobody adds to is forgotten.
const PRESENCE_SECS: i64 = 24 * 60 * 60;

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("no answer in time")]
    Slow,
    #[error("the server closed the connection")]
    Closed,
    #[error("nothing was heard of it")]
    Silent,
}

/// Connects, serves until that fails, and again. `tried` is cancelled when the first attempt has come up or failed.
pub(super) async fn keep(shared: Arc<Shared>, tried: CancellationToken) {
    let mut complaint = Complaint::default();
    let mut pause = PAUSES.0;
    loop {
        let lost = match open(&shared).await {
            Ok(mut link) => {
                if complaint.over() {
                    // What was published while there was no link, here and elsewhere, is not known any more.
                    shared.outbox().publish_all();
                    shared.local.wake_all();
                }
                shared.line.send_replace(Some(link.line.clone()));
                tried.cancel();
                let lost = link.serve(&shared).await;
                shared.line.send_replace(None);
                if link.proven {
                    pause = PAUSES.0;
                }
                lost
            }
            Err(lost) => lost,
        };
        complaint.make(&lost);
        tried.cancel();
        // Those who wait may have been passed over while the link was failing.
        shared.local.wake_all();
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

struct Link {
    line: Line,
    messages: PubSubStream,
    heard: Instant,
    /// Whether a message made the whole way round: only then is the next pause a short one.
    proven: bool,
}

async fn open(shared: &Shared) -> Result<Link, Lost> {
    let connecting = async {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIME))
            .set_response_timeout(Some(shared.answer_time));
        let connection = shared.client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut listening = shared.client.get_async_pubsub().await?;
        listening.subscribe(shared.key("wake")).await?;
        let line = Line { connection, broken: CancellationToken::new() };
        Ok(Link { line, messages: listening.into_on_message(), heard: Instant::now(), proven: false })
    };
    timeout(CONNECT_TIME, connecting).await.unwrap_or(Err(Lost::Slow))
}

impl Link {
    /// Passes on what is said on either side, until one of the connections fails.
    async fn serve(&mut self, shared: &Shared) -> Lost {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let broken = self.line.broken.clone();
        loop {
            let sent = tokio::select! {
                message = self.messages.next() => match message {
                    Some(message) => {
                        self.hear(shared, message.get_payload_bytes());
                        Ok(())
                    }
                    None => Err(Lost::Closed),
                },
                () = shared.filled.notified() => self.send(shared, false).await,
                _ = heartbeat.tick() => match self.heard.elapsed() {
                    silence if silence > SILENCE => Err(Lost::Silent),
                    _ => self.send(shared, true).await,
                },
                () = broken.cancelled() => Err(Lost::Slow),
            };
            if let Err(lost) = sent {
                return lost;
            }
        }
    }

    fn hear(&mut self, shared: &Shared, message: &[u8]) {
        self.heard = Instant::now();
        self.proven = true;
        match outbox::read(message, shared.instance) {
            Heard::Nothing => {}
            Heard::Topics(topics) => topics.into_iter().for_each(|topic| shared.local.wake(topic)),
            Heard::Everybody => shared.local.wake_all(),
        }
    }

    /// Empties the outbox. What is lost with a failing link is made up for by waking everybody over the next one.
    async fn send(&mut self, shared: &Shared, is_heartbeat: bool) -> Result<(), Lost> {
        let outbox = std::mem::take(&mut *shared.outbox());
        if outbox.is_empty() && !is_heartbeat {
            return Ok(());
        }
        let commands = commands(shared, &outbox);
        let sending = commands.query_async::<()>(&mut self.line.connection);
        timeout(shared.answer_time, sending).await.map_err(|_| Lost::Slow)?.map_err(Lost::Redis)
    }
}

/// `ZADD GT` never moves a time back, and adds a party that is not there.
fn commands(shared: &Shared, outbox: &Outbox) -> redis::Pipeline {
    let mut commands = redis::pipe();
    commands.cmd("PUBLISH").arg(shared.key("wake")).arg(outbox.message(shared.instance)).ignore();
    if !outbox.seen().is_empty() {
        let seen = shared.key("seen");
        commands.cmd("ZADD").arg(&seen).arg("GT");
        for (party, time) in outbox.seen() {
            commands.arg(time.0).arg(party.to_string());
        }
        commands.ignore();
        commands.cmd("ZREMRANGEBYRANK").arg(&seen).arg(0).arg(-PRESENCE_MAX - 1).ignore();
        commands.cmd("EXPIRE").arg(&seen).arg(PRESENCE_SECS).ignore();
    }
    commands
}

/// Between half the pause and all of it, so that coordinators do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without random bytes they come back in step, which a server bears too.
    let part = getrandom::fill(&mut byte).map_or(255, |()| u32::from(byte[0]));
    pause * (256 + part) / 512
}

/// Says once that Redis is away, reminds of it now and then, and says once that it is back.
#[derive(Debug, Default)]
struct Complaint {
    made: Option<Instant>,
    open: bool,
}

impl Complaint {
    fn make(&mut self, lost: &Lost) {
        self.open = true;
        if self.made.is_none_or(|made| made.elapsed() >= COMPLAIN_EVERY) {
            self.made = Some(Instant::now());
            tracing::warn!(reason = %lost, "no Redis: this coordinator goes on alone, and tries again");
        }
    }

    /// Whether there was one.
    fn over(&mut self) -> bool {
        let was_open = std::mem::take(&mut self.open);
        if was_open {
            tracing::info!("Redis is back");
        }
        was_open
    }
}
