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
mod view;

use gainsay_commitment::{
    ChainingValue, DisputeId, MoveHash, NodeAddress, NodeHash, PartyId, Signed, TensorCommitment,
};

pub use outcome::{Cause, Closing, Effect, Outcome, Verdict};
pub use record::{DisputeTerms, Entry, Event, Record};
pub use refusal::{MAX_REFUSALS_PER_TURN, Refusal};
pub use table::{Guard, MoveKind, Phase, TRANSITIONS, Transition, transition};
pub use view::{Position, Question};

use crate::{
    case::Case,
    moves::{Authentic, Open, Reveal, SignedMove},
    reveals::{RevealKey, Reveals},
    time::ServiceTime,
};
use clock::Clock;

/// Stands for the opener's commitment where that is withheld.
const WITHHELD: TensorCommitment = TensorCommitment::from_bytes([0; 32]);

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

    /// Lets the clocks run again. What became known during the pause is taken by [`advance`](Self::advance), as
    /// after any reveal in another dispute.
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

    /// The dispute as everybody may see it: while it is undecided, without what its opener says the layer should be. Who
    /// could read that could open a dispute with it and share in the conviction without having run the job. Moves do not
    /// depend on it.
    #[must_use]
    pub fn for_the_public(&self) -> Self {
        let mut shown = self.clone();
        if self.outcome().is_none() {
            shown.open.commitment = WITHHELD;
        }
        shown
    }

    /// What its opener says the layer should be; none where that is withheld.
    #[must_use]
    pub fn challenger_commitment(&self) -> Option<TensorCommitment> {
        Some(self.open.commitment).filter(|commitment| *commitment != WITHHELD)
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
