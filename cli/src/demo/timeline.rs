//! Turns events into the lines that a person reads while a demo runs.

use gainsay_api::disputes::{MoveKind, MoveView, PlaceView, Verdict};
use gainsay_api::events::{Event, EventKind};

use super::report::credits;

/// Characters of an id that are enough to tell ids of one demo apart.
const SHORT_ID_CHARS: usize = 8;

/// The line for an event, or none where it would only repeat another one or a progress bar.
pub(crate) fn line(event: &Event) -> Option<String> {
    Some(match &event.kind {
        EventKind::ModelReady { name, model } => {
            format!("model    {name} takes jobs; its id is the hash of its weights: {}", short(model))
        }
        EventKind::JobClaimed { claim, worker, layers, .. } => {
            format!("claim    {} signs claim {}, which commits to {layers} layers", worker.name, short(claim))
        }
        EventKind::LeaseLost { job, worker, fee, .. } => {
            format!("lease    {} lost job {} and pays {}", worker.name, short(job), credits(*fee))
        }
        EventKind::LeaseReturned { job, worker, reason, fee, .. } => {
            let (job, fee) = (short(job), credits(*fee));
            format!("lease    {} hands job {job} back ({reason}) and pays {fee}", worker.name)
        }
        EventKind::DisputeOpened { dispute, claim, challenger, worker, layer, bond, .. } => format!(
            "{}  0. {} disputes layer {layer} of claim {} by {} (bond {})",
            short(dispute),
            challenger.name,
            short(claim),
            worker.name,
            credits(*bond)
        ),
        EventKind::DisputeMoved { dispute, moved, .. } => {
            format!("{} {:>2}. {}", short(dispute), moved.sequence, move_line(moved))
        }
        EventKind::MoveRefused { by, code, message, .. } => {
            format!("  refused: {} sent a move that is not legal ({code}): {message}", by.name)
        }
        EventKind::DisputeDecided {
            dispute,
            challenger,
            worker,
            witness_bytes,
            referee_us,
            decision,
            ..
        } => {
            let winner = match decision.verdict {
                Verdict::ChallengerWins => &challenger.name,
                Verdict::WorkerWins => &worker.name,
                Verdict::Moot => {
                    return Some(format!("{} moot: another dispute decided the claim", short(dispute)));
                }
            };
            let mut text = format!("{} verdict: {winner} wins", short(dispute));
            if let (Some(claimed), Some(computed)) = (&decision.claimed, &decision.computed) {
                text.push_str(&format!(": claimed {claimed}, recomputed {computed}"));
            }
            if let (Some(bytes), Some(micros)) = (witness_bytes, referee_us) {
                text.push_str(&format!(" from {bytes} bytes of witness in {micros} µs"));
            }
            text
        }
        EventKind::ClaimRejected { job, claim, worker, reassigned, .. } => format!(
            "reject   claim {} of {} is void; job {} {}",
            short(claim),
            worker.name,
            short(job),
            if *reassigned { "goes to another owner's worker" } else { "is refunded" }
        ),
        EventKind::WorkerSuspended { worker, .. } => format!("suspend  {} gets no more work", worker.name),
        EventKind::ClaimFinalized { claim, worker, price, .. } => {
            format!("final    claim {} of {} stands: {} paid", short(claim), worker.name, credits(*price))
        }
        EventKind::JobRefunded { job, amount, .. } => {
            format!("refund   {} back to the submitter of job {}", credits(*amount), short(job))
        }
        _ => return None,
    })
}

fn move_line(moved: &MoveView) -> String {
    let by = &moved.by.name;
    let place = &moved.place;
    match moved.kind {
        MoveKind::Open => format!("{by} opens the dispute"),
        MoveKind::RevealOps => {
            format!("{by} reveals the commitment of every operator output {}", scope(place))
        }
        MoveKind::ChooseOp => format!("{by} points at {}", operator(place)),
        MoveKind::RevealNodes => format!("{by} reveals tree nodes below {}", node(place)),
        MoveKind::ChooseNode => format!("{by} points at {}", node(place)),
        MoveKind::RevealChunk => format!("{by} reveals the chunk: {} bytes", moved.bytes),
        MoveKind::ChooseElement => {
            format!("{by} points at element {}, computed step by step", element(place))
        }
        MoveKind::Prove => format!(
            "{by} proves element {} wrong with a witness of {} bytes",
            element(place),
            moved.witness_bytes.unwrap_or(moved.bytes)
        ),
    }
}

fn scope(place: &PlaceView) -> String {
    match &place.inside {
        None => format!("of layer {}", place.layer),
        Some(inside) => format!("inside element {} of operator {}", inside.element, inside.op),
    }
}

fn operator(place: &PlaceView) -> String {
    match (&place.op_kind, place.op) {
        (Some(kind), Some(op)) => format!("operator {op} ({kind})"),
        (None, Some(op)) => format!("operator {op}"),
        _ => "an operator".to_owned(),
    }
}

fn node(place: &PlaceView) -> String {
    match &place.node {
        Some(node) if node.height == 0 => format!("chunk {}", node.index),
        Some(node) => format!("node {} at height {}", node.index, node.height),
        None => "the root".to_owned(),
    }
}

fn element(place: &PlaceView) -> String {
    place.element.map_or_else(|| "?".to_owned(), |element| element.to_string())
}

/// The last characters of an id: time-ordered ids share their first ones.
pub(crate) fn short(id: &impl std::fmt::Display) -> String {
    let text = id.to_string();
    let skip = text.chars().count().saturating_sub(SHORT_ID_CHARS);
    text.chars().skip(skip).collect()
}
