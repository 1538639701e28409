//! From the event log's rows, which say what happened in ids, to what travels: the same with names, places and
//! amounts, so that a reader of the stream need not ask for each object.
//!
//! Rows never change, so each is translated once and kept while it is new.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use gainsay_api::disputes::DisputeView;
use gainsay_api::events::{Event as WireEvent, EventCursor as WireCursor, EventKind};
use gainsay_commitment::{ClaimId, DisputeId, ModelId, PartyId};
use gainsay_protocol::{JobId, LeaseId, Phase, Role};
use serde_json::{Map, Value};

use super::error::ApiError;
use super::state::HttpState;
use super::{catalog, dispute_view, disputes, names};
use crate::app::{Event, EventCursor};

/// Translations kept before all are forgotten.
const KEPT: usize = 4_096;

/// Translated events, as they travel.
#[derive(Debug, Default)]
pub(super) struct Frames {
    known: Mutex<HashMap<EventCursor, Arc<str>>>,
}

/// One event as server-sent. JSON has no line breaks, so one `data:` line holds it.
///
/// # Errors
/// What it names cannot be read at present. A reader that was given the event without it would not ask again.
pub(super) async fn frame(state: &HttpState, event: &Event) -> Result<Arc<str>, ApiError> {
    let kept = |frames: &Frames| {
        frames.known.lock().unwrap_or_else(PoisonError::into_inner).get(&event.cursor).cloned()
    };
    if let Some(frame) = kept(&state.frames) {
        return Ok(frame);
    }
    let (kind, data) = match translate(state, event).await {
        Ok(Some(kind)) => {
            let name = kind.name();
            let wire = WireEvent { id: WireCursor(event.cursor.to_string()), at_ms: event.at.0, kind };
            (name, serde_json::to_value(&wire).unwrap_or_else(|_| raw(event)))
        }
        Ok(None) => (event.kind.as_str(), raw(event)),
        Err(error) if error.is_transient() => return Err(error),
        Err(error) => {
            tracing::warn!(cursor = %event.cursor, kind = event.kind, %error, "an event is sent without details");
            (event.kind.as_str(), raw(event))
        }
    };
    let frame: Arc<str> = format!("id: {}\nevent: {kind}\ndata: {data}\n\n", event.cursor).into();
    let mut known = state.frames.known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= KEPT {
        known.clear();
    }
    known.insert(event.cursor, Arc::clone(&frame));
    Ok(frame)
}

/// An event that has no typed form: its ids and details as they are.
fn raw(event: &Event) -> Value {
    let mut fields = match &event.details {
        Value::Object(details) => details.clone(),
        _ => Map::new(),
    };
    let ids = [
        ("job", event.job.map(|id| id.to_string())),
        ("claim", event.claim.map(|id| id.to_string())),
        ("dispute", event.dispute.map(|id| id.to_string())),
        ("party", event.party.map(|id| id.to_string())),
    ];
    for (name, id) in ids {
        if let Some(id) = id {
            fields.insert(name.to_owned(), Value::String(id));
        }
    }
    fields.insert("id".to_owned(), Value::String(event.cursor.to_string()));
    fields.insert("at_ms".to_owned(), Value::from(event.at.0));
    fields.insert("type".to_owned(), Value::String(event.kind.clone()));
    Value::Object(fields)
}

