//! `gainsay-coordinator`: the service as a process of its own.

use anyhow::Context as _;
use clap::Parser;
use gainsay_coordinator::{Arguments, Coordinator};
use gainsay_startup::Lifetime;

#[derive(Debug, Parser)]
#[command(name = "gainsay-coordinator", version, about)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
    #[command(flatten)]
    lifetime: Lifetime,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let CommandLine { arguments, lifetime } = CommandLine::parse();
    let settings = arguments.read()?;
    settings.log.start();
    let coordinator = Coordinator::new(settings.config).http(settings.http);
    let running = coordinator.start().await.context("cannot start")?;
    lifetime.ended().await.context("cannot listen for signals")?;
    running.stop().await;
    Ok(())
}
