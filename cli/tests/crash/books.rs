//! What must be true once everything is decided, whoever was killed in between.
//!
//! The service is asked for everything that it has: the log of events, the claims, the disputes, the accounts. Which
//! claims are right is computed here, by the reference executor, from the jobs as they were claimed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gainsay_api::accounts::{AccountKind, Accounts, AccountsQuery};
use gainsay_api::claims::{ClaimFilter, ClaimState, ClaimSummary, ClaimView};
use gainsay_api::client::Auth;
use gainsay_api::disputes::{DisputeFilter, DisputeState, DisputeSummary, Verdict, VerdictReason};
use gainsay_api::events::{EventCursor, EventKind};
use gainsay_api::jobs::{JobQuery, JobState, JobView};
use gainsay_commitment::{Canonical as _, ClaimId, Signed};
use gainsay_program::toy::ToyOptions;
use gainsay_protocol::{Claim, Job, JobId, OwnerId, Parameters};
use gainsay_testkit::{OPERATOR_TOKEN, ToyModel, ToyRun};
use tokio::time::Instant;

use crate::world::{CREDITS, World};

/// What came of everything, to be printed.
#[derive(Default)]
pub(crate) struct Outcome {
    jobs: usize,
    honest_claims: usize,
    false_claims: usize,
    disputes: usize,
    moves: u32,
    lost_leases: usize,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { jobs, honest_claims, false_claims, disputes, moves, lost_leases } = self;
        write!(
            f,
            "{jobs} jobs, {honest_claims} right and {false_claims} false claims, {disputes} disputes of {moves} \
             moves, {lost_leases} leases lost"
        )
    }
}

/// Until everything has come to rest, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(100);

/// Waits until every job has a right claim, every false claim is rejected and every dispute is over: then nothing is
/// left to do but to let the windows close. However slow the machine is, none has closed yet.
pub(crate) async fn at_rest(world: &World) {
    let mut judged = BTreeMap::<ClaimId, bool>::new();
    until("every job to have a right claim, and every false claim to be rejected", async || {
        world.check();
        let jobs = world.job_count()?;
        let mut standing = 0;
        for claim in listed_claims(world).await {
            if let Entry::Vacant(vacant) = judged.entry(claim.id) {
                vacant.insert(Checked::new(world, &world.client.claim(claim.id).await.unwrap()).is_right);
            }
            match (judged[&claim.id], claim.state) {
                (true, ClaimState::Open) => standing += 1,
                (false, ClaimState::Rejected) => {}
                (false, ClaimState::Open) => return None,
                other => {
                    panic!("claim {} of {}: right and in which state: {other:?}", claim.id, claim.worker.name)
                }
            }
        }
        let is_over = |dispute: &DisputeSummary| dispute.state == DisputeState::Decided;
        (standing == jobs && disputes(world).await.iter().all(is_over)).then_some(())
    })
    .await;
}

/// Waits for something that must come.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until every job is decided and every hold is paid, then checks it all.
pub(crate) async fn check(world: &World) -> Outcome {
    settled(world).await;
    let log = Log::read(world).await;
    let accounts = all_accounts(world).await;
    let mut outcome =
        Outcome { jobs: log.jobs.len(), lost_leases: log.lost_leases.len(), ..Outcome::default() };
    let lost: Vec<_> = world.accepted().into_iter().filter(|job| !log.jobs.contains(job)).collect();
    assert!(lost.is_empty(), "jobs that were accepted are gone: {lost:?}");

    let claims = claims(world).await;
    let mut by_job = BTreeMap::<JobId, Vec<Checked>>::new();
    for view in &claims {
        let checked = Checked::new(world, view);
        outcome.honest_claims += usize::from(checked.is_right);
        outcome.false_claims += usize::from(!checked.is_right);
        by_job.entry(checked.job).or_default().push(checked);
    }
    let mut paid = BTreeMap::<OwnerId, i64>::new();
    for job in &log.jobs {
        let view = job_view(world, *job).await;
        check_job(&view, by_job.get(job).map_or(&[], Vec::as_slice));
        let receipt = world.client.receipt(&world.submitter().api_key, *job).await.unwrap();
        assert_eq!(receipt.paid_worker + receipt.paid_fee + receipt.returned, view.price, "{receipt:?}");
        *paid.entry(receipt.owner).or_default() += receipt.paid_worker;
    }
    let disputes = disputes(world).await;
    outcome.disputes = disputes.len();
    outcome.moves = disputes.iter().map(|dispute| dispute.move_count).sum();
    check_disputes(&disputes, &by_job);
    log.check_decisions(&by_job);
    check_accounts(world, &accounts, &log, &paid, outcome.false_claims);
    let audit = world.client.audit(OPERATOR_TOKEN).await.unwrap();
    assert!(audit.findings.is_empty(), "the books are not in order: {:?}", audit.findings);
    outcome
}

