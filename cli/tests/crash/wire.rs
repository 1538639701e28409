//! The wire between one party and its coordinator, which sees every message and can be cut at any.
//!
//! It understands just enough HTTP/1.1 to tell where a request ends; what comes back is passed on as it is.

use std::sync::Arc;

use gainsay_commitment::Signed;
use gainsay_protocol::{Claim, MoveKind, SignedMove};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// More than any message of a party.
const LONGEST: usize = 16 << 20;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A worker asks for jobs.
    Lease,
    /// A worker posts a claim.
    Claim,
    /// A move of a dispute.
    Move(MoveKind),
}

/// A request that changes something.
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

impl Message {
    fn read(method: &str, path: &str, body: &[u8]) -> Option<Message> {
        let kind = match (method, path.split('?').next().unwrap_or(path)) {
            ("POST", "/v1/leases") => Kind::Lease,
            ("POST", "/v1/claims") => Kind::Claim,
            ("POST", path) if path.starts_with("/v1/disputes") => {
                Kind::Move(SignedMove::from_bytes(body).ok()?.kind())
            }
            _ => return None,
        };
        Some(Message { kind, path: path.to_owned(), body: body.to_vec() })
    }

    /// The claim in it.
    pub(crate) fn claim(&self) -> Option<Signed<Claim>> {
        (self.kind == Kind::Claim).then(|| Signed::from_bytes(&self.body).unwrap())
    }
}

/// When something happens to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// The message was sent and has not arrived.
    Before,
    /// It is being worked on.
    During,
    /// What it asked for is done, and the answer has not arrived.
    After,
}

/// Who decides what happens to a message.
pub(crate) trait Ambush: Send + Sync + 'static {
    /// What is to happen because of this message.
    type Plan: Send + Sync;

    /// Sees every message; answers when to strike, if at all.
    fn plan(&self, sender: &str, message: &Message) -> Option<(Moment, Self::Plan)>;

    /// Lets go of a plan that has come to nothing: the message was not served, or changed nothing.
    fn give_up(&self, plan: Self::Plan);

    /// Strikes. Afterwards both ends of the wire find it cut.
    fn strike(&self, sender: &str, message: &Message, plan: Self::Plan) -> impl Future<Output = ()> + Send;

    /// Something went wrong that must not go unnoticed.
    fn broken(&self, reason: String);
}

/// Listens for `sender` and passes on to the coordinator at `upstream`; answers with the address.
pub(crate) async fn lay<A: Ambush>(sender: &str, upstream: &str, ambush: Arc<A>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, upstream) = (sender.to_owned(), upstream.to_owned());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (sender, upstream, ambush) = (sender.clone(), upstream.clone(), ambush.clone());
            tokio::spawn(async move {
                let watched = ambush.clone();
                if let Err(error) = tokio::spawn(carry(sender, stream, upstream, ambush)).await {
                    watched.broken(error.to_string());
                }
            });
        }
    });
    address
}

/// Carries one connection until an end of it is gone, or it is cut.
async fn carry<A: Ambush>(sender: String, client: TcpStream, upstream: String, ambush: Arc<A>) {
    // Nobody there: the wire is cut, as it would be without anybody in between.
    let Ok(server) = TcpStream::connect(&upstream).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut asked, mut answer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let request = tokio::select! {
            read = from_client.read_buf(&mut asked) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => take_request(&mut asked),
            },
            read = from_server.read(&mut answer) => {
                let Some(length) = read.ok().filter(|length| *length > 0) else { return };
                if to_client.write_all(&answer[..length]).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let Some(Request { bytes, message }) = request else { continue };
        let planned = message.and_then(|message| {
            let (moment, plan) = ambush.plan(&sender, &message)?;
            Some((message, moment, plan))
        });
        let Some((message, moment, plan)) = planned else {
            if to_server.write_all(&bytes).await.is_err() {
                return;
            }
            continue;
        };
        if moment > Moment::Before && to_server.write_all(&bytes).await.is_err() {
            return ambush.give_up(plan);
        }
        if moment == Moment::After {
            let read = tokio::select! {
                read = from_server.read(&mut answer) => read.unwrap_or(0),
                // Whoever has asked is gone, or has nothing to say before it has its answer.
                _ = from_client.read_buf(&mut asked) => 0,
            };
            // Only what has changed something is worth striking at.
            if !has_effect(message.kind, &answer[..read]) {
                ambush.give_up(plan);
                if read == 0 || to_client.write_all(&answer[..read]).await.is_err() {
                    return;
                }
                continue;
            }
        }
        return ambush.strike(&sender, &message, plan).await;
    }
}

fn has_effect(kind: Kind, answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    text.starts_with("HTTP/1.1 2") && (kind != Kind::Lease || text.contains("\"job_id\""))
}

/// One request, whole.
struct Request {
    bytes: Vec<u8>,
    message: Option<Message>,
}

/// Takes the first request off the front of what was read, if all of it is there.
fn take_request(asked: &mut Vec<u8>) -> Option<Request> {
    assert!(asked.len() < LONGEST, "no party sends such a message");
    let head_length = asked.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&asked[..head_length]).unwrap();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap().split(' ');
    let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let length = lines.filter_map(|line| line.split_once(": ")).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
    });
    let whole = head_length + length.unwrap_or(0);
    if asked.len() < whole {
        return None;
    }
    let bytes: Vec<u8> = asked.drain(..whole).collect();
    let message = Message::read(&method, &path, &bytes[head_length..]);
    Some(Request { bytes, message })
}
