//! Metrics of this process: what it was asked, what it did, how long that took. Totals of the whole service are read from
//! the database instead, so that several coordinators do not each tell a part of them.
//!
//! They are the process's own, and are counted by whichever coordinator runs in it.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::store::events::NewEvent;

const REQUESTS: &str = "gainsay_http_requests_total";
const REQUEST_SECONDS: &str = "gainsay_http_request_duration_seconds";
const EVENTS: &str = "gainsay_events_total";
const VERDICTS: &str = "gainsay_verdicts_total";
const REFEREE_SECONDS: &str = "gainsay_referee_duration_seconds";
const ROUND_SECONDS: &str = "gainsay_reconcile_duration_seconds";
const ROUND_FAILURES: &str = "gainsay_reconcile_failures_total";
const ROUND_SUCCESS: &str = "gainsay_reconcile_last_success_timestamp_seconds";

/// From an answer out of memory to a long poll's end.
const REQUEST_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 60.0];
/// From one element of a small operator to what only a fault explains.
const REFEREE_BUCKETS: [f64; 9] = [0.000_05, 0.000_2, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0];
/// Rounds are a second apart.
const ROUND_BUCKETS: [f64; 7] = [0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Starts to count. In a process that has a recorder of its own, counts go there, and nothing is rendered here.
pub(crate) fn start() {
    HANDLE.get_or_init(install);
}

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

fn install() -> Option<PrometheusHandle> {
    let buckets: [(&str, &[f64]); 3] = [
        (REQUEST_SECONDS, &REQUEST_BUCKETS),
        (REFEREE_SECONDS, &REFEREE_BUCKETS),
        (ROUND_SECONDS, &ROUND_BUCKETS),
    ];
    let mut builder = PrometheusBuilder::new();
    for (name, values) in buckets {
        let matcher = Matcher::Full(name.to_owned());
        builder = builder.set_buckets_for_metric(matcher, values).expect("no list of buckets is empty");
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).ok()?;
    describe_counter!(REQUESTS, "Requests answered, by method, route and status.");
    describe_histogram!(
        REQUEST_SECONDS,
        "Time from a request's headers to its answer's, long polls included."
    );
    describe_counter!(EVENTS, "Rows that this process added to the event log, by kind.");
    describe_counter!(VERDICTS, "Verdicts that this process recorded, by outcome and reason.");
    describe_histogram!(REFEREE_SECONDS, "Time that the referee took to judge one element.");
    describe_histogram!(ROUND_SECONDS, "Time that a round of a timer took.");
    describe_counter!(ROUND_FAILURES, "Rounds of a timer that failed.");
    describe_gauge!(ROUND_SUCCESS, "When a timer last did all that was due.");
    Some(handle)
}

/// Everything counted so far, in Prometheus' text format.
pub(crate) fn render() -> String {
    HANDLE.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default()
}

/// Sorts what was recorded into its buckets. Without it, what nobody asks for would pile up.
pub(crate) fn upkeep() {
    if let Some(handle) = HANDLE.get().and_then(Option::as_ref) {
        handle.run_upkeep();
    }
}

/// A request was answered. `route` is the pattern, never the path: clients choose paths.
pub(crate) fn answered(method: &'static str, route: &str, status: u16, elapsed: Duration) {
    let route = route.to_owned();
    counter!(REQUESTS, "method" => method, "route" => route.clone(), "status" => status.to_string())
        .increment(1);
    histogram!(REQUEST_SECONDS, "method" => method, "route" => route).record(elapsed);
}

/// A transaction with these events is on record.
pub(crate) fn committed(events: &[NewEvent]) {
    for event in events {
        counter!(EVENTS, "kind" => event.kind).increment(1);
        if event.kind == "dispute_ended" {
            let text = |name: &str| event.details[name].as_str().unwrap_or("unknown").to_owned();
            counter!(VERDICTS, "verdict" => text("verdict"), "reason" => text("reason")).increment(1);
            if let Some(us) = event.details["referee_us"].as_u64() {
                histogram!(REFEREE_SECONDS).record(Duration::from_micros(us));
            }
        }
    }
}

/// A timer has done a round.
pub(crate) fn round(task: &'static str, elapsed: Duration, succeeded: bool) {
    histogram!(ROUND_SECONDS, "task" => task).record(elapsed);
    if succeeded {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge!(ROUND_SUCCESS, "task" => task).set(now);
    } else {
        counter!(ROUND_FAILURES, "task" => task).increment(1);
    }
}
