//! What a coordinator writes to its log is read by people who may know neither prompts nor secrets.

use std::io::Write;
use std::sync::{Arc, Mutex};

use gainsay_api::embeddings::EmbeddingInput;
use gainsay_api::jobs::SubmitJob;
use gainsay_testkit::OPERATOR_TOKEN;
use gainsay_testkit::zoo::{Answer, Stage};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics while writing").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Everything that the coordinator says, however much it is asked to say, through a job, a conviction and requests that
/// are refused.
#[tokio::test(flavor = "multi_thread")]
async fn prompts_or_secrets_in_logs() {
    let log = Log::default();
    // The clients of this process are not the coordinator: what they say is not in question.
    let filter = EnvFilter::new("trace,hyper=off,hyper_util=off,reqwest=off,rustls=off,gainsay_api=off");
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(log.clone()).init();

    let stage = Stage::new().await;
    let (cheat, prover) = (stage.owner("cheat").await, stage.owner("prover").await);
    let prompt = "seven blue xylophones prophesy";
    for input in [
        EmbeddingInput::Text(prompt.to_owned()),
        EmbeddingInput::Text(format!("{prompt} {}", "one ".repeat(99))),
    ] {
        let job = SubmitJob { model: stage.model.id().to_string(), input, max_price: None };
        let _ = stage.client.submit_job(&stage.submitter.api_key, &job).await;
        let _ = stage.client.submit_job("gsk-a-key-of-nobody", &job).await;
    }
    let lease = stage.lease(&cheat.worker).await.expect("there is a job");
    let answer = Answer::skipping(&stage.model, &lease, 1);
    let mut claimed = stage.claim(&cheat, lease, answer).await;
    let opened = stage.object(&claimed, &prover.challenger).await;
    stage.play(&mut claimed, opened, &prover.challenger).await;
    stage.done_honestly_after_all(claimed.lease.job_id).await;
    let database = stage.test.database().url().to_owned();
    let secrets: Vec<String> = [&cheat, &prover]
        .iter()
        .flat_map(|owner| [&owner.key, &owner.worker, &owner.challenger])
        .map(|key| key.expose().iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    let api_key = stage.submitter.api_key.clone();
    stage.end().await;

    let text = String::from_utf8_lossy(&log.0.lock().expect("nobody panicked")).into_owned();
    assert!(
        text.contains("serving") && text.contains("answered"),
        "it was listened to: {} bytes",
        text.len()
    );
    for word in ["xylophones", "prophesy", OPERATOR_TOKEN, "gsk-", &api_key, &database] {
        let line = text.lines().find(|line| line.contains(word));
        assert_eq!(line, None, "the log tells {word:?}");
    }
    for secret in &secrets {
        assert!(!text.contains(secret), "the log tells a secret key");
    }
}
