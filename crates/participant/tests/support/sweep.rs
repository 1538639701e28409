//! Bits flipped all over all-MiniLM-L6-v2, and the dispute about each flip, played by both sides' strategies.
//!
//! A worker runs the model with one bit of one element of one op's output flipped, carries on with it and claims what
//! comes out. Where no layer commitment changed, the claim is the honest one and nothing can be disputed; where one did,
//! a challenger with an honest run must have it convicted by proof of exactly that element.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gainsay_commitment::{SecretKey, Signed, trace_root};
use gainsay_engine::{Fault, Options};
use gainsay_participant::models::LoadedModel;
use gainsay_participant::trace::EngineTrace;
use gainsay_program::lowering::{ActivationWidths, LowerOptions, SourceFiles, lower_bert};
use gainsay_program::{ActivationBits, ArithmeticProfile, JobInput, OpPlace, Scope, ValidatedModel};
use gainsay_protocol::strategy::{
    ChallengerStep, Rehearsal, WorkerStep, challenger_next, first_difference, rehearse, worker_next,
};
use gainsay_protocol::{
    Action, Authentic, Case, Cause, Choice, Claim, Dispute, DisputeTerms, Job, JobId, LeaseId, LeaseTerms,
    Open, Parameters, Question, Refusal, Reveals, Role, ServiceTime, SignedMove, Verdict, judge,
};

/// The most that a witness may hold, in bytes of chunks and paths.
pub(crate) const MAX_WITNESS_BYTES: u64 = 256 << 10;
/// The longest that the referee may take over one element.
pub(crate) const MAX_REFEREE: Duration = Duration::from_millis(5);
/// The highest bit of the mantissa: large enough that later ops seldom round it away, and never a NaN of itself.
pub(crate) const HIGH_BIT: u8 = 22;
/// The lowest bit: the smallest lie there is.
pub(crate) const LOW_BIT: u8 = 0;

/// Every move is made at this moment: the game is about content, not about clocks.
const NOW: ServiceTime = ServiceTime(1_000);
/// No dispute about a program of this size is nearly as long.
const MAX_MOVES: u64 = 100;
/// How often the referee is timed. The shortest counts: what else runs on the machine is not the referee's doing.
const TIMINGS: u32 = 3;

/// all-MiniLM-L6-v2, from `GAINSAY_MODEL_DIR` or the cache folder of the workspace.
pub(crate) fn minilm(arithmetic: ArithmeticProfile, activations: ActivationBits) -> Result<LoadedModel> {
    let folder = model_folder();
    let files = SourceFiles::load(|name: &str| std::fs::read(folder.join(name))).with_context(|| {
        format!(
            "no model in {}: fetch it with `cargo xtask fetch-model`, or set GAINSAY_MODEL_DIR",
            folder.display()
        )
    })?;
    let activations = ActivationWidths::all(activations);
    let options = LowerOptions { activations, ..LowerOptions::new("all-MiniLM-L6-v2", arithmetic) };
    let lowered = lower_bert(&files, &options)?;
    let model = Arc::new(lowered.manifest.validate()?);
    let weights = lowered.weights.into_iter().map(Arc::from).collect();
    Ok(LoadedModel::new(model, weights, Options::default())?)
}

fn model_folder() -> PathBuf {
    let cached = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/models/all-MiniLM-L6-v2");
    std::env::var_os("GAINSAY_MODEL_DIR").map_or_else(cached, PathBuf::from)
}

/// One bit of one element of an op's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flip {
    pub(crate) layer: u32,
    pub(crate) op: u32,
    pub(crate) element: u64,
    pub(crate) bit: u8,
}

impl Flip {
    fn fault(self) -> Fault {
        let Self { layer, op, element, bit } = self;
        Fault::FlipBit { layer, op, element, bit }
    }
}

/// What became of a claim.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// Later ops of the layer rounded the flip away: the claim is true.
    Absorbed,
    /// The referee recomputed the element.
    Convicted(Conviction),
}

#[derive(Clone, Copy, Debug)]
struct Conviction {
    moves: u64,
    witness_bytes: u64,
    referee: Duration,
}

