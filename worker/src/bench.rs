//! A model at work: a thread that runs all jobs on it together, step by step. Jobs join and leave between any two steps.

use crate::Worker;
use gainsay_commitment::ModelId;
use gainsay_engine::{JoinRefusal, Progress, Runner, RunnerOptions, Trace, Work};
use gainsay_participant::ParticipantError;
use gainsay_participant::models::LoadedModel;
use gainsay_protocol::LeaseId;
use gainsay_text::TokenTable;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What comes of a job, in order.
pub(crate) enum Step {
    /// The next token of an answer.
    Token(u32),
    /// What its claim states.
    Done(Trace),
    /// It does not fit what this worker has, and why.
    Refused(String),
    /// Its run has failed, and why.
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
    /// Jobs that came later and joined before.
    passed: u32,
}

/// Jobs that may pass one that waits for room; then nobody passes it any more.
const MAX_PASSED: u32 = 16;

/// How full a bench is, for whoever thinks of leasing another job.
#[derive(Default)]
struct Occupancy {
    /// Jobs that run.
    running: AtomicUsize,
    /// Jobs that wait for room.
    waiting: AtomicUsize,
    /// Bytes of keys and values that are free.
    free: AtomicU64,
    /// Bytes that the largest job so far has set aside; 0 where there was none.
    largest: AtomicU64,
}

impl Occupancy {
    /// Jobs of the size of the largest so far for which there is room, besides `ours` that were leased, of which some may
    /// not have come yet.
    fn room(&self, ours: usize) -> usize {
        let [running, waiting] = [&self.running, &self.waiting].map(|count| count.load(Ordering::Relaxed));
        let [free, largest] = [&self.free, &self.largest].map(|bytes| bytes.load(Ordering::Relaxed));
        let coming = ours.saturating_sub(running);
        let fits = free.checked_div(largest).map_or(1, |fits| usize::try_from(fits).unwrap_or(usize::MAX));
        if waiting > 0 { 0 } else { fits.saturating_sub(coming) }
    }
}

/// A model with the thread that runs its jobs. The thread ends when the last of these is dropped.
pub(crate) struct Bench {
    /// The model.
    pub(crate) model: LoadedModel,
    /// The bytes of its tokens, where it generates.
    pub(crate) tokens: Option<Arc<TokenTable>>,
    orders: Sender<Order>,
    occupancy: Arc<Occupancy>,
}

impl Bench {
    fn start(model: LoadedModel, tokens: Option<Arc<TokenTable>>, options: RunnerOptions) -> Self {
        let (orders, received) = channel();
        let engine = model.engine().clone();
        let occupancy = Arc::<Occupancy>::default();
        let floor = Floor::new(Runner::new(engine, options), occupancy.clone());
        // Threads of the engine do the work; this one only leads it.
        std::thread::spawn(move || floor.lead(&received));
        Self { model, tokens, orders, occupancy }
    }

    /// Whether it still runs what it is given.
    fn is_at_work(&self) -> bool {
        // The thread, and with it the other holder of this, ends before its orders do only by a panic.
        Arc::strong_count(&self.occupancy) > 1
    }

    /// Has a job run as soon as there is room for it; answers what comes of it.
    pub(crate) fn run(&self, lease: LeaseId, work: Work) -> UnboundedReceiver<Step> {
        let (steps, received) = unbounded_channel();
        // A thread that is gone drops the sender, which the receiver sees.
        let _ = self.orders.send(Order::Run(Waiting { lease, work, steps, passed: 0 }));
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
        if let Some(bench) = benches.get(&id).and_then(Weak::upgrade).filter(|bench| bench.is_at_work()) {
            return Ok(bench);
        }
        let device = model.engine().device();
        let options = RunnerOptions { cache_bytes: self.config.kv_bytes, ..RunnerOptions::on(&device) };
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
        let found = self.0.lock().expect("no holder of the benches panics").get(&id)?.upgrade();
        found.filter(|bench| bench.is_at_work())
    }

    /// How many more generations a model has room for, where `ours` of its jobs are leased. Before the first it is not
    /// known how large they are.
    pub(crate) fn room(&self, id: ModelId, ours: usize) -> usize {
        self.find(id).map_or(1_usize.saturating_sub(ours), |bench| bench.occupancy.room(ours))
    }
}

struct Floor {
    runner: Runner<LeaseId>,
    occupancy: Arc<Occupancy>,
    /// Jobs for which there is no room yet, in the order in which they came.
    waiting: VecDeque<Waiting>,
    running: HashMap<LeaseId, UnboundedSender<Step>>,
}

impl Floor {
    fn new(runner: Runner<LeaseId>, occupancy: Arc<Occupancy>) -> Self {
        let floor = Self { runner, occupancy, waiting: VecDeque::new(), running: HashMap::new() };
        floor.tell();
        floor
    }

    /// Runs what is ordered until nobody can order any more.
    fn lead(mut self, orders: &Receiver<Order>) {
        loop {
            if self.is_idle() {
                let Ok(order) = orders.recv() else { return };
                self.take(order);
            }
            while let Ok(order) = orders.try_recv() {
                self.take(order);
            }
            self.admit();
            self.step();
            self.tell();
        }
    }

