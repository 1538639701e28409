//! Everything at once: two coordinators, Redis, PostgreSQL and all parties, killed at random while jobs come in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gainsay_api::events::EventKind;
use tokio::time::{Instant, timeout};

use crate::books;
use crate::world::World;

/// How often somebody is hit.
const HITS: u32 = 36;
/// Between two jobs.
const PACE: Duration = Duration::from_millis(200);
/// The longest wait for what a hit is to follow.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest time that a killed process stays away: well within every allowance.
const LONGEST_AWAY_MS: u64 = 1_000;

/// What happens to whom.
#[derive(Clone, Copy, Debug)]
enum Hit {
    Kill(&'static str),
    /// Asked to stop, as at an upgrade: it has to end well.
    Stop(&'static str),
    KillCheat,
    KillPostgres,
    KillRedis,
    FlushRedis,
    HangRedis,
}

const HITS_TO_DRAW: [Hit; 20] = [
    Hit::Kill("coordinator-0"),
    Hit::Kill("coordinator-1"),
    Hit::Kill("coordinator-0"),
    Hit::Kill("coordinator-1"),
    Hit::Stop("coordinator-0"),
    Hit::Stop("coordinator-1"),
    Hit::Kill("alice"),
    Hit::Kill("bob"),
    Hit::Stop("alice"),
    Hit::Kill("carol"),
    Hit::Kill("dave"),
    Hit::Kill("carol"),
    Hit::Kill("dave"),
    Hit::Stop("carol"),
    Hit::KillCheat,
    Hit::KillCheat,
    Hit::KillPostgres,
    Hit::KillRedis,
    Hit::FlushRedis,
    Hit::HangRedis,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_while_everything_goes_on_the_books_balance() {
    let world = World::start("chaos", 2).await;
    let mut addresses = world.addresses().to_vec();
    for (role, name) in
        [("challenger", "carol"), ("challenger", "dave"), ("worker", "alice"), ("worker", "bob")]
    {
        // Half of them prefer one coordinator, half the other.
        addresses.reverse();
        world.party(role, name, &addresses.join(",")).await;
    }
    let started = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let submitting = tokio::spawn(submit(world.clone(), over.clone()));
    let mut cheats = 0;
    for _ in 0..HITS {
        world.check();
        if cheats == 0 || world.is_suspended(&cheat(cheats - 1)) {
            let how = format!("flip:{}", world.draw.below(1 << 32));
            world.cheat(&cheat(cheats), &addresses.join(","), &how).await;
            cheats += 1;
        }
        moment(&world).await;
        hit(&world, cheats).await;
    }
    over.store(true, Ordering::Relaxed);
    submitting.await.unwrap();
    let hit = started.elapsed();
    books::at_rest(&world).await;
    world.close_windows().await;
    while_paying(&world).await;
    let outcome = books::check(&world).await;
    world.stop().await;
    println!(
        "{HITS} hits within {hit:?}, {cheats} cheats, everything decided after {:?}: {outcome}",
        started.elapsed()
    );
}

fn cheat(number: u32) -> String {
    format!("cheat-{number}")
}

async fn submit(world: Arc<World>, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        world.submit().await;
        tokio::time::sleep(PACE).await;
    }
}

/// Waits for a drawn event, most of them of disputes, or for a while where none comes.
async fn moment(world: &World) {
    let mut events = world.events();
    let (kind, mut count) = (world.draw.below(6), 1 + world.draw.below(3));
    let is_it = |event: &EventKind| match kind {
        0 => matches!(event, EventKind::JobAssigned { .. }),
        1 => matches!(event, EventKind::JobClaimed { .. }),
        2 => matches!(event, EventKind::DisputeOpened { .. }),
        _ => matches!(event, EventKind::DisputeMoved { .. }),
    };
    let came = async {
        while let Ok(event) = events.recv().await {
            count -= u64::from(is_it(&event));
            if count == 0 {
                return;
            }
        }
    };
    // In vain is as good: then somebody is hit while nothing happens.
    let _ = timeout(PATIENCE, came).await;
}

/// Kills who pays, while everything is paid at once.
async fn while_paying(world: &World) {
    let mut events = world.events();
    for victim in ["coordinator-0", "postgres", "coordinator-1", "coordinator-0"] {
        let paid =
            async { while !matches!(events.recv().await, Ok(EventKind::ClaimFinalized { .. }) | Err(_)) {} };
        let _ = timeout(PATIENCE, paid).await;
        match victim {
            "postgres" => world.crash_postgres().await,
            coordinator => world.crash(coordinator, Duration::ZERO).await,
        }
    }
}

async fn hit(world: &World, cheats: u32) {
    let hit = *world.draw.pick(&HITS_TO_DRAW);
    let away = match world.draw.below(2) {
        0 => Duration::ZERO,
        _ => Duration::from_millis(world.draw.below(LONGEST_AWAY_MS)),
    };
    match hit {
        Hit::Kill(name) => world.crash(name, away).await,
        Hit::Stop(name) => world.restart(name).await,
        Hit::KillCheat => world.crash(&cheat(cheats - 1), away).await,
        Hit::KillPostgres => world.crash_postgres().await,
        Hit::KillRedis => {
            let redis = world.redis();
            redis.lock().unwrap().kill();
            tokio::time::sleep(away).await;
            tokio::task::spawn_blocking(move || redis.lock().unwrap().start_again()).await.unwrap();
        }
        Hit::FlushRedis => {
            let redis = world.redis();
            tokio::task::spawn_blocking(move || redis.lock().unwrap().flush()).await.unwrap();
        }
        Hit::HangRedis => {
            world.redis().lock().unwrap().hang();
            tokio::time::sleep(away).await;
            world.redis().lock().unwrap().go_on();
        }
    }
}
