//! The service's HTTP side: one module per resource, and the only code that knows HTTP.
//!
//! A handler reads what came, calls one use case of [`App`](crate::app::App), and writes what it answered.
//! Everything that guards all routes is here once: [`auth`] says who asks, [`body`] bounds what comes, [`error`]
//! gives refusals their status and code, [`observe`] writes the log and the headers.

mod accounts;
mod audit;
mod auth;
mod blobs;
mod body;
mod catalog;
mod claims;
mod config;
mod dispute_view;
mod disputes;
mod docs;
mod embeddings;
mod error;
mod event_view;
mod events;
mod generation;
mod headers;
mod info;
mod jobs;
mod leases;
mod metrics;
mod models;
mod names;
mod observe;
mod openapi;
mod overview;
mod parties;
mod peer;
mod repeats;
mod request;
mod routes;
mod state;
mod submission;
mod views;
mod voids;

use std::net::TcpListener;
use std::time::Duration;
use std::{fmt, io};

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App as WebApp, HttpServer};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use config::HttpConfig;
pub use peer::{Network, ParseNetworkError};

use crate::app::App;
use routes::Routes;
use state::HttpState;

/// A server that serves.
pub(crate) struct Server {
    handle: ServerHandle,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Serves on a bound listener. `stopping` ends streams and waits; the server itself ends by
    /// [`stop`](Self::stop).
    ///
    /// # Errors
    /// If the operating system refuses the listener.
    pub(crate) fn start(
        listener: TcpListener,
        app: App,
        config: HttpConfig,
        stopping: CancellationToken,
    ) -> io::Result<Self> {
        let (threads, connections) = (config.threads, config.connections_per_thread);
        let (headers_time, drain) = (config.headers_time, config.drain);
        let state = Data::new(HttpState::new(app, config, Handle::current(), stopping));
        let build = move || {
            let app = WebApp::new().app_data(state.clone()).wrap(from_fn(observe::observe));
            app.configure(|service| routes().register(service))
        };
        let server = HttpServer::new(build)
            .workers(threads)
            .max_connections(connections)
            .client_request_timeout(headers_time)
            .shutdown_timeout(drain.as_secs().max(1))
            .disable_signals()
            .listen(listener)?
            .run();
        Ok(Self { handle: server.handle(), task: tokio::spawn(server) })
    }

    /// Takes no more connections, gives those in progress the drain time, and ends.
    pub(crate) async fn stop(self, drain: Duration) {
        // The server gives up on connections after the drain time by itself; the bound here is for a server that
        // does not come back at all.
        let stopped = tokio::time::timeout(drain + Duration::from_secs(2), self.handle.stop(true)).await;
        if stopped.is_err() {
            tracing::warn!("connections outlived the drain time");
            self.task.abort();
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// Every route of the service.
fn routes() -> Routes {
    Routes::default()
        .get("/", overview::page)
        .get("/docs", docs::page)
        .get("/docs/{file}", docs::file)
        .get("/health/live", info::live)
        .get("/health/ready", info::ready)
        .get("/metrics", metrics::metrics)
        .get("/v1/openapi.json", docs::document)
        .get("/v1/info", info::info)
        .get("/v1/overview", overview::overview)
        .post("/v1/submitters", parties::register_submitter)
        .post("/v1/owners", parties::register_owner)
        .post("/v1/workers", parties::register_worker)
        .post("/v1/challengers", parties::register_challenger)
        .post("/v1/deposits", accounts::deposit)
        .post("/v1/withdrawals", accounts::withdraw)
        .get("/v1/accounts", accounts::list)
        .post("/v1/embeddings", embeddings::embed)
        .post("/v1/chat/completions", generation::chat)
        .post("/v1/completions", generation::complete)
        .get("/v1/jobs", jobs::list)
        .post("/v1/jobs", jobs::submit)
        .get("/v1/jobs/{id}", jobs::read)
        .delete("/v1/jobs/{id}", jobs::cancel)
        .get("/v1/jobs/{id}/receipt", jobs::receipt)
        .get("/v1/models", models::list)
        .get("/v1/models/{id}", models::read)
        .put("/v1/models/{id}", models::register)
        .get("/v1/blobs/{hash}", blobs::download)
        .put("/v1/blobs/{hash}", blobs::upload)
        .post("/v1/leases", leases::lease)
        .post("/v1/leases/{id}/heartbeat", leases::heartbeat)
        .post("/v1/leases/{id}/return", leases::give_back)
        .post("/v1/leases/{id}/tokens", leases::tokens)
        .get("/v1/claims", claims::list)
        .post("/v1/claims", claims::post)
        .get("/v1/claims/{id}", claims::read)
        .post("/v1/equivocations", claims::report)
        .get("/v1/disputes", disputes::list)
        .post("/v1/disputes", disputes::open)
        .get("/v1/disputes/{id}", disputes::read)
        .post("/v1/disputes/{id}/moves", disputes::play)
        .get("/v1/disputes/{id}/evidence", disputes::evidence)
        .post("/v1/disputes/{id}/resume", disputes::resume)
        .get("/v1/voids", voids::list)
        .post("/v1/voids", voids::void)
        .get("/v1/audit/books", audit::books)
        .get("/v1/audit/transactions", audit::transactions)
        .get("/v1/events", events::stream)
}
