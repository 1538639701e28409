//! A job's life over HTTP: queued, leased, claimed, final, paid.

use std::time::Duration;

use gainsay_api::ErrorCode;
use gainsay_api::accounts::{AccountKind, AccountsQuery};
use gainsay_api::claims::{ClaimFilter, ClaimState};
use gainsay_api::client::Auth;
use gainsay_api::jobs::{Finality, JobQuery, JobState, WaitFor};
use gainsay_api::leases::LeaseRequest;
use gainsay_commitment::Signed;
use gainsay_protocol::{Claim, ClaimReceipt, DisputeTerms, ServiceTime};
use gainsay_testkit::OPERATOR_TOKEN;

use crate::world::{FUNDS, World};

#[tokio::test(flavor = "multi_thread")]
async fn honest_work_is_paid_when_its_window_has_closed() {
    let world = World::new().await;
    let key = &world.submitter.api_key;
    let job = world.submit("one two three").await;
    assert_eq!((job.state, job.tokens, job.sequences), (JobState::Submitted, 3, 1));
    let lease = world.lease(&world.owner.worker).await.expect("there is a job");
    assert_eq!((lease.job_id, lease.model, lease.price), (job.id, world.model.id(), job.price));
    let refusal = world.client.receipt(key, job.id).await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::JobPending));

    let run = world.run(&lease);
    let accepted = world.post(&run, &lease, &world.owner.worker).await;
    assert_eq!(
        world.post(&run, &lease, &world.owner.worker).await,
        accepted,
        "the same bytes, the same answer"
    );
    let view = world.client.job(key, job.id, JobQuery::default()).await.expect("the job");
    let answer = view.answer.expect("an answer");
    assert_eq!((view.state, answer.finality), (JobState::Claimed, Finality::Pending));
    assert_eq!(answer.output.0, run.answer());

    let free = async |auth: Auth<'_>, owner| {
        let accounts = world.client.accounts(auth, AccountsQuery::default()).await.expect("accounts");
        accounts.balance(owner, AccountKind::Free)
    };
    let owner = Auth::Key(&world.owner.key);
    assert_eq!(free(owner, world.owner.id).await, FUNDS - lease.stake, "paid before the window closed");
    world.close_windows().await;
    let fee = gainsay_protocol::Amount(job.price).share(world.test.app().config().parameters.fee_ppm).0;
    assert_eq!(free(owner, world.owner.id).await, FUNDS + job.price - fee);
    assert_eq!(free(Auth::Bearer(key), world.submitter.id).await, FUNDS - job.price);

    let receipt = world.client.receipt(key, job.id).await.expect("a receipt");
    assert_eq!(receipt.finality, Finality::Final);
    assert_eq!((receipt.paid_worker, receipt.paid_fee, receipt.returned), (job.price - fee, fee, 0));
    assert_eq!(receipt.device.as_deref(), Some("a test's own processor"));
    assert_eq!((receipt.model, receipt.layers), (world.model.id(), run.layers()));
    assert_eq!(receipt.worker.name, "owner's worker");
    let signed = Signed::<Claim>::from_bytes(&receipt.signed_claim.0).expect("the worker's words");
    signed.verify().expect("the worker signed them");
    assert_eq!(signed.signer, world.owner.worker.id());
    let body = ClaimReceipt {
        claim: receipt.claim,
        time: ServiceTime(accepted.accepted_at_ms),
        terms: DisputeTerms {
            window_closes: ServiceTime(accepted.window_closes_at_ms),
            worker_allowance_ms: accepted.worker_allowance_ms,
            challenger_allowance_ms: accepted.challenger_allowance_ms,
        },
    };
    let countersigned = Signed { body, signer: world.test.id(), signature: receipt.countersignature };
    countersigned.verify().expect("the coordinator countersigned it");

    let all = AccountsQuery { all: true };
    let all = world.client.accounts(Auth::Bearer(OPERATOR_TOKEN), all).await.expect("all accounts");
    assert_eq!(all.sum, 0);
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_ends_with_the_job_it_waits_for() {
    let world = World::new().await;
    let request = LeaseRequest { models: vec![world.model.id()], max: 4, held: Vec::new() };
    let worker = &world.owner.worker;
    let waiting = world.client.lease(worker, &request, Duration::from_secs(20));
    let submitting = async {
        // Whether the poll has begun or not, it must see the job.
        world.submit("one").await
    };
    let (leases, job) = tokio::join!(waiting, submitting);
    let leases = leases.expect("the poll is answered").leases;
    assert_eq!(leases.iter().map(|lease| lease.job_id).collect::<Vec<_>>(), [job.id]);

    let key = world.submitter.api_key.clone();
    let query = JobQuery { wait_ms: Some(20_000), until: WaitFor::Answer };
    let reading = world.client.job(&key, job.id, query);
    let claiming = async { world.post(&world.run(&leases[0]), &leases[0], worker).await };
    let (view, _) = tokio::join!(reading, claiming);
    assert!(view.expect("the poll is answered").answer.is_some());

    let query = JobQuery { wait_ms: Some(20_000), until: WaitFor::Final };
    let reading = world.client.job(&key, job.id, query);
    let (view, ()) = tokio::join!(reading, world.close_windows());
    assert_eq!(view.expect("the poll is answered").state, JobState::Finalized);
    world.test.stop().await;
}