    /// Says how full it is.
    fn tell(&self) {
        let Occupancy { running, waiting, free, .. } = &*self.occupancy;
        running.store(self.running.len(), Ordering::Relaxed);
        waiting.store(self.waiting.len(), Ordering::Relaxed);
        free.store(self.runner.free_bytes(), Ordering::Relaxed);
    }

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

    /// Lets jobs join that there is room for, in the order in which they came. Small ones pass a large one that waits for
    /// room, but not for ever.
    fn admit(&mut self) {
        let mut at = 0;
        while let Some(next) = self.waiting.get(at) {
            match self.runner.check(&next.work) {
                Err(JoinRefusal::Full { .. }) if !self.running.is_empty() => {
                    if next.passed >= MAX_PASSED {
                        return;
                    }
                    at += 1;
                }
                checked => {
                    let Some(Waiting { lease, work, steps, .. }) = self.waiting.remove(at) else { return };
                    let before = self.runner.free_bytes();
                    match checked.and_then(|()| self.runner.join(lease, work)) {
                        Ok(()) => {
                            let taken = before - self.runner.free_bytes();
                            self.occupancy.largest.fetch_max(taken, Ordering::Relaxed);
                            self.waiting.iter_mut().take(at).for_each(|waiting| waiting.passed += 1);
                            self.running.insert(lease, steps);
                        }
                        // Whoever is not there any more needs no answer.
                        Err(refusal) => drop(steps.send(Step::Refused(refusal.to_string()))),
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

#[cfg(test)]
mod tests {
    use super::*;
    use gainsay_engine::{Model, Options};
    use gainsay_program::toy::{DecoderOptions, Toy};
    use gainsay_program::{GenerationRequest, Sampling, StopRules};

    fn lease(number: u8) -> LeaseId {
        LeaseId([number; 16])
    }

    fn answer_of(max_tokens: u32) -> Work {
        let stop = StopRules { ignore_eos: true, ..StopRules::max_tokens(max_tokens) };
        let request = GenerationRequest { prompt: vec![1], sampling: Sampling::default(), stop };
        Work::Generate { request, stop: Box::new(|_| false) }
    }

    /// A floor for keys and values of `pages` small jobs.
    fn floor(pages: u64) -> Floor {
        let toy = Toy::decoder(&DecoderOptions { max_sequence: 512, ..DecoderOptions::default() }).unwrap();
        let weights = toy.weights.into_iter().map(Arc::from).collect();
        let engine =
            Model::new(Arc::new(toy.model), weights, Options { threads: 1, ..Options::default() }).unwrap();
        let runner = |cache_bytes| {
            Runner::new(engine.clone(), RunnerOptions { cache_bytes, ..RunnerOptions::default() })
        };
        let mut probe = runner(1 << 30);
        probe.join(lease(0), answer_of(2)).unwrap();
        Floor::new(runner(pages * ((1 << 30) - probe.free_bytes())), Arc::default())
    }

    fn order(floor: &mut Floor, number: u8, work: Work) -> UnboundedReceiver<Step> {
        let (steps, received) = unbounded_channel();
        floor.take(Order::Run(Waiting { lease: lease(number), work, steps, passed: 0 }));
        received
    }

    fn last(mut steps: UnboundedReceiver<Step>) -> Step {
        std::iter::from_fn(|| steps.try_recv().ok()).last().expect("it has come to an end")
    }

    #[test]
    fn a_large_job_neither_blocks_small_ones_nor_waits_for_ever() {
        let mut floor = floor(2);
        // The first ends a step after the second, and so on: never is all room free by itself.
        let mut received = vec![order(&mut floor, 0, answer_of(3)), order(&mut floor, 1, answer_of(200))];
        received.extend((2..40).map(|number| order(&mut floor, number, answer_of(2))));
        let (mut joined, mut seen) = (Vec::new(), std::collections::HashSet::new());
        while !floor.is_idle() {
            floor.admit();
            joined.extend(floor.running.keys().copied().filter(|lease| seen.insert(*lease)));
            floor.step();
        }
        assert_eq!(joined.iter().position(|joined| *joined == lease(1)), Some(1 + MAX_PASSED as usize));
        assert_eq!(joined.len(), received.len());
        assert!(received.into_iter().all(|steps| matches!(last(steps), Step::Done(_))));
    }

    #[test]
    fn a_job_that_never_fits_is_refused_and_the_bench_goes_on() {
        let mut floor = floor(1);
        let [small, large, other] =
            [(0, 2), (1, 200), (2, 2)].map(|(number, tokens)| order(&mut floor, number, answer_of(tokens)));
        while !floor.is_idle() {
            floor.admit();
            floor.step();
        }
        assert!(matches!(last(large), Step::Refused(why) if why.contains("keys and values")));
        assert!([small, other].into_iter().all(|steps| matches!(last(steps), Step::Done(_))));
    }

    #[test]
    fn no_more_is_leased_than_there_is_room_for() {
        let mut floor = floor(4);
        assert_eq!([0, 1].map(|ours| floor.occupancy.room(ours)), [1, 0], "one, to see how large they are");
        let _steps = order(&mut floor, 0, answer_of(200));
        floor.admit();
        floor.tell();
        assert_eq!([1, 2, 3].map(|ours| floor.occupancy.room(ours)), [1, 0, 0], "two pages are free");
        let _more = [1, 2].map(|number| order(&mut floor, number, answer_of(200)));
        floor.admit();
        floor.tell();
        assert_eq!(floor.occupancy.room(3), 0, "one waits");
    }
}
