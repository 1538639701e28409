//! `POST /v1/embeddings`, as OpenAI clients use it.

use std::time::Duration;

use gainsay_api::ErrorCode;
use gainsay_api::embeddings::{EmbeddingResponse, Vector};
use gainsay_api::jobs::Finality;
use gainsay_program::JobInput;
use gainsay_testkit::{TestCoordinator, ToyRun, until};
use serde_json::{Value, json};

use crate::raw::{Answer, bearer, send};
use crate::world::World;

/// Answers requests while a worker works beside them.
async fn embed(world: &World, body: &Value) -> Answer {
    let headers = bearer(&world.submitter.api_key);
    let bytes = body.to_string().into_bytes();
    let request = send(&world.test, "POST", "/v1/embeddings", &headers, &bytes);
    let work = async {
        loop {
            let lease = until("a job", async || world.lease(&world.owner.worker).await).await;
            world.post(&world.run(&lease), &lease, &world.owner.worker).await;
        }
    };
    tokio::select! { answer = request => answer, () = work => unreachable!("the worker never ends") }
}

/// The vectors that an honest run gives, one a sequence.
fn expected(world: &World, sequences: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let width = world.model.toy.model.answer_width() as usize;
    let one = |sequence: &Vec<u32>| {
        let input = JobInput::new([sequence]).expect("not empty");
        let run = ToyRun::new(&world.model, &input, |_, _| {});
        let values: Vec<f32> =
            run.answer().as_chunks::<4>().0.iter().map(|&v| f32::from_le_bytes(v)).collect();
        assert_eq!(values.len(), width);
        values
    };
    sequences.iter().map(one).collect()
}

fn vectors(response: &EmbeddingResponse) -> Vec<Vec<f32>> {
    response.data.iter().map(|item| item.embedding.decode().expect("a vector")).collect()
}

