//! What every party is told: by a settings file, variables and flags, the same for each role.

use crate::identity::Names;
use crate::models::StoreOptions;
use clap::Args;
use gainsay_engine::{DeviceChoice, Options};
use gainsay_startup::{Layers, LogConfig, LogFormat, Settings, SettingsArguments, SettingsError, Visitor};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

/// What every party is told.
#[derive(Clone, Debug)]
pub struct PartyConfig {
    /// The coordinator's address; those of several coordinators of one service with commas between them.
    pub coordinator: String,
    /// Names and key files of the party and its owner.
    pub names: Names,
    /// Where it keeps models, how it runs them, and what they may take.
    pub models: StoreOptions,
    /// How often it looks for its turn when no event says so.
    pub look_every: Duration,
    /// File to write every few seconds with what was done, for those who watch from beside.
    pub status_file: Option<PathBuf>,
}

impl PartyConfig {
    /// A party of this role (`worker`, `challenger`) for the coordinator at this address, with its files under `home`.
    #[must_use]
    pub fn new(
        role: &str,
        coordinator: impl Into<String>,
        name: impl Into<String>,
        home: impl Into<PathBuf>,
    ) -> Self {
        Self::on(DeviceChoice::Auto, role, (coordinator.into(), name.into()), home.into())
    }

    fn on(device: DeviceChoice, role: &str, (coordinator, name): (String, String), home: PathBuf) -> Self {
        Self {
            coordinator,
            names: Names {
                key_file: home.join(format!("{role}.key")),
                owner_name: format!("{name}'s owner"),
                owner_key_file: home.join("owner.key"),
                name,
            },
            models: StoreOptions::new(home.join("cache"), device),
            look_every: Duration::from_secs(5),
            status_file: None,
        }
    }
}

/// Flags that every party has.
#[derive(Clone, Debug, Args)]
pub struct PartyArguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// Address of the coordinator; several of one service with commas between them, of which one that answers is used.
    /// [env: GAINSAY_COORDINATOR] [default: http://127.0.0.1:8650]
    #[arg(long, value_name = "URL")]
    coordinator: Option<String>,
    /// Name of this party, shown in receipts and timelines. [env: GAINSAY_NAME] [default: its role]
    #[arg(long)]
    name: Option<String>,
    /// Folder for keys, state and weights. [env: GAINSAY_HOME] [default: gainsay- and its role]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// The party's key file; made where it is missing. [env: GAINSAY_KEY] [default: in HOME]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Name of the owner, who holds the balance. [env: GAINSAY_OWNER_NAME]
    #[arg(long)]
    owner_name: Option<String>,
    /// The owner's key file; made where it is missing. [env: GAINSAY_OWNER_KEY] [default: HOME/owner.key]
    #[arg(long, value_name = "FILE")]
    owner_key: Option<PathBuf>,
    /// Folder for weights, which several parties may share. [env: GAINSAY_CACHE] [default: HOME/cache]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Where models run: auto (the first CUDA device, else the CPU), cpu, cuda:0, cuda:1 and so on. [env: GAINSAY_DEVICE]
    /// [default: auto]
    #[arg(long)]
    device: Option<DeviceChoice>,
    /// Threads; 0 for as many as the machine has. [env: GAINSAY_THREADS] [default: 0]
    #[arg(long)]
    threads: Option<usize>,
    /// MiB of memory that the layers of one job may take; what needs more is not run; 0 for a quarter of what the machine
    /// has to give, at most 16384. [env: GAINSAY_MEMORY_MIB] [default: 0]
    #[arg(long)]
    memory_mib: Option<u64>,
    /// MiB of memory that all loaded models may take together; 0 for half of what the machine has to give. [env:
    /// GAINSAY_MODELS_MIB] [default: 0]
    #[arg(long)]
    models_mib: Option<u64>,
    /// How the log is written: text or json. [env: GAINSAY_LOG_FORMAT] [default: text]
    #[arg(long)]
    log_format: Option<LogFormat>,
}

impl PartyArguments {
    /// These flags over the settings file and this process's variables. A role adds flags of its own.
    ///
    /// # Errors
    /// A flag that cannot be used.
    pub fn layers(self) -> Result<Layers, SettingsError> {
        let path = |path: Option<PathBuf>| path.map(|path| path.display().to_string());
        Ok(self
            .settings
            .layers()?
            .flag("coordinator", self.coordinator)
            .flag("name", self.name)
            .flag("home", path(self.home))
            .flag("key", path(self.key))
            .flag("owner_name", self.owner_name)
            .flag("owner_key", path(self.owner_key))
            .flag("cache", path(self.cache))
            .flag("device", self.device)
            .flag("threads", self.threads)
            .flag("memory_mib", self.memory_mib)
            .flag("models_mib", self.models_mib)
            .flag("log_format", self.log_format))
    }
}

