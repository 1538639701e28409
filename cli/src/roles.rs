//! `gainsay coordinator`, `gainsay worker`, `gainsay challenger`: the same code as the programs of those names.

use anyhow::{Context, Result};
use clap::Args;
use gainsay_coordinator::config::Config;
use gainsay_coordinator::{Coordinator, HttpConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::stage::ANNOUNCEMENT;

/// What every role that runs until it is told to stop has in common.
#[derive(Debug, Args)]
pub(crate) struct Lifetime {
    /// Stop when standard input closes, as it does when the parent process ends.
    #[arg(long, hide = true)]
    follow_stdin: bool,
}

impl Lifetime {
    /// Resolves when the process should stop: on SIGINT, SIGTERM or, where asked, at the end of standard input.
    pub(crate) async fn ended(&self) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let stdin_closed = async {
            if self.follow_stdin {
                end_of_stdin().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for SIGINT"),
            _ = terminate.recv() => Ok(()),
            () = stdin_closed => Ok(()),
        }
    }
}

/// Reads on a thread of its own: a blocked read would otherwise keep the runtime from ending.
async fn end_of_stdin() {
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // An error ends the input as surely as its end does.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        ended.send(())
    });
    // A thread that is gone has nothing left to follow.
    let _ = end.await;
}

/// Runs a coordinator. Settings that have no flag are read from `GAINSAY_…` variables.
#[derive(Debug, Args)]
pub(crate) struct CoordinatorArguments {
    #[command(flatten)]
    lifetime: Lifetime,
    /// Where HTTP listens; port 0 takes any free one.
    #[arg(long, env = "GAINSAY_LISTEN")]
    listen: Option<std::net::SocketAddr>,
    /// PostgreSQL.
    #[arg(long, env = "GAINSAY_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Print the address that is served, once it is.
    #[arg(long, hide = true)]
    announce: bool,
}

impl CoordinatorArguments {
    pub(crate) async fn run(self) -> Result<()> {
        let mut config = Config::from_lookup(|name| match name {
            "GAINSAY_DATABASE_URL" => Some(self.database_url.clone()),
            other => std::env::var(other).ok(),
        })?;
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        let http = HttpConfig::from_lookup(|name| std::env::var(name).ok())?;
        let running =
            Coordinator::new(config).http(http).start().await.context("the coordinator cannot start")?;
        if self.announce {
            println!("{ANNOUNCEMENT}{}", running.url());
        }
        self.lifetime.ended().await?;
        running.stop().await;
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    #[command(flatten)]
    lifetime: Lifetime,
    #[command(flatten)]
    worker: gainsay_worker::Arguments,
}

impl WorkerArguments {
    pub(crate) async fn run(self) -> Result<()> {
        let config = self.worker.into_config();
        let summary = until_ended(&self.lifetime, |stop| gainsay_worker::run(config, stop)).await?;
        tracing::info!(?summary, "the worker has stopped");
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(crate) struct ChallengerArguments {
    #[command(flatten)]
    lifetime: Lifetime,
    #[command(flatten)]
    challenger: gainsay_challenger::Arguments,
}

impl ChallengerArguments {
    pub(crate) async fn run(self) -> Result<()> {
        let config = self.challenger.into_config();
        let summary = until_ended(&self.lifetime, |stop| gainsay_challenger::run(config, stop)).await?;
        tracing::info!(?summary, "the challenger has stopped");
        Ok(())
    }
}

/// Runs a party until it ends by itself or is told to; then lets it finish what it has in hand.
async fn until_ended<T, E, F>(lifetime: &Lifetime, party: impl FnOnce(CancellationToken) -> F) -> Result<T>
where
    F: Future<Output = Result<T, E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    let stop = CancellationToken::new();
    let running = party(stop.clone());
    tokio::pin!(running);
    tokio::select! {
        early = &mut running => return Ok(early?),
        ended = lifetime.ended() => ended?,
    }
    stop.cancel();
    Ok(running.await?)
}
