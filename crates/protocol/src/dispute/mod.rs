//! The dispute game: a pure state machine over signed moves and service time.
//!
//! A [`Dispute`] is the fold of its log. [`Dispute::open`] and [`Dispute::apply`] examine one move and return the
//! [`Entry`] records that the coordinator signs and appends; everything else that happens to a dispute (time
//! running out, clocks standing still, a decision elsewhere) has its own method and record. The table in
//! [`table`] says which move is legal when; the state machine asserts that it follows it.
//!
//! Reveals belong to the claim. Whenever the dispute waits for one that was given before, in whichever dispute,
//! it takes it at once: the worker's clock does not run.

mod clock;
mod encoding;
mod outcome;
mod record;
mod refusal;
mod step;
pub mod table;

use gainsay_commitment::{
    ChainingValue, ClaimId, DisputeId, MoveHash, NodeAddress, NodeHash, PartyId, Signed, TensorCommitment,
};
use gainsay_program::{OpPlace, Scope};

pub use outcome::{Cause, Closing, Effect, Outcome, Verdict};
pub use record::{DisputeTerms, Entry, Event, Record};
pub use refusal::{MAX_REFUSALS_PER_TURN, Refusal};
pub use table::{Guard, MoveKind, Phase, TRANSITIONS, Transition, transition};

use crate::{
    case::Case,
    ids::Role,
    moves::{Authentic, Open, Reveal, SignedMove},
    referee::Commitments,
    reveals::{RevealKey, RevealTarget, Reveals},
    time::ServiceTime,
};
use clock::Clock;

/// One dispute. See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispute {
    id: DisputeId,
    open: Open,
    worker: PartyId,
    terms: DisputeTerms,
    next_seq: u64,
    head: MoveHash,
    clock: Clock,
    /// Refused moves of the party on turn, in this turn.
    refusals: u8,
    /// The commitments of the layer's ops; empty until they are revealed.
    layer_ops: Vec<TensorCommitment>,
    inner: Option<Inner>,
    stage: Stage,
}

/// The virtual layer of one element of an expanded op.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    op: u32,
    element: u64,
    /// The element's bytes as the worker revealed them.
    claimed: [u8; 4],
    /// The commitments of the virtual ops; empty until they are revealed.
    ops: Vec<TensorCommitment>,
}

