//! Who may call: API keys, the operator's token, signed requests.

use gainsay_api::ErrorCode;
use gainsay_api::parties::{Enlist, EnlistedRole, Enlistment};
use gainsay_commitment::SecretKey;
use gainsay_testkit::{OPERATOR_TOKEN, TestCoordinator, TestOwner};
use serde_json::json;

use crate::raw::{Signing, bearer, send, send_signed};
use crate::world::World;

const LEASES: &str = "/v1/leases";

fn lease_body() -> Vec<u8> {
    json!({ "models": [], "max": 1, "held": [] }).to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submitters_route_needs_its_api_key() {
    let world = World::new().await;
    let before = world.fingerprint().await;
    let body = json!({ "model": "toy", "input": "one" }).to_string().into_bytes();
    for path in ["/v1/embeddings", "/v1/jobs"] {
        send(&world.test, "POST", path, &[], &body).await.refused(401, ErrorCode::MissingCredentials);
        let wrong = [("authorization".to_owned(), "Basic eDp5".to_owned())];
        send(&world.test, "POST", path, &wrong, &body).await.refused(401, ErrorCode::MissingCredentials);
        send(&world.test, "POST", path, &bearer("gsk-unknown"), &body)
            .await
            .refused(401, ErrorCode::InvalidApiKey);
    }
    assert_eq!(before.changed(&world.fingerprint().await), [""; 0]);
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_routes_need_the_operators_token() {
    let world = World::new().await;
    let before = world.fingerprint().await;
    let body = json!({ "to": world.submitter.id.to_string(), "amount": 5 }).to_string().into_bytes();
    send(&world.test, "POST", "/v1/deposits", &[], &body).await.refused(401, ErrorCode::MissingCredentials);
    for token in ["wrong", &world.submitter.api_key, &OPERATOR_TOKEN[..5]] {
        send(&world.test, "POST", "/v1/deposits", &bearer(token), &body)
            .await
            .refused(401, ErrorCode::InvalidOperatorToken);
        send(&world.test, "GET", "/v1/accounts?all=true", &bearer(token), &[])
            .await
            .refused(401, ErrorCode::InvalidOperatorToken);
    }
    assert_eq!(before.changed(&world.fingerprint().await), [""; 0]);
    world.test.stop().await;
}

/// A service without a token must not take an empty one for it.
#[tokio::test(flavor = "multi_thread")]
async fn without_an_operator_token_nobody_is_the_operator() {
    let test = TestCoordinator::builder().config(|config| config.operator_token = None).start().await;
    for token in ["", " ", "x"] {
        let answer = send(&test, "GET", "/v1/accounts?all=true", &bearer(token), &[]).await;
        assert_eq!(answer.status, 401, "{}", answer.text());
    }
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_request_counts_once() {
    let world = World::new().await;
    let body = lease_body();
    let headers = Signing::now(&world.test, &world.owner.worker).await.headers("POST", LEASES, &body);
    assert_eq!(send(&world.test, "POST", LEASES, &headers, &body).await.status, 200);
    send(&world.test, "POST", LEASES, &headers, &body).await.refused(401, ErrorCode::ReplayedRequest);
    world.test.stop().await;
}

/// A nonce forgotten in a restart would let a recorded request through again.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_no_nonce() {
    let mut world = World::new().await;
    let body = lease_body();
    let headers = Signing::now(&world.test, &world.owner.worker).await.headers("POST", LEASES, &body);
    assert_eq!(send(&world.test, "POST", LEASES, &headers, &body).await.status, 200);
    world.test.restart().await;
    send(&world.test, "POST", LEASES, &headers, &body).await.refused(401, ErrorCode::ReplayedRequest);
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_covers_the_whole_request() {
    let world = World::new().await;
    let body = lease_body();
    let worker = &world.owner.worker;
    let signing = Signing::now(&world.test, worker).await;

    let headers = signing.headers("PUT", LEASES, &body);
    send(&world.test, "POST", LEASES, &headers, &body).await.refused(401, ErrorCode::InvalidSignature);
    let headers = signing.headers("POST", LEASES, &body);
    send(&world.test, "POST", "/v1/leases?wait_ms=1", &headers, &body)
        .await
        .refused(401, ErrorCode::InvalidSignature);
    let mut other = body.clone();
    other.push(b' ');
    send(&world.test, "POST", LEASES, &headers, &other).await.refused(401, ErrorCode::InvalidSignature);

    let elsewhere =
        Signing { coordinator: SecretKey::generate().id(), ..Signing::now(&world.test, worker).await };
    let headers = elsewhere.headers("POST", LEASES, &body);
    send(&world.test, "POST", LEASES, &headers, &body).await.refused(401, ErrorCode::InvalidSignature);

    for name in ["gainsay-party", "gainsay-time", "gainsay-nonce", "gainsay-signature"] {
        let mut headers = signing.headers("POST", LEASES, &body);
        headers.retain(|(header, _)| header != name);
        let answer = send(&world.test, "POST", LEASES, &headers, &body).await;
        answer.refused(401, ErrorCode::InvalidSignature);
        headers.push((name.to_owned(), "zz".to_owned()));
        let answer = send(&world.test, "POST", LEASES, &headers, &body).await;
        answer.refused(401, ErrorCode::InvalidSignature);
    }
    send(&world.test, "POST", LEASES, &[], &body).await.refused(401, ErrorCode::MissingCredentials);
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_request_is_fresh_for_a_minute_of_service_time() {
    let world = World::new().await;
    world.test.advance(200_000).await;
    let body = lease_body();
    for (offset, fresh) in [(-60_001, false), (-59_000, true), (59_000, true), (60_001, false)] {
        let mut signing = Signing::now(&world.test, &world.owner.worker).await;
        signing.time_ms += offset;
        let answer = send(&world.test, "POST", LEASES, &signing.headers("POST", LEASES, &body), &body).await;
        if fresh {
            assert_eq!(answer.status, 200, "{offset}: {}", answer.text());
        } else {
            answer.refused(401, ErrorCode::StaleRequest);
        }
    }
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_signature_by_a_stranger_is_not_enough() {
    let world = World::new().await;
    let before = world.fingerprint().await;
    let (stranger, body) = (SecretKey::generate(), lease_body());
    // A worker's route is not a challenger's, nor an owner's.
    for key in [&stranger, &world.owner.challenger, &world.owner.key] {
        send_signed(&world.test, key, "POST", LEASES, &body).await.refused(401, ErrorCode::UnknownParty);
    }
    for key in [&stranger, &world.owner.worker, &world.owner.challenger] {
        let body = json!({ "amount": 1 }).to_string().into_bytes();
        send_signed(&world.test, key, "POST", "/v1/withdrawals", &body)
            .await
            .refused(401, ErrorCode::UnknownParty);
    }
    assert_eq!(before.changed(&world.fingerprint().await), [""; 0]);
    world.test.stop().await;
}

/// An owner that could enlist a key without its consent could put a rival's worker under its own name.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_enlisted_without_its_own_signature() {
    let world = World::new().await;
    let before = world.fingerprint().await;
    let (coordinator, owner) = (world.test.id(), world.owner.key.id());
    let victim = SecretKey::generate();
    let enlistment = |owner, role, key: &SecretKey| {
        Enlist::new("victim", None, Enlistment { coordinator, owner, role }, key)
    };
    let foreign_owner = enlistment(victim.id(), EnlistedRole::Worker, &victim);
    let foreign_role = enlistment(owner, EnlistedRole::Challenger, &victim);
    let mut forged = enlistment(owner, EnlistedRole::Worker, &victim);
    *forged.enlistment.0.last_mut().expect("a signature") ^= 1;
    let mut cut = enlistment(owner, EnlistedRole::Worker, &victim);
    cut.enlistment.0.pop();
    let cases = [
        (foreign_owner, 403, ErrorCode::Forbidden),
        (foreign_role, 403, ErrorCode::Forbidden),
        (forged, 401, ErrorCode::InvalidSignature),
        (cut, 400, ErrorCode::InvalidEncoding),
    ];
    for (enlist, status, code) in cases {
        let body = serde_json::to_vec(&enlist).expect("it serializes");
        send_signed(&world.test, &world.owner.key, "POST", "/v1/workers", &body).await.refused(status, code);
    }
    assert_eq!(before.changed(&world.fingerprint().await), [""; 0]);
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_again_changes_nothing_but_with_other_details_is_refused() {
    let world = World::new().await;
    let before = world.fingerprint().await;
    let again = world.client.register_owner(&world.owner.key, "owner").await.expect("the same again");
    assert_eq!(again.owner, world.owner.id);
    let refusal = world.client.register_owner(&world.owner.key, "another name").await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::AlreadyRegistered));
    let other = SecretKey::generate();
    let refusal = world.client.register_owner(&other, "").await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::InvalidName));
    assert_eq!(before.changed(&world.fingerprint().await), [""; 0]);
    world.test.stop().await;
}

/// What a worker says that it runs on is its own word, and may change with its machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_registers_again_may_name_another_device_and_nothing_else() {
    let world = World::new().await;
    let (owner, worker) = (&world.owner.key, &world.owner.worker);
    let enlist = async |name: &str, device: &str| {
        world.client.enlist(owner, worker, EnlistedRole::Worker, name, Some(device.to_owned())).await
    };
    let refusal = enlist("another name", "another device").await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::AlreadyRegistered));
    for _ in 0..2 {
        enlist("owner's worker", "NVIDIA H200").await.expect("the same worker elsewhere");
    }
    let job = world.submit("one two three").await;
    let lease = world.lease(worker).await.expect("there is a job");
    world.post(&world.run(&lease), &lease, worker).await;
    let receipt = world.client.receipt(&world.submitter.api_key, job.id).await.expect("a receipt");
    assert_eq!(receipt.device.as_deref(), Some("NVIDIA H200"));
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_from_one_address_are_limited() {
    use gainsay_coordinator::bus::Quota;
    let builder = TestCoordinator::builder().http(|http| http.registrations = Quota::per_minute(2, 1));
    let test = builder.start().await;
    let body = json!({ "name": "somebody" }).to_string().into_bytes();
    for _ in 0..2 {
        assert_eq!(send(&test, "POST", "/v1/submitters", &[], &body).await.status, 201);
    }
    let answer = send(&test, "POST", "/v1/submitters", &[], &body).await;
    answer.refused(429, ErrorCode::RateLimited);
    let wait: u64 = answer.header("retry-after").and_then(|value| value.parse().ok()).expect("when to retry");
    assert!((1..=60).contains(&wait), "{wait}");
    test.stop().await;
}

