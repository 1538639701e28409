//! Randomness that a failed run can be given again.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

/// Replays the draws of a run: which process is hit, when, for how long. What the processes do meanwhile is theirs.
const SEED_VARIABLE: &str = "GAINSAY_CRASH_SEED";

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub(crate) struct Draw(Mutex<u64>);

impl Draw {
    /// Takes the seed from the environment, or the time; prints it.
    pub(crate) fn new(scenario: &str) -> Draw {
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED_VARIABLE}={text:?} is no number")),
            Err(_) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
                now.as_nanos() as u64
            }
        };
        println!("{scenario}: {SEED_VARIABLE}={seed}");
        Draw(Mutex::new(seed))
    }

    fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
