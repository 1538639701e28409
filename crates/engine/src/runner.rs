//! Serving a model to jobs that come and go.
//!
//! Every step computes some rows of many jobs together: a row of each running generation, and portions of prompts and of
//! sequences to encode. Jobs join and leave between any two steps. What a job gives does not depend on any of that.

mod job;

use gainsay_program::{GenerationRequest, JobInput};

use crate::batch::{Batch, BatchSize, Piece, front, in_job};
use crate::error::{FloatEnvironmentError, JobRefusal, RunError};
use crate::execute::Executor;
use crate::kernels::answer::Counts;
use crate::kernels::{KvCache, PagePool};
use crate::record::{ClaimRecorder, Trace};
use crate::{DeviceInfo, Fault, Model};
use job::{Advance, Job, Scheduled, Task};

/// Jobs that a runner holds at most.
const MAX_JOBS: usize = 1024;

/// How much a runner does at once. Nothing of it changes a bit of any result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunnerOptions {
    /// Rows of a step, but for a single sequence that cannot be cut; at least 1.
    pub rows_per_step: usize,
    /// Rows of one prompt in a step; at least 1. Generations that run wait for as much.
    pub prefill_chunk: usize,
    /// Bytes that the keys and values of all jobs may take. A job has what it may need at most set aside when it joins.
    pub cache_bytes: u64,
}

impl RunnerOptions {
    /// What suits a model's device: a GPU is busy only with many rows, and is soon done with them.
    pub fn on(device: &DeviceInfo) -> Self {
        match device {
            DeviceInfo::Cpu { .. } => Self::default(),
            DeviceInfo::Cuda { .. } => Self { rows_per_step: 2048, prefill_chunk: 1024, ..Self::default() },
        }
    }
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self { rows_per_step: 512, prefill_chunk: 256, cache_bytes: 4 << 30 }
    }
}

/// What is to be done.
pub enum Work {
    /// A job whose tokens are all given: sequences to encode, or a generation to check.
    Encode(JobInput),
    /// An answer to a prompt.
    Generate {
        /// What is asked for. Of its stop rules the runner heeds `max_tokens` alone.
        request: GenerationRequest,
        /// Called with each token of the answer; the answer ends with the token that it returns true for.
        stop: Box<dyn FnMut(u32) -> bool + Send>,
    },
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Encode(input) => f.debug_tuple("Encode").field(input).finish(),
            Self::Generate { request, .. } => {
                f.debug_struct("Generate").field("request", request).finish_non_exhaustive()
            }
        }
    }
}

/// Why a job may not join.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum JoinRefusal {
    /// It does not fit the model or the engine's memory.
    #[error(transparent)]
    Job(#[from] JobRefusal),
    /// Its keys and values could never be held.
    #[error("its keys and values may take {bytes} bytes; this runner may use {allowed}")]
    Cache {
        /// What they take at most.
        bytes: u64,
        /// See [`RunnerOptions::cache_bytes`].
        allowed: u64,
    },
    /// There is no room for it as long as no other job leaves.
    #[error("there is no room for another job that takes {bytes} bytes; {free} are free")]
    Full {
        /// What its keys and values take at most.
        bytes: u64,
        /// What is not set aside for others.
        free: u64,
    },
    /// Another job has this key.
    #[error("a job with this key is running")]
    KeyInUse,
    /// The program has no place for the fault.
    #[error("the program has no place for the fault {0:?}")]
    Fault(Fault),
}

/// What a step has brought one job.
#[derive(Debug)]
pub enum Progress<K> {
    /// The next token of an answer.
    Token {
        /// The job.
        key: K,
        /// The token.
        token: u32,
    },
    /// The job is finished and has left.
    Done {
        /// The job.
        key: K,
        /// What its claim states.
        trace: Trace,
    },
    /// The job has failed and has left.
    Failed {
        /// The job.
        key: K,
        /// Why.
        error: RunError,
    },
}

