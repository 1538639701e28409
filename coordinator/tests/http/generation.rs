//! `POST /v1/chat/completions` and `POST /v1/completions`, as OpenAI clients use them, and what workers stream.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use gainsay_api::ErrorCode;
use gainsay_api::accounts::AccountsQuery;
use gainsay_api::client::{Auth, Client, ClientError};
use gainsay_api::generation::{ChatResponse, Completion, FinishReason};
use gainsay_api::jobs::{Finality, JobQuery, JobState, JobsQuery};
use gainsay_api::leases::{Lease, LeaseRequest};
use gainsay_program::{MAX_TOP_K, SamplingDefaults};
use gainsay_testkit::{
    TestCoordinator, TestCoordinatorBuilder, TestGenerator, TestOwner, TestSubmitter, job_of, until,
};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::raw::{Answer, bearer, send};
use crate::world::FUNDS;

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Stage {
    pub(crate) test: TestCoordinator,
    pub(crate) client: Client,
    pub(crate) model: TestGenerator,
    pub(crate) submitter: TestSubmitter,
    pub(crate) owner: TestOwner,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(TestCoordinator::builder()).await
    }

    pub(crate) async fn with(builder: TestCoordinatorBuilder) -> Self {
        let test = builder.start().await;
        let client = test.client().await;
        let model = TestGenerator::new();
        model.publish(&client).await;
        let submitter = TestSubmitter::register(&client, "submitter", FUNDS).await;
        let owner = TestOwner::register(&client, "owner", FUNDS).await;
        Self { test, client, model, submitter, owner }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let headers = bearer(&self.submitter.api_key);
        send(&self.test, "POST", path, &headers, &body.to_string().into_bytes()).await
    }

    pub(crate) async fn lease_now(&self) -> Option<Lease> {
        let request = LeaseRequest { models: vec![self.model.id()], max: 1, held: Vec::new() };
        let leases = self.client.lease(&self.owner.worker, &request, Duration::ZERO).await;
        leases.expect("a worker may ask").leases.into_iter().next()
    }

    pub(crate) async fn lease(&self) -> Lease {
        until("a job", async || self.lease_now().await).await
    }

    async fn stream(&self, lease: &Lease, first: u32, tokens: &[u32]) -> Result<u32, ClientError> {
        let streamed = self.client.stream_tokens(&self.owner.worker, lease.id, first, tokens).await;
        streamed.map(|streamed| streamed.tokens)
    }

    pub(crate) async fn claim(&self, lease: &Lease, answer: &[u32]) -> Result<(), ClientError> {
        let claim = self.model.claim(self.test.id(), lease, &self.owner.worker, answer);
        self.client.post_claim(&self.owner.worker, claim.to_bytes()).await.map(|_| ())
    }

    /// Answers `jobs` leases beside a request.
    async fn answered(&self, path: &str, body: &Value, answers: &[&[u32]]) -> Answer {
        let work = async {
            for answer in answers {
                let lease = self.lease().await;
                self.claim(&lease, answer).await.expect("an answer of the right length is taken");
            }
        };
        let (answer, ()) = tokio::join!(self.post(path, body), work);
        answer
    }

    async fn balance(&self) -> i64 {
        let accounts =
            self.client.accounts(Auth::Bearer(&self.submitter.api_key), AccountsQuery::default()).await;
        let accounts = accounts.expect("a submitter sees its accounts");
        accounts.accounts.iter().map(|account| account.balance).sum()
    }
}

/// The tokenizer's ids of printable ASCII: one a character.
pub(crate) fn ids(text: &str) -> Vec<u32> {
    text.bytes().map(|byte| u32::from(byte) - u32::from(b'!') + 3).collect()
}

fn ended(text: &str, end: u32) -> Vec<u32> {
    let mut tokens = ids(text);
    tokens.push(end);
    tokens
}

