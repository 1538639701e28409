//! Two coordinators on one database are one service: whatever begins at one goes on at the other, and nothing happens
//! twice. With a Redis between them, with none, and with one that goes away.

use std::time::Duration;

use gainsay_api::accounts::{AccountKind, AccountsQuery};
use gainsay_api::client::{Auth, Client};
use gainsay_api::disputes::{Side, Verdict};
use gainsay_api::events::{EventCursor, EventKind};
use gainsay_api::jobs::{JobQuery, JobState, WaitFor};
use gainsay_api::leases::{Lease, LeaseRequest};
use gainsay_commitment::SecretKey;
use gainsay_program::OpPlace;
use gainsay_protocol::JobId;
use gainsay_testkit::{OPERATOR_TOKEN, PrivateRedis, TestCoordinator, TestOwner};

use crate::disputes::{open, play_through};
use crate::world::{FUNDS, World};

const PATIENCE: Duration = Duration::from_secs(60);
/// A long poll's.
const WAIT: Duration = Duration::from_secs(20);

/// Two coordinators; the world's own client talks to the first.
struct Pair {
    world: World,
    second: TestCoordinator,
    other: Client,
}

impl Pair {
    async fn start(redis: Option<&PrivateRedis>) -> Self {
        let builder = TestCoordinator::builder().running_timers();
        let world = World::with(match redis {
            Some(redis) => builder.redis(redis.config()),
            None => builder,
        })
        .await;
        let second = world.test.beside().await;
        assert_eq!(second.id(), world.test.id(), "one service, one identity");
        let other = second.client().await;
        Self { world, second, other }
    }

    /// A job submitted to the first, leased by a worker that waits at the second.
    async fn submit_and_lease(&self, text: &str, worker: &SecretKey) -> Lease {
        let request = LeaseRequest { models: vec![self.world.model.id()], max: 1, held: Vec::new() };
        let waiting = self.other.lease(worker, &request, WAIT);
        let (leases, job) = tokio::join!(waiting, self.world.submit(text));
        let mut leases = leases.expect("the poll is answered").leases;
        assert_eq!(leases.iter().map(|lease| lease.job_id).collect::<Vec<_>>(), [job.id]);
        leases.remove(0)
    }

    /// A false claim posted to the second, disputed by turns through both, convicted.
    async fn convict(&self) -> JobId {
        let cheat = TestOwner::register(&self.other, "cheat", FUNDS).await;
        let lease = self.submit_and_lease("four five", &cheat.worker).await;
        let mut false_run = self.world.run_with(&lease, |at, bytes| {
            if at == OpPlace::in_layer(1, 0) {
                bytes[2] ^= 0x40;
            }
        });
        let claim = false_run.claim(self.world.test.id(), &lease, &cheat.worker);
        let claim =
            self.other.post_claim(&cheat.worker, claim.to_bytes()).await.expect("a claim is taken").id;
        let mut honest = self.world.run(&lease);
        let challenger = &self.world.owner.challenger;
        let opened = open(&self.world, claim, challenger, &honest).await;
        let seen = self.other.dispute(opened.summary.id).await.expect("the other one knows it too");
        assert_eq!(seen.summary.turn, Some(Side::Worker));
        let (worker, challenger) = ((&cheat.worker, &mut false_run), (challenger, &mut honest));
        let clients = [&self.other, &self.world.client];
        let ended = play_through(&clients, &self.world, opened, worker, challenger).await;
        assert_eq!(ended.summary.decision.expect("a verdict").verdict, Verdict::ChallengerWins);
        lease.job_id
    }

    /// Claims an honest run, by way of the first.
    async fn claim(&self, lease: &Lease) {
        self.world.post(&self.world.run(lease), lease, &self.world.owner.worker).await;
    }

