//! Limits and times of the HTTP side. All have defaults that suit one machine.

use std::time::Duration;

use crate::bus::Quota;
use crate::config::ConfigError;

/// How the service behaves towards clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Threads that serve connections. Use cases run elsewhere, so few are needed.
    pub threads: usize,
    /// Connections that each thread keeps open at most.
    pub connections_per_thread: usize,
    /// Time for a request's line and headers.
    pub headers_time: Duration,
    /// Time for a whole body, and for each part of an upload.
    pub body_time: Duration,
    /// How long `POST /v1/embeddings` waits for the claims.
    pub answer_time: Duration,
    /// Sequences of one request that become one job.
    pub sequences_per_job: usize,
    /// Tokens of one request that become one job, unless a single sequence has more.
    pub tokens_per_job: usize,
    /// Event streams open at a time.
    pub event_streams: usize,
    /// Silence on an event stream before a comment shows that it lives.
    pub event_heartbeat: Duration,
    /// A reader that takes nothing for so long loses its stream.
    pub event_stall: Duration,
    /// Registrations from one address.
    pub registrations: Quota,
    /// Submissions of one submitter.
    pub submissions: Quota,
    /// Leases asked for by one worker.
    pub leases: Quota,
    /// Disputes opened by one challenger. Moves of an open dispute are never limited.
    pub openings: Quota,
    /// Time that requests in progress have once the service stops.
    pub drain: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            threads: 2,
            connections_per_thread: 8_192,
            headers_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            answer_time: Duration::from_secs(50),
            sequences_per_job: 64,
            tokens_per_job: 4_096,
            event_streams: 512,
            event_heartbeat: Duration::from_secs(15),
            event_stall: Duration::from_secs(60),
            registrations: Quota::per_minute(60, 60),
            submissions: Quota::per_minute(600, 6_000),
            leases: Quota::per_minute(120, 1_200),
            openings: Quota::per_minute(120, 600),
            drain: Duration::from_secs(5),
        }
    }
}

impl HttpConfig {
    /// Reads `GAINSAY_HTTP_…` settings through `lookup`, usually the process environment.
    ///
    /// # Errors
    /// The first setting that is unusable.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let counts = [
            ("GAINSAY_HTTP_THREADS", &mut config.threads),
            ("GAINSAY_HTTP_CONNECTIONS_PER_THREAD", &mut config.connections_per_thread),
            ("GAINSAY_HTTP_SEQUENCES_PER_JOB", &mut config.sequences_per_job),
            ("GAINSAY_HTTP_TOKENS_PER_JOB", &mut config.tokens_per_job),
            ("GAINSAY_HTTP_EVENT_STREAMS", &mut config.event_streams),
        ];
        for (name, into) in counts {
            if let Some(count) = positive(name, lookup(name))? {
                *into = usize::try_from(count).unwrap_or(usize::MAX);
            }
        }
        let times = [
            ("GAINSAY_HTTP_HEADERS_MS", &mut config.headers_time),
            ("GAINSAY_HTTP_BODY_MS", &mut config.body_time),
            ("GAINSAY_HTTP_ANSWER_MS", &mut config.answer_time),
            ("GAINSAY_HTTP_DRAIN_MS", &mut config.drain),
        ];
        for (name, into) in times {
            if let Some(ms) = positive(name, lookup(name))? {
                *into = Duration::from_millis(ms);
            }
        }
        let rates = [
            ("GAINSAY_HTTP_REGISTRATIONS_PER_MINUTE", &mut config.registrations),
            ("GAINSAY_HTTP_SUBMISSIONS_PER_MINUTE", &mut config.submissions),
            ("GAINSAY_HTTP_LEASES_PER_MINUTE", &mut config.leases),
            ("GAINSAY_HTTP_OPENINGS_PER_MINUTE", &mut config.openings),
        ];
        for (name, into) in rates {
            if let Some(rate) = positive(name, lookup(name))? {
                *into = Quota::per_minute(into.burst, u32::try_from(rate).unwrap_or(u32::MAX));
            }
        }
        Ok(config)
    }
}

/// A setting above zero, where it is set.
fn positive(name: &'static str, value: Option<String>) -> Result<Option<u64>, ConfigError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    match value.parse() {
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(ConfigError::Invalid { name, value, expected: "a whole number above zero" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<HttpConfig, ConfigError> {
        HttpConfig::from_lookup(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn settings_change_what_they_name_and_nothing_else() {
        assert_eq!(read(&[]).unwrap(), HttpConfig::default());
        let config =
            read(&[("GAINSAY_HTTP_ANSWER_MS", "1500"), ("GAINSAY_HTTP_LEASES_PER_MINUTE", "60")]).unwrap();
        assert_eq!(config.answer_time, Duration::from_millis(1_500));
        assert_eq!(config.leases.every, Duration::from_secs(1));
        assert_eq!(config.registrations, HttpConfig::default().registrations);
    }

    #[test]
    fn a_setting_that_does_not_fit_is_named() {
        for value in ["0", "-1", "many"] {
            let error = read(&[("GAINSAY_HTTP_THREADS", value)]).unwrap_err();
            assert!(error.to_string().contains("GAINSAY_HTTP_THREADS"), "{error}");
        }
    }
}
