//! Signed notices of decisions.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use gainsay_api::jobs::{Finality, JobState};
use gainsay_api::webhooks::{COORDINATOR_HEADER, Notice, NoticeToSign, SIGNATURE_HEADER, TIME_HEADER};
use gainsay_coordinator::reconcile;
use gainsay_testkit::TestCoordinator;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::generation::{Stage, chat, ids};

/// Takes one request and answers it; its head, in lower case, and its body.
async fn receive(listener: &TcpListener, status: &str) -> (String, Vec<u8>) {
    let accepted = tokio::time::timeout(Duration::from_secs(30), listener.accept()).await;
    let (mut stream, _) = accepted.expect("a notice comes").unwrap();
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        bytes.extend_from_slice(&buffer[..count]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length: usize = header(&head, "content-length").parse().unwrap();
        if bytes.len() == end + 4 + length {
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nlocation: /again\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            return (head, bytes.split_off(end + 4));
        }
    }
}

fn header(head: &str, name: &str) -> String {
    let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {head}")).to_owned()
}

/// Makes a job that asks for a notice at this address, and answers it.
async fn submitted(stage: &Stage, url: &str) -> gainsay_protocol::JobId {
    let answer = stage.post("/v1/jobs", &chat(json!({"webhook": url, "max_tokens": 2}))).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let lease = stage.lease().await;
    stage.claim(&lease, &ids("ab")).await.unwrap();
    lease.job_id
}

/// Lets the windows of all answers pass.
async fn decide(stage: &Stage) {
    assert_eq!(reconcile::deliver_notices(stage.test.app()).await.unwrap(), 0, "nothing is decided yet");
    let window = stage.test.app().config().parameters.window_ms;
    stage.test.advance(window + 1).await;
    stage.test.settle().await;
}

/// A job that asks for a notice at this address, decided.
async fn decided(stage: &Stage, url: &str) -> gainsay_protocol::JobId {
    let job = submitted(stage, url).await;
    decide(stage).await;
    job
}

/// The receiver can tell that the coordinator says so, and gets a notice again that it did not take.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_told_signed_and_again_until_it_is_taken() {
    let builder = TestCoordinator::builder().config(|config| config.limits.private_webhooks = true);
    let stage = Stage::with(builder).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?x=1", listener.local_addr().unwrap());
    let job = decided(&stage, &url).await;
    let app = stage.test.app();

    for (status, pause) in [("500 no", 20_000), ("302 elsewhere", 40_000), ("204 taken", 0)] {
        let (delivered, (head, body)) =
            tokio::join!(reconcile::deliver_notices(app), receive(&listener, status));
        assert_eq!(delivered.unwrap(), 1);
        assert!(head.starts_with("post /hook?x=1 "), "{head}");
        let notice: Notice = serde_json::from_slice(&body).unwrap();
        assert_eq!((notice.job, notice.state), (job, JobState::Finalized));
        assert_eq!(notice.finality, Some(Finality::Final));
        assert_eq!(header(&head, COORDINATOR_HEADER), stage.test.id().to_string());
        let time: i64 = header(&head, TIME_HEADER).parse().unwrap();
        let signed = NoticeToSign::of(stage.test.id(), &body, time);
        signed.verify(&header(&head, SIGNATURE_HEADER).parse().unwrap()).unwrap();
        assert_eq!(reconcile::deliver_notices(app).await.unwrap(), 0, "not before the pause is over");
        stage.test.advance(pause + 1).await;
    }
    stage.test.advance(10_000_000).await;
    assert_eq!(reconcile::deliver_notices(app).await.unwrap(), 0, "what was taken is not told again");
    stage.test.stop().await;
}

/// A receiver that takes its time holds up no other one: neither its own notices to others, nor those that come later.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_takes_its_time_holds_up_nobody() {
    let builder = TestCoordinator::builder().config(|config| config.limits.private_webhooks = true);
    let stage = Stage::with(builder).await;
    // It lets everybody in, and says nothing.
    let slow = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let slow_url = format!("http://{}/", slow.local_addr().unwrap());
    let quick = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let quick_url = format!("http://{}/", quick.local_addr().unwrap());
    for url in [&slow_url, &slow_url, &slow_url, &slow_url, &slow_url, &quick_url] {
        submitted(&stage, url).await;
    }
    decide(&stage).await;
    let app = stage.test.app();
    let receivers = async {
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(slow.accept().await.unwrap());
        }
        // The quick one is called while the slow one keeps all of these waiting.
        receive(&quick, "204 taken").await;
    };
    let (found, ()) = tokio::join!(reconcile::deliver_notices(app), receivers);
    assert_eq!(found.unwrap(), 6);
    let slow = slow.into_std().unwrap();
    slow.set_nonblocking(true).unwrap();
    assert!(slow.accept().is_err(), "one address is called four times at a time, and no more");
    stage.test.stop().await;
}

/// A submitter must not have the service call what only the service can reach.
#[tokio::test(flavor = "multi_thread")]
async fn private_networks_are_not_called() {
    let stage = Stage::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    decided(&stage, &format!("http://localhost:{port}/")).await;
    assert_eq!(reconcile::deliver_notices(stage.test.app()).await.unwrap(), 1);
    listener.into_std().unwrap().set_nonblocking(true).unwrap();
    stage.test.stop().await;
}
