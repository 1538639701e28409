//! The command line and the settings of a worker, which `gainsay worker` shares.

use crate::{Config, Misbehaviour};
use clap::Args;
use gainsay_commitment::ModelId;
use gainsay_engine::{Options, Simd};
use gainsay_startup::{LogConfig, LogFormat, Settings, SettingsArguments, SettingsError, Visitor};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

/// Lease jobs from a coordinator, run them, claim the results, and defend the claims.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// Address of the coordinator; several of one service with commas between them, of which one that answers is used.
    /// [env: GAINSAY_COORDINATOR] [default: http://127.0.0.1:8650]
    #[arg(long, value_name = "URL")]
    coordinator: Option<String>,
    /// Name of this worker, shown in receipts and timelines. [env: GAINSAY_WORKER_NAME] [default: worker]
    #[arg(long)]
    name: Option<String>,
    /// Folder for keys, state and weights. [env: GAINSAY_WORKER_HOME] [default: gainsay-worker]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// The worker's key file; made where it is missing. [env: GAINSAY_WORKER_KEY] [default: HOME/worker.key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Name of the owner, who holds the balance. [env: GAINSAY_OWNER_NAME]
    #[arg(long)]
    owner_name: Option<String>,
    /// The owner's key file; made where it is missing. [env: GAINSAY_OWNER_KEY] [default: HOME/owner.key]
    #[arg(long, value_name = "FILE")]
    owner_key: Option<PathBuf>,
    /// Folder for weights, which several workers may share. [env: GAINSAY_CACHE] [default: HOME/cache]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// What this worker says that it runs on. [env: GAINSAY_DEVICE] [default: its kind of processor and the number of
    /// threads]
    #[arg(long)]
    device: Option<String>,
    /// Serve this model only; may be given several times. [env: GAINSAY_MODELS] [default: all]
    #[arg(long = "model", value_name = "MODEL_ID")]
    models: Vec<ModelId>,
    /// Threads; 0 for as many as the machine has. [env: GAINSAY_THREADS] [default: 0]
    #[arg(long)]
    threads: Option<usize>,
    /// MiB of memory that a model's weights, and then one job, may take; what needs more is refused. [env:
    /// GAINSAY_MEMORY_MIB]
    #[arg(long)]
    memory_mib: Option<u64>,
    /// Most jobs held and run at once. [env: GAINSAY_BATCH] [default: 4]
    #[arg(long)]
    batch: Option<NonZeroU32>,
    /// How the log is written: text or json. [env: GAINSAY_LOG_FORMAT] [default: text]
    #[arg(long)]
    log_format: Option<LogFormat>,
    /// Cheat, for tests and demonstrations: `flip[:LAYER:OP:ELEMENT:BIT | :SEED]`, `skip-layer:LAYER`,
    /// `other-weights[:SEED]`, `silent[:SEED]`.
    #[arg(long, value_name = "HOW")]
    misbehave: Option<Misbehaviour>,
    /// Cheat on every Nth job only.
    #[arg(long, value_name = "N", default_value = "1", requires = "misbehave")]
    cheat_every: NonZeroU64,
}

/// What of a worker can be set.
#[derive(Clone, Debug)]
struct WorkerSettings {
    coordinator: String,
    name: String,
    home: PathBuf,
    key: Option<PathBuf>,
    owner_name: Option<String>,
    owner_key: Option<PathBuf>,
    cache: Option<PathBuf>,
    device: Option<String>,
    models: Vec<ModelId>,
    threads: usize,
    memory_mib: u64,
    batch: NonZeroU32,
    lease_wait_ms: NonZeroU64,
    look_every_ms: NonZeroU64,
    status_file: Option<PathBuf>,
    log: LogConfig,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        let config = Config::new("http://127.0.0.1:8650", "worker", "gainsay-worker");
        let ms =
            |time: Duration| NonZeroU64::new(time.as_millis() as u64).expect("the defaults are above zero");
        Self {
            coordinator: config.coordinator,
            name: config.names.name,
            home: "gainsay-worker".into(),
            key: None,
            owner_name: None,
            owner_key: None,
            cache: None,
            device: None,
            models: config.models,
            threads: config.engine.threads,
            memory_mib: config.engine.memory >> 20,
            batch: NonZeroU32::new(config.batch).expect("the default is above zero"),
            lease_wait_ms: ms(config.lease_wait),
            look_every_ms: ms(config.look_every),
            status_file: None,
            log: LogConfig::default(),
        }
    }
}