/// The typed form, where the kind has one.
async fn translate(state: &HttpState, event: &Event) -> Result<Option<EventKind>, ApiError> {
    let row = Row(event);
    Ok(Some(match event.kind.as_str() {
        "job_submitted" => job_submitted(state, &row).await?,
        "job_leased" => job_assigned(state, &row).await?,
        "lease_lost" => EventKind::LeaseLost {
            job: row.job()?,
            lease: row.parsed::<LeaseId>("lease")?,
            worker: names::party(state, row.party()?, Role::Worker).await?,
            fee: row.number("fee")?,
        },
        "lease_returned" => EventKind::LeaseReturned {
            job: row.job()?,
            lease: row.parsed::<LeaseId>("lease")?,
            worker: names::party(state, row.party()?, Role::Worker).await?,
            reason: row.text("reason")?.to_owned(),
            fee: row.number("fee")?,
        },
        "claim_posted" => claim_posted(state, &row).await?,
        "claim_finalized" => EventKind::ClaimFinalized {
            job: row.job()?,
            claim: row.claim()?,
            worker: worker_of(state, row.claim()?).await?,
            price: row.number("price")?,
        },
        "claim_rejected" => claim_rejected(state, &row).await?,
        "job_cancelled" => EventKind::JobRefunded { job: row.job()?, amount: row.number("refunded")? },
        "job_refunded" => {
            let job = row.job()?;
            let amount = state.call(move |app| async move { app.job_facts(job).await }).await?.price.0;
            EventKind::JobRefunded { job, amount }
        }
        "job_voided" => EventKind::JobVoided { job: row.job()?, amount: row.number("refunded")? },
        "profile_voided" => EventKind::ProfileVoided {
            arithmetic: row.text("arithmetic")?.to_owned(),
            reason: row.text("reason")?.to_owned(),
        },
        "dispute_opened" => dispute_opened(state, &row).await?,
        "dispute_moved" => return dispute_moved(state, &row).await,
        "move_refused" => EventKind::MoveRefused {
            dispute: row.dispute()?,
            claim: row.claim()?,
            by: names::any_party(state, row.party()?).await?,
            code: super::error::move_code(row.text("code")?),
            message: row.text("message")?.to_owned(),
        },
        "dispute_ended" => dispute_decided(state, &row).await?,
        "worker_suspended" => {
            let Some(claim) = event.claim else { return Ok(None) };
            EventKind::WorkerSuspended {
                worker: names::party(state, row.party()?, Role::Worker).await?,
                claim,
                restarted_windows: u32::try_from(row.number("windows_restarted")?).unwrap_or_default(),
            }
        }
        "model_serving" => {
            let model = row.parsed::<ModelId>("model")?;
            let name = catalog::by_id(state, model).await?.model.manifest().name.clone();
            EventKind::ModelReady { model, name }
        }
        _ => return Ok(None),
    }))
}

async fn job_submitted(state: &HttpState, row: &Row<'_>) -> Result<EventKind, ApiError> {
    let job = row.job()?;
    let facts = state.call(move |app| async move { app.job_facts(job).await }).await?;
    Ok(EventKind::JobSubmitted {
        job,
        submitter: facts.submitter,
        submitter_name: facts.submitter_name,
        model: facts.model,
        model_name: catalog::by_id(state, facts.model).await?.model.manifest().name.clone(),
        sequences: facts.sequences,
        tokens: facts.tokens,
        max_price: facts.price.0,
    })
}

async fn job_assigned(state: &HttpState, row: &Row<'_>) -> Result<EventKind, ApiError> {
    let (job, lease) = (row.job()?, row.parsed::<LeaseId>("lease")?);
    Ok(EventKind::JobAssigned {
        job,
        lease,
        worker: names::party(state, row.party()?, Role::Worker).await?,
        attempt: state.call(move |app| async move { app.lease_number(job, lease).await }).await?,
        stake: row.number("stake")?,
    })
}

async fn claim_posted(state: &HttpState, row: &Row<'_>) -> Result<EventKind, ApiError> {
    let claim = row.claim()?;
    let output_bytes = state.call(move |app| async move { app.claimed_bytes(claim).await }).await?;
    Ok(EventKind::JobClaimed {
        job: row.job()?,
        claim,
        worker: names::party(state, row.party()?, Role::Worker).await?,
        model: row.parsed("model")?,
        layers: u32::try_from(row.number("layers")?).unwrap_or_default(),
        output_bytes,
        window_closes_at_ms: row.number("window_ends_ms")?,
    })
}

async fn claim_rejected(state: &HttpState, row: &Row<'_>) -> Result<EventKind, ApiError> {
    let (job, claim) = (row.job()?, row.claim()?);
    let rejected = state.call(move |app| async move { app.rejections_until(job, claim).await }).await?;
    Ok(EventKind::ClaimRejected {
        job,
        claim,
        worker: worker_of(state, claim).await?,
        dispute: row.0.dispute,
        reassigned: rejected < state.app.config().parameters.attempts,
    })
}

