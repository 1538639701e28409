//! Limits and times of the HTTP side. All have defaults that suit one machine.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use gainsay_startup::{Settings, Visitor};

use super::peer::Network;
use crate::bus::Quota;
use crate::config::visit_time;

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
    /// How long a request for text waits for its answers, streamed or not.
    pub generation_time: Duration,
    /// Answers streamed at a time.
    pub generation_streams: usize,
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
    /// Proxies whose word on whom they serve is taken; nobody's, if there are none.
    pub trusted_proxies: Vec<Network>,
    /// How long a service that stops still takes connections while it says that it is not ready, for a proxy to notice.
    pub notice: Duration,
    /// Time that requests in progress have after that.
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
            generation_time: Duration::from_secs(600),
            generation_streams: 512,
            event_heartbeat: Duration::from_secs(15),
            event_stall: Duration::from_secs(60),
            registrations: Quota::per_minute(60, 60),
            submissions: Quota::per_minute(600, 6_000),
            leases: Quota::per_minute(120, 1_200),
            openings: Quota::per_minute(120, 600),
            trusted_proxies: Vec::new(),
            notice: Duration::ZERO,
            drain: Duration::from_secs(5),
        }
    }
}

impl Settings for HttpConfig {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        visit_count(&mut self.threads, "http_threads", visitor);
        visit_count(&mut self.connections_per_thread, "http_connections_per_thread", visitor);
        visit_time(&mut self.headers_time, "http_headers_ms", visitor);
        visit_time(&mut self.body_time, "http_body_ms", visitor);
        visit_time(&mut self.answer_time, "http_answer_ms", visitor);
        visit_count(&mut self.sequences_per_job, "http_sequences_per_job", visitor);
        visit_count(&mut self.tokens_per_job, "http_tokens_per_job", visitor);
        visit_count(&mut self.event_streams, "http_event_streams", visitor);
        visit_time(&mut self.generation_time, "http_generation_ms", visitor);
        visit_count(&mut self.generation_streams, "http_generation_streams", visitor);
        visit_time(&mut self.event_heartbeat, "http_event_heartbeat_ms", visitor);
        visit_time(&mut self.event_stall, "http_event_stall_ms", visitor);
        let rates = [
            ("http_registrations_burst", "http_registrations_per_minute", &mut self.registrations),
            ("http_submissions_burst", "http_submissions_per_minute", &mut self.submissions),
            ("http_leases_burst", "http_leases_per_minute", &mut self.leases),
            ("http_openings_burst", "http_openings_per_minute", &mut self.openings),
        ];
        for (burst, rate, quota) in rates {
            visit_quota(quota, burst, rate, visitor);
        }
        visitor.list("http_trusted_proxies", &mut self.trusted_proxies);
        let mut notice_ms = self.notice.as_millis() as u64;
        visitor.value("http_notice_ms", &mut notice_ms);
        self.notice = Duration::from_millis(notice_ms);
        visit_time(&mut self.drain, "http_drain_ms", visitor);
    }
}

/// A count above zero.
fn visit_count(count: &mut usize, name: &'static str, visitor: &mut impl Visitor) {
    let mut shown = NonZeroUsize::new(*count).unwrap_or(NonZeroUsize::MIN);
    visitor.value(name, &mut shown);
    *count = shown.get();
}

fn visit_quota(quota: &mut Quota, burst: &'static str, rate: &'static str, visitor: &mut impl Visitor) {
    let shown = NonZeroU32::new(quota.rate_per_minute()).unwrap_or(NonZeroU32::MIN);
    let (mut at_once, mut per_minute) = (NonZeroU32::new(quota.burst).unwrap_or(NonZeroU32::MIN), shown);
    visitor.value(burst, &mut at_once);
    visitor.value(rate, &mut per_minute);
    quota.burst = at_once.get();
    if per_minute != shown {
        *quota = Quota::per_minute(quota.burst, per_minute.get());
    }
}

#[cfg(test)]
mod tests {
    use gainsay_startup::{Layers, SettingsError};

    use super::*;

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<HttpConfig, SettingsError> {
        let mut config = HttpConfig::default();
        let layers = Layers::default().variables(pairs.iter().copied());
        gainsay_startup::read("coordinator", &mut config, &layers).map(|()| config)
    }

    #[test]
    fn settings_change_what_they_name_and_nothing_else() {
        assert_eq!(read(&[]).unwrap(), HttpConfig::default());
        let config =
            read(&[("GAINSAY_HTTP_ANSWER_MS", "1500"), ("GAINSAY_HTTP_LEASES_PER_MINUTE", "60")]).unwrap();
        assert_eq!(config.answer_time, Duration::from_millis(1_500));
        let leases = HttpConfig::default().leases;
        assert_eq!(config.leases, Quota { every: Duration::from_secs(1), ..leases });
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
