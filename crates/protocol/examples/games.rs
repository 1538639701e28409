//! Plays disputes by the million and checks what the protocol promises of each.
//!
//! `cargo run --release -p gainsay-protocol --features toy --example games -- [games] [seed]`
//!
//! Every game draws a claim, true or false, and a player for each side, of which at least one is honest. The
//! honest side must win; a refused move must change nothing (the table asserts that); money moved by the outcome
//! must sum to zero. The seed printed first reproduces the run; the exit status is 1 if a promise was broken.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use gainsay_commitment::PartyId;
use gainsay_program::Scope;
use gainsay_protocol::{
    Amount, Cause, OwnerId, Parameters, Reveals, Verdict,
    ledger::{self, Book, ConvictionPayout, Forfeit, Grounds},
    strategy::first_difference,
    toy::{
        ChallengerTwist, Credentials, Fault, Fixture, Game, GameOptions, HonestChallenger, HonestWorker,
        LyingRun, Player, Random, ToyRun, TwistedChallenger, TwistedWorker, WorkerTwist, play, zoo,
    },
};

/// False claims per model.
const FALSE_CLAIMS: u64 = 96;

/// Games that share a seed.
const BLOCK: u64 = 10_000;

const WORKER: OwnerId = OwnerId([1; 16]);
const CHALLENGER: OwnerId = OwnerId([2; 16]);
const SUBMITTER: OwnerId = OwnerId([3; 16]);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| match arguments.next() {
        None => Some(default),
        Some(text) => text.parse().ok(),
    };
    let (Some(games), Some(seed)) = (number(1_000_000), number(1)) else {
        eprintln!("usage: games [number of games] [seed]");
        return ExitCode::FAILURE;
    };
    println!("seed {seed}, {games} games");
    let mut random = Random::new(seed);
    let claims = Claims::new(&mut random);
    println!("{} true and {} false claims", claims.honest.len(), claims.cheating.len());

    let start = Instant::now();
    let tally = match claims.play_all(games, seed) {
        Ok(tally) => tally,
        Err(broken) => {
            println!("seed {seed}: {broken}");
            return ExitCode::FAILURE;
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    for (result, count) in &tally.results {
        println!("{count:>10}  {result}");
    }
    println!("{:>10}  moves made, {} refused", tally.moves, tally.refusals);
    println!("{seconds:.1} s, {:.0} games/s", games as f64 / seconds);
    ExitCode::SUCCESS
}

/// What there is to dispute.
struct Claims {
    honest: Vec<Fixture>,
    cheating: Vec<Fixture>,
}

#[derive(Default)]
struct Tally {
    results: BTreeMap<String, u64>,
    moves: u64,
    refusals: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        for (result, count) in other.results {
            *self.results.entry(result).or_default() += count;
        }
        self.moves += other.moves;
        self.refusals += other.refusals;
    }
}

impl Claims {
    fn new(random: &mut Random) -> Self {
        let (mut honest, mut cheating) = (Vec::new(), Vec::new());
        for builder in [zoo::small(), zoo::int8(), zoo::tiny()] {
            honest.push(builder.build(Fault::None, random.draw()));
            for _ in 0..FALSE_CLAIMS {
                let fixture = builder.build(builder.random_fault(random), random.draw());
                if fixture.is_true() { honest.push(fixture) } else { cheating.push(fixture) }
            }
        }
        Self { honest, cheating }
    }