pub(crate) fn chat(more: Value) -> Value {
    let mut body =
        json!({"model": "small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8});
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_answered_whole() {
    let stage = Stage::new().await;
    let end = stage.model.end();
    let body = chat(json!({"seed": 7, "temperature": 0}));
    let answer = stage.answered("/v1/chat/completions", &body, &[&ended("Hello", end)]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let response: ChatResponse = serde_json::from_slice(&answer.body).unwrap();
    let [choice] = &response.choices[..] else { panic!("one choice: {response:?}") };
    assert_eq!((choice.message.content.as_str(), choice.finish_reason), ("Hello", FinishReason::Stop));
    // `<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n`, by a tokenizer that knows few words.
    assert_eq!(response.usage.completion_tokens, 6);
    assert!(response.usage.prompt_tokens > 6);
    assert_eq!(response.gainsay.finality, Finality::Pending);

    let job =
        stage.client.job(&stage.submitter.api_key, response.gainsay.job, JobQuery::default()).await.unwrap();
    let read = job.answer.unwrap().generated.unwrap();
    assert_eq!((read.text.as_str(), read.token_ids), ("Hello", ended("Hello", end)));
    stage.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_choices_are_as_many_jobs_and_stop_strings_are_cut_off() {
    let stage = Stage::new().await;
    let body = json!({"model": "small", "prompt": "one", "n": 2, "stop": ["END"], "max_tokens": 7});
    let answers: [&[u32]; 2] = [&ids("onEND"), &ids("sevenEN")];
    let answer = stage.answered("/v1/completions", &body, &answers).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let response: Completion = serde_json::from_slice(&answer.body).unwrap();
    let said: Vec<_> = response.choices.iter().map(|c| (c.index, c.text.as_str(), c.finish_reason)).collect();
    assert_eq!(said, [(0, "on", Some(FinishReason::Stop)), (1, "sevenEN", Some(FinishReason::Length))]);
    let gainsay = response.gainsay.unwrap();
    assert_eq!(gainsay.parts.len(), 2);
    assert_ne!(gainsay.parts[0].claim, gainsay.parts[1].claim);
    stage.test.stop().await;
}

/// A request that leaves a parameter out gets the model's own; what it says counts.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_leaves_out_is_as_the_model_has_it() {
    let mut stage = Stage::new().await;
    let generation = stage.model.manifest.generation.as_mut().unwrap();
    generation.defaults = SamplingDefaults { temperature: Some(0.5), top_k: Some(7), ..Default::default() };
    stage.model.manifest.name = "opinionated".to_owned();
    stage.model.publish(&stage.client).await;
    let drawn = async |more: Value| {
        let mut body = json!({"model": "opinionated", "prompt": [3], "max_tokens": 2});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(stage.post("/v1/jobs", &body).await.status, 202);
        let lease = stage.lease().await;
        let sampling = job_of(&lease).generation_request().unwrap().sampling.clone();
        stage.claim(&lease, &ids("ab")).await.unwrap();
        (sampling.temperature, sampling.top_k, sampling.top_p)
    };
    assert_eq!(drawn(json!({})).await, (0.5, 7, 1.0));
    assert_eq!(drawn(json!({"temperature": 1, "top_p": 0.25})).await, (1.0, 7, 0.25));
    assert_eq!(drawn(json!({"top_k": -1})).await, (0.5, MAX_TOP_K, 1.0));
    stage.test.stop().await;
}

/// The worker earns what it generated; the rest of the escrow goes back.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_generated_is_not_paid() {
    let stage = Stage::new().await;
    let end = stage.model.end();
    let body = json!({"model": "small", "prompt": [3, 4, 5], "max_tokens": 100, "webhook": null});
    let answer = stage.post("/v1/jobs", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let prices = stage.test.app().config().prices.clone();
    let most = prices.per_job.0 + 3 * prices.per_token.0 + 100 * prices.per_answer_token.0;
    assert_eq!(answer.json()["price"], most);
    let lease = stage.lease().await;
    assert!(!lease.stream);
    stage.claim(&lease, &ended("abc", end)).await.unwrap();
    let window = stage.test.app().config().parameters.window_ms;
    stage.test.advance(window + 1).await;
    stage.test.settle().await;
    let receipt = stage.client.receipt(&stage.submitter.api_key, lease.job_id).await.unwrap();
    let cost = prices.per_job.0 + 3 * prices.per_token.0 + 4 * prices.per_answer_token.0;
    assert_eq!(receipt.paid_worker + receipt.paid_fee, cost);
    assert_eq!(receipt.returned, most - cost);
    assert_eq!(stage.balance().await, FUNDS - cost);
    stage.test.stop().await;
}

/// An answer that stops where nothing ends it, goes on after its end, or is longer than asked for, is no answer.
#[tokio::test(flavor = "multi_thread")]
async fn claims_of_the_wrong_length_are_refused() {
    let stage = Stage::new().await;
    let end = stage.model.end();
    let body = json!({"model": "small", "prompt": "one", "stop": "xy", "max_tokens": 4});
    assert_eq!(stage.post("/v1/jobs", &body).await.status, 202);
    let lease = stage.lease().await;
    let wrong: [&[u32]; 6] =
        [&[], &ids("abc"), &[70, end, 71], &[70, end, 71, 72], &ids("xyab"), &ids("abcde")];
    for answer in wrong {
        let refused = stage.claim(&lease, answer).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::ClaimRefused), "{answer:?}: {refused}");
    }
    stage.claim(&lease, &ids("axy")).await.expect("a refused claim leaves the lease");
    stage.test.stop().await;
}

/// A tokenizer takes seconds to read: whoever has no lease must not be able to have one read by posting claims.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_without_a_lease_has_nothing_read() {
    let mut stage = Stage::new().await;
    let body = json!({"model": "small", "prompt": [3, 4, 5], "max_tokens": 4});
    assert_eq!(stage.post("/v1/jobs", &body).await.status, 202);
    let lease = stage.lease().await;
    stage.test.advance(stage.test.app().config().parameters.heartbeat_ms + 1).await;
    // From here on, reading the tokenizer fails; what was read before is forgotten.
    let tokenizer = stage.model.manifest.tokenizer.to_string();
    let blobs = stage.test.folder().join("blobs");
    std::fs::remove_file(blobs.join(&tokenizer[..2]).join(&tokenizer)).unwrap();
    stage.test.restart().await;
    stage.client = stage.test.client().await;
    let refused = stage.claim(&lease, &ids("abcd")).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::StaleLease), "{refused}");
    stage.test.stop().await;
}

