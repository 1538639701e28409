//! `gainsay-coordinator`: the service as a process of its own. Settings come from the environment (`GAINSAY_…`).

use anyhow::Context as _;
use clap::Parser;
use gainsay_coordinator::config::Config;
use gainsay_coordinator::{Coordinator, HttpConfig};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Takes jobs, leases them to workers, arbitrates disputes over their claims, and pays.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where HTTP listens, in place of GAINSAY_LISTEN.
    #[arg(long)]
    listen: Option<std::net::SocketAddr>,
    /// PostgreSQL, in place of GAINSAY_DATABASE_URL.
    #[arg(long)]
    database_url: Option<String>,
    /// Write the log as JSON, one object a line.
    #[arg(long, env = "GAINSAY_LOG_JSON")]
    log_json: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    start_log(arguments.log_json);
    let config = configuration(&arguments)?;
    let http = HttpConfig::from_lookup(|name| std::env::var(name).ok())?;
    let running = Coordinator::new(config).http(http).start().await.context("cannot start")?;
    wait_for_signal().await.context("cannot listen for signals")?;
    running.stop().await;
    Ok(())
}

fn configuration(arguments: &Arguments) -> anyhow::Result<Config> {
    let database_url = arguments.database_url.clone();
    let mut config = Config::from_lookup(|name| match name {
        "GAINSAY_DATABASE_URL" if database_url.is_some() => database_url.clone(),
        name => std::env::var(name).ok(),
    })?;
    if let Some(listen) = arguments.listen {
        config.listen = listen;
    }
    Ok(config)
}

fn start_log(json: bool) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,actix_server=warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        log.json().init();
    } else {
        log.init();
    }
}

async fn wait_for_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}
