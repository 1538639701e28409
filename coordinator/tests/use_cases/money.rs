//! Money under repetition, haste and bad luck: requests sent again, many at once, a row that fails.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gainsay_commitment::{Canonical, PartyId, SecretKey};
use gainsay_coordinator::app::{App, AppError, JobState, RequestKey};
use gainsay_coordinator::bus::{Admission, Bus, BusState, InProcess, Quota, Subscription, Topic};
use gainsay_program::JobInput;
use gainsay_protocol::toy::Fault;
use gainsay_protocol::{Amount, Equivocation, OwnerId, ServiceTime, lifecycle};
use sqlx::{AssertSqlSafe, Executor};

use crate::support::{FUNDS, PRICE, Party, World, fault, parameters};

fn key(scope: OwnerId, name: &str, request: u8) -> RequestKey {
    RequestKey { scope, key: name.to_owned(), request: [request; 32] }
}

fn input(world: &World) -> JobInput {
    world.builder.build(Fault::None, 0).job().embedding_input().unwrap().clone()
}

#[tokio::test]
async fn a_submission_sent_again_under_its_key_makes_no_second_job() {
    let world = World::new().await;
    let (model, mine) = (world.toy().model.id(), key(world.submitter, "a", 1));
    let submit = async |key: &RequestKey| {
        let inputs = vec![input(&world), input(&world)];
        let jobs = world.app.submit_jobs(world.submitter, model, inputs, Some(key)).await;
        jobs.map(|jobs| jobs.iter().map(|job| job.id).collect::<Vec<_>>())
    };
    let first = submit(&mine).await.unwrap();
    assert_eq!(submit(&mine).await.unwrap(), first);
    assert_eq!(world.balance(world.submitter, "free").await, Amount(FUNDS.0 - 2 * PRICE.0));
    let other = submit(&key(world.submitter, "a", 2)).await;
    assert!(matches!(other, Err(AppError::RequestKeyReused)), "{other:?}");
    assert_ne!(submit(&key(world.submitter, "b", 1)).await.unwrap(), first);
    // What became of the jobs, or of the model, does not change which they are.
    world.app.cancel_job(world.submitter, first[0]).await.unwrap();
    world.pool.execute("update models set state = 'voided'").await.unwrap();
    assert_eq!(submit(&mine).await.unwrap(), first);
    world.check().await;
}

/// A bus whose coordinator loses its database as soon as there is something to tell: after every commit.
#[derive(Debug, Default)]
struct LosesTheDatabase(OnceLock<App>);

#[async_trait::async_trait]
impl Bus for LosesTheDatabase {
    async fn publish(&self, _: Topic) {
        self.0.get().expect("it is set before anything happens").close().await;
    }

    async fn subscribe(&self, topic: Topic) -> Subscription {
        InProcess::new().subscribe(topic).await
    }

    async fn mark_seen(&self, _: PartyId, _: ServiceTime) {}

    async fn last_seen(&self, _: PartyId) -> Option<ServiceTime> {
        None
    }

    async fn admit(&self, _: &str, _: Quota, _: Duration) -> Admission {
        Admission::Granted
    }

    fn state(&self) -> BusState {
        BusState::Alone
    }
}

/// Whoever is told that it failed would do it again, and pay twice.
#[tokio::test]
async fn what_is_on_record_is_answered_though_the_database_goes_away_right_after() {
    let world = World::new().await;
    let broken = async || {
        let bus = Arc::new(LosesTheDatabase::default());
        let app = world.coordinator_with(Arc::<LosesTheDatabase>::clone(&bus)).await;
        bus.0.set(app.clone()).unwrap();
        app
    };
    let job = broken().await.submit_job(world.submitter, world.toy().model.id(), input(&world)).await;
    let job = job.expect("the job is on record");
    let recorded = world.job(job.id).await;
    assert_eq!((job.state, job.price, job.submitted_at), (recorded.state, PRICE, recorded.submitted_at));
    assert_eq!((job.input, job.attempts), (recorded.input, recorded.attempts));
    let free = world.balance(world.submitter, "free").await;
    let deposited = broken().await.deposit(world.submitter, Amount(5)).await;
    assert_eq!(deposited.expect("the deposit is on record"), Amount(free.0 + 5));
    let withdrawn = broken().await.withdraw(world.submitter, Amount(7)).await;
    assert_eq!(withdrawn.expect("the withdrawal is on record"), Amount(free.0 - 2));
    assert_eq!(world.balance(world.submitter, "free").await, Amount(free.0 - 2));
    world.check().await;
}

