//! Workers and challengers against a real coordinator: honest work is paid, and every way to cheat is convicted.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod support;

use gainsay_api::disputes::{
    DisputeFilter, DisputeState, DisputeSummary, Verdict, VerdictReason, VirtualView,
};
use gainsay_api::embeddings::EmbeddingInput;
use gainsay_api::jobs::{Finality, JobQuery, JobState, JobView, SubmitJob};
use gainsay_challenger::Mode;
use gainsay_engine::Options;
use gainsay_protocol::JobId;
use gainsay_testkit::{ToyModel, until};
use gainsay_worker::Summary;
use support::{Running, Stage, cheating, honest};

/// A stage with a model.
struct Scene {
    stage: Stage,
    model: ToyModel,
}

impl Scene {
    async fn new() -> Self {
        let stage = Stage::new().await;
        let model = ToyModel::default();
        model.publish(&stage.client).await;
        Self { stage, model }
    }

    async fn fund(&self, name: &str) {
        self.stage.fund(name).await;
    }

    fn worker(&self, name: &str, misbehave: Option<&str>) -> Running<Summary> {
        match misbehave {
            Some(how) => self.stage.worker(name, cheating(how)),
            None => self.stage.worker(name, honest),
        }
    }

    fn challenger(&self, name: &str, mode: Mode) -> Running<gainsay_challenger::Summary> {
        self.stage.challenger(name, mode)
    }

    /// A job of two sequences, one of them long enough for virtual layers.
    async fn submit(&self) -> JobId {
        let lists = vec![(0..20).map(|i| i % 50).collect(), vec![3, 1, 4]];
        let input = EmbeddingInput::TokenLists(lists);
        let job = SubmitJob { model: self.model.name().to_owned(), input, max_price: None };
        self.stage.client.submit_job(&self.stage.submitter.api_key, &job).await.unwrap().id
    }

    async fn job(&self, id: JobId) -> JobView {
        self.stage.client.job(&self.stage.submitter.api_key, id, JobQuery::default()).await.unwrap()
    }

    async fn claimed(&self, id: JobId) -> JobView {
        until("a claim", async || Some(self.job(id).await).filter(|job| job.state == JobState::Claimed)).await
    }

    async fn dispute(&self, state: DisputeState) -> DisputeSummary {
        let filter = DisputeFilter { state: Some(state), ..DisputeFilter::default() };
        until("a dispute", async || {
            self.stage.client.disputes(&filter).await.unwrap().disputes.into_iter().next()
        })
        .await
    }

    /// Lets all windows pass.
    async fn close_windows(&self) {
        let parameters = self.stage.client.info().await.unwrap().parameters;
        self.stage.coordinator.advance(parameters.window_ms + 1).await;
    }

