//! Running a job with the divergence that a worker is told to have.

use crate::claimant::Task;
use crate::misbehave::Misbehaviour;
use crate::records::{Divergence, Record};
use crate::{Worker, WorkerError};
use gainsay_engine::{Fault, JoinRefusal, Progress, RunError, Runner, RunnerOptions, Trace, Work};
use gainsay_participant::ParticipantError;
use gainsay_participant::models::LoadedModel;
use gainsay_program::{GenerationRequest, JobInput, StopRules};

/// What a lie gave.
pub(crate) struct Lie {
    /// The record with the claim, kept.
    pub(crate) record: Record,
    /// The tokens to be streamed.
    pub(crate) streamed: Vec<u32>,
}

impl Worker {
    /// Whether the worker cheats on its `number`-th job, counted from 0.
    pub(crate) fn cheats_on(&self, number: u64) -> bool {
        self.config.misbehaviour.is_some() && number.is_multiple_of(self.config.cheat_every.max(1))
    }

    /// Runs one job with the divergence that it is told to have, signs and keeps what comes out. Long: not for async
    /// threads.
    ///
    /// # Errors
    /// The job cannot be run, or the claim not be kept.
    pub(crate) fn lie(&self, model: &LoadedModel, task: Task) -> Result<Lie, WorkerError> {
        let misbehaviour = self.config.misbehaviour.expect("only a worker that cheats lies");
        let failed = |reason: String| WorkerError::Job { lease: task.record.lease, reason };
        let salt = &task.record.lease.0;
        let (divergence, trace) = match task.job.generation_request() {
            None => {
                let input = task.job.embedding_input().expect("a job is an embedding or a generation");
                let divergence =
                    misbehaviour.divergence(model, input, salt).map_err(ParticipantError::from)?;
                (divergence, self.run_lie(model, input, &divergence)?)
            }
            Some(request) => {
                let honest = generate(model, request, None).map_err(failed)?;
                let input =
                    task.job.input_given(&honest.output).map_err(|error| failed(error.to_string()))?;
                let divergence =
                    misbehaviour.divergence(model, &input, salt).map_err(ParticipantError::from)?;
                (divergence, self.lying_answer(model, request, misbehaviour, divergence).map_err(failed)?)
            }
        };
        tracing::warn!(lease = %task.record.lease, ?divergence, "cheating");
        let mut streamed = tokens_of(&trace);
        if divergence == Divergence::Stream
            && let Some(first) = streamed.first_mut()
        {
            *first = (*first + 1) % model.model().manifest().vocabulary;
        }
        let record = self.sign(model, task, trace, Some(divergence))?;
        Ok(Lie { record, streamed })
    }

    fn run_lie(
        &self,
        model: &LoadedModel,
        input: &JobInput,
        divergence: &Divergence,
    ) -> Result<Trace, ParticipantError> {
        let (equipped, fault) = self.equip(model, divergence)?;
        Ok(equipped.engine().run(std::slice::from_ref(input), fault.as_ref())?.remove(0))
    }

    fn equip(
        &self,
        model: &LoadedModel,
        divergence: &Divergence,
    ) -> Result<(LoadedModel, Option<Fault>), ParticipantError> {
        let id = model.model().id();
        let load = |source| ParticipantError::Load { model: id, source: Box::new(source) };
        self.liar.equip(model, Some(divergence)).map_err(load)
    }

    /// The run behind an answer that is not what was asked for.
    fn lying_answer(
        &self,
        model: &LoadedModel,
        request: &GenerationRequest,
        misbehaviour: Misbehaviour,
        divergence: Divergence,
    ) -> Result<Trace, String> {
        let (equipped, fault) = self.equip(model, &divergence).map_err(|error| error.to_string())?;
        let rules = &request.stop;
        let asked = GenerationRequest { sampling: divergence.sampling(&request.sampling), ..request.clone() };
        match (divergence, misbehaviour) {
            (Divergence::OtherTokens { seed }, _) => {
                let other = self.liar.altered(model, seed).map_err(|error| error.to_string())?;
                let answer = tokens_of(&generate(&other, request, None)?);
                let input = JobInput::generation(&request.prompt, &answer, request.sampling.clone())
                    .map_err(|error| error.to_string())?;
                let run = model.engine().run(&[input], fault.as_ref()).map_err(|error| error.to_string())?;
                run.into_iter().next().ok_or_else(|| "a job gives a trace".to_owned())
            }
            (Divergence::Length, Misbehaviour::Truncate) => {
                let max_tokens = rules.max_tokens.saturating_sub(1).max(1);
                generate(
                    model,
                    &GenerationRequest { stop: StopRules { max_tokens, ..rules.clone() }, ..asked },
                    fault,
                )
            }
            (Divergence::Length, _) => {
                let stop = StopRules { max_tokens: rules.max_tokens + 1, stop: Vec::new(), ignore_eos: true };
                generate(model, &GenerationRequest { stop, ..asked }, fault)
            }
            _ => generate(&equipped, &asked, fault),
        }
    }
}

/// The answer's tokens.
fn tokens_of(trace: &Trace) -> Vec<u32> {
    trace.output.as_chunks().0.iter().map(|token| u32::from_le_bytes(*token)).collect()
}

/// Generates an answer on its own. Stop strings are not looked for: a liar's answer may end where it likes.
fn generate(model: &LoadedModel, request: &GenerationRequest, fault: Option<Fault>) -> Result<Trace, String> {
    let stop_ids = model.model().manifest().generation.as_ref().map(|generation| generation.stop_ids.clone());
    let (stop_ids, ignore_eos) = (stop_ids.unwrap_or_default(), request.stop.ignore_eos);
    let stop = Box::new(move |token| !ignore_eos && stop_ids.contains(&token));
    let work = Work::Generate { request: request.clone(), stop };
    let mut runner = Runner::new(model.engine().clone(), RunnerOptions::default());
    runner.join_with((), work, fault).map_err(|error: JoinRefusal| error.to_string())?;
    loop {
        for progress in runner.step().map_err(|error| error.to_string())? {
            match progress {
                Progress::Token { .. } => {}
                Progress::Done { trace, .. } => return Ok(trace),
                Progress::Failed { error, .. } => return Err(RunError::to_string(&error)),
            }
        }
    }
}
