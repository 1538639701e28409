//! Starts the parties of `demo` and `dev` as processes of their own, and ends them with this one.
//!
//! Each child is this program again, in another role. It keeps its standard input open towards its parent and stops
//! when that closes, so that nothing outlives a parent that was killed. What it logs goes to a file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gainsay_private_postgres::{Cluster, Durability, Options};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::cast::Owner;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const LOG_TAIL_LINES: usize = 12;
/// What a child prints in front of the address that it serves.
pub(crate) const ANNOUNCEMENT: &str = "listening ";

/// A folder with a database and the processes that were started in it.
pub(crate) struct Stage {
    dir: PathBuf,
    // Dropped after the processes that use it.
    processes: Vec<Process>,
    _postgres: Option<Cluster>,
    database_url: String,
}

struct Process {
    name: String,
    child: Child,
    /// Closing it asks the child to stop.
    stdin: Option<ChildStdin>,
    log: PathBuf,
}

/// Where the database of a stage comes from.
pub(crate) enum Database {
    /// One that already runs.
    Existing(String),
    /// A private cluster that goes with the stage.
    Temporary,
    /// A private cluster in the stage's folder, there again the next time.
    Kept,
}

impl Stage {
    /// Makes the folder and has a database running.
    pub(crate) async fn new(
        dir: PathBuf,
        database: Database,
        progress: impl Fn(&str) + Send + 'static,
    ) -> Result<Stage> {
        std::fs::create_dir_all(dir.join("logs"))
            .with_context(|| format!("cannot write to {}", dir.display()))?;
        let (postgres, database_url) = match database {
            Database::Existing(url) => (None, url),
            private => {
                let options = match private {
                    Database::Kept => Options { data_dir: Some(dir.join("postgres")), ..Options::default() },
                    _ => Options { durability: Durability::TestOnly, ..Options::default() },
                };
                let started = tokio::task::spawn_blocking(move || {
                    let cluster = Cluster::start(options, &progress)?;
                    let url = cluster.url("postgres");
                    anyhow::Ok((cluster, url))
                });
                let (cluster, url) = started.await.context("starting PostgreSQL ended early")??;
                (Some(cluster), url)
            }
        };
        Ok(Stage { dir, processes: Vec::new(), _postgres: postgres, database_url })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts a coordinator and returns the address that it serves.
    pub(crate) async fn coordinator(&mut self, listen: &str, settings: &[(&str, String)]) -> Result<String> {
        let mut command = self.command("coordinator", "coordinator")?;
        command
            .args(["--announce", "--listen", listen])
            .env("GAINSAY_DATABASE_URL", &self.database_url)
            .env("GAINSAY_BLOB_DIR", self.dir.join("blobs"))
            .env("GAINSAY_KEY_FILE", self.dir.join("coordinator.key"))
            .envs(settings.iter().map(|(name, value)| (*name, value)))
            .stdout(Stdio::piped());
        let process = self.spawn("coordinator", command)?;
        let stdout = process.child.stdout.take().expect("stdout was asked to be piped");
        match timeout(START_TIMEOUT, announcement(stdout)).await {
            Ok(Ok(url)) => Ok(url),
            Ok(Err(error)) => Err(error.context(process.tail())),
            Err(_) => bail!("the coordinator did not start within {START_TIMEOUT:?}\n{}", process.tail()),
        }
    }

    /// Starts a worker or challenger under a name of its own, with its files in a folder of that name.
    pub(crate) fn party(
        &mut self,
        role: &str,
        name: &str,
        owner: &Owner,
        url: &str,
        extra: &[&str],
    ) -> Result<()> {
        let mut command = self.command(role, name)?;
        command
            .args(["--coordinator", url, "--name", name, "--owner-name", &owner.name])
            .arg("--owner-key")
            .arg(&owner.key_file)
            .arg("--home")
            .arg(self.dir.join(name))
            .arg("--cache")
            .arg(self.dir.join("weights"))
            .args(extra)
            .stdout(Stdio::null());
        self.spawn(name, command).map(drop)
    }

    fn command(&self, role: &str, name: &str) -> Result<Command> {
        let program = std::env::current_exe().context("cannot tell where this program is")?;
        let log = File::create(self.log_path(name)).with_context(|| format!("cannot log for {name}"))?;
        let mut command = Command::new(program);
        command.arg(role).arg("--follow-stdin").stdin(Stdio::piped()).stderr(log).kill_on_drop(true);
        Ok(command)
    }

    fn spawn(&mut self, name: &str, mut command: Command) -> Result<&mut Process> {
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let stdin = child.stdin.take();
        self.processes.push(Process { name: name.to_owned(), child, stdin, log: self.log_path(name) });
        Ok(self.processes.last_mut().expect("a process was just added"))
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    /// Fails with the end of its log if a process has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        for process in &mut self.processes {
            if let Some(status) = process.child.try_wait().context("cannot ask after a process")? {
                bail!("{} ended unexpectedly ({status})\n{}", process.name, process.tail());
            }
        }
        Ok(())
    }

    /// Stops every process, those that were started last first.
    pub(crate) async fn stop(mut self) -> Result<()> {
        while let Some(mut process) = self.processes.pop() {
            drop(process.stdin.take());
            if timeout(STOP_TIMEOUT, process.child.wait()).await.is_err() {
                process.child.kill().await.with_context(|| format!("cannot end {}", process.name))?;
            }
        }
        Ok(())
    }
}

impl Process {
    fn tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!("the end of {}:\n{}", self.log.display(), tail.join("\n"))
    }
}

async fn announcement(stdout: ChildStdout) -> Result<String> {
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(url) = line.strip_prefix(ANNOUNCEMENT) {
            return Ok(url.to_owned());
        }
    }
    bail!("the coordinator ended before it served")
}
