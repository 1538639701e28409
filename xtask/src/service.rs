//! A service that runs for a step: `gainsay dev`, with a database and a folder of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

/// What `gainsay dev` prints in front of its address and key.
const WELCOME: &str = "export GAINSAY_URL=";
/// Requests of one submitter a minute: few enough that a client in a hurry meets the limit.
const SUBMISSIONS_PER_MINUTE: &str = "120";
/// Registrations a minute: fuzzing registers all the time.
const REGISTRATIONS_PER_MINUTE: &str = "60000";

/// A coordinator, a worker and a challenger. Killed when dropped.
pub(crate) struct Service {
    child: Child,
    // Held open: the service may write to it until it ends.
    _stdout: BufReader<ChildStdout>,
    dir: PathBuf,
    url: String,
    api_key: String,
    operator_token: String,
}

impl Service {
    /// Starts `program` on a database that holds nothing yet, with the model in `model`.
    pub(crate) fn start(program: &Path, database_url: &str, model: &Path) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("gainsay-service-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot write to {}", dir.display()))?;
        let mut child = Command::new(program)
            .args(["dev", "--listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(&dir)
            .args(["--database-url", database_url])
            .arg("--model")
            .arg(model)
            .env("GAINSAY_HTTP_SUBMISSIONS_PER_MINUTE", SUBMISSIONS_PER_MINUTE)
            .env("GAINSAY_HTTP_REGISTRATIONS_PER_MINUTE", REGISTRATIONS_PER_MINUTE)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout was asked to be piped"));
        let (url, api_key) = match welcome(&mut stdout) {
            Ok(found) => found,
            Err(error) => {
                // Whatever it waits for, it is not going to serve.
                let _ = child.kill();
                return Err(error);
            }
        };
        let token = dir.join("operator.token");
        let operator_token =
            std::fs::read_to_string(&token).with_context(|| format!("cannot read {}", token.display()))?;
        Ok(Self {
            child,
            _stdout: stdout,
            dir,
            url,
            api_key,
            operator_token: operator_token.trim().to_owned(),
        })
    }

    /// A command that finds the service through its environment.
    pub(crate) fn client(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("GAINSAY_URL", &self.url)
            .env("GAINSAY_API_KEY", &self.api_key)
            .env("GAINSAY_OPERATOR_TOKEN", &self.operator_token);
        command
    }

    /// Where it serves.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Interrupts it as a person would, and removes what it kept.
    pub(crate) fn stop(mut self) -> Result<()> {
        let interrupted = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        interrupted.context("cannot interrupt the service")?;
        let status = self.child.wait().context("the service did not end")?;
        if !status.success() {
            bail!("the service ended with {status}; its logs are in {}", self.dir.join("logs").display());
        }
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Its children follow it: their standard input closes. An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn welcome(stdout: &mut BufReader<ChildStdout>) -> Result<(String, String)> {
    for line in stdout.by_ref().lines() {
        let line = line.context("cannot read what the service prints")?;
        let Some(rest) = line.trim_start().strip_prefix(WELCOME) else { continue };
        let (url, key) = rest.split_once(" GAINSAY_API_KEY=").context("the service names no key")?;
        return Ok((url.to_owned(), key.trim().to_owned()));
    }
    bail!("the service ended before it served")
}
