//! What an operator sets. Every value has a default that a single machine can start with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use gainsay_protocol::{Amount, Parameters, ParametersError};

/// The whole configuration of one coordinator process.
#[derive(Clone)]
pub struct Config {
    /// Where HTTP listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// PostgreSQL, as a URL.
    pub database_url: String,
    /// Connections held to it at most.
    pub database_connections: u32,
    /// Redis, where several coordinators share one; without it, the process keeps to itself.
    pub redis: Option<RedisConfig>,
    /// Folder of model files, named by their hashes.
    pub blob_dir: PathBuf,
    /// File that holds the coordinator's secret key; made with mode 0600 where it is missing.
    pub key_file: PathBuf,
    /// Bearer token for deposits and the view of all accounts; without one, nobody may.
    pub operator_token: Option<String>,
    /// Windows, allowances, stakes, fees.
    pub parameters: Parameters,
    /// What a job costs.
    pub prices: Prices,
    /// Bounds on what one caller may hold or send.
    pub limits: Limits,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The database URL and the operator's token are secrets.
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("redis", &self.redis)
            .field("blob_dir", &self.blob_dir)
            .field("key_file", &self.key_file)
            .field("parameters", &self.parameters)
            .field("prices", &self.prices)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// How a Redis server is used.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// Where it is: `redis://[user:password@]host[:port][/database]` or `unix:///path`.
    pub url: String,
    /// What all names in it start with. Coordinators of one database share it, and no others.
    pub prefix: String,
    /// How long an answer is waited for. Later, the process goes on alone and connects anew.
    pub answer_time: Duration,
}

impl RedisConfig {
    /// The server at this address, with defaults for the rest.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), prefix: "gainsay".to_owned(), answer_time: Duration::from_millis(500) }
    }
}

impl std::fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password.
        let Self { url: _, prefix, answer_time } = self;
        f.debug_struct("RedisConfig")
            .field("prefix", prefix)
            .field("answer_time", answer_time)
            .finish_non_exhaustive()
    }
}

/// What a job costs: a base and a part per token, micro-credits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prices {
    /// Per job.
    pub per_job: Amount,
    /// Per token of its input.
    pub per_token: Amount,
}

/// Bounds that keep one caller from using up what all share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Undecided jobs of one submitter.
    pub jobs_per_submitter: u64,
    /// Leases that one worker may hold at a time.
    pub leases_per_worker: u64,
    /// Bytes of a tokenizer file.
    pub tokenizer_bytes: u64,
    /// Bytes of a manifest.
    pub manifest_bytes: usize,
    /// Longest wait of a long poll, ms.
    pub wait_ms: u64,
    /// How far a signed request's time may be from service time, ms.
    pub request_skew_ms: u64,
    /// Rows that a reconciler takes up in one transaction.
    pub reconcile_batch: i64,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A needed setting is not there.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// A setting does not read as what it should be.
    #[error("{name} = {value:?} is not {expected}")]
    Invalid {
        /// Its name.
        name: &'static str,
        /// What it was set to.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Parameters that contradict each other.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
}

impl Default for Prices {
    fn default() -> Self {
        Self { per_job: Amount(1_000), per_token: Amount(10) }
    }
}

impl Prices {
    /// Price of a job with this many tokens; saturates at the largest amount, which nobody holds.
    #[must_use]
    pub fn of(&self, tokens: u64) -> Amount {
        let whole = i128::from(self.per_job.0) + i128::from(self.per_token.0) * i128::from(tokens);
        Amount(i64::try_from(whole).unwrap_or(i64::MAX).min(Amount::MAX.0))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            jobs_per_submitter: 10_000,
            leases_per_worker: 64,
            tokenizer_bytes: 64 << 20,
            manifest_bytes: 16 << 20,
            wait_ms: 30_000,
            request_skew_ms: 60_000,
            reconcile_batch: 256,
        }
    }
}

impl Config {
    /// A configuration with defaults for all but the database.
    #[must_use]
    pub fn new(database_url: impl Into<String>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8650)),
            database_url: database_url.into(),
            database_connections: 16,
            redis: None,
            blob_dir: PathBuf::from("gainsay-data/blobs"),
            key_file: PathBuf::from("gainsay-data/coordinator.key"),
            operator_token: None,
            parameters: Parameters::default(),
            prices: Prices::default(),
            limits: Limits::default(),
        }
    }

    /// Reads `GAINSAY_…` settings through `lookup`, usually the process environment.
    ///
    /// # Errors
    /// The first setting that is missing or unusable.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let settings = Settings { lookup };
        let url =
            settings.text("GAINSAY_DATABASE_URL").ok_or(ConfigError::Missing("GAINSAY_DATABASE_URL"))?;
        let mut config = Self::new(url);
        settings.set("GAINSAY_LISTEN", "an address like 127.0.0.1:8650", &mut config.listen)?;
        settings.set("GAINSAY_DATABASE_CONNECTIONS", "a count", &mut config.database_connections)?;
        config.redis = settings.text("GAINSAY_REDIS_URL").map(RedisConfig::new);
        if let Some(redis) = &mut config.redis {
            settings.set("GAINSAY_REDIS_PREFIX", "a text", &mut redis.prefix)?;
            let mut answer_ms = redis.answer_time.as_millis() as u64;
            settings.set("GAINSAY_REDIS_ANSWER_MS", "a count of milliseconds", &mut answer_ms)?;
            redis.answer_time = Duration::from_millis(answer_ms.max(1));
        }
        settings.set("GAINSAY_BLOB_DIR", "a folder", &mut config.blob_dir)?;
        settings.set("GAINSAY_KEY_FILE", "a file", &mut config.key_file)?;
        config.operator_token = settings.text("GAINSAY_OPERATOR_TOKEN");
        settings.parameters(&mut config.parameters)?;
        settings.amount("GAINSAY_PRICE_PER_JOB", &mut config.prices.per_job)?;
        settings.amount("GAINSAY_PRICE_PER_TOKEN", &mut config.prices.per_token)?;
        settings.set("GAINSAY_JOBS_PER_SUBMITTER", "a count", &mut config.limits.jobs_per_submitter)?;
        settings.set("GAINSAY_LEASES_PER_WORKER", "a count", &mut config.limits.leases_per_worker)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks what the rules rely on.
    ///
    /// # Errors
    /// The first value that does not fit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.parameters.validate()?;
        let prices = [("price per job", self.prices.per_job), ("price per token", self.prices.per_token)];
        match prices.iter().find(|(_, price)| !price.is_valid()) {
            Some((name, price)) => Err(ConfigError::Invalid {
                name,
                value: price.0.to_string(),
                expected: "an amount that a balance can hold",
            }),
            None => Ok(()),
        }
    }
}

