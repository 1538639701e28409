//! The client against a server that misbehaves in the ways that networks and coordinators do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use gainsay_api::accounts::Deposit;
use gainsay_api::client::blobs::BlobCache;
use gainsay_api::client::{Client, ClientError, RetryPolicy, keys};
use gainsay_api::error::{ErrorBody, ErrorCode, ErrorDetail};
use gainsay_api::events::{Event, EventCursor, EventKind};
use gainsay_api::info::{Info, ParametersView, PricesView};
use gainsay_api::leases::Heartbeat;
use gainsay_api::signing::{SignedHeaders, body_hash};
use gainsay_commitment::signature::SecretKey;
use gainsay_commitment::tensor::tensor_commitment;
use gainsay_commitment::{ModelId, PartyId};
use gainsay_protocol::{LeaseId, OwnerId, Parameters};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a test server was asked.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

/// A server on a free port that answers every request with what `answer` returns, raw, and then closes.
async fn serve(answer: impl Fn(Request) -> Vec<u8> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move { exchange(stream, &*answer).await });
        }
    });
    base
}

async fn exchange(mut stream: TcpStream, answer: &(impl Fn(Request) -> Vec<u8> + ?Sized)) {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let mut lines = text.split("\r\n");
    let mut start = lines.next().unwrap().split(' ').map(str::to_owned);
    let (method, path) = (start.next().unwrap(), start.next().unwrap());
    let headers: HashMap<String, String> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    let mut body = bytes.split_off(head + 4);
    while body.len() < length {
        stream.read_buf(&mut body).await.unwrap();
    }
    let _ = stream.write_all(&answer(Request { method, path, headers, body })).await;
    let _ = stream.shutdown().await;
}

fn response(status: u16, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} S\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn json(status: u16, body: &impl serde::Serialize) -> Vec<u8> {
    response(status, "application/json", &serde_json::to_vec(body).unwrap())
}

fn refusal(status: u16, code: ErrorCode) -> Vec<u8> {
    let error = ErrorDetail::new(code, "a sentence that helps");
    json(status, &ErrorBody { error, request_id: "r1".into() })
}

fn coordinator() -> PartyId {
    SecretKey::from_bytes(&[1; 32]).id()
}

fn info(service_time_ms: i64) -> Vec<u8> {
    json(
        200,
        &Info {
            coordinator: coordinator(),
            service_time_ms,
            version: "0".into(),
            prices: PricesView { per_job: 1, per_token: 1, per_answer_token: 1 },
            parameters: ParametersView::from(&Parameters::default()),
        },
    )
}

const FAST: RetryPolicy = RetryPolicy {
    attempts: 3,
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(2),
};

/// Serves `/v1/info` at service time 5 000 and the rest by `answer`, which is told how many requests came before.
async fn client(answer: impl Fn(usize, Request) -> Vec<u8> + Send + Sync + 'static) -> (Client, Log) {
    let log = Log::default();
    let seen = log.clone();
    let base = serve(move |request| {
        if request.path == "/v1/info" {
            return info(5_000);
        }
        let mut seen = seen.0.lock().unwrap();
        seen.push(request.clone());
        answer(seen.len() - 1, request)
    })
    .await;
    (Client::connect_with(&base, FAST).await.unwrap(), log)
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Request>>>);