/// A stock client repeats any 5xx that does not forbid it, and would pay for the same texts twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_after_the_jobs_are_on_record_is_not_to_be_repeated() {
    let world = World::new().await;
    let body = json!({ "model": "toy", "input": "one two three" }).to_string().into_bytes();
    let headers = bearer(&world.submitter.api_key);
    let breakdown = async {
        until("the job is queued", async || world.lease(&world.owner.worker).await).await;
        world.test.app().close().await;
    };
    let (answer, ()) = tokio::join!(send(&world.test, "POST", "/v1/embeddings", &headers, &body), breakdown);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert_eq!(answer.header("retry-after"), None);
    assert!(answer.header("gainsay-job").is_some_and(|job| job.len() == 36), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_and_tokens_in_either_encoding_give_the_claimed_bits() {
    let world = World::new().await;
    let wanted = expected(&world, &[vec![1, 2, 3], vec![12, 0]]);
    let texts = json!(["one two three", "blue unheard-of"]);
    // "unheard-of" is three tokens to a tokenizer that splits at punctuation.
    let second = vec![12, 0, 0, 0];
    let by_text = expected(&world, &[vec![1, 2, 3], second]);
    let cases = [
        (json!({ "model": "toy", "input": texts }), &by_text, false),
        (json!({ "model": "toy", "input": texts, "encoding_format": "base64" }), &by_text, true),
        (
            json!({ "model": "toy", "input": [[1, 2, 3], [12, 0]], "encoding_format": "float" }),
            &wanted,
            false,
        ),
    ];
    for (body, wanted, base64) in cases {
        let answer = embed(&world, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let response: EmbeddingResponse = serde_json::from_slice(&answer.body).expect("an answer");
        assert_eq!(vectors(&response), *wanted, "{body}");
        assert!(response.data.iter().all(|item| matches!(item.embedding, Vector::Base64(_)) == base64));
        let indices: Vec<u32> = response.data.iter().map(|item| item.index).collect();
        assert_eq!(indices, [0, 1]);
    }
    world.test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_text_or_token_list_is_one_vector() {
    let world = World::new().await;
    let wanted = expected(&world, &[vec![2, 3]]);
    for input in [json!("two three"), json!(["two three"]), json!([2, 3])] {
        let width = world.model.toy.model.answer_width();
        let body =
            json!({ "model": world.model.id(), "input": input, "dimensions": width, "user": "somebody" });
        let answer = embed(&world, &body).await;
        let response: EmbeddingResponse = serde_json::from_slice(&answer.body).expect("an answer");
        assert_eq!(vectors(&response), wanted);
        assert_eq!(response.object, "list");
        assert_eq!(response.model, "toy");
        assert_eq!((response.usage.prompt_tokens, response.usage.total_tokens), (2, 2));
    }
    world.test.stop().await;
}

/// The answer says where it came from, and that it is not final yet.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_names_its_job_claim_worker_and_trace() {
    let world = World::new().await;
    let answer = embed(&world, &json!({ "model": "toy", "input": "one" })).await;
    let response: EmbeddingResponse = serde_json::from_slice(&answer.body).expect("an answer");
    let claim = world.client.claim(response.gainsay.claim).await.expect("the claim");
    assert_eq!(response.gainsay.finality, Finality::Pending);
    assert_eq!(response.gainsay.parts.len(), 1);
    let part = &response.gainsay.parts[0];
    assert_eq!((part.job, part.claim, part.inputs), (claim.summary.job_id, claim.summary.id, 1));
    assert_eq!(part.worker, world.owner.worker.id());
    assert_eq!(part.trace_root, claim.trace_root);
    assert_eq!(answer.header("gainsay-claim"), Some(claim.summary.id.to_string().as_str()));
    assert_eq!(answer.header("gainsay-job"), Some(claim.summary.job_id.to_string().as_str()));
    assert_eq!(answer.header("gainsay-finality"), Some("pending"));
    world.test.stop().await;
}

/// Cutting a request into jobs must not change a bit, an order or a price's sum.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_becomes_several_jobs_and_one_answer() {
    let builder = TestCoordinator::builder().http(|http| {
        http.sequences_per_job = 2;
        http.tokens_per_job = 6;
    });
    let world = World::with(builder).await;
    let sequences: Vec<Vec<u32>> =
        vec![vec![1], vec![2, 3], vec![4; 5], vec![5, 6], vec![7; 20], vec![8], vec![9], vec![10]];
    let answer = embed(&world, &json!({ "model": "toy", "input": sequences })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let response: EmbeddingResponse = serde_json::from_slice(&answer.body).expect("an answer");
    assert_eq!(vectors(&response), expected(&world, &sequences));
    let inputs: Vec<u32> = response.gainsay.parts.iter().map(|part| part.inputs).collect();
    assert_eq!(inputs, [2, 1, 1, 1, 2, 1]);
    let tokens: u64 = sequences.iter().map(|sequence| sequence.len() as u64).sum();
    assert_eq!(response.usage.prompt_tokens, tokens);
    let prices = &world.test.app().config().prices;
    assert_eq!(response.gainsay.price, prices.per_job.0 * 6 + prices.per_token.0 * tokens as i64);
    world.test.stop().await;
}

/// Half a request queued and paid for, of which the submitter gets no answer, would be money lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_paid_in_full_queues_nothing() {
    use gainsay_api::accounts::{AccountKind, AccountsQuery};
    use gainsay_api::client::Auth;
    let builder = TestCoordinator::builder().http(|http| http.sequences_per_job = 1);
    let world = World::with(builder).await;
    let prices = &world.test.app().config().prices;
    let funds = 2 * (prices.per_job.0 + prices.per_token.0);
    let poor = gainsay_testkit::TestSubmitter::register(&world.client, "poor", funds).await;
    let body = json!({ "model": "toy", "input": ["one", "two", "three"] }).to_string();
    let answer = send(&world.test, "POST", "/v1/embeddings", &bearer(&poor.api_key), body.as_bytes()).await;
    answer.refused(402, ErrorCode::InsufficientFunds);
    let accounts =
        world.client.accounts(Auth::Bearer(&poor.api_key), AccountsQuery::default()).await.expect("accounts");
    assert_eq!(accounts.balance(poor.id, AccountKind::Free), funds);
    assert!(world.lease(&world.owner.worker).await.is_none(), "a job of the refused request is queued");
    world.test.stop().await;
}

/// A request that gives up waiting says which job goes on, and tells stock clients not to repeat it: a repetition
/// would be a second job.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_worker_the_request_ends_and_the_job_goes_on() {
    let builder = TestCoordinator::builder().http(|http| http.answer_time = Duration::from_millis(100));
    let world = World::with(builder).await;
    let body = json!({ "model": "toy", "input": "one two" }).to_string();
    let headers = bearer(&world.submitter.api_key);
    let answer = send(&world.test, "POST", "/v1/embeddings", &headers, body.as_bytes()).await;
    answer.refused(504, ErrorCode::JobTimeout);
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    let job = answer.header("gainsay-job").expect("the job's id").to_owned();
    let lease = world.lease(&world.owner.worker).await.expect("the job is in the queue");
    assert_eq!(lease.job_id.to_string(), job);
    world.post(&world.run(&lease), &lease, &world.owner.worker).await;
    let view =
        world.client.job(&world.submitter.api_key, lease.job_id, Default::default()).await.expect("the job");
    assert!(view.answer.is_some());
    world.test.stop().await;
}

/// A client that hangs up must not take its paid job with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_loses_nothing() {
    let world = World::new().await;
    let body = json!({ "model": "toy", "input": "one two" }).to_string().into_bytes();
    let headers = bearer(&world.submitter.api_key);
    let lease = {
        let request = send(&world.test, "POST", "/v1/embeddings", &headers, &body);
        let queued = until("the job", async || world.lease(&world.owner.worker).await);
        tokio::select! { _ = request => panic!("nobody has answered"), lease = queued => lease }
    };
    world.post(&world.run(&lease), &lease, &world.owner.worker).await;
    world.close_windows().await;
    let view =
        world.client.job(&world.submitter.api_key, lease.job_id, Default::default()).await.expect("the job");
    assert_eq!(view.answer.expect("an answer").finality, Finality::Final);
    world.test.stop().await;
}
