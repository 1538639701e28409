//! What readers may know of a dispute.

use gainsay_commitment::{
    ChainingValue, ClaimId, DisputeId, MoveHash, NodeAddress, PartyId, TensorCommitment,
};
use gainsay_program::{OpPlace, Scope};

use super::{Cause, Dispute, DisputeTerms, Outcome, Phase, Stage};
use crate::{
    case::Case,
    ids::Role,
    moves::Open,
    referee::Commitments,
    reveals::{RevealKey, RevealTarget},
    time::ServiceTime,
};

/// Where a dispute has got to, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The disputed layer.
    pub layer: u32,
    /// The layer's own ops, or the virtual layer that the dispute has entered.
    pub scope: Scope,
    /// The chosen op.
    pub op: Option<u32>,
    /// The node below which the dispute goes on; a chunk once one was reached.
    pub node: Option<NodeAddress>,
    /// The element, once one was proven.
    pub element: Option<u64>,
}

/// What the worker has shown and the challenger has to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question<'a> {
    /// Which of these ops is wrong?
    Op {
        /// The revealed commitments.
        commitments: &'a [TensorCommitment],
    },
    /// Which of these nodes is wrong?
    Node {
        /// The op chosen.
        place: OpPlace,
        /// The node above.
        node: NodeAddress,
        /// The revealed nodes.
        children: &'a [ChainingValue],
    },
    /// Which element of this chunk is wrong?
    Element {
        /// The op chosen.
        place: OpPlace,
        /// The chunk.
        chunk: u64,
        /// Its revealed bytes.
        bytes: &'a [u8],
    },
}

impl Dispute {
    /// The dispute's identity: the digest of the unsigned opening.
    #[must_use]
    pub fn id(&self) -> DisputeId {
        self.id
    }

    /// The move that opened it.
    #[must_use]
    pub fn opening(&self) -> &Open {
        &self.open
    }

    /// The claim disputed.
    #[must_use]
    pub fn claim(&self) -> ClaimId {
        self.open.claim
    }

    /// Whose claim it is.
    #[must_use]
    pub fn worker(&self) -> PartyId {
        self.worker
    }

    /// Who disputes it.
    #[must_use]
    pub fn challenger(&self) -> PartyId {
        self.open.challenger
    }

    /// The terms recorded at the opening.
    #[must_use]
    pub fn terms(&self) -> DisputeTerms {
        self.terms
    }

    /// What the dispute waits for.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.stage.phase()
    }

    /// Who has to move; nobody once it has ended.
    #[must_use]
    pub fn turn(&self) -> Option<Role> {
        self.phase().turn()
    }

    /// When the party on turn will have spent its allowance. `None` once the dispute has ended, and while clocks
    /// stand.
    #[must_use]
    pub fn deadline(&self) -> Option<ServiceTime> {
        self.clock.deadline(self.turn()?)
    }

    /// Milliseconds that `role` has left for the rest of the dispute.
    #[must_use]
    pub fn time_left(&self, role: Role, now: ServiceTime) -> u64 {
        if self.turn() == Some(role) {
            self.clock.left_on_turn(role, now)
        } else {
            self.clock.left_at_last_charge(role)
        }
    }

    /// Whether clocks stand because the referee failed.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.clock.paused && self.outcome().is_none()
    }

    /// The number of the next record; a choice has to name it.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The hash of the last record; a choice has to name it.
    #[must_use]
    pub fn head(&self) -> MoveHash {
        self.head
    }

    /// How many moves of the party on turn were refused in this turn.
    #[must_use]
    pub fn refusals(&self) -> u8 {
        self.refusals
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match &self.stage {
            Stage::Ended(outcome) => Some(*outcome),
            _ => None,
        }
    }

    /// The layer's own ops, or the virtual layer that the dispute has entered.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match &self.inner {
            None => Scope::Layer,
            Some(inner) => Scope::Virtual { op: inner.op, element: inner.element },
        }
    }

    /// The reveal that the dispute waits for; `None` where it is not the worker's turn.
    #[must_use]
    pub fn wanted(&self) -> Option<RevealKey> {
        let target = match self.stage {
            Stage::Ops => RevealTarget::Ops,
            Stage::Nodes { op, node, .. } => RevealTarget::Nodes { op, node },
            Stage::Chunk { op, chunk, .. } => RevealTarget::Chunk { op, chunk },
            Stage::OpChoice | Stage::NodeChoice { .. } | Stage::Element { .. } | Stage::Ended(_) => {
                return None;
            }
        };
        Some(RevealKey { layer: self.open.layer, scope: self.scope(), target })
    }

    /// What the challenger has to answer; `None` where it is not its turn.
    #[must_use]
    pub fn question(&self) -> Option<Question<'_>> {
        match &self.stage {
            Stage::OpChoice => Some(Question::Op { commitments: self.ops() }),
            Stage::NodeChoice { op, node, children } => {
                Some(Question::Node { place: self.place(*op), node: *node, children })
            }
            Stage::Element { op, chunk, bytes } => {
                Some(Question::Element { place: self.place(*op), chunk: *chunk, bytes })
            }
            Stage::Ops | Stage::Nodes { .. } | Stage::Chunk { .. } | Stage::Ended(_) => None,
        }
    }

    /// Where the dispute has got to.
    #[must_use]
    pub fn position(&self) -> Position {
        let (scope, layer) = (self.scope(), self.open.layer);
        let (op, node, element) = match &self.stage {
            Stage::Ops | Stage::OpChoice => (None, None, None),
            Stage::Nodes { op, node, .. } | Stage::NodeChoice { op, node, .. } => {
                (Some(*op), Some(*node), None)
            }
            Stage::Chunk { op, chunk, .. } | Stage::Element { op, chunk, .. } => {
                (Some(*op), Some(NodeAddress::chunk(*chunk)), None)
            }
            Stage::Ended(Outcome { cause: Cause::Proof { place, element, .. }, .. }) => {
                (Some(place.op), None, Some(*element))
            }
            Stage::Ended(_) => (None, None, None),
        };
        Position { layer, scope, op, node, element }
    }

    /// The commitments against which the referee opens a witness of this dispute.
    #[must_use]
    pub fn commitments<'a>(&'a self, case: &Case<'a>) -> Commitments<'a> {
        let commitments = Commitments::of_layer(case.clone(), self.open.layer, &self.layer_ops);
        match &self.inner {
            None => commitments,
            Some(inner) => commitments.with_virtual(self.scope(), &inner.ops),
        }
    }

    /// The revealed commitments of the ops that the dispute is in; empty before they are revealed.
    pub(super) fn ops(&self) -> &[TensorCommitment] {
        self.inner.as_ref().map_or(&self.layer_ops, |inner| &inner.ops)
    }

    pub(super) fn place(&self, op: u32) -> OpPlace {
        OpPlace { layer: self.open.layer, scope: self.scope(), op }
    }
}
