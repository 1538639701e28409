//! One request and its answer: signing, retries, limits.

use super::addresses::{Address, Addresses};
use super::{CONNECT_TIMEOUT, Client, ClientError, READ_TIMEOUT};
use crate::error::{ErrorBody, ErrorCode};
use crate::info::Info;
use crate::limits::{MAX_ANSWER_BYTES, MAX_JSON_BYTES};
use crate::signing::{Nonce, RequestToSign, SignedHeaders, body_hash};
use crate::{limits, routes};
use bytes::{Bytes, BytesMut};
use gainsay_commitment::signature::SecretKey;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How a request proves who asks.
#[derive(Clone, Copy, Debug)]
pub enum Auth<'a> {
    /// Not at all.
    None,
    /// An API key or the operator's token.
    Bearer(&'a str),
    /// A signature over the request.
    Key(&'a SecretKey),
}

/// How often, and how patiently, a call that failed for a passing reason is made again.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Calls in all, at least one.
    pub attempts: u32,
    /// Pause after the first; each later one is twice as long.
    pub first_pause: Duration,
    /// No pause is longer.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 6, first_pause: Duration::from_millis(100), longest_pause: Duration::from_secs(5) }
    }
}

impl RetryPolicy {
    /// The pause after failure number `failures` (1 is the first): doubled each time, then drawn from its upper half so
    /// that clients which failed together do not return together.
    #[must_use]
    pub fn pause(&self, failures: u32) -> Duration {
        let doubled = self.first_pause.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let full = doubled.min(self.longest_pause);
        let mut byte = [0];
        // Without a random source the pause is merely not spread.
        let _ = getrandom::fill(&mut byte);
        full.div_f32(2.0) + full.mul_f32(f32::from(byte[0]) / 510.0)
    }
}

/// What to send.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: String,
    pub(super) auth: Auth<'a>,
    pub(super) body: Body,
    /// Whether sending it twice is the same as sending it once.
    pub(super) idempotent: bool,
    /// How long the server may think, beyond the usual.
    pub(super) wait: Duration,
    /// More headers.
    pub(super) headers: HeaderMap,
}

/// A request's body.
#[derive(Clone)]
pub(super) enum Body {
    Empty,
    Json(Bytes),
    Octets(Bytes),
    /// A file of these many bytes whose hash is known: weights go up without being held in memory.
    File {
        path: std::path::PathBuf,
        hash: [u8; 32],
        bytes: u64,
    },
}

impl<'a> Call<'a> {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            auth: Auth::None,
            body: Body::Empty,
            idempotent: true,
            wait: Duration::ZERO,
            headers: HeaderMap::new(),
        }
    }

    pub(super) fn post(path: impl Into<String>) -> Self {
        Self { method: Method::POST, idempotent: false, ..Self::get(path) }
    }

    pub(super) fn put(path: impl Into<String>) -> Self {
        Self { method: Method::PUT, ..Self::get(path) }
    }

    pub(super) fn auth(self, auth: Auth<'a>) -> Self {
        Self { auth, ..self }
    }

    pub(super) fn octets(self, bytes: impl Into<Bytes>) -> Self {
        Self { body: Body::Octets(bytes.into()), ..self }
    }

    /// Names the call, so that the coordinator counts it once however often it comes.
    pub(super) fn once(mut self) -> Self {
        let mut name = [0; 16];
        getrandom::fill(&mut name).expect("the operating system has randomness");
        let value = HeaderValue::from_str(&hex::encode(name)).expect("hex digits are a header value");
        self.headers.insert(HeaderName::from_static(routes::IDEMPOTENCY_KEY), value);
        self.idempotent()
    }

    pub(super) fn idempotent(self) -> Self {
        Self { idempotent: true, ..self }
    }

    pub(super) fn waiting(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    pub(super) fn json(self, body: &impl Serialize) -> Result<Self, ClientError> {
        let encode = |reason: String| ClientError::Encode { path: self.path.clone(), reason };
        let json = serde_json::to_vec(body).map_err(|error| encode(error.to_string()))?;
        if json.len() > MAX_JSON_BYTES {
            return Err(encode(format!("{} bytes exceed the limit of {MAX_JSON_BYTES}", json.len())));
        }
        Ok(Self { body: Body::Json(json.into()), ..self })
    }

    pub(super) fn query(self, query: &impl Serialize) -> Result<Self, ClientError> {
        let text = serde_urlencoded::to_string(query)
            .map_err(|error| ClientError::Encode { path: self.path.clone(), reason: error.to_string() })?;
        let path = if text.is_empty() { self.path } else { format!("{}?{text}", self.path) };
        Ok(Self { path, ..self })
    }
}

