//! The acts of the demo, in order.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gainsay_api::accounts::{Account, AccountKind, AccountRole, Accounts, AccountsQuery};
use gainsay_api::client::{Auth, Client};
use gainsay_api::embeddings::{EmbeddingInput, EmbeddingRequest, EncodingFormat};
use gainsay_api::events::{Event, EventCursor, EventKind};
use gainsay_api::jobs::{Finality, JobQuery};
use gainsay_commitment::DisputeId;
use gainsay_engine::{Options, Simd};
use gainsay_program::ArithmeticProfile;
use gainsay_program::lowering::LowerOptions;
use gainsay_protocol::JobId;
use indicatif::{MultiProgress, ProgressBar};
use tokio::sync::Notify;

use super::report::{self, Report};
use super::sentences::SENTENCES;
use super::tally::Tally;
use super::timeline;
use super::words::{self, PROMPTS, Speaker, WRONG_TOKEN};
use crate::cast;
use crate::local::{LocalModel, Runner};
use crate::pull::Pulled;
use crate::stage::Stage;
use crate::terminal;

const MODEL_NAME: &str = gainsay_model_source::DEFAULT_MODEL;
const CHEAT: &str = "mallory";
const CHEAT_OWNER: &str = "mallory-co";
const LIAR: &str = "trudy";
const LIAR_OWNER: &str = "trudy-co";
const HONEST: [(&str, &str); 2] = [("alder", "alder-co"), ("birch", "birch-co")];
const CHALLENGER: &str = "hawk";
const CHALLENGER_OWNER: &str = "hawk-co";
const CHEATS: [(&str, &str); 2] = [(CHEAT, CHEAT_OWNER), (LIAR, LIAR_OWNER)];
const SENTENCES_PER_JOB: usize = 2;
const JOBS_IN_FLIGHT: usize = 4;
const WINDOW_MS: u64 = 6_000;
/// How long a convicted stake is held before it is paid out. Days in earnest; the demo shows that it is paid.
const HOLD_MS: u64 = 2_000;
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The demo is expected to end in under a minute; this is for a machine that is far slower or stuck.
const PATIENCE: Duration = Duration::from_secs(300);

/// One request of the submitter and what it was answered first.
struct Asked {
    job: JobId,
    texts: Vec<&'static str>,
    price: i64,
}

/// Plays all acts on the stage and takes it down.
pub(super) async fn play(
    mut stage: Stage,
    pulled: &Pulled,
    language_model: Option<PathBuf>,
    spinner: ProgressBar,
    started: Instant,
) -> Result<Report> {
    let outcome = tokio::select! {
        outcome = acts(&mut stage, pulled, language_model, spinner, started) => outcome,
        () = tokio::time::sleep(PATIENCE) => Err(anyhow::anyhow!("the demo did not end within {PATIENCE:?}")),
    };
    // If a party ended early, its log says more than what its absence caused.
    let health = stage.check();
    let stopped = stage.stop().await;
    match outcome {
        Ok(report) => stopped.map(|()| report),
        Err(error) => Err(health.err().unwrap_or(error)),
    }
}

