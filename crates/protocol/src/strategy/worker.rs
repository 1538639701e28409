//! The worker's side: show what is asked for, from its own run.

use gainsay_program::{OpPlace, Scope, TensorRef};

use super::{StrategyError, TensorData, TraceSource, trace::tensor};
use crate::{
    case::Case,
    dispute::{Dispute, Outcome},
    moves::{Reveal, RevealContent},
    reveals::{RevealKey, RevealTarget},
};

/// What a worker does next in a dispute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerStep {
    /// Sign this and send it.
    Reveal(Reveal),
    /// It is the challenger's turn, or the clocks stand.
    Wait,
    /// The dispute has ended.
    Over(Outcome),
}

/// The worker's next move, from the trace of the run that it claimed.
///
/// # Errors
/// The trace lacks a tensor, or the dispute is about something else.
pub fn worker_next(
    dispute: &Dispute,
    case: &Case<'_>,
    trace: &mut dyn TraceSource,
) -> Result<WorkerStep, StrategyError> {
    if dispute.claim() != case.claim_id() {
        return Err(StrategyError::ForeignCase);
    }
    match (dispute.outcome(), dispute.wanted()) {
        (Some(outcome), _) => Ok(WorkerStep::Over(outcome)),
        (None, Some(key)) if !dispute.is_paused() => worker_reveal(case, key, trace).map(WorkerStep::Reveal),
        (None, _) => Ok(WorkerStep::Wait),
    }
}

/// The reveal that fills a place of the claim. It is the same in every dispute, so a worker may keep or resend it.
///
/// # Errors
/// The trace lacks a tensor, or program and job have no such place.
pub fn worker_reveal(
    case: &Case<'_>,
    key: RevealKey,
    trace: &mut dyn TraceSource,
) -> Result<Reveal, StrategyError> {
    let RevealKey { layer, scope, target } = key;
    let mut output = |op| output(case, &mut *trace, OpPlace { layer, scope, op });
    let content = match target {
        RevealTarget::Ops => {
            let count = case.model().op_count(case.input(), layer, scope);
            let ops = 0..count.ok_or(StrategyError::ForeignCase)?;
            let commitments =
                ops.map(|op| Ok(output(op)?.commitment())).collect::<Result<_, StrategyError>>()?;
            RevealContent::Ops { commitments }
        }
        RevealTarget::Nodes { op, node } => {
            let children = output(op)?.tree.children(node).ok_or(StrategyError::ForeignCase)?;
            RevealContent::Nodes { op, node, children }
        }
        RevealTarget::Chunk { op, chunk } => {
            let data = output(op)?;
            let range = data.tree.shape().chunk_range(chunk).ok_or(StrategyError::ForeignCase)?;
            let bytes = data.bytes[range.start as usize..range.end as usize].to_vec();
            RevealContent::Chunk { op, chunk, bytes }
        }
    };
    Ok(Reveal { claim: case.claim_id(), layer, scope, content })
}

/// An op's output. The last op of a virtual layer *is* the element, so its bytes are those that stand in the claimed
/// tensor: what the worker has committed to, it also shows.
fn output(case: &Case<'_>, trace: &mut dyn TraceSource, place: OpPlace) -> Result<TensorData, StrategyError> {
    let count = case.model().op_count(case.input(), place.layer, place.scope);
    match place.scope {
        Scope::Virtual { op, element } if count == Some(place.op + 1) => {
            let expanded = tensor(case, trace, TensorRef::Op(OpPlace::in_layer(place.layer, op)))?;
            let bytes = expanded.element(element).ok_or(StrategyError::ForeignCase)?;
            Ok(TensorData::new(bytes.to_vec()))
        }
        _ => tensor(case, trace, TensorRef::Op(place)),
    }
}