/// An answer lost on its way, or a worker that restarts, must not cost a lease and its fee.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_its_worker_does_not_know_is_given_again() {
    let world = World::new().await;
    world.submit("one").await;
    world.submit("two").await;
    let worker = &world.owner.worker;
    let first = world.lease(worker).await.expect("there is a job");
    let ask = async |held: Vec<_>| {
        let request = LeaseRequest { models: vec![world.model.id()], max: 1, held };
        world.client.lease(worker, &request, Duration::ZERO).await.expect("a worker may ask").leases
    };
    let again = ask(Vec::new()).await;
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].id, &again[0].job), (first.id, &first.job));
    let next = ask(vec![first.id]).await;
    assert_ne!(next[0].id, first.id);
    assert!(ask(vec![first.id, next[0].id]).await.is_empty());
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_can_be_withdrawn_until_a_worker_has_it() {
    let world = World::new().await;
    let key = &world.submitter.api_key;
    let free = async || {
        let accounts =
            world.client.accounts(Auth::Bearer(key), AccountsQuery::default()).await.expect("accounts");
        accounts.balance(world.submitter.id, AccountKind::Free)
    };
    let job = world.submit("one").await;
    assert_eq!(free().await, FUNDS - job.price);
    assert_eq!(world.client.cancel_job(key, job.id).await.expect("nobody has it").state, JobState::Cancelled);
    assert_eq!(free().await, FUNDS);
    let job = world.submit("one").await;
    world.lease(&world.owner.worker).await.expect("there is a job");
    let refusal = world.client.cancel_job(key, job.id).await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::NotCancellable));
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_listed_in_pages_without_gap_or_repetition() {
    let world = World::new().await;
    let mut posted = Vec::new();
    for text in ["one", "two", "three", "four", "five"] {
        world.submit(text).await;
        let lease = world.lease(&world.owner.worker).await.expect("there is a job");
        posted.push(world.post(&world.run(&lease), &lease, &world.owner.worker).await.id);
        world.test.advance(1).await;
    }
    let mut listed = Vec::new();
    let mut filter = ClaimFilter { limit: Some(2), ..ClaimFilter::default() };
    loop {
        let page = world.client.claims(&filter).await.expect("a page");
        assert!(page.claims.len() <= 2);
        listed.extend(page.claims.iter().map(|claim| claim.id));
        filter.after = listed.last().copied();
        if !page.more {
            break;
        }
    }
    assert_eq!(listed, posted);
    let none = ClaimFilter { state: Some(ClaimState::Finalized), ..ClaimFilter::default() };
    assert!(world.client.claims(&none).await.expect("a page").claims.is_empty());
    world.close_windows().await;
    assert_eq!(world.client.claims(&none).await.expect("a page").claims.len(), 5);
    world.test.stop().await;
}
