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
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Until each of them has its first token.
    pub prompts: Duration,
    /// From there until the last has ended.
    pub answers: Duration,
    /// Steps of the latter part: tokens of the longest answer, but for its first.
    pub steps: usize,
}

/// Generates `max_tokens` tokens for each request, all of them together, with or without commitments.
///
/// # Errors
/// See [`MeasureError`].
pub fn pace(model: &Model, requests: &[GenerationRequest], commit: bool) -> Result<Pace, MeasureError> {
    let options = RunnerOptions { rows_per_step: 1024, prefill_chunk: 1024, cache_bytes: u64::MAX };
    let new = if commit { Runner::new } else { Runner::without_commitments };
    let mut runner = new(model.clone(), options);
    let started = Instant::now();
    for (key, request) in requests.iter().enumerate() {
        runner.join(key, Work::Generate { request: request.clone(), stop: Box::new(|_| false) })?;
    }
    let mut begun = vec![false; requests.len()];
    let (mut prompts, mut steps) = (None, 0);
    while !runner.is_empty() {
        let progress = runner.step()?;
        steps += usize::from(prompts.is_some());
        for progress in progress {
            match progress {
                Progress::Token { key, .. } | Progress::Done { key, .. } => begun[key] = true,
                Progress::Failed { error, .. } => return Err(error.into()),
            }
        }
        if prompts.is_none() && begun.iter().all(|&begun| begun) {
            prompts = Some(started.elapsed());
        }
    }
    let whole = started.elapsed();
    let prompts = prompts.unwrap_or(whole);
    Ok(Pace { prompts, answers: whole.saturating_sub(prompts), steps })
}