/// A key whose owner may act for all of its workers: balances are the owner's alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_sees_and_moves_its_own_money_only() {
    use gainsay_api::accounts::{AccountKind, AccountsQuery, Withdraw};
    use gainsay_api::client::Auth;
    let world = World::new().await;
    let other = TestOwner::register(&world.client, "other", 500).await;
    let owner = Auth::Key(&other.key);
    let mine = world.client.accounts(owner, AccountsQuery::default()).await.expect("its own accounts");
    assert_eq!(mine.balance(other.id, AccountKind::Free), 500);
    assert_eq!(mine.balance(world.owner.id, AccountKind::Free), 0);
    let refusal = world.client.withdraw(owner, &Withdraw { amount: 501 }).await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::InsufficientFunds));
    for amount in [0, -1, i64::MAX] {
        let refusal = world.client.withdraw(owner, &Withdraw { amount }).await.unwrap_err();
        assert_eq!(refusal.code(), Some(ErrorCode::InvalidAmount), "{amount}");
    }
    let left = world.client.withdraw(owner, &Withdraw { amount: 200 }).await.expect("it has that much");
    assert_eq!(left.balance(other.id, AccountKind::Free), 300);
    let all = AccountsQuery { all: true };
    let all = world.client.accounts(Auth::Bearer(OPERATOR_TOKEN), all).await.expect("the operator sees all");
    assert_eq!(all.sum, 0);
    world.test.stop().await;
}
