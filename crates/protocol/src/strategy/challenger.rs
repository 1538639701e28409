//! The challenger's side: find the first difference, follow it down, prove it.
//!
//! Why this convicts every false claim: the challenger disputes the first layer whose commitment differs from its
//! own, so the inputs below agree. The last op of a layer is the layer, hence some op's revealed commitment
//! differs from its own; in the first such op all inputs agree. Two different commitments over one tree have a
//! differing node at every level and a differing chunk at the bottom, or the worker cannot open its own. An
//! element in that chunk differs, its inputs are the honest ones, and so the referee computes the honest value.
//! In an expanded op the same argument runs once more over the virtual layer, whose last op is the element.

use gainsay_commitment::{TensorCommitment, tensor::CHUNK_BYTES};
use gainsay_program::{OpPlace, Scope, TensorRef};

use super::{
    StrategyError,
    trace::{TraceSource, build_witness, tensor},
};
use crate::{
    case::Case,
    claim::Claim,
    dispute::{Dispute, Outcome, Question, Verdict},
    moves::{Action, Choice},
    referee::{Commitments, judge},
    witness::Witness,
};

/// What a challenger does next in a dispute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChallengerStep {
    /// Sign this and send it.
    Choose(Choice),
    /// It is the worker's turn, or the clocks stand.
    Wait,
    /// The dispute has ended.
    Over(Outcome),
}

/// The first layer whose commitment differs from the challenger's own, given in order of layers.
///
/// # Errors
/// The numbers of layers differ: the own run was of another model.
pub fn first_difference(claim: &Claim, own: &[TensorCommitment]) -> Result<Option<u32>, StrategyError> {
    if own.len() != claim.layers.len() {
        return Err(StrategyError::LayerCount { own: own.len(), claimed: claim.layers.len() });
    }
    let differs = claim.layers.iter().zip(own).position(|(claimed, own)| claimed != own);
    Ok(differs.and_then(|layer| u32::try_from(layer).ok()))
}

/// What a rehearsal has tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rehearsal {
    /// Elements recomputed by the referee from the own trace.
    pub elements: u32,
    /// The largest witness among them, in bytes.
    pub max_witness_bytes: u64,
}

/// Runs the referee on the own trace before anything is at stake: the first, the middle and the last element of
/// every op of the layer, through virtual layers where elements are expanded. An engine that the referee does not
/// agree with, or a witness that would be refused, shows here instead of costing a bond.
///
/// # Errors
/// The trace lacks a tensor, or the referee does not confirm it.
pub fn rehearse(
    case: &Case<'_>,
    layer: u32,
    trace: &mut dyn TraceSource,
) -> Result<Rehearsal, StrategyError> {
    let mut rehearsal = Rehearsal::default();
    let ops = own_ops(case, layer, Scope::Layer, trace)?;
    let commitments = Commitments::of_layer(case.clone(), layer, &ops);
    for op in (0..).take(ops.len()) {
        let place = OpPlace::in_layer(layer, op);
        for element in sample(case, place)? {
            if !case.model().is_expanded(case.input(), layer, op, element) {
                rehearse_element(&commitments, place, element, trace, &mut rehearsal)?;
                continue;
            }
            let scope = Scope::Virtual { op, element };
            let inner = own_ops(case, layer, scope, trace)?;
            let commitments = commitments.clone().with_virtual(scope, &inner);
            for op in (0..).take(inner.len()) {
                let place = OpPlace { layer, scope, op };
                for element in sample(case, place)? {
                    rehearse_element(&commitments, place, element, trace, &mut rehearsal)?;
                }
            }
        }
    }
    Ok(rehearsal)
}

/// First, middle and last element of an op's output.
fn sample(case: &Case<'_>, place: OpPlace) -> Result<Vec<u64>, StrategyError> {
    let shape = case.model().op_shape(case.input(), place).ok_or(StrategyError::ForeignCase)?;
    let last = shape.elements().checked_sub(1).ok_or(StrategyError::ForeignCase)?;
    let mut elements = vec![0, last / 2, last];
    elements.dedup();
    Ok(elements)
}

fn own_ops(
    case: &Case<'_>,
    layer: u32,
    scope: Scope,
    trace: &mut dyn TraceSource,
) -> Result<Vec<TensorCommitment>, StrategyError> {
    let count = case.model().op_count(case.input(), layer, scope).ok_or(StrategyError::ForeignCase)?;
    (0..count).map(|op| Ok(own_output(case, trace, OpPlace { layer, scope, op })?.commitment())).collect()
}

fn own_output(
    case: &Case<'_>,
    trace: &mut dyn TraceSource,
    place: OpPlace,
) -> Result<super::TensorData, StrategyError> {
    tensor(case, trace, TensorRef::Op(place))
}

