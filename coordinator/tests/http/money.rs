//! Money over HTTP: requests that are sent again, audits, withdrawal of a profile.

use gainsay_api::ErrorCode;
use gainsay_api::accounts::{AccountKind, AccountsQuery};
use gainsay_api::client::Auth;
use gainsay_api::jobs::{JobQuery, JobState};
use gainsay_api::voids::VoidProfile;
use gainsay_commitment::{Canonical, Signed};
use gainsay_protocol::{Equivocation, VoidStatement};
use gainsay_testkit::{OPERATOR_TOKEN, TestOwner};

use crate::raw::{bearer, send};
use crate::world::{FUNDS, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_about_money_counts_once_under_its_key() {
    let world = World::new().await;
    let with_key = |token: &str, key: &str| {
        let mut headers = bearer(token);
        headers.push(("Idempotency-Key".to_owned(), key.to_owned()));
        headers
    };
    let deposit = format!(r#"{{"to":"{}","amount":700}}"#, world.submitter.id);
    let operator = with_key(OPERATOR_TOKEN, "d-1");
    for _ in 0..2 {
        let answer = send(&world.test, "POST", "/v1/deposits", &operator, deposit.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["sum"], FUNDS + 700);
    }
    let more = deposit.replace("700", "701");
    let other = send(&world.test, "POST", "/v1/deposits", &operator, more.as_bytes()).await;
    other.refused(409, ErrorCode::IdempotencyKeyReused);

    let mine = with_key(&world.submitter.api_key, "j-1");
    let job = format!(r#"{{"model":"{}","input":"one two"}}"#, world.model.id());
    let first = send(&world.test, "POST", "/v1/jobs", &mine, job.as_bytes()).await;
    let again = send(&world.test, "POST", "/v1/jobs", &mine, job.as_bytes()).await;
    assert_eq!((first.status, &first.body), (202, &again.body));
    // The same key on another route is another request.
    let elsewhere = send(&world.test, "POST", "/v1/embeddings", &mine, job.as_bytes()).await;
    elsewhere.refused(409, ErrorCode::IdempotencyKeyReused);
    let withdrawal = with_key(&world.submitter.api_key, "w");
    let withdrawn = send(&world.test, "POST", "/v1/withdrawals", &withdrawal, br#"{"amount":1}"#).await;
    assert_eq!(withdrawn.status, 200, "{}", withdrawn.text());
    for bad in ["", "two words", &"x".repeat(256)] {
        let headers = with_key(OPERATOR_TOKEN, bad);
        let refused = send(&world.test, "POST", "/v1/deposits", &headers, deposit.as_bytes()).await;
        refused.refused(400, ErrorCode::InvalidRequest);
    }
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_can_audit_the_books_from_outside() {
    let world = World::new().await;
    world.submit("one two").await;
    let lease = world.lease(&world.owner.worker).await.expect("there is a job");
    world.post(&world.run(&lease), &lease, &world.owner.worker).await;
    world.close_windows().await;
    world.submit("three").await;
    world.lease(&world.owner.worker).await.expect("there is a job");
    let report = world.client.audit(OPERATOR_TOKEN).await.expect("an audit");
    assert_eq!(report.findings, []);
    // Two deposits, two submissions, two leases, one payment.
    assert_eq!(report.transactions, 7);
    let refusal = world.client.audit(&world.submitter.api_key).await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::InvalidOperatorToken));
    let path = "/v1/audit/transactions?snapshot=1/2:3:;drop";
    let refused = send(&world.test, "GET", path, &bearer(OPERATOR_TOKEN), &[]).await;
    refused.refused(400, ErrorCode::InvalidRequest);

    use sqlx::{Connection as _, Executor as _};
    let mut connection =
        sqlx::PgConnection::connect(world.test.database().url()).await.expect("the database");
    connection
        .execute(sqlx::raw_sql(
            "set session_replication_role = replica; update accounts set balance = balance - 1 where kind = 'treasury'",
        ))
        .await
        .expect("a superuser may");
    let report = world.client.audit(OPERATOR_TOKEN).await.expect("an audit");
    assert_eq!(report.findings.len(), 2, "{:?}", report.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_profile_is_public_and_gives_everything_back() {
    let world = World::new().await;
    let job = world.submit("one").await;
    let lease = world.lease(&world.owner.worker).await.expect("there is a job");
    world.post(&world.run(&lease), &lease, &world.owner.worker).await;
    let void = VoidProfile { arithmetic: "exact-f32/1".to_owned(), reason: "a fault".to_owned() };
    let refusal = world.client.void(&world.submitter.api_key, &void).await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::InvalidOperatorToken));
    let unknown = VoidProfile { arithmetic: "exact-f32/9".to_owned(), ..void.clone() };
    let refusal = world.client.void(OPERATOR_TOKEN, &unknown).await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::InvalidRequest));

    let published = world.client.void(OPERATOR_TOKEN, &void).await.expect("the operator may");
    assert_eq!(world.client.voids().await.expect("anyone may read").voids, std::slice::from_ref(&published));
    let statement = Signed::<VoidStatement>::from_bytes(&published.statement.0).expect("a statement");
    statement.verify().expect("the coordinator signed it");
    assert_eq!((statement.signer, statement.body.reason.as_str()), (world.test.id(), "a fault"));
    let view =
        world.client.job(&world.submitter.api_key, job.id, JobQuery::default()).await.expect("the job");
    assert_eq!(view.state, JobState::Voided);
    assert!(view.state.is_decided());
    let refusal = world.client.submit_job(&world.submitter.api_key, &world.job("two")).await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::ProfileVoided));
    let free = async |auth: Auth<'_>, owner| {
        let accounts = world.client.accounts(auth, AccountsQuery::default()).await.expect("accounts");
        accounts.balance(owner, AccountKind::Free)
    };
    assert_eq!(free(Auth::Bearer(&world.submitter.api_key), world.submitter.id).await, FUNDS);
    assert_eq!(free(Auth::Key(&world.owner.key), world.owner.id).await, FUNDS);
    assert!(!world.client.models().await.expect("models").data[0].complete);
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anyone_registered_may_report_two_claims_for_one_lease() {
    let world = World::new().await;
    world.submit("one two").await;
    let worker = &world.owner.worker;
    let lease = world.lease(worker).await.expect("there is a job");
    let (honest, other) = (world.run(&lease), world.run_with(&lease, |_, bytes| bytes[2] ^= 0x40));
    world.post(&honest, &lease, worker).await;
    let claims = [&honest, &other].map(|run| run.claim(world.test.id(), &lease, worker));
    let [one, two] = claims;
    let pair = Equivocation::new(one, two).to_bytes();
    let reporter = TestOwner::register(&world.client, "reporter", FUNDS).await;
    let found =
        world.client.report_equivocation(&reporter.challenger, pair.clone()).await.expect("it convicts");
    assert_eq!((found.worker, found.lease), (worker.id(), lease.id));
    assert!(found.rejected.is_some());
    let refusal = world.client.report_equivocation(&reporter.worker, pair).await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::Equivocation));
    world.test.stop().await;
}
