//! A child as its parent sees it.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::serve::ARGUMENT;
use super::{Answer, Task, TemplateHost, wire};

/// Time for one task by the clock on the wall; the child's own limit, on its processor time, is far shorter.
const TASK_TIME: Duration = Duration::from_secs(10);

/// Why a child is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("it took too long")]
    Late,
    #[error("it ended: {0}")]
    Broken(#[from] io::Error),
}

/// A child that waits for a task. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Renderer {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Renderer {
    pub(super) fn start(host: &TemplateHost) -> io::Result<Self> {
        let mut child = Command::new(program(host)?)
            .arg(ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Its last words are a stranger's.
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) = input.zip(output).ok_or_else(|| io::Error::other("a child without pipes"))?;
        Ok(Self { child, input, output })
    }

    /// Whether it has not ended while it waited.
    pub(super) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Has it do a task.
    pub(super) async fn ask(&mut self, task: impl FnOnce() -> Task) -> Result<Answer, Ended> {
        let task = wire::frame(&task())?;
        timeout(TASK_TIME, self.exchange(&task)).await.unwrap_or(Err(Ended::Late))
    }

    async fn exchange(&mut self, task: &[u8]) -> Result<Answer, Ended> {
        self.input.write_all(task).await?;
        self.input.flush().await?;
        let mut head = [0; 4];
        self.output.read_exact(&mut head).await?;
        let mut body = vec![0; wire::length(head)?];
        self.output.read_exact(&mut body).await?;
        Ok(serde_json::from_slice(&body).map_err(io::Error::from)?)
    }
}

fn program(host: &TemplateHost) -> io::Result<OsString> {
    match host {
        TemplateHost::Program(path) => Ok(path.clone().into()),
        // The file that this process was started from may have been replaced by another version since.
        _ if cfg!(target_os = "linux") => Ok("/proc/self/exe".into()),
        _ => Ok(std::env::current_exe()?.into()),
    }
}
