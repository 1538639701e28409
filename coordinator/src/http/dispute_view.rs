//! A dispute as it travels: the fold of its log, and the log itself with the place that each move narrowed it to.

use gainsay_api::disputes::{
    DecisionView, DisputeState, DisputeSummary, DisputeView as WireDispute, MoveKind as WireKind, MoveView,
    NodeView, PlaceView, Side, Verdict as WireVerdict, VerdictReason, VirtualView,
};
use gainsay_api::parties::PartyView;
use gainsay_api::wire::Base64;
use gainsay_commitment::{Canonical, DecodeError, NodeAddress};
use gainsay_program::{OpPlace, Scope, ValidatedModel};
use gainsay_protocol::{
    Action, Cause, Closing, Dispute, JobId, MoveKind, Outcome, Position, RevealContent, Role, ServiceTime,
    SignedMove, Verdict,
};

use super::error::ApiError;
use super::names;
use super::state::HttpState;
use crate::app::{DisputeStage, DisputeView, EntryView};

/// Who plays.
#[derive(Debug)]
pub(super) struct Parties {
    challenger: PartyView,
    worker: PartyView,
}

impl Parties {
    /// The parties of a dispute, with their names.
    pub(super) async fn of_dispute(state: &HttpState, dispute: &Dispute) -> Result<Self, ApiError> {
        Ok(Self {
            challenger: names::party(state, dispute.challenger(), Role::Challenger).await?,
            worker: names::party(state, dispute.worker(), Role::Worker).await?,
        })
    }

    fn of(&self, role: Role) -> &PartyView {
        match role {
            Role::Challenger => &self.challenger,
            Role::Worker => &self.worker,
        }
    }
}

/// The state that a filter names.
pub(super) fn stage(state: DisputeState) -> DisputeStage {
    match state {
        DisputeState::Open => DisputeStage::Open,
        DisputeState::Halted => DisputeStage::Paused,
        DisputeState::Decided => DisputeStage::Ended,
    }
}

/// What listings show.
pub(super) fn summary(
    dispute: &Dispute,
    job: JobId,
    opened: ServiceTime,
    model: &ValidatedModel,
    parties: Parties,
    now: ServiceTime,
) -> DisputeSummary {
    let clock = |role| i64::try_from(dispute.time_left(role, now)).unwrap_or(i64::MAX);
    DisputeSummary {
        id: dispute.id(),
        claim: dispute.claim(),
        job_id: job,
        state: match dispute.outcome() {
            Some(_) => DisputeState::Decided,
            None if dispute.is_paused() => DisputeState::Halted,
            None => DisputeState::Open,
        },
        turn: dispute.turn().map(side),
        place: place(dispute.position(), model),
        challenger_commitment: dispute.for_the_public().challenger_commitment(),
        move_count: u32::try_from(dispute.next_seq()).unwrap_or(u32::MAX),
        challenger_clock_ms: clock(Role::Challenger),
        worker_clock_ms: clock(Role::Worker),
        opened_at_ms: opened.0,
        decision: dispute.outcome().map(decision),
        challenger: parties.challenger,
        worker: parties.worker,
    }
}

/// The whole view. Fails only on bytes that are not what the service itself wrote.
pub(super) fn dispute(
    view: &DisputeView,
    fold: &Dispute,
    model: &ValidatedModel,
    parties: Parties,
    now: ServiceTime,
) -> Result<WireDispute, DecodeError> {
    let moves = moves(view, fold, model, &parties)?;
    let summary = summary(fold, view.job, view.opened_at, model, parties, now);
    Ok(WireDispute { summary, moves, encoded: Base64(fold.for_the_public().to_bytes()) })
}

/// A place in words.
pub(super) fn position_text(place: &PlaceView) -> String {
    let mut text = format!("layer {}", place.layer);
    let mut add = |part: String| {
        text.push_str(" · ");
        text.push_str(&part);
    };
    if let Some(inside) = &place.inside {
        add(format!("inside op {} element {}", inside.op, inside.element));
    }
    if let Some(op) = place.op {
        add(format!("op {op} {}", place.op_kind.as_deref().unwrap_or_default()));
    }
    match &place.node {
        Some(NodeView { height: 0, index }) => add(format!("chunk {index}")),
        Some(NodeView { height, index }) => add(format!("node {height}/{index}")),
        None => {}
    }
    if let Some(element) = place.element {
        add(format!("element {element}"));
    }
    text
}

