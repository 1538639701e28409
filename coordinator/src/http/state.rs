//! What every request has at hand, and how it reaches the use cases.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::catalog::Catalog;
use super::config::HttpConfig;
use super::error::ApiError;
use super::event_view::Frames;
use super::metrics;
use super::names::Names;
use super::overview::Cached;
use crate::app::{App, AppResult};
use crate::bus::{Admission, Quota};
use crate::tokenizer::Tokenizers;

/// Shared by all threads that serve connections.
#[derive(Debug)]
pub(super) struct HttpState {
    pub(super) app: App,
    pub(super) config: HttpConfig,
    /// Cancelled when the service stops: streams end, waits return what they have.
    pub(super) stopping: CancellationToken,
    pub(super) tokenizers: Tokenizers,
    pub(super) catalog: Catalog,
    pub(super) names: Names,
    pub(super) frames: Frames,
    pub(super) overview: Cached,
    pub(super) metrics: metrics::Cached,
    /// Requests whose text is being tokenized.
    pub(super) tokenizing: Arc<Semaphore>,
    /// Room for large bodies, in parts of [`BODY_PART`](super::body::BODY_PART).
    pub(super) bodies: Arc<Semaphore>,
    /// Event streams that may still be opened.
    pub(super) streams: Arc<Semaphore>,
    /// Answers that may still be streamed.
    pub(super) generations: Arc<Semaphore>,
    /// The runtime of the service itself.
    core: Handle,
}

impl HttpState {
    pub(super) fn new(app: App, config: HttpConfig, core: Handle, stopping: CancellationToken) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let streams = Arc::new(Semaphore::new(config.event_streams));
        let generations = Arc::new(Semaphore::new(config.generation_streams));
        Self {
            app,
            config,
            stopping,
            tokenizers: Tokenizers::default(),
            catalog: Catalog::default(),
            names: Names::default(),
            frames: Frames::default(),
            overview: Cached::default(),
            metrics: metrics::Cached::default(),
            tokenizing: Arc::new(Semaphore::new(cores)),
            bodies: Arc::new(Semaphore::new(super::body::BODY_PARTS)),
            streams,
            generations,
            core,
        }
    }

    /// Runs a use case to its end on the service's own runtime: a client that hangs up does not stop it half way,
    /// and the database's connections belong to no thread that serves clients.
    pub(super) async fn call<T, F>(&self, case: impl FnOnce(App) -> F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: Future<Output = AppResult<T>> + Send + 'static,
    {
        let task = self.core.spawn(case(self.app.clone()).in_current_span());
        finished(task.await)
    }

    /// The same for a use case that waits for something to happen. It ends when the client hangs up; when the
    /// service stops, the answer is `None`.
    pub(super) async fn wait<T, F>(&self, case: impl FnOnce(App) -> F) -> Result<Option<T>, ApiError>
    where
        T: Send + 'static,
        F: Future<Output = AppResult<T>> + Send + 'static,
    {
        let mut task = AbortOnDrop(self.core.spawn(case(self.app.clone()).in_current_span()));
        tokio::select! {
            done = &mut task.0 => finished(done).map(Some),
            () = self.stopping.cancelled() => Ok(None),
        }
    }

    /// Starts a task that lives as long as it likes.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.core.spawn(task));
    }

    /// Takes one request from an allowance.
    pub(super) async fn admit(&self, key: String, quota: Quota, what: &str) -> Result<(), ApiError> {
        // The one clock that several coordinators have in common without asking anybody.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match self.app.bus().admit(&key, quota, now).await {
            Admission::Granted => Ok(()),
            Admission::RetryAfter(wait) => Err(ApiError::rate_limited(what, wait)),
        }
    }

    /// A wait that a client asked for, within the bounds of the service.
    pub(super) fn bounded_wait(&self, asked_ms: Option<u64>) -> Duration {
        Duration::from_millis(asked_ms.unwrap_or(0).min(self.app.config().limits.wait_ms))
    }
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn finished<T>(done: Result<AppResult<T>, tokio::task::JoinError>) -> Result<T, ApiError> {
    match done {
        Ok(outcome) => outcome.map_err(ApiError::from),
        Err(broken) => Err(ApiError::internal(broken)),
    }
}
