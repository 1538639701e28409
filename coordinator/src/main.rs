//! `gainsay-coordinator`: the service as a process of its own.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use gainsay_coordinator::{Arguments, Coordinator};
use gainsay_startup::Lifetime;

#[derive(Debug, Parser)]
#[command(name = "gainsay-coordinator", version, about, args_conflicts_with_subcommands = true)]
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
    /// Ask a coordinator whether it can serve; fails if not
    Health {
        /// Its health route.
        #[arg(default_value = "http://127.0.0.1:8650/health/ready")]
        url: String,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    if let Some(served) = gainsay_coordinator::serve_if_asked() {
        return Ok(served);
    }
    run().map(|()| ExitCode::SUCCESS)
}

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    let CommandLine { command, arguments, lifetime } = CommandLine::parse();
    if let Some(Command::Health { url }) = command {
        return Ok(gainsay_startup::ask_health(&url)?);
    }
    let settings = arguments.read()?;
    settings.log.start();
    let coordinator = Coordinator::new(settings.config).http(settings.http);
    let running = coordinator.start().await.context("cannot start")?;
    lifetime.ended().await.context("cannot listen for signals")?;
    running.stop().await;
    Ok(())
}
