//! Who takes part in a game, what they want, and what the weather will be like.

use std::collections::BTreeMap;

use gainsay_commitment::PartyId;
use gainsay_protocol::toy::{ChallengerTwist, Random, WorkerTwist};
use gainsay_protocol::{Amount, JobId, OwnerId, Parameters};

use super::challenger::{Challenger, Opens, Plays};
use super::invariants::Promises;
use super::network::Event;
use super::worker::{Defence, Manners, Worker};
use super::world::{Order, Party, Role};

/// Messages that an honest party loses at most, unless it is one that cannot keep up.
const LOSSES: u32 = 5;
/// How long such a party is away at most when it crashes.
const SHORT_CRASH_MS: u64 = 10_000;
/// When the last crash or outage begins.
const WEATHER_MS: u64 = 400_000;

/// Everything that is decided before a game begins.
pub(super) struct Scenario {
    pub(super) parameters: Parameters,
    pub(super) parties: Vec<Party>,
    pub(super) promises: Promises,
    pub(super) funds: BTreeMap<OwnerId, i64>,
    pub(super) weather: Vec<(u64, Event)>,
}

/// The allowances leave room for every turn of the longest dispute with all the faults that an honest party meets:
/// seven turns of six seconds, the losses, two crashes and three outages with what comes after them.
fn parameters(random: &mut Random) -> Parameters {
    Parameters {
        // Odd numbers, so that every share is rounded.
        stake_per_job: Amount(400_001),
        bond: Amount(200_003),
        lost_lease_fee: Amount(1_009),
        fee_ppm: 50_021,
        slash_to_treasury_ppm: 250_007,
        slash_to_submitter_ppm: 249_989,
        opener_refund: Amount(20_011),
        window_ms: 120_000,
        worker_allowance_ms: 150_000,
        challenger_allowance_ms: 150_000,
        lease_ms: 60_000,
        heartbeat_ms: 15_000,
        hold_ms: *random.pick(&[0, 100_000, 300_000]),
        attempts: 1 + random.below(3) as u32,
        ..Parameters::default()
    }
}

struct Casting<'a> {
    random: &'a mut Random,
    parties: Vec<Party>,
    promises: Promises,
    funds: BTreeMap<OwnerId, i64>,
}

pub(super) fn draw(random: &mut Random, puzzles: usize) -> Scenario {
    let parameters = parameters(random);
    let mut casting =
        Casting { random, parties: Vec::new(), promises: Promises::default(), funds: BTreeMap::new() };
    let submitter = casting.submitter(puzzles);
    let honest = casting.random.below(3);
    let cheats = casting.random.below(3).max(u64::from(honest == 0));
    for _ in 0..honest {
        casting.honest_worker();
    }
    for _ in 0..cheats {
        casting.cheat(submitter);
    }
    for _ in 0..casting.random.below(3) {
        casting.honest_challenger();
    }
    for _ in 0..casting.random.below(3) {
        casting.stranger();
    }
    let Casting { parties, promises, funds, .. } = casting;
    let weather = weather(random, &parties);
    Scenario { parameters, parties, promises, funds, weather }
}