impl Log {
    fn all(&self) -> Vec<Request> {
        self.0.lock().unwrap().clone()
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("gainsay-api-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

const BEAT: Heartbeat = Heartbeat { heartbeat_by_ms: 1, expires_at_ms: 2 };

#[tokio::test]
async fn a_coordinator_that_is_not_there_is_named_in_the_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Client::connect_with(&base, FAST).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    assert!(
        error.to_string().starts_with(&format!("the coordinator at {base} does not answer: ")),
        "{error}"
    );
    for base in ["", "localhost:80", "ftp://localhost", "http://"] {
        assert!(matches!(Client::connect(base).await, Err(ClientError::Url(_))), "{base:?}");
    }
}

#[tokio::test]
async fn a_refusal_keeps_the_coordinators_code_and_words() {
    let (client, log) = client(|_, _| refusal(404, ErrorCode::UnknownModel)).await;
    let error = client.manifest(ModelId::from_bytes([4; 32])).await.unwrap_err();
    assert!(error.is(ErrorCode::UnknownModel));
    assert_eq!(error.to_string(), "a sentence that helps (unknown_model; request r1)");
    assert_eq!(log.all().len(), 1, "a refusal is not retried");
}

#[tokio::test]
async fn a_busy_answer_is_retried_with_a_fresh_signature_where_that_is_safe() {
    let (client, log) = client(|before, _| match before {
        0 => refusal(503, ErrorCode::Unavailable),
        1 => response(502, "text/html", b"<html>bad gateway</html>"),
        _ => json(200, &BEAT),
    })
    .await;
    let key = SecretKey::from_bytes(&[2; 32]);
    assert_eq!(client.heartbeat(&key, LeaseId([3; 16])).await.unwrap(), BEAT);
    let requests = log.all();
    assert_eq!(requests.len(), 3);
    let mut nonces = std::collections::HashSet::new();
    for request in requests {
        let headers = SignedHeaders::parse(|name| request.headers.get(name).map(String::as_str)).unwrap();
        let hash = body_hash(&request.body);
        headers.verify(coordinator(), &request.method, &request.path, hash, 5_000).unwrap();
        assert_eq!(headers.party, key.id());
        assert!(nonces.insert(headers.nonce), "a nonce serves once");
    }
}

#[tokio::test]
async fn what_would_count_twice_is_asked_once() {
    let (client, log) = client(|_, _| refusal(503, ErrorCode::Unavailable)).await;
    assert!(client.register_submitter("ada").await.unwrap_err().is_transient());
    assert_eq!(log.all().len(), 1, "another account would be nobody's");
}

#[tokio::test]
async fn a_call_about_money_is_repeated_under_the_key_that_makes_it_count_once() {
    let (client, log) = client(|_, _| refusal(503, ErrorCode::Unavailable)).await;
    let deposit = Deposit { to: OwnerId([6; 16]), amount: 1 };
    for calls in [1, 2] {
        assert!(client.deposit("token", &deposit).await.unwrap_err().is_transient());
        assert_eq!(log.all().len(), calls * FAST.attempts as usize);
    }
    let keys: Vec<String> = log.all().iter().map(|sent| sent.headers["idempotency-key"].clone()).collect();
    let (first, second) = keys.split_at(FAST.attempts as usize);
    assert!(first.iter().all(|key| *key == first[0]) && second.iter().all(|key| *key == second[0]));
    assert_ne!(first[0], second[0], "another deposit is another request");
    assert_eq!(log.all()[0].headers["authorization"], "Bearer token");
}

#[tokio::test]
async fn a_stale_request_makes_the_client_read_the_time_and_sign_again() {
    let times = Arc::new(Mutex::new(Vec::new()));
    let seen = times.clone();
    let infos = Mutex::new([5_000, 900_000].into_iter());
    let base = serve(move |request| {
        if request.path == "/v1/info" {
            return info(infos.lock().unwrap().next().expect("the time is read twice"));
        }
        let time: i64 = request.headers["gainsay-time"].parse().unwrap();
        seen.lock().unwrap().push(time);
        if time < 900_000 { refusal(401, ErrorCode::StaleRequest) } else { json(200, &BEAT) }
    })
    .await;
    let client = Client::connect_with(&base, FAST).await.unwrap();
    client.heartbeat(&SecretKey::from_bytes(&[2; 32]), LeaseId([3; 16])).await.unwrap();
    let times = times.lock().unwrap();
    assert_eq!(times.len(), 2);
    assert!(times[0] < 65_000 && times[1] >= 900_000, "{times:?}");
}

#[tokio::test]
async fn an_answer_beyond_its_limit_is_not_read() {
    let (client, _) =
        client(|_, _| response(200, "application/octet-stream", &vec![0; (16 << 20) + 1])).await;
    let error = client.manifest(ModelId::from_bytes([4; 32])).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { limit, .. } if limit == 16 << 20), "{error}");
}

#[tokio::test]
async fn the_answer_of_another_service_is_said_to_be_one() {
    let (client, _) = client(|_, _| response(200, "text/html", b"<html>welcome</html>")).await;
    let error = client.models().await.unwrap_err();
    assert!(matches!(error, ClientError::Unexpected { status: 200, .. }), "{error}");
}

#[tokio::test]
async fn the_event_stream_goes_on_behind_the_last_event_it_gave() {
    let event = |id: &str| {
        let kind = EventKind::ModelReady { model: ModelId::from_bytes([4; 32]), name: id.into() };
        Event { id: EventCursor(id.into()), at_ms: 1, kind }
    };
    let frame = move |id: &str| {
        format!("id: {id}\nevent: model_ready\ndata: {}\n\n", serde_json::to_string(&event(id)).unwrap())
    };
    let (client, log) = client(move |before, _| match before {
        0 => response(
            200,
            "text/event-stream",
            (frame("1-1") + &frame("1-2") + "id: 1-3\ndata: {\"i").as_bytes(),
        ),
        1 => refusal(503, ErrorCode::Unavailable),
        _ => response(200, "text/event-stream", frame("1-3").as_bytes()),
    })
    .await;
    let mut events = client.events(Some(EventCursor::start()));
    for id in ["1-1", "1-2", "1-3"] {
        assert_eq!(events.next().await.unwrap().id.0, id);
    }
    let asked: Vec<_> =
        log.all().into_iter().map(|request| request.headers["last-event-id"].clone()).collect();
    assert_eq!(asked, ["0-0", "1-2", "1-2"]);
}

