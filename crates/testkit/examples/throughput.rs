//! Jobs per second of the whole path, with a model that costs nothing: what the coordinator and PostgreSQL take.
//!
//! ```text
//! cargo run --release -p gainsay-testkit --example throughput -- [JOBS [SUBMITTERS [WORKERS [BATCH]]]]
//! ```
//!
//! Real HTTP on loopback, real signatures, a private PostgreSQL that flushes every commit. Everybody shares one
//! machine: submitters, workers (whose one run of the toy model is remembered), coordinator and database. A job
//! counts once it is submitted, leased, claimed, its window has closed, and its worker is paid.

#![expect(clippy::unwrap_used, reason = "a measurement ends where something fails")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use gainsay_api::client::{Client, RetryPolicy};
use gainsay_api::embeddings::EmbeddingInput;
use gainsay_api::jobs::SubmitJob;
use gainsay_api::leases::LeaseRequest;
use gainsay_commitment::PartyId;
use gainsay_coordinator::bus::Quota;
use gainsay_private_postgres::{Cluster, Durability, Options};
use gainsay_program::toy::ToyOptions;
use gainsay_testkit::{
    SERVER_VARIABLE, TestCoordinator, TestOwner, TestSubmitter, ToyModel, ToyRun, input_of, until,
};
use tokio::task::JoinSet;

/// More than any run here costs.
const CREDITS: i64 = 1_000_000_000_000;

#[derive(Clone, Copy)]
struct Load {
    jobs: usize,
    submitters: usize,
    workers: usize,
    batch: u32,
}

fn main() {
    let load = load();
    let options = Options { durability: Durability::Safe, ..Options::default() };
    let cluster = Cluster::start(options, &|line| eprintln!("{line}")).unwrap();
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var(SERVER_VARIABLE, cluster.url("postgres")) };
    tokio::runtime::Runtime::new().unwrap().block_on(measure(load));
    cluster.stop().unwrap();
}

fn load() -> Load {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let mut next = |default| numbers.next().unwrap_or(default);
    let (jobs, submitters, workers) = (next(4_000), next(16), next(4));
    Load { jobs, submitters, workers, batch: u32::try_from(next(32)).unwrap() }
}

async fn measure(load: Load) {
    let test = TestCoordinator::builder()
        .config(|config| {
            config.parameters.window_ms = 1;
            config.database_connections = 24;
        })
        .http(|http| {
            let freely = Quota::per_minute(1_000_000, 60_000_000);
            (http.registrations, http.submissions, http.leases) = (freely, freely, freely);
        })
        .running_timers()
        .start()
        .await;
    let client = test.client().await;
    let model = Arc::new(ToyModel::new(&ToyOptions { blocks: 1, ..ToyOptions::default() }));
    model.publish(&client).await;
    let job = SubmitJob {
        model: model.name().to_owned(),
        input: EmbeddingInput::Tokens(vec![1, 2, 3]),
        max_price: None,
    };
    let mut workers = JoinSet::new();
    let mut owners = Vec::new();
    for index in 0..load.workers {
        owners.push(TestOwner::register(&client, &format!("worker {index}"), CREDITS).await);
    }
    let mut submitters = Vec::new();
    for index in 0..load.submitters {
        submitters.push(TestSubmitter::register(&client, &format!("submitter {index}"), CREDITS).await);
    }
    let started = Instant::now();
    for owner in owners {
        workers.spawn(work(test.url(), test.id(), Arc::clone(&model), owner, load.batch));
    }
    let mut submissions = JoinSet::new();
    for (index, submitter) in submitters.into_iter().enumerate() {
        let share = load.jobs / load.submitters + usize::from(index < load.jobs % load.submitters);
        submissions.spawn(submit(test.url(), submitter, job.clone(), share));
    }
    let mut latencies = submissions.join_all().await.concat();
    let submitted = started.elapsed();
    until("every job to be paid", async || {
        let accounts = test.app().accounts().await.unwrap();
        let escrow: i64 = accounts.iter().filter(|a| a.kind == "escrow").map(|a| a.balance.0).sum();
        (escrow == 0).then_some(())
    })
    .await;
    let paid = started.elapsed();
    workers.shutdown().await;
    latencies.sort();
    report(load, submitted, paid, &latencies);
    test.stop().await;
}

/// Submits one job after the other; how long each submission took.
async fn submit(url: String, submitter: TestSubmitter, job: SubmitJob, count: usize) -> Vec<Duration> {
    let client = connect(&url).await;
    let mut latencies = Vec::with_capacity(count);
    for _ in 0..count {
        let asked = Instant::now();
        client.submit_job(&submitter.api_key, &job).await.unwrap();
        latencies.push(asked.elapsed());
    }
    latencies
}

/// Leases and claims until it is dropped. All jobs are alike, so one run serves all.
async fn work(url: String, coordinator: PartyId, model: Arc<ToyModel>, owner: TestOwner, batch: u32) {
    let client = connect(&url).await;
    let request = LeaseRequest { models: vec![model.id()], max: batch, held: Vec::new() };
    let mut run = None;
    loop {
        let given = client.lease(&owner.worker, &request, Duration::from_secs(5)).await.unwrap();
        let mut claims = JoinSet::new();
        for lease in &given.leases {
            let run = run.get_or_insert_with(|| ToyRun::new(&model, &input_of(lease), |_, _| {}));
            let bytes = run.claim(coordinator, lease, &owner.worker).to_bytes();
            let (client, key) = (client.clone(), owner.worker.clone());
            claims.spawn(async move { client.post_claim(&key, bytes).await.unwrap() });
        }
        claims.join_all().await;
    }
}

async fn connect(url: &str) -> Client {
    Client::connect_with(url, RetryPolicy { attempts: 1, ..RetryPolicy::default() }).await.unwrap()
}

fn report(load: Load, submitted: Duration, paid: Duration, latencies: &[Duration]) {
    let Load { jobs, submitters, workers, batch } = load;
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("{jobs} jobs, {submitters} submitters, {workers} workers of {batch} leases at a time");
    let rate = |elapsed: Duration| jobs as f64 / elapsed.as_secs_f64();
    println!(
        "submitted   {:7.0} a second, {:.1} ms at the median, {:.1} ms at 99 %",
        rate(submitted),
        at(0.5),
        at(0.99)
    );
    println!("whole path  {:7.0} a second, from the first submission to the last payment", rate(paid));
}
