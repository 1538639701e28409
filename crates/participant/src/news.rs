//! Being woken when something happens, and now and then in any case.

use gainsay_api::client::Client;
use gainsay_api::events::EventKind;
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
    /// Some time has passed, or events may have been missed: look for yourself.
    Look,
}

/// Follows the coordinator's events from now on and passes on those that `wanted` picks, and [`News::Look`] at first
/// and every `interval`. Ends when `stop` is cancelled or the receiver is gone.
///
/// Events are only a hint, so that a party acts soon: whoever relies on nothing but `Look` misses nothing.
pub fn follow(
    client: &Client,
    wanted: impl Fn(&EventKind) -> bool + Send + 'static,
    interval: Duration,
    stop: CancellationToken,
) -> mpsc::Receiver<News> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let mut events = client.events(None);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut listening = true;
        loop {
            let news = tokio::select! {
                () = stop.cancelled() => return,
                () = sender.closed() => return,
                _ = ticks.tick() => News::Look,
                event = events.next(), if listening => match event {
                    Ok(event) if wanted(&event.kind) => News::Event(Box::new(event.kind)),
                    Ok(_) => continue,
                    Err(error) => {
                        tracing::warn!(%error, "no events from this coordinator; looking every {interval:?} instead");
                        listening = false;
                        continue;
                    }
                },
            };
            // A full backlog loses nothing that the next look would not find.
            if let Err(mpsc::error::TrySendError::Closed(_)) = sender.try_send(news) {
                return;
            }
        }
    });
    receiver
}
