//! What a worker is told.

use crate::{Misbehaviour, Summary};
use gainsay_commitment::ModelId;
use gainsay_engine::Options;
use gainsay_participant::identity::Names;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

/// What a worker is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The coordinator's address; those of several coordinators of one service with commas between them.
    pub coordinator: String,
    /// Names and key files of the worker and its owner.
    pub names: Names,
    /// Folder of what must survive a restart.
    pub state_dir: PathBuf,
    /// Folder of weights by hash; several workers may share it.
    pub cache_dir: PathBuf,
    /// What it says that it runs on.
    pub device: Option<String>,
    /// The models that it serves; all that the coordinator has, if none is named.
    pub models: Vec<ModelId>,
    /// How models are run.
    pub engine: Options,
    /// Most jobs that it holds and runs at once.
    pub batch: u32,
    /// How long one request for a lease waits for a job.
    pub lease_wait: Duration,
    /// How often it looks for disputes when no event says that there are any.
    pub look_every: Duration,
    /// How it cheats, if it does.
    pub misbehaviour: Option<Misbehaviour>,
    /// It cheats on every so many-th job; 1 is on all.
    pub cheat_every: u64,
    /// File to write every few seconds with what was done, for those who watch from beside.
    pub status_file: Option<PathBuf>,
    /// Where to say what was done, while it is done.
    pub progress: Option<watch::Sender<Summary>>,
}

impl Config {
    /// A worker for the coordinator at this address, with its files under `home`.
    #[must_use]
    pub fn new(coordinator: impl Into<String>, name: impl Into<String>, home: impl Into<PathBuf>) -> Self {
        let (name, home) = (name.into(), home.into());
        Self {
            coordinator: coordinator.into(),
            names: Names {
                key_file: home.join("worker.key"),
                owner_name: format!("{name}'s owner"),
                owner_key_file: home.join("owner.key"),
                name,
            },
            state_dir: home.join("state"),
            cache_dir: home.join("cache"),
            device: None,
            models: Vec::new(),
            engine: Options::default(),
            batch: 4,
            lease_wait: Duration::from_secs(20),
            look_every: Duration::from_secs(5),
            misbehaviour: None,
            cheat_every: 1,
            status_file: None,
            progress: None,
        }
    }
}