/// The connection breaks in the act: the error names the jobs that may exist.
#[tokio::test]
async fn a_commit_that_nobody_knows_the_end_of_names_its_jobs() {
    let world = World::new().await;
    world
        .pool
        .execute(
            "create function die() returns trigger language plpgsql as
                $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$;
            create constraint trigger die after insert on jobs deferrable initially deferred
                for each row execute function die()",
        )
        .await
        .unwrap();
    let made = world.app.submit_job(world.submitter, world.toy().model.id(), input(&world)).await;
    let Err(AppError::SubmissionUncertain { jobs, .. }) = made else { panic!("{made:?}") };
    assert_eq!(jobs.len(), 1);
    world.check().await;
}

#[tokio::test]
async fn a_deposit_or_withdrawal_sent_again_under_its_key_counts_once() {
    let world = World::new().await;
    let (_, owner) = world.provider("owner").await;
    let (operator, amount) = (OwnerId([0; 16]), Amount(500));
    let deposit = key(operator, "x", 1);
    // Eight at once, as a client behind a broken proxy would send them.
    let sent = (0..8).map(|_| {
        let (app, deposit) = (world.app.clone(), deposit.clone());
        tokio::spawn(async move { app.deposit_once(owner, amount, Some(&deposit)).await })
    });
    for done in sent.collect::<Vec<_>>() {
        done.await.unwrap().unwrap();
    }
    assert_eq!(world.balance(owner, "free").await, Amount(FUNDS.0 + 500));
    // The owner's own key of the same name is another key.
    let withdrawal = key(owner, "x", 2);
    for _ in 0..2 {
        let left = world.app.withdraw_once(owner, amount, Some(&withdrawal)).await.unwrap();
        assert_eq!(left, FUNDS);
    }
    world.check().await;
}

#[tokio::test]
async fn a_request_that_was_refused_does_not_use_up_its_key() {
    let world = World::new().await;
    let (_, owner) = world.provider("owner").await;
    let (mine, most) = (key(owner, "k", 1), Amount(FUNDS.0 + 1));
    let refused = world.app.withdraw_once(owner, most, Some(&mine)).await;
    assert!(matches!(refused, Err(AppError::InsufficientFunds { .. })), "{refused:?}");
    world.app.deposit(owner, Amount(1)).await.unwrap();
    assert_eq!(world.app.withdraw_once(owner, most, Some(&mine)).await.unwrap(), Amount::ZERO);
    world.check().await;
}

#[tokio::test]
async fn what_serves_for_a_while_is_forgotten_after_it_and_not_before() {
    let world = World::new().await;
    let (_, owner) = world.provider("owner").await;
    let party = SecretKey::generate().id();
    let now = world.advance(1).await;
    world.app.record_nonce(party, [7; 16], now).await.unwrap();
    world.app.deposit_once(owner, Amount(5), Some(&key(OwnerId([0; 16]), "k", 1))).await.unwrap();
    let nonces = "select count(*) from request_nonces";
    let keys = "select count(*) from idempotency_keys";
    world.advance(120_000).await;
    world.reconcile().await;
    assert_eq!(world.count(nonces).await, 1, "a request may still be dated so that it would be taken again");
    world.advance(2).await;
    world.reconcile().await;
    assert_eq!((world.count(nonces).await, world.count(keys).await), (0, 1));
    world.advance(24 * 60 * 60 * 1_000).await;
    world.reconcile().await;
    assert_eq!(world.count(keys).await, 0);
    let changed = world.pool.execute("update move_refusals set code = 'x'").await;
    assert!(changed.is_ok(), "no row, no change");
}

