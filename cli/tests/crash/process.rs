//! A process of the program under test, which can be killed and started again.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// For a process that was asked to stop.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(10);

/// One role under one name; the same command whenever it is started.
pub(crate) struct Process {
    name: String,
    command: Command,
    child: Option<Child>,
    log: PathBuf,
    /// Bytes of the log when it was last started.
    logged: u64,
    asked_when_up: bool,
}

impl Process {
    /// A process that is not started yet. It ends with the test, however that ends: its standard input closes.
    pub(crate) fn new(folder: &Path, role: &str, name: &str) -> Process {
        let log = folder.join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gainsay"));
        command.args([role, "--follow-stdin"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(file);
        Process { name: name.to_owned(), command, child: None, log, logged: 0, asked_when_up: false }
    }

    /// The command, to add what the role needs.
    pub(crate) fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Starts it, unless it runs.
    pub(crate) fn start(&mut self) {
        if self.child.is_none() {
            self.logged = std::fs::metadata(&self.log).unwrap().len();
            let child = self.command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.name));
            self.child = Some(child);
        }
    }

    /// Ends it without a word. One that has ended by itself was to run on: that fails the test.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{} had ended by itself ({status})\n{}", self.name, self.log());
    }

    /// Asks it to stop, as an operator does.
    pub(crate) fn ask_to_stop(&mut self) {
        let is_up = self.is_up();
        let Some(child) = &self.child else { return };
        kill_process(Pid::from_child(child), Signal::TERM).unwrap();
        self.asked_when_up = is_up;
    }

    /// Waits until it has stopped, which it does well if it was up when it was asked to.
    pub(crate) fn wait_stopped(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{} does not stop when asked to\n{}",
                self.name,
                self.log()
            );
            std::thread::sleep(POLL);
        };
        let is_well = status.success() || !self.asked_when_up;
        assert!(is_well, "{} ended with {status} when asked to stop\n{}", self.name, self.log());
    }

    /// Whether it has come so far since it was last started that it listens for requests to stop.
    fn is_up(&self) -> bool {
        let log = std::fs::read(&self.log).unwrap();
        let log = String::from_utf8_lossy(&log[self.logged as usize..]).into_owned();
        log.contains("serving address") || log.contains("registered party")
    }

    /// Fails the test if it has ended by itself.
    pub(crate) fn check(&mut self) {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait().unwrap()
        {
            panic!("{} has ended by itself ({status})\n{}", self.name, self.log());
        }
    }

    /// The end of what it logged.
    pub(crate) fn log(&self) -> String {
        const LINES: usize = 30;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        format!("── {} ──\n{}", self.name, lines[lines.len().saturating_sub(LINES)..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Gone already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
