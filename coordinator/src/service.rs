//! Starting and stopping a whole coordinator: for the binary, for programs that carry one inside, and for tests.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use gainsay_commitment::PartyId;
use tokio_util::sync::CancellationToken;

use crate::app::{App, AppError};
use crate::bus::{Bus, InProcess, Redis, RedisUrlError};
use crate::config::{Config, ConfigError};
use crate::http::{HttpConfig, Server};
use crate::reconcile;
use crate::telemetry;

/// Why a coordinator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address of Redis.
    #[error(transparent)]
    Redis(#[from] RedisUrlError),
    /// Database, key file or blob folder.
    #[error("the service's storage cannot be opened")]
    App(#[from] AppError),
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where it should have listened.
        address: SocketAddr,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

/// Who moves service time and does what is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Timers {
    /// The coordinator itself, each second.
    #[default]
    Running,
    /// The caller, for tests that decide what time it is.
    ByHand,
}

/// A coordinator about to start.
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    http: HttpConfig,
    bus: Option<Arc<dyn Bus>>,
    timers: Timers,
}

impl Coordinator {
    /// With defaults for everything that the configuration does not say, and the bus that it asks for.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, http: HttpConfig::default(), bus: None, timers: Timers::default() }
    }

    /// Limits and times of the HTTP side.
    #[must_use]
    pub fn http(mut self, http: HttpConfig) -> Self {
        self.http = http;
        self
    }

    /// A bus in place of the one that the configuration asks for.
    #[must_use]
    pub fn bus(mut self, bus: Arc<dyn Bus>) -> Self {
        self.bus = Some(bus);
        self
    }

    /// Who moves service time.
    #[must_use]
    pub fn timers(mut self, timers: Timers) -> Self {
        self.timers = timers;
        self
    }

    /// Opens the storage and brings its schema up to date, binds the address, and serves. Must be called within a
    /// multi-threaded tokio runtime, which the use cases then run on.
    ///
    /// # Errors
    /// A setting, the storage or the address cannot be used. Nothing is left running.
    pub async fn start(self) -> Result<Running, StartError> {
        self.config.validate()?;
        telemetry::start();
        let listen = |source| StartError::Listen { address: self.config.listen, source };
        // The address first: it is the cheapest to find out about, and nothing is left behind if it is taken.
        let listener = TcpListener::bind(self.config.listen).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let bus = match self.bus {
            Some(bus) => bus,
            None => bus(&self.config).await?,
        };
        let app = App::start(self.config.clone(), bus).await?;
        let stopping = CancellationToken::new();
        let (notice, drain) = (self.http.notice, self.http.drain);
        let server = Server::start(listener, app.clone(), self.http, stopping.clone()).map_err(listen)?;
        let timers = match self.timers {
            Timers::Running => Some(reconcile::spawn(app.clone())),
            Timers::ByHand => None,
        };
        tracing::info!(%address, coordinator = %app.coordinator(), "serving");
        Ok(Running { address, app, server, timers, stopping, notice, drain })
    }
}

/// The bus that a configuration asks for. A Redis that is away does not keep a coordinator from serving.
async fn bus(config: &Config) -> Result<Arc<dyn Bus>, StartError> {
    Ok(match &config.redis {
        Some(redis) => Arc::new(Redis::connect(redis).await?),
        None => Arc::new(InProcess::new()),
    })
}

/// A coordinator that serves. Dropped without [`stop`](Self::stop), it goes on until its runtime ends.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    app: App,
    server: Server,
    timers: Option<reconcile::Running>,
    stopping: CancellationToken,
    notice: Duration,
    drain: Duration,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients reach it on this machine.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its id, which signed objects name.
    #[must_use]
    pub fn coordinator(&self) -> PartyId {
        self.app.coordinator()
    }

    /// Its use cases, for programs that carry it inside.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Stops: it is not ready any more, streams and waits end, and after the time of notice nobody is let in; requests in
    /// progress have the drain time, then the timers and the connections to the database end.
    pub async fn stop(self) {
        tracing::info!(address = %self.address, "stopping");
        self.stopping.cancel();
        tokio::time::sleep(self.notice).await;
        self.server.stop(self.drain).await;
        if let Some(timers) = self.timers {
            timers.stop().await;
        }
        self.app.close().await;
    }
}
