//! Keeping leases while their jobs run.

use crate::Worker;
use gainsay_api::error::ErrorCode;
use gainsay_protocol::LeaseId;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A task that keeps a lease alive until it is dropped.
pub(crate) struct Heartbeat {
    beating: tokio::task::JoinHandle<()>,
    over: CancellationToken,
}

impl Heartbeat {
    /// Beats for a lease, three times as often as the coordinator asks for.
    pub(crate) fn keep(worker: Arc<Worker>, lease: LeaseId) -> Self {
        let interval = Duration::from_millis((worker.heartbeat_ms / 3).max(100));
        let over = CancellationToken::new();
        let ended = over.clone();
        let beating = tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                if !worker.beat(lease).await {
                    return ended.cancel();
                }
            }
        });
        Self { beating, over }
    }

    /// Resolves when the lease is over: its job was given to another, or taken back.
    pub(crate) async fn lost(&self) {
        self.over.cancelled().await;
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

impl Worker {
    /// One heartbeat; answers whether there is any point in another.
    async fn beat(&self, lease: LeaseId) -> bool {
        match self.client.heartbeat(&self.identity.key, lease).await {
            Ok(_) => true,
            // The claim, which may just be arriving, ends the lease too: what became of it is its answer's to say.
            Err(error) if error.is(ErrorCode::StaleLease) || error.is(ErrorCode::UnknownLease) => {
                tracing::debug!(%lease, %error, "the lease is over");
                false
            }
            Err(error) if error.is_transient() => {
                tracing::debug!(%lease, %error, "a heartbeat was not heard");
                true
            }
            Err(error) => {
                tracing::warn!(%lease, %error, "a heartbeat failed");
                true
            }
        }
    }
}
