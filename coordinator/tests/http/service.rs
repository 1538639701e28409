//! What holds for the service as a whole: health, identity, headers, the page, starting and stopping.

use std::time::{Duration, Instant};

use gainsay_api::ErrorCode;
use gainsay_coordinator::config::Config;
use gainsay_coordinator::{Coordinator, StartError};
use gainsay_testkit::{OPERATOR_TOKEN, TestCoordinator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::raw::{bearer, send};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn health_and_identity_are_public() {
    let test = TestCoordinator::start().await;
    for path in ["/health/live", "/health/ready"] {
        let answer = send(&test, "GET", path, &[], &[]).await;
        assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("ok")), "{path}");
    }
    let info = send(&test, "GET", "/v1/info", &[], &[]).await.json();
    assert_eq!(info["coordinator"], test.id().to_string());
    assert_eq!(info["parameters"]["window_ms"], test.app().config().parameters.window_ms);
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_its_id_and_the_strict_headers() {
    let test = TestCoordinator::start().await;
    let mut ids = Vec::new();
    for path in ["/", "/v1/info", "/v1/overview", "/health/live", "/nothing"] {
        let answer = send(&test, "GET", path, &[], &[]).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        ids.push(answer.header("x-request-id").expect("a request id").to_owned());
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5, "request ids repeat");
    test.stop().await;
}

/// The page and what it reads are open to everybody: neither texts nor keys may be in it.
#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_shows_what_happens_and_no_secret() {
    let world = World::new().await;
    world.submit("one two three").await;
    let lease = world.lease(&world.owner.worker).await.expect("there is a job");
    let run = world.run(&lease);
    world.post(&run, &lease, &world.owner.worker).await;
    let page = send(&world.test, "GET", "/", &[], &[]).await;
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'"))
    );
    let answer = send(&world.test, "GET", "/v1/overview", &[], &[]).await;
    let (text, overview) = (answer.text(), answer.json());
    assert_eq!(overview["counts"]["jobs_pending"], 1);
    assert_eq!(overview["models"][0]["name"], "toy");
    assert_eq!(overview["jobs"][0]["worker"], "owner's worker");
    assert_eq!(overview["claims"][0]["state"], "pending");
    let sum: i64 = overview["ledger"]
        .as_array()
        .expect("balances")
        .iter()
        .map(|row| row["balance"].as_str().and_then(|text| text.parse::<i64>().ok()).expect("an amount"))
        .sum();
    assert_eq!(sum, 0);
    for secret in [&world.submitter.api_key, OPERATOR_TOKEN, "two three"] {
        assert!(!text.contains(secret), "the overview shows {secret}");
    }
    world.test.stop().await;
}

/// The description that programs read and the page that people do, both from the program itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_describes_itself() {
    let test = TestCoordinator::start().await;
    let document = send(&test, "GET", "/v1/openapi.json", &[], &[]).await.json();
    assert_eq!(document["info"]["title"], "Gainsay");
    assert!(document["paths"]["/v1/embeddings"]["post"].is_object());
    let page = send(&test, "GET", "/docs", &[], &[]).await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").expect("the page has a policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"), "{policy}");
    let (text, mut loaded) = (page.text(), 0);
    for file in text.split('"').filter(|word| word.starts_with("docs/")) {
        let answer = send(&test, "GET", &format!("/{file}"), &[], &[]).await;
        assert_eq!(answer.status, 200, "{file}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{file}");
        loaded += 1;
    }
    assert_eq!(loaded, 3);
    send(&test, "GET", "/docs/index.html", &[], &[]).await.refused(404, ErrorCode::RouteNotFound);
    test.stop().await;
}

/// Whoever follows events or waits for a job must not hold a stopping service up.
#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_streams_and_waits() {
    let world = World::new().await;
    let address = world.test.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.expect("the service listens");
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("a request");
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.expect("the stream opens");
    let job = world.submit("one").await;
    let mut waiting = TcpStream::connect(&address).await.expect("the service listens");
    let key = &world.submitter.api_key;
    let request = format!(
        "GET /v1/jobs/{}?wait_ms=30000 HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {key}\r\n\
         connection: close\r\n\r\n",
        job.id
    );
    waiting.write_all(request.as_bytes()).await.expect("a request");
    let started = Instant::now();
    world.test.stop().await;
    assert!(started.elapsed() < Duration::from_secs(10), "stopping took {:?}", started.elapsed());
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("the stream ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_said_so() {
    let test = TestCoordinator::start().await;
    let mut config = Config::new(test.database().url());
    config.listen = test.url().trim_start_matches("http://").parse().expect("an address");
    let refusal = Coordinator::new(config).start().await.expect_err("the address is taken");
    assert!(matches!(refusal, StartError::Listen { .. }), "{refusal}");
    test.stop().await;
}

/// While its database is away the service says so, in a way that clients may retry, and without the database's words.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_the_service_is_not_ready() {
    let test = TestCoordinator::start().await;
    test.app().close().await;
    assert_eq!(send(&test, "GET", "/health/live", &[], &[]).await.status, 200);
    for path in ["/health/ready", "/v1/models", "/v1/info"] {
        let answer = send(&test, "GET", path, &[], &[]).await;
        answer.refused(503, ErrorCode::Unavailable);
        assert_eq!(answer.header("x-should-retry"), Some("true"));
        assert!(answer.header("retry-after").is_some());
        assert!(!answer.text().contains("pool"), "{}", answer.text());
    }
    let answer = send(&test, "GET", "/v1/accounts", &bearer("anything"), &[]).await;
    answer.refused(503, ErrorCode::Unavailable);
}