fn rehearse_element(
    commitments: &Commitments<'_>,
    place: OpPlace,
    element: u64,
    trace: &mut dyn TraceSource,
    rehearsal: &mut Rehearsal,
) -> Result<(), StrategyError> {
    let (held, witness) = own_element(commitments.case(), place, element, trace)?;
    judge(commitments, place, element, held, &witness)?;
    rehearsal.elements += 1;
    rehearsal.max_witness_bytes = rehearsal.max_witness_bytes.max(witness.bytes());
    Ok(())
}

/// An element of the own trace with its witness, after checking that the trace obeys the program there.
fn own_element(
    case: &Case<'_>,
    place: OpPlace,
    element: u64,
    trace: &mut dyn TraceSource,
) -> Result<([u8; 4], Witness), StrategyError> {
    let held = own_output(case, trace, place)?.element(element).ok_or(StrategyError::ForeignCase)?;
    let (computed, witness) = build_witness(case, trace, place, element)?;
    if held != computed {
        return Err(StrategyError::Inconsistent { place, element, held, computed });
    }
    Ok((held, witness))
}

/// The challenger's next move, from the trace of its own run.
///
/// # Errors
/// The trace lacks a tensor, or agrees with what was shown, or the witness to be sent would be refused or lose.
pub fn challenger_next(
    dispute: &Dispute,
    case: &Case<'_>,
    trace: &mut dyn TraceSource,
) -> Result<ChallengerStep, StrategyError> {
    if dispute.claim() != case.claim_id() {
        return Err(StrategyError::ForeignCase);
    }
    if let Some(outcome) = dispute.outcome() {
        return Ok(ChallengerStep::Over(outcome));
    }
    let action = match dispute.question() {
        Some(question) if !dispute.is_paused() => answer(dispute, case, question, trace)?,
        _ => return Ok(ChallengerStep::Wait),
    };
    let (seq, previous) = (dispute.next_seq(), dispute.head());
    Ok(ChallengerStep::Choose(Choice { dispute: dispute.id(), seq, previous, action }))
}

fn answer(
    dispute: &Dispute,
    case: &Case<'_>,
    question: Question<'_>,
    trace: &mut dyn TraceSource,
) -> Result<Action, StrategyError> {
    match question {
        Question::Op { commitments } => {
            let layer = dispute.opening().layer;
            let own = own_ops(case, layer, dispute.scope(), trace)?;
            first_unequal(commitments, &own).map(|op| Action::ChooseOp { op })
        }
        Question::Node { place, node, children } => {
            let own = own_output(case, trace, place)?;
            let own = own.tree.children(node).ok_or(StrategyError::ForeignCase)?;
            first_unequal(children, &own).map(|child| Action::ChooseNode { child })
        }
        Question::Element { place, chunk, bytes } => {
            let own = own_output(case, trace, place)?;
            let range = own.tree.shape().chunk_range(chunk).ok_or(StrategyError::ForeignCase)?;
            let own = &own.bytes[range.start as usize..range.end as usize];
            let in_chunk = first_unequal(bytes.as_chunks::<4>().0, own.as_chunks::<4>().0)?;
            let element = chunk * (CHUNK_BYTES as u64 / 4) + u64::from(in_chunk);
            settle(dispute, case, place, element, bytes, in_chunk, trace)
        }
    }
}

/// Proves an element, or enters its virtual layer. A proof is sent only if the referee, asked here first, convicts.
fn settle(
    dispute: &Dispute,
    case: &Case<'_>,
    place: OpPlace,
    element: u64,
    bytes: &[u8],
    in_chunk: u32,
    trace: &mut dyn TraceSource,
) -> Result<Action, StrategyError> {
    let in_layer = place.scope == Scope::Layer;
    if in_layer && case.model().is_expanded(case.input(), place.layer, place.op, element) {
        return Ok(Action::ChooseElement { element });
    }
    let claimed = bytes.as_chunks::<4>().0.get(in_chunk as usize).ok_or(StrategyError::ForeignCase)?;
    let (_, witness) = build_witness(case, trace, place, element)?;
    let judgement = judge(&dispute.commitments(case), place, element, *claimed, &witness)?;
    match judgement.verdict {
        Verdict::ChallengerWins => Ok(Action::Prove { element, witness }),
        _ => Err(StrategyError::WouldLose { place, element }),
    }
}

/// Index of the first pair that differs.
fn first_unequal<T: PartialEq>(shown: &[T], own: &[T]) -> Result<u32, StrategyError> {
    let index = shown.iter().zip(own).position(|(shown, own)| shown != own);
    index.and_then(|index| u32::try_from(index).ok()).ok_or(StrategyError::NoDifference)
}