/// One stream of server-sent events, read as it comes.
struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    async fn open(test: &TestCoordinator, key: &str, path: &str, body: &Value) -> Self {
        let address = test.url().trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        Self { stream, text: String::new() }
    }

    /// Reads until the text holds `wanted`.
    async fn until(&mut self, wanted: &str) -> &str {
        let mut buffer = [0; 4096];
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.text.contains(wanted) {
            let read = tokio::time::timeout_at(deadline, self.stream.read(&mut buffer)).await;
            let count = read.unwrap_or_else(|_| panic!("no {wanted:?} in {}", self.text)).unwrap();
            assert!(count > 0, "the stream ended without {wanted:?}: {}", self.text);
            self.text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        &self.text
    }

    /// The chunks that have come, as JSON.
    fn chunks(&self) -> Vec<Value> {
        let lines = self.text.lines().filter_map(|line| line.strip_prefix("data: "));
        lines.filter(|line| *line != "[DONE]").map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn content(&self) -> String {
        let chunks = self.chunks();
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
    }
}

/// The worker talks to one coordinator, the client to another: what is streamed goes through the database.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_reach_the_client_while_the_job_runs() {
    let stage = Stage::new().await;
    let other = stage.test.beside().await;
    let body = chat(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let key = &stage.submitter.api_key;
    let mut events = Events::open(&other, key, "/v1/chat/completions", &body).await;
    events.until("\"role\":\"assistant\"").await;
    let lease = stage.lease().await;
    assert!(lease.stream);
    let end = stage.model.end();
    assert_eq!(stage.stream(&lease, 0, &ids("He")).await.unwrap(), 2);
    events.until("\"content\":\"He\"").await;
    assert_eq!(stage.stream(&lease, 2, &ids("l")).await.unwrap(), 3);
    events.until("\"content\":\"l\"").await;
    assert_eq!(stage.stream(&lease, 1, &ids("ell")).await.unwrap(), 4, "what is on record may come again");
    stage.claim(&lease, &ended("Hello", end)).await.unwrap();
    events.until("data: [DONE]").await;

    assert_eq!(events.content(), "Hello");
    let chunks = events.chunks();
    let last = &chunks[chunks.len() - 2];
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert_eq!(last["gainsay"]["job"], lease.job_id.to_string());
    assert_eq!(last["gainsay"]["finality"], "pending");
    assert!(last["gainsay"]["parts"][0]["trace_root"].is_string());
    assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], 6);
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk"));
    other.stop().await;
    stage.test.stop().await;
}

