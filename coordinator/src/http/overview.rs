//! `GET /`, the dashboard, and `GET /v1/overview`, which it reads: public totals and the newest of everything. Holds
//! neither inputs nor outputs nor credentials.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_SECURITY_POLICY;
use actix_web::web::Data;
use gainsay_api::disputes::{DisputeState, Side};
use gainsay_api::schema;
use gainsay_commitment::{ClaimId, DisputeId, ModelId, PartyId};
use gainsay_protocol::Role;
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::error::ApiError;
use super::state::HttpState;
use super::{catalog, dispute_view, names};
use crate::app::{self, ClaimState, JobState};
use crate::dashboard;

/// Rows of each table.
const ROWS: u32 = 25;
/// An overview is handed out again for so long at least.
const FRESH: Duration = Duration::from_millis(500);
/// And for so many times what it took to make, so that totals over large tables cost little.
const COST_FACTOR: u32 = 20;

/// `GET /`.
#[utoipa::path(
    get, path = "/", operation_id = "dashboard", tag = "pages",
    summary = "The dashboard",
    responses((status = 200, description = "A page", content_type = "text/html", body = String)),
)]
pub(super) async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((CONTENT_SECURITY_POLICY, dashboard::CONTENT_SECURITY_POLICY))
        .body(dashboard::PAGE)
}

/// The overview made last.
#[derive(Debug, Default)]
pub(super) struct Cached(Mutex<Option<Made>>);

#[derive(Debug)]
struct Made {
    json: Arc<str>,
    until: Instant,
}

/// `GET /v1/overview`.
#[utoipa::path(
    get, path = "/v1/overview", operation_id = "overview", tag = "service",
    summary = "What the dashboard shows: totals, and the newest of everything",
    responses((status = 200, description = "Neither inputs nor outputs nor credentials", body = Overview)),
)]
pub(super) async fn overview(state: Data<HttpState>) -> Result<HttpResponse, ApiError> {
    // One request makes it; those that come meanwhile wait for that and share it.
    let mut cached = state.overview.0.lock().await;
    if let Some(made) = cached.as_ref().filter(|made| Instant::now() < made.until) {
        return Ok(answer(&made.json));
    }
    let started = Instant::now();
    let overview = make(&state).await?;
    let json: Arc<str> = serde_json::to_string(&overview).map_err(ApiError::internal)?.into();
    let until = Instant::now() + FRESH.max(started.elapsed() * COST_FACTOR);
    *cached = Some(Made { json: Arc::clone(&json), until });
    Ok(answer(&json))
}

fn answer(json: &Arc<str>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(json.to_string())
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Overview {
    #[schema(value_type = schema::PartyId)]
    coordinator: PartyId,
    service_time_ms: i64,
    counts: Counts,
    models: Vec<Model>,
    jobs: Vec<Job>,
    claims: Vec<Claim>,
    disputes: Vec<Dispute>,
    workers: Vec<Worker>,
    ledger: Vec<Balance>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = OverviewCounts)]
struct Counts {
    jobs_queued: u64,
    jobs_running: u64,
    jobs_pending: u64,
    jobs_final: u64,
    jobs_refunded: u64,
    disputes_open: u64,
    convictions: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewModel)]
struct Model {
    #[schema(value_type = schema::ModelId)]
    id: ModelId,
    name: String,
    arithmetic: &'static str,
    layers: u32,
    state: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewJob)]
struct Job {
    id: String,
    model: String,
    tokens: u64,
    worker: Option<String>,
    attempts: u32,
    state: &'static str,
    finality: Option<&'static str>,
    submitted_ms: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewClaim)]
struct Claim {
    #[schema(value_type = schema::ClaimId)]
    id: ClaimId,
    job: String,
    worker: String,
    state: &'static str,
    open_disputes: u32,
    window_closes_ms: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewDispute)]
struct Dispute {
    #[schema(value_type = schema::DisputeId)]
    id: DisputeId,
    #[schema(value_type = schema::ClaimId)]
    claim: ClaimId,
    worker: String,
    challenger: String,
    position: String,
    turn: Option<&'static str>,
    clock_left_ms: Option<i64>,
    moves: u32,
    state: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewWorker)]
struct Worker {
    #[schema(value_type = schema::PartyId)]
    id: PartyId,
    name: String,
    device: String,
    last_seen_ms: Option<i64>,
    state: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewBalance)]
struct Balance {
    kind: String,
    /// Micro-credits, as text: sums may pass what a JSON number keeps exactly.
    balance: String,
}