/// What the dispute waits for, with what is known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Ops,
    OpChoice,
    Nodes { op: u32, node: NodeAddress, expected: NodeHash },
    NodeChoice { op: u32, node: NodeAddress, children: Vec<ChainingValue> },
    Chunk { op: u32, chunk: u64, expected: NodeHash },
    Element { op: u32, chunk: u64, bytes: Vec<u8> },
    Ended(Outcome),
}

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
    /// Move 1. `reveals` are those of the claim: what earlier disputes brought to light is taken at once.
    ///
    /// Whether challenger and bond are in order is the ledger's question, not the game's.
    ///
    /// # Errors
    /// The move is no opening, is not its challenger's, is not about this claim, comes after the window, names no
    /// layer, or disputes nothing.
    pub fn open(
        case: &Case<'_>,
        reveals: &mut Reveals,
        opening: &Authentic,
        terms: DisputeTerms,
        now: ServiceTime,
    ) -> Result<(Self, Vec<Entry>), Refusal> {
        let SignedMove::Open(Signed { body: open, signer, .. }) = opening.signed() else {
            return Err(Refusal::WrongMove { phase: Phase::AwaitOps, found: opening.signed().kind() });
        };
        if *signer != open.challenger {
            return Err(Refusal::ForeignSigner);
        }
        if open.claim != case.claim_id() {
            return Err(Refusal::ForeignClaim);
        }
        if now >= terms.window_closes {
            return Err(Refusal::WindowClosed);
        }
        let claimed = case.claim().layers.get(open.layer as usize);
        let claimed = claimed.ok_or(Refusal::NoSuchLayer { layer: open.layer })?;
        if *claimed == open.commitment {
            return Err(Refusal::NothingDisputed);
        }
        let id = DisputeId::from_bytes(opening.digest());
        let mut dispute = Self {
            id,
            open: *open,
            worker: case.claim().worker,
            terms,
            next_seq: 0,
            head: MoveHash::from_bytes(id.to_bytes()),
            clock: Clock {
                worker_left_ms: terms.worker_allowance_ms,
                challenger_left_ms: terms.challenger_allowance_ms,
                since: now,
                paused: false,
            },
            refusals: 0,
            layer_ops: Vec::new(),
            inner: None,
            stage: Stage::Ops,
        };
        let event = Event::Opened { digest: opening.digest(), terms };
        let mut entries = vec![dispute.record(event, Some(opening.signed().clone()), now)];
        dispute.take_known(case, reveals, now, &mut entries);
        Ok((dispute, entries))
    }

    /// Examines a move and makes it. On success `reveals` has gained what the move showed, and the entries hold
    /// the move and every known reveal that was taken after it.
    ///
    /// Other disputes on the claim may wait for what the move showed: give them their turn with
    /// [`advance`](Self::advance).
    ///
    /// # Errors
    /// A refusal. It leaves the dispute as it was, but for the number of [`refusals`](Self::refusals) of the party
    /// on turn where [`Refusal::counts`] says so.
    pub fn apply(
        &mut self,
        case: &Case<'_>,
        reveals: &mut Reveals,
        made: &Authentic,
        now: ServiceTime,
    ) -> Result<Vec<Entry>, Refusal> {
        match self.examine(case, reveals, made.signed(), now) {
            Ok(next) => {
                if let SignedMove::Reveal(reveal) = made.signed() {
                    reveals.insert(reveal);
                }
                let mut entries = vec![self.advance_by(next, made.digest(), made.signed().clone(), now)];
                self.take_known(case, reveals, now, &mut entries);
                Ok(entries)
            }
            Err(refusal) => {
                self.refusals += u8::from(refusal.counts());
                Err(refusal)
            }
        }
    }

    /// Takes every reveal that the dispute waits for and that another dispute has brought to light meanwhile.
    /// Does nothing where none is known, nor after the allowance is spent.
    pub fn advance(&mut self, case: &Case<'_>, reveals: &Reveals, now: ServiceTime) -> Vec<Entry> {
        let mut entries = Vec::new();
        if case.claim_id() == self.open.claim && self.is_in_time(now) {
            self.take_known(case, reveals, now, &mut entries);
        }
        entries
    }

    /// Ends the dispute if the party on turn has spent its allowance. From [`deadline`](Self::deadline) on no
    /// move is accepted and this succeeds; before it, the reverse.
    pub fn timeout(&mut self, now: ServiceTime) -> Option<Entry> {
        let role = self.turn()?;
        if now < self.deadline()? {
            return None;
        }
        self.end(Cause::Timeout(role), now);
        Some(self.record(Event::Expired, None, now))
    }

    /// Stops the clocks: the referee itself has failed, and no party shall pay for it.
    ///
    /// # Errors
    /// The dispute has ended, is paused already, or the party on turn was late before.
    pub fn pause(&mut self, now: ServiceTime) -> Result<Entry, Refusal> {
        let role = self.turn().ok_or(Refusal::Ended)?;
        self.check_clock(now)?;
        self.clock = Clock { paused: true, ..self.clock.charged(role, now) };
        Ok(self.record(Event::Paused, None, now))
    }

    /// Lets the clocks run again.
    ///
    /// # Errors
    /// The dispute has ended or is not paused.
    pub fn resume(&mut self, now: ServiceTime) -> Result<Entry, Refusal> {
        if self.outcome().is_some() {
            return Err(Refusal::Ended);
        }
        if !self.clock.paused {
            return Err(Refusal::NotPaused);
        }
        if now < self.clock.since {
            return Err(Refusal::TimeReversed);
        }
        self.clock = Clock { paused: false, since: now, ..self.clock };
        Ok(self.record(Event::Resumed, None, now))
    }

    /// Ends the dispute from outside. Nothing happens if it has ended already: the first verdict stands.
    pub fn close(&mut self, closing: Closing, now: ServiceTime) -> Option<Entry> {
        if self.outcome().is_some() {
            return None;
        }
        let now = now.max(self.clock.since);
        self.end(Cause::Closed(closing), now);
        Some(self.record(Event::Closed(closing), None, now))
    }

    /// What the coordinator has to do once the dispute has ended, in order; nothing while it is open.
    #[must_use]
    pub fn effects(&self) -> Vec<Effect> {
        let Some(outcome) = self.outcome() else { return Vec::new() };
        let (claim, worker, challenger) = (self.open.claim, self.worker, self.open.challenger);
        match (outcome.verdict, outcome.cause) {
            (Verdict::ChallengerWins, _) => vec![
                Effect::RejectClaim { claim, prover: challenger },
                Effect::CloseOthersOnClaim { claim, closing: Closing::ClaimRejected { by: Some(self.id) } },
                Effect::SuspendWorker { worker },
                Effect::ReturnBondIfIdle { challenger, worker },
            ],
            (Verdict::WorkerWins, Cause::Closed(_)) => Vec::new(),
            (Verdict::WorkerWins, _) => vec![
                Effect::ForfeitBond { challenger, worker },
                Effect::CloseOthersOfPair { challenger, worker, closing: Closing::BondLost { by: self.id } },
            ],
            (Verdict::Moot | Verdict::Void, _) => vec![Effect::ReturnBondIfIdle { challenger, worker }],
        }
    }
}

