//! Why a move was refused. A refusal is a value: it decides nothing and leaves the dispute as it was.

use gainsay_commitment::TreeError;

use super::{MoveKind, Phase};
use crate::referee::WitnessFault;

/// How many refused moves of the party on turn are examined in one turn. Further ones are turned away unread,
/// so that a party cannot make others work for nothing until its clock has run out.
pub const MAX_REFUSALS_PER_TURN: u8 = 8;

/// Why a move was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is a verdict already.
    #[error("the dispute has ended")]
    Ended,
    /// The clocks stand while an operator looks into a fault of the referee.
    #[error("the dispute is paused; no clock runs")]
    Paused,
    /// The clocks run already.
    #[error("the dispute is not paused")]
    NotPaused,
    /// The party on turn has spent its allowance; only the verdict is left to come.
    #[error("the allowance of the party on turn is spent")]
    Late,
    /// The caller's time lies before the last record's.
    #[error("service time lies before the last move's")]
    TimeReversed,
    /// The window of the claim has closed.
    #[error("the challenge window of the claim has closed")]
    WindowClosed,
    /// The move names another claim.
    #[error("the move belongs to another claim")]
    ForeignClaim,
    /// The move names another dispute.
    #[error("the move belongs to another dispute")]
    ForeignDispute,
    /// The move was not signed by the party whose move it is.
    #[error("the move is not signed by the party whose move it is")]
    ForeignSigner,
    /// The manifest, job or claim at hand are not those that the dispute is about.
    #[error("the dispute is not about this claim, job and model")]
    ForeignCase,
    /// The other party has to move.
    #[error("it is the other party's turn: {phase} does not admit {found}")]
    OutOfTurn {
        /// What the dispute waits for.
        phase: Phase,
        /// The move made.
        found: MoveKind,
    },
    /// It is the party's turn, but not for this move.
    #[error("{phase} does not admit {found}")]
    WrongMove {
        /// What the dispute waits for.
        phase: Phase,
        /// The move made.
        found: MoveKind,
    },
    /// The choice was made for another position of this dispute.
    #[error("the move does not follow the last record of the dispute")]
    Stale,
    /// The reveal fills another place than the one awaited.
    #[error("the reveal belongs to another place than the one awaited")]
    OtherPlace,
    /// The turn has had its share of refusals.
    #[error("too many refused moves in this turn; the clock runs on")]
    TooManyRefusals,
    /// The layer does not exist.
    #[error("the claim has no layer {layer}")]
    NoSuchLayer {
        /// The layer named.
        layer: u32,
    },
    /// The challenger's own commitment is the claim's.
    #[error("the challenger's commitment of the layer equals the claim's")]
    NothingDisputed,
    /// There is not one commitment per op.
    #[error("{found} op commitments given where the layer has {expected} ops")]
    OpCount {
        /// Ops of the layer or virtual layer.
        expected: u32,
        /// Commitments given.
        found: u64,
    },
    /// The last op's commitment is not what it has to be: the layer's, or the expanded element's.
    #[error("the last op's commitment does not equal what it stands for")]
    LastOp,
    /// The reveal differs from the one that the worker gave before in the same place.
    #[error("the reveal contradicts the one given before for the same place")]
    Contradiction,
    /// Nodes or chunk do not hash up to what they should.
    #[error("the reveal does not fit the tree: {0}")]
    Tree(#[from] TreeError),
    /// The layer has no such op.
    #[error("the layer has no op {op}")]
    NoSuchOp {
        /// The op named.
        op: u32,
    },
    /// There is no such node among the revealed ones.
    #[error("no node {child} was revealed")]
    NoSuchNode {
        /// The index named.
        child: u32,
    },
    /// The element lies outside the revealed chunk.
    #[error("element {element} is not in the revealed chunk")]
    ElementOutsideChunk {
        /// The element named.
        element: u64,
    },
    /// The element must be expanded before it can be proven.
    #[error("element {element} belongs to an expanded op: choose it, then prove inside its virtual layer")]
    MustExpand {
        /// The element named.
        element: u64,
    },
    /// The element is proven directly.
    #[error("element {element} is not expanded: prove it")]
    NotExpanded {
        /// The element named.
        element: u64,
    },
    /// The witness does not decide the element.
    #[error("the witness is refused: {0}")]
    Witness(#[from] WitnessFault),
}

impl Refusal {
    /// A stable name for interfaces.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ended => "dispute_ended",
            Self::Paused => "dispute_paused",
            Self::NotPaused => "dispute_not_paused",
            Self::Late => "move_late",
            Self::TimeReversed => "time_reversed",
            Self::WindowClosed => "window_closed",
            Self::ForeignClaim => "foreign_claim",
            Self::ForeignDispute => "foreign_dispute",
            Self::ForeignSigner => "foreign_signer",
            Self::ForeignCase => "foreign_case",
            Self::OutOfTurn { .. } => "out_of_turn",
            Self::WrongMove { .. } => "wrong_move",
            Self::Stale => "stale_move",
            Self::OtherPlace => "other_place",
            Self::TooManyRefusals => "too_many_refusals",
            Self::NoSuchLayer { .. } => "no_such_layer",
            Self::NothingDisputed => "nothing_disputed",
            Self::OpCount { .. } => "op_count",
            Self::LastOp => "last_op",
            Self::Contradiction => "contradiction",
            Self::Tree(_) => "tree_mismatch",
            Self::NoSuchOp { .. } => "no_such_op",
            Self::NoSuchNode { .. } => "no_such_node",
            Self::ElementOutsideChunk { .. } => "element_outside_chunk",
            Self::MustExpand { .. } => "must_expand",
            Self::NotExpanded { .. } => "not_expanded",
            Self::Witness(fault) => fault.code(),
        }
    }

    /// Whether the refusal counts against the party on turn.
    ///
    /// Only what that party signed for this very place counts: anyone can resend an old move or sign with a key
    /// of its own, and must not be able to use up another party's turn with it.
    #[must_use]
    pub fn counts(&self) -> bool {
        matches!(
            self,
            Self::OpCount { .. }
                | Self::LastOp
                | Self::Contradiction
                | Self::Tree(_)
                | Self::NoSuchOp { .. }
                | Self::NoSuchNode { .. }
                | Self::ElementOutsideChunk { .. }
                | Self::MustExpand { .. }
                | Self::NotExpanded { .. }
                | Self::Witness(_)
        )
    }
}