impl Casting<'_> {
    fn owner(&mut self, credits: i64) -> OwnerId {
        let owner = OwnerId([self.funds.len() as u8 + 1; 16]);
        self.funds.insert(owner, credits);
        self.promises.owners.push(owner);
        owner
    }

    fn join(&mut self, owner: OwnerId, role: Role, reliable: bool) -> PartyId {
        let id = PartyId::from_bytes([self.parties.len() as u8 + 1; 32]);
        self.parties.push(Party {
            id,
            owner,
            role,
            reliable,
            up: true,
            life: 0,
            wakes_at: None,
            losses_left: LOSSES,
        });
        id
    }

    fn submitter(&mut self, puzzles: usize) -> OwnerId {
        let owner = self.owner(100_000_000);
        let orders = 1 + self.random.below(5);
        let orders = (0..orders).map(|number| Order {
            at: self.random.below(60_000),
            job: JobId([number as u8 + 1; 16]),
            puzzle: self.random.below(puzzles as u64) as usize,
            price: Amount(10_007),
            done: false,
        });
        let orders = orders.collect();
        self.join(owner, Role::Submitter(orders), true);
        owner
    }

    fn honest_worker(&mut self) {
        let owner = self.owner(10_000_000);
        let reliable = self.random.happens(75);
        let run_ms = 1_000 + self.random.below(12_000);
        let leases = if reliable { u32::MAX } else { 12 };
        let worker = Worker::new(Manners::HONEST, 1 + self.random.below(3) as usize, run_ms, leases);
        let id = self.join(owner, Role::Worker(worker), reliable);
        if reliable {
            self.promises.workers.push(id);
        }
    }

    /// A worker with one divergence, and often a challenger that is on its side.
    fn cheat(&mut self, submitter: OwnerId) {
        let owner = match self.random.below(10) {
            0 | 1 => submitter,
            2 => self.owner(500_000),
            _ => self.owner(5_000_000),
        };
        let manners = self.manners();
        let run_ms = 500 + self.random.below(20_000);
        let worker = Worker::new(manners, 3, run_ms, 5);
        let cheat = self.join(owner, Role::Worker(worker), false);
        if self.random.happens(60) {
            let backer = if self.random.happens(50) { owner } else { self.owner(5_000_000) };
            let opens = if self.random.happens(50) { Opens::Shams(cheat) } else { Opens::Confederate(cheat) };
            let plays = match self.random.below(3) {
                0 => Plays::Silently,
                1 => Plays::Honestly,
                _ => Plays::Twisted(ChallengerTwist::Wander),
            };
            self.join(backer, Role::Challenger(Challenger::new(opens, plays, 0)), false);
        }
    }

    fn manners(&mut self) -> Manners {
        let liar = Manners { wrong: 70, ..Manners::HONEST };
        match self.random.below(10) {
            0 => Manners { defence: Defence::Silent, ..liar },
            1 => Manners { defence: Defence::LastSecond, ..liar },
            2 => Manners { defence: Defence::Selective, ..liar },
            3 => Manners { defence: Defence::Twisted(*self.random.pick(&WorkerTwist::ALL)), ..liar },
            4 => Manners { lying: 30, ..liar },
            5 => Manners { equivocates: true, ..Manners::HONEST },
            6 => Manners { idles: true, ..Manners::HONEST },
            7 => Manners { replays: true, ..liar },
            _ => liar,
        }
    }

    fn honest_challenger(&mut self) {
        let owner = self.owner(10_000_000);
        let reliable = self.random.happens(75);
        let check_ms = 500 + self.random.below(2_000);
        let challenger = Challenger::new(Opens::WhatIsFalse, Plays::Honestly, check_ms);
        let id = self.join(owner, Role::Challenger(challenger), reliable);
        if reliable {
            self.promises.challengers.push(id);
        }
    }

    /// A challenger on nobody's side.
    fn stranger(&mut self) {
        let credits = if self.random.happens(20) { 100_000 } else { 3_000_000 };
        let owner = self.owner(credits);
        let (opens, plays) = match self.random.below(6) {
            0 => (Opens::WhatIsFalse, Plays::LastSecond),
            1 => (Opens::LastMoment, Plays::Honestly),
            2 => (Opens::AfterOthers, Plays::Honestly),
            3 => (Opens::Anything, Plays::Silently),
            _ => (Opens::Anything, Plays::Twisted(*self.random.pick(&ChallengerTwist::ALL))),
        };
        self.join(owner, Role::Challenger(Challenger::new(opens, plays, 0)), false);
    }
}

/// Crashes and outages.
fn weather(random: &mut Random, parties: &[Party]) -> Vec<(u64, Event)> {
    let mut weather = Vec::new();
    for (party, cast) in parties.iter().enumerate() {
        for _ in 0..random.below(3) {
            let for_ms =
                if cast.reliable { random.below(SHORT_CRASH_MS) } else { 1_000 + random.below(300_000) };
            weather.push((random.below(WEATHER_MS), Event::Crash { party, for_ms }));
        }
    }
    for _ in 0..random.below(4) {
        let for_ms = if random.happens(50) { random.below(20_000) } else { random.below(400_000) };
        weather.push((random.below(WEATHER_MS), Event::Outage { for_ms }));
    }
    weather
}
