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
