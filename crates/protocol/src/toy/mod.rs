//! Toy claims, a zoo of adversaries, and a coordinator in memory.
//!
//! Everything runs on the reference executor over tiny models, so a whole game takes microseconds. Adversaries
//! are the honest code with one divergence: a tampered run, a lying trace, a twisted move.

mod court;
mod fixture;
mod game;
mod generation;
mod players;
mod random;
mod run;
pub mod zoo;

pub use court::{Balance, Court, CourtError, Standing};
pub use fixture::{Fault, Fixture, FixtureBuilder};
pub use game::{Game, GameOptions, play};
pub use generation::GenerationBuilder;
pub use players::{
    ChallengerTwist, Credentials, HonestChallenger, HonestWorker, Play, Player, TwistedChallenger,
    TwistedWorker, WorkerTwist,
};
pub use random::Random;
pub use run::{LyingRun, ToyModel, ToyRun};
