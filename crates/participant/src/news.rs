//! Being woken when something happens, and now and then in any case.

use gainsay_api::client::events::EventReader;
use gainsay_api::client::{Client, ClientError};
use gainsay_api::events::{Event, EventKind};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Pieces of news that may wait to be read; more than that are dropped, since a look at the coordinator finds them.
const BACKLOG: usize = 1024;

/// What a follower is told.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// Something happened.
    Event(Box<EventKind>),
    /// Events may have been missed: look for everything that they could have told. Also the first news of all.
    Missed,
    /// Some time has passed: look for what cannot wait.
    Look,
}

/// Follows the coordinator's events from now on and passes on those that `wanted` picks, [`News::Missed`] at first and
/// whenever there was a gap, and [`News::Look`] every `interval`. Ends when `stop` is cancelled or the receiver is
/// gone.
///
/// Events are only a hint, so that a party acts soon: whoever relies on nothing but looking misses nothing.
pub fn follow(
    client: &Client,
    wanted: impl Fn(&EventKind) -> bool + Send + 'static,
    interval: Duration,
    stop: CancellationToken,
) -> mpsc::Receiver<News> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let follower = Follower { events: Some(client.events(None)), sender, gaps: 0, missed: true };
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follower.run(wanted, interval) => {}
        }
    });
    receiver
}

struct Follower {
    /// None where this coordinator gives no events.
    events: Option<EventReader>,
    sender: mpsc::Sender<News>,
    /// Gaps of the reader that the receiver knows of.
    gaps: u64,
    /// Whether the receiver is still to be told of a gap.
    missed: bool,
}

impl Follower {
    async fn run(mut self, wanted: impl Fn(&EventKind) -> bool, interval: Duration) {
        // Whoever is told to look at everything must not miss what happens while it does: the stream comes first. But
        // not at any price: a stream that cannot be had keeps nobody from looking, and is a gap when it comes.
        if let Some(events) = &mut self.events
            && let Ok(Err(error)) = tokio::time::timeout(interval, events.ready()).await
        {
            self.give_up(&error);
        }
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.notice_gaps();
            let news = tokio::select! {
                () = self.sender.closed() => return,
                _ = ticks.tick() => News::Look,
                event = next(&mut self.events) => match event {
                    Ok(event) if wanted(&event.kind) => News::Event(Box::new(event.kind)),
                    Ok(_) => continue,
                    Err(error) => {
                        self.give_up(&error);
                        continue;
                    }
                },
            };
            // With a full backlog, the receiver is told later that it has missed something.
            self.missed |= self.sender.try_send(news).is_err();
        }
    }

    fn notice_gaps(&mut self) {
        let gaps = self.events.as_ref().map_or(self.gaps, EventReader::gaps);
        self.missed |= gaps > self.gaps;
        self.gaps = gaps;
        if self.missed {
            self.missed = self.sender.try_send(News::Missed).is_err();
        }
    }

    fn give_up(&mut self, error: &ClientError) {
        tracing::warn!(%error, "no events from this coordinator; looking now and then instead");
        self.events = None;
    }
}

/// The next event; never, where there are none.
async fn next(events: &mut Option<EventReader>) -> Result<Event, ClientError> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}