async fn acts(
    stage: &mut Stage,
    pulled: &Pulled,
    language_model: Option<PathBuf>,
    spinner: ProgressBar,
    started: Instant,
) -> Result<Report> {
    spinner.set_message("reading the model and hashing its weights");
    let dir = pulled.dir.clone();
    let model = tokio::task::spawn_blocking(move || {
        LocalModel::read(&dir, &LowerOptions::new(MODEL_NAME, ArithmeticProfile::ExactF32V1), &mut |_| {})
    })
    .await
    .context("reading the model ended early")??;

    let own = stage.dir().to_owned();
    let speaker = tokio::task::spawn_blocking(move || Speaker::read(language_model.as_deref(), &own));
    let speaker = speaker.await.context("reading the language model ended early")??;

    spinner.set_message("starting the coordinator");
    let token = cast::random_token()?;
    let settings = [
        ("GAINSAY_OPERATOR_TOKEN", token.clone()),
        ("GAINSAY_WINDOW_MS", WINDOW_MS.to_string()),
        ("GAINSAY_HOLD_MS", HOLD_MS.to_string()),
    ];
    let url = stage.coordinator("127.0.0.1:0", &settings).await?;
    let client = Client::connect(&url).await.context("the coordinator does not answer")?;
    let submitter = cast::submitter(&client, &token, "submitter").await?;
    let id = crate::publish::publish(&client, Auth::Bearer(&token), &model, &spinner).await?;
    let words = crate::publish::publish(&client, Auth::Bearer(&token), &speaker.model, &spinner).await?;
    let arithmetic = client
        .models()
        .await?
        .data
        .into_iter()
        .find(|view| view.id == id)
        .map(|view| view.arithmetic)
        .context("the coordinator does not list the model that it was just given")?;
    spinner.finish_and_clear();

    let show = Show::start(&client, SENTENCES.len() / SENTENCES_PER_JOB + PROMPTS.len(), started);
    show.say(&format!("model    {MODEL_NAME} from {}; coordinator at {url}", pulled.source));
    show.say(&format!("model    {}: {}", speaker.model.manifest.name, speaker.description));

    // The cheats come first, so that each gets the first job of its model whatever the machine's mood is.
    let owner = cast::owner(stage, &client, &token, CHALLENGER_OWNER).await?;
    stage.party("challenger", CHALLENGER, &owner, &url, &[])?;
    let owner = cast::owner(stage, &client, &token, CHEAT_OWNER).await?;
    stage.party(
        "worker",
        CHEAT,
        &owner,
        &url,
        &["--misbehave", "flip", "--batch", "1", "--model", &id.to_string()],
    )?;
    let owner = cast::owner(stage, &client, &token, LIAR_OWNER).await?;
    let lie = format!("token:{WRONG_TOKEN}");
    stage.party(
        "worker",
        LIAR,
        &owner,
        &url,
        &["--misbehave", &lie, "--batch", "1", "--model", &words.to_string()],
    )?;

    let mut batches = SENTENCES.chunks(SENTENCES_PER_JOB);
    let first = batches.next().context("there are sentences")?;
    let key = &submitter.api_key;
    let first_words = words::ask(&client, key, words.to_string(), 0);
    let (first, first_words, ()) =
        tokio::try_join!(ask(&client, key, id.to_string(), first), first_words, async {
            show.until(|tally| CHEATS.iter().all(|(cheat, _)| tally.has_claim_by(cheat))).await;
            for (worker, owner) in HONEST {
                let owner = cast::owner(stage, &client, &token, owner).await?;
                stage.party("worker", worker, &owner, &url, &[])?;
            }
            Ok(())
        })?;
    let rest: Vec<Asked> = stream::iter(batches)
        .map(|texts| ask(&client, &submitter.api_key, id.to_string(), texts))
        .buffered(JOBS_IN_FLIGHT)
        .try_collect()
        .await?;
    let asked: Vec<Asked> = std::iter::once(first).chain(rest).collect();
    let more_words: Vec<words::Asked> = stream::iter(1..PROMPTS.len())
        .map(|number| words::ask(&client, key, words.to_string(), number))
        .buffered(JOBS_IN_FLIGHT)
        .try_collect()
        .await?;
    let said: Vec<words::Asked> = std::iter::once(first_words).chain(more_words).collect();

    let jobs = asked.len() + said.len();
    show.until(|tally| tally.decided() >= jobs).await;
    let spinner = terminal::spinner("running every answer again, independently");
    let runner = tokio::task::spawn_blocking(move || model.into_runner(independent()))
        .await
        .context("loading the model ended early")??;
    let mut unequal = compare(&client, key, &runner, &asked).await?;
    let speaker = tokio::task::spawn_blocking(move || speaker.model.into_model(independent()))
        .await
        .context("loading the language model ended early")??;
    unequal.extend(words::compare(&client, key, speaker, &said).await?);
    keep_evidence(&client, &show, stage.dir()).await?;
    spinner.finish_and_clear();
    let accounts = settled_accounts(&client, &token).await?;
    let tally = show.finish();
    let spent: i64 = asked.iter().map(|asked| asked.price).chain(said.iter().map(|asked| asked.price)).sum();
    let model = report::Model { id: id.to_string(), source: pulled.source.to_owned(), arithmetic };
    Ok(conclude(tally, model, &accounts, &unequal, spent, started))
}

