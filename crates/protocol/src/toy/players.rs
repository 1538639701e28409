//! Who plays: honest parties, and honest parties with a twist.

use gainsay_commitment::{Canonical, ChainingValue, PartyId, SecretKey, Signature, Signed, TensorCommitment};

use super::random::Random;
use crate::{
    case::Case,
    dispute::Dispute,
    moves::{Action, Choice, Reveal, RevealContent, SignedMove},
    strategy::{ChallengerStep, TraceSource, WorkerStep, challenger_next, worker_next},
    witness::{Witness, WitnessRun},
};

/// How a player signs: with a key, or, where nobody verifies, with a name alone.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Signs.
    Key(SecretKey),
    /// Puts zeros where the signature belongs.
    Name(PartyId),
}

impl Credentials {
    /// The party.
    #[must_use]
    pub fn id(&self) -> PartyId {
        match self {
            Self::Key(key) => key.id(),
            Self::Name(id) => *id,
        }
    }

    /// Signs a message.
    #[must_use]
    pub fn sign<T: Canonical>(&self, body: T) -> Signed<T> {
        match self {
            Self::Key(key) => Signed::sign(body, key),
            Self::Name(signer) => Signed { body, signer: *signer, signature: Signature::from_bytes([0; 64]) },
        }
    }
}

/// What a player does on its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Play {
    /// Moves, this many milliseconds after the last record.
    Move(Box<SignedMove>, u64),
    /// Lets its clock run out.
    Silence,
}

/// One side of a game. Asked again after a refusal.
pub trait Player {
    /// What to do now that it is this player's turn.
    fn play(&mut self, dispute: &Dispute, case: &Case<'_>, random: &mut Random) -> Play;
}

/// The longest that an honest player thinks about a move, in milliseconds.
const HONEST_THINKING_MS: u64 = 500;

/// A worker that plays [`worker_next`] from a trace.
#[derive(Debug, Clone)]
pub struct HonestWorker<T> {
    /// Who signs.
    pub credentials: Credentials,
    /// The run that it claimed.
    pub trace: T,
}

impl<T: TraceSource> Player for HonestWorker<T> {
    fn play(&mut self, dispute: &Dispute, case: &Case<'_>, random: &mut Random) -> Play {
        match worker_next(dispute, case, &mut self.trace) {
            Ok(WorkerStep::Reveal(reveal)) => {
                let made = self.credentials.sign(reveal).into();
                Play::Move(Box::new(made), random.below(HONEST_THINKING_MS))
            }
            Ok(WorkerStep::Wait | WorkerStep::Over(_)) | Err(_) => Play::Silence,
        }
    }
}

/// A challenger that plays [`challenger_next`] from a trace.
#[derive(Debug, Clone)]
pub struct HonestChallenger<T> {
    /// Who signs.
    pub credentials: Credentials,
    /// Its own run.
    pub trace: T,
}

impl<T: TraceSource> Player for HonestChallenger<T> {
    fn play(&mut self, dispute: &Dispute, case: &Case<'_>, random: &mut Random) -> Play {
        match challenger_next(dispute, case, &mut self.trace) {
            Ok(ChallengerStep::Choose(choice)) => {
                let made = self.credentials.sign(choice).into();
                Play::Move(Box::new(made), random.below(HONEST_THINKING_MS))
            }
            Ok(ChallengerStep::Wait | ChallengerStep::Over(_)) | Err(_) => Play::Silence,
        }
    }
}

/// How a worker departs from the honest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkerTwist {
    /// Goes silent with its `n`th move.
    SilentAt(u32),
    /// Moves when the clock has just run out.
    Late,
    /// Spends almost all of its allowance on its first move.
    Slow,
    /// Names another commitment for an op.
    OtherOps,
    /// Names one op too many or too few.
    OpCount,
    /// Shows another node.
    OtherNodes,
    /// Shows one node too few.
    FewerNodes,
    /// Shows another byte in the chunk.
    OtherChunk,
    /// Shows one byte of the chunk less.
    ShortChunk,
    /// Fills another place than the one asked for.
    OtherPlace,
}

impl WorkerTwist {
    /// Every twist.
    pub const ALL: [Self; 11] = [
        Self::SilentAt(1),
        Self::SilentAt(3),
        Self::Late,
        Self::Slow,
        Self::OtherOps,
        Self::OpCount,
        Self::OtherNodes,
        Self::FewerNodes,
        Self::OtherChunk,
        Self::ShortChunk,
        Self::OtherPlace,
    ];
}

