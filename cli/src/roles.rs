//! `gainsay coordinator`, `gainsay worker`, `gainsay challenger`: the same code as the programs of those names.

use anyhow::{Context, Result};
use clap::Args;
use gainsay_coordinator::Coordinator;
use gainsay_startup::{Lifetime, until_ended};

use crate::stage::ANNOUNCEMENT;

#[derive(Debug, Args)]
pub(crate) struct CoordinatorArguments {
    #[command(flatten)]
    lifetime: Lifetime,
    #[command(flatten)]
    coordinator: gainsay_coordinator::Arguments,
    /// Print the address that is served, once it is.
    #[arg(long, hide = true)]
    announce: bool,
}

impl CoordinatorArguments {
    pub(crate) async fn run(self) -> Result<()> {
        let settings = self.coordinator.read()?;
        settings.log.start();
        let coordinator = Coordinator::new(settings.config).http(settings.http);
        let running = coordinator.start().await.context("the coordinator cannot start")?;
        if self.announce {
            println!("{ANNOUNCEMENT}{}", running.url());
        }
        self.lifetime.ended().await.context("cannot listen for signals")?;
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
        let (config, log) = self.worker.read()?;
        log.start();
        let run = async |stop| anyhow::Ok(gainsay_worker::run(config, stop).await?);
        let summary = until_ended(&self.lifetime, run).await?;
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
        let (config, log) = self.challenger.read()?;
        log.start();
        let run = async |stop| anyhow::Ok(gainsay_challenger::run(config, stop).await?);
        let summary = until_ended(&self.lifetime, run).await?;
        tracing::info!(?summary, "the challenger has stopped");
        Ok(())
    }
}