async fn worker_of(state: &HttpState, claim: ClaimId) -> Result<gainsay_api::parties::PartyView, ApiError> {
    let worker = state.call(move |app| async move { app.claimant(claim).await }).await?;
    names::party(state, worker, Role::Worker).await
}

async fn view(state: &HttpState, row: &Row<'_>) -> Result<DisputeView, ApiError> {
    let id = row.dispute()?;
    let dispute = state.call(move |app| async move { app.dispute(id).await }).await?;
    disputes::view(state, dispute).await
}

async fn dispute_opened(state: &HttpState, row: &Row<'_>) -> Result<EventKind, ApiError> {
    let view = view(state, row).await?;
    Ok(EventKind::DisputeOpened {
        dispute: view.summary.id,
        claim: view.summary.claim,
        job: view.summary.job_id,
        challenger: view.summary.challenger,
        worker: view.summary.worker,
        layer: view.summary.place.layer,
        bond: state.app.config().parameters.bond.0,
    })
}

/// A move; pauses and ends are told by other kinds.
async fn dispute_moved(state: &HttpState, row: &Row<'_>) -> Result<Option<EventKind>, ApiError> {
    let seq = row.number("seq")?;
    let view = view(state, row).await?;
    let Some(moved) = view.moves.into_iter().find(|moved| i64::from(moved.sequence) == seq) else {
        return Ok(None);
    };
    let phase = row.text("phase")?;
    let turn = Phase::ALL.into_iter().find(|known| known.name() == phase).and_then(Phase::turn);
    Ok(Some(EventKind::DisputeMoved {
        dispute: view.summary.id,
        claim: view.summary.claim,
        moved,
        turn: turn.map(dispute_view::side),
    }))
}

async fn dispute_decided(state: &HttpState, row: &Row<'_>) -> Result<EventKind, ApiError> {
    let view = view(state, row).await?;
    let decision = view.summary.decision.ok_or_else(|| row.unfit("decision"))?;
    Ok(EventKind::DisputeDecided {
        dispute: view.summary.id,
        claim: view.summary.claim,
        job: view.summary.job_id,
        challenger: view.summary.challenger,
        worker: view.summary.worker,
        place: view.moves.last().map_or(view.summary.place, |last| last.place.clone()),
        move_count: view.moves.len() as u32,
        witness_bytes: view.moves.iter().rev().find_map(|moved| moved.witness_bytes),
        referee_us: row.optional_number("referee_us"),
        decision,
    })
}

/// The fields of a row, as the kinds expect them.
struct Row<'a>(&'a Event);

impl Row<'_> {
    fn unfit(&self, field: &str) -> ApiError {
        ApiError::internal(format!(
            "the event {} of kind {} has no usable {field}",
            self.0.cursor, self.0.kind
        ))
    }

    fn job(&self) -> Result<JobId, ApiError> {
        self.0.job.ok_or_else(|| self.unfit("job"))
    }

    fn claim(&self) -> Result<ClaimId, ApiError> {
        self.0.claim.ok_or_else(|| self.unfit("claim"))
    }

    fn dispute(&self) -> Result<DisputeId, ApiError> {
        self.0.dispute.ok_or_else(|| self.unfit("dispute"))
    }

    fn party(&self) -> Result<PartyId, ApiError> {
        self.0.party.ok_or_else(|| self.unfit("party"))
    }

    fn text(&self, field: &str) -> Result<&str, ApiError> {
        self.0.details.get(field).and_then(Value::as_str).ok_or_else(|| self.unfit(field))
    }

    fn number(&self, field: &str) -> Result<i64, ApiError> {
        self.0.details.get(field).and_then(Value::as_i64).ok_or_else(|| self.unfit(field))
    }

    fn optional_number(&self, field: &str) -> Option<u64> {
        self.0.details.get(field).and_then(Value::as_u64)
    }

    fn parsed<T: FromStr>(&self, field: &str) -> Result<T, ApiError> {
        self.text(field)?.parse().map_err(|_| self.unfit(field))
    }
}
