//! A model at work: a thread that runs all jobs on it together, step by step. Jobs join and leave between any two steps.

use crate::Worker;
use gainsay_commitment::ModelId;
use gainsay_engine::{JoinRefusal, Progress, Runner, RunnerOptions, Trace, Work};
use gainsay_participant::ParticipantError;
use gainsay_participant::models::LoadedModel;
use gainsay_protocol::LeaseId;
use gainsay_text::TokenTable;
use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What comes of a job, in order.
pub(crate) enum Step {
    /// The next token of an answer.
    Token(u32),
    /// What its claim states.
    Done(Trace),
    /// It cannot be run here, and why.
    Failed(String),
}

enum Order {
    Run(Waiting),
    Cancel(LeaseId),
}

struct Waiting {
    lease: LeaseId,
    work: Work,
    steps: UnboundedSender<Step>,
}

/// A model with the thread that runs its jobs. The thread ends when the last of these is dropped.
pub(crate) struct Bench {
    /// The model.
    pub(crate) model: LoadedModel,
    /// The bytes of its tokens, where it generates.
    pub(crate) tokens: Option<Arc<TokenTable>>,
    orders: Sender<Order>,
}

impl Bench {
    fn start(model: LoadedModel, tokens: Option<Arc<TokenTable>>, options: RunnerOptions) -> Self {
        let (orders, received) = channel();
        let engine = model.engine().clone();
        // Threads of the engine do the work; this one only leads it.
        std::thread::spawn(move || lead(Runner::new(engine, options), &received));
        Self { model, tokens, orders }
    }

    /// Has a job run as soon as there is room for it; answers what comes of it.
    pub(crate) fn run(&self, lease: LeaseId, work: Work) -> UnboundedReceiver<Step> {
        let (steps, received) = unbounded_channel();
        // A thread that is gone drops the sender, which the receiver sees.
        let _ = self.orders.send(Order::Run(Waiting { lease, work, steps }));
        received
    }

    /// Drops a job, if it is not done yet.
    pub(crate) fn cancel(&self, lease: LeaseId) {
        let _ = self.orders.send(Order::Cancel(lease));
    }
}

/// The models at work. One that has no jobs is let go.
#[derive(Default)]
pub(crate) struct Benches(Mutex<HashMap<ModelId, Weak<Bench>>>);

impl Worker {
    /// The bench of a model, which is loaded and set up if it is not at work.
    ///
    /// # Errors
    /// The model cannot be loaded.
    pub(crate) async fn bench(&self, id: ModelId) -> Result<Arc<Bench>, ParticipantError> {
        if let Some(bench) = self.benches.find(id) {
            return Ok(bench);
        }
        let model = self.models.get(id).await?;
        let tokens = self.token_table(&model).await?;
        let mut benches = self.benches.0.lock().expect("no holder of the benches panics");
        if let Some(bench) = benches.get(&id).and_then(Weak::upgrade) {
            return Ok(bench);
        }
        let options = RunnerOptions { cache_bytes: self.config.kv_bytes, ..RunnerOptions::default() };
        let bench = Arc::new(Bench::start(model, tokens, options));
        benches.retain(|_, bench| bench.strong_count() > 0);
        benches.insert(id, Arc::downgrade(&bench));
        Ok(bench)
    }

    /// The bytes of a language model's tokens, for stop strings. A tokenizer that has none is as good as none.
    async fn token_table(&self, model: &LoadedModel) -> Result<Option<Arc<TokenTable>>, ParticipantError> {
        let manifest = model.model().manifest();
        if manifest.generation.is_none() {
            return Ok(None);
        }
        let path = self.models.file(manifest.tokenizer).await?;
        let table = tokio::task::spawn_blocking(move || {
            let file = std::fs::read(path).map_err(|error| error.to_string())?;
            TokenTable::from_json(&file).map_err(|error| error.to_string())
        });
        Ok(match table.await.expect("reading a tokenizer does not panic") {
            Ok(table) => Some(Arc::new(table)),
            Err(error) => {
                tracing::warn!(model = %model.model().id(), %error, "no stop strings on this model");
                None
            }
        })
    }
}

impl Benches {
    fn find(&self, id: ModelId) -> Option<Arc<Bench>> {
        self.0.lock().expect("no holder of the benches panics").get(&id)?.upgrade()
    }
}

/// Runs what is ordered until nobody can order any more.
fn lead(runner: Runner<LeaseId>, orders: &Receiver<Order>) {
    let mut floor = Floor { runner, waiting: VecDeque::new(), running: HashMap::new() };
    loop {
        if floor.is_idle() {
            let Ok(order) = orders.recv() else { return };
            floor.take(order);
        }
        while let Ok(order) = orders.try_recv() {
            floor.take(order);
        }
        floor.admit();
        floor.step();
    }
}

struct Floor {
    runner: Runner<LeaseId>,
    /// Jobs for which there is no room yet, in the order in which they came.
    waiting: VecDeque<Waiting>,
    running: HashMap<LeaseId, UnboundedSender<Step>>,
}

impl Floor {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Run(waiting) => self.waiting.push_back(waiting),
            Order::Cancel(lease) => {
                self.waiting.retain(|waiting| waiting.lease != lease);
                if self.running.remove(&lease).is_some() {
                    self.runner.cancel(&lease);
                }
            }
        }
    }

    /// Lets jobs join that there is room for. Whoever came first goes first, so that a large job is not passed forever.
    fn admit(&mut self) {
        while let Some(first) = self.waiting.front() {
            match self.runner.check(&first.work) {
                Err(JoinRefusal::Full { .. }) if !self.running.is_empty() => return,
                checked => {
                    let Some(Waiting { lease, work, steps }) = self.waiting.pop_front() else { return };
                    let joined = checked.and_then(|()| self.runner.join(lease, work));
                    match joined {
                        Ok(()) => {
                            self.running.insert(lease, steps);
                        }
                        // Whoever is not there any more needs no answer.
                        Err(refusal) => drop(steps.send(Step::Failed(refusal.to_string()))),
                    }
                }
            }
        }
    }

    fn step(&mut self) {
        let progress = match self.runner.step() {
            Ok(progress) => progress,
            Err(error) => {
                for (lease, steps) in self.running.drain() {
                    self.runner.cancel(&lease);
                    drop(steps.send(Step::Failed(error.to_string())));
                }
                return;
            }
        };
        for piece in progress {
            let (lease, step, is_last) = match piece {
                Progress::Token { key, token } => (key, Step::Token(token), false),
                Progress::Done { key, trace } => (key, Step::Done(trace), true),
                Progress::Failed { key, error } => (key, Step::Failed(error.to_string()), true),
            };
            let Some(steps) = self.running.get(&lease) else { continue };
            if steps.send(step).is_err() && !is_last {
                // Nobody waits for it.
                self.runner.cancel(&lease);
                self.running.remove(&lease);
            } else if is_last {
                self.running.remove(&lease);
            }
        }
    }
}