    /// Plays games on all cores, in blocks that have their own seeds: the same ones on any machine.
    fn play_all(&self, games: u64, seed: u64) -> Result<Tally, String> {
        let next = AtomicU64::new(0);
        let work = || -> Result<Tally, String> {
            let mut tally = Tally::default();
            loop {
                let block = next.fetch_add(1, Ordering::Relaxed);
                let left = games.saturating_sub(block * BLOCK);
                if left == 0 {
                    return Ok(tally);
                }
                let mut random = Random::new(seed ^ (block + 1) << 32);
                for number in 0..left.min(BLOCK) {
                    let played = self.game(&mut random, &mut tally);
                    played.map_err(|broken| format!("game {number} of block {block}: {broken}"))?;
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let mut tally = Tally::default();
            for worker in workers {
                tally.add(worker.join().map_err(|_| "a rule of the table was broken")??);
            }
            Ok(tally)
        })
    }

    /// Plays one game, and says which promise it broke, if any.
    fn game(&self, random: &mut Random, tally: &mut Tally) -> Result<(), String> {
        let is_true = random.happens(50);
        let fixture = random.pick(if is_true { &self.honest } else { &self.cheating });
        let (game, who) = if is_true {
            against_a_true_claim(fixture, random)
        } else {
            against_a_false_claim(fixture, random)?
        };
        let promised = if is_true { Verdict::WorkerWins } else { Verdict::ChallengerWins };
        if game.outcome.verdict != promised {
            return Err(format!("{who}: {:?} where {promised} was promised", game.outcome));
        }
        settle(fixture, &game)?;
        let cause = match game.outcome.cause {
            Cause::Proof { place, .. } if place.scope != Scope::Layer => "proof in a virtual layer",
            other => other.name(),
        };
        *tally.results.entry(format!("{promised} by {cause}, {who}")).or_default() += 1;
        tally.moves += game.entries.len() as u64;
        tally.refusals += game.refusals.len() as u64;
        Ok(())
    }
}

fn challenger() -> Credentials {
    Credentials::Name(PartyId::from_bytes([9; 32]))
}

fn worker(fixture: &Fixture, run: &ToyRun) -> HonestWorker<ToyRun> {
    HonestWorker { credentials: Credentials::Name(fixture.claim().worker), trace: run.clone() }
}

/// An honest worker against some challenger without a case.
fn against_a_true_claim(fixture: &Fixture, random: &mut Random) -> (Game, String) {
    let twist = *random.pick(&ChallengerTwist::ALL);
    let layer = random.below(fixture.claim().layers.len() as u64) as u32;
    let trace = fixture.honest().clone();
    let mut attacker = TwistedChallenger { credentials: challenger(), trace, twist, asked: 0 };
    let mut honest = worker(fixture, fixture.honest());
    let own = random.bytes().into();
    let players = (&mut honest as &mut dyn Player, &mut attacker as &mut dyn Player);
    let (mut reveals, options) = (Reveals::new(), GameOptions::default());
    let game = play(fixture, layer, own, &challenger(), players, &mut reveals, &options, random)
        .expect("a random commitment disputes something");
    (game, format!("challenger {twist:?}"))
}

/// An honest challenger against a cheat, after other disputes may have brought things to light.
fn against_a_false_claim(fixture: &Fixture, random: &mut Random) -> Result<(Game, String), String> {
    let own = fixture.honest().layers();
    let layer = first_difference(fixture.claim(), &own).ok().flatten();
    let layer = layer.ok_or("a false claim has no false layer")?;
    let per_cent = *random.pick(&[0, 5, 50, 100]);
    let liar = HonestWorker {
        credentials: Credentials::Name(fixture.claim().worker),
        trace: LyingRun::new(fixture.claimed().clone(), random.draw(), per_cent),
    };
    let twist = *random.pick(&WorkerTwist::ALL);
    let mut plain = worker(fixture, fixture.claimed());
    let mut honest_run = worker(fixture, fixture.honest());
    let mut lying = liar.clone();
    let mut twisted = TwistedWorker { honest: liar, twist, asked: 0 };
    let (cheat, who): (&mut dyn Player, String) = match random.below(4) {
        0 => (&mut plain, "worker that stands by its run".to_owned()),
        1 => (&mut lying, "worker with a lying run".to_owned()),
        2 => (&mut honest_run, "worker that shows the honest run".to_owned()),
        _ => (&mut twisted, format!("worker {twist:?}")),
    };
    let mut honest = HonestChallenger { credentials: challenger(), trace: fixture.honest().clone() };
    let players = (cheat, &mut honest as &mut dyn Player);
    let (mut reveals, options) = (Reveals::new(), GameOptions::default());
    let own = own[layer as usize];
    let game = play(fixture, layer, own, &challenger(), players, &mut reveals, &options, random)
        .map_err(|refusal| refusal.to_string())?;
    Ok((game, who))
}

/// Posts what the outcome moves, from deposits to payouts, and checks that nothing was made or left behind.
fn settle(fixture: &Fixture, game: &Game) -> Result<(), String> {
    let p = Parameters::default();
    let (job, claim, price) = (fixture.claim().job, game.dispute.claim(), Amount(10_000));
    let mut transactions = vec![
        ledger::deposit(SUBMITTER, price),
        ledger::deposit(WORKER, p.stake_per_job),
        ledger::deposit(CHALLENGER, p.bond),
        ledger::submit(job, SUBMITTER, price),
        ledger::lock_stake(WORKER, p.stake_per_job),
        ledger::lock_bond(CHALLENGER, p.bond),
    ];
    if game.outcome.verdict == Verdict::ChallengerWins {
        let refund = ledger::Refund { job, submitter: SUBMITTER, escrowed: price, delivered: None };
        let payout = ConvictionPayout {
            claim,
            stake: p.stake_per_job,
            submitter: SUBMITTER,
            grounds: match game.outcome.cause {
                Cause::Proof { .. } => Grounds::Proof { prover: CHALLENGER },
                _ => Grounds::Silence,
            },
            confirmed_openers: &[CHALLENGER],
        };
        transactions.extend([
            ledger::convict(claim, WORKER, p.stake_per_job),
            ledger::return_bond(CHALLENGER, p.bond),
            ledger::refund(&refund, &p),
            ledger::pay_conviction(&payout, &p),
        ]);
    } else {
        let dispute = game.dispute.id();
        let settlement = ledger::Settlement {
            job,
            submitter: SUBMITTER,
            worker: WORKER,
            escrowed: price,
            price,
            stake: p.stake_per_job,
        };
        transactions.extend([
            ledger::forfeit_bond(dispute, CHALLENGER, p.bond),
            ledger::pay_forfeit(&Forfeit { dispute, bond: p.bond, worker: WORKER }, &p),
            ledger::finalize(&settlement, &p),
        ]);
    }
    let mut book = Book::new();
    for transaction in transactions {
        let transaction = transaction.map_err(|error| error.to_string())?;
        book.post(&transaction).map_err(|error| error.to_string())?;
        if book.total() != 0 {
            return Err(format!("{} made or lost money", transaction.kind().name()));
        }
    }
    match book.iter().find(|(account, balance)| account.kind() == "locked" && balance.0 != 0) {
        Some((account, balance)) => Err(format!("{account:?} keeps {balance}")),
        None => Ok(()),
    }
}