#[tokio::test]
async fn a_stream_that_ends_before_its_first_event_says_that_there_was_a_gap() {
    let kind = EventKind::ModelReady { model: ModelId::from_bytes([4; 32]), name: "toy".into() };
    let event = Event { id: EventCursor("1-1".into()), at_ms: 1, kind };
    let frame = format!("data: {}\n\n", serde_json::to_string(&event).unwrap());
    let (client, _) = client(move |before, _| match before {
        0 => response(200, "text/event-stream", b": listening\n\n"),
        _ => response(200, "text/event-stream", frame.as_bytes()),
    })
    .await;
    let mut events = client.events(None);
    events.ready().await.unwrap();
    assert_eq!(events.gaps(), 1);
    assert_eq!(events.next().await.unwrap(), event);
    assert_eq!(events.gaps(), 2);
    assert_eq!(events.next().await.unwrap(), event);
    assert_eq!(events.gaps(), 2, "behind an event there is a place to go on from");
}

#[tokio::test]
async fn a_blob_whose_download_is_cut_goes_on_where_it_stopped() {
    let blob: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let hash = tensor_commitment(&blob);
    let served = blob.clone();
    let (client, log) = client(move |before, request| {
        let from: usize = match request.headers.get("range") {
            Some(range) => range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap(),
            None => 0,
        };
        let status = if from > 0 { 206 } else { 200 };
        let mut answer = response(status, "application/octet-stream", &served[from..]);
        if before < 2 {
            answer.truncate(150_000);
        }
        answer
    })
    .await;
    let cache = BlobCache::new(folder("resume"));
    let path = cache.fetch(&client, hash).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), blob);
    let asked = log.all();
    assert_eq!(asked.len(), 3);
    assert!(asked[1].headers["range"] < asked[2].headers["range"]);
    cache.fetch(&client, hash).await.unwrap();
    assert_eq!(log.all().len(), 3, "the second time it is there");
}

#[tokio::test]
async fn a_blob_of_other_bytes_is_refused_and_not_kept() {
    let (client, log) = client(|_, _| response(200, "application/octet-stream", b"other bytes")).await;
    let folder = folder("mismatch");
    let hash = tensor_commitment(b"the right bytes");
    let error = BlobCache::new(&folder).fetch(&client, hash).await.unwrap_err();
    assert!(matches!(error, ClientError::BlobMismatch { hash: named } if named == hash), "{error}");
    assert_eq!(log.all().len(), 2);
    assert!(!folder.join(hash.to_string()).exists());
}

#[tokio::test]
async fn a_half_written_part_of_other_bytes_heals() {
    let folder = folder("heal");
    std::fs::create_dir_all(&folder).unwrap();
    let blob = b"the right bytes";
    let hash = tensor_commitment(blob);
    std::fs::write(folder.join(format!("{hash}.part")), b"rubbish").unwrap();
    let (client, _) = client(move |_, request| match request.headers.get("range") {
        Some(range) => {
            let from: usize = range["bytes=".len()..range.len() - 1].parse().unwrap();
            response(206, "application/octet-stream", &blob[from..])
        }
        None => response(200, "application/octet-stream", blob),
    })
    .await;
    let path = BlobCache::new(&folder).fetch(&client, hash).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), blob);
}

#[tokio::test]
async fn a_file_goes_up_whole_and_signed() {
    let (client, log) = client(|_, _| response(204, "text/plain", b"")).await;
    let folder = folder("upload");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("weights");
    let bytes = vec![9; 600_000];
    std::fs::write(&path, &bytes).unwrap();
    let key = SecretKey::from_bytes(&[2; 32]);
    let hash = client.put_blob_file(gainsay_api::client::Auth::Key(&key), &path).await.unwrap();
    assert_eq!(hash, tensor_commitment(&bytes));
    let request = &log.all()[0];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("PUT", &*format!("/v1/blobs/{hash}")));
    assert_eq!(request.body, bytes);
    let headers = SignedHeaders::parse(|name| request.headers.get(name).map(String::as_str)).unwrap();
    headers.verify(coordinator(), "PUT", &request.path, body_hash(&bytes), 5_000).unwrap();
}

#[test]
fn a_key_file_is_made_once_and_read_only_where_it_is_secret() {
    let folder = folder("keys");
    let path = folder.join("sub/worker.key");
    let key = keys::load_or_create(&path).unwrap();
    assert_eq!(keys::load_or_create(&path).unwrap().id(), key.id());
    assert_eq!(keys::load(&path).unwrap().id(), key.id());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(keys::load(&path), Err(ClientError::KeyFile { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    std::fs::write(&path, "not a key").unwrap();
    assert!(matches!(keys::load(&path), Err(ClientError::KeyFile { .. })));
    assert!(matches!(keys::load(&folder.join("none")), Err(ClientError::File { .. })));
}
