//! Whatever a request gets wrong, it gets a status, a stable code and a sentence, and changes nothing.

use gainsay_api::ErrorCode;
use gainsay_api::limits::{MAX_INPUTS, MAX_JSON_BYTES};
use gainsay_commitment::{Canonical, SecretKey, Signed};
use gainsay_program::Scope;
use gainsay_protocol::{Action, Choice, Open, Reveal, RevealContent, SignedMove};
use gainsay_testkit::TestOwner;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::raw::{bearer, exchange, send, send_signed};
use crate::world::World;

async fn embed(world: &World, body: &Value) -> crate::raw::Answer {
    let headers = bearer(&world.submitter.api_key);
    send(&world.test, "POST", "/v1/embeddings", &headers, body.to_string().as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn submissions_that_cannot_be_jobs() {
    let world = World::new().await;
    let before = world.fingerprint().await;
    let long = vec!["one"; 33].join(" ");
    let many = vec!["one"; MAX_INPUTS + 1];
    let unknown_id = "00".repeat(32);
    let cases = [
        (json!({ "model": "nobody's", "input": "one" }), 404, ErrorCode::UnknownModel, "model"),
        (json!({ "model": unknown_id, "input": "one" }), 404, ErrorCode::UnknownModel, "model"),
        (json!({ "model": "toy", "input": "" }), 400, ErrorCode::EmptyInput, "input"),
        (json!({ "model": "toy", "input": [] }), 400, ErrorCode::EmptyInput, "input"),
        (json!({ "model": "toy", "input": ["one", ""] }), 400, ErrorCode::EmptyInput, "input"),
        (json!({ "model": "toy", "input": [[1], []] }), 400, ErrorCode::EmptyInput, "input"),
        (json!({ "model": "toy", "input": "   " }), 400, ErrorCode::EmptyInput, "input"),
        (json!({ "model": "toy", "input": long }), 400, ErrorCode::InputTooLong, "input"),
        (json!({ "model": "toy", "input": ["one", long] }), 400, ErrorCode::InputTooLong, "input"),
        (json!({ "model": "toy", "input": many }), 400, ErrorCode::TooManyInputs, "input"),
        (json!({ "model": "toy", "input": [50] }), 400, ErrorCode::InvalidInput, "input"),
        (json!({ "model": "toy", "input": [-1] }), 400, ErrorCode::InvalidRequest, "input"),
        (json!({ "model": "toy", "input": ["one", 1] }), 400, ErrorCode::InvalidRequest, "input"),
        (json!({ "model": "toy", "input": { "text": "one" } }), 400, ErrorCode::InvalidRequest, "input"),
        (json!({ "model": "toy" }), 400, ErrorCode::InvalidRequest, "input"),
        (
            json!({ "model": "toy", "input": "one", "dimensions": 3 }),
            400,
            ErrorCode::UnsupportedParameter,
            "dimensions",
        ),
        (json!({ "model": "toy", "input": "one", "max_price": 1 }), 400, ErrorCode::PriceTooLow, "max_price"),
    ];
    for (body, status, code, param) in cases {
        let refusal = embed(&world, &body).await.refused(status, code);
        assert_eq!(refusal.error.param.as_deref(), Some(param), "{body}");
    }
    for body in
        [json!({ "input": "one" }), json!({ "model": "toy", "input": "one", "encoding_format": "hex" })]
    {
        embed(&world, &body).await.refused(400, ErrorCode::InvalidRequest);
    }
    assert_eq!(before.changed(&world.fingerprint().await), [""; 0]);
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_not_what_they_should_be() {
    let world = World::new().await;
    let before = world.fingerprint().await;
    let key = bearer(&world.submitter.api_key);
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let deep_input = format!("{{\"model\":\"toy\",\"input\":{deep}}}");
    for path in ["/v1/embeddings", "/v1/jobs"] {
        for body in
            ["", "{", "null", "[]", "{\"model\":\"toy\",\"input\":\"one\"", "\u{feff}{}", &deep, &deep_input]
        {
            let answer = send(&world.test, "POST", path, &key, body.as_bytes()).await;
            answer.refused(400, ErrorCode::InvalidRequest);
        }
        send(&world.test, "POST", path, &key, b"{\"model\":\"toy\",\"input\":\"\xff\"}")
            .await
            .refused(400, ErrorCode::InvalidRequest);
        let large = vec![b' '; MAX_JSON_BYTES + 1];
        send(&world.test, "POST", path, &key, &large).await.refused(413, ErrorCode::BodyTooLarge);
        let mut packed = key.clone();
        packed.push(("content-encoding".into(), "gzip".into()));
        send(&world.test, "POST", path, &packed, b"{}").await.refused(415, ErrorCode::UnsupportedMediaType);
    }
    assert_eq!(before.changed(&world.fingerprint().await), [""; 0]);
    world.test.stop().await;
}

/// A body of unknown length must be cut off where one of stated length would have been refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_is_bounded_too() {
    let world = World::new().await;
    let key = &world.submitter.api_key;
    let mut request = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {key}\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\n"
    )
    .into_bytes();
    for _ in 0..17 {
        request.extend_from_slice(b"10000\r\n");
        request.extend_from_slice(&[b' '; 0x10000]);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    exchange(&world.test, &request).await.refused(413, ErrorCode::BodyTooLarge);
    world.test.stop().await;
}

/// One byte a second would hold a connection and its memory for as long as the sender likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_given_up() {
    use std::time::Duration;
    let builder = gainsay_testkit::TestCoordinator::builder();
    let world = World::with(builder.http(|http| http.body_time = Duration::from_millis(200))).await;
    let key = &world.submitter.api_key;
    let request = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {key}\r\ncontent-length: 100\r\n\
         connection: close\r\n\r\n{{"
    );
    exchange(&world.test, request.as_bytes()).await.refused(408, ErrorCode::InvalidRequest);
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_ids_that_do_not_exist() {
    let world = World::new().await;
    let key = bearer(&world.submitter.api_key);
    let get = async |path: &str| send(&world.test, "GET", path, &key, &[]).await;
    get("/v1/nothing").await.refused(404, ErrorCode::RouteNotFound);
    get("/v2/jobs").await.refused(404, ErrorCode::RouteNotFound);
    send(&world.test, "PATCH", "/v1/jobs", &key, &[]).await.refused(405, ErrorCode::MethodNotAllowed);
    let (uuid, hash) = (Uuid::nil(), "ab".repeat(32));
    get(&format!("/v1/jobs/{uuid}")).await.refused(404, ErrorCode::UnknownJob);
    get(&format!("/v1/jobs/{uuid}/receipt")).await.refused(404, ErrorCode::UnknownJob);
    get(&format!("/v1/models/{hash}")).await.refused(404, ErrorCode::UnknownModel);
    get(&format!("/v1/blobs/{hash}")).await.refused(404, ErrorCode::UnknownBlob);
    get(&format!("/v1/claims/{hash}")).await.refused(404, ErrorCode::UnknownClaim);
    get(&format!("/v1/disputes/{hash}")).await.refused(404, ErrorCode::UnknownDispute);
    get(&format!("/v1/disputes/{hash}/evidence")).await.refused(404, ErrorCode::UnknownDispute);
    for path in ["jobs/1", "jobs/%00", "models/AB", "blobs/..", "claims/zz", "disputes/0x1"] {
        let answer = get(&format!("/v1/{path}")).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.text());
    }
    for query in
        ["/v1/claims?limit=x", "/v1/claims?state=maybe", "/v1/disputes?nonsense=1", "/v1/events?after=x"]
    {
        get(query).await.refused(400, ErrorCode::InvalidRequest);
    }
    world.test.stop().await;
}

/// A submitter must not learn of another's jobs, not even that they exist.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_its_submitters_alone() {
    let world = World::new().await;
    let job = world.submit("one two").await;
    let other = gainsay_testkit::TestSubmitter::register(&world.client, "other", 0).await;
    let key = bearer(&other.api_key);
    for path in [format!("/v1/jobs/{}", job.id), format!("/v1/jobs/{}/receipt", job.id)] {
        send(&world.test, "GET", &path, &key, &[]).await.refused(404, ErrorCode::UnknownJob);
    }
    let path = format!("/v1/jobs/{}", job.id);
    send(&world.test, "DELETE", &path, &key, &[]).await.refused(404, ErrorCode::UnknownJob);
    let body = world.job("one");
    let refusal = world.client.submit_job(&other.api_key, &body).await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::InsufficientFunds));
    world.test.stop().await;
}

