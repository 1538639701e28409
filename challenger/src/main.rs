//! The challenger's program: [`gainsay_challenger::run`] with a command line.

use anyhow::Result;
use clap::Parser;
use gainsay_challenger::Arguments;
use gainsay_startup::{Lifetime, until_ended};

#[derive(Debug, Parser)]
#[command(name = "gainsay-challenger", version, about)]
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
    let run = async |stop| anyhow::Ok(gainsay_challenger::run(config, stop).await?);
    let summary = until_ended(&lifetime, run).await?;
    tracing::info!(?summary, "stopped");
    Ok(())
}
