//! What an operator sets. Every value has a default that a single machine can start with.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use gainsay_protocol::{Amount, Job, Parameters, ParametersError};
use gainsay_startup::{Settings, Visitor};

use crate::templates::TemplateHost;

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
    /// Folder of model files, named by their hashes. With `blob_url` uploads are received there, and no more.
    pub blob_dir: PathBuf,
    /// Object store that model files are kept in, in place of the folder.
    pub blob_url: Option<String>,
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
    /// Who renders chat templates: no setting, but a property of the program.
    pub templates: TemplateHost,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The database URL and the operator's token are secrets.
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("redis", &self.redis)
            .field("blob_dir", &self.blob_dir)
            .field("blob_url", &self.blob_url)
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
    /// Per token that a generation may have. What is not generated is given back.
    pub per_answer_token: Amount,
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
    /// Whether webhooks may be called in networks that are private to the service's own machine or site.
    pub private_webhooks: bool,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A needed setting is not there.
    #[error("{0} is not set: by a flag, as GAINSAY_{upper}, or in the file that --config names", upper = .0.to_uppercase())]
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
        Self { per_job: Amount(1_000), per_token: Amount(10), per_answer_token: Amount(30) }
    }
}

impl Prices {
    /// Price of an embedding of this many tokens; saturates at the largest amount, which nobody holds.
    #[must_use]
    pub fn of(&self, tokens: u64) -> Amount {
        self.sum(tokens, 0)
    }

    /// Most that a job can cost: of a generation with all the tokens that it may have.
    #[must_use]
    pub fn of_job(&self, job: &Job) -> Amount {
        match job.generation_request() {
            Some(request) => self.sum(request.prompt.len() as u64, request.stop.max_tokens.into()),
            None => self.of(job.token_count()),
        }
    }

    /// What comes back of it for each token that is not generated.
    #[must_use]
    pub fn of_unused_token(&self, job: &Job) -> Amount {
        if job.generation_request().is_some() { self.per_answer_token } else { Amount::ZERO }
    }

    fn sum(&self, given: u64, generated: u64) -> Amount {
        let part = |price: Amount, tokens: u64| i128::from(price.0) * i128::from(tokens);
        let whole =
            i128::from(self.per_job.0) + part(self.per_token, given) + part(self.per_answer_token, generated);
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
            private_webhooks: false,
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
            blob_url: None,
            key_file: PathBuf::from("gainsay-data/coordinator.key"),
            operator_token: None,
            parameters: Parameters::default(),
            prices: Prices::default(),
            limits: Limits::default(),
            templates: TemplateHost::default(),
        }
    }

    /// Checks what the rules rely on.
    ///
    /// # Errors
    /// The first value that does not fit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.database_url.is_empty() {
            return Err(ConfigError::Missing("database_url"));
        }
        self.parameters.validate()?;
        let prices = [
            ("price_per_job", self.prices.per_job),
            ("price_per_token", self.prices.per_token),
            ("price_per_answer_token", self.prices.per_answer_token),
        ];
        if let Some((name, price)) = prices.iter().find(|(_, price)| !price.is_valid()) {
            let value = price.0.to_string();
            return Err(ConfigError::Invalid { name, value, expected: "an amount that a balance can hold" });
        }
        let limits = &self.limits;
        let counts = [
            ("database_connections", i64::from(self.database_connections)),
            ("reconcile_batch", limits.reconcile_batch),
        ];
        match counts.iter().find(|(_, count)| *count < 1) {
            Some((name, count)) => {
                Err(ConfigError::Invalid { name, value: count.to_string(), expected: "above zero" })
            }
            None => Ok(()),
        }
    }
}

impl Settings for Config {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        visitor.value("listen", &mut self.listen);
        let mut url = Some(std::mem::take(&mut self.database_url)).filter(|url| !url.is_empty());
        visitor.secret("database_url", &mut url);
        self.database_url = url.unwrap_or_default();
        visitor.value("database_connections", &mut self.database_connections);
        visit_redis(&mut self.redis, visitor);
        visitor.path("blob_dir", &mut self.blob_dir);
        visitor.optional("blob_url", &mut self.blob_url);
        visitor.path("key_file", &mut self.key_file);
        visitor.secret("operator_token", &mut self.operator_token);
        visit_parameters(&mut self.parameters, visitor);
        visitor.value("price_per_job", &mut self.prices.per_job.0);
        visitor.value("price_per_token", &mut self.prices.per_token.0);
        visitor.value("price_per_answer_token", &mut self.prices.per_answer_token.0);
        let limits = &mut self.limits;
        visitor.value("jobs_per_submitter", &mut limits.jobs_per_submitter);
        visitor.value("leases_per_worker", &mut limits.leases_per_worker);
        visitor.value("tokenizer_bytes", &mut limits.tokenizer_bytes);
        visitor.value("manifest_bytes", &mut limits.manifest_bytes);
        visitor.value("wait_ms", &mut limits.wait_ms);
        visitor.value("request_skew_ms", &mut limits.request_skew_ms);
        visitor.value("reconcile_batch", &mut limits.reconcile_batch);
        visitor.value("private_webhooks", &mut limits.private_webhooks);
    }
}