/// Forty submissions against a balance for ten, thirty leases against stake for three, withdrawals in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_overdrawn_or_granted_twice_however_many_ask_at_once() {
    let world = World::new().await;
    let model = world.toy().model.id();
    let stake = parameters().stake_per_job;
    let keep = Amount(10 * PRICE.0 + 3);
    world.app.withdraw(world.submitter, Amount(FUNDS.0 - keep.0)).await.unwrap();
    let submissions = (0..40).map(|_| {
        let (app, submitter, input) = (world.app.clone(), world.submitter, input(&world));
        tokio::spawn(async move { app.submit_job(submitter, model, input).await.is_ok() })
    });
    let mut made = 0;
    for done in submissions.collect::<Vec<_>>() {
        made += u32::from(done.await.unwrap());
    }
    assert_eq!((made, world.balance(world.submitter, "free").await), (10, Amount(3)));
    world.check().await;

    // One owner with six workers, all of which draw on its balance, and a withdrawal that wants it too.
    let (owner_key, owner) = world.provider("rack").await;
    world.app.withdraw(owner, Amount(FUNDS.0 - 3 * stake.0)).await.unwrap();
    let mut workers = Vec::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        let worker = SecretKey::generate();
        world.app.register_worker(owner_key.id(), worker.id(), name, "").await.unwrap();
        workers.push(worker.id());
    }
    let leases = (0..30).map(|i| {
        let (app, worker) = (world.app.clone(), workers[i % workers.len()]);
        tokio::spawn(async move { matches!(app.lease(worker, &[model], Duration::ZERO).await, Ok(Some(_))) })
    });
    let withdrawals = (0..5).map(|_| {
        let app = world.app.clone();
        tokio::spawn(async move { app.withdraw(owner, stake).await.is_ok() })
    });
    let (leases, withdrawals): (Vec<_>, Vec<_>) = (leases.collect(), withdrawals.collect());
    let mut taken = 0;
    for done in leases.into_iter().chain(withdrawals) {
        taken += i64::from(done.await.unwrap());
    }
    assert_eq!(taken, 3, "stake for three is given away three times");
    let held = world.count("select count(*) from leases where state = 'held'").await;
    assert_eq!(world.balance(owner, "locked").await, Amount(held * stake.0));
    assert_eq!(world.balance(owner, "free").await, Amount::ZERO);
    world.check().await;
}

#[tokio::test]
async fn one_claim_that_cannot_be_paid_does_not_keep_the_others_from_it() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(world.claimed(&worker, Fault::None).await.job);
    }
    let broken = format!(
        "create function break_one() returns trigger language plpgsql as
             $$ begin raise exception 'broken by the test'; end $$;
         create trigger broken before insert on settlements for each row when (new.job_id = '{}')
             execute function break_one()",
        jobs[1]
    );
    world.pool.execute(sqlx::raw_sql(AssertSqlSafe(broken))).await.unwrap();
    world.advance(parameters().window_ms).await;
    assert!(world.app.finalize_claims().await.is_err(), "the failure is told");
    let states = async || {
        [world.job(jobs[0]).await.state, world.job(jobs[1]).await.state, world.job(jobs[2]).await.state]
    };
    assert_eq!(states().await, [JobState::Finalized, JobState::Claimed, JobState::Finalized]);
    world.check().await;
    world.pool.execute("drop function break_one cascade").await.unwrap();
    world.reconcile().await;
    assert_eq!(states().await, [JobState::Finalized; 3]);
}

