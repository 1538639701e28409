//! Every message of a dispute, and those that lead to one, with somebody killed before, while and after it is served.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gainsay_commitment::tensor::tensor_commitment;
use gainsay_commitment::{DisputeId, TensorCommitment};
use gainsay_program::OpKind;
use gainsay_protocol::{LeaseId, MoveKind, SignedMove};
use tokio::time::Instant;

use crate::books;
use crate::wire::{self, Kind, Message, Moment};
use crate::world::{World, coordinator};

/// The only challenger: whoever else is told something of a dispute has to ask it.
const CHALLENGER: &str = "carol";
/// Far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two jobs.
const PACE: Duration = Duration::from_millis(150);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    /// Who sent the message.
    Sender,
    /// Who has to answer it.
    Opponent,
    Coordinator,
    Postgres,
}

const MOVES: [MoveKind; 8] = [
    MoveKind::Open,
    MoveKind::RevealOps,
    MoveKind::ChooseOp,
    MoveKind::RevealNodes,
    MoveKind::ChooseNode,
    MoveKind::RevealChunk,
    MoveKind::ChooseElement,
    MoveKind::Prove,
];

/// One thing to try: this victim, at this moment of this message.
type Case = (Kind, Victim, Moment);

/// Everything to try.
fn cases() -> BTreeSet<Case> {
    let kinds = [Kind::Lease, Kind::Claim].into_iter().chain(MOVES.map(Kind::Move));
    let mut cases = BTreeSet::new();
    for kind in kinds {
        for (victim, moment) in [
            (Victim::Sender, Moment::Before),
            (Victim::Sender, Moment::After),
            (Victim::Coordinator, Moment::During),
            (Victim::Coordinator, Moment::After),
            (Victim::Postgres, Moment::During),
        ] {
            cases.insert((kind, victim, moment));
        }
        if matches!(kind, Kind::Move(_)) {
            cases.insert((kind, Victim::Opponent, Moment::Before));
            cases.insert((kind, Victim::Opponent, Moment::After));
        }
    }
    cases
}

struct Ambush {
    world: Arc<World>,
    state: Mutex<State>,
}

struct State {
    /// Not tried yet.
    left: BTreeSet<Case>,
    /// Being tried.
    laid: BTreeSet<Case>,
    /// Messages that were struck at: sent again, they pass.
    struck: HashSet<TensorCommitment>,
    /// What workers have claimed, by lease.
    claimed: BTreeMap<LeaseId, Vec<u8>>,
}

impl wire::Ambush for Ambush {
    type Plan = Case;

    fn plan(&self, _sender: &str, message: &Message) -> Option<(Moment, Case)> {
        let mut state = self.state.lock().unwrap();
        if let Some(claim) = message.claim() {
            let first = state.claimed.entry(claim.body.lease).or_insert_with(|| message.body.clone());
            assert_eq!(*first, message.body, "two different claims for lease {}", claim.body.lease);
        }
        let digest = tensor_commitment(&message.body);
        // A request for work says little, and is struck at as often as it must be.
        if message.kind != Kind::Lease && state.struck.contains(&digest) {
            return None;
        }
        let open = || state.left.difference(&state.laid).filter(|case| case.0 == message.kind);
        let count = open().count() as u64;
        let drawn = if count == 0 { return None } else { self.world.draw.below(count) as usize };
        let case = *open().nth(drawn)?;
        state.laid.insert(case);
        state.struck.insert(digest);
        Some((case.2, case))
    }

    fn give_up(&self, case: Case) {
        self.state.lock().unwrap().laid.remove(&case);
    }

    async fn strike(&self, sender: &str, message: &Message, case: Case) {
        match case.1 {
            Victim::Sender => self.world.crash(sender, Duration::ZERO).await,
            Victim::Opponent => {
                let opponent = self.opponent(sender, message).await;
                self.world.crash(&opponent, Duration::ZERO).await;
            }
            Victim::Coordinator => self.world.crash(&coordinator(0), Duration::ZERO).await,
            Victim::Postgres => self.world.crash_postgres().await,
        }
        let mut state = self.state.lock().unwrap();
        state.laid.remove(&case);
        state.left.remove(&case);
    }

    fn broken(&self, reason: String) {
        self.world.note_broken(reason);
    }
}

impl Ambush {
    /// The other side of the dispute that a move is about.
    async fn opponent(&self, sender: &str, message: &Message) -> String {
        if sender != CHALLENGER {
            return CHALLENGER.to_owned();
        }
        if let Ok(SignedMove::Open(open)) = SignedMove::from_bytes(&message.body) {
            return self.world.client.claim(open.body.claim).await.unwrap().summary.worker.name;
        }
        let id: DisputeId = message.path.split('/').nth(3).unwrap().parse().unwrap();
        self.world.client.dispute(id).await.unwrap().summary.worker.name
    }

    fn left(&self) -> BTreeSet<Case> {
        self.state.lock().unwrap().left.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_at_any_message_of_a_dispute_its_end_is_the_same() {
    let world = World::start("ambush", 1).await;
    let state =
        State { left: cases(), laid: BTreeSet::new(), struck: HashSet::new(), claimed: BTreeMap::new() };
    let all = state.left.len();
    let ambush = Arc::new(Ambush { world: world.clone(), state: Mutex::new(state) });
    let upstream = world.addresses()[0].strip_prefix("http://").unwrap().to_owned();
    let lay = async |name: &str| wire::lay(name, &upstream, ambush.clone()).await;
    for (role, name) in [("challenger", CHALLENGER), ("worker", "alice"), ("worker", "bob")] {
        world.party(role, name, &lay(name).await).await;
    }
    let attentions = attentions(&world);
    let started = Instant::now();
    let mut cheats = 0_u32;
    while !ambush.left().is_empty() {
        assert!(started.elapsed() < PATIENCE, "not tried within {PATIENCE:?}: {:?}", ambush.left());
        world.check();
        // A cheat is convicted of its first jobs and gets no more: others follow.
        if cheats == 0 || world.is_suspended(&cheat(cheats - 1)) {
            // Half of them inside an attention, where disputes go on for one element.
            let how = match (cheats % 2, world.draw.pick(&attentions)) {
                (0, (layer, op)) => format!("flip:{layer}:{op}:{}:22", world.draw.below(576)),
                _ => format!("flip:{}", world.draw.below(1 << 32)),
            };
            let name = cheat(cheats);
            world.cheat(&name, &lay(&name).await, &how).await;
            cheats += 1;
        }
        world.submit().await;
        tokio::time::sleep(PACE).await;
    }
    let struck = started.elapsed();
    books::at_rest(&world).await;
    world.close_windows().await;
    let outcome = books::check(&world).await;
    world.stop().await;
    println!(
        "{all} ambushes within {struck:?}, {cheats} cheats, everything decided after {:?}: {outcome}",
        started.elapsed()
    );
}

/// Places of attention ops: layer and op.
fn attentions(world: &World) -> Vec<(usize, usize)> {
    let layers = world.model.toy.model.manifest().program.layers.iter().enumerate();
    let ops =
        layers.flat_map(|(layer, ops)| ops.ops.iter().enumerate().map(move |(op, kind)| (layer, op, kind)));
    ops.filter(|(_, _, op)| matches!(op.kind, OpKind::Attention { .. }))
        .map(|(layer, op, _)| (layer, op))
        .collect()
}

fn cheat(number: u32) -> String {
    format!("cheat-{number}")
}
