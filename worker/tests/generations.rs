//! Language models on the real stack: honest answers are streamed, checked and paid, and every way to lie about one is
//! convicted or refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use gainsay_api::disputes::{DisputeFilter, DisputeState, Verdict};
use gainsay_api::embeddings::EmbeddingInput;
use gainsay_api::generation::{Completion, CompletionRequest, Options as Asked};
use gainsay_api::jobs::{Finality, JobQuery};
use gainsay_challenger::Mode;
use gainsay_testkit::TestGenerator;
use gainsay_worker::Summary;
use serde_json::Value;
use support::{Running, Stage, cheating, honest};
use tokio::task::JoinHandle;

/// Tokens of every answer.
const TOKENS: u32 = 8;

/// A stage with a language model.
struct Scene {
    stage: Stage,
    model: TestGenerator,
}

impl Scene {
    async fn new() -> Self {
        let stage = Stage::new().await;
        let model = TestGenerator::new();
        model.publish(&stage.client).await;
        Self { stage, model }
    }

    async fn worker(&self, name: &str, misbehave: Option<&str>) -> Running<Summary> {
        self.stage.fund(name).await;
        match misbehave {
            Some(how) => self.stage.worker(name, cheating(how)),
            None => self.stage.worker(name, honest),
        }
    }

    async fn challenger(&self) -> Running<gainsay_challenger::Summary> {
        self.stage.fund("hawk").await;
        self.stage.challenger("hawk", Mode::Challenge)
    }

    fn request(&self, seed: i64, stream: bool) -> CompletionRequest {
        CompletionRequest {
            model: self.model.name().to_owned(),
            prompt: EmbeddingInput::Tokens(vec![9, 17, 4, 33, 5]),
            options: Asked {
                max_tokens: Some(TOKENS),
                temperature: Some(0.8),
                seed: Some(seed),
                ignore_eos: Some(true),
                stream: Some(stream),
                ..Asked::default()
            },
        }
    }

    /// Asks, and waits for the answer beside what the test does.
    fn ask(&self, seed: i64) -> JoinHandle<Completion> {
        let (client, key, request) =
            (self.stage.client.clone(), self.stage.submitter.api_key.clone(), self.request(seed, false));
        tokio::spawn(async move { client.completion(&key, &request).await.expect("an answer") })
    }

    /// Asks for a stream; answers all that came of it.
    fn ask_for_a_stream(&self, seed: i64) -> JoinHandle<String> {
        let url = format!("{}/v1/completions", self.stage.coordinator.url());
        gainsay_api::client::install_crypto_provider();
        let asked = reqwest::Client::builder().no_proxy().build().unwrap();
        let asked =
            asked.post(url).bearer_auth(&self.stage.submitter.api_key).json(&self.request(seed, true));
        tokio::spawn(async move { asked.send().await.unwrap().text().await.unwrap_or_default() })
    }

    /// A cheat answers, and is convicted by a challenger.
    async fn convicts(self, cheat: &str) {
        let mut challenger = self.challenger().await;
        let mut worker = self.worker("mallory", Some(cheat)).await;
        let asked = self.ask(3);
        challenger.until(|summary| summary.won >= 1).await;
        let filter = DisputeFilter { state: Some(DisputeState::Decided), ..DisputeFilter::default() };
        let decided = self.stage.client.disputes(&filter).await.unwrap().disputes;
        assert!(decided.iter().all(|dispute| {
            dispute.decision.as_ref().is_some_and(|decision| decision.verdict == Verdict::ChallengerWins)
        }));
        worker.until(|summary| summary.rejected >= 1).await;
        asked.abort();
        assert_eq!(worker.stop().await.finalized, 0);
        challenger.stop().await;
        self.stage.coordinator.stop().await;
    }

    /// A cheat answers, and its claim is not even taken.
    async fn refuses(self, cheat: &str, streamed: bool) {
        let mut worker = self.worker("mallory", Some(cheat)).await;
        let (asked, stream) =
            if streamed { (None, Some(self.ask_for_a_stream(3))) } else { (Some(self.ask(3)), None) };
        worker.until(|summary| summary.lost >= 1).await;
        let summary = worker.stop().await;
        assert_eq!((summary.claims, summary.finalized), (0, 0), "{summary:?}");
        asked.into_iter().for_each(|asked| asked.abort());
        stream.into_iter().for_each(|stream| stream.abort());
        self.stage.coordinator.stop().await;
    }
}

