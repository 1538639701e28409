//! Limits and times of the HTTP side. All have defaults that suit one machine.

use std::time::Duration;

use crate::bus::Quota;

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