/// The proof that ends a dispute.
#[derive(Clone, Copy, Debug)]
struct Proof {
    witness_bytes: u64,
    referee: Duration,
}

/// One job on one model, with everything about it that does not depend on the flip.
pub(crate) struct Sweep {
    model: LoadedModel,
    job: Job,
    honest: Claim,
    /// The challenger's run: it keeps the ops of the layers that it has shown before.
    own: EngineTrace,
    lease: LeaseTerms,
    worker: SecretKey,
    challenger: SecretKey,
}

impl Sweep {
    /// The sweep over a job of one sequence of this many tokens.
    pub(crate) fn new(model: LoadedModel, tokens: usize) -> Result<Self> {
        let input = JobInput::new([token_ids(model.model(), tokens)])?;
        let job = Job::embedding(model.model().id(), input.clone());
        let (worker, challenger, coordinator) =
            (SecretKey::generate(), SecretKey::generate(), SecretKey::generate());
        let lease = LeaseTerms {
            coordinator: coordinator.id(),
            job: JobId([1; 16]),
            lease: LeaseId([2; 16]),
            worker: worker.id(),
        };
        let honest = claim(&model, &job, &lease, None)?;
        let own = EngineTrace::new(model.clone(), input, None);
        Ok(Self { model, job, honest, own, lease, worker, challenger })
    }

    fn input(&self) -> &JobInput {
        self.job.embedding_input().expect("the sweep is over an embedding")
    }

    /// The high bit of the first and the last element of every op of every layer, and the low bit of the first element
    /// of an op of each kind.
    pub(crate) fn everywhere(&self) -> Vec<Flip> {
        self.flips(|_, _| true)
    }

    /// As [`everywhere`](Self::everywhere), of ops whose elements are expanded and of the first op of each kind alone.
    pub(crate) fn expanded_and_one_of_each_kind(&self) -> Vec<Flip> {
        self.flips(|is_first, is_expanded| is_first || is_expanded)
    }

    fn flips(&self, wanted: impl Fn(bool, bool) -> bool) -> Vec<Flip> {
        let (model, input) = (self.model.model(), self.input());
        let (mut flips, mut kinds) = (Vec::new(), BTreeSet::new());
        for layer in 0..model.layer_count() {
            for (op, kind) in (0..).zip(model.ops(layer)) {
                let shape = model.op_shape(input, OpPlace::in_layer(layer, op));
                let last = shape.map_or(0, |shape| shape.elements()).saturating_sub(1);
                let is_first = kinds.insert(kind.kind.name());
                if wanted(is_first, model.is_expanded(input, layer, op, 0)) {
                    flips.extend([0, last].map(|element| Flip { layer, op, element, bit: HIGH_BIT }));
                }
                if is_first {
                    flips.push(Flip { layer, op, element: 0, bit: LOW_BIT });
                }
            }
        }
        flips
    }

    /// Plays every flip. A broken promise does not stop the sweep: it stands in the report.
    pub(crate) fn play_all(&mut self, flips: &[Flip]) -> Report {
        let mut report = Report::default();
        for &flip in flips {
            let kind = self.kind(flip);
            match self.play(flip) {
                Ok(ending) => report.add(kind, flip, ending),
                Err(error) => report.broken.push(format!("{kind}, {flip:?}: {error:#}")),
            }
        }
        report
    }

    /// Has the referee recompute elements of every op of every layer and of their virtual layers from the honest run: a
    /// flip in an expanded op is proven at the last op of its virtual layer, and the others need witnesses too.
    pub(crate) fn rehearse(&mut self) -> Result<Rehearsal> {
        let case = Case::new(self.model.model(), &self.job, &self.honest)?;
        let mut all = Rehearsal::default();
        for layer in 0..self.model.model().layer_count() {
            let Rehearsal { elements, max_witness_bytes } = rehearse(&case, layer, &mut self.own)?;
            all.elements += elements;
            all.max_witness_bytes = all.max_witness_bytes.max(max_witness_bytes);
        }
        Ok(all)
    }

