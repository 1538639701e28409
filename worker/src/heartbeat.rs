//! Keeping leases while their jobs run.

use crate::Worker;
use gainsay_api::error::ErrorCode;
use gainsay_protocol::LeaseId;
use std::sync::Arc;
use std::time::Duration;

/// A task that keeps leases alive until it is dropped.
pub(crate) struct Heartbeats(tokio::task::JoinHandle<()>);

impl Heartbeats {
    /// Beats for `leases`, three times as often as the coordinator asks for.
    pub(crate) fn keep(worker: Arc<Worker>, leases: Vec<LeaseId>) -> Self {
        let interval = Duration::from_millis((worker.heartbeat_ms / 3).max(100));
        Self(tokio::spawn(async move {
            let mut leases = leases;
            while !leases.is_empty() {
                tokio::time::sleep(interval).await;
                let mut live = Vec::with_capacity(leases.len());
                for lease in leases {
                    if worker.beat(lease).await {
                        live.push(lease);
                    }
                }
                leases = live;
            }
        }))
    }
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.0.abort();
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