    /// The honest bytes of the job's answer.
    fn honest_output(&self) -> Vec<u8> {
        use gainsay_engine::Model;
        use gainsay_program::JobInput;
        let weights = self.model.toy.weights.iter().map(|bytes| bytes.as_slice().into()).collect();
        let model = std::sync::Arc::new(self.model.toy.model.clone());
        let engine = Model::new(model, weights, Options { threads: 1, ..Options::default() }).unwrap();
        let job = JobInput::new([(0..20).map(|i| i % 50).collect(), vec![3_u32, 1, 4]]).unwrap();
        engine.run(&[job], None).unwrap().remove(0).output
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_work_is_checked_and_paid() {
    let scene = Scene::new().await;
    for name in ["ada", "cara"] {
        scene.fund(name).await;
    }
    let worker = scene.worker("ada", None);
    let mut challenger = scene.challenger("cara", Mode::Challenge);
    let jobs = [scene.submit().await, scene.submit().await, scene.submit().await];
    for job in jobs {
        assert_eq!(scene.claimed(job).await.answer.unwrap().output.0, scene.honest_output());
    }
    // A challenger that was not there sees what is still open when it comes.
    let mut late = scene.challenger("late", Mode::Watch);
    challenger.until(|summary| summary.checked == 3).await;
    late.until(|summary| summary.checked == 3).await;
    let (checked, watched) = (challenger.stop().await, late.stop().await);
    assert_eq!((checked.agreed, checked.differed, checked.opened), (3, 0, 0), "{checked:?}");
    assert_eq!((watched.agreed, watched.differed), (3, 0), "{watched:?}");
    scene.close_windows().await;
    for job in jobs {
        let job = scene.job(job).await;
        assert_eq!(job.state, JobState::Finalized);
        assert_eq!(job.answer.unwrap().finality, Finality::Final);
    }
    let summary = worker.stop().await;
    assert_eq!((summary.leases, summary.claims, summary.lies, summary.lost), (3, 3, 0, 0), "{summary:?}");
    scene.stage.coordinator.stop().await;
}

/// A cheat works alone until it is convicted; then an honest worker of another owner does the job.
async fn convicted(how: &str, expected: VerdictReason) -> DisputeSummary {
    let scene = Scene::new().await;
    for name in ["eve", "cara", "ada"] {
        scene.fund(name).await;
    }
    let cheat = scene.worker("eve", Some(how));
    let job = scene.submit().await;
    scene.claimed(job).await;
    let mut challenger = scene.challenger("cara", Mode::Challenge);
    if expected == VerdictReason::ClockExpired {
        scene.dispute(DisputeState::Open).await;
        let parameters = scene.stage.client.info().await.unwrap().parameters;
        scene.stage.coordinator.advance(parameters.worker_allowance_ms + 1).await;
    }
    let dispute = scene.dispute(DisputeState::Decided).await;
    let decision = dispute.decision.as_ref().unwrap();
    assert_eq!((decision.verdict, decision.reason), (Verdict::ChallengerWins, expected), "{how}");
    if expected == VerdictReason::Referee {
        assert_ne!(decision.claimed, decision.computed);
        assert!(dispute.place.element.is_some());
    }
    challenger.until(|summary| summary.won == 1).await;
    let honest = scene.worker("ada", None);
    let answer = scene.claimed(job).await.answer.unwrap();
    assert_eq!(answer.output.0, scene.honest_output(), "{how}");
    scene.close_windows().await;
    assert_eq!(scene.job(job).await.state, JobState::Finalized, "{how}");
    let (cheat, challenger, honest) = (cheat.stop().await, challenger.stop().await, honest.stop().await);
    assert_eq!((cheat.claims, cheat.lies), (1, 1), "{how}: {cheat:?}");
    assert_eq!((challenger.opened, challenger.won, challenger.lost), (1, 1, 0), "{how}: {challenger:?}");
    assert_eq!((honest.claims, honest.lies), (1, 0), "{how}: {honest:?}");
    scene.stage.coordinator.stop().await;
    dispute
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seeded_flip_is_convicted() {
    convicted("flip:1", VerdictReason::Referee).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chosen_flip_is_convicted() {
    // Layer 1 is the first block; op 3 its attention, whose elements in the long sequence have virtual layers.
    let dispute = convicted("flip:1:3:17:30", VerdictReason::Referee).await;
    assert_eq!(dispute.place.layer, 1);
    assert_eq!(dispute.place.inside, Some(VirtualView { op: 3, element: 17 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_skipped_layer_is_convicted() {
    convicted("skip-layer:2", VerdictReason::Referee).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_weights_are_convicted() {
    convicted("other-weights:5", VerdictReason::Referee).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_convicted() {
    convicted("silent:2", VerdictReason::ClockExpired).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_killed_defends_from_what_it_kept() {
    let scene = Scene::new().await;
    for name in ["eve", "cara"] {
        scene.fund(name).await;
    }
    let first = scene.worker("eve", Some("flip:3"));
    let job = scene.submit().await;
    let claim = scene.claimed(job).await.answer.unwrap().claim;
    first.kill().await;
    let mut challenger = scene.challenger("cara", Mode::Challenge);
    scene.dispute(DisputeState::Open).await;
    // It was started without being told to cheat: the lie that it defends is the one on record.
    let mut second = scene.worker("eve", None);
    let dispute = scene.dispute(DisputeState::Decided).await;
    assert_eq!(dispute.claim, claim);
    assert_eq!(dispute.decision.unwrap().reason, VerdictReason::Referee);
    challenger.until(|summary| summary.won == 1).await;
    second.until(|summary| summary.moves >= 2).await;
    let (second, challenger) = (second.stop().await, challenger.stop().await);
    assert_eq!((second.claims, second.lies), (1, 1), "the same bytes were posted again: {second:?}");
    assert_eq!(challenger.won, 1, "{challenger:?}");
    scene.stage.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenger_that_was_killed_goes_on_with_its_dispute() {
    let scene = Scene::new().await;
    for name in ["eve", "cara"] {
        scene.fund(name).await;
    }
    // Silent at first: so that the dispute waits, open, while the challenger is replaced.
    let cheat = scene.worker("eve", Some("silent:3"));
    let job = scene.submit().await;
    scene.claimed(job).await;
    let first = scene.challenger("cara", Mode::Challenge);
    let open = scene.dispute(DisputeState::Open).await;
    first.kill().await;
    cheat.kill().await;
    unsilence(&scene.stage.home("eve").join("state"));
    let cheat = scene.worker("eve", None);
    // A challenger that only defends opens nothing new, and plays what it finds.
    let mut second = scene.challenger("cara", Mode::Defend);
    let decided = scene.dispute(DisputeState::Decided).await;
    assert_eq!(decided.id, open.id);
    assert_eq!(decided.decision.unwrap().verdict, Verdict::ChallengerWins);
    second.until(|summary| summary.won == 1).await;
    let second = second.stop().await;
    assert_eq!((second.opened, second.won), (0, 1), "{second:?}");
    cheat.stop().await;
    scene.stage.coordinator.stop().await;
}

/// Makes the records of a silent cheat those of one that answers.
fn unsilence(state: &std::path::Path) {
    let folder = std::fs::read_dir(state).unwrap().next().unwrap().unwrap().path();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"silent\": true", "\"silent\": false")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_reports_and_stakes_nothing() {
    let scene = Scene::new().await;
    scene.fund("eve").await;
    let cheat = scene.worker("eve", Some("flip:1"));
    let job = scene.submit().await;
    scene.claimed(job).await;
    let mut watcher = scene.challenger("watcher", Mode::Watch);
    watcher.until(|summary| summary.checked == 1).await;
    let summary = watcher.stop().await;
    assert_eq!((summary.differed, summary.opened), (1, 0), "{summary:?}");
    assert!(scene.stage.client.disputes(&DisputeFilter::default()).await.unwrap().disputes.is_empty());
    assert!(!scene.stage.home("watcher").join("challenger.key").exists());
    cheat.stop().await;
    scene.stage.coordinator.stop().await;
}
