//! The command line of a challenger, which `gainsay challenger` shares.

use crate::{Config, Mode, SampleRate};
use clap::Args;
use gainsay_engine::{Options, Simd};
use std::path::PathBuf;

/// Follow a coordinator's claims, run them again, and dispute those that are false.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Address of the coordinator; several of one service with commas between them, of which one that answers is used.
    #[arg(long, env = "GAINSAY_COORDINATOR", default_value = "http://127.0.0.1:8650")]
    pub coordinator: String,
    /// Name of this challenger, shown in timelines.
    #[arg(long, env = "GAINSAY_CHALLENGER_NAME", default_value = "challenger")]
    pub name: String,
    /// Folder for keys and weights.
    #[arg(long, env = "GAINSAY_CHALLENGER_HOME", default_value = "gainsay-challenger")]
    pub home: PathBuf,
    /// The challenger's key file; made where it is missing. [default: HOME/challenger.key]
    #[arg(long, env = "GAINSAY_CHALLENGER_KEY")]
    pub key: Option<PathBuf>,
    /// Name of the owner, who holds the balance.
    #[arg(long, env = "GAINSAY_OWNER_NAME")]
    pub owner_name: Option<String>,
    /// The owner's key file; made where it is missing. [default: HOME/owner.key]
    #[arg(long, env = "GAINSAY_OWNER_KEY")]
    pub owner_key: Option<PathBuf>,
    /// Folder for weights, which several parties may share. [default: HOME/cache]
    #[arg(long, env = "GAINSAY_CACHE")]
    pub cache: Option<PathBuf>,
    /// How far to go.
    #[arg(long, value_enum, default_value_t)]
    pub mode: Mode,
    /// Which part of the claims to check, from 0 to 1.
    #[arg(long, default_value = "1")]
    pub sample: SampleRate,
    /// Threads; 0 for as many as the machine has.
    #[arg(long, env = "GAINSAY_THREADS", default_value_t = 0)]
    pub threads: usize,
    /// MiB of memory that a model's weights, and then one job, may take; what needs more is not checked.
    #[arg(long, env = "GAINSAY_MEMORY_MIB", default_value_t = Options::DEFAULT_MEMORY >> 20)]
    pub memory_mib: u64,
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
            mode: self.mode,
            sample: self.sample,
            engine: Options {
                threads: self.threads,
                simd: Simd::Auto,
                memory: self.memory_mib.saturating_mul(1 << 20),
            },
            ..config
        }
    }
}