/// What streamed is what is claimed, or the claim is none; and nothing can be put over what was streamed.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_differs_from_what_was_streamed_is_refused() {
    let stage = Stage::new().await;
    let body = chat(json!({"stream": true, "max_tokens": 4}));
    let mut events = Events::open(&stage.test, &stage.submitter.api_key, "/v1/chat/completions", &body).await;
    events.until("assistant").await;
    let lease = stage.lease().await;
    stage.stream(&lease, 0, &ids("ab")).await.unwrap();
    let refusals: [(u32, &[u32]); 5] =
        [(1, &ids("xc")), (3, &ids("d")), (2, &[320]), (2, &ids("cde")), (u32::MAX, &[3])];
    for (first, tokens) in refusals {
        let refused = stage.stream(&lease, first, tokens).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::StreamRefused), "{first} {tokens:?}: {refused}");
    }
    let refused = stage.claim(&lease, &ids("axcd")).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::ClaimRefused), "{refused}");
    stage.claim(&lease, &ids("abcd")).await.unwrap();
    let late = stage.stream(&lease, 2, &ids("c")).await.unwrap_err();
    assert_eq!(late.code(), Some(ErrorCode::StaleLease), "{late}");
    events.until("[DONE]").await;
    assert_eq!(events.content(), "abcd");
    stage.test.stop().await;
}

/// A successor that answers like the first worker goes on unnoticed; one that does not ends the stream with an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_worker_costs_a_stream_nothing_if_its_successor_is_of_one_mind() {
    let stage = Stage::new().await;
    for (second, told) in [("abcd", "abcd"), ("axcd", "ab")] {
        let body = chat(json!({"stream": true, "max_tokens": 4}));
        let key = &stage.submitter.api_key;
        let mut events = Events::open(&stage.test, key, "/v1/chat/completions", &body).await;
        events.until("assistant").await;
        let lease = stage.lease().await;
        stage.stream(&lease, 0, &ids("ab")).await.unwrap();
        events.until("\"content\":\"ab\"").await;
        let heartbeat = stage.test.app().config().parameters.heartbeat_ms;
        stage.test.advance(heartbeat + 1).await;
        stage.test.settle().await;
        // The only worker is its own successor, which others would come before.
        stage.test.advance(stage.test.app().config().parameters.lease_ms).await;
        let lease = stage.lease().await;
        assert_eq!(stage.stream(&lease, 0, &ids(&second[..3])).await.unwrap(), 3);
        stage.claim(&lease, &ids(second)).await.unwrap();
        let otherwise = format!("read the answer at /v1/jobs/{}\"", lease.job_id);
        events.until(if second == told { "[DONE]" } else { &otherwise }).await;
        assert_eq!(events.content(), told);
    }
    stage.test.stop().await;
}