/// A worker with a twist.
#[derive(Debug, Clone)]
pub struct TwistedWorker<T> {
    /// The honest code underneath.
    pub honest: HonestWorker<T>,
    /// The twist.
    pub twist: WorkerTwist,
    /// How often it was asked to move.
    pub asked: u32,
}

impl<T: TraceSource> Player for TwistedWorker<T> {
    fn play(&mut self, dispute: &Dispute, case: &Case<'_>, random: &mut Random) -> Play {
        self.asked += 1;
        let Play::Move(made, delay) = self.honest.play(dispute, case, random) else { return Play::Silence };
        let SignedMove::Reveal(Signed { body: reveal, .. }) = *made else { return Play::Silence };
        let allowance = dispute.terms().worker_allowance_ms;
        let (delay, reveal) = match self.twist {
            WorkerTwist::SilentAt(n) if self.asked >= n => return Play::Silence,
            WorkerTwist::Late => (allowance, reveal),
            WorkerTwist::Slow if self.asked == 1 => (allowance - allowance / 20, reveal),
            twist => (delay, twisted_reveal(reveal, twist, random)),
        };
        Play::Move(Box::new(self.honest.credentials.sign(reveal).into()), delay)
    }
}

fn twisted_reveal(mut reveal: Reveal, twist: WorkerTwist, random: &mut Random) -> Reveal {
    match (twist, &mut reveal.content) {
        (WorkerTwist::OtherOps, RevealContent::Ops { commitments }) => {
            let index = random.below(commitments.len() as u64) as usize;
            commitments[index] = TensorCommitment::from_bytes(random.bytes());
        }
        (WorkerTwist::OpCount, RevealContent::Ops { commitments }) => {
            if random.happens(50) {
                commitments.remove(0);
            } else {
                commitments.insert(0, TensorCommitment::from_bytes(random.bytes()));
            }
        }
        (WorkerTwist::OtherNodes, RevealContent::Nodes { children, .. }) => {
            let index = random.below(children.len() as u64) as usize;
            children[index] = random.bytes().into();
        }
        (WorkerTwist::FewerNodes, RevealContent::Nodes { children, .. }) => {
            children.pop();
        }
        (WorkerTwist::OtherChunk, RevealContent::Chunk { bytes, .. }) => {
            let index = random.below(bytes.len() as u64) as usize;
            bytes[index] ^= 1;
        }
        (WorkerTwist::ShortChunk, RevealContent::Chunk { bytes, .. }) => {
            bytes.pop();
        }
        (WorkerTwist::OtherPlace, _) => reveal.layer ^= 1,
        _ => {}
    }
    reveal
}

/// How a challenger departs from the honest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChallengerTwist {
    /// Goes silent with its `n`th move.
    SilentAt(u32),
    /// Moves when the clock has just run out.
    Late,
    /// Chooses at random, and proves with a true witness what it has ended up with.
    Wander,
    /// Wanders, and proves with a witness that lacks a chunk.
    DropChunk,
    /// Wanders, and proves with a witness in which a byte is changed.
    ForgeChunk,
    /// Wanders, and proves with a witness that holds a chunk too many.
    ExtraChunk,
    /// Wanders, and proves with a witness whose path is changed.
    ForgePath,
    /// Wanders, and passes chunks of one tensor off as another's.
    OtherTensor,
    /// Wanders, and proves with nothing.
    EmptyWitness,
    /// Chooses what does not exist.
    OutOfRange,
    /// Signs for another position.
    Stale,
}

impl ChallengerTwist {
    /// Every twist.
    pub const ALL: [Self; 12] = [
        Self::SilentAt(1),
        Self::SilentAt(3),
        Self::Late,
        Self::Wander,
        Self::DropChunk,
        Self::ForgeChunk,
        Self::ExtraChunk,
        Self::ForgePath,
        Self::OtherTensor,
        Self::EmptyWitness,
        Self::OutOfRange,
        Self::Stale,
    ];
}

/// A challenger without a case, or with a bad one. Its trace provides the witnesses.
#[derive(Debug, Clone)]
pub struct TwistedChallenger<T> {
    /// Who signs.
    pub credentials: Credentials,
    /// The run from which it takes witnesses.
    pub trace: T,
    /// The twist.
    pub twist: ChallengerTwist,
    /// How often it was asked to move.
    pub asked: u32,
}

