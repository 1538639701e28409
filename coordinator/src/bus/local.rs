//! The bus of a single process.

use tokio::sync::broadcast;

use super::{Bus, Topic};

/// How many messages a slow waiter may fall behind before it is told only that it did.
const CAPACITY: usize = 1024;

/// Wakes the waiters of one process.
#[derive(Debug)]
pub struct LocalBus {
    sender: broadcast::Sender<Topic>,
}

impl Default for LocalBus {
    fn default() -> Self {
        Self { sender: broadcast::channel(CAPACITY).0 }
    }
}

impl Bus for LocalBus {
    fn publish(&self, topic: Topic) {
        // An error means that nobody waits, which is fine.
        let _ = self.sender.send(topic);
    }

    fn subscribe(&self) -> broadcast::Receiver<Topic> {
        self.sender.subscribe()
    }
}