    fn kind(&self, flip: Flip) -> String {
        let model = self.model.model();
        let name = model.op(flip.layer, flip.op).map_or("no op", |op| op.kind.name());
        let is_expanded = model.is_expanded(self.input(), flip.layer, flip.op, flip.element);
        if is_expanded { format!("{name}, expanded") } else { name.to_owned() }
    }

    fn play(&mut self, flip: Flip) -> Result<Ending> {
        let claimed = claim(&self.model, &self.job, &self.lease, Some(&flip.fault()))?;
        let signed = Signed::sign(claimed, &self.worker);
        Claim::check_signed(&signed, self.model.model(), &self.job, &self.lease)
            .context("the claim is refused on receipt")?;
        match first_difference(&signed.body, &self.honest.layers)? {
            None => self.absorbed(flip, &signed.body),
            Some(layer) => {
                ensure!(layer == flip.layer, "layer {layer} is the first that differs");
                self.dispute(flip, &signed.body).map(Ending::Convicted)
            }
        }
    }

    /// A claim that says what the honest one says: there is nothing about it that a dispute could be opened on.
    fn absorbed(&self, flip: Flip, claimed: &Claim) -> Result<Ending> {
        ensure!(*claimed == self.honest, "every layer agrees, and yet the claim is not the honest one");
        let case = Case::new(self.model.model(), &self.job, claimed)?;
        let opened =
            Dispute::open(&case, &mut Reveals::default(), &self.opening(flip, claimed)?, terms(), NOW);
        match opened {
            Err(Refusal::NothingDisputed) => Ok(Ending::Absorbed),
            Err(refusal) => bail!("a dispute of a true claim is refused for another reason: {refusal}"),
            Ok(_) => bail!("a true claim can be disputed with the true commitment"),
        }
    }

    fn opening(&self, flip: Flip, claimed: &Claim) -> Result<Authentic> {
        let commitment = *self.honest.layers.get(flip.layer as usize).context("no such layer")?;
        let (claim, challenger) = (claimed.id(), self.challenger.id());
        let open = Open { claim, challenger, layer: flip.layer, commitment };
        sent(Signed::sign(open, &self.challenger).into())
    }

    fn dispute(&mut self, flip: Flip, claimed: &Claim) -> Result<Conviction> {
        let opening = self.opening(flip, claimed)?;
        let case = Case::new(self.model.model(), &self.job, claimed)?;
        let mut shown = EngineTrace::new(self.model.clone(), self.input().clone(), Some(flip.fault()));
        let mut reveals = Reveals::default();
        let (mut dispute, _) = Dispute::open(&case, &mut reveals, &opening, terms(), NOW)?;
        let mut proof = None;
        while let Some(role) = dispute.turn() {
            ensure!(dispute.next_seq() < MAX_MOVES, "the dispute does not end");
            let made = match role {
                Role::Worker => match worker_next(&dispute, &case, &mut shown)? {
                    WorkerStep::Reveal(reveal) => Signed::sign(reveal, &self.worker).into(),
                    step => bail!("on its turn, the worker has no move: {step:?}"),
                },
                Role::Challenger => match challenger_next(&dispute, &case, &mut self.own)? {
                    ChallengerStep::Choose(choice) => {
                        proof = examine(&dispute, &case, &choice)?;
                        Signed::sign(choice, &self.challenger).into()
                    }
                    step => bail!("on its turn, the challenger has no move: {step:?}"),
                },
            };
            dispute.apply(&case, &mut reveals, &sent(made)?, NOW)?;
        }
        check_outcome(&dispute, flip)?;
        let Proof { witness_bytes, referee } = proof.context("the dispute ended without a proof")?;
        ensure!(witness_bytes <= MAX_WITNESS_BYTES, "the witness has {witness_bytes} bytes");
        Ok(Conviction { moves: dispute.next_seq(), witness_bytes, referee })
    }
}

/// Token ids that differ from position to position and are the same everywhere.
fn token_ids(model: &ValidatedModel, tokens: usize) -> Vec<u32> {
    let vocabulary = model.manifest().vocabulary;
    (0..tokens as u32).map(|position| position.wrapping_mul(2_654_435_761) % vocabulary).collect()
}