fn moves(
    view: &DisputeView,
    fold: &Dispute,
    model: &ValidatedModel,
    parties: &Parties,
) -> Result<Vec<MoveView>, DecodeError> {
    let mut log = Vec::with_capacity(view.entries.len());
    for entry in &view.entries {
        if let Some(bytes) = &entry.signed_move {
            log.push((entry, bytes.len(), SignedMove::from_bytes(bytes)?));
        }
    }
    let mut position =
        Position { layer: view.layer, scope: Scope::Layer, op: None, node: None, element: None };
    let mut views = Vec::with_capacity(log.len());
    for (index, (entry, bytes, signed)) in log.iter().enumerate() {
        narrow(&mut position, signed);
        // A chosen node is named by the reveal that follows; the last move's is where the dispute stands.
        let chosen = signed.kind() == MoveKind::ChooseNode;
        if chosen {
            position.node = log.get(index + 1).map_or(fold.position().node, |(_, _, next)| node_of(next));
        }
        views.push(move_view(entry, *bytes, signed, place(position, model), parties));
    }
    Ok(views)
}

/// What a move says about the place.
fn narrow(position: &mut Position, signed: &SignedMove) {
    match signed {
        SignedMove::Open(_) => {}
        SignedMove::Reveal(_) => position.node = node_of(signed).or(position.node),
        SignedMove::Choice(choice) => match &choice.body.action {
            Action::ChooseOp { op } => position.op = Some(*op),
            Action::ChooseNode { .. } => {}
            Action::ChooseElement { element } => {
                position.scope = Scope::Virtual { op: position.op.unwrap_or_default(), element: *element };
                position.op = None;
                position.node = None;
            }
            Action::Prove { element, .. } => position.element = Some(*element),
        },
    }
}

/// The node that a reveal is about.
fn node_of(signed: &SignedMove) -> Option<NodeAddress> {
    let SignedMove::Reveal(reveal) = signed else { return None };
    match reveal.body.content {
        RevealContent::Ops { .. } => None,
        RevealContent::Nodes { node, .. } => Some(node),
        RevealContent::Chunk { chunk, .. } => Some(NodeAddress { height: 0, index: chunk }),
    }
}

fn move_view(
    entry: &EntryView,
    bytes: usize,
    signed: &SignedMove,
    place: PlaceView,
    parties: &Parties,
) -> MoveView {
    let witness = match signed {
        SignedMove::Choice(choice) => match &choice.body.action {
            Action::Prove { witness, .. } => Some(witness.bytes()),
            _ => None,
        },
        _ => None,
    };
    MoveView {
        sequence: entry.seq as u32,
        kind: kind(signed.kind()),
        side: side(signed.role()),
        by: parties.of(signed.role()).clone(),
        place,
        bytes: bytes as u64,
        witness_bytes: witness,
        referee_us: entry.referee_us,
        at_ms: entry.at.0,
    }
}

fn place(position: Position, model: &ValidatedModel) -> PlaceView {
    let op_kind = |op| {
        let place = OpPlace { layer: position.layer, scope: position.scope, op };
        model.op_name(place).map(str::to_owned)
    };
    PlaceView {
        layer: position.layer,
        inside: match position.scope {
            Scope::Layer => None,
            Scope::Virtual { op, element } => Some(VirtualView { op, element }),
        },
        op: position.op,
        op_kind: position.op.and_then(op_kind),
        node: position.node.map(|node| NodeView { height: node.height, index: node.index }),
        element: position.element,
    }
}

fn decision(outcome: Outcome) -> DecisionView {
    let (claimed, computed) = match outcome.cause {
        Cause::Proof { claimed, recomputed, .. } => {
            (Some(hex::encode(claimed)), Some(hex::encode(recomputed)))
        }
        _ => (None, None),
    };
    DecisionView {
        verdict: match outcome.verdict {
            Verdict::ChallengerWins => WireVerdict::ChallengerWins,
            Verdict::WorkerWins => WireVerdict::WorkerWins,
            Verdict::Moot | Verdict::Void => WireVerdict::Moot,
        },
        reason: match outcome.cause {
            Cause::Proof { .. } => VerdictReason::Referee,
            Cause::Timeout(_) => VerdictReason::ClockExpired,
            Cause::Closed(Closing::ClaimRejected { .. }) => VerdictReason::AnotherDispute,
            Cause::Closed(Closing::BondLost { .. }) => VerdictReason::BondForfeited,
            Cause::Closed(Closing::Void) => VerdictReason::Void,
        },
        claimed,
        computed,
        at_ms: outcome.time.0,
    }
}

pub(super) fn side(role: Role) -> Side {
    match role {
        Role::Challenger => Side::Challenger,
        Role::Worker => Side::Worker,
    }
}

fn kind(kind: MoveKind) -> WireKind {
    match kind {
        MoveKind::Open => WireKind::Open,
        MoveKind::RevealOps => WireKind::RevealOps,
        MoveKind::ChooseOp => WireKind::ChooseOp,
        MoveKind::RevealNodes => WireKind::RevealNodes,
        MoveKind::ChooseNode => WireKind::ChooseNode,
        MoveKind::RevealChunk => WireKind::RevealChunk,
        MoveKind::ChooseElement => WireKind::ChooseElement,
        MoveKind::Prove => WireKind::Prove,
    }
}
