//! One dispute from its opening to its end.

use gainsay_commitment::TensorCommitment;

use super::{
    fixture::Fixture,
    players::{Credentials, Play, Player},
    random::Random,
};
use crate::{
    case::Case,
    dispute::{Dispute, DisputeTerms, Entry, Outcome, Refusal},
    ids::Role,
    moves::{Authentic, Open, SignedMove},
    reveals::Reveals,
    time::ServiceTime,
};

/// Times and rules of play.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GameOptions {
    /// What the dispute is opened with.
    pub terms: DisputeTerms,
    /// When it is opened.
    pub start: ServiceTime,
    /// Whether signatures are verified.
    pub verify: bool,
}

impl Default for GameOptions {
    /// A minute each, no signatures.
    fn default() -> Self {
        let terms = DisputeTerms {
            window_closes: ServiceTime(10_000),
            worker_allowance_ms: 60_000,
            challenger_allowance_ms: 60_000,
        };
        Self { terms, start: ServiceTime(1_000), verify: false }
    }
}

/// A game that was played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Game {
    /// The dispute as it ended.
    pub dispute: Dispute,
    /// How it ended.
    pub outcome: Outcome,
    /// Its log.
    pub entries: Vec<Entry>,
    /// Moves that were refused.
    pub refusals: Vec<Refusal>,
}

/// How often a player may try one turn before it is taken to have nothing to say.
const MAX_TRIES: u32 = 12;

/// Plays a dispute about one layer of a fixture's claim, with `own` as the challenger's commitment.
///
/// # Errors
/// The opening is refused.
///
/// # Panics
/// A rule of the game was broken: a refusal changed the dispute, or the game does not end.
#[expect(
    clippy::too_many_arguments,
    reason = "a game has two players, a subject, a stake, and its surroundings"
)]
pub fn play(
    fixture: &Fixture,
    layer: u32,
    own: TensorCommitment,
    challenger: &Credentials,
    players: (&mut dyn Player, &mut dyn Player),
    reveals: &mut Reveals,
    options: &GameOptions,
    random: &mut Random,
) -> Result<Game, Refusal> {
    let case = fixture.case();
    let open = Open { claim: case.claim_id(), challenger: challenger.id(), layer, commitment: own };
    let opening = authentic(challenger.sign(open).into(), options);
    let (dispute, entries) = Dispute::open(&case, reveals, &opening, options.terms, options.start)?;
    let mut table = Table { case, reveals, dispute, entries, refusals: Vec::new(), now: options.start };
    let (worker, challenger) = players;
    while let Some(role) = table.dispute.turn() {
        assert!(table.dispute.next_seq() < 200, "the game does not end");
        let player: &mut dyn Player = match role {
            Role::Worker => &mut *worker,
            Role::Challenger => &mut *challenger,
        };
        table.turn(player, options, random);
    }
    let Table { dispute, entries, refusals, .. } = table;
    let outcome = dispute.outcome().expect("it is nobody's turn only once the dispute has ended");
    Ok(Game { dispute, outcome, entries, refusals })
}

fn authentic(made: SignedMove, options: &GameOptions) -> Authentic {
    if options.verify {
        made.authenticate().expect("players sign what they send")
    } else {
        Authentic::trusted(made)
    }
}

struct Table<'a, 'b> {
    case: Case<'a>,
    reveals: &'b mut Reveals,
    dispute: Dispute,
    entries: Vec<Entry>,
    refusals: Vec<Refusal>,
    now: ServiceTime,
}

impl Table<'_, '_> {
    /// Lets a player try until a move is made, its time is up, or it falls silent.
    fn turn(&mut self, player: &mut dyn Player, options: &GameOptions, random: &mut Random) {
        for _ in 0..MAX_TRIES {
            let Play::Move(made, delay) = player.play(&self.dispute, &self.case, random) else { break };
            self.now = self.now.plus(delay);
            let before = self.dispute.clone();
            let made = authentic(*made, options);
            match self.dispute.apply(&self.case, self.reveals, &made, self.now) {
                Ok(entries) => {
                    self.entries.extend(entries);
                    return;
                }
                Err(refusal) => {
                    check_unchanged(&before, &self.dispute, refusal);
                    self.refusals.push(refusal);
                    if refusal == Refusal::Late {
                        break;
                    }
                }
            }
        }
        self.expire();
    }

    fn expire(&mut self) {
        let deadline = self.dispute.deadline().expect("somebody is on turn, and no clock stands");
        assert_eq!(self.dispute.timeout(ServiceTime(deadline.0 - 1)), None, "a clock ran out early");
        self.now = self.now.max(deadline);
        self.entries.extend(self.dispute.timeout(self.now));
        assert!(self.dispute.outcome().is_some(), "a clock ran out and nothing happened");
    }
}

/// A refusal leaves everything as it was, but for the count of refusals.
fn check_unchanged(before: &Dispute, after: &Dispute, refusal: Refusal) {
    let counted = before.refusals() + u8::from(refusal.counts());
    assert_eq!(after.refusals(), counted, "{refusal}");
    assert_eq!(before.with_refusals(counted), *after, "a refused move changed the dispute: {refusal}");
}
