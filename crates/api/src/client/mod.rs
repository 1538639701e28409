//! The typed client of a coordinator.
//!
//! [`Client::connect`] reads who the coordinator is; every other method is one route. Calls that may safely be made
//! again are: lost connections and busy answers are retried with growing pauses, a signed request afresh each time.
//! Calls about money (a deposit, a job) carry a key of their own, under which the coordinator counts them once. No answer is read beyond its limit.
//!
//! A client may be given the addresses of several coordinators of one service, with commas between them: it uses one
//! until that fails, then the next.
//!
//! [`events::EventReader`] follows the event stream across reconnects, [`blobs::BlobCache`] fetches weights by hash,
//! [`keys`] and [`files`] keep what a party must not lose.

mod addresses;
mod audit;
pub mod blobs;
mod calls;
mod clock;
mod error;
pub mod events;
pub mod files;
pub mod keys;
mod transport;

pub use audit::AuditReport;
pub use error::ClientError;
pub use transport::{Auth, RetryPolicy, install_crypto_provider};

use addresses::Addresses;
use clock::ServiceClock;
use gainsay_commitment::PartyId;
use std::sync::Arc;
use std::time::Duration;

/// A coordinator, or several of one service, reached over HTTP. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    addresses: Addresses,
    coordinator: PartyId,
    clock: ServiceClock,
    retry: RetryPolicy,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("bases", &self.inner.addresses.bases().collect::<Vec<_>>())
            .field("coordinator", &self.inner.coordinator)
            .finish_non_exhaustive()
    }
}

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer's next bytes may take.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

impl Client {
    /// Connects to the coordinator at `addresses` (`http://host:port` or `https://…`; those of several coordinators of
    /// one service with commas between them) and reads its identity.
    ///
    /// # Errors
    /// [`ClientError::Url`] for what is no such address; otherwise why no coordinator answers.
    pub async fn connect(addresses: &str) -> Result<Self, ClientError> {
        Self::connect_with(addresses, RetryPolicy::default()).await
    }

    /// [`Client::connect`] with another retry policy.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_with(addresses: &str, retry: RetryPolicy) -> Result<Self, ClientError> {
        let addresses = Addresses::parse(addresses)?;
        let http = transport::build(&addresses)?;
        let info = transport::fetch_info(&http, &addresses, &retry).await?;
        addresses.current().set_known();
        let clock = ServiceClock::starting_at(info.service_time_ms);
        let coordinator = info.coordinator;
        Ok(Self { inner: Arc::new(Inner { http, addresses, coordinator, clock, retry }) })
    }

    /// The coordinator's key.
    #[must_use]
    pub fn coordinator(&self) -> PartyId {
        self.inner.coordinator
    }

    /// The address in use.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.inner.addresses.current().base
    }

    /// The coordinator's service time now, as far as this machine can tell, in ms: not before it, but perhaps ahead of
    /// it. Good enough to date a request; deadlines are judged by the coordinator alone.
    #[must_use]
    pub fn service_time_ms(&self) -> i64 {
        self.inner.clock.now_ms()
    }
}
