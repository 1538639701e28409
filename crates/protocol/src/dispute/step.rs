//! What each move has to fulfil, and where it leads.

use gainsay_commitment::{
    NodeAddress, NodeHash, TensorCommitment,
    tensor::{CHUNK_BYTES, tensor_commitment, verify_children, verify_chunk},
};

use super::{
    Cause, Dispute, Entry, Event, Guard, Inner, MAX_REFUSALS_PER_TURN, MoveKind, Phase, Refusal, Stage,
    transition,
};
use crate::{
    case::Case,
    moves::{Action, Choice, Reveal, RevealContent, SignedMove},
    referee::judge,
    reveals::Reveals,
    time::ServiceTime,
    witness::Witness,
};

/// Bytes of one element of an op's output.
const ELEMENT_BYTES: u64 = 4;

/// Where a legal move leads.
pub(super) struct Next {
    to: To,
    guard: Guard,
}

enum To {
    Stage(Stage),
    /// The ops of the current scope were shown.
    Ops(Vec<TensorCommitment>),
    /// The dispute enters the virtual layer of an element.
    Enter(Inner),
    /// The referee has decided.
    End(Cause),
}

impl Next {
    fn stage(stage: Stage) -> Self {
        Self { to: To::Stage(stage), guard: Guard::Always }
    }

    /// Goes on below a node with this hash.
    fn below(op: u32, node: NodeAddress, expected: NodeHash) -> Self {
        if node.height == 0 {
            let stage = Stage::Chunk { op, chunk: node.index, expected };
            Self { to: To::Stage(stage), guard: Guard::OneChunk }
        } else {
            Self { to: To::Stage(Stage::Nodes { op, node, expected }), guard: Guard::SeveralChunks }
        }
    }
}

impl Dispute {
    /// Everything that is checked of a move: whose it is and when first, what it holds last.
    pub(super) fn examine(
        &self,
        case: &Case<'_>,
        reveals: &Reveals,
        made: &SignedMove,
        now: ServiceTime,
    ) -> Result<Next, Refusal> {
        if case.claim_id() != self.open.claim {
            return Err(Refusal::ForeignCase);
        }
        self.check_author(made)?;
        self.check_turn(made.kind())?;
        self.check_clock(now)?;
        match made {
            SignedMove::Open(_) => Err(Refusal::WrongMove { phase: self.phase(), found: MoveKind::Open }),
            SignedMove::Reveal(reveal) => {
                let key = reveal.body.key();
                if self.wanted() != Some(key) {
                    return Err(Refusal::OtherPlace);
                }
                self.check_patience()?;
                if Self::known(reveals, &key).is_some_and(|known| *known != reveal.body) {
                    return Err(Refusal::Contradiction);
                }
                self.examine_reveal(case, &reveal.body)
            }
            SignedMove::Choice(choice) => {
                if (choice.body.seq, choice.body.previous) != (self.next_seq, self.head) {
                    return Err(Refusal::Stale);
                }
                self.check_patience()?;
                self.examine_choice(case, &choice.body)
            }
        }
    }

    fn check_author(&self, made: &SignedMove) -> Result<(), Refusal> {
        let (author, same) = match made {
            SignedMove::Open(open) => (self.open.challenger, open.body.claim == self.open.claim),
            SignedMove::Reveal(reveal) => (self.worker, reveal.body.claim == self.open.claim),
            SignedMove::Choice(choice) => (self.open.challenger, choice.body.dispute == self.id),
        };
        match (same, made) {
            (false, SignedMove::Choice(_)) => Err(Refusal::ForeignDispute),
            (false, _) => Err(Refusal::ForeignClaim),
            (true, _) if made.signer() != author => Err(Refusal::ForeignSigner),
            (true, _) => Ok(()),
        }
    }

    fn check_turn(&self, found: MoveKind) -> Result<(), Refusal> {
        let phase = self.phase();
        match phase.turn() {
            None => Err(Refusal::Ended),
            Some(role) if role != found.role() => Err(Refusal::OutOfTurn { phase, found }),
            Some(_) if !phase.admits(found) => Err(Refusal::WrongMove { phase, found }),
            Some(_) => Ok(()),
        }
    }

    fn check_patience(&self) -> Result<(), Refusal> {
        if self.refusals >= MAX_REFUSALS_PER_TURN { Err(Refusal::TooManyRefusals) } else { Ok(()) }
    }

    /// Examines a reveal for the place that the dispute waits for.
    pub(super) fn examine_reveal(&self, case: &Case<'_>, reveal: &Reveal) -> Result<Next, Refusal> {
        match (&self.stage, &reveal.content) {
            (Stage::Ops, RevealContent::Ops { commitments }) => self.examine_ops(case, commitments),
            (Stage::Nodes { op, node, expected }, RevealContent::Nodes { children, .. }) => {
                let shape = case.tree_shape(self.place(*op)).ok_or(Refusal::ForeignCase)?;
                verify_children(shape, *node, *expected, children)?;
                Ok(Next::stage(Stage::NodeChoice { op: *op, node: *node, children: children.clone() }))
            }
            (Stage::Chunk { op, chunk, expected }, RevealContent::Chunk { bytes, .. }) => {
                let shape = case.tree_shape(self.place(*op)).ok_or(Refusal::ForeignCase)?;
                verify_chunk(shape, *chunk, *expected, bytes)?;
                Ok(Next::stage(Stage::Element { op: *op, chunk: *chunk, bytes: bytes.clone() }))
            }
            _ => Err(Refusal::OtherPlace),
        }
    }

