//! `gainsay coordinator`, `gainsay worker`, `gainsay challenger`: the same code as the programs of those names.

use anyhow::{Context, Result};
use clap::Args;
use gainsay_coordinator::Coordinator;
use gainsay_participant::program::RoleArguments;
use gainsay_startup::Lifetime;

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

/// A worker.
pub(crate) type WorkerArguments = RoleArguments<gainsay_worker::Arguments>;

/// A challenger.
pub(crate) type ChallengerArguments = RoleArguments<gainsay_challenger::Arguments>;
