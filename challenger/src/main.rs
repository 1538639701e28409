//! The challenger's program: [`gainsay_challenger::run`] with a command line.

use anyhow::{Context, Result};
use clap::Parser;
use gainsay_challenger::Arguments;
use std::io::IsTerminal as _;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[derive(Debug, Parser)]
#[command(name = "gainsay-challenger", version, about)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
}

#[tokio::main]
async fn main() -> Result<()> {
    let CommandLine { arguments } = CommandLine::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    let summary = gainsay_challenger::run(arguments.into_config(), stop).await?;
    tracing::info!(?summary, "stopped");
    Ok(())
}

async fn stop_on_signal(stop: CancellationToken) -> Result<()> {
    let _stop = stop.drop_guard();
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .context("cannot listen for SIGTERM")?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for SIGINT")?,
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.context("cannot listen for an interrupt")?;
    tracing::info!("stopping");
    Ok(())
}
