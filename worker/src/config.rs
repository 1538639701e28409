//! What a worker is told.

use crate::{Misbehaviour, Summary};
use gainsay_commitment::ModelId;
use gainsay_participant::machine::MemoryPlan;
use gainsay_participant::settings::PartyConfig;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// What a worker is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// What every party is told.
    pub party: PartyConfig,
    /// Folder of what must survive a restart.
    pub state_dir: PathBuf,
    /// What it says that it runs on; what it does run on if nothing else.
    pub device_name: Option<String>,
    /// The models that it serves; all that the coordinator has, if none is named.
    pub models: Vec<ModelId>,
    /// Most jobs that it holds and runs at once.
    pub batch: u32,
    /// Bytes of keys and values of running generations, for each model; jobs for which there is no room wait.
    pub kv_bytes: u64,
    /// How long one request for a lease waits for a job.
    pub lease_wait: Duration,
    /// How it cheats, if it does.
    pub misbehaviour: Option<Misbehaviour>,
    /// It cheats on every so many-th job; 1 is on all.
    pub cheat_every: u64,
    /// Where to say what was done, while it is done.
    pub progress: Option<watch::Sender<Summary>>,
}

impl Config {
    /// A worker for the coordinator at this address, with its files under `home`.
    #[must_use]
    pub fn new(coordinator: impl Into<String>, name: impl Into<String>, home: impl Into<PathBuf>) -> Self {
        let home = home.into();
        let state_dir = Self::state_dir(&home);
        Self::of(PartyConfig::new("worker", coordinator, name, home), state_dir)
    }

    /// A worker that is this party, and else as usual.
    pub(crate) fn of(party: PartyConfig, state_dir: PathBuf) -> Self {
        let MemoryPlan { cache: kv_bytes, .. } = MemoryPlan::for_device(party.models.engine.device);
        Self {
            party,
            state_dir,
            device_name: None,
            models: Vec::new(),
            batch: 16,
            kv_bytes,
            lease_wait: Duration::from_secs(20),
            misbehaviour: None,
            cheat_every: 1,
            progress: None,
        }
    }

    /// Where a worker with its files under `home` keeps its state.
    pub(crate) fn state_dir(home: &Path) -> PathBuf {
        home.join("state")
    }
}