/// What readers may know.
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
        let commitments = Commitments::of_layer(*case, self.open.layer, &self.layer_ops);
        match &self.inner {
            None => commitments,
            Some(inner) => commitments.with_virtual(self.scope(), &inner.ops),
        }
    }

    /// The revealed commitments of the ops that the dispute is in; empty before they are revealed.
    fn ops(&self) -> &[TensorCommitment] {
        self.inner.as_ref().map_or(&self.layer_ops, |inner| &inner.ops)
    }

    fn place(&self, op: u32) -> OpPlace {
        OpPlace { layer: self.open.layer, scope: self.scope(), op }
    }
}

impl Stage {
    fn phase(&self) -> Phase {
        match self {
            Self::Ops => Phase::AwaitOps,
            Self::OpChoice => Phase::AwaitOpChoice,
            Self::Nodes { .. } => Phase::AwaitNodes,
            Self::NodeChoice { .. } => Phase::AwaitNodeChoice,
            Self::Chunk { .. } => Phase::AwaitChunk,
            Self::Element { .. } => Phase::AwaitElement,
            Self::Ended(_) => Phase::Ended,
        }
    }
}

/// How the log grows.
impl Dispute {
    fn record(&mut self, event: Event, signed_move: Option<SignedMove>, now: ServiceTime) -> Entry {
        let record = Record { dispute: self.id, seq: self.next_seq, previous: self.head, time: now, event };
        self.next_seq = self.next_seq.saturating_add(1);
        self.head = record.hash();
        Entry { record, signed_move }
    }

    fn end(&mut self, cause: Cause, now: ServiceTime) {
        if let Some(role) = self.turn() {
            self.clock = self.clock.charged(role, now);
        }
        self.stage = Stage::Ended(Outcome::new(cause, now));
    }

    /// Takes known reveals as long as the dispute waits for one.
    fn take_known(&mut self, case: &Case<'_>, reveals: &Reveals, now: ServiceTime, entries: &mut Vec<Entry>) {
        while let Some(known) = self.wanted().and_then(|key| reveals.get(&key)) {
            let Ok(next) = self.examine_reveal(case, &known.body) else { break };
            let digest = gainsay_commitment::Canonical::digest(&known.body);
            entries.push(self.advance_by(next, digest, SignedMove::Reveal(known.clone()), now));
        }
    }

    fn is_in_time(&self, now: ServiceTime) -> bool {
        self.check_clock(now).is_ok()
    }

    fn check_clock(&self, now: ServiceTime) -> Result<(), Refusal> {
        let role = self.turn().ok_or(Refusal::Ended)?;
        if self.clock.paused {
            return Err(Refusal::Paused);
        }
        if now < self.clock.since {
            return Err(Refusal::TimeReversed);
        }
        if self.clock.left_on_turn(role, now) == 0 { Err(Refusal::Late) } else { Ok(()) }
    }

    /// This dispute with another count of refusals, to compare states before and after a refusal.
    #[cfg(feature = "toy")]
    pub(crate) fn with_refusals(&self, refusals: u8) -> Self {
        Self { refusals, ..self.clone() }
    }

    /// What the worker showed at a place, as a body for comparison.
    fn known<'a>(reveals: &'a Reveals, key: &RevealKey) -> Option<&'a Reveal> {
        reveals.get(key).map(|known| &known.body)
    }
}
