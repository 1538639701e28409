//! The command line of a worker, which `gainsay worker` shares.

use crate::{Config, Misbehaviour};
use clap::Args;
use gainsay_commitment::ModelId;
use gainsay_engine::{Options, Simd};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

/// Lease jobs from a coordinator, run them, claim the results, and defend the claims.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Address of the coordinator; several of one service with commas between them, of which one that answers is used.
    #[arg(long, env = "GAINSAY_COORDINATOR", default_value = "http://127.0.0.1:8650")]
    pub coordinator: String,
    /// Name of this worker, shown in receipts and timelines.
    #[arg(long, env = "GAINSAY_WORKER_NAME", default_value = "worker")]
    pub name: String,
    /// Folder for keys, state and weights.
    #[arg(long, env = "GAINSAY_WORKER_HOME", default_value = "gainsay-worker")]
    pub home: PathBuf,
    /// The worker's key file; made where it is missing. [default: HOME/worker.key]
    #[arg(long, env = "GAINSAY_WORKER_KEY")]
    pub key: Option<PathBuf>,
    /// Name of the owner, who holds the balance.
    #[arg(long, env = "GAINSAY_OWNER_NAME")]
    pub owner_name: Option<String>,
    /// The owner's key file; made where it is missing. [default: HOME/owner.key]
    #[arg(long, env = "GAINSAY_OWNER_KEY")]
    pub owner_key: Option<PathBuf>,
    /// Folder for weights, which several workers may share. [default: HOME/cache]
    #[arg(long, env = "GAINSAY_CACHE")]
    pub cache: Option<PathBuf>,
    /// What this worker says that it runs on. [default: its kind of processor and the number of threads]
    #[arg(long, env = "GAINSAY_DEVICE")]
    pub device: Option<String>,
    /// Serve this model only; may be given several times. [default: all]
    #[arg(long = "model", value_name = "MODEL_ID")]
    pub models: Vec<ModelId>,
    /// Threads; 0 for as many as the machine has.
    #[arg(long, env = "GAINSAY_THREADS", default_value_t = 0)]
    pub threads: usize,
    /// MiB of memory that a model's weights, and then one job, may take; what needs more is refused.
    #[arg(long, env = "GAINSAY_MEMORY_MIB", default_value_t = Options::DEFAULT_MEMORY >> 20)]
    pub memory_mib: u64,
    /// Most jobs held and run at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub batch: u32,
    /// Cheat, for tests and demonstrations: `flip[:LAYER:OP:ELEMENT:BIT | :SEED]`, `skip-layer:LAYER`,
    /// `other-weights[:SEED]`, `silent[:SEED]`.
    #[arg(long, value_name = "HOW")]
    pub misbehave: Option<Misbehaviour>,
    /// Cheat on every Nth job only.
    #[arg(long, value_name = "N", default_value = "1", requires = "misbehave")]
    pub cheat_every: NonZeroU64,
}

impl Arguments {
    /// The configuration that the arguments describe.
    #[must_use]
    pub fn into_config(self) -> Config {
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
            batch: self.batch,
            misbehaviour: self.misbehave,
            cheat_every: self.cheat_every.get(),
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
