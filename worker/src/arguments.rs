//! The command line and the settings of a worker, which `gainsay worker` shares.

use crate::{Config, Misbehaviour, Summary, WorkerError};
use clap::Args;
use gainsay_commitment::ModelId;
use gainsay_participant::program::Role;
use gainsay_participant::settings::{PartyArguments, PartySettings, bytes_or};
use gainsay_startup::{LogConfig, Settings, SettingsError, Visitor};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Lease jobs from a coordinator, run them, claim the results, and defend the claims.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    party: PartyArguments,
    /// What this worker says that it runs on. [env: GAINSAY_DEVICE_NAME] [default: the device and its memory, or the
    /// kind of processor and the number of threads]
    #[arg(long)]
    device_name: Option<String>,
    /// Serve this model only; may be given several times. [env: GAINSAY_MODELS] [default: all]
    #[arg(long = "model", value_name = "MODEL_ID")]
    models: Vec<ModelId>,
    /// Most jobs held and run at once. [env: GAINSAY_BATCH] [default: 16]
    #[arg(long)]
    batch: Option<NonZeroU32>,
    /// Cheat, for tests and demonstrations: `flip[:LAYER:OP:ELEMENT:BIT | :SEED]`, `skip-layer:LAYER`,
    /// `other-weights[:SEED]`, `silent[:SEED]`; on generations also `token[:INDEX]`, `other-tokens[:SEED]`,
    /// `other-sampling[:SEED]`, `truncate`, `pad`, `other-stream`.
    #[arg(long, value_name = "HOW")]
    misbehave: Option<Misbehaviour>,
    /// Cheat on every Nth job only.
    #[arg(long, value_name = "N", default_value = "1", requires = "misbehave")]
    cheat_every: NonZeroU64,
}

/// What of a worker can be set.
#[derive(Clone, Debug)]
struct WorkerSettings {
    party: PartySettings,
    device_name: Option<String>,
    models: Vec<ModelId>,
    batch: NonZeroU32,
    kv_mib: u64,
    lease_wait_ms: NonZeroU64,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            party: PartySettings::new("worker"),
            device_name: None,
            models: Vec::new(),
            batch: NonZeroU32::new(16).expect("above zero"),
            kv_mib: 0,
            lease_wait_ms: NonZeroU64::new(20_000).expect("above zero"),
        }
    }
}

impl Settings for WorkerSettings {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        self.party.visit(visitor);
        visitor.optional("device_name", &mut self.device_name);
        visitor.list("models", &mut self.models);
        visitor.value("batch", &mut self.batch);
        visitor.value("kv_mib", &mut self.kv_mib);
        visitor.value("lease_wait_ms", &mut self.lease_wait_ms);
    }
}

impl Role for Arguments {
    type Config = Config;
    type Summary = Summary;
    type Error = WorkerError;

    const PROGRAM: &'static str = "gainsay-worker";

    fn read(self) -> Result<(Config, LogConfig), SettingsError> {
        let models: Vec<String> = self.models.iter().map(ToString::to_string).collect();
        let layers = self
            .party
            .layers()?
            .flag("device_name", self.device_name)
            .flag("models", (!models.is_empty()).then(|| models.join(",")))
            .flag("batch", self.batch);
        let mut settings = WorkerSettings::default();
        gainsay_startup::read("worker", &mut settings, &layers)?;
        let log = settings.party.log.clone();
        let misbehaviour = self.misbehave;
        Ok((Config { misbehaviour, cheat_every: self.cheat_every.get(), ..settings.into_config() }, log))
    }

    fn status_file(config: &Config) -> Option<PathBuf> {
        config.party.status_file.clone()
    }

    async fn run(config: Config, stop: CancellationToken) -> Result<Summary, WorkerError> {
        crate::run(config, stop).await
    }
}

impl WorkerSettings {
    fn into_config(self) -> Config {
        let state_dir = Config::state_dir(self.party.home());
        let usual = Config::of(self.party.into_config(), state_dir);
        Config {
            device_name: self.device_name,
            models: self.models,
            batch: self.batch.get(),
            kv_bytes: bytes_or(self.kv_mib, usual.kv_bytes),
            lease_wait: Duration::from_millis(self.lease_wait_ms.get()),
            ..usual
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
        let problems = gainsay_startup::reference_problems("worker", &file, WorkerSettings::default());
        assert!(problems.is_empty(), "{problems:#?}");
    }

    #[test]
    fn settings_and_configuration_have_the_same_defaults() {
        let (set, usual) = (WorkerSettings::default().into_config(), Config::new("", "", ""));
        assert_eq!(
            (set.batch, set.kv_bytes, set.lease_wait),
            (usual.batch, usual.kv_bytes, usual.lease_wait)
        );
    }
}
