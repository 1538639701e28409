//! `gainsay`: every role of the system, and the tools around them, in one program.

mod cast;
mod demo;
mod dev;
mod doctor;
mod local;
mod models;
mod publish;
mod pull;
mod roles;
mod stage;
mod submit;
mod terminal;
mod verify;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// AI inference on machines that you do not own, with answers that are proven right or paid back.
#[derive(Debug, Parser)]
#[command(name = "gainsay", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole path on this machine: honest work paid, a cheat convicted
    Demo(demo::DemoArguments),
    /// Run a coordinator, a worker and a challenger on this machine until interrupted
    Dev(dev::DevArguments),
    /// Have texts embedded by a coordinator's workers
    Embed(submit::EmbedArguments),
    /// Show a job's receipt: who computed what, with which model, and who was paid
    Receipt(submit::ReceiptArguments),
    /// List a coordinator's models, or register one
    #[command(subcommand)]
    Models(models::ModelsCommand),
    /// List disputes, or save one's evidence
    #[command(subcommand)]
    Disputes(submit::DisputesCommand),
    /// Judge an exported dispute again, offline
    Verify(verify::VerifyArguments),
    /// Say what this machine can do, and check its floating-point environment
    Doctor(doctor::DoctorArguments),
    /// Run a coordinator
    Coordinator(roles::CoordinatorArguments),
    /// Run a worker: lease jobs, compute, claim, defend
    Worker(roles::WorkerArguments),
    /// Run a challenger: watch claims, re-execute, dispute
    Challenger(roles::ChallengerArguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log(&arguments.command);
    match run(arguments.command).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gainsay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command; whether what it was to show is so.
async fn run(command: Command) -> Result<bool> {
    let done = match command {
        Command::Demo(arguments) => return arguments.run().await,
        Command::Dev(arguments) => arguments.run().await,
        Command::Embed(arguments) => arguments.run().await,
        Command::Receipt(arguments) => arguments.run().await,
        Command::Models(command) => command.run().await,
        Command::Disputes(command) => command.run().await,
        Command::Verify(arguments) => arguments.run(),
        Command::Doctor(arguments) => arguments.run(),
        Command::Coordinator(arguments) => arguments.run().await,
        Command::Worker(arguments) => arguments.run().await,
        Command::Challenger(arguments) => arguments.run().await,
    };
    done.map(|()| true)
}

/// Roles log what they do; commands for people only what is wrong. `RUST_LOG` overrides both.
fn start_log(command: &Command) {
    let is_role = matches!(command, Command::Coordinator(_) | Command::Worker(_) | Command::Challenger(_));
    let default = if is_role { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
