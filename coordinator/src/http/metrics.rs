//! `GET /metrics`: the service's totals from the database, and this process's own counts, in Prometheus' text format.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::web::Data;
use tokio::sync::Mutex;

use super::state::HttpState;
use crate::app::Measures;
use crate::bus::BusState;
use crate::telemetry;

/// The service's part is handed out again for so long at least.
const FRESH: Duration = Duration::from_secs(5);
/// And for so many times what it took to make, so that totals over large tables cost little.
const COST_FACTOR: u32 = 20;

/// The service's part, made last.
#[derive(Debug, Default)]
pub(super) struct Cached(Mutex<Option<Made>>);

#[derive(Debug)]
struct Made {
    text: Arc<str>,
    until: Instant,
}

/// The handler. Without the database it tells of this process alone: that is when somebody looks.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "service",
    summary = "Totals of the service and counts of this process, for Prometheus",
    responses((status = 200, description = "Prometheus' text format", content_type = "text/plain", body = String)),
)]
pub(super) async fn metrics(state: Data<HttpState>) -> HttpResponse {
    let service = service(&state).await;
    let text = format!("{service}{}{}", process(&state), telemetry::render());
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text)
}

async fn service(state: &HttpState) -> Arc<str> {
    // One request makes it; those that come meanwhile wait for that and share it.
    let mut cached = state.metrics.0.lock().await;
    if let Some(made) = cached.as_ref().filter(|made| Instant::now() < made.until) {
        return Arc::clone(&made.text);
    }
    let started = Instant::now();
    let measured = state.call(|app| async move { app.measures().await }).await;
    let text: Arc<str> = match measured {
        Ok(measures) => render(&measures).into(),
        Err(error) => {
            tracing::debug!(%error, "the service's measures cannot be taken");
            let mut page = Page::default();
            page.gauge("gainsay_database_up", "Whether the service's totals could be read.", [("", "", 0)]);
            page.0.into()
        }
    };
    let until = Instant::now() + FRESH.max(started.elapsed() * COST_FACTOR);
    *cached = Some(Made { text: Arc::clone(&text), until });
    text
}

/// What is the same whichever coordinator is asked.
fn render(measures: &Measures) -> String {
    let mut page = Page::default();
    let one = |value: u64| [("", "", value)];
    let states = |states: &'_ [(String, u64)]| -> Vec<(&'static str, String, u64)> {
        states.iter().map(|(state, number)| ("state", state.clone(), *number)).collect()
    };
    page.gauge("gainsay_database_up", "Whether the service's totals could be read.", one(1));
    page.gauge("gainsay_service_time_ms", "Service time.", [("", "", measures.now.0)]);
    page.gauge("gainsay_jobs", "Jobs by state; `submitted` is the queue.", states(&measures.jobs));
    page.gauge("gainsay_claims", "Claims by state.", states(&measures.claims));
    page.gauge("gainsay_disputes_open", "Undecided disputes by state.", states(&measures.disputes));
    page.gauge("gainsay_leases_held", "Leases that workers hold.", one(measures.leases));
    page.gauge("gainsay_workers", "Workers registered.", one(measures.workers));
    page.gauge("gainsay_workers_suspended", "Workers suspended.", one(measures.suspended));
    page.gauge("gainsay_models_serving", "Models that serve.", one(measures.models));
    let oldest = measures.oldest_queued_ms.unwrap_or(0);
    let help = "How long the oldest job of the queue has been in it, in service time.";
    page.gauge("gainsay_oldest_queued_job_ms", help, one(oldest));
    let help =
        "How long ago the oldest lease, clock or window ran out that nobody has taken up, in service time.";
    page.gauge("gainsay_overdue_ms", help, one(measures.overdue_ms));
    let balances = measures.balances.iter().map(|(kind, sum)| ("kind", kind.clone(), sum.0));
    page.gauge("gainsay_balance_microcredits", "Sum of balances by kind of account.", balances);
    // Summed here, since Prometheus' numbers do not hold large amounts exactly.
    let sum: i128 = measures.balances.iter().map(|(_, sum)| i128::from(sum.0)).sum();
    page.gauge(
        "gainsay_ledger_imbalance_microcredits",
        "Sum of all balances; not zero is a fault.",
        [("", "", sum)],
    );
    page.0
}

/// What is read off this process when it is asked.
fn process(state: &HttpState) -> String {
    let mut page = Page::default();
    let version = [("version", env!("CARGO_PKG_VERSION"), 1)];
    page.gauge("gainsay_build_info", "The version that runs.", version);
    let (open, idle) = state.app.database_connections();
    let connections = [("state", "busy", open.saturating_sub(idle)), ("state", "idle", idle)];
    page.gauge("gainsay_database_connections", "Connections to the database.", connections);
    let streams = state.config.event_streams.saturating_sub(state.streams.available_permits());
    page.gauge("gainsay_event_streams", "Event streams open.", [("", "", streams)]);
    if state.app.config().redis.is_some() {
        let shared = u8::from(state.app.bus().state() == BusState::Shared);
        page.gauge("gainsay_redis_connected", "Whether Redis is there.", [("", "", shared)]);
    }
    page.0
}

/// Text in Prometheus' format.
#[derive(Default)]
struct Page(String);

impl Page {
    /// A gauge with its samples, each with one label or, under an empty name, none.
    fn gauge<L: AsRef<str>, V: std::fmt::Display>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (&'static str, L, V)>,
    ) {
        let text = &mut self.0;
        let mut write =
            |line: std::fmt::Arguments<'_>| text.write_fmt(line).expect("a text can be written to");
        write(format_args!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
        for (label, value, sample) in samples {
            match label {
                "" => write(format_args!("{name} {sample}\n")),
                // Labels are this program's own words: nothing in them needs quoting.
                label => write(format_args!("{name}{{{label}=\"{}\"}} {sample}\n", value.as_ref())),
            }
        }
    }
}