struct Settings<F> {
    lookup: F,
}

impl<F: Fn(&str) -> Option<String>> Settings<F> {
    fn text(&self, name: &'static str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn set<T: FromStr>(
        &self,
        name: &'static str,
        expected: &'static str,
        into: &mut T,
    ) -> Result<(), ConfigError> {
        if let Some(value) = self.text(name) {
            *into = value.parse().map_err(|_| ConfigError::Invalid { name, value, expected })?;
        }
        Ok(())
    }

    fn amount(&self, name: &'static str, into: &mut Amount) -> Result<(), ConfigError> {
        self.set(name, "a count of micro-credits", &mut into.0)
    }

    fn parameters(&self, p: &mut Parameters) -> Result<(), ConfigError> {
        self.amount("GAINSAY_STAKE_PER_JOB", &mut p.stake_per_job)?;
        self.amount("GAINSAY_BOND", &mut p.bond)?;
        self.amount("GAINSAY_LOST_LEASE_FEE", &mut p.lost_lease_fee)?;
        self.amount("GAINSAY_OPENER_REFUND", &mut p.opener_refund)?;
        let fractions = [
            ("GAINSAY_FEE_PPM", &mut p.fee_ppm),
            ("GAINSAY_SLASH_TO_TREASURY_PPM", &mut p.slash_to_treasury_ppm),
            ("GAINSAY_SLASH_TO_SUBMITTER_PPM", &mut p.slash_to_submitter_ppm),
            ("GAINSAY_OPENER_REFUND_CAP_PPM", &mut p.opener_refund_cap_ppm),
            ("GAINSAY_FORFEIT_TO_WORKER_PPM", &mut p.forfeit_to_worker_ppm),
            ("GAINSAY_ATTEMPTS", &mut p.attempts),
        ];
        for (name, into) in fractions {
            self.set(name, "a whole number", into)?;
        }
        let durations = [
            ("GAINSAY_WINDOW_MS", &mut p.window_ms),
            ("GAINSAY_WORKER_ALLOWANCE_MS", &mut p.worker_allowance_ms),
            ("GAINSAY_CHALLENGER_ALLOWANCE_MS", &mut p.challenger_allowance_ms),
            ("GAINSAY_LEASE_MS", &mut p.lease_ms),
            ("GAINSAY_HEARTBEAT_MS", &mut p.heartbeat_ms),
            ("GAINSAY_HOLD_MS", &mut p.hold_ms),
        ];
        for (name, into) in durations {
            self.set(name, "a count of milliseconds", into)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn only_the_database_is_needed() {
        assert!(matches!(read(&[]), Err(ConfigError::Missing("GAINSAY_DATABASE_URL"))));
        let config = read(&[("GAINSAY_DATABASE_URL", "postgres://x"), ("GAINSAY_WINDOW_MS", "5")]).unwrap();
        assert_eq!(config.parameters.window_ms, 5);
    }

    #[test]
    fn a_setting_that_does_not_parse_or_fit_is_named() {
        let error = read(&[("GAINSAY_DATABASE_URL", "x"), ("GAINSAY_BOND", "many")]).unwrap_err();
        assert!(error.to_string().contains("GAINSAY_BOND"), "{error}");
        let error = read(&[("GAINSAY_DATABASE_URL", "x"), ("GAINSAY_PRICE_PER_JOB", "-1")]).unwrap_err();
        assert!(error.to_string().contains("price per job"), "{error}");
        assert!(read(&[("GAINSAY_DATABASE_URL", "x"), ("GAINSAY_WINDOW_MS", "0")]).is_err());
    }

    #[test]
    fn secrets_do_not_print() {
        let pairs = [("GAINSAY_DATABASE_URL", "postgres://u:pw@h"), ("GAINSAY_OPERATOR_TOKEN", "sesame")];
        let text = format!("{:?}", read(&pairs).unwrap());
        assert!(!text.contains("pw") && !text.contains("sesame"), "{text}");
    }

    #[test]
    fn prices_saturate() {
        let prices = Prices { per_job: Amount(1), per_token: Amount(i64::MAX) };
        assert_eq!(prices.of(0), Amount(1));
        assert_eq!(prices.of(u64::MAX), Amount::MAX);
    }
}
