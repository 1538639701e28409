//! Tokens on their way to whoever asked, as they are drawn.

use crate::Worker;
use gainsay_protocol::LeaseId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// Tokens that are sent together at most, but for those that have piled up while others were on their way.
const TOGETHER: usize = 16;
/// How long a token waits for others to go with it.
const GATHER: Duration = Duration::from_millis(50);
/// Pause after the coordinator did not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// A stream of tokens of one lease. Sends in the order in which it is given them, and tries again while the coordinator is
/// away: what it takes twice is the same.
pub(crate) struct TokenStream {
    tokens: UnboundedSender<u32>,
    sending: JoinHandle<()>,
}

impl TokenStream {
    pub(crate) fn start(worker: Arc<Worker>, lease: LeaseId) -> Self {
        let (tokens, received) = unbounded_channel();
        Self { tokens, sending: tokio::spawn(send_all(worker, lease, received)) }
    }

    /// Takes the next token.
    pub(crate) fn push(&self, token: u32) {
        // A stream that has ended early has said so.
        let _ = self.tokens.send(token);
    }

    /// Waits until all tokens are sent, or cannot be.
    pub(crate) async fn finish(self) {
        let Self { tokens, sending } = self;
        drop(tokens);
        sending.await.expect("sending tokens does not panic");
    }
}

async fn send_all(worker: Arc<Worker>, lease: LeaseId, mut tokens: UnboundedReceiver<u32>) {
    let (mut sent, mut batch) = (0_u32, Vec::new());
    while gather(&mut tokens, &mut batch).await {
        match worker.client.stream_tokens(&worker.identity.key, lease, sent, &batch).await {
            Ok(_) => {
                sent += batch.len() as u32;
                batch.clear();
            }
            Err(error) if error.is_transient() => {
                tracing::debug!(%lease, %error, "tokens were not heard");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                tracing::warn!(%lease, %error, "no more tokens of this answer are streamed");
                return;
            }
        }
    }
}

/// Adds tokens to a batch until there are enough or it has waited long enough; false where there is nothing to send and
/// nothing to come.
async fn gather(tokens: &mut UnboundedReceiver<u32>, batch: &mut Vec<u32>) -> bool {
    if batch.is_empty() && tokens.recv_many(batch, TOGETHER).await == 0 {
        return false;
    }
    let more = async {
        while batch.len() < TOGETHER
            && let Some(token) = tokens.recv().await
        {
            batch.push(token);
        }
    };
    // Whether the time is up or the batch is full, it goes.
    let _ = tokio::time::timeout(GATHER, more).await;
    while batch.len() < usize::from(u16::MAX)
        && let Ok(token) = tokens.try_recv()
    {
        batch.push(token);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tokens_go_together_but_wait_for_nobody_long() {
        let (sender, mut tokens) = unbounded_channel();
        let mut batch = Vec::new();
        (0..3).for_each(|token| sender.send(token).unwrap());
        assert!(gather(&mut tokens, &mut batch).await);
        assert_eq!(batch, [0, 1, 2]);
        // What could not be sent goes with what came meanwhile.
        (3..40).for_each(|token| sender.send(token).unwrap());
        drop(sender);
        assert!(gather(&mut tokens, &mut batch).await);
        assert_eq!(batch, (0..40).collect::<Vec<_>>());
        batch.clear();
        assert!(!gather(&mut tokens, &mut batch).await, "the answer has ended");
    }
}
