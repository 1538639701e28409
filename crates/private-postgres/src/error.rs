//! What can go wrong, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No programs on the machine, and none to be had.
    #[error(
        "PostgreSQL is not installed, and fetching it failed: {reason}. Install it with `apt-get install \
         postgresql`, or name the folder of its programs in GAINSAY_POSTGRES_BIN"
    )]
    NotInstalled {
        /// Why the fetch failed.
        reason: String,
    },
    /// A folder that was named does not hold them.
    #[error("{} holds no PostgreSQL of version {minimum} or newer (`postgres` and `initdb` are looked for)", folder.display())]
    NoPrograms {
        /// The folder.
        folder: PathBuf,
        /// The oldest version that will do.
        minimum: u32,
    },
    /// The data was written by a version that is not at hand.
    #[error(
        "{} was written by PostgreSQL {major}, which is not installed: install it with `apt-get install \
         postgresql-{major}`, or name another data folder", data_dir.display()
    )]
    OtherVersion {
        /// The data folder.
        data_dir: PathBuf,
        /// The major version that wrote it.
        major: u32,
    },
    /// The data folder holds something else.
    #[error("{} is not empty and holds no PostgreSQL data: name an empty or a new folder", data_dir.display())]
    NotData {
        /// The folder.
        data_dir: PathBuf,
    },
    /// PostgreSQL refuses to run as root, and no user stands in.
    #[error(
        "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`: create one or run as another user"
    )]
    NoAccount,
    /// The user that runs the server cannot enter a folder.
    #[error(
        "the user that runs PostgreSQL for root cannot enter {}: name a data folder that it can, such as one \
         under /var/lib", folder.display()
    )]
    Unreachable {
        /// The folder, or one above it.
        folder: PathBuf,
    },
    /// No folder has a path that is short and plain enough for a socket.
    #[error("neither the temporary folder nor /tmp can hold a socket: set TMPDIR to a short, plain path")]
    NoSocketFolder,
    /// A folder or file refuses an operation.
    #[error("cannot {operation} {}", path.display())]
    Folder {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A program could not be run.
    #[error("cannot run {program}")]
    Spawn {
        /// The program.
        program: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{program} failed: {output}")]
    Program {
        /// The program.
        program: String,
        /// What it said.
        output: String,
    },
    /// The server ended before it was ready.
    #[error("PostgreSQL did not start on {}: {log}", data_dir.display())]
    Start {
        /// The data folder.
        data_dir: PathBuf,
        /// The end of the server's log.
        log: String,
    },
    /// The server was not ready in time.
    #[error("PostgreSQL was not ready within {seconds} s on {}: {log}", data_dir.display())]
    Slow {
        /// The data folder.
        data_dir: PathBuf,
        /// How long it had.
        seconds: u64,
        /// The end of the server's log.
        log: String,
    },
    /// The server did not stop as asked, or had already ended with an error.
    #[error("PostgreSQL did not stop cleanly ({status}); it recovers its data at the next start")]
    Stop {
        /// How it ended.
        status: String,
    },
    /// A database name that would need quoting.
    #[error("{name:?} is no database name: use 1 to 63 of a-z, 0-9 and _")]
    DatabaseName {
        /// The name.
        name: String,
    },
}

impl Error {
    pub(crate) fn folder(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Folder { operation, path: path.to_owned(), source }
    }
}
