//! The server process: starting it, knowing when it is ready, ending it.
//!
//! A thread of its own starts the process and waits for it. It has to live as long as the process does: the
//! kernel stops the server when the *thread* that started it ends, which is how the server never outlives us.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::programs::Installation;
use crate::{Durability, Error, Lifetime, Place};

/// Names the socket file; no network port is opened.
pub(crate) const PORT: u16 = 5432;
/// The socket's name in its folder.
pub(crate) const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// Recovery after a crash included.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the processes of a killed server may hold on to its data folder.
const LOCKED_TIMEOUT: Duration = Duration::from_secs(15);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const READY_POLL: Duration = Duration::from_millis(10);
/// Writing a checkpoint included.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server process, ended with its value.
#[derive(Debug)]
pub(crate) struct Server {
    pid: Pid,
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
    /// Whether to write out the data at the end.
    lifetime: Lifetime,
}

/// What the keeping thread tells the others.
#[derive(Debug, Default)]
struct Shared {
    /// `Some` from the moment the process is reaped, when its id may go to another.
    exit: Mutex<Option<Result<ExitStatus, io::ErrorKind>>>,
    exited: Condvar,
}

impl Shared {
    fn exit(&self) -> MutexGuard<'_, Option<Result<ExitStatus, io::ErrorKind>>> {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the process has ended; false if it has not within the time.
    fn wait(&self, timeout: Duration) -> bool {
        let wait = self.exited.wait_timeout_while(self.exit(), timeout, |exit| exit.is_none());
        wait.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }
}

impl Server {
    /// Starts the server and waits until it accepts connections. Where the processes of a killed predecessor
    /// still hold the data, it tries again until they are gone.
    pub(crate) fn start(
        place: Place<'_>,
        socket_dir: &Path,
        installation: &Installation,
    ) -> Result<Self, Error> {
        let data_dir = place.data_dir;
        let started = Instant::now();
        loop {
            let log_path = data_dir.join("postgres.log");
            let command = postgres(place, socket_dir, &log_path, installation)?;
            let server = Self::spawn(command, place.lifetime)?;
            if server.wait_ready(data_dir, &log_path)? {
                return Ok(server);
            }
            let log = log_end(&log_path);
            if !data_is_locked(&log) || started.elapsed() > LOCKED_TIMEOUT {
                return Err(Error::Start { data_dir: data_dir.to_owned(), log });
            }
            std::thread::sleep(RETRY_PAUSE);
        }
    }

    fn spawn(command: Command, lifetime: Lifetime) -> Result<Self, Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |source| Error::Spawn { program, source };
        let shared = Arc::new(Shared::default());
        let (report, spawned) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("postgres-keeper".into());
        let keeper_shared = Arc::clone(&shared);
        let keeper = match thread.spawn(move || keep(command, &report, &keeper_shared)) {
            Ok(keeper) => keeper,
            Err(error) => return Err(failed(error)),
        };
        match spawned.recv().expect("the keeper reports before it does anything else") {
            Ok(pid) => Ok(Self { pid, shared, keeper: Some(keeper), lifetime }),
            Err(error) => Err(failed(error)),
        }
    }

    /// Waits until the server is ready; false if it ended instead.
    fn wait_ready(&self, data_dir: &Path, log_path: &Path) -> Result<bool, Error> {
        let started = Instant::now();
        loop {
            if self.shared.wait(READY_POLL) {
                return Ok(false);
            }
            if is_ready(&pid_file(data_dir), self.process_id()) {
                return Ok(true);
            }
            if started.elapsed() > START_TIMEOUT {
                let (data_dir, log) = (data_dir.to_owned(), log_end(log_path));
                return Err(Error::Slow { data_dir, seconds: START_TIMEOUT.as_secs(), log });
            }
        }
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Ends the server if it runs: asks for a fast shutdown, which writes out the data, then for an immediate one,
    /// then kills it. Data that is about to be removed need not be written.
    pub(crate) fn stop(&mut self) -> Result<(), Error> {
        let Some(keeper) = self.keeper.take() else { return Ok(()) };
        let requests =
            [(Signal::INT, STOP_TIMEOUT), (Signal::QUIT, ABORT_TIMEOUT), (Signal::KILL, ABORT_TIMEOUT)];
        let first = usize::from(self.lifetime == Lifetime::Temporary);
        for (signal, timeout) in &requests[first..] {
            self.signal(*signal);
            if self.shared.wait(*timeout) {
                break;
            }
        }
        let exit = *self.shared.exit();
        let status = match exit {
            Some(Ok(status)) if status.success() => return joined(keeper),
            Some(Ok(status)) => status.to_string(),
            Some(Err(error)) => error.to_string(),
            None => return Err(Error::Stop { status: "it does not react to being killed".into() }),
        };
        joined(keeper).and(Err(Error::Stop { status }))
    }

    /// Ends the server as a crash would. One that has ended stays so.
    pub(crate) fn kill(&mut self) -> Result<(), Error> {
        let Some(keeper) = self.keeper.take() else { return Ok(()) };
        self.signal(Signal::KILL);
        if self.shared.wait(ABORT_TIMEOUT) {
            return joined(keeper);
        }
        Err(Error::Stop { status: "it does not react to being killed".into() })
    }

    /// Sends a signal unless the process has ended. The process cannot be reaped meanwhile, so its id is its own.
    fn signal(&self, signal: Signal) {
        let exit = self.shared.exit();
        if exit.is_none()
            && let Err(error) = rustix::process::kill_process(self.pid, signal)
        {
            tracing::warn!(%error, ?signal, "cannot signal the PostgreSQL server");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "private PostgreSQL");
        }
    }
}