/// Behind the end of an answer nothing is told: it could not be claimed, nor taken back. What was streamed goes with its lease.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_streamed_behind_the_end_of_an_answer() {
    let stage = Stage::new().await;
    let end = stage.model.end();
    let body = chat(json!({"stream": true, "stop": "xy"}));
    let mut events = Events::open(&stage.test, &stage.submitter.api_key, "/v1/chat/completions", &body).await;
    events.until("assistant").await;
    let lease = stage.lease().await;
    let behind = stage.stream(&lease, 0, &[ids("a")[0], end, ids("b")[0]]).await.unwrap_err();
    assert_eq!(behind.code(), Some(ErrorCode::StreamRefused), "{behind}");
    assert_eq!(stage.stream(&lease, 0, &ended("a", end)).await.unwrap(), 2);
    assert_eq!(stage.stream(&lease, 1, &[end]).await.unwrap(), 2, "what is on record may come again");
    let behind = stage.stream(&lease, 2, &ids("b")).await.unwrap_err();
    assert_eq!(behind.code(), Some(ErrorCode::StreamRefused), "{behind}");
    assert_eq!(streamed(&stage).await, 1);
    stage.claim(&lease, &ended("a", end)).await.unwrap();
    events.until("[DONE]").await;
    assert_eq!(events.content(), "a");
    assert_eq!(streamed(&stage).await, 0);

    // A worker that goes on behind a stop string, and is lost: its successor's answer is what the client has read.
    let mut events = Events::open(&stage.test, &stage.submitter.api_key, "/v1/chat/completions", &body).await;
    events.until("assistant").await;
    let lease = stage.lease().await;
    stage.stream(&lease, 0, &ids("axyz")).await.unwrap();
    events.until("\"content\":\"a\"").await;
    let parameters = &stage.test.app().config().parameters;
    stage.test.advance(parameters.heartbeat_ms + 1).await;
    assert_eq!(streamed(&stage).await, 0);
    // Its owner may have it again after a pause.
    stage.test.advance(parameters.lease_ms).await;
    let lease = stage.lease().await;
    stage.claim(&lease, &ids("axy")).await.unwrap();
    events.until("[DONE]").await;
    assert_eq!(events.content(), "a");
    stage.test.stop().await;
}

/// Pieces of answers on record.
async fn streamed(stage: &Stage) -> i64 {
    let mut database = PgConnection::connect(stage.test.database().url()).await.unwrap();
    sqlx::query_scalar("select count(*) from streamed_tokens").fetch_one(&mut database).await.unwrap()
}

/// Wake-ups may be lost: what a client waits for is looked at each second all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_without_wake_ups() {
    let stage = Stage::new().await;
    // Its bus hears nothing of what the other one publishes.
    let other = stage.test.beside().await;
    let body = chat(json!({"stream": true, "n": 3, "max_tokens": 2}));
    let mut events = Events::open(&other, &stage.submitter.api_key, "/v1/chat/completions", &body).await;
    events.until("\"index\":2").await;
    for answer in ["ab", "cd", "ef"] {
        let lease = stage.lease().await;
        stage.stream(&lease, 0, &ids(&answer[..1])).await.unwrap();
        events.until(&format!("\"content\":\"{}\"", &answer[..1])).await;
        stage.claim(&lease, &ids(answer)).await.unwrap();
    }
    events.until("[DONE]").await;
    other.stop().await;
    stage.test.stop().await;
}

/// Each answer takes a place of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_streamed_answers_is_bounded() {
    let builder = TestCoordinator::builder().http(|http| http.generation_streams = 3);
    let stage = Stage::with(builder).await;
    let key = &stage.submitter.api_key;
    let mut events =
        Events::open(&stage.test, key, "/v1/chat/completions", &chat(json!({"stream": true, "n": 2}))).await;
    events.until("assistant").await;
    let refused = stage.post("/v1/chat/completions", &chat(json!({"stream": true, "n": 2}))).await;
    refused.refused(429, ErrorCode::Overloaded);
    assert_eq!(stage.client.jobs(key, JobsQuery::default()).await.unwrap().jobs.len(), 2);
    stage.test.stop().await;
}