/// What of every party can be set.
#[derive(Clone, Debug)]
pub struct PartySettings {
    role: &'static str,
    coordinator: String,
    name: String,
    home: PathBuf,
    key: Option<PathBuf>,
    owner_name: Option<String>,
    owner_key: Option<PathBuf>,
    cache: Option<PathBuf>,
    cache_mib: u64,
    device: DeviceChoice,
    threads: usize,
    memory_mib: u64,
    models_mib: u64,
    look_every_ms: NonZeroU64,
    status_file: Option<PathBuf>,
    /// How the log is written, and what of it.
    pub log: LogConfig,
}

impl PartySettings {
    /// The defaults of a role.
    #[must_use]
    pub fn new(role: &'static str) -> Self {
        Self {
            role,
            coordinator: "http://127.0.0.1:8650".to_owned(),
            name: role.to_owned(),
            home: format!("gainsay-{role}").into(),
            key: None,
            owner_name: None,
            owner_key: None,
            cache: None,
            cache_mib: StoreOptions::DEFAULT_CACHE_BYTES >> 20,
            device: DeviceChoice::Auto,
            threads: 0,
            memory_mib: 0,
            models_mib: 0,
            look_every_ms: NonZeroU64::new(5_000).expect("above zero"),
            status_file: None,
            log: LogConfig::default(),
        }
    }

    /// The folder of its files.
    #[must_use]
    pub fn home(&self) -> &PathBuf {
        &self.home
    }

    /// What the party is told by them.
    #[must_use]
    pub fn into_config(self) -> PartyConfig {
        let usual = PartyConfig::on(self.device, self.role, (self.coordinator, self.name), self.home);
        let planned = usual.models;
        let models = bytes_or(self.models_mib, planned.memory);
        let job = bytes_or(self.memory_mib, planned.engine.memory);
        PartyConfig {
            names: Names {
                key_file: self.key.unwrap_or(usual.names.key_file),
                owner_name: self.owner_name.unwrap_or(usual.names.owner_name),
                owner_key_file: self.owner_key.unwrap_or(usual.names.owner_key_file),
                name: usual.names.name,
            },
            models: StoreOptions {
                cache_dir: self.cache.unwrap_or(planned.cache_dir),
                cache_bytes: self.cache_mib.saturating_mul(1 << 20),
                engine: Options { threads: self.threads, weights: models, memory: job, ..planned.engine },
                memory: models,
            },
            look_every: Duration::from_millis(self.look_every_ms.get()),
            status_file: self.status_file,
            ..usual
        }
    }
}

/// Bytes of so many MiB, or what is planned where none are set.
#[must_use]
pub fn bytes_or(mib: u64, planned: u64) -> u64 {
    if mib == 0 { planned } else { mib.saturating_mul(1 << 20) }
}

impl Settings for PartySettings {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        visitor.value("coordinator", &mut self.coordinator);
        visitor.value("name", &mut self.name);
        visitor.path("home", &mut self.home);
        visitor.optional_path("key", &mut self.key);
        visitor.optional("owner_name", &mut self.owner_name);
        visitor.optional_path("owner_key", &mut self.owner_key);
        visitor.optional_path("cache", &mut self.cache);
        visitor.value("cache_mib", &mut self.cache_mib);
        visitor.value("device", &mut self.device);
        visitor.value("threads", &mut self.threads);
        visitor.value("memory_mib", &mut self.memory_mib);
        visitor.value("models_mib", &mut self.models_mib);
        visitor.value("look_every_ms", &mut self.look_every_ms);
        visitor.optional_path("status_file", &mut self.status_file);
        self.log.visit(visitor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::MemoryPlan;

    #[test]
    fn memory_is_planned_by_the_machine_and_what_is_set_wins() {
        let plan = MemoryPlan::for_device(DeviceChoice::Auto);
        let of = |memory_mib, models_mib| {
            let set = PartySettings { memory_mib, models_mib, ..PartySettings::new("worker") };
            let StoreOptions { engine, memory, .. } = set.into_config().models;
            (engine.memory, engine.weights, memory)
        };
        assert_eq!(of(0, 0), (plan.job, plan.models, plan.models));
        assert_eq!(of(3, 7), (3 << 20, 7 << 20, 7 << 20));
    }
}