    /// Both jobs final at the second, each paid for once, and the stream of the second has told so once.
    async fn paid_once(&self, jobs: [JobId; 2]) {
        let key = &self.world.submitter.api_key;
        for job in jobs {
            let query = JobQuery { wait_ms: Some(WAIT.as_millis() as u64), until: WaitFor::Final };
            let view = self.other.job(key, job, query).await.expect("the poll is answered");
            assert_eq!(view.state, JobState::Finalized);
            let receipt = self.other.receipt(key, job).await.expect("a receipt");
            assert_eq!(receipt.paid_worker + receipt.paid_fee + receipt.returned, view.price);
            assert!(receipt.paid_worker > 0);
        }
        // A second round of each reconciler has nothing left to do.
        let rounds = tokio::join!(self.world.test.settle(), self.second.settle());
        assert_eq!((rounds.0.claims, rounds.1.claims), (0, 0));
        let finalized = self.finalized_at_the_second().await;
        assert_eq!(finalized, jobs.len(), "a claim was paid twice, or its event is missing");
        let all = AccountsQuery { all: true };
        let all = self.other.accounts(Auth::Bearer(OPERATOR_TOKEN), all).await.expect("all accounts");
        assert_eq!(all.sum, 0);
        assert_eq!(all.balance(self.world.submitter.id, AccountKind::Escrow), 0);
    }

    /// How many claims the second one's event stream has called final, up to an event that came after them.
    async fn finalized_at_the_second(&self) -> usize {
        let last = self.world.submit("six").await.id;
        let mut events = self.other.events(Some(EventCursor::start()));
        let mut finalized = 0;
        loop {
            let event = tokio::time::timeout(PATIENCE, events.next()).await.expect("events come");
            match event.expect("the stream can be read").kind {
                EventKind::ClaimFinalized { .. } => finalized += 1,
                EventKind::JobSubmitted { job, .. } if job == last => return finalized,
                _ => {}
            }
        }
    }

    async fn stop(self) {
        self.second.stop().await;
        self.world.test.stop().await;
    }
}

async fn two_are_one_service(mut redis: Option<PrivateRedis>, redis_dies: bool) {
    let pair = Pair::start(redis.as_ref()).await;
    let worker = &pair.world.owner.worker;
    // Somebody who follows the second sees what happens at the first.
    let mut news = pair.other.events(None);
    news.ready().await.expect("the stream stands");

    let lease = pair.submit_and_lease("one two three", worker).await;
    let query = JobQuery { wait_ms: Some(WAIT.as_millis() as u64), until: WaitFor::Answer };
    let reading = pair.other.job(&pair.world.submitter.api_key, lease.job_id, query);
    let (view, ()) = tokio::join!(reading, pair.claim(&lease));
    assert!(view.expect("the poll is answered").answer.is_some());
    let told = async {
        loop {
            let event = news.next().await.expect("the stream can be read");
            if matches!(event.kind, EventKind::JobClaimed { job, .. } if job == lease.job_id) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("the claim is told at the other coordinator");

    if let Some(redis) = redis.as_mut().filter(|_| redis_dies) {
        redis.kill();
    }
    let convicted = pair.convict().await;
    let again = pair.world.lease(worker).await.expect("the job is back in the queue");
    assert_eq!(again.job_id, convicted);
    pair.claim(&again).await;

    let window = pair.world.test.app().config().parameters.window_ms;
    pair.world.test.app().advance_time(window + 1).await.expect("the database answers");
    pair.paid_once([lease.job_id, convicted]).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_redis_between_them() {
    two_are_one_service(Some(PrivateRedis::start()), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_redis() {
    two_are_one_service(None, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_redis_that_dies_in_mid_dispute() {
    two_are_one_service(Some(PrivateRedis::start()), true).await;
}

/// Registrations are limited by address: spreading them over coordinators must not get anybody more of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_for_both_together() {
    let redis = PrivateRedis::start();
    let quota = gainsay_coordinator::bus::Quota { burst: 6, every: Duration::from_secs(3_600) };
    let builder = TestCoordinator::builder().redis(redis.config()).http(|http| http.registrations = quota);
    let test = builder.start().await;
    let second = test.beside().await;
    let (client, other) = (test.client().await, second.client().await);
    let mut taken = 0;
    for n in 0..10 {
        let client = if n % 2 == 0 { &client } else { &other };
        taken += u32::from(client.register_submitter(&format!("submitter {n}")).await.is_ok());
    }
    assert_eq!(taken, quota.burst);
    second.stop().await;
    test.stop().await;
}