/// An HTTP client for these addresses.
pub(super) fn build(addresses: &Addresses) -> Result<reqwest::Client, ClientError> {
    let urls: Vec<reqwest::Url> =
        addresses.bases().map(|base| base.parse().expect("checked when it was read")).collect();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("gainsay/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        // A signature covers the path: following a redirect could only fail.
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true);
    let is_local = |url: &reqwest::Url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if urls.iter().all(is_local) {
        builder = builder.no_proxy();
    }
    if urls.iter().any(|url| url.scheme() == "https") {
        install_crypto_provider();
    } else {
        // Without TLS the machine's certificates are not even read, so that none need be installed.
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the ring provider supports the default versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder = builder.tls_backend_preconfigured(tls);
    }
    builder.build().map_err(|source| ClientError::Setup { source })
}

/// Makes the ring provider the one that TLS uses in this process, unless another was chosen before. [`Client`] does so
/// itself; a program that speaks HTTPS on its own calls it first.
pub fn install_crypto_provider() {
    // An error says that one is installed: as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Reads `/v1/info` from the first of the addresses that answers, which is the one in use afterwards.
pub(super) async fn fetch_info(
    http: &reqwest::Client,
    addresses: &Addresses,
    retry: &RetryPolicy,
) -> Result<Info, ClientError> {
    let mut failures = 0;
    loop {
        let base = &addresses.current().base;
        let error = match fetch_info_from(http, base).await {
            Ok(info) => return Ok(info),
            Err(error) => error,
        };
        failures += 1;
        if !error.is_transient() || failures >= retry.attempts.max(addresses.count() as u32) {
            return Err(error);
        }
        addresses.turn_from(base, &error);
        if failures as usize >= addresses.count() {
            tokio::time::sleep(retry.pause(failures)).await;
        }
    }
}

/// Reads `/v1/info` from one address, once.
async fn fetch_info_from(http: &reqwest::Client, base: &str) -> Result<Info, ClientError> {
    let sent = http.get(format!("{base}{}", routes::INFO)).timeout(READ_TIMEOUT).send().await;
    match sent {
        Ok(response) => read_info(base, response).await,
        Err(source) => Err(ClientError::unreachable(base, source)),
    }
}

/// The head of a success, its body unread.
pub(super) struct Answer {
    pub(super) response: Response,
    /// Whose it is.
    pub(super) base: std::sync::Arc<str>,
}

impl Client {
    /// Makes a call and reads its JSON answer.
    pub(super) async fn json<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ClientError> {
        self.json_within(call, MAX_ANSWER_BYTES).await
    }

    /// Makes a call and reads its JSON answer of at most `limit` bytes.
    pub(super) async fn json_within<T: DeserializeOwned>(
        &self,
        call: Call<'_>,
        limit: usize,
    ) -> Result<T, ClientError> {
        let body = self.retrying(&call, limit).await?;
        parse_json(self.base(), &call.path, &body)
    }

    /// Makes a call and reads its answer as bytes, at most `limit` of them.
    pub(super) async fn octets(&self, call: Call<'_>, limit: usize) -> Result<Bytes, ClientError> {
        self.retrying(&call, limit).await
    }

    /// Makes a call whose answer has no body that matters.
    pub(super) async fn done(&self, call: Call<'_>) -> Result<(), ClientError> {
        self.octets(call, limits::MAX_JSON_BYTES).await.map(drop)
    }

    /// Makes a call once, to the address in use, and answers with the response, its body unread.
    pub(super) async fn stream(&self, call: &Call<'_>) -> Result<Answer, ClientError> {
        let addresses = &self.inner.addresses;
        let address = addresses.current();
        let base = &address.base;
        let answered = async {
            self.make_known(address).await?;
            accept(base, &call.path, self.send(base, call).await?).await
        };
        match answered.await {
            Ok(response) => Ok(Answer { response, base: base.clone() }),
            Err(error) => {
                addresses.turn_from(base, &error);
                Err(error)
            }
        }
    }

    /// Makes a call, again where that is safe and may help, and reads its answer.
    async fn retrying(&self, call: &Call<'_>, limit: usize) -> Result<Bytes, ClientError> {
        let (mut failures, mut resynced) = (0, false);
        loop {
            let result = match self.stream(call).await {
                Ok(answer) => self.read(&call.path, answer, limit).await,
                Err(error) => Err(error),
            };
            let error = match result {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.is(ErrorCode::StaleRequest) && !resynced {
                // Refused before anything else was looked at: safe to repeat, whatever the call.
                resynced = true;
                self.read_clock().await?;
                continue;
            }
            failures += 1;
            let may_repeat = call.idempotent || never_arrived(&error);
            if !(may_repeat && error.is_transient() && failures < self.inner.retry.attempts) {
                if error.blames_the_coordinator() {
                    self.inner.addresses.note_away(&error);
                }
                return Err(error);
            }
            // Whoever has not been asked yet is asked at once.
            let others_left =
                error.blames_the_coordinator() && (failures as usize) < self.inner.addresses.count();
            let pause = if others_left { Duration::ZERO } else { self.inner.retry.pause(failures) };
            tracing::debug!(path = call.path, failures, ?pause, %error, "call failed; trying again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads an answer of at most `limit` bytes.
    async fn read(&self, path: &str, answer: Answer, limit: usize) -> Result<Bytes, ClientError> {
        let Answer { response, base } = answer;
        let body = read(&base, path, response, limit).await;
        match &body {
            Ok(_) => self.inner.addresses.note_answer(&base),
            Err(error) => self.inner.addresses.turn_from(&base, error),
        }
        body
    }

    /// The next bytes of an answer.
    pub(super) async fn next_chunk(&self, answer: &mut Answer) -> Result<Option<Bytes>, ClientError> {
        let chunk = next_chunk(&answer.base, &mut answer.response).await;
        if let Err(error) = &chunk {
            self.inner.addresses.turn_from(&answer.base, error);
        }
        chunk
    }

    /// Reads service time anew.
    pub(super) async fn read_clock(&self) -> Result<Info, ClientError> {
        let info = fetch_info(&self.inner.http, &self.inner.addresses, &self.inner.retry).await?;
        self.inner.clock.set(info.service_time_ms);
        Ok(info)
    }

    /// Asks who answers at an address, where that is not known yet.
    async fn make_known(&self, address: &Address) -> Result<(), ClientError> {
        if address.is_known() {
            return Ok(());
        }
        let found = fetch_info_from(&self.inner.http, &address.base).await?.coordinator;
        let expected = self.inner.coordinator;
        if found != expected {
            return Err(ClientError::OtherCoordinator { base: address.base.to_string(), found, expected });
        }
        address.set_known();
        Ok(())
    }

    async fn send(&self, base: &str, call: &Call<'_>) -> Result<Response, ClientError> {
        let url = format!("{base}{}", call.path);
        let mut request = self
            .inner
            .http
            .request(call.method.clone(), url)
            .headers(call.headers.clone())
            .headers(self.credentials(call));
        request = match &call.body {
            Body::Empty => request,
            Body::Json(json) => request.header(CONTENT_TYPE, "application/json").body(json.clone()),
            Body::Octets(octets) => {
                request.header(CONTENT_TYPE, "application/octet-stream").body(octets.clone())
            }
            Body::File { path, bytes, .. } => request
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(reqwest::header::CONTENT_LENGTH, *bytes)
                .body(reqwest::Body::wrap_stream(super::files::read_stream(path.clone()))),
        };
        // Bodies of any length are read under their own pauses; the head of an answer must come in time.
        let head = tokio::time::timeout(READ_TIMEOUT + call.wait, request.send());
        match head.await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => Err(ClientError::unreachable(base, source)),
            Err(_) => Err(ClientError::Silent {
                base: base.to_owned(),
                path: call.path.clone(),
                waited: READ_TIMEOUT + call.wait,
            }),
        }
    }

    fn credentials(&self, call: &Call<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match call.auth {
            Auth::None => {}
            Auth::Bearer(token) => {
                if let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {token}")) {
                    value.set_sensitive(true);
                    headers.insert(AUTHORIZATION, value);
                }
            }
            Auth::Key(key) => {
                let mut nonce = [0; 16];
                getrandom::fill(&mut nonce).expect("the operating system has randomness");
                let request = RequestToSign {
                    coordinator: self.inner.coordinator,
                    method: call.method.as_str().to_owned(),
                    path: call.path.clone(),
                    body: match &call.body {
                        Body::Empty => body_hash(&[]),
                        Body::Json(bytes) | Body::Octets(bytes) => body_hash(bytes),
                        Body::File { hash, .. } => *hash,
                    },
                    time_ms: self.inner.clock.now_ms(),
                    nonce: Nonce(nonce),
                };
                for (name, value) in SignedHeaders::sign(request, key).to_pairs() {
                    let value = HeaderValue::from_str(&value).expect("hex and decimals are header values");
                    headers.insert(HeaderName::from_static(name), value);
                }
            }
        }
        headers
    }
}

/// Whether the coordinator cannot have seen the request.
fn never_arrived(error: &ClientError) -> bool {
    matches!(error, ClientError::Unreachable { source, .. } if source.is_connect())
}

/// Turns an answer that is no success into its error.
async fn accept(base: &str, path: &str, response: Response) -> Result<Response, ClientError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = read(base, path, response, MAX_JSON_BYTES).await?;
    match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(ErrorBody { error, request_id }) => Err(ClientError::Refused {
            status: status.as_u16(),
            code: error.code,
            message: error.message,
            request_id,
        }),
        Err(_) => {
            let start: String = String::from_utf8_lossy(&body).chars().take(100).collect();
            Err(unexpected(base, path, status, format!("{start:?}")))
        }
    }
}

async fn read_info(base: &str, response: Response) -> Result<Info, ClientError> {
    let response = accept(base, routes::INFO, response).await?;
    let body = read(base, routes::INFO, response, MAX_JSON_BYTES).await?;
    parse_json(base, routes::INFO, &body)
}

/// Parses the body of a success.
fn parse_json<T: DeserializeOwned>(base: &str, path: &str, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| unexpected(base, path, StatusCode::OK, error.to_string()))
}

/// Reads a body of at most `limit` bytes.
async fn read(base: &str, path: &str, response: Response, limit: usize) -> Result<Bytes, ClientError> {
    let mut response = response;
    let mut body = BytesMut::new();
    while let Some(chunk) = next_chunk(base, &mut response).await? {
        if body.len() + chunk.len() > limit {
            return Err(ClientError::TooLarge { path: path.to_owned(), limit: limit as u64 });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The next bytes of a body, waited for no longer than [`READ_TIMEOUT`].
async fn next_chunk(base: &str, response: &mut Response) -> Result<Option<Bytes>, ClientError> {
    match tokio::time::timeout(READ_TIMEOUT, response.chunk()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(source)) => Err(ClientError::unreachable(base, source)),
        Err(_) => Err(ClientError::Silent {
            base: base.to_owned(),
            path: response.url().path().to_owned(),
            waited: READ_TIMEOUT,
        }),
    }
}

pub(super) fn unexpected(base: &str, path: &str, status: StatusCode, reason: String) -> ClientError {
    ClientError::Unexpected { base: base.to_owned(), path: path.to_owned(), status: status.as_u16(), reason }
}