/// The submitter and the cheat in one hand: nobody else gets the job again, so that it is never decided.
#[tokio::test]
async fn a_provers_reward_is_not_withheld_by_a_job_that_is_never_decided() {
    let world = World::new().await;
    let (cheat, challenger) = (world.worker("cheat").await, world.challenger("challenger").await);
    let claimed = world.claimed(&cheat, fault(&world.builder)).await;
    let id = claimed.open(&world, &claimed.opening(&challenger).unwrap()).await;
    claimed.play(&world, id, &cheat, &challenger).await;
    world.advance(parameters().hold_ms).await;
    assert_eq!(world.reconcile().await.holds, 0, "the job may still be decided");
    world.advance(lifecycle::longest_decision_ms(&parameters()) - 1).await;
    assert_eq!(world.reconcile().await.holds, 0);
    world.advance(1).await;
    assert_eq!(world.reconcile().await.holds, 1);
    assert_eq!(world.job(claimed.job).await.state, JobState::Submitted);
    assert!(world.balance(challenger.owner, "free").await > FUNDS);
}

// ── what a worker could not defend ──────────────────────────────────────────────────────────────────────────

/// Leases a job, works on it for so long, and claims it.
async fn work_for(world: &World, worker: &Party, ms: u64) {
    world.submit().await;
    let grant = world.lease(worker).await.expect("a lease is given");
    for _ in 0..ms / 4_000 {
        world.advance(4_000).await;
        world.app.heartbeat(worker.id(), grant.lease).await.unwrap();
    }
    world.advance(ms % 4_000).await;
    world.post(worker, &grant, Fault::None).await;
}

#[tokio::test]
async fn a_worker_that_could_not_defend_all_it_claimed_gets_no_more() {
    // Half of the allowance is fifteen seconds.
    let world = World::new().await;
    let worker = world.worker("worker").await;
    work_for(&world, &worker, 9_000).await;
    work_for(&world, &worker, 6_000).await;
    world.submit().await;
    let at_the_limit = world.lease(&worker).await.expect("fifteen seconds fit");
    world.advance(1_000).await;
    world.post(&worker, &at_the_limit, Fault::None).await;
    world.submit().await;
    let ask = async || world.app.lease(worker.id(), &[world.toy().model.id()], Duration::ZERO).await;
    let refused = ask().await;
    let Err(AppError::TooMuchToDefend { rerun_ms: 16_000, allowed_ms: 15_000, .. }) = refused else {
        panic!("{refused:?}")
    };
    // Others may; and it may again once the oldest claims are decided.
    assert!(world.lease(&world.worker("other").await).await.is_some());
    world.submit().await;
    world.advance(parameters().window_ms).await;
    world.reconcile().await;
    assert!(ask().await.unwrap().is_some());
    world.check().await;
}

#[tokio::test]
async fn jobs_that_ran_at_once_count_once() {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    let mut grants = Vec::new();
    for _ in 0..4 {
        world.submit().await;
        grants.push(world.lease(&worker).await.unwrap());
    }
    world.advance(4_500).await;
    for grant in &grants {
        world.post(&worker, grant, Fault::None).await;
    }
    world.submit().await;
    world.advance(1).await;
    assert!(world.lease(&worker).await.is_some(), "four and a half seconds, not eighteen");
}

// ── two claims for one lease, brought by somebody else ──────────────────────────────────────────────────────

struct Guilty {
    world: World,
    worker: Party,
    pair: Vec<u8>,
}

/// A worker that has posted one claim, and shown another for the same lease to somebody.
async fn equivocated() -> Guilty {
    let world = World::new().await;
    let worker = world.worker("worker").await;
    world.submit().await;
    let grant = world.lease(&worker).await.unwrap();
    let posted = world.claim_for(&worker, &grant, &world.builder.build(Fault::None, 1));
    let shown = world.claim_for(&worker, &grant, &world.builder.build(fault(&world.builder), 1));
    let pair = Equivocation::new(posted, shown).to_bytes();
    let reporter = world.challenger("hasty").await;
    let early = world.app.report_equivocation(reporter.id(), &pair).await;
    assert!(matches!(early, Err(AppError::LeaseHeld(_))), "what it costs is not known yet: {early:?}");
    world.post(&worker, &grant, Fault::None).await;
    Guilty { world, worker, pair }
}

