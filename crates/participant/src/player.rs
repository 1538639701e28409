//! Playing disputes: fetch, ask the strategy, sign, send, until it is the other side's turn.
//!
//! A player keeps nothing that matters: moves follow from the dispute as the coordinator has it and from the party's
//! own run, which can be made again. Sending the same move twice is harmless.

use crate::ParticipantError;
use crate::dossier::Dossier;
use crate::models::ModelStore;
use crate::trace::EngineTrace;
use gainsay_api::client::Client;
use gainsay_api::disputes::{DisputeFilter, DisputeState, DisputeSummary, DisputeView, Side, Verdict};
use gainsay_api::error::ErrorCode;
use gainsay_commitment::{Canonical, ClaimId, DisputeId, SecretKey, Signed};
use gainsay_protocol::strategy::{ChallengerStep, StrategyError, WorkerStep, challenger_next, worker_next};
use gainsay_protocol::{Dispute, SignedMove};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Claims whose runs a player keeps at hand. Many may be disputed at once, and each that is not at hand when its turn
/// comes is run again while its clock runs.
const HANDS: usize = 1024;
/// Bytes of outputs and tensors that they hold together (but never less than the newest).
const HANDS_BYTES: usize = 2 << 30;
/// Moves of one side in one dispute, far beyond what any game takes: a stop for a coordinator gone astray.
const MAX_MOVES: u32 = 1_000;

/// A claim under dispute, and this party's own run of it.
pub struct Hand {
    /// The claim.
    pub dossier: Dossier,
    /// The run, honest or not. Held only while a move is computed, off the async threads.
    trace: Mutex<EngineTrace>,
    /// What the trace held after the last move.
    trace_bytes: AtomicUsize,
}

impl Hand {
    /// A hand that plays from `trace`.
    #[must_use]
    pub fn new(dossier: Dossier, trace: EngineTrace) -> Arc<Self> {
        Arc::new(Self { dossier, trace: Mutex::new(trace), trace_bytes: AtomicUsize::new(0) })
    }

    /// A hand that plays from an honest run.
    #[must_use]
    pub fn honest(dossier: Dossier) -> Arc<Self> {
        let trace = EngineTrace::new(dossier.model.clone(), dossier.input().clone(), None);
        Self::new(dossier, trace)
    }

    /// Runs `compute` with the claim and the run on a thread for long computations.
    ///
    /// # Errors
    /// [`ParticipantError::Panicked`].
    pub async fn compute<T: Send + 'static>(
        self: &Arc<Self>,
        compute: impl FnOnce(&Dossier, &mut EngineTrace) -> T + Send + 'static,
    ) -> Result<T, ParticipantError> {
        let hand = self.clone();
        let computed = tokio::task::spawn_blocking(move || {
            // What a panic left is a cache with some tensors fewer.
            let mut trace = hand.trace.lock().unwrap_or_else(PoisonError::into_inner);
            let computed = compute(&hand.dossier, &mut trace);
            hand.trace_bytes.store(trace.held_bytes(), Ordering::Relaxed);
            computed
        });
        computed.await.map_err(|_| ParticipantError::Panicked("a strategy"))
    }

    fn bytes(&self) -> usize {
        self.dossier.claim.output.len() + self.trace_bytes.load(Ordering::Relaxed)
    }
}

/// The hands that were played last.
#[derive(Default)]
pub struct Hands {
    held: VecDeque<Arc<Hand>>,
}

impl Hands {
    /// Has these hands give up what they can whenever the models that they keep loaded are in the way of others. What
    /// is let go is run again when its turn comes.
    pub fn let_go_when_short(hands: &Arc<Mutex<Self>>, models: &ModelStore) {
        let hands = Arc::downgrade(hands);
        models.when_short(move || {
            if let Some(hands) = hands.upgrade() {
                let is_played = |hand: &Arc<Hand>| Arc::strong_count(hand) > 1;
                hands.lock().expect("no holder of the hands panics").held.retain(is_played);
            }
        });
    }

    /// A hand that is still held.
    pub fn get(&mut self, claim: ClaimId) -> Option<Arc<Hand>> {
        let at = self.held.iter().position(|hand| hand.dossier.id() == claim)?;
        let hand = self.held.remove(at)?;
        self.held.push_back(hand.clone());
        self.let_go();
        Some(hand)
    }

    /// Takes a hand, and lets go of those that were not played for longest if there are too many or too much.
    pub fn put(&mut self, hand: Arc<Hand>) {
        self.held.retain(|held| held.dossier.id() != hand.dossier.id());
        self.held.push_back(hand);
        self.let_go();
    }

    fn let_go(&mut self) {
        let mut bytes: usize = self.held.iter().map(|hand| hand.bytes()).sum();
        while self.held.len() > HANDS || (self.held.len() > 1 && bytes > HANDS_BYTES) {
            bytes = bytes.saturating_sub(self.held.pop_front().map_or(0, |hand| hand.bytes()));
        }
    }
}

/// How far a dispute was played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Played {
    /// Moves made.
    pub moves: u32,
    /// The verdict, if there is one.
    pub verdict: Option<Verdict>,
}