/// Every prefix of a signed object, and the object with a byte too many: strict decoding at the door.
fn malformations(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut cases: Vec<Vec<u8>> =
        [0, 1, 2, bytes.len() / 2, bytes.len() - 1].map(|end| bytes[..end].to_vec()).into();
    cases.push([bytes, &[0]].concat());
    let mut version = bytes.to_vec();
    version[0] ^= 0xff;
    cases.push(version);
    cases.push(vec![0xff; bytes.len()]);
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_are_not_claims() {
    let world = World::new().await;
    world.submit("one two three").await;
    let worker = &world.owner.worker;
    let lease = world.lease(worker).await.expect("there is a job");
    let run = world.run(&lease);
    let claim = run.claim(world.test.id(), &lease, worker);
    let before = world.fingerprint().await;
    let post =
        async |key: &SecretKey, body: &[u8]| send_signed(&world.test, key, "POST", "/v1/claims", body).await;

    for bytes in malformations(&claim.to_bytes()) {
        post(worker, &bytes).await.refused(400, ErrorCode::InvalidEncoding);
    }
    let mut forged = claim.clone();
    forged.body.output[0] ^= 1;
    let answer = post(worker, &forged.to_bytes()).await;
    assert!(matches!(answer.status, 400 | 401), "{}", answer.text());

    // Somebody else's signature over the same words, and the worker's words posted by somebody else.
    let other = TestOwner::register(&world.client, "other", 1_000_000).await;
    let before = {
        drop(before);
        world.fingerprint().await
    };
    let foreign = Signed::sign(claim.body.clone(), &other.worker);
    post(worker, &foreign.to_bytes()).await.refused(403, ErrorCode::Forbidden);
    post(&other.worker, &claim.to_bytes()).await.refused(403, ErrorCode::Forbidden);
    let answer = post(&other.worker, &foreign.to_bytes()).await;
    assert!(matches!(answer.status, 401 | 403 | 422), "{}", answer.text());

    let edits: [fn(&mut gainsay_protocol::Claim); 6] = [
        |claim| claim.coordinator = SecretKey::generate().id(),
        |claim| claim.input = [7; 32].into(),
        |claim| claim.output.truncate(4),
        |claim| claim.layers.truncate(1),
        |claim| claim.layers.swap(0, 1),
        |claim| claim.trace = [7; 32].into(),
    ];
    for (index, edit) in edits.iter().enumerate() {
        let mut body = claim.body.clone();
        edit(&mut body);
        let answer = post(worker, &Signed::sign(body, worker).to_bytes()).await;
        assert_eq!(answer.status, 422, "edit {index}: {}", answer.text());
        answer.refused(422, ErrorCode::ClaimRefused);
    }
    let mut elsewhere = claim.body.clone();
    elsewhere.lease = gainsay_protocol::LeaseId([9; 16]);
    post(worker, &Signed::sign(elsewhere, worker).to_bytes()).await.refused(404, ErrorCode::UnknownLease);
    assert_eq!(before.changed(&world.fingerprint().await), [""; 0]);
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_takes_neither_heartbeat_nor_claim() {
    let world = World::new().await;
    world.submit("one two three").await;
    let worker = &world.owner.worker;
    let lease = world.lease(worker).await.expect("there is a job");
    let kept = world.client.heartbeat(worker, lease.id).await.expect("the lease is alive");
    assert!(kept.heartbeat_by_ms >= lease.heartbeat_by_ms);
    assert_eq!(kept.expires_at_ms, lease.expires_at_ms);

    let other = TestOwner::register(&world.client, "other", 1_000_000).await;
    let refusal = world.client.heartbeat(&other.worker, lease.id).await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::UnknownLease));

    let claim = world.run(&lease).claim(world.test.id(), &lease, worker);
    world.test.advance(world.test.app().config().parameters.heartbeat_ms + 1).await;
    let before = world.fingerprint().await;
    let refusal = world.client.heartbeat(worker, lease.id).await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::StaleLease));
    let refusal = world.client.post_claim(worker, claim.to_bytes()).await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::StaleLease));
    assert_eq!(before.changed(&world.fingerprint().await), [""; 0]);
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_that_are_not_moves() {
    let world = World::new().await;
    world.submit("one two three").await;
    let worker = &world.owner.worker;
    let lease = world.lease(worker).await.expect("there is a job");
    let run = world.run(&lease);
    let claim = world.post(&run, &lease, worker).await;
    let other = TestOwner::register(&world.client, "other", 1_000_000).await;
    let challenger = &other.challenger;
    let open = |layer, commitment, key: &SecretKey| {
        let body = Open { claim: claim.id, challenger: key.id(), layer, commitment };
        SignedMove::Open(Signed::sign(body, key)).to_bytes()
    };
    let wrong = gainsay_commitment::TensorCommitment::from([7; 32]);
    let good = open(1, wrong, challenger);
    let before = world.fingerprint().await;
    let post = async |key: &SecretKey, body: &[u8]| {
        send_signed(&world.test, key, "POST", "/v1/disputes", body).await
    };

    for bytes in malformations(&good) {
        post(challenger, &bytes).await.refused(400, ErrorCode::InvalidEncoding);
    }
    let mut forged = good.clone();
    *forged.last_mut().expect("a signature") ^= 1;
    let answer = post(challenger, &forged).await;
    assert!(matches!(answer.status, 400 | 401), "{}", answer.text());
    post(&world.owner.challenger, &good).await.refused(403, ErrorCode::Forbidden);
    post(worker, &good).await.refused(401, ErrorCode::UnknownParty);
    post(challenger, &open(99, wrong, challenger)).await.refused(422, ErrorCode::IllegalMove);
    post(challenger, &open(1, run.layers()[1], challenger)).await.refused(422, ErrorCode::IllegalMove);
    let poor = TestOwner::register(&world.client, "poor", 1).await;
    let before = {
        drop(before);
        world.fingerprint().await
    };
    let answer = post(&poor.challenger, &open(1, wrong, &poor.challenger)).await;
    assert_eq!(answer.status, 402, "{}", answer.text());
    assert_eq!(before.changed(&world.fingerprint().await), [""; 0]);

    // Once open, it is the worker's turn; whatever else is sent decides nothing.
    let opened = post(challenger, &good).await;
    assert_eq!(opened.status, 200, "{}", opened.text());
    let dispute: gainsay_api::disputes::DisputeView =
        serde_json::from_slice(&opened.body).expect("a dispute");
    let path = format!("/v1/disputes/{}/moves", dispute.summary.id);
    let play = async |key: &SecretKey, body: &[u8]| send_signed(&world.test, key, "POST", &path, body).await;
    let before = world.fingerprint().await;
    let choice = |seq, action| {
        let body = Choice { dispute: dispute.summary.id, seq, previous: [3; 32].into(), action };
        SignedMove::Choice(Signed::sign(body, challenger)).to_bytes()
    };
    let reveal = |key: &SecretKey| {
        let content = RevealContent::Ops { commitments: vec![wrong; 2] };
        let body = Reveal { claim: claim.id, layer: 1, scope: Scope::Layer, content };
        SignedMove::Reveal(Signed::sign(body, key)).to_bytes()
    };
    for bytes in malformations(&choice(1, Action::ChooseOp { op: 0 })) {
        play(challenger, &bytes).await.refused(400, ErrorCode::InvalidEncoding);
    }
    play(challenger, &choice(1, Action::ChooseOp { op: 0 })).await.refused(409, ErrorCode::WrongTurn);
    play(challenger, &reveal(worker)).await.refused(403, ErrorCode::Forbidden);
    let answer = play(challenger, &reveal(challenger)).await;
    assert!(matches!(answer.status, 403 | 409), "{}", answer.text());
    play(&world.owner.challenger, &reveal(&world.owner.challenger)).await.refused(403, ErrorCode::Forbidden);
    assert_eq!(before.changed(&world.fingerprint().await), [""; 0]);
    // A reveal by the right party with the wrong content is refused and counted against its turn.
    play(worker, &reveal(worker)).await.refused(422, ErrorCode::MoveRefused);
    let missing = format!("/v1/disputes/{}/moves", "ab".repeat(32));
    send_signed(&world.test, worker, "POST", &missing, &reveal(worker))
        .await
        .refused(404, ErrorCode::UnknownDispute);
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_window_nothing_is_disputed() {
    let world = World::new().await;
    world.submit("one").await;
    let worker = &world.owner.worker;
    let lease = world.lease(worker).await.expect("there is a job");
    let claim = world.post(&world.run(&lease), &lease, worker).await;
    world.close_windows().await;
    let challenger = TestOwner::register(&world.client, "late", 1_000_000).await.challenger;
    let body = Open { claim: claim.id, challenger: challenger.id(), layer: 0, commitment: [1; 32].into() };
    let bytes = SignedMove::Open(Signed::sign(body, &challenger)).to_bytes();
    let before = world.fingerprint().await;
    send_signed(&world.test, &challenger, "POST", "/v1/disputes", &bytes)
        .await
        .refused(409, ErrorCode::WindowClosed);
    assert_eq!(before.changed(&world.fingerprint().await), [""; 0]);
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_are_not_manifests() {
    let world = World::new().await;
    let before = world.fingerprint().await;
    let manifest = world.model.manifest();
    let put = async |id: &str, body: &[u8]| {
        send_signed(&world.test, &world.owner.key, "PUT", &format!("/v1/models/{id}"), body).await
    };
    let id = world.model.id().to_string();
    for bytes in malformations(&manifest) {
        let answer = put(&id, &bytes).await;
        assert!(matches!(answer.status, 400 | 422), "{}", answer.text());
        assert!(matches!(
            answer.refused(answer.status, ErrorCode::InvalidManifest).error.code,
            ErrorCode::InvalidManifest
        ));
    }
    put(&"00".repeat(32), &manifest).await.refused(422, ErrorCode::ModelIdMismatch);
    let path = format!("/v1/models/{id}");
    send(&world.test, "PUT", &path, &[], &manifest).await.refused(401, ErrorCode::MissingCredentials);
    send_signed(&world.test, &world.owner.worker, "PUT", &path, &manifest)
        .await
        .refused(401, ErrorCode::UnknownParty);
    let mut unnamed = world.model.toy.model.manifest().clone();
    unnamed.vocabulary = 0;
    put(&unnamed.id().to_string(), &unnamed.to_bytes()).await.refused(422, ErrorCode::InvalidManifest);
    assert_eq!(before.changed(&world.fingerprint().await), [""; 0]);
    world.test.stop().await;
}