#[tokio::test]
async fn whoever_brings_two_claims_for_one_lease_is_the_prover() {
    let Guilty { world, worker, pair } = equivocated().await;
    let (first, second) = (world.challenger("first").await, world.worker("second").await);
    let conviction = world.app.report_equivocation(first.id(), &pair).await.unwrap();
    world.check().await;
    assert_eq!(conviction.worker, worker.id());
    assert!(conviction.rejected.is_some());
    let again = world.app.report_equivocation(second.id(), &pair).await;
    assert!(matches!(again, Err(AppError::Equivocation(_))), "{again:?}");

    let stake = parameters().stake_per_job;
    assert_eq!(world.system("held").await, stake);
    world.advance(parameters().hold_ms + lifecycle::longest_decision_ms(&parameters())).await;
    assert_eq!(world.reconcile().await.holds, 1);
    let fixed = stake.share(parameters().slash_to_treasury_ppm).0
        + stake.share(parameters().slash_to_submitter_ppm).0;
    assert_eq!(world.balance(first.owner, "free").await, Amount(FUNDS.0 + stake.0 - fixed));
    assert_eq!(world.balance(second.owner, "free").await, FUNDS);
    assert_eq!(world.balance(worker.owner, "free").await, Amount(FUNDS.0 - stake.0));
    let refused = world.app.lease(worker.id(), &[world.toy().model.id()], Duration::ZERO).await;
    assert!(matches!(refused, Err(AppError::WorkerSuspended(_))), "{refused:?}");
}

#[tokio::test]
async fn a_report_after_the_claim_was_paid_suspends_and_takes_nothing_back() {
    let Guilty { world, worker, pair } = equivocated().await;
    world.advance(parameters().window_ms).await;
    world.reconcile().await;
    let before = world.balance(worker.owner, "free").await;
    let reporter = world.challenger("reporter").await;
    let conviction = world.app.report_equivocation(reporter.id(), &pair).await.unwrap();
    assert_eq!(conviction.rejected, None);
    world.check().await;
    assert_eq!(world.balance(worker.owner, "free").await, before);
    let refused = world.app.lease(worker.id(), &[world.toy().model.id()], Duration::ZERO).await;
    assert!(matches!(refused, Err(AppError::WorkerSuspended(_))), "{refused:?}");
}

#[tokio::test]
async fn a_report_convicts_by_what_it_holds_and_by_nothing_else() {
    let Guilty { world, worker, pair } = equivocated().await;
    let reporter = world.challenger("reporter").await;
    let report = async |bytes: &[u8]| world.app.report_equivocation(reporter.id(), bytes).await;
    assert!(matches!(report(b"x").await, Err(AppError::MalformedClaim(_))));
    let real = Equivocation::from_bytes(&pair).unwrap();
    let [one, other] = real.claims();
    let twice = Equivocation::new(one.clone(), one.clone()).to_bytes();
    assert!(matches!(report(&twice).await, Err(AppError::NoEquivocation(_))));
    let mut forged = other.clone();
    forged.body.output[0] ^= 1;
    let forged = Equivocation::new(one.clone(), forged).to_bytes();
    assert!(matches!(report(&forged).await, Err(AppError::NoEquivocation(_))));
    // Signed for leases that this worker never had.
    let mut elsewhere = [one.body.clone(), other.body.clone()];
    elsewhere.iter_mut().for_each(|claim| claim.lease.0[15] ^= 1);
    let [a, b] = elsewhere.map(|claim| gainsay_commitment::Signed::sign(claim, &worker.key));
    assert!(matches!(report(&Equivocation::new(a, b).to_bytes()).await, Err(AppError::UnknownLease(_))));
    let stranger = SecretKey::generate().id();
    let unknown = world.app.report_equivocation(stranger, &pair).await;
    assert!(matches!(unknown, Err(AppError::UnknownParty { .. })), "{unknown:?}");
    world.check().await;
    assert_eq!(world.count("select count(*) from equivocations").await, 0);
}