impl Settings for WorkerSettings {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        visitor.value("coordinator", &mut self.coordinator);
        visitor.value("name", &mut self.name);
        visitor.path("home", &mut self.home);
        visitor.optional_path("key", &mut self.key);
        visitor.optional("owner_name", &mut self.owner_name);
        visitor.optional_path("owner_key", &mut self.owner_key);
        visitor.optional_path("cache", &mut self.cache);
        visitor.optional("device", &mut self.device);
        visitor.list("models", &mut self.models);
        visitor.value("threads", &mut self.threads);
        visitor.value("memory_mib", &mut self.memory_mib);
        visitor.value("batch", &mut self.batch);
        visitor.value("lease_wait_ms", &mut self.lease_wait_ms);
        visitor.value("look_every_ms", &mut self.look_every_ms);
        visitor.optional_path("status_file", &mut self.status_file);
        self.log.visit(visitor);
    }
}

impl Arguments {
    /// Defaults, settings file, variables and flags together: what the worker is told, and its log.
    ///
    /// # Errors
    /// A setting that is unknown or cannot be used.
    pub fn read(self) -> Result<(Config, LogConfig), SettingsError> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let models: Vec<String> = self.models.iter().map(ToString::to_string).collect();
        let layers = self
            .settings
            .layers()?
            .flag("coordinator", self.coordinator)
            .flag("name", self.name)
            .flag("home", path(&self.home))
            .flag("key", path(&self.key))
            .flag("owner_name", self.owner_name)
            .flag("owner_key", path(&self.owner_key))
            .flag("cache", path(&self.cache))
            .flag("device", self.device)
            .flag("models", (!models.is_empty()).then(|| models.join(",")))
            .flag("threads", self.threads)
            .flag("memory_mib", self.memory_mib)
            .flag("batch", self.batch)
            .flag("log_format", self.log_format);
        let mut settings = WorkerSettings::default();
        gainsay_startup::read("worker", &mut settings, &layers)?;
        let log = settings.log.clone();
        let misbehaviour = self.misbehave;
        Ok((Config { misbehaviour, cheat_every: self.cheat_every.get(), ..settings.into_config() }, log))
    }
}

impl WorkerSettings {
    fn into_config(self) -> Config {
        let mut config = Config::new(self.coordinator, self.name, self.home);
        let names = &mut config.names;
        names.key_file = self.key.unwrap_or(std::mem::take(&mut names.key_file));
        names.owner_key_file = self.owner_key.unwrap_or(std::mem::take(&mut names.owner_key_file));
        names.owner_name = self.owner_name.unwrap_or(std::mem::take(&mut names.owner_name));
        config.cache_dir = self.cache.unwrap_or(config.cache_dir);
        Config {
            device: Some(self.device.unwrap_or_else(processor)),
            models: self.models,
            engine: Options {
                threads: self.threads,
                simd: Simd::Auto,
                memory: self.memory_mib.saturating_mul(1 << 20),
            },
            batch: self.batch.get(),
            lease_wait: Duration::from_millis(self.lease_wait_ms.get()),
            look_every: Duration::from_millis(self.look_every_ms.get()),
            status_file: self.status_file,
            ..config
        }
    }
}

/// What the operating system says of this machine's processor.
fn processor() -> String {
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let listed = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = listed.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    format!("CPU: {model}, {threads} threads")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_reference_file_names_every_setting_with_its_default() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gainsay.example.toml");
        let problems = gainsay_startup::reference_problems("worker", &file, WorkerSettings::default());
        assert!(problems.is_empty(), "{problems:#?}");
    }
}
