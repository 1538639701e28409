//! A Redis server that a test may kill, stop and flush.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gainsay_coordinator::config::RedisConfig;
use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

/// For the server to come up, or to answer.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// A private server on a socket in a folder of its own, which keeps nothing on disk. Ended with the value.
#[derive(Debug)]
pub struct PrivateRedis {
    folder: PathBuf,
    server: Option<Child>,
}

impl PrivateRedis {
    /// Starts one.
    ///
    /// # Panics
    /// If `redis-server` is not installed, or does not come up.
    #[must_use]
    pub fn start() -> Self {
        let mut redis = Self::away();
        redis.start_again();
        redis
    }

    /// The place of one that has not been started.
    ///
    /// # Panics
    /// If the temporary folder cannot be written to.
    #[must_use]
    pub fn away() -> Self {
        // Short: a socket's path has room for some hundred bytes.
        let folder = std::env::temp_dir().join(format!("gs-redis-{}", Uuid::now_v7().simple()));
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written to");
        Self { folder, server: None }
    }

    /// Starts it at its place, empty.
    ///
    /// # Panics
    /// If it runs, `redis-server` is not installed, or it does not come up.
    pub fn start_again(&mut self) {
        assert!(self.server.is_none(), "one server at a time has a socket");
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot run redis-server: {error}. `cargo xtask test` installs it")
            });
        self.server = Some(server);
        let started = Instant::now();
        while self.ask("PING").as_deref() != Some("+PONG") {
            assert!(started.elapsed() < PATIENCE, "redis-server did not come up");
            std::thread::sleep(POLL);
        }
    }

    /// Where clients reach it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Settings for a coordinator. Its answers may take long: the machine of a test is busy with other tests.
    #[must_use]
    pub fn config(&self) -> RedisConfig {
        RedisConfig { answer_time: Duration::from_secs(5), ..RedisConfig::new(self.url()) }
    }

    /// Kills it without a word; everything in it is gone.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("it runs");
        // A stopped process is killed by this signal too.
        server.kill().and_then(|()| server.wait()).expect("our own process can be killed");
    }

    /// Stops it as it is: connections stay, and are taken, and nothing answers.
    pub fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Forgets everything that it holds, its scripts too.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn flush(&self) {
        for command in ["FLUSHALL", "SCRIPT FLUSH"] {
            assert_eq!(self.ask(command).as_deref(), Some("+OK"), "{command}");
        }
    }

    /// How many keys it holds.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn key_count(&self) -> u64 {
        let answer = self.ask("DBSIZE").expect("it answers");
        answer.trim_start_matches(':').parse().expect("a count")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("s")
    }

    fn signal(&self, signal: Signal) {
        let server = self.server.as_ref().expect("it runs");
        let pid = Pid::from_child(server);
        kill_process(pid, signal).expect("our own process can be signalled");
    }

    /// The first line of the answer to a command; none where nobody answers.
    fn ask(&self, command: &str) -> Option<String> {
        let mut stream = connect(&self.socket())?;
        stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    }
}

fn connect(socket: &Path) -> Option<UnixStream> {
    let stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    Some(stream)
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // One that is gone already is as good.
            drop(server.kill().and_then(|()| server.wait()));
        }
        drop(std::fs::remove_dir_all(&self.folder));
    }
}