/// The text of a stream of completions.
fn text_of(stream: &str) -> String {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let chunks = data.map(|data| serde_json::from_str::<Value>(data).unwrap());
    chunks.filter_map(|chunk| Some(chunk["choices"][0]["text"].as_str()?.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_answers_are_batched_streamed_checked_and_paid() {
    let scene = Scene::new().await;
    let mut challenger = scene.challenger().await;
    let whole: Vec<_> = (0..4).map(|seed| scene.ask(seed)).collect();
    let stream = scene.ask_for_a_stream(2);
    let mut worker = scene.worker("ada", None).await;
    let mut answers = Vec::new();
    for asked in whole {
        answers.push(asked.await.unwrap());
    }
    let stream = stream.await.unwrap();
    assert!(stream.trim_end().ends_with("data: [DONE]"), "{stream}");
    assert_eq!(
        text_of(&stream),
        answers[2].choices[0].text,
        "the same request has the same answer, however it comes"
    );
    challenger.until(|summary| summary.checked >= 5).await;
    scene.stage.coordinator.advance(scene.stage.coordinator.app().config().parameters.window_ms).await;
    worker.until(|summary| summary.finalized >= 5).await;
    let job = answers[0].gainsay.as_ref().unwrap().job;
    let view =
        scene.stage.client.job(&scene.stage.submitter.api_key, job, JobQuery::default()).await.unwrap();
    assert_eq!(view.answer.unwrap().finality, Finality::Final);
    let (checked, worked) = (challenger.stop().await, worker.stop().await);
    assert_eq!((checked.agreed, checked.differed), (5, 0), "{checked:?}");
    assert_eq!((worked.claims, worked.lost), (5, 0), "{worked:?}");
    scene.stage.coordinator.stop().await;
}

/// What was streamed before the crash is on record; the run after it must begin with the same tokens, and does.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_while_it_generates_says_the_same_again() {
    let scene = Scene::new().await;
    let asked = scene.ask_for_a_stream(2);
    let mut worker = scene.worker("ada", None).await;
    worker.until(|summary| summary.leases >= 1).await;
    worker.kill().await;
    let mut again = scene.worker("ada", None).await;
    let stream = asked.await.unwrap();
    assert!(stream.trim_end().ends_with("data: [DONE]"), "{stream}");
    again.until(|summary| summary.claims >= 1).await;
    let whole = scene.ask(2).await.unwrap();
    assert_eq!(text_of(&stream), whole.choices[0].text);
    again.stop().await;
    scene.stage.coordinator.stop().await;
}

/// Each job is handed back at once and for nothing, and the model is served on; whoever has the room answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_does_not_fit_goes_to_another_worker() {
    let scene = Scene::new().await;
    scene.stage.fund("tiny").await;
    let mut tiny = scene.stage.worker("tiny", |config| config.kv_bytes = 1);
    let first = scene.ask(1);
    tiny.until(|summary| summary.returned == 1).await;
    let second = scene.ask(2);
    tiny.until(|summary| summary.returned == 2).await;
    let ada = scene.worker("ada", None).await;
    first.await.unwrap();
    second.await.unwrap();
    let (tiny, ada) = (tiny.stop().await, ada.stop().await);
    assert_eq!((tiny.claims, tiny.lost, tiny.returned), (0, 0, 2), "{tiny:?}");
    assert_eq!((ada.claims, ada.returned), (2, 0), "{ada:?}");
    scene.stage.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_wrong_token_is_convicted() {
    Scene::new().await.convicts("token:3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_seed_and_temperature_are_convicted() {
    Scene::new().await.convicts("other-sampling:77").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_cheap_model_under_the_right_models_layers_are_convicted() {
    Scene::new().await.convicts("other-tokens:1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_flipped_in_a_generation_is_convicted() {
    Scene::new().await.convicts("flip:1:0:40:22").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_answer_is_refused() {
    Scene::new().await.refuses("truncate", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_padded_answer_is_refused() {
    Scene::new().await.refuses("pad", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_other_tokens_than_were_streamed_is_refused() {
    Scene::new().await.refuses("other-stream", true).await;
}
