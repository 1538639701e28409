//! What a generation costs, what its commitments add to that, and what a check of it costs.

use std::time::{Duration, Instant};

use gainsay_program::{GenerationRequest, JobInput};

use crate::error::{FloatEnvironmentError, RunError};
use crate::{JoinRefusal, Model, Progress, Runner, RunnerOptions, Trace, Work};

/// One generation, measured alone.
#[derive(Debug, Clone)]
pub struct Measured {
    /// What the claim states.
    pub trace: Trace,
    /// The job as a checker runs it.
    pub job: JobInput,
    /// Time of the whole generation, its layers hashed.
    pub generate: Duration,
    /// Time of the same generation where nothing is hashed.
    pub generate_without_commitments: Duration,
    /// Time of the check: all rows at once, hashed.
    pub check: Duration,
}

/// Why there is nothing to measure.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The request cannot be run.
    #[error(transparent)]
    Refused(#[from] JoinRefusal),
    /// A run failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The check found another trace than the generation.
    #[error("the check gives another trace than the generation")]
    Differs,
    /// See [`FloatEnvironmentError`].
    #[error(transparent)]
    FloatEnvironment(#[from] FloatEnvironmentError),
}

/// Generates `request`'s `max_tokens` tokens, heeding no other stop rule, and checks them, each `runs` times and in turn;
/// the least time of each counts.
///
/// # Errors
/// See [`MeasureError`].
pub fn measure(model: &Model, request: &GenerationRequest, runs: usize) -> Result<Measured, MeasureError> {
    let mut best: Option<Measured> = None;
    for _ in 0..runs.max(1) {
        let (_, without) = generate(Runner::without_commitments(model.clone(), OPTIONS), request)?;
        let (trace, generate) = generate(Runner::new(model.clone(), OPTIONS), request)?;
        let answer: Vec<u32> =
            trace.output.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
        let job = JobInput::generation(&request.prompt, &answer, request.sampling.clone())
            .map_err(|error| RunError::Job { job: 0, source: error.into() })?;
        let started = Instant::now();
        let checked = model.run(std::slice::from_ref(&job), None)?;
        let check = started.elapsed();
        if checked.first() != Some(&trace) {
            return Err(MeasureError::Differs);
        }
        let best = best.get_or_insert(Measured {
            trace,
            job,
            generate,
            generate_without_commitments: without,
            check,
        });
        best.generate = best.generate.min(generate);
        best.generate_without_commitments = best.generate_without_commitments.min(without);
        best.check = best.check.min(check);
    }
    Ok(best.expect("at least one run"))
}

const OPTIONS: RunnerOptions =
    RunnerOptions { rows_per_step: 512, prefill_chunk: 512, cache_bytes: u64::MAX };

fn generate(mut runner: Runner<()>, request: &GenerationRequest) -> Result<(Trace, Duration), MeasureError> {
    let started = Instant::now();
    runner.join((), Work::Generate { request: request.clone(), stop: Box::new(|_| false) })?;
    loop {
        for progress in runner.step()? {
            match progress {
                Progress::Done { trace, .. } => return Ok((trace, started.elapsed())),
                Progress::Failed { error, .. } => return Err(error.into()),
                Progress::Token { .. } => {}
            }
        }
    }
}

/// What generations that run together take.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Until each of them has its first token.
    pub prompts: Duration,
    /// Each step from there that gave every one of them a token.
    pub steps: Vec<Duration>,
}

/// Rows of a step and of a prompt in a step, where time is measured.
pub const PACE_ROWS: usize = 1024;

fn runner<K: Clone + PartialEq>(model: &Model, rows_per_step: usize, commit: bool) -> Runner<K> {
    let options = RunnerOptions { rows_per_step, prefill_chunk: PACE_ROWS, cache_bytes: u64::MAX };
    let new = if commit { Runner::new } else { Runner::without_commitments };
    new(model.clone(), options)
}

/// Generates `max_tokens` tokens for each request, all of them together, with or without commitments.
///
/// # Errors
/// See [`MeasureError`].
pub fn pace(model: &Model, requests: &[GenerationRequest], commit: bool) -> Result<Pace, MeasureError> {
    let mut runner = runner(model, PACE_ROWS, commit);
    let started = Instant::now();
    for (key, request) in requests.iter().enumerate() {
        runner.join(key, Work::Generate { request: request.clone(), stop: Box::new(|_| false) })?;
    }
    let mut begun = vec![false; requests.len()];
    let (mut prompts, mut steps) = (None, Vec::new());
    while !runner.is_empty() {
        let step = Instant::now();
        let progress = runner.step()?;
        let (took, mut tokens) = (step.elapsed(), 0);
        for progress in progress {
            match progress {
                Progress::Token { key, .. } => {
                    begun[key] = true;
                    tokens += 1;
                }
                Progress::Done { .. } => {}
                Progress::Failed { error, .. } => return Err(error.into()),
            }
        }
        if prompts.is_some() && tokens == requests.len() {
            steps.push(took);
        }
        if prompts.is_none() && begun.iter().all(|&begun| begun) {
            prompts = Some(started.elapsed());
        }
    }
    Ok(Pace { prompts: prompts.unwrap_or_else(|| started.elapsed()), steps })
}

/// What jobs take together whose tokens are all given, with or without commitments.
///
/// # Errors
/// See [`MeasureError`].
pub fn encode(model: &Model, jobs: &[JobInput], commit: bool) -> Result<Duration, MeasureError> {
    let mut runner = runner(model, 16 * PACE_ROWS, commit);
    let started = Instant::now();
    for (key, job) in jobs.iter().enumerate() {
        runner.join(key, Work::Encode(job.clone()))?;
    }
    while !runner.is_empty() {
        for progress in runner.step()? {
            if let Progress::Failed { error, .. } = progress {
                return Err(error.into());
            }
        }
    }
    Ok(started.elapsed())
}