async fn make(state: &HttpState) -> Result<Overview, ApiError> {
    let read = state.call(|app| async move { app.overview(ROWS).await }).await?;
    let models = state.call(|app| async move { app.models().await }).await?;
    let name_of = |id: ModelId| {
        let model = models.iter().find(|model| model.id == id);
        model.map_or_else(|| format!("{id:.8}"), |model| model.model.manifest().name.clone())
    };
    let mut overview = Overview {
        coordinator: state.app.coordinator(),
        service_time_ms: read.now.0,
        counts: counts(&read),
        models: models.iter().rev().take(ROWS as usize).map(model).collect(),
        jobs: Vec::new(),
        claims: Vec::new(),
        disputes: Vec::new(),
        workers: Vec::new(),
        ledger: read
            .balances
            .iter()
            .map(|(kind, sum)| Balance { kind: kind.clone(), balance: sum.0.to_string() })
            .collect(),
    };
    for listed in &read.jobs {
        overview.jobs.push(job(state, listed, name_of(listed.model)).await?);
    }
    for listed in &read.claims {
        let worker = names::party(state, listed.worker, Role::Worker).await?.name;
        overview.claims.push(Claim {
            id: listed.id,
            job: listed.job.to_string(),
            worker,
            state: listed.state.name(),
            open_disputes: listed.open_disputes,
            window_closes_ms: listed.window_ends.0,
        });
    }
    for listed in &read.disputes {
        overview.disputes.push(dispute(state, listed, read.now).await?);
    }
    for listed in read.workers {
        let seen = state.app.bus().last_seen(listed.id).await;
        overview.workers.push(Worker {
            id: listed.id,
            name: listed.name,
            device: listed.device,
            last_seen_ms: seen.map(|time| time.0),
            state: if listed.suspended { "suspended" } else { "registered" },
        });
    }
    Ok(overview)
}

fn counts(read: &app::Overview) -> Counts {
    let mut counts =
        Counts { disputes_open: read.open_disputes, convictions: read.rejected_claims, ..Counts::default() };
    for (state, number) in &read.jobs_by_state {
        match state {
            JobState::Submitted => counts.jobs_queued += number,
            JobState::Assigned => counts.jobs_running += number,
            JobState::Claimed => counts.jobs_pending += number,
            JobState::Finalized => counts.jobs_final += number,
            JobState::Refunded | JobState::Cancelled | JobState::Voided => counts.jobs_refunded += number,
        }
    }
    counts
}

fn model(model: &app::ModelView) -> Model {
    let manifest = model.model.manifest();
    Model {
        id: model.id,
        name: manifest.name.clone(),
        arithmetic: manifest.arithmetic.name(),
        layers: model.model.layer_count(),
        state: match model.state {
            app::ModelState::Serving => "ready",
            app::ModelState::Incomplete => "incomplete",
            app::ModelState::Voided => "voided",
        },
    }
}

async fn job(state: &HttpState, listed: &app::ListedJob, model: String) -> Result<Job, ApiError> {
    let worker = match &listed.claim {
        Some((_, worker, _)) => Some(names::party(state, *worker, Role::Worker).await?.name),
        None => None,
    };
    Ok(Job {
        id: listed.id.to_string(),
        model,
        tokens: listed.tokens,
        worker,
        attempts: listed.attempts,
        state: listed.state.name(),
        finality: listed.claim.as_ref().map(|(_, _, state)| match state {
            ClaimState::Pending => "pending",
            ClaimState::Finalized => "final",
            ClaimState::Rejected | ClaimState::Voided => "revoked",
        }),
        submitted_ms: listed.submitted.0,
    })
}

async fn dispute(
    state: &HttpState,
    listed: &app::ListedDispute,
    now: gainsay_protocol::ServiceTime,
) -> Result<Dispute, ApiError> {
    let model = catalog::by_id(state, listed.model).await?;
    let parties = dispute_view::Parties::of_dispute(state, &listed.dispute).await?;
    let summary =
        dispute_view::summary(&listed.dispute, listed.job, listed.opened, &model.model, parties, now);
    let turn = summary.turn.map(|side| match side {
        Side::Worker => ("worker", summary.worker_clock_ms),
        Side::Challenger => ("challenger", summary.challenger_clock_ms),
    });
    Ok(Dispute {
        id: summary.id,
        claim: summary.claim,
        position: dispute_view::position_text(&summary.place),
        turn: turn.map(|(side, _)| side),
        clock_left_ms: turn.map(|(_, left)| left),
        moves: summary.move_count,
        state: match (summary.state, &listed.dispute.outcome()) {
            (_, Some(outcome)) => outcome.verdict.name(),
            (DisputeState::Halted, None) => "halted",
            _ => "open",
        },
        worker: summary.worker.name,
        challenger: summary.challenger.name,
    })
}
