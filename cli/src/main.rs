//! `gainsay`: every role of the system, and the tools around them, in one program.

mod bench;
mod cast;
mod chat;
mod demo;
mod dev;
mod doctor;
mod generated;
mod hub;
mod hub_hash;
mod local;
mod models;
mod operator;
mod publish;
mod pull;
mod roles;
mod stage;
mod submit;
mod terminal;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use gainsay_startup::LogConfig;

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
    /// Talk to a language model on a coordinator's workers
    Chat(chat::ChatArguments),
    /// Show a job's receipt: who computed what, with which model, and who was paid
    Receipt(submit::ReceiptArguments),
    /// List a coordinator's models, or register one
    #[command(subcommand)]
    Models(models::ModelsCommand),
    /// List disputes, or save one's evidence
    #[command(subcommand)]
    Disputes(submit::DisputesCommand),
    /// Credit an account from outside, as the operator
    Deposit(operator::DepositArguments),
    /// Derive every balance again from the ledger's log, as the operator
    Audit(operator::AuditArguments),
    /// Withdraw a faulty arithmetic profile and give everything undecided back, as the operator
    Void(operator::VoidArguments),
    /// Let the clocks of a dispute run again that a failed referee had stopped, as the operator
    Resume(operator::ResumeArguments),
    /// Judge an exported dispute again, offline
    Verify(verify::VerifyArguments),
    /// Measure what verification costs on this machine
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Say where models would run on this machine and why, and whether every operator gives the right bits there; fails if not
    Doctor(doctor::DoctorArguments),
    /// Ask a coordinator whether it can serve; fails if not
    Health {
        /// Its health route
        #[arg(default_value = "http://127.0.0.1:8650/health/ready")]
        url: String,
    },
    /// Run a coordinator
    Coordinator(roles::CoordinatorArguments),
    /// Run a worker: lease jobs, compute, claim, defend
    Worker(roles::WorkerArguments),
    /// Run a challenger: watch claims, re-execute, dispute
    Challenger(roles::ChallengerArguments),
}

fn main() -> ExitCode {
    gainsay_coordinator::serve_if_asked().unwrap_or_else(start)
}

#[tokio::main]
async fn start() -> ExitCode {
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
        Command::Chat(arguments) => arguments.run().await,
        Command::Receipt(arguments) => arguments.run().await,
        Command::Models(command) => command.run().await,
        Command::Disputes(command) => command.run().await,
        Command::Deposit(arguments) => arguments.run().await,
        Command::Audit(arguments) => return arguments.run().await,
        Command::Void(arguments) => arguments.run().await,
        Command::Resume(arguments) => arguments.run().await,
        Command::Verify(arguments) => arguments.run(),
        Command::Bench(command) => command.run(),
        Command::Doctor(arguments) => return arguments.run(),
        Command::Health { url } => gainsay_startup::ask_health(&url).map_err(Into::into),
        Command::Coordinator(arguments) => arguments.run().await,
        Command::Worker(arguments) => arguments.run().await.map_err(Into::into),
        Command::Challenger(arguments) => arguments.run().await.map_err(Into::into),
    };
    done.map(|()| true)
}

/// Roles start their own logs, from their settings; commands for people say only what is wrong.
fn start_log(command: &Command) {
    if !matches!(command, Command::Coordinator(_) | Command::Worker(_) | Command::Challenger(_)) {
        LogConfig { filter: "warn".to_owned(), ..LogConfig::default() }.start();
    }
}
