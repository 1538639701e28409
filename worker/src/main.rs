//! The worker's program: [`gainsay_worker::run`] with a command line.

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use gainsay_startup::{Lifetime, check_status_file, until_ended};
use gainsay_worker::Arguments;

#[derive(Debug, Parser)]
#[command(name = "gainsay-worker", version, about, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    arguments: Arguments,
    #[command(flatten)]
    lifetime: Lifetime,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look whether a worker has written its status file lately; fails if not
    Health,
}

#[tokio::main]
async fn main() -> Result<()> {
    let CommandLine { command, arguments, lifetime } = CommandLine::parse();
    let (config, log) = arguments.read()?;
    if let Some(Command::Health) = command {
        let file = config.status_file.context("status_file is not set: there is nothing to look at")?;
        return Ok(check_status_file(&file)?);
    }
    log.start();
    let run = async |stop| anyhow::Ok(gainsay_worker::run(config, stop).await?);
    let summary = until_ended(&lifetime, run).await?;
    tracing::info!(?summary, "stopped");
    Ok(())
}