/// The prefix and the time are settings of their own, which count where there is an address.
fn visit_redis(redis: &mut Option<RedisConfig>, visitor: &mut impl Visitor) {
    let mut shown = redis.take().unwrap_or_else(|| RedisConfig::new(""));
    let mut url = Some(shown.url).filter(|url| !url.is_empty());
    visitor.secret("redis_url", &mut url);
    visitor.value("redis_prefix", &mut shown.prefix);
    visit_time(&mut shown.answer_time, "redis_answer_ms", visitor);
    *redis = url.map(|url| RedisConfig { url, ..shown });
}

fn visit_parameters(p: &mut Parameters, visitor: &mut impl Visitor) {
    visitor.value("stake_per_job", &mut p.stake_per_job.0);
    visitor.value("stake_multiple", &mut p.stake_multiple);
    visitor.value("bond", &mut p.bond.0);
    visitor.value("lost_lease_fee", &mut p.lost_lease_fee.0);
    visitor.value("opener_refund", &mut p.opener_refund.0);
    visitor.value("fee_ppm", &mut p.fee_ppm);
    visitor.value("slash_to_treasury_ppm", &mut p.slash_to_treasury_ppm);
    visitor.value("slash_to_submitter_ppm", &mut p.slash_to_submitter_ppm);
    visitor.value("opener_refund_cap_ppm", &mut p.opener_refund_cap_ppm);
    visitor.value("forfeit_to_worker_ppm", &mut p.forfeit_to_worker_ppm);
    visitor.value("attempts", &mut p.attempts);
    visitor.value("lease_attempts", &mut p.lease_attempts);
    visitor.value("window_ms", &mut p.window_ms);
    visitor.value("worker_allowance_ms", &mut p.worker_allowance_ms);
    visitor.value("challenger_allowance_ms", &mut p.challenger_allowance_ms);
    visitor.value("lease_ms", &mut p.lease_ms);
    visitor.value("heartbeat_ms", &mut p.heartbeat_ms);
    visitor.value("hold_ms", &mut p.hold_ms);
}

/// A time above zero, shown in milliseconds.
pub(crate) fn visit_time(time: &mut Duration, name: &'static str, visitor: &mut impl Visitor) {
    let mut ms = NonZeroU64::new(time.as_millis() as u64).unwrap_or(NonZeroU64::MIN);
    visitor.value(name, &mut ms);
    *time = Duration::from_millis(ms.get());
}

#[cfg(test)]
mod tests {
    use gainsay_startup::Layers;

    use super::*;

    /// The defaults of windows and stakes are published numbers; what an operator sets must reach the rules.
    #[test]
    fn what_is_set_reaches_parameters_prices_and_limits() {
        let mut config = Config::new("");
        let layers = Layers::default().variables([
            ("GAINSAY_DATABASE_URL", "postgres://x"),
            ("GAINSAY_WINDOW_MS", "5"),
            ("GAINSAY_PRICE_PER_JOB", "7"),
            ("GAINSAY_REDIS_URL", "redis://x"),
        ]);
        gainsay_startup::read("coordinator", &mut config, &layers).unwrap();
        assert_eq!((config.parameters.window_ms, config.prices.per_job), (5, Amount(7)));
        assert_eq!(config.database_url, "postgres://x");
        assert_eq!(config.redis, Some(RedisConfig::new("redis://x")));
        config.validate().unwrap();
    }

    #[test]
    fn a_setting_that_does_not_fit_is_named() {
        assert!(matches!(Config::new("").validate(), Err(ConfigError::Missing("database_url"))));
        let mut config = Config::new("x");
        config.prices.per_job = Amount(-1);
        assert!(config.validate().unwrap_err().to_string().contains("price_per_job"));
        let mut config = Config::new("x");
        config.parameters.window_ms = 0;
        assert!(config.validate().is_err());
        let mut config = Config::new("x");
        config.limits.reconcile_batch = 0;
        assert!(config.validate().unwrap_err().to_string().contains("reconcile_batch"));
    }

    #[test]
    fn secrets_do_not_print() {
        let mut config = Config::new("postgres://u:pw@h");
        config.operator_token = Some("sesame".to_owned());
        config.redis = Some(RedisConfig::new("redis://:xyzzy@h"));
        let text = format!("{config:?}");
        assert!(!["pw", "sesame", "xyzzy"].iter().any(|secret| text.contains(secret)), "{text}");
    }

    #[test]
    fn prices_saturate() {
        let prices =
            Prices { per_job: Amount(1), per_token: Amount(i64::MAX), per_answer_token: Amount::ZERO };
        assert_eq!(prices.of(0), Amount(1));
        assert_eq!(prices.of(u64::MAX), Amount::MAX);
    }
}
