//! The typed client of a coordinator.
//!
//! [`Client::connect`] reads who the coordinator is; every other method is one route. Calls that may safely be made
//! again are: lost connections and busy answers are retried with growing pauses, a signed request afresh each time.
//! Calls that would count twice (a deposit, a job) are made once. No answer is read beyond its limit.
//!
//! [`events::EventReader`] follows the event stream across reconnects, [`blobs::BlobCache`] fetches weights by hash,
//! [`keys`] and [`files`] keep what a party must not lose.

pub mod blobs;
mod calls;
mod clock;
mod error;
pub mod events;
pub mod files;
pub mod keys;
mod transport;

pub use error::ClientError;
pub use transport::{Auth, RetryPolicy, install_crypto_provider};

use clock::ServiceClock;
use gainsay_commitment::PartyId;
use std::sync::Arc;
use std::time::Duration;

/// A coordinator, reached over HTTP. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    /// Without a trailing slash.
    base: String,
    coordinator: PartyId,
    clock: ServiceClock,
    retry: RetryPolicy,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.inner.base)
            .field("coordinator", &self.inner.coordinator)
            .finish_non_exhaustive()
    }
}

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer's next bytes may take.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

impl Client {
    /// Connects to the coordinator at `base` (`http://host:port` or `https://…`) and reads its identity.
    ///
    /// # Errors
    /// [`ClientError::Url`] for a base that is no such URL; otherwise why the coordinator does not answer.
    pub async fn connect(base: &str) -> Result<Self, ClientError> {
        Self::connect_with(base, RetryPolicy::default()).await
    }

    /// [`Client::connect`] with another retry policy.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_with(base: &str, retry: RetryPolicy) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/').to_owned();
        let http = transport::build(&base)?;
        let info = transport::fetch_info(&http, &base, &retry).await?;
        let clock = ServiceClock::starting_at(info.service_time_ms);
        let coordinator = info.coordinator;
        Ok(Self { inner: Arc::new(Inner { http, base, coordinator, clock, retry }) })
    }

    /// The coordinator's key.
    #[must_use]
    pub fn coordinator(&self) -> PartyId {
        self.inner.coordinator
    }

    /// The address that the client was given.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.inner.base
    }

    /// The coordinator's service time now, as far as this machine can tell, in ms: not before it, but perhaps ahead of
    /// it. Good enough to date a request; deadlines are judged by the coordinator alone.
    #[must_use]
    pub fn service_time_ms(&self) -> i64 {
        self.inner.clock.now_ms()
    }
}
