//! A fraud and the dispute about it, played by both sides' strategies in one process: how many moves it takes, what the
//! witness holds, how long the referee takes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gainsay_commitment::{SecretKey, Signed, tensor, trace_root};
use gainsay_engine::{Fault, Model, Progress, Runner, RunnerOptions, Trace, Work};
use gainsay_participant::models::LoadedModel;
use gainsay_participant::trace::EngineTrace;
use gainsay_program::GenerationRequest;
use gainsay_protocol::strategy::{
    ChallengerStep, WorkerStep, challenger_next, first_difference, worker_next,
};
use gainsay_protocol::{
    Action, Authentic, Case, Choice, Claim, Dispute, DisputeTerms, Job, JobId, LeaseId, LeaseTerms, Open,
    Parameters, Question, Reveals, Role, ServiceTime, SignedMove, Verdict, judge,
};

/// Every move is made at this moment: the game is about content, not about clocks.
const NOW: ServiceTime = ServiceTime(1_000);
/// How often the referee is timed. The least counts: what else runs on the machine is not the referee's doing.
const TIMINGS: u32 = 5;

/// A dispute that was won.
pub(super) struct Conviction {
    pub(super) worker_moves: u64,
    pub(super) witness_bytes: u64,
    pub(super) referee: Duration,
}

/// What a worker claims that generates with this fault, and how it is convicted; nothing where the fault changes nothing.
pub(super) fn convict(
    model: &LoadedModel,
    request: &GenerationRequest,
    fault: Fault,
) -> Result<Option<Conviction>> {
    let job = Job::generation(model.model().id(), request.clone());
    let (worker, challenger) = (SecretKey::generate(), SecretKey::generate());
    let lease = LeaseTerms {
        coordinator: SecretKey::generate().id(),
        job: JobId([1; 16]),
        lease: LeaseId([2; 16]),
        worker: worker.id(),
    };
    let claim = claim_of(&job, &lease, model, cheat(model.engine(), request, fault)?)?;
    let input = job.input_given(&claim.output)?;
    let own = model.engine().run(std::slice::from_ref(&input), None)?.remove(0);
    let Some(layer) = first_difference(&claim, &own.layers)? else { return Ok(None) };
    let case = Case::new(model.model(), &job, &claim)?;
    let commitment = *own.layers.get(layer as usize).context("no such layer")?;
    let open = Open { claim: claim.id(), challenger: challenger.id(), layer, commitment };
    let mut reveals = Reveals::default();
    let (mut dispute, _) =
        Dispute::open(&case, &mut reveals, &sent(Signed::sign(open, &challenger).into())?, terms(), NOW)?;
    let mut shown = EngineTrace::new(model.clone(), input.clone(), Some(fault));
    let mut own = EngineTrace::new(model.clone(), input, None);
    let (mut worker_moves, mut proof) = (0, None);
    while let Some(role) = dispute.turn() {
        let made = match role {
            Role::Worker => match worker_next(&dispute, &case, &mut shown)? {
                WorkerStep::Reveal(reveal) => {
                    worker_moves += 1;
                    Signed::sign(reveal, &worker).into()
                }
                step => bail!("on its turn, the worker has no move: {step:?}"),
            },
            Role::Challenger => match challenger_next(&dispute, &case, &mut own)? {
                ChallengerStep::Choose(choice) => {
                    proof = examine(&dispute, &case, &choice)?.or(proof);
                    Signed::sign(choice, &challenger).into()
                }
                step => bail!("on its turn, the challenger has no move: {step:?}"),
            },
        };
        dispute.apply(&case, &mut reveals, &sent(made)?, NOW)?;
    }
    let outcome = dispute.outcome().context("the dispute has not ended")?;
    ensure!(outcome.verdict == Verdict::ChallengerWins, "the verdict is {}", outcome.verdict);
    let (witness_bytes, referee) = proof.context("the dispute ended without a proof")?;
    Ok(Some(Conviction { worker_moves, witness_bytes, referee }))
}

fn cheat(model: &Model, request: &GenerationRequest, fault: Fault) -> Result<Trace> {
    let mut runner =
        Runner::new(model.clone(), RunnerOptions { cache_bytes: u64::MAX, ..RunnerOptions::default() });
    runner.join_with(
        (),
        Work::Generate { request: request.clone(), stop: Box::new(|_| false) },
        Some(fault),
    )?;
    loop {
        for progress in runner.step()? {
            match progress {
                Progress::Token { .. } => {}
                Progress::Done { trace, .. } => return Ok(trace),
                Progress::Failed { error, .. } => return Err(error.into()),
            }
        }
    }
}

fn claim_of(job: &Job, lease: &LeaseTerms, model: &LoadedModel, trace: Trace) -> Result<Claim> {
    Ok(Claim {
        coordinator: lease.coordinator,
        job: lease.job,
        lease: lease.lease,
        model: job.model,
        arithmetic: model.model().manifest().arithmetic,
        input: job.commitment(),
        output: trace.output,
        trace: trace_root(&trace.layers)?,
        layers: trace.layers,
        worker: lease.worker,
    })
}

fn terms() -> DisputeTerms {
    let Parameters { window_ms, worker_allowance_ms, challenger_allowance_ms, .. } = Parameters::default();
    DisputeTerms { window_closes: NOW.plus(window_ms), worker_allowance_ms, challenger_allowance_ms }
}

/// A move as the other side of the wire has it: decoded from its bytes, its signature verified.
fn sent(made: SignedMove) -> Result<Authentic> {
    Ok(SignedMove::from_bytes(&made.to_bytes())?.authenticate()?)
}

/// Size of the witness and time of the referee, if the choice is the last.
fn examine(dispute: &Dispute, case: &Case<'_>, choice: &Choice) -> Result<Option<(u64, Duration)>> {
    let Action::Prove { element, witness } = &choice.action else { return Ok(None) };
    let Some(Question::Element { place, chunk, bytes }) = dispute.question() else {
        bail!("a proof is offered where no element is asked for");
    };
    let in_chunk = element - chunk * tensor::CHUNK_BYTES as u64 / 4;
    let claimed =
        *bytes.as_chunks::<4>().0.get(in_chunk as usize).context("the element is not in the chunk")?;
    let commitments = dispute.commitments(case);
    let mut referee = Duration::MAX;
    for _ in 0..TIMINGS {
        let start = Instant::now();
        judge(&commitments, place, *element, claimed, witness)?;
        referee = referee.min(start.elapsed());
    }
    Ok(Some((witness.bytes(), referee)))
}
