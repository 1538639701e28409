//! Resources.

use gainsay_api::ErrorCode;
use gainsay_commitment::Signed;
use gainsay_program::Scope;
use gainsay_protocol::{Reveal, RevealContent, SignedMove};
use gainsay_testkit::Fingerprint;
use gainsay_testkit::zoo::{Answer, Stage};
use serde_json::json;

use crate::support::{code, stands};

/// Eight refused moves a turn are examined, whatever comes after is turned away unread; a move that is right is still
/// taken in the next turn, and the honest side pays nothing for it.
#[tokio::test(flavor = "multi_thread")]
async fn moves_that_burn_the_referees_time() {
    let stage = Stage::new().await;
    let (cheat, prover) = (stage.owner("cheat").await, stage.owner("prover").await);
    let claimed = stage.claimed(&cheat, |model, lease| Answer::skipping(model, lease, 1)).await;
    let opened = stage.object(&claimed, &prover.challenger).await;
    let bad = |number: u8| {
        let content = RevealContent::Ops { commitments: vec![[number; 32].into(); 2] };
        let body =
            Reveal { claim: claimed.id, layer: opened.summary.place.layer, scope: Scope::Layer, content };
        SignedMove::Reveal(Signed::sign(body, &cheat.worker))
    };
    for number in 1..=8 {
        let refused = code(stage.play_move(&cheat.worker, opened.summary.id, &bad(number)).await);
        assert_eq!(refused, ErrorCode::MoveRefused);
    }
    let before = Fingerprint::of(stage.test.database()).await;
    for number in 9..12 {
        let _ = code(stage.play_move(&cheat.worker, opened.summary.id, &bad(number)).await);
    }
    assert_eq!(
        before.changed(&Fingerprint::of(stage.test.database()).await),
        [""; 0],
        "unread, and not kept"
    );
    stage.test.advance(stage.parameters().worker_allowance_ms).await;
    crate::support::settled(stage, &claimed, cheat.id, prover.id, 0).await;
}

/// No party tells the service where to reach it: there is no address for it to call, inside its network or outside.
#[tokio::test(flavor = "multi_thread")]
async fn url_of_a_party_or_model() {
    let stage = Stage::new().await;
    let before = Fingerprint::of(stage.test.database()).await;
    let post =
        async |path: &str, body: serde_json::Value| raw(&stage, path, body.to_string().as_bytes()).await;
    for field in ["url", "address", "endpoint", "callback", "webhook"] {
        let answer = post("/v1/submitters", json!({ "name": "x", field: "http://169.254.169.254/" })).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        let job =
            json!({ "model": stage.model.id().to_string(), "input": "one", field: "http://127.0.0.1:1/" });
        let answer = post("/v1/jobs", job).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    assert_eq!(before.changed(&Fingerprint::of(stage.test.database()).await), [""; 0]);
    stage.end().await;
}

/// A flood of jobs is held to what its submitter can pay, and delays nobody's claim or move.
#[tokio::test(flavor = "multi_thread")]
async fn flood_of_jobs_and_disputes() {
    use gainsay_coordinator::bus::Quota;
    use gainsay_testkit::{TestCoordinator, ToyModel};
    let builder = TestCoordinator::builder().http(|http| {
        http.openings = Quota::per_minute(2, 1);
        http.leases = Quota::per_minute(8, 1);
    });
    let stage = Stage::with(builder, ToyModel::default()).await;
    let (honest, flooder) = (stage.owner("honest").await, stage.owner("flooder").await);
    let mut claims = Vec::new();
    for _ in 0..4 {
        claims.push(stage.claimed(&honest, Answer::right).await);
    }
    let mut opened = Vec::new();
    for (number, claimed) in (1_u8..).zip(&claims) {
        let opening = claimed.opening(&flooder.challenger, 1, [number; 32].into());
        match stage.open(&flooder.challenger, &opening).await {
            Ok(view) => opened.push(view),
            Err(refused) => assert_eq!(refused.code(), Some(ErrorCode::RateLimited)),
        }
    }
    assert_eq!(opened.len(), 2);
    // Moves of open disputes are never limited.
    for (claimed, view) in claims.iter_mut().zip(opened) {
        let (_, made) = stage.next_move(claimed, &view, &flooder.challenger).unwrap();
        stage.play_move(&honest.worker, view.summary.id, &made).await.unwrap();
    }
    stands(&stage, &claims[0], 3, honest.id).await;
    assert_eq!(stage.gained(flooder.id).await, -stage.parameters().bond.0);
    stage.end().await;
}

/// Sends a POST by hand, as the submitter, and returns all that comes back.
async fn raw(stage: &Stage, path: &str, body: &[u8]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = stage.test.url().trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
         content-length: {}\r\n\r\n",
        stage.submitter.api_key,
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
