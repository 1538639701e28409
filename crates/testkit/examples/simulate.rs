//! Plays whole markets in virtual time, as many as you like, and says what happened in them.
//!
//! `cargo run --release -p gainsay-testkit --example simulate -- [games] [seed]`, or with `game SEED` for one game that
//! a failure has named. The exit status is 1 if a promise was broken.

use std::process::ExitCode;
use std::time::Instant;

use gainsay_testkit::simulator::{Pool, Tally, play, play_many};

/// Seed of the jobs that all games draw from.
const POOL_SEED: u64 = 1;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["game", seed] => number(seed).map(one),
        [] => Some(many(1_000_000, 1)),
        [games] => number(games).map(|games| many(games, 1)),
        [games, seed] => number(games).zip(number(seed)).map(|(games, seed)| many(games, seed)),
        _ => None,
    };
    done.unwrap_or_else(|| {
        eprintln!("usage: simulate [games] [seed] | simulate game SEED");
        ExitCode::FAILURE
    })
}

/// A number, in decimal or with 0x.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn one(seed: u64) -> ExitCode {
    report(play(&Pool::new(POOL_SEED), seed, None))
}

fn many(games: u64, seed: u64) -> ExitCode {
    println!("seed {seed}, {games} games");
    let pool = Pool::new(POOL_SEED);
    let started = Instant::now();
    let played = play_many(&pool, seed, games, None);
    let seconds = started.elapsed().as_secs_f64();
    println!("{seconds:.1} s, {:.0} games/s", games as f64 / seconds);
    report(played)
}

fn report(played: Result<Tally, Box<gainsay_testkit::simulator::Failure>>) -> ExitCode {
    match played {
        Ok(tally) => {
            print!("{tally}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}
