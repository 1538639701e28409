//! The command line and the settings of a challenger, which `gainsay challenger` shares.

use crate::{Config, Mode, SampleRate};
use clap::Args;
use gainsay_engine::{Options, Simd};
use gainsay_startup::{LogConfig, LogFormat, Settings, SettingsArguments, SettingsError, Visitor};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

/// Follow a coordinator's claims, run them again, and dispute those that are false.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// Address of the coordinator; several of one service with commas between them, of which one that answers is used.
    /// [env: GAINSAY_COORDINATOR] [default: http://127.0.0.1:8650]
    #[arg(long, value_name = "URL")]
    coordinator: Option<String>,
    /// Name of this challenger, shown in timelines. [env: GAINSAY_CHALLENGER_NAME] [default: challenger]
    #[arg(long)]
    name: Option<String>,
    /// Folder for keys and weights. [env: GAINSAY_CHALLENGER_HOME] [default: gainsay-challenger]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// The challenger's key file; made where it is missing. [env: GAINSAY_CHALLENGER_KEY] [default:
    /// HOME/challenger.key]
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
    /// How far to go. [env: GAINSAY_MODE] [default: challenge]
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Which part of the claims to check, from 0 to 1. [env: GAINSAY_SAMPLE] [default: 1]
    #[arg(long)]
    sample: Option<SampleRate>,
    /// Threads; 0 for as many as the machine has. [env: GAINSAY_THREADS] [default: 0]
    #[arg(long)]
    threads: Option<usize>,
    /// MiB of memory that a model's weights, and then one job, may take; what needs more is not checked. [env:
    /// GAINSAY_MEMORY_MIB]
    #[arg(long)]
    memory_mib: Option<u64>,
    /// How the log is written: text or json. [env: GAINSAY_LOG_FORMAT] [default: text]
    #[arg(long)]
    log_format: Option<LogFormat>,
}

/// What of a challenger can be set.
#[derive(Clone, Debug)]
struct ChallengerSettings {
    coordinator: String,
    name: String,
    home: PathBuf,
    key: Option<PathBuf>,
    owner_name: Option<String>,
    owner_key: Option<PathBuf>,
    cache: Option<PathBuf>,
    mode: Mode,
    sample: SampleRate,
    threads: usize,
    memory_mib: u64,
    batch: NonZeroUsize,
    look_every_ms: NonZeroU64,
    list_every_ms: NonZeroU64,
    status_file: Option<PathBuf>,
    log: LogConfig,
}

impl Default for ChallengerSettings {
    fn default() -> Self {
        let config = Config::new("http://127.0.0.1:8650", "challenger", "gainsay-challenger");
        let ms =
            |time: Duration| NonZeroU64::new(time.as_millis() as u64).expect("the defaults are above zero");
        Self {
            coordinator: config.coordinator,
            name: config.names.name,
            home: "gainsay-challenger".into(),
            key: None,
            owner_name: None,
            owner_key: None,
            cache: None,
            mode: config.mode,
            sample: config.sample,
            threads: config.engine.threads,
            memory_mib: config.engine.memory >> 20,
            batch: NonZeroUsize::new(config.batch).expect("the default is above zero"),
            look_every_ms: ms(config.look_every),
            list_every_ms: ms(config.list_every),
            status_file: None,
            log: LogConfig::default(),
        }
    }
}

impl Settings for ChallengerSettings {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        visitor.value("coordinator", &mut self.coordinator);
        visitor.value("name", &mut self.name);
        visitor.path("home", &mut self.home);
        visitor.optional_path("key", &mut self.key);
        visitor.optional("owner_name", &mut self.owner_name);
        visitor.optional_path("owner_key", &mut self.owner_key);
        visitor.optional_path("cache", &mut self.cache);
        visitor.value("mode", &mut self.mode);
        visitor.value("sample", &mut self.sample);
        visitor.value("threads", &mut self.threads);
        visitor.value("memory_mib", &mut self.memory_mib);
        visitor.value("batch", &mut self.batch);
        visitor.value("look_every_ms", &mut self.look_every_ms);
        visitor.value("list_every_ms", &mut self.list_every_ms);
        visitor.optional_path("status_file", &mut self.status_file);
        self.log.visit(visitor);
    }
}

impl Arguments {
    /// Defaults, settings file, variables and flags together: what the challenger is told, and its log.
    ///
    /// # Errors
    /// A setting that is unknown or cannot be used.
    pub fn read(self) -> Result<(Config, LogConfig), SettingsError> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
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
            .flag("mode", self.mode)
            .flag("sample", self.sample)
            .flag("threads", self.threads)
            .flag("memory_mib", self.memory_mib)
            .flag("log_format", self.log_format);
        let mut settings = ChallengerSettings::default();
        gainsay_startup::read("challenger", &mut settings, &layers)?;
        let log = settings.log.clone();
        Ok((settings.into_config(), log))
    }
}

impl ChallengerSettings {
    fn into_config(self) -> Config {
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
            batch: self.batch.get(),
            look_every: Duration::from_millis(self.look_every_ms.get()),
            list_every: Duration::from_millis(self.list_every_ms.get()),
            status_file: self.status_file,
            ..config
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_reference_file_names_every_setting_with_its_default() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gainsay.example.toml");
        let problems =
            gainsay_startup::reference_problems("challenger", &file, ChallengerSettings::default());
        assert!(problems.is_empty(), "{problems:#?}");
    }
}
