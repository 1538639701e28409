//! The worker's program: [`gainsay_worker::run`] with a command line.

use anyhow::Result;
use clap::Parser;
use gainsay_startup::{Lifetime, until_ended};
use gainsay_worker::Arguments;

#[derive(Debug, Parser)]
#[command(name = "gainsay-worker", version, about)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
    #[command(flatten)]
    lifetime: Lifetime,
}

#[tokio::main]
async fn main() -> Result<()> {
    let CommandLine { arguments, lifetime } = CommandLine::parse();
    let (config, log) = arguments.read()?;
    log.start();
    let run = async |stop| anyhow::Ok(gainsay_worker::run(config, stop).await?);
    let summary = until_ended(&lifetime, run).await?;
    tracing::info!(?summary, "stopped");
    Ok(())
}