/// What a worker whose run had this fault claims.
fn claim(model: &LoadedModel, job: &Job, lease: &LeaseTerms, fault: Option<&Fault>) -> Result<Claim> {
    let mut traces =
        model.engine().run(std::slice::from_ref(job.embedding_input().expect("an embedding")), fault)?;
    let trace = traces.pop().context("a run of one job gives one trace")?;
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
fn examine(dispute: &Dispute, case: &Case<'_>, choice: &Choice) -> Result<Option<Proof>> {
    let Action::Prove { element, witness } = &choice.action else { return Ok(None) };
    let Some(Question::Element { place, chunk, bytes }) = dispute.question() else {
        bail!("a proof is offered where no element is asked for");
    };
    let elements = bytes.as_chunks::<4>().0;
    let in_chunk = element - chunk * gainsay_commitment::tensor::CHUNK_BYTES as u64 / 4;
    let claimed = *elements.get(in_chunk as usize).context("the element is not in the chunk")?;
    let commitments = dispute.commitments(case);
    let mut referee = Duration::MAX;
    for _ in 0..TIMINGS {
        let start = Instant::now();
        judge(&commitments, place, *element, claimed, witness)?;
        referee = referee.min(start.elapsed());
    }
    Ok(Some(Proof { witness_bytes: witness.bytes(), referee }))
}

/// The challenger has won, and by proof of the element that was flipped.
fn check_outcome(dispute: &Dispute, flip: Flip) -> Result<()> {
    let outcome = dispute.outcome().context("the dispute has not ended")?;
    ensure!(outcome.verdict == Verdict::ChallengerWins, "the verdict is {}", outcome.verdict);
    let Cause::Proof { place, element, .. } = outcome.cause else {
        bail!("the dispute ended by {}", outcome.cause.name());
    };
    let proven = match place.scope {
        Scope::Layer => (place.layer, place.op, element),
        Scope::Virtual { op, element } => (place.layer, op, element),
    };
    ensure!(proven == (flip.layer, flip.op, flip.element), "{place}, element {element} was proven instead");
    Ok(())
}

/// What a sweep found: a row for each kind of op, and every promise that was broken.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) kinds: BTreeMap<String, Tally>,
    pub(crate) broken: Vec<String>,
    absorbed: Vec<Flip>,
}

/// What happened to flips in ops of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) games: u32,
    pub(crate) absorbed: u32,
    pub(crate) convicted: u32,
    pub(crate) max_moves: u64,
    pub(crate) max_witness_bytes: u64,
    pub(crate) max_referee: Duration,
}

impl Report {
    fn add(&mut self, kind: String, flip: Flip, ending: Ending) {
        let tally = self.kinds.entry(kind).or_default();
        tally.games += 1;
        match ending {
            Ending::Absorbed => {
                tally.absorbed += 1;
                self.absorbed.push(flip);
            }
            Ending::Convicted(Conviction { moves, witness_bytes, referee }) => {
                tally.convicted += 1;
                tally.max_moves = tally.max_moves.max(moves);
                tally.max_witness_bytes = tally.max_witness_bytes.max(witness_bytes);
                tally.max_referee = tally.max_referee.max(referee);
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<22}{:>6}{:>10}{:>11}{:>11}{:>19}{:>17}",
            "op", "games", "absorbed", "convicted", "max moves", "max witness bytes", "max referee µs"
        )?;
        for (kind, tally) in &self.kinds {
            let flag = if tally.max_referee > MAX_REFEREE { "  over the limit" } else { "" };
            writeln!(
                f,
                "{kind:<22}{:>6}{:>10}{:>11}{:>11}{:>19}{:>17}{flag}",
                tally.games,
                tally.absorbed,
                tally.convicted,
                tally.max_moves,
                tally.max_witness_bytes,
                tally.max_referee.as_micros()
            )?;
        }
        for flip in &self.absorbed {
            writeln!(f, "absorbed: {flip:?}")?;
        }
        for broken in &self.broken {
            writeln!(f, "BROKEN: {broken}")?;
        }
        Ok(())
    }
}