/// Waits for the keeper, which ends right after its process.
fn joined(keeper: JoinHandle<()>) -> Result<(), Error> {
    keeper.join().map_err(|_| Error::Stop { status: "its keeping thread panicked".into() })
}

/// Starts the process, reports its id, and reaps it when it ends.
fn keep(mut command: Command, report: &SyncSender<io::Result<Pid>>, shared: &Shared) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let _ = report.send(Err(error));
            return;
        }
    };
    let pid = Pid::from_child(&child);
    let _ = report.send(Ok(pid));
    wait_for_end(pid);
    let mut exit = shared.exit();
    *exit = Some(child.wait().map_err(|error| error.kind()));
    shared.exited.notify_all();
}

/// Blocks until the process has ended, without reaping it.
fn wait_for_end(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while matches!(rustix::process::waitid(WaitId::Pid(pid), options), Err(rustix::io::Errno::INTR)) {}
}

/// The command that runs the server in the foreground.
fn postgres(
    place: Place<'_>,
    socket_dir: &Path,
    log_path: &Path,
    installation: &Installation,
) -> Result<Command, Error> {
    let log = new_log(log_path)?;
    let log_again = log.try_clone().map_err(|e| Error::folder("open", log_path, e))?;
    let mut command = installation.command("postgres", place.account);
    command.arg("-D").arg(place.data_dir).stdout(log).stderr(log_again);
    let mut socket_setting = std::ffi::OsString::from("unix_socket_directories=");
    socket_setting.push(socket_dir);
    command.arg("-c").arg(socket_setting);
    let forced = if place.durability == Durability::Safe { "on" } else { "off" };
    for (setting, value) in [
        ("listen_addresses", ""),
        ("port", &PORT.to_string()),
        ("unix_socket_permissions", "0700"),
        ("max_connections", "200"),
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
        ("fsync", forced),
        ("synchronous_commit", forced),
        ("full_page_writes", forced),
    ] {
        command.arg("-c").arg(format!("{setting}={value}"));
    }
    // An interrupt from the terminal is for us: the server has to outlast what still uses it.
    command.process_group(0);
    stop_with_parent(&mut command);
    Ok(command)
}

/// Makes the kernel stop the server when the thread that starts it ends.
#[cfg(target_os = "linux")]
fn stop_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let ask_kernel = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::INT))?;
        // Where the parent ended before the request, nobody would send the signal any more.
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. The closure makes two system calls
    // and neither allocates nor locks: `ErrorKind::into` and `Errno::into` build an `io::Error` in place.
    unsafe { command.pre_exec(ask_kernel) };
}

/// Other systems have no such request: there the server ends with its [`Server`] alone.
#[cfg(not(target_os = "linux"))]
fn stop_with_parent(_command: &mut Command) {}

/// An empty log, whoever's the previous one was.
fn new_log(path: &Path) -> Result<File, Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::folder("remove", path, error));
        }
        _ => {}
    }
    File::create_new(path).map_err(|e| Error::folder("create", path, e))
}

/// The last lines of the log, for an error message.
fn log_end(path: &Path) -> String {
    const LINES: usize = 8;
    let log = fs::read(path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Whether the log says that another server holds the data, or processes that a killed one left.
fn data_is_locked(log: &str) -> bool {
    log.contains("lock file") || log.contains("shared memory block")
}

fn pid_file(data_dir: &Path) -> PathBuf {
    data_dir.join("postmaster.pid")
}

/// Whether the file says that the server of this process id accepts connections. It may be a killed server's.
fn is_ready(pid_file: &Path, process_id: u32) -> bool {
    let text = fs::read_to_string(pid_file).unwrap_or_default();
    let mut lines = text.lines();
    lines.next() == Some(&process_id.to_string()) && lines.next_back().map(str::trim) == Some("ready")
}

/// Whether the process that a data folder names as its server exists.
pub(crate) fn runs_in(data_dir: &Path) -> bool {
    let text = fs::read_to_string(pid_file(data_dir)).unwrap_or_default();
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok()).and_then(Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_this_server_and_its_last_word() {
        let file = std::env::temp_dir().join(format!("gainsay-pid-{}", crate::folder::random_name()));
        let says = |text: &str| {
            fs::write(&file, text).expect("the temporary folder is writable");
            is_ready(&file, 42)
        };
        assert!(says("42\n/data\n1700000000\n5432\n/tmp\n\n  1  2\nready   \n"));
        assert!(!says("42\n/data\n1700000000\n5432\n/tmp\n\n  1  2\nstarting\n"));
        assert!(!says("41\n/data\n1700000000\n5432\n/tmp\n\n  1  2\nready   \n"), "a killed server's file");
        assert!(!says("42\n"));
        assert!(!says(""));
        fs::remove_file(&file).expect("own file");
        assert!(!is_ready(&file, 42));
    }
}
