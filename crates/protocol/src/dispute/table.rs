//! The dispute game as data: which move each phase admits, and where it leads.

use std::fmt;

use crate::ids::Role;

/// What a dispute waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The commitments of the ops of the layer, or of the virtual layer.
    AwaitOps,
    /// The challenger's choice of an op.
    AwaitOpChoice,
    /// Nodes of the chosen op output's tree.
    AwaitNodes,
    /// The challenger's choice of a node.
    AwaitNodeChoice,
    /// The bytes of the chunk.
    AwaitChunk,
    /// The challenger's choice of an element, with proof where the element is not expanded.
    AwaitElement,
    /// Nothing: there is a verdict.
    Ended,
}

/// The eight moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MoveKind {
    /// Opens the dispute.
    Open,
    /// Shows the commitments of all ops.
    RevealOps,
    /// Chooses an op.
    ChooseOp,
    /// Shows nodes.
    RevealNodes,
    /// Chooses a node.
    ChooseNode,
    /// Shows a chunk.
    RevealChunk,
    /// Chooses an element whose virtual layer the dispute enters.
    ChooseElement,
    /// Chooses an element and proves it.
    Prove,
}

/// What decides between the rows of one phase and move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guard {
    /// Nothing.
    Always,
    /// What was chosen spans several chunks.
    SeveralChunks,
    /// What was chosen is one chunk.
    OneChunk,
    /// The element belongs to an expanded op.
    Expanded,
    /// The element does not belong to an expanded op.
    Direct,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The phase in which the move is legal; `None` before the dispute exists.
    pub from: Option<Phase>,
    /// The move.
    pub by: MoveKind,
    /// When this row applies.
    pub when: Guard,
    /// The phase after it.
    pub to: Phase,
}

const fn row(from: Option<Phase>, by: MoveKind, when: Guard, to: Phase) -> Transition {
    Transition { from, by, when, to }
}

/// Every legal move. What is not in this table is refused.
pub const TRANSITIONS: [Transition; 10] = [
    row(None, MoveKind::Open, Guard::Always, Phase::AwaitOps),
    row(Some(Phase::AwaitOps), MoveKind::RevealOps, Guard::Always, Phase::AwaitOpChoice),
    row(Some(Phase::AwaitOpChoice), MoveKind::ChooseOp, Guard::SeveralChunks, Phase::AwaitNodes),
    row(Some(Phase::AwaitOpChoice), MoveKind::ChooseOp, Guard::OneChunk, Phase::AwaitChunk),
    row(Some(Phase::AwaitNodes), MoveKind::RevealNodes, Guard::Always, Phase::AwaitNodeChoice),
    row(Some(Phase::AwaitNodeChoice), MoveKind::ChooseNode, Guard::SeveralChunks, Phase::AwaitNodes),
    row(Some(Phase::AwaitNodeChoice), MoveKind::ChooseNode, Guard::OneChunk, Phase::AwaitChunk),
    row(Some(Phase::AwaitChunk), MoveKind::RevealChunk, Guard::Always, Phase::AwaitElement),
    row(Some(Phase::AwaitElement), MoveKind::ChooseElement, Guard::Expanded, Phase::AwaitOps),
    row(Some(Phase::AwaitElement), MoveKind::Prove, Guard::Direct, Phase::Ended),
];

/// Where `by` leads from `from`, or `None` where the table has no such row.
#[must_use]
pub fn transition(from: Option<Phase>, by: MoveKind, when: Guard) -> Option<Phase> {
    let applies = |row: &&Transition| (row.from, row.by, row.when) == (from, by, when);
    TRANSITIONS.iter().find(applies).map(|row| row.to)
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 7] = [
        Self::AwaitOps,
        Self::AwaitOpChoice,
        Self::AwaitNodes,
        Self::AwaitNodeChoice,
        Self::AwaitChunk,
        Self::AwaitElement,
        Self::Ended,
    ];

    /// Whether the table has a row for this move.
    #[must_use]
    pub fn admits(self, by: MoveKind) -> bool {
        TRANSITIONS.iter().any(|row| row.from == Some(self) && row.by == by)
    }

    /// Who has to move; nobody once the dispute has ended.
    #[must_use]
    pub fn turn(self) -> Option<Role> {
        TRANSITIONS.iter().find(|row| row.from == Some(self)).map(|row| row.by.role())
    }

    /// Stable snake-case name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AwaitOps => "await_ops",
            Self::AwaitOpChoice => "await_op_choice",
            Self::AwaitNodes => "await_nodes",
            Self::AwaitNodeChoice => "await_node_choice",
            Self::AwaitChunk => "await_chunk",
            Self::AwaitElement => "await_element",
            Self::Ended => "ended",
        }
    }
}

impl MoveKind {
    /// Every move.
    pub const ALL: [Self; 8] = [
        Self::Open,
        Self::RevealOps,
        Self::ChooseOp,
        Self::RevealNodes,
        Self::ChooseNode,
        Self::RevealChunk,
        Self::ChooseElement,
        Self::Prove,
    ];

    /// The side that makes such moves.
    #[must_use]
    pub fn role(self) -> Role {
        match self {
            Self::RevealOps | Self::RevealNodes | Self::RevealChunk => Role::Worker,
            Self::Open | Self::ChooseOp | Self::ChooseNode | Self::ChooseElement | Self::Prove => {
                Role::Challenger
            }
        }
    }

    /// Stable snake-case name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::RevealOps => "reveal_ops",
            Self::ChooseOp => "choose_op",
            Self::RevealNodes => "reveal_nodes",
            Self::ChooseNode => "choose_node",
            Self::RevealChunk => "reveal_chunk",
            Self::ChooseElement => "choose_element",
            Self::Prove => "prove",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for MoveKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_but_the_last_is_one_sides_turn() {
        for phase in Phase::ALL {
            let movers: Vec<_> =
                TRANSITIONS.iter().filter(|row| row.from == Some(phase)).map(|row| row.by.role()).collect();
            assert!(movers.windows(2).all(|pair| pair[0] == pair[1]), "{phase} is both sides' turn");
            assert_eq!(movers.is_empty(), phase == Phase::Ended, "{phase}");
        }
    }

    #[test]
    fn no_two_rows_apply_at_once() {
        for (i, a) in TRANSITIONS.iter().enumerate() {
            for b in &TRANSITIONS[i + 1..] {
                assert_ne!((a.from, a.by, a.when), (b.from, b.by, b.when));
            }
        }
    }

    #[test]
    fn every_phase_and_move_is_reachable_and_the_end_is_reachable_from_every_phase() {
        for kind in MoveKind::ALL {
            assert!(TRANSITIONS.iter().any(|row| row.by == kind), "{kind} is in no row");
        }
        for phase in Phase::ALL {
            assert!(TRANSITIONS.iter().any(|row| row.to == phase), "{phase} is never reached");
        }
        let mut leads_to_end = vec![Phase::Ended];
        for _ in Phase::ALL {
            for row in &TRANSITIONS {
                if let Some(from) = row.from
                    && leads_to_end.contains(&row.to)
                    && !leads_to_end.contains(&from)
                {
                    leads_to_end.push(from);
                }
            }
        }
        assert_eq!(leads_to_end.len(), Phase::ALL.len());
    }
}