/// One side of disputes.
#[derive(Clone)]
pub struct Player {
    client: Client,
    key: SecretKey,
    side: Side,
}

impl Player {
    /// The player of `side` for the party that `key` is.
    #[must_use]
    pub fn new(client: Client, key: SecretKey, side: Side) -> Self {
        Self { client, key, side }
    }

    /// The party's open disputes in which it is this side's turn, the one with the least time left first.
    ///
    /// # Errors
    /// The coordinator does not answer.
    pub async fn on_turn(&self) -> Result<Vec<DisputeSummary>, ParticipantError> {
        let mut filter = DisputeFilter {
            state: Some(DisputeState::Open),
            party: Some(self.key.id()),
            ..DisputeFilter::default()
        };
        let mut on_turn = Vec::new();
        loop {
            let page = self.client.disputes(&filter).await?;
            filter.after = page.disputes.last().map(|dispute| dispute.id);
            let more = page.more && filter.after.is_some();
            on_turn.extend(page.disputes.into_iter().filter(|dispute| self.is_ours(dispute)));
            if !more {
                break;
            }
        }
        on_turn.sort_by_key(|dispute| match self.side {
            Side::Worker => dispute.worker_clock_ms,
            Side::Challenger => dispute.challenger_clock_ms,
        });
        Ok(on_turn)
    }

    fn is_ours(&self, dispute: &DisputeSummary) -> bool {
        let party = match self.side {
            Side::Worker => dispute.worker.id,
            Side::Challenger => dispute.challenger.id,
        };
        party == self.key.id() && dispute.turn == Some(self.side)
    }

    /// Makes moves in a dispute for as long as it is this side's turn.
    ///
    /// # Errors
    /// The strategy has no move, or the coordinator refuses one or does not answer.
    pub async fn play(&self, hand: &Arc<Hand>, id: DisputeId) -> Result<Played, ParticipantError> {
        let view = self.client.dispute(id).await?;
        self.play_from(hand, view).await
    }

    /// [`Player::play`] from a dispute that was just read.
    ///
    /// # Errors
    /// As [`Player::play`].
    pub async fn play_from(&self, hand: &Arc<Hand>, view: DisputeView) -> Result<Played, ParticipantError> {
        let mut view = view;
        let (mut moves, mut refusals) = (0, 0);
        while moves < MAX_MOVES {
            let id = view.summary.id;
            let Some(next) = self.next_move(hand, &view).await? else {
                return Ok(Played { moves, verdict: view.summary.decision.map(|decision| decision.verdict) });
            };
            let kind = next.kind();
            match self.client.post_move(&self.key, id, next.to_bytes()).await {
                Ok(after) => {
                    moves += 1;
                    tracing::info!(dispute = %id, claim = %view.summary.claim, ?kind, sequence = view.summary.move_count, "moved");
                    view = after;
                }
                // The dispute moved on meanwhile: a reveal was taken from another dispute, say, or it was decided.
                Err(error) if has_moved_on(error.code()) && refusals < 3 => {
                    refusals += 1;
                    tracing::debug!(dispute = %id, ?kind, %error, "the dispute has moved on; looking again");
                    view = self.client.dispute(id).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let reason = format!("it took {MAX_MOVES} moves of one side and is not over");
        Err(ParticipantError::Dispute { dispute: view.summary.id, reason })
    }

    /// The next move, signed; `None` where it is not this side's turn.
    async fn next_move(
        &self,
        hand: &Arc<Hand>,
        view: &DisputeView,
    ) -> Result<Option<SignedMove>, ParticipantError> {
        let id = view.summary.id;
        let dispute = Dispute::from_bytes(&view.encoded.0)
            .map_err(|error| ParticipantError::Dispute { dispute: id, reason: error.to_string() })?;
        if dispute.id() != id || dispute.claim() != hand.dossier.id() {
            let reason = "it is another dispute, or about another claim".to_owned();
            return Err(ParticipantError::Dispute { dispute: id, reason });
        }
        let (key, side) = (self.key.clone(), self.side);
        let next =
            hand.compute(move |dossier, trace| next_step(&dispute, dossier, trace, &key, side)).await?;
        next.map_err(|source| ParticipantError::Strategy { dispute: id, source: Box::new(source) })
    }
}

fn next_step(
    dispute: &Dispute,
    dossier: &Dossier,
    trace: &mut EngineTrace,
    key: &SecretKey,
    side: Side,
) -> Result<Option<SignedMove>, StrategyError> {
    let case = dossier.case();
    Ok(match side {
        Side::Worker => match worker_next(dispute, &case, trace)? {
            WorkerStep::Reveal(reveal) => Some(Signed::sign(reveal, key).into()),
            WorkerStep::Wait | WorkerStep::Over(_) => None,
        },
        Side::Challenger => match challenger_next(dispute, &case, trace)? {
            ChallengerStep::Choose(choice) => Some(Signed::sign(choice, key).into()),
            ChallengerStep::Wait | ChallengerStep::Over(_) => None,
        },
    })
}

fn has_moved_on(code: Option<ErrorCode>) -> bool {
    matches!(code, Some(ErrorCode::StaleMove | ErrorCode::WrongTurn | ErrorCode::DisputeOver))
}
