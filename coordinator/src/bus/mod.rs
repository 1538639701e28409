//! Wake-ups between the parts of the service: a hint that something is worth looking at in the database,
//! never the truth itself. Losing every message costs only time: all waiters also poll.

mod local;

pub use local::LocalBus;

use gainsay_protocol::JobId;
use tokio::sync::broadcast;

/// What happened, as coarse as its waiters need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A job entered the queue.
    Queue,
    /// A job was claimed or decided.
    Job(JobId),
    /// The event log grew.
    Events,
}

/// Carries wake-ups. Publishing never blocks and never fails.
pub trait Bus: Send + Sync + 'static {
    /// Wakes everyone who waits for `topic`.
    fn publish(&self, topic: Topic);
    /// A receiver that sees every later message. Lagging is not an error: look at the database and go on.
    fn subscribe(&self) -> broadcast::Receiver<Topic>;
}