    /// One commitment per op, the last one being what the scope as a whole stands for: the layer's commitment,
    /// or the hash of the expanded element.
    fn examine_ops(&self, case: &Case<'_>, commitments: &[TensorCommitment]) -> Result<Next, Refusal> {
        let expected = case.model().op_count(case.input(), self.open.layer, self.scope());
        let expected = expected.ok_or(Refusal::ForeignCase)?;
        let found = commitments.len() as u64;
        if u64::from(expected) != found {
            return Err(Refusal::OpCount { expected, found });
        }
        let whole = match &self.inner {
            None => *case.claim().layers.get(self.open.layer as usize).ok_or(Refusal::ForeignCase)?,
            Some(inner) => tensor_commitment(&inner.claimed),
        };
        if commitments.last() != Some(&whole) {
            return Err(Refusal::LastOp);
        }
        Ok(Next { to: To::Ops(commitments.to_vec()), guard: Guard::Always })
    }

    fn examine_choice(&self, case: &Case<'_>, choice: &Choice) -> Result<Next, Refusal> {
        match (&self.stage, &choice.action) {
            (Stage::OpChoice, Action::ChooseOp { op }) => {
                let commitment = self.ops().get(*op as usize).ok_or(Refusal::NoSuchOp { op: *op })?;
                let shape = case.tree_shape(self.place(*op)).ok_or(Refusal::ForeignCase)?;
                Ok(Next::below(*op, shape.root(), NodeHash::Root(*commitment)))
            }
            (Stage::NodeChoice { op, node, children }, Action::ChooseNode { child }) => {
                let refused = Refusal::NoSuchNode { child: *child };
                let hash = children.get(*child as usize).ok_or(refused)?;
                let shape = case.tree_shape(self.place(*op)).ok_or(Refusal::ForeignCase)?;
                let nodes = shape.revealed_children(*node).ok_or(Refusal::ForeignCase)?;
                let node = nodes.get(*child as usize).ok_or(refused)?;
                Ok(Next::below(*op, *node, NodeHash::Inner(*hash)))
            }
            (Stage::Element { op, chunk, bytes }, Action::ChooseElement { element }) => {
                let claimed = element_in_chunk(*chunk, bytes, *element)?;
                if !self.is_expanded(case, *op, *element) {
                    return Err(Refusal::NotExpanded { element: *element });
                }
                let inner = Inner { op: *op, element: *element, claimed, ops: Vec::new() };
                Ok(Next { to: To::Enter(inner), guard: Guard::Expanded })
            }
            (Stage::Element { op, chunk, bytes }, Action::Prove { element, witness }) => {
                let claimed = element_in_chunk(*chunk, bytes, *element)?;
                self.examine_proof(case, *op, *element, claimed, witness)
            }
            _ => Err(Refusal::Stale),
        }
    }

    fn examine_proof(
        &self,
        case: &Case<'_>,
        op: u32,
        element: u64,
        claimed: [u8; 4],
        witness: &Witness,
    ) -> Result<Next, Refusal> {
        if self.is_expanded(case, op, element) {
            return Err(Refusal::MustExpand { element });
        }
        let place = self.place(op);
        let judgement = judge(&self.commitments(case), place, element, claimed, witness)?;
        let cause = Cause::Proof { place, element, claimed, recomputed: judgement.recomputed };
        Ok(Next { to: To::End(cause), guard: Guard::Direct })
    }

    /// Whether the dispute would go on inside this element. Virtual ops are never expanded again.
    fn is_expanded(&self, case: &Case<'_>, op: u32, element: u64) -> bool {
        self.inner.is_none() && case.model().is_expanded(case.input(), self.open.layer, op, element)
    }

    /// Makes a legal move: charges its author's clock, appends the record, goes where the table says.
    pub(super) fn advance_by(
        &mut self,
        next: Next,
        digest: [u8; 32],
        made: SignedMove,
        now: ServiceTime,
    ) -> Entry {
        let (from, by) = (self.phase(), made.kind());
        self.clock = self.clock.charged(by.role(), now);
        self.refusals = 0;
        match next.to {
            To::Stage(stage) => self.stage = stage,
            To::Ops(commitments) => {
                match &mut self.inner {
                    None => self.layer_ops = commitments,
                    Some(inner) => inner.ops = commitments,
                }
                self.stage = Stage::OpChoice;
            }
            To::Enter(inner) => {
                self.inner = Some(inner);
                self.stage = Stage::Ops;
            }
            To::End(cause) => self.end(cause, now),
        }
        let expected: Option<Phase> = transition(Some(from), by, next.guard);
        assert_eq!(expected, Some(self.phase()), "{by} in {from} left the transition table");
        self.record(Event::Moved { digest }, Some(made), now)
    }
}

/// The four bytes of an element, which has to lie in the chunk.
fn element_in_chunk(chunk: u64, bytes: &[u8], element: u64) -> Result<[u8; 4], Refusal> {
    let refused = Refusal::ElementOutsideChunk { element };
    let first = chunk.checked_mul(CHUNK_BYTES as u64 / ELEMENT_BYTES).ok_or(refused)?;
    let offset =
        element.checked_sub(first).and_then(|index| index.checked_mul(ELEMENT_BYTES)).ok_or(refused)?;
    let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).ok_or(refused)?;
    rest.first_chunk().copied().ok_or(refused)
}
