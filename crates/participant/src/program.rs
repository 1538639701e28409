//! The program of a role: a command line around the party.

use crate::machine::device_lost;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use gainsay_startup::{HealthError, Lifetime, LogConfig, SettingsError, check_status_file, until_ended};
use std::error::Error;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// A role as a program runs it.
pub trait Role: Args {
    /// What the party is told.
    type Config;
    /// What it has done in the end.
    type Summary: std::fmt::Debug;
    /// Why it stops before.
    type Error: Error + Send + Sync + 'static;

    /// The program's name.
    const PROGRAM: &'static str;

    /// Defaults, settings file, variables and flags together: what the party is told, and its log.
    ///
    /// # Errors
    /// A setting that is unknown or cannot be used.
    fn read(self) -> Result<(Self::Config, LogConfig), SettingsError>;

    /// Where the party says what it does, for a health check.
    fn status_file(config: &Self::Config) -> Option<PathBuf>;

    /// Is the party until `stop` is cancelled.
    ///
    /// # Errors
    /// What waiting does not mend.
    fn run(
        config: Self::Config,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<Self::Summary, Self::Error>>;
}

/// Why the program of a role fails.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Its settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The health check has nothing to look at.
    #[error("status_file is not set: there is nothing to look at")]
    NoStatusFile,
    /// The party that is looked at is not well.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// The operating system tells of no signals.
    #[error("cannot listen for signals: {0}")]
    Signals(#[from] std::io::Error),
    /// The party stopped by itself.
    #[error(transparent)]
    Party(Box<dyn Error + Send + Sync>),
}

/// The flags of a role that runs until it is told to stop.
#[derive(Debug, Args)]
pub struct RoleArguments<R: Role> {
    #[command(flatten)]
    lifetime: Lifetime,
    #[command(flatten)]
    role: R,
}

impl<R: Role> RoleArguments<R> {
    /// Starts the log and is the party until told to stop.
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub async fn run(self) -> Result<(), ProgramError> {
        let (config, log) = self.role.read()?;
        log.start();
        let party = async |stop| {
            tokio::select! {
                ended = R::run(config, stop) => ended.map_err(|error| ProgramError::Party(error.into())),
                error = device_lost() => Err(ProgramError::Party(error.into())),
            }
        };
        let summary = until_ended(&self.lifetime, party).await?;
        tracing::info!(?summary, "stopped");
        Ok(())
    }
}

#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct CommandLine<R: Role> {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    arguments: RoleArguments<R>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look whether the party has written its status file lately; fails if not
    Health,
}

/// The whole program of a role.
///
/// # Errors
/// See [`ProgramError`].
pub async fn program<R: Role>() -> Result<(), ProgramError> {
    let matches = CommandLine::<R>::command().name(R::PROGRAM).get_matches();
    let CommandLine { command, arguments } =
        CommandLine::<R>::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match command {
        None => arguments.run().await,
        Some(Command::Health) => {
            let (config, _) = arguments.role.read()?;
            let file = R::status_file(&config).ok_or(ProgramError::NoStatusFile)?;
            Ok(check_status_file(&file)?)
        }
    }
}
