//! A hundred thousand markets in virtual time, and the proof that the simulator would notice a broken rule.

use gainsay_testkit::simulator::{Broken, Pool, play, play_many, seed_of_game};

/// Seed of the jobs, and of the games that every build plays.
const SEED: u64 = 1;
const GAMES: u64 = 100_000;
/// Games in which a broken rule must have shown.
const ENOUGH_TO_NOTICE: u64 = 5_000;

/// What a run must have come across, or it has not shown much.
const ENCOUNTERED: [&str; 22] = [
    "claims false and rejected",
    "claims rejected: equivocation",
    "claims right and final",
    "crashes",
    "disputes lost by proof",
    "disputes lost by the challenger's silence",
    "disputes lost with the bond",
    "disputes moot",
    "disputes won by proof",
    "disputes won by the worker's silence",
    "jobs done",
    "jobs refunded",
    "leases lost",
    "leases run out",
    "messages doubled",
    "messages lost",
    "messages lost in outages",
    "messages replayed",
    "moves refused",
    "openings refused",
    "outages longer than a window",
    "reveals shared",
];

#[test]
fn every_promise_holds_in_a_hundred_thousand_games() {
    let tally = play_many(&Pool::new(SEED), SEED, GAMES, None).unwrap_or_else(|failure| panic!("{failure}"));
    println!("seed {SEED}\n{tally}");
    for what in ENCOUNTERED {
        assert!(tally.of(what) >= 100, "{what}: only {} times in {GAMES} games\n{tally}", tally.of(what));
    }
}

#[test]
fn the_seed_alone_makes_a_game() {
    let pool = Pool::new(SEED);
    for game in 0..50 {
        let seed = seed_of_game(SEED, game);
        assert_eq!(play(&pool, seed, None), play(&pool, seed, None), "{seed:#x}");
    }
    let broken = Broken::PaysBeforeTheWindowEnds;
    let failure = play_many(&pool, SEED, ENOUGH_TO_NOTICE, Some(broken)).expect_err("it shows");
    assert_eq!(play(&pool, failure.seed, Some(broken)), Err(failure.clone()), "the named game fails again");
    assert!(failure.to_string().contains(&format!("{:#018x}", failure.seed)), "{failure}");
    assert!(failure.trace.lines().count() > 3, "{failure}");
    assert_eq!(
        play(&pool, failure.seed, None).map(|_| ()),
        Ok(()),
        "it fails for nothing but the broken rule"
    );
}

#[test]
fn every_broken_rule_is_noticed() {
    let pool = Pool::new(SEED);
    for broken in Broken::ALL {
        let noticed = play_many(&pool, SEED, ENOUGH_TO_NOTICE, Some(broken));
        let failure = noticed.err().unwrap_or_else(|| panic!("{broken:?}: nobody noticed"));
        println!("{broken:?}: {}", failure.what);
    }
}