/// Another code path than the workers', where this machine has one: equal bits are then no coincidence.
fn independent() -> Options {
    let simd = match Simd::available().as_slice() {
        [.., second, _fastest] if *second != Simd::Portable => *second,
        _ => Simd::Auto,
    };
    Options { simd, ..Options::default() }
}

async fn ask(client: &Client, api_key: &str, model: String, texts: &[&'static str]) -> Result<Asked> {
    let request = EmbeddingRequest {
        model,
        input: EmbeddingInput::Texts(texts.iter().map(|text| (*text).to_owned()).collect()),
        encoding_format: EncodingFormat::Base64,
        dimensions: None,
        user: None,
        max_price: None,
    };
    let response = client.embeddings(api_key, &request).await.context("a request for embeddings failed")?;
    if response.data.len() != texts.len() {
        bail!("asked for {} embeddings and got {}", texts.len(), response.data.len());
    }
    Ok(Asked { job: response.gainsay.job, texts: texts.to_vec(), price: response.gainsay.price })
}

/// Fetches the final answers and runs each again here. Returns the jobs whose answers are not final or not equal.
async fn compare(client: &Client, api_key: &str, runner: &Runner, asked: &[Asked]) -> Result<Vec<JobId>> {
    let mut unequal = Vec::new();
    for asked in asked {
        let view = client.job(api_key, asked.job, JobQuery::default()).await?;
        let kept =
            view.answer.filter(|answer| answer.finality == Finality::Final).map(|answer| answer.output.0);
        let ours: Vec<u8> =
            runner.embed(&asked.texts)?.into_iter().flatten().flat_map(f32::to_le_bytes).collect();
        if kept != Some(ours) {
            unequal.push(asked.job);
        }
    }
    Ok(unequal)
}

/// All accounts, once no convicted stake is held back any longer.
async fn settled_accounts(client: &Client, operator_token: &str) -> Result<Accounts> {
    loop {
        let accounts = client.accounts(Auth::Bearer(operator_token), AccountsQuery { all: true }).await?;
        if accounts.accounts.iter().all(|account| account.kind != AccountKind::Held || account.balance == 0) {
            return Ok(accounts);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Writes the evidence of every dispute, for `gainsay verify`.
async fn keep_evidence(client: &Client, show: &Show, dir: &Path) -> Result<()> {
    for dispute in show.disputes() {
        let bundle = client.evidence(dispute).await.context("a dispute's evidence cannot be had")?;
        let path = dir.join(format!("{dispute}.evidence"));
        std::fs::write(&path, &bundle).with_context(|| format!("cannot write {}", path.display()))?;
        crate::verify::check(&bundle)
            .with_context(|| format!("the evidence of dispute {dispute} does not hold"))?;
    }
    Ok(())
}

fn conclude(
    tally: Tally,
    model: report::Model,
    accounts: &Accounts,
    unequal: &[JobId],
    spent: i64,
    started: Instant,
) -> Report {
    let paid = tally.paid_workers();
    let locked: i64 = accounts
        .accounts
        .iter()
        .filter(|account| matches!(account.kind, AccountKind::Locked | AccountKind::Escrow))
        .map(|account| account.balance)
        .sum();
    let earned: i64 = HONEST.iter().map(|(_, owner)| balance_of(accounts, owner) - cast::OWNER_CREDITS).sum();
    let checks = vec![
        report::Check {
            name: "the cheat with a wrong bit was convicted, and nothing of its work was paid",
            ok: tally.is_convicted(CHEAT),
        },
        report::Check {
            name: "so was the cheat with a token that was never drawn",
            ok: tally.is_convicted(LIAR),
        },
        report::Check {
            name: "all honest work became final",
            ok: tally.all_honest_work_is_final(&CHEATS.map(|(cheat, _)| cheat))
                && tally.jobs().refunded == 0
                && CHEATS.iter().all(|(cheat, _)| !paid.contains(cheat)),
        },
        report::Check {
            name: "honest workers were paid, and no more than was spent",
            ok: (1..=spent).contains(&earned),
        },
        report::Check {
            name: "every answer equals an independent re-run, bit for bit",
            ok: unequal.is_empty(),
        },
        report::Check {
            name: "the challenger was rewarded from the cheats' stakes",
            ok: balance_of(accounts, CHALLENGER_OWNER) > cast::OWNER_CREDITS
                && CHEATS.iter().all(|(_, owner)| balance_of(accounts, owner) < cast::OWNER_CREDITS),
        },
        report::Check { name: "no stake, bond or escrow is left behind", ok: locked == 0 },
        report::Check { name: "the ledger sums to zero", ok: accounts.sum == 0 },
    ];
    Report {
        ok: checks.iter().all(|check| check.ok),
        checks,
        model,
        jobs: tally.jobs(),
        accounts: accounts.accounts.iter().filter(|account| account.balance != 0).map(account_row).collect(),
        ledger_sum: accounts.sum,
        disputes: tally.into_disputes(),
        seconds: started.elapsed().as_secs_f64(),
    }
}

/// All that an owner holds, free and locked.
fn balance_of(accounts: &Accounts, owner: &str) -> i64 {
    accounts.accounts.iter().filter(|account| account.name == owner).map(|account| account.balance).sum()
}

fn account_row(account: &Account) -> report::Account {
    let kind = format!("{:?}", account.kind).to_lowercase();
    let role = format!("{:?}", account.role).to_lowercase();
    let (name, role) = match account.role {
        AccountRole::System => (kind, role),
        _ if account.kind == AccountKind::Free => (account.name.clone(), role),
        _ => (account.name.clone(), format!("{role}, {kind}")),
    };
    report::Account { name, role, balance: account.balance }
}

/// What is shown while the demo runs, and the count of what happened.
struct Show {
    tally: Arc<Mutex<Tally>>,
    disputes: Arc<Mutex<Vec<DisputeId>>>,
    changed: Arc<Notify>,
    bars: MultiProgress,
    started: Instant,
    follower: tokio::task::JoinHandle<()>,
}

impl Show {
    fn start(client: &Client, jobs: usize, started: Instant) -> Show {
        let bars = MultiProgress::new();
        let claims = bars.add(terminal::bar("claimed", jobs as u64));
        let finals = bars.add(terminal::bar("final", jobs as u64));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let disputes = Arc::new(Mutex::new(Vec::new()));
        let changed = Arc::new(Notify::new());
        let mut events = client.events(Some(EventCursor::start()));
        let follower = tokio::spawn({
            let (tally, disputes, changed, bars) =
                (tally.clone(), disputes.clone(), changed.clone(), bars.clone());
            async move {
                // The reader reconnects by itself; an error that it returns is final, and `PATIENCE` reports it.
                while let Ok(event) = events.next().await {
                    if let EventKind::DisputeDecided { dispute, .. } = event.kind {
                        lock(&disputes).push(dispute);
                    }
                    let mut counted = lock(&tally);
                    counted.observe(&event, Instant::now());
                    claims.set_position(counted.claimed_jobs() as u64);
                    finals.set_position(counted.decided() as u64);
                    drop(counted);
                    tell(&bars, started, &event);
                    changed.notify_waiters();
                }
            }
        });
        Show { tally, disputes, changed, bars, started, follower }
    }

    fn say(&self, text: &str) {
        print_line(&self.bars, self.started, text);
    }

    /// Waits until the count fulfils a condition.
    async fn until(&self, condition: impl Fn(&Tally) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if condition(&lock(&self.tally)) {
                return;
            }
            changed.await;
        }
    }

    fn disputes(&self) -> Vec<DisputeId> {
        lock(&self.disputes).clone()
    }

    fn finish(self) -> Tally {
        self.follower.abort();
        // The bars are gone from the screen either way; a terminal that cannot be cleared is no failure.
        let _ = self.bars.clear();
        std::mem::take(&mut *lock(&self.tally))
    }
}

fn tell(bars: &MultiProgress, started: Instant, event: &Event) {
    if let Some(text) = timeline::line(event) {
        print_line(bars, started, &text);
    }
}

fn print_line(bars: &MultiProgress, started: Instant, text: &str) {
    let line = format!("{:6.1} s  {text}", started.elapsed().as_secs_f64());
    bars.suspend(|| eprintln!("{line}"));
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is counted stays whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