impl<T: TraceSource> Player for TwistedChallenger<T> {
    fn play(&mut self, dispute: &Dispute, case: &Case<'_>, random: &mut Random) -> Play {
        self.asked += 1;
        let delay = match self.twist {
            ChallengerTwist::SilentAt(n) if self.asked >= n => return Play::Silence,
            ChallengerTwist::Late => dispute.terms().challenger_allowance_ms,
            _ => random.below(HONEST_THINKING_MS),
        };
        let Some(action) = self.wander(dispute, case, random) else { return Play::Silence };
        let action = twisted_action(action, self.twist, random);
        let stale = u64::from(self.twist == ChallengerTwist::Stale);
        let (seq, previous) = (dispute.next_seq() + stale, dispute.head());
        let choice = Choice { dispute: dispute.id(), seq, previous, action };
        Play::Move(Box::new(self.credentials.sign(choice).into()), delay)
    }
}

impl<T: TraceSource> TwistedChallenger<T> {
    /// Some legal choice.
    fn wander(&mut self, dispute: &Dispute, case: &Case<'_>, random: &mut Random) -> Option<Action> {
        use crate::dispute::Question;
        match dispute.question()? {
            Question::Op { commitments } => {
                Some(Action::ChooseOp { op: random.below(commitments.len() as u64) as u32 })
            }
            Question::Node { children, .. } => {
                Some(Action::ChooseNode { child: random.below(children.len() as u64) as u32 })
            }
            Question::Element { place, chunk, bytes } => {
                let element = chunk * 256 + random.below(bytes.len() as u64 / 4);
                let in_layer = dispute.scope() == gainsay_program::Scope::Layer;
                if in_layer && case.model().is_expanded(case.input(), place.layer, place.op, element) {
                    return Some(Action::ChooseElement { element });
                }
                let built = crate::strategy::build_witness(case, &mut self.trace, place, element);
                built.ok().map(|(_, witness)| Action::Prove { element, witness })
            }
        }
    }
}

fn twisted_action(action: Action, twist: ChallengerTwist, random: &mut Random) -> Action {
    if twist == ChallengerTwist::OutOfRange {
        return out_of_range(action);
    }
    let Action::Prove { element, witness } = action else { return action };
    let mut chunks = witness.runs().to_vec();
    let index = random.below(chunks.len() as u64) as usize;
    match (twist, chunks.get_mut(index)) {
        (ChallengerTwist::DropChunk, Some(_)) => {
            chunks.remove(index);
        }
        (ChallengerTwist::ForgeChunk, Some(chunk)) => {
            let byte = random.below(chunk.opening.bytes.len() as u64) as usize;
            chunk.opening.bytes[byte] ^= 0x80;
        }
        (ChallengerTwist::ForgePath, Some(chunk)) => {
            let shorter = chunk.opening.path.pop().is_some();
            chunk.opening.path.extend((!shorter).then(|| ChainingValue::from_bytes(random.bytes())));
        }
        (ChallengerTwist::ExtraChunk, Some(_)) => chunks.push(extra_chunk(&chunks)),
        (ChallengerTwist::OtherTensor, Some(chunk)) => {
            chunk.tensor = gainsay_program::TensorRef::Weight(random.below(8) as u32);
        }
        (ChallengerTwist::EmptyWitness, _) => chunks.clear(),
        _ => {}
    }
    chunks.sort_by_key(|chunk| (chunk.tensor, chunk.opening.chunk));
    chunks.dedup_by_key(|chunk| (chunk.tensor, chunk.opening.chunk));
    Action::Prove { element, witness: Witness::new(chunks).unwrap_or_default() }
}

/// A chunk beyond the last: of a tensor that exists, at a place that does not.
fn extra_chunk(chunks: &[WitnessRun]) -> WitnessRun {
    let mut extra = chunks[chunks.len() - 1].clone();
    extra.opening.chunk = extra.opening.chunks().map_or(u64::MAX, |run| run.end + 1);
    extra
}

fn out_of_range(action: Action) -> Action {
    match action {
        Action::ChooseOp { .. } => Action::ChooseOp { op: u32::MAX },
        Action::ChooseNode { .. } => Action::ChooseNode { child: 64 },
        Action::ChooseElement { .. } => Action::ChooseElement { element: u64::MAX },
        Action::Prove { witness, .. } => Action::Prove { element: u64::MAX / 4, witness },
    }
}
