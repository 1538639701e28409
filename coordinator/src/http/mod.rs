//! The service's HTTP side: one module per resource, and the only code that knows HTTP.
//!
//! A handler reads what came, calls one use case of [`App`](crate::app::App), and writes what it answered.
//! Everything that guards all routes is here once: [`auth`] says who asks, [`body`] bounds what comes, [`error`]
//! gives refusals their status and code, [`observe`] writes the log and the headers.

mod accounts;
mod auth;
mod blobs;
mod body;
mod catalog;
mod claims;
mod config;
mod dispute_view;
mod disputes;
mod embeddings;
mod error;
mod event_view;
mod events;
mod headers;
mod info;
mod jobs;
mod leases;
mod models;
mod names;
mod observe;
mod overview;
mod parties;
mod request;
mod state;
mod submission;
mod views;

use std::net::TcpListener;
use std::time::Duration;
use std::{fmt, io};

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App as WebApp, HttpServer};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use config::HttpConfig;

use crate::app::App;
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
        let build =
            move || WebApp::new().app_data(state.clone()).wrap(from_fn(observe::observe)).configure(routes);
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
fn routes(service: &mut ServiceConfig) {
    service
        .route("/", web::get().to(overview::page))
        .route("/health/live", web::get().to(info::live))
        .route("/health/ready", web::get().to(info::ready))
        .service(web::resource("/v1/info").route(web::get().to(info::info)))
        .service(web::resource("/v1/overview").route(web::get().to(overview::overview)))
        .service(web::resource("/v1/submitters").route(web::post().to(parties::register_submitter)))
        .service(web::resource("/v1/owners").route(web::post().to(parties::register_owner)))
        .service(web::resource("/v1/workers").route(web::post().to(parties::register_worker)))
        .service(web::resource("/v1/challengers").route(web::post().to(parties::register_challenger)))
        .service(web::resource("/v1/deposits").route(web::post().to(accounts::deposit)))
        .service(web::resource("/v1/withdrawals").route(web::post().to(accounts::withdraw)))
        .service(web::resource("/v1/accounts").route(web::get().to(accounts::list)))
        .service(web::resource("/v1/embeddings").route(web::post().to(embeddings::embed)))
        .service(
            web::resource("/v1/jobs").route(web::get().to(jobs::list)).route(web::post().to(jobs::submit)),
        )
        .service(
            web::resource("/v1/jobs/{id}")
                .route(web::get().to(jobs::read))
                .route(web::delete().to(jobs::cancel)),
        )
        .service(web::resource("/v1/jobs/{id}/receipt").route(web::get().to(jobs::receipt)))
        .service(web::resource("/v1/models").route(web::get().to(models::list)))
        .service(
            web::resource("/v1/models/{id}")
                .route(web::get().to(models::read))
                .route(web::put().to(models::register)),
        )
        .service(
            web::resource("/v1/blobs/{hash}")
                .route(web::get().to(blobs::download))
                .route(web::put().to(blobs::upload)),
        )
        .service(web::resource("/v1/leases").route(web::post().to(leases::lease)))
        .service(web::resource("/v1/leases/{id}/heartbeat").route(web::post().to(leases::heartbeat)))
        .service(
            web::resource("/v1/claims")
                .route(web::get().to(claims::list))
                .route(web::post().to(claims::post)),
        )
        .service(web::resource("/v1/claims/{id}").route(web::get().to(claims::read)))
        .service(
            web::resource("/v1/disputes")
                .route(web::get().to(disputes::list))
                .route(web::post().to(disputes::open)),
        )
        .service(web::resource("/v1/disputes/{id}").route(web::get().to(disputes::read)))
        .service(web::resource("/v1/disputes/{id}/moves").route(web::post().to(disputes::play)))
        .service(web::resource("/v1/disputes/{id}/evidence").route(web::get().to(disputes::evidence)))
        .service(web::resource("/v1/events").route(web::get().to(events::stream)));
}