/// Nobody waits: what no worker has is withdrawn and costs nothing. What a worker has goes on, and is paid.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_withdraws_what_no_worker_has() {
    let stage = Stage::new().await;
    let key = &stage.submitter.api_key;
    let body = chat(json!({"stream": true, "n": 2}));
    let mut events = Events::open(&stage.test, key, "/v1/chat/completions", &body).await;
    events.until("\"index\":1").await;
    let lease = stage.lease().await;
    drop(events);
    let states = until("the other job is withdrawn", async || {
        let jobs = stage.client.jobs(key, JobsQuery::default()).await.unwrap().jobs;
        let mut states: Vec<(bool, JobState)> =
            jobs.iter().map(|job| (job.id == lease.job_id, job.state)).collect();
        states.sort_by_key(|(leased, _)| *leased);
        states.iter().any(|(_, state)| *state == JobState::Cancelled).then_some(states)
    })
    .await;
    assert_eq!(states, [(false, JobState::Cancelled), (true, JobState::Assigned)]);
    stage.claim(&lease, &ids("12345678")).await.unwrap();
    stage.test.stop().await;
}

/// Each mistake is refused by name before anything is paid for.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_is_refused_by_name() {
    let stage = Stage::new().await;
    let unsupported = ErrorCode::UnsupportedParameter;
    let invalid = ErrorCode::InvalidRequest;
    let cases = [
        (chat(json!({"logprobs": true})), unsupported, "logprobs"),
        (chat(json!({"tools": [{"type": "function"}]})), unsupported, "tools"),
        (chat(json!({"response_format": {"type": "json_object"}})), unsupported, "response_format"),
        (chat(json!({"guided_regex": "a"})), unsupported, "guided_regex"),
        (chat(json!({"temperature": -1})), invalid, "temperature"),
        (chat(json!({"top_p": 1.5})), invalid, "top_p"),
        (chat(json!({"top_k": 5000})), invalid, "top_k"),
        (chat(json!({"n": 0})), invalid, "n"),
        (chat(json!({"n": 17})), invalid, "n"),
        (chat(json!({"max_tokens": 0})), invalid, "max_tokens"),
        (chat(json!({"max_tokens": 5000})), ErrorCode::InputTooLong, "max_tokens"),
        (chat(json!({"stop": ["a", "b", "c", "d", "e"]})), invalid, "stop"),
        (chat(json!({"stop": ""})), invalid, "stop"),
        (chat(json!({"logit_bias": {"x": 1}})), invalid, "logit_bias"),
        (chat(json!({"logit_bias": {"5": 1000}})), invalid, "logit_bias"),
        (chat(json!({"messages": []})), invalid, "messages"),
        (chat(json!({"max_price": 1})), ErrorCode::PriceTooLow, "max_price"),
        (chat(json!({"model": "unknown"})), ErrorCode::UnknownModel, "model"),
        (chat(json!({"stream_options": {"include_usage": true}})), invalid, "stream_options"),
        (
            chat(
                json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
            ),
            unsupported,
            "messages[0].content",
        ),
    ];
    for (body, code, param) in cases {
        let answer = stage.post("/v1/chat/completions", &body).await;
        let error = answer.refused(answer.status, code);
        assert_eq!(error.error.param.as_deref(), Some(param), "{body}: {}", error.error.message);
        assert!((400..500).contains(&answer.status), "{body}");
    }
    let echo = json!({"model": "small", "prompt": "a", "echo": true});
    let refused = stage.post("/v1/completions", &echo).await.refused(400, unsupported);
    assert_eq!(refused.error.param.as_deref(), Some("echo"));
    let address = chat(json!({"webhook": "ftp://example.org"}));
    stage.post("/v1/chat/completions", &address).await.refused(400, invalid);
    assert_eq!(stage.balance().await, FUNDS);
    assert!(stage.client.jobs(&stage.submitter.api_key, JobsQuery::default()).await.unwrap().jobs.is_empty());
    stage.test.stop().await;
}
