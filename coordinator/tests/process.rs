//! The coordinator as a process: what it logs, and how it stops.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Stdio;
use std::time::Duration;

use gainsay_testkit::{Database, until};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
const OPERATOR_TOKEN: &str = "the operator's words";

struct Process {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    /// Lines read so far.
    read: Vec<Value>,
    address: String,
    folder: std::path::PathBuf,
    _database: Database,
}

impl Process {
    async fn start(settings: &[&str]) -> Self {
        let database = Database::create().await;
        let folder = std::env::temp_dir().join(format!("gainsay-process-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir(&folder).unwrap();
        // Secrets as container platforms hand them over.
        std::fs::write(folder.join("token"), OPERATOR_TOKEN).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_gainsay-coordinator"))
            .args(["--listen", "127.0.0.1:0", "--log-format", "json", "--set", "log_filter=debug"])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .current_dir(&folder)
            .env_remove("RUST_LOG")
            .env("GAINSAY_DATABASE_URL", database.url())
            .env("GAINSAY_OPERATOR_TOKEN_FILE", folder.join("token"))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut process =
            Self { child, log, read: Vec::new(), address: String::new(), folder, _database: database };
        let serving = process.line(|line| line["message"] == "serving").await;
        process.address = serving["address"].as_str().unwrap().to_owned();
        process
    }

    /// The next line that fits. Every line on the way has to be an object.
    async fn line(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = timeout(PATIENCE, self.log.next_line()).await.expect("the log goes on").unwrap();
            let line = line.unwrap_or_else(|| panic!("the log ended after {:?}", self.read.last()));
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            self.read.push(line.clone());
            if fits(&line) {
                return line;
            }
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    /// One request on a connection of its own; the whole answer.
    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        rest(&mut stream).await
    }

    fn terminate(&self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    async fn ends_well(mut self) {
        // Its log has to be read to the end, or it would wait for a reader.
        let Self { child, log, .. } = &mut self;
        let reading = async { while let Some(_line) = log.next_line().await.unwrap() {} };
        let (status, ()) =
            timeout(PATIENCE, async { tokio::join!(child.wait(), reading) }).await.expect("it ends");
        assert!(status.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\r\n")
}

const REGISTRATION: &str = r#"{"name":"a person"}"#;

fn registration() -> String {
    let length = REGISTRATION.len();
    format!(
        "POST /v1/submitters HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// What goes wrong is looked for by the id that the answer carries; secrets must not be found on the way.
#[tokio::test(flavor = "multi_thread")]
async fn log_lines_are_objects_with_the_requests_id_and_without_secrets() {
    let mut process = Process::start(&[]).await;
    let answer = process.ask(&get("/v1/info", "x-request-id: from-the-proxy.1\r\n")).await;
    assert!(answer.contains("x-request-id: from-the-proxy.1\r\n"), "{answer}");
    let line = process.line(|line| line["route"] == "/v1/info").await;
    assert_eq!(
        (line["span"]["request_id"].as_str(), &line["status"]),
        (Some("from-the-proxy.1"), &200.into())
    );

    for id in ["two words", "quote\"", &"x".repeat(65), ""] {
        let answer = process.ask(&get("/v1/info", &format!("x-request-id: {id}\r\n"))).await;
        assert!(!answer.contains(&format!("x-request-id: {id}\r\n")), "{answer}");
    }
    let registered = process.ask(&format!("{}{REGISTRATION}", registration())).await;
    assert!(registered.starts_with("HTTP/1.1 201"), "{registered}");
    let body: Value = serde_json::from_str(registered.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let key = body["api_key"].as_str().unwrap().to_owned();
    let prompt = "a secret prompt";
    let request = format!(r#"{{"model":"none","input":"{prompt}"}}"#);
    let answer = process
        .ask(&format!(
            "POST /v1/jobs HTTP/1.1\r\nhost: test\r\nconnection: close\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{request}",
            request.len()
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let operator = format!("authorization: Bearer {OPERATOR_TOKEN}\r\n");
    let answer = process.ask(&get("/v1/accounts?all=true", &operator)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    process.line(|line| line["route"] == "/v1/accounts").await;
    for line in &process.read {
        let line = line.to_string();
        for secret in [OPERATOR_TOKEN, &key, prompt, "postgres://"] {
            assert!(!line.contains(secret), "{secret} is in {line}");
        }
    }
    process.terminate();
    process.ends_well().await;
}

/// A rolling update must lose no request: the one in hand is answered, streams end, and whoever balances load is told.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains() {
    let mut process = Process::start(&["http_notice_ms=1500", "http_drain_ms=30000"]).await;
    let mut stream = process.connect().await;
    stream.write_all(get("/v1/events", "").as_bytes()).await.unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    // A request whose body is still on its way.
    let mut slow = process.connect().await;
    let (first, second) = REGISTRATION.split_at(5);
    slow.write_all(format!("{}{first}", registration()).as_bytes()).await.unwrap();
    process.ask(&get("/health/ready", "")).await;

    process.terminate();
    process.line(|line| line["message"] == "stopping").await;
    rest(&mut stream).await;
    // Within the time of notice it still answers, and says that it should be asked no more.
    let ready = process.ask(&get("/health/ready", "")).await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    until("the listener to close", async || TcpStream::connect(&process.address).await.err()).await;
    slow.write_all(second.as_bytes()).await.unwrap();
    let answer = rest(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    process.ends_well().await;
}

/// The numbers of a scrape are what a person would count.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_of_the_service_and_of_the_process() {
    let process = Process::start(&[]).await;
    process.ask(&format!("{}{REGISTRATION}", registration())).await;
    process.ask(&get("/no/such/route", "")).await;
    let odd = "BREW /v1/info HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    process.ask(odd).await;
    let text = process.ask(&get("/metrics", "")).await;
    assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
    for line in [
        "gainsay_database_up 1",
        "gainsay_leases_held 0",
        "gainsay_overdue_ms 0",
        "gainsay_ledger_imbalance_microcredits 0",
        "gainsay_oldest_queued_job_ms 0",
        "# TYPE gainsay_jobs gauge",
        "# TYPE gainsay_http_request_duration_seconds histogram",
        r#"gainsay_http_requests_total{method="POST",route="/v1/submitters",status="201"} 1"#,
        r#"gainsay_http_requests_total{method="GET",route="none",status="404"} 1"#,
        r#"gainsay_http_requests_total{method="other",route="/v1/info",status="405"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in {text}");
    }
    assert!(!text.contains("gainsay_redis_connected"), "no Redis was asked for");
    until("the timers' rounds", async || {
        let text = process.ask(&get("/metrics", "")).await;
        text.contains("gainsay_reconcile_last_success_timestamp_seconds").then_some(())
    })
    .await;
    process.terminate();
    process.ends_well().await;
}
