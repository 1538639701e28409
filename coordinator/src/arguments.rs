//! The command line and the settings of a coordinator, which `gainsay coordinator` shares.

use std::net::SocketAddr;

use clap::Args;
use gainsay_startup::{LogConfig, Settings, SettingsArguments, SettingsError, Visitor};

use crate::HttpConfig;
use crate::config::Config;

/// Take jobs, lease them to workers, arbitrate disputes over their claims, and pay.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// Where HTTP listens; port 0 takes any free one. [env: GAINSAY_LISTEN] [default: 127.0.0.1:8650]
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// PostgreSQL. [env: GAINSAY_DATABASE_URL]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// How the log is written: text or json. [env: GAINSAY_LOG_FORMAT] [default: text]
    #[arg(long)]
    log_format: Option<gainsay_startup::LogFormat>,
    /// The same as --log-format=json.
    #[arg(long, hide = true, conflicts_with = "log_format")]
    log_json: bool,
}

/// Everything that a coordinator process is told.
#[derive(Clone, Debug)]
pub struct AllSettings {
    /// The service.
    pub config: Config,
    /// Its HTTP side.
    pub http: HttpConfig,
    /// Its log.
    pub log: LogConfig,
}

impl Default for AllSettings {
    fn default() -> Self {
        Self { config: Config::new(""), http: HttpConfig::default(), log: LogConfig::default() }
    }
}

impl Settings for AllSettings {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        self.config.visit(visitor);
        self.http.visit(visitor);
        self.log.visit(visitor);
    }
}

impl Arguments {
    /// Defaults, settings file, variables and flags together.
    ///
    /// # Errors
    /// A setting that is unknown or cannot be used.
    pub fn read(self) -> Result<AllSettings, SettingsError> {
        let json = self.log_json.then_some(gainsay_startup::LogFormat::Json);
        let layers = self
            .settings
            .layers()?
            .flag("listen", self.listen)
            .flag("database_url", self.database_url)
            .flag("log_format", self.log_format.or(json));
        let mut settings = AllSettings::default();
        gainsay_startup::read("coordinator", &mut settings, &layers)?;
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// An operator copies lines out of this file: what it leaves out nobody finds, and a wrong default misleads.
    #[test]
    fn the_reference_file_names_every_setting_with_its_default() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gainsay.example.toml");
        let problems = gainsay_startup::reference_problems("coordinator", &file, AllSettings::default());
        assert!(problems.is_empty(), "{problems:#?}");
    }
}
