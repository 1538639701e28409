//! The command line and the settings of a challenger, which `gainsay challenger` shares.

use crate::{ChallengerError, Config, Mode, SampleRate, Summary};
use clap::Args;
use gainsay_participant::program::Role;
use gainsay_participant::settings::{PartyArguments, PartySettings};
use gainsay_startup::{LogConfig, Settings, SettingsError, Visitor};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Follow a coordinator's claims, run them again, and dispute those that are false.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    party: PartyArguments,
    /// How far to go. [env: GAINSAY_MODE] [default: challenge]
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Which part of the claims to check, from 0 to 1. [env: GAINSAY_SAMPLE] [default: 1]
    #[arg(long)]
    sample: Option<SampleRate>,
}

/// What of a challenger can be set.
#[derive(Clone, Debug)]
struct ChallengerSettings {
    party: PartySettings,
    mode: Mode,
    sample: SampleRate,
    batch: NonZeroUsize,
    list_every_ms: NonZeroU64,
}

impl Default for ChallengerSettings {
    fn default() -> Self {
        Self {
            party: PartySettings::new("challenger"),
            mode: Mode::default(),
            sample: SampleRate::ALL,
            batch: NonZeroUsize::new(8).expect("above zero"),
            list_every_ms: NonZeroU64::new(60_000).expect("above zero"),
        }
    }
}

impl Settings for ChallengerSettings {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        self.party.visit(visitor);
        visitor.value("mode", &mut self.mode);
        visitor.value("sample", &mut self.sample);
        visitor.value("batch", &mut self.batch);
        visitor.value("list_every_ms", &mut self.list_every_ms);
    }
}

impl Role for Arguments {
    type Config = Config;
    type Summary = Summary;
    type Error = ChallengerError;

    const PROGRAM: &'static str = "gainsay-challenger";

    fn read(self) -> Result<(Config, LogConfig), SettingsError> {
        let layers = self.party.layers()?.flag("mode", self.mode).flag("sample", self.sample);
        let mut settings = ChallengerSettings::default();
        gainsay_startup::read("challenger", &mut settings, &layers)?;
        let log = settings.party.log.clone();
        Ok((settings.into_config(), log))
    }

    fn status_file(config: &Config) -> Option<PathBuf> {
        config.party.status_file.clone()
    }

    async fn run(config: Config, stop: CancellationToken) -> Result<Summary, ChallengerError> {
        crate::run(config, stop).await
    }
}

impl ChallengerSettings {
    fn into_config(self) -> Config {
        Config {
            mode: self.mode,
            sample: self.sample,
            batch: self.batch.get(),
            list_every: Duration::from_millis(self.list_every_ms.get()),
            ..Config::of(self.party.into_config())
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

    #[test]
    fn settings_and_configuration_have_the_same_defaults() {
        let (set, usual) = (ChallengerSettings::default().into_config(), Config::new("", "", ""));
        assert_eq!((set.batch, set.list_every), (usual.batch, usual.list_every));
    }
}
