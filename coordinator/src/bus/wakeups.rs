//! Waiters of one process, by topic.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Topic;

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Something was published since the last wait, or since subscribing.
    Published,
    /// The time given passed first.
    TimedOut,
}

/// The waiters of this process. An external bus forwards what it hears from outside to one of these.
#[derive(Debug, Clone, Default)]
pub struct Wakeups {
    // Only topics with a living subscription are kept: a subscription removes its entry when it is the last.
    topics: Arc<Mutex<HashMap<Topic, watch::Sender<()>>>>,
}

impl Wakeups {
    /// Wakes the topic's waiters.
    pub fn wake(&self, topic: Topic) {
        if let Some(sender) = self.lock().get(&topic) {
            sender.send_replace(());
        }
    }

    /// Wakes everybody: for a bus that lost its connection and cannot know what it missed.
    pub fn wake_all(&self) {
        for sender in self.lock().values() {
            sender.send_replace(());
        }
    }

    /// Starts to listen.
    #[must_use]
    pub fn listen(&self, topic: Topic) -> Subscription {
        let receiver = self.lock().entry(topic).or_insert_with(|| watch::Sender::new(())).subscribe();
        Subscription { topic, receiver: Some(receiver), wakeups: self.clone() }
    }

    /// How many topics somebody listens to.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, watch::Sender<()>>> {
        // No code panics while it holds the lock, and a map of senders has no broken intermediate state.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One waiter. Wake-ups between two waits are not lost, and several count as one.
#[derive(Debug)]
pub struct Subscription {
    topic: Topic,
    receiver: Option<watch::Receiver<()>>,
    wakeups: Wakeups,
}

impl Subscription {
    /// Waits for a wake-up, at most `limit`. Safe to drop at any await point.
    pub async fn wait(&mut self, limit: Duration) -> Wake {
        let Some(receiver) = self.receiver.as_mut() else { return Wake::TimedOut };
        match tokio::time::timeout(limit, receiver.changed()).await {
            Ok(_) => Wake::Published,
            Err(_) => Wake::TimedOut,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut topics = self.wakeups.lock();
        // Under the lock nobody else can subscribe between the count and the removal.
        self.receiver = None;
        if topics.get(&self.topic).is_some_and(|sender| sender.receiver_count() == 0) {
            topics.remove(&self.topic);
        }
    }
}