/// Waits until nothing is in escrow, locked or held.
async fn settled(world: &World) {
    until("every job to be decided and every hold to be paid", async || {
        world.check();
        let accounts = all_accounts(world).await;
        let pending = |kind| matches!(kind, AccountKind::Escrow | AccountKind::Locked | AccountKind::Held);
        accounts.accounts.iter().all(|account| !pending(account.kind) || account.balance == 0).then_some(())
    })
    .await
}

async fn all_accounts(world: &World) -> Accounts {
    world.client.accounts(Auth::Bearer(OPERATOR_TOKEN), AccountsQuery { all: true }).await.unwrap()
}

async fn job_view(world: &World, job: JobId) -> JobView {
    world.client.job(&world.submitter().api_key, job, JobQuery::default()).await.unwrap()
}

async fn claims(world: &World) -> Vec<ClaimView> {
    let mut views = Vec::new();
    for claim in listed_claims(world).await {
        views.push(world.client.claim(claim.id).await.unwrap());
    }
    views
}

async fn listed_claims(world: &World) -> Vec<ClaimSummary> {
    let mut all = Vec::new();
    let mut filter = ClaimFilter::default();
    loop {
        let page = world.client.claims(&filter).await.unwrap();
        filter.after = page.claims.last().map(|claim| claim.id);
        all.extend(page.claims);
        if !page.more {
            return all;
        }
    }
}

async fn disputes(world: &World) -> Vec<DisputeSummary> {
    let mut all = Vec::new();
    let mut filter = DisputeFilter::default();
    loop {
        let page = world.client.disputes(&filter).await.unwrap();
        filter.after = page.disputes.last().map(|dispute| dispute.id);
        all.extend(page.disputes);
        if !page.more {
            return all;
        }
    }
}

/// A claim, and what the reference executor says of it.
struct Checked {
    id: ClaimId,
    job: JobId,
    state: ClaimState,
    is_right: bool,
    worker: String,
    output: Vec<u8>,
}

impl Checked {
    fn new(world: &World, view: &ClaimView) -> Checked {
        let claim = Signed::<Claim>::from_bytes(&view.signed.0).unwrap().body;
        let job = Job::from_bytes(&view.job.0).unwrap();
        let run = ToyRun::new(&world.model, job.embedding_input().unwrap(), |_, _| {});
        let worker = view.summary.worker.name.clone();
        let is_right = claim.layers == run.layers() && claim.output == run.answer();
        assert!(
            is_right || is_cheat(&worker),
            "{worker} is honest and has made the false claim {}",
            view.summary.id
        );
        Checked {
            id: view.summary.id,
            job: view.summary.job_id,
            state: view.summary.state,
            is_right,
            worker,
            output: claim.output,
        }
    }
}

fn is_cheat(worker: &str) -> bool {
    worker.starts_with("cheat-")
}

/// Right claims are final, one a job; false ones are rejected.
fn check_job(job: &JobView, claims: &[Checked]) {
    assert_eq!(job.state, JobState::Finalized, "{job:?}");
    for claim in claims {
        let expected = if claim.is_right { ClaimState::Finalized } else { ClaimState::Rejected };
        assert_eq!(claim.state, expected, "claim {} of {} on job {}", claim.id, claim.worker, job.id);
    }
    let right: Vec<_> = claims.iter().filter(|claim| claim.is_right).collect();
    let [right] = right.as_slice() else { panic!("{} right claims on job {}", right.len(), job.id) };
    assert_eq!(job.rejected_attempts as usize, claims.len() - 1, "{job:?}");
    let answer = job.answer.as_ref().unwrap();
    assert_eq!(answer.claim, right.id, "job {} has another answer than its right one", job.id);
    assert_eq!(answer.output.0, right.output, "job {}", job.id);
}