/// Jobs that share a model, in steps.
pub struct Runner<K> {
    model: Model,
    options: RunnerOptions,
    jobs: Vec<Job<K>>,
    pages: PagePool,
    reserved: u64,
    turn: usize,
    hashes: bool,
}

impl<K: Clone + PartialEq> Runner<K> {
    /// A runner without jobs.
    pub fn new(model: Model, options: RunnerOptions) -> Self {
        let pages = model.pages(None);
        Self { model, options, jobs: Vec::new(), pages, reserved: 0, turn: 0, hashes: true }
    }

    /// A runner that commits to nothing, to measure what commitments cost.
    pub(crate) fn without_commitments(model: Model, options: RunnerOptions) -> Self {
        Self { hashes: false, ..Self::new(model, options) }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Number of jobs.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Bytes of keys and values that no job has set aside.
    pub fn free_bytes(&self) -> u64 {
        self.options.cache_bytes.saturating_sub(self.reserved)
    }

    /// Whether a job might join now.
    ///
    /// # Errors
    /// Why not: [`JoinRefusal::Full`] if it might once others have left.
    pub fn check(&self, work: &Work) -> Result<(), JoinRefusal> {
        self.reservation(work, None).map(|_| ())
    }

    /// Adds a job. The steps from now on work on it, until one of them says that it is done or has failed.
    ///
    /// # Errors
    /// See [`JoinRefusal`]; whoever wants to keep the work in that case asks [`Runner::check`] before.
    pub fn join(&mut self, key: K, work: Work) -> Result<(), JoinRefusal> {
        self.join_with(key, work, None)
    }

    /// As [`Runner::join`], for a job that a fault strikes.
    ///
    /// # Errors
    /// See [`JoinRefusal`].
    pub fn join_with(&mut self, key: K, work: Work, fault: Option<Fault>) -> Result<(), JoinRefusal> {
        if self.jobs.iter().any(|job| job.key == key) {
            return Err(JoinRefusal::KeyInUse);
        }
        if let Some(fault) = fault.filter(|fault| !fault.fits(self.model.model())) {
            return Err(JoinRefusal::Fault(fault));
        }
        let reserved = self.reservation(&work, fault.as_ref())?;
        let task = match work {
            Work::Encode(input) => Task::Encode { input, sequence: 0, done: 0 },
            Work::Generate { request: GenerationRequest { prompt: ids, sampling, stop: rules }, stop } => {
                let (prompt, max_tokens) = (ids.len(), rules.max_tokens as usize);
                let counts = Counts::default();
                Task::Generate { ids, prompt, sampling, counts, max_tokens, done: 0, stop }
            }
        };
        let record = self.model.record();
        let pages = if fault.is_some() { self.model.pages(fault.as_ref()) } else { self.pages.clone() };
        self.jobs.push(Job { key, task, fault, record, cache: None, pages, reserved, suspect: None });
        self.reserved += reserved;
        Ok(())
    }

    /// Drops a job, whatever has come of it; false where there is none with this key.
    pub fn cancel(&mut self, key: &K) -> bool {
        let found = self.jobs.iter().position(|job| job.key == *key);
        found.map(|index| self.remove(index)).is_some()
    }

    /// What a job's keys and values take at most, if it may join.
    fn reservation(&self, work: &Work, fault: Option<&Fault>) -> Result<u64, JoinRefusal> {
        let cache = |tokens: u64| self.model.cache_bytes(tokens, fault);
        let bytes = match work {
            Work::Encode(input) => {
                self.model.check_job(input)?;
                input.sequences().map(|sequence| cache(sequence.len)).fold(0, u64::saturating_add)
            }
            Work::Generate { request, .. } => {
                self.model.check_request(request)?;
                cache(request.prompt.len() as u64 + u64::from(request.stop.max_tokens) - 1)
            }
        };
        let (allowed, free) = (self.options.cache_bytes, self.free_bytes());
        if bytes > allowed {
            return Err(JoinRefusal::Cache { bytes, allowed });
        }
        if bytes > free || self.jobs.len() >= MAX_JOBS {
            return Err(JoinRefusal::Full { bytes, free });
        }
        Ok(bytes)
    }

    fn remove(&mut self, index: usize) -> Job<K> {
        let job = self.jobs.remove(index);
        self.reserved -= job.reserved;
        job
    }

    /// Computes some rows of some jobs and says what has come of it; nothing where there are no jobs. Whatever goes wrong
    /// with one job is that job's [`Progress::Failed`], and costs the others no more than time: where a step fails, even by
    /// a panic, each job in it is begun again and runs alone until it has passed the place. What was drawn of its answer
    /// stays, and is not told again.
    ///
    /// # Errors
    /// The threads do not compute as the arithmetic asks. No job has changed.
    pub fn step(&mut self) -> Result<Vec<Progress<K>>, FloatEnvironmentError> {
        self.model.check_threads()?;
        let scheduled = self.schedule();
        self.turn = self.turn.wrapping_add(1);
        if scheduled.is_empty() {
            return Ok(Vec::new());
        }
        let mut caches = Vec::with_capacity(scheduled.len());
        for Scheduled { job, tokens, .. } in &scheduled {
            let job = &mut self.jobs[*job];
            let kept = job.cache.take().filter(|_| tokens.start > 0);
            caches.push(kept.unwrap_or_else(|| KvCache::new(&job.pages)));
        }
        let result = self.run(&scheduled, &mut caches);
        for (Scheduled { job, .. }, cache) in scheduled.iter().zip(caches) {
            self.jobs[*job].cache = Some(cache);
        }
        Ok(self.advance(&scheduled, result))
    }

    /// Runs the scheduled rows. The jobs' records are with them meanwhile.
    fn run(&mut self, scheduled: &[Scheduled], caches: &mut [KvCache]) -> Result<(), RunError> {
        let records = self.jobs.iter_mut().map(|job| std::mem::take(&mut job.record)).collect();
        let mut recorder = ClaimRecorder::new(self.model.model(), records, self.hashes);
        let mut batch = Batch::default();
        for (cache, Scheduled { job: index, sequence, tokens }) in scheduled.iter().enumerate() {
            let job = &self.jobs[*index];
            let (known, start) = job.task.known(*sequence).expect("scheduled from what the job has");
            let in_job = match &job.task {
                Task::Encode { input, .. } => in_job(input),
                Task::Generate { .. } => None,
            };
            let (fault, tokens) = (job.fault, tokens.clone());
            batch.push(Piece {
                job: *index,
                fault,
                known,
                sequence: *sequence,
                start,
                in_job,
                tokens,
                cache,
            });
        }
        let run = |executor: Executor<'_>| executor.run(&batch, caches, &mut recorder);
        let result = self.model.install(run);
        for (job, record) in self.jobs.iter_mut().zip(recorder.finish()) {
            job.record = record;
        }
        result
    }

    /// Chooses rows. Suspects have every other pair of steps, a step each, in turn. In the order of jobs and of their
    /// sequences.
    fn schedule(&self) -> Vec<Scheduled> {
        let (suspects, clear): (Vec<usize>, Vec<usize>) =
            (0..self.jobs.len()).partition(|&job| self.jobs[job].suspect.is_some());
        let is_theirs = clear.is_empty() || self.turn & 2 != 0;
        let mut scheduled = match suspects.get(self.turn % suspects.len().max(1)) {
            Some(&suspect) if is_theirs => self.schedule_among(&[suspect]),
            _ => self.schedule_among(&clear),
        };
        scheduled.sort_by_key(|it| (it.job, it.sequence));
        scheduled
    }

    /// Chooses rows of these jobs: those of answers first, in turn, but for what prompts and sequences to encode are owed;
    /// then these, in the order in which they joined.
    fn schedule_among(&self, jobs: &[usize]) -> Vec<Scheduled> {
        let rows = self.options.rows_per_step.max(1);
        let chunk = self.options.prefill_chunk.max(1);
        let (answering, others): (Vec<usize>, Vec<usize>) =
            jobs.iter().partition(|&&job| self.jobs[job].task.is_answering());
        let owed = if others.is_empty() { 0 } else { chunk.min(rows / 2).max(self.turn % 2) };
        let (mut size, mut scheduled) = (BatchSize::default(), Vec::new());
        for index in 0..answering.len() {
            let job = answering[(index + self.turn) % answering.len()];
            self.take(job, 1, rows - owed, &mut size, &mut scheduled);
        }
        for job in others {
            self.take(job, chunk, rows, &mut size, &mut scheduled);
        }
        scheduled
    }

    /// Schedules rows of a job, up to `chunk` of a sequence that can be cut, as long as a step has no more than `rows`.
    fn take(
        &self,
        job: usize,
        chunk: usize,
        rows: usize,
        size: &mut BatchSize,
        scheduled: &mut Vec<Scheduled>,
    ) {
        let task = &self.jobs[job].task;
        let cut = self.model.is_incremental();
        let (mut sequence, mut done) = task.at();
        while size.tokens < rows {
            let Some((known, _)) = task.known(sequence) else { return };
            let len = known.ids.len();
            let most = if cut { len.min(done + chunk) } else { len };
            let Some(end) = front(*size, &known, done..most, cut, |size| self.model.fits(size, rows)) else {
                return;
            };
            *size = size.with(&known, done..end);
            scheduled.push(Scheduled { job, sequence, tokens: done..end });
            if end < len || matches!(task, Task::Generate { .. }) {
                return;
            }
            (sequence, done) = (sequence + 1, 0);
        }
    }

    /// Takes note of what a step has computed.
    fn advance(&mut self, scheduled: &[Scheduled], result: Result<(), RunError>) -> Vec<Progress<K>> {
        // Of a job's sequences the last scheduled is as far as it has come.
        let reached: Vec<&Scheduled> =
            scheduled.chunk_by(|one, next| one.job == next.job).filter_map(<[_]>::last).collect();
        if let Err(error) = result {
            return self.begin_again(&reached, error);
        }
        let mut progress = Vec::new();
        let mut leaving = Vec::new();
        for Scheduled { job: index, sequence, tokens } in reached {
            let job = &mut self.jobs[*index];
            let key = job.key.clone();
            match job.advance(*sequence, tokens.end) {
                Ok(Advance { token, done }) => {
                    if let Some(token) = token {
                        progress.push(Progress::Token { key: key.clone(), token });
                    }
                    if done {
                        progress.push(match std::mem::take(&mut job.record).finish() {
                            Ok(trace) => Progress::Done { key, trace },
                            Err(error) => Progress::Failed { key, error },
                        });
                        leaving.push(*index);
                    }
                }
                Err(error) => {
                    progress.push(Progress::Failed { key, error });
                    leaving.push(*index);
                }
            }
        }
        for index in leaving.into_iter().rev() {
            self.remove(index);
        }
        progress
    }

    /// Has the jobs of a step that has failed begin again; a job that was alone in it has failed.
    fn begin_again(&mut self, reached: &[&Scheduled], error: RunError) -> Vec<Progress<K>> {
        if let [only] = reached {
            let Job { key, .. } = self.remove(only.job);
            return vec![Progress::Failed { key, error }];
        }
        for Scheduled { job, sequence, tokens } in reached {
            let record = self.model.record();
            self.jobs[*job].begin_again(record, (*sequence, tokens.end));
        }
        Vec::new()
    }
}

impl<K> std::fmt::Debug for Runner<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("model", &self.model)
            .field("options", &self.options)
            .field("jobs", &self.jobs.len())
            .finish_non_exhaustive()
    }
}
