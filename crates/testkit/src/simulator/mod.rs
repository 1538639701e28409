//! Whole markets in virtual time: a coordinator, workers, challengers and submitters, honest ones and others, over a
//! network that loses, delays, doubles and replays what they say.
//!
//! What is played is what runs in production: the rules, strategies, postings and life cycles of `gainsay-protocol`.
//! Only what stands around them is replaced, the database by vectors and the wire by a queue of events. Parties crash
//! and come back: a worker with the claims that it stored, a challenger with nothing but its key. The coordinator goes
//! away for longer than a window; service time stands meanwhile.
//!
//! After every step `invariants` holds what must always be true against what is. At the end every balance is derived
//! once more, from what happened instead of from what was posted, and every job must have been decided in time.
//!
//! Faults that honest parties suffer are bounded, so that they can always move in time; what is promised to honest
//! parties that move in time can therefore be demanded of every game. Some honest parties suffer more than that:
//! of those nothing is demanded but that the money adds up.
//!
//! One number makes a game, and makes it again: [`play`] of the same seed is the same game.

mod audit;
mod broken;
mod challenger;
mod invariants;
mod money;
mod network;
mod pool;
mod scenario;
mod service;
mod tally;
mod views;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

pub use broken::Broken;
pub use pool::Pool;
pub use tally::Tally;

/// A promise that a game broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("game {seed:#018x}: {what}\n{trace}")]
pub struct Failure {
    /// The seed of the game: it alone plays it again.
    pub seed: u64,
    /// What was broken.
    pub what: String,
    /// The last things that happened.
    pub trace: String,
}

/// Lines of a trace that a failure shows.
const TRACE_LINES: usize = 60;

/// Plays the game of this seed, with one rule broken or none.
///
/// # Errors
/// A promise was broken; the failure tells what led to it.
pub fn play(pool: &Pool, seed: u64, broken: Option<Broken>) -> Result<Tally, Box<Failure>> {
    let quietly = attempt(pool, seed, broken, false);
    if quietly.is_ok() {
        return quietly.map_err(|_| unreachable!("it is not an error"));
    }
    // The same game again, this time with a pen in hand.
    let (what, lines) = match attempt(pool, seed, broken, true) {
        Ok(_) => {
            ("the game went wrong, and not again: it depends on more than its seed".to_owned(), Vec::new())
        }
        Err(failed) => failed,
    };
    let trace = lines[lines.len().saturating_sub(TRACE_LINES)..].join("\n");
    Err(Box::new(Failure { seed, what, trace }))
}

type Attempt = Result<Tally, (String, Vec<String>)>;

fn attempt(pool: &Pool, seed: u64, broken: Option<Broken>, traced: bool) -> Attempt {
    let mut world = world::World::new(pool, seed, broken, traced);
    let played = catch_unwind(AssertUnwindSafe(|| world.run()));
    let what = match played {
        Ok(Ok(tally)) => return Ok(tally),
        Ok(Err(what)) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            format!("a rule panicked: {}", text.unwrap_or_default())
        }
    };
    Err((what, world.into_trace()))
}

/// The seed of one game of a run.
#[must_use]
pub fn seed_of_game(seed: u64, game: u64) -> u64 {
    gainsay_protocol::toy::Random::new(seed ^ game.wrapping_mul(0x9e37_79b9_7f4a_7c15)).draw()
}

/// Plays `games` games on all cores.
///
/// # Errors
/// The first failure that was found.
pub fn play_many(pool: &Pool, seed: u64, games: u64, broken: Option<Broken>) -> Result<Tally, Box<Failure>> {
    let next = AtomicU64::new(0);
    let work = || -> Result<Tally, Box<Failure>> {
        let mut tally = Tally::default();
        loop {
            let game = next.fetch_add(1, Ordering::Relaxed);
            if game >= games {
                return Ok(tally);
            }
            match play(pool, seed_of_game(seed, game), broken) {
                Ok(played) => tally.add(&played),
                Err(failure) => {
                    next.store(games, Ordering::Relaxed);
                    return Err(failure);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut tally = Tally::default();
        for worker in workers {
            tally.add(&worker.join().expect("a failing game is an error, not a panic")?);
        }
        Ok(tally)
    })
}