/// Every dispute is over; each false claim was proven wrong once, by the referee; no right claim lost one, and no
/// party lost by its clock.
fn check_disputes(disputes: &[DisputeSummary], by_job: &BTreeMap<JobId, Vec<Checked>>) {
    let mut convicted = BTreeSet::new();
    for dispute in disputes {
        assert_eq!(dispute.state, DisputeState::Decided, "{dispute:?}");
        let decision = dispute.decision.as_ref().unwrap();
        match (decision.verdict, decision.reason) {
            (Verdict::ChallengerWins, VerdictReason::Referee) => {
                assert!(convicted.insert(dispute.claim), "claim {} was rejected twice", dispute.claim);
            }
            (Verdict::Moot, VerdictReason::AnotherDispute) => {}
            other => panic!("a dispute about a false claim ended with {other:?}: {dispute:?}"),
        }
    }
    let claims = by_job.values().flatten();
    let is_false: BTreeSet<_> = claims.filter(|claim| !claim.is_right).map(|claim| claim.id).collect();
    assert_eq!(convicted, is_false, "proven wrong, and wrong");
}

/// The whole log of events.
#[derive(Default)]
struct Log {
    jobs: BTreeSet<JobId>,
    finalized: Vec<ClaimId>,
    rejected: Vec<ClaimId>,
    suspended: Vec<String>,
    /// Workers, one entry a lease.
    lost_leases: Vec<String>,
    fees: BTreeMap<String, i64>,
}

impl Log {
    /// Reads it from its first event up to one that is made for the purpose.
    async fn read(world: &World) -> Log {
        let mut events = world.client.events(Some(EventCursor::start()));
        let last = ToyModel::new(&ToyOptions { seed: 2, ..ToyOptions::default() });
        last.publish(&world.client).await;
        let mut log = Log::default();
        loop {
            match events.next().await.unwrap().kind {
                EventKind::JobSubmitted { job, .. } => {
                    log.jobs.insert(job);
                }
                EventKind::ClaimFinalized { claim, .. } => log.finalized.push(claim),
                EventKind::ClaimRejected { claim, .. } => log.rejected.push(claim),
                EventKind::WorkerSuspended { worker, .. } => log.suspended.push(worker.name),
                EventKind::LeaseReturned { worker, fee, .. } => {
                    *log.fees.entry(owner_of(&worker.name)).or_default() += fee;
                }
                EventKind::LeaseLost { worker, fee, .. } => {
                    *log.fees.entry(owner_of(&worker.name)).or_default() += fee;
                    log.lost_leases.push(worker.name);
                }
                EventKind::ModelReady { model, .. } if model == last.id() => return log,
                _ => {}
            }
        }
    }

    /// Each claim was decided once, as it should; nobody but cheats was suspended, each once.
    fn check_decisions(&self, by_job: &BTreeMap<JobId, Vec<Checked>>) {
        let claims = || by_job.values().flatten();
        let sorted = |mut ids: Vec<ClaimId>| {
            ids.sort();
            ids
        };
        let is = |right: bool| {
            claims().filter(move |claim| claim.is_right == right).map(|claim| claim.id).collect()
        };
        assert_eq!(sorted(self.finalized.clone()), sorted(is(true)), "finalized once each");
        assert_eq!(sorted(self.rejected.clone()), sorted(is(false)), "rejected once each");
        let convicted: BTreeSet<_> =
            claims().filter(|claim| !claim.is_right).map(|claim| &claim.worker).collect();
        let suspended: BTreeSet<_> = self.suspended.iter().collect();
        assert_eq!(suspended, convicted);
        assert_eq!(suspended.len(), self.suspended.len(), "suspended once each");
    }
}

/// Workers and challengers go by their owners' names here, but for those of the one who cheats.
fn owner_of(worker: &str) -> String {
    if is_cheat(worker) { "mallory".to_owned() } else { worker.to_owned() }
}

/// An owner has what it began with and what its receipts say, less the
/// fees for leases that it could not keep; the cheat has lost a stake for every false claim, and challengers have part
/// of that.
fn check_accounts(
    world: &World,
    accounts: &Accounts,
    log: &Log,
    paid: &BTreeMap<OwnerId, i64>,
    false_claims: usize,
) {
    assert_eq!(accounts.sum, 0, "{accounts:?}");
    let stakes = Parameters::default().stake_per_job.0 * false_claims as i64;
    let mut rewards = 0;
    for (name, owner) in world.owners() {
        let balance = accounts.balance(owner, AccountKind::Free);
        let fees = log.fees.get(&name).copied().unwrap_or(0);
        let gained = balance - CREDITS + fees;
        match paid.get(&owner) {
            Some(paid) => assert_eq!(gained, *paid, "{name} was not paid what its receipts say"),
            None if name == "mallory" => assert_eq!(gained, -stakes, "{false_claims} false claims"),
            None => {
                assert!(gained >= 0, "{name} is honest and has lost money");
                rewards += gained;
            }
        }
    }
    assert!(false_claims == 0 || rewards > 0, "nobody was rewarded for {false_claims} convictions");
}
