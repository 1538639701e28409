//! Steps of decoding as CUDA graphs.
//!
//! A step that computes one row of each of some answers launches hundreds of small kernels, and to launch one takes as long as
//! many of them run. What such a step launches depends on how many rows there are and, if sheets have room for what grows, on
//! little else: positions, pages, draws and what is hashed are words in the sheet. So the launches are captured once, and
//! then a step is one copy to the device, one launch, and one copy back.
//!
//! What is captured allocates and frees its tensors in the graph, which the driver gives addresses of their own. Anything
//! else that it reads or writes is the graph's as long as it lives, or is told by its [`Key`].

use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::sys::CUgraphInstantiate_flags;
use candle_core::cuda_backend::cudarc::driver::sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED as ALL_ALLOWED;
use candle_core::cuda_backend::cudarc::driver::{CudaGraph, CudaStream, result};
use candle_core::{Result, Tensor, bail};
use gainsay_cuda_launch::At;
use gainsay_cuda_launch::attention::{Heads, Plan};
use gainsay_cuda_launch::blake3::{Run, hash_within, most_values};

use super::answers::Answers;
use super::hash::{VALUE_WORDS, address};
use super::staged::{Sheet, SheetRoom};
use super::{Array, BatchRuns, Device};
use crate::batch::Batch;
use crate::error::RunError;
use crate::execute::{Executor, Next, Observer};
use crate::kernels::{KvCache, PAGE_TOKENS};
use crate::machine::Machine;
use crate::ops::Operator;
use crate::plan::LayerPlan;

/// Rows of the largest step that is captured. What takes longer than its launches gains nothing.
const MOST_ROWS: usize = 64;
/// Graphs that a model keeps; of more the one that was not used for longest goes.
const MOST_GRAPHS: usize = 32;

/// Takes what a step gives as a whole.
pub(crate) trait StepRecorder {
    /// Whether layers are hashed.
    fn hashes(&self) -> bool;

    /// What is to be hashed of a batch whose layers' outputs lie at these addresses.
    ///
    /// # Errors
    /// The device has not the memory for what it knows of a job.
    fn runs(&mut self, batch: &Batch<'_>, layers: &[At<u8>]) -> Result<BatchRuns>;

    /// Takes the chaining values of the runs, and the last layer's output.
    ///
    /// # Errors
    /// They are not those of the runs.
    fn take(&mut self, batch: &Batch<'_>, hashed: (BatchRuns, &[u32]), output: &[u8]) -> Result<()>;
}

/// The graphs of a model.
pub(crate) struct Graphs {
    /// The causal attentions of its layers, each shape once.
    heads: Vec<Heads>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Steps that were seen, the last one last. Only what comes again is worth a graph.
    seen: Vec<(Key, Option<Graph>)>,
    /// Set once a capture has failed: it would again.
    given_up: bool,
}

/// What steps with the same graph have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    rows: usize,
    room: SheetRoom,
    /// Where page 0 of keys and values is.
    arena: u64,
    hashes: bool,
}

impl Key {
    /// The key of a step that may be a graph: a row of each of some answers, whose pages lie together.
    fn of(batch: &Batch<'_>, caches: &[KvCache], answers: &Answers, hashes: bool) -> Option<Self> {
        let rows = batch.segments().len();
        let decodes = batch.segments().iter().all(|it| it.rows.len() == 1 && it.answers.len() == 1);
        if rows == 0 || rows > MOST_ROWS || !decodes || batch.parts().iter().any(|part| part.fault.is_some())
        {
            return None;
        }
        let mut arenas =
            batch.segments().iter().map(|it| caches.get(it.cache)?.on_device().map(|(arena, _)| arena));
        let first = arenas.next()??;
        if !arenas.all(|arena| arena.is_some_and(|arena| arena.is(first))) {
            return None;
        }
        let arena = first.base()?.address();
        Some(Self { rows, room: SheetRoom::like(batch, caches, answers), arena, hashes })
    }

    /// Words of results before the chaining values, which are written four words at once.
    fn tokens(&self) -> usize {
        self.rows.next_multiple_of(VALUE_WORDS)
    }

    /// Tokens of the longest sequence that there is room for.
    fn keys(&self) -> u32 {
        (self.room.pages * PAGE_TOKENS) as u32
    }
}

impl Graphs {
    /// No graphs, for a model with these layers.
    pub(crate) fn new(layers: &[LayerPlan]) -> Self {
        let mut heads: Vec<Heads> = Vec::new();
        for step in layers.iter().flat_map(|layer| &layer.fused) {
            if let Operator::Causal(of, _) = &step.operator
                && !heads.contains(&of.launched())
            {
                heads.push(of.launched());
            }
        }
        Self { heads, kept: Mutex::default() }
    }

    /// Runs a step as a graph, if that is possible and worth it; else does nothing, and says so.
    ///
    /// # Errors
    /// The device has not the memory, or refuses.
    pub(crate) fn step(
        &self,
        executor: &Executor<'_>,
        device: &Device,
        (batch, caches): (&Batch<'_>, &mut [KvCache]),
        recorder: &mut dyn StepRecorder,
    ) -> std::result::Result<bool, RunError> {
        if self.heads.is_empty() {
            return Ok(false);
        }
        let answers = Answers::new(batch);
        let Some(key) = Key::of(batch, caches, &answers, recorder.hashes()) else { return Ok(false) };
        // Two runs of a model take turns: a graph has one sheet.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.given_up {
            return Ok(false);
        }
        let Some(at) = kept.seen.iter().position(|(seen, _)| *seen == key) else {
            if kept.seen.len() >= MOST_GRAPHS {
                kept.seen.remove(0);
            }
            kept.seen.push((key, None));
            return Ok(false);
        };
        let (_, known) = kept.seen.remove(at);
        let graph = match known {
            Some(graph) => graph,
            None => match Graph::capture(executor, device, (batch, caches), (&self.heads, key)) {
                Ok(graph) => graph,
                Err(RunError::OutOfMemory(error)) => return Err(RunError::OutOfMemory(error)),
                Err(error) => {
                    tracing::warn!(%error, "decoding goes on without CUDA graphs");
                    kept.given_up = true;
                    return Ok(false);
                }
            },
        };
        let (_, graph) = {
            kept.seen.push((key, Some(graph)));
            kept.seen.last_mut().expect("pushed above")
        };
        let graph = graph.as_mut().expect("pushed above");
        graph.run(device, (batch, caches, answers), (&self.heads, key), recorder)?;
        Ok(true)
    }
}

/// A captured step.
struct Graph {
    launched: Captured,
    /// Words of the sheet, of attentions' plans and of what is hashed.
    words: Array<u32>,
    /// Tokens that the step has drawn, and then chaining values.
    results: Array<u32>,
    /// Where the output of each layer is.
    layers: Vec<At<u8>>,
    places: Layout,
}

/// Where in a graph's words there is what.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layout {
    words: usize,
    plans: Vec<usize>,
    runs: usize,
}

/// What a step is, in words, and the plans of its attentions.
struct Described {
    sheet: Sheet,
    plans: Vec<Plan>,
    layout: Layout,
}

impl Described {
    /// A batch, with room for so many words of runs.
    fn new(
        device: &Device,
        (batch, caches, answers): (&Batch<'_>, &[KvCache], Answers),
        (heads, key): (&[Heads], Key),
        runs: usize,
    ) -> Result<Self> {
        let mut sheet = Sheet::new(batch, caches, answers, key.room);
        let [cache] = sheet.caches() else { bail!("a step's pages lie together") };
        let planned =
            |heads: &Heads| Plan::causal_within(*heads, cache.segments(), key.keys(), device.room());
        let plans: Vec<Plan> = heads.iter().map(planned).collect();
        let places = plans.iter().map(|plan| sheet.add(plan.words().iter().copied())).collect();
        let runs = sheet.add(std::iter::repeat_n(0, runs));
        let layout = Layout { words: sheet.words().len(), plans: places, runs };
        Ok(Self { sheet, plans, layout })
    }
}

impl Graph {
    /// Captures what a step like this one launches. Nothing of it runs.
    fn capture(
        executor: &Executor<'_>,
        device: &Device,
        (batch, caches): (&Batch<'_>, &mut [KvCache]),
        (heads, key): (&[Heads], Key),
    ) -> std::result::Result<Self, RunError> {
        let widths = (0..executor.model.layer_count()).map(|layer| {
            let kind = executor.model.layer_output_type(layer).expect("the model has this layer");
            kind.width as u64 * size_of::<f32>() as u64
        });
        let widths: Vec<u64> = widths.collect();
        let hashed = if key.hashes { key.rows * widths.len() } else { 0 };
        let values: u64 = if key.hashes { widths.iter().map(|&bytes| most_values(bytes)).sum() } else { 0 };
        let described = Described::new(
            device,
            (batch, caches, Answers::new(batch)),
            (heads, key),
            2 * Run::WORDS * hashed,
        )?;
        let Described { sheet, plans, layout } = described;
        let words = Array::scratch(device, layout.words)?;
        let results = Array::scratch(device, key.tokens() + key.rows * VALUE_WORDS * values as usize)?;
        let (captured, _turn) = device.captured()?;
        let staged = sheet.on(captured, words.clone());
        for ((heads, plan), place) in heads.iter().zip(plans).zip(&layout.plans) {
            staged.set_plan(*heads, plan, *place);
        }
        let mut observer = Capturing {
            device: captured,
            last: widths.len() - 1,
            rows: key.rows,
            hashed: (hashed as u32, widths.iter().copied().max().unwrap_or(0)),
            runs: At::new(words.at().skip(layout.runs as u64).address()),
            tokens: results.at(),
            values: results.at().skip(key.tokens() as u64),
            outputs: Vec::new(),
            layers: Vec::new(),
        };
        let batch = batch.staged_as(staged);
        let machine = Machine::Cuda(captured.clone());
        let capture = Capture::begin(captured.stream())?;
        let ran = Executor { machine: &machine, ..*executor }.layers(&batch, caches, &mut observer);
        observer.outputs.clear();
        let launched = capture.end();
        ran?;
        let (launched, layers) = (launched?, observer.layers);
        Ok(Self { launched, words, results, layers, places: layout })
    }

    /// Runs a step.
    fn run(
        &mut self,
        device: &Device,
        (batch, caches, answers): (&Batch<'_>, &[KvCache], Answers),
        (heads, key): (&[Heads], Key),
        recorder: &mut dyn StepRecorder,
    ) -> Result<()> {
        let runs = recorder.runs(batch, &self.layers)?;
        let hashed: Vec<u32> =
            runs.words().into_iter().flat_map(|word| [word as u32, (word >> 32) as u32]).collect();
        let Described { mut sheet, layout, .. } =
            Described::new(device, (batch, caches, answers), (heads, key), hashed.len())?;
        if layout != self.places {
            bail!("a step is laid out as {layout:?}, where {:?} was captured", self.places)
        }
        sheet.words_mut()[layout.runs..][..hashed.len()].copy_from_slice(&hashed);
        self.words.write(device, sheet.words())?;
        // SAFETY: what was captured reads and writes its own arrays, the model's weights, and pages that the
        // sequences hold, counted from the address that the key tells, and runs after all that was launched before.
        unsafe { self.launched.launch(device.stream()) }?;
        let results = self.results.download_front(device, key.tokens() + VALUE_WORDS * runs.values())?;
        let (tokens, values) = results.split_at(key.tokens());
        recorder.take(batch, (runs, values), bytemuck::cast_slice(&tokens[..key.rows]))
    }
}

/// Sees a step that is captured.
struct Capturing<'a> {
    device: &'a Device,
    /// Index of the last layer.
    last: usize,
    rows: usize,
    /// Runs that are hashed, and bytes of the longest.
    hashed: (u32, u64),
    /// Their words.
    runs: At<u64>,
    tokens: At<u32>,
    values: At<u32>,
    /// What is still to be hashed.
    outputs: Vec<Tensor>,
    layers: Vec<At<u8>>,
}

impl Observer for Capturing<'_> {
    fn watches_ops(&self, _: u32) -> bool {
        false
    }

    fn op(&mut self, _: &Batch<'_>, _: u32, _: usize, _: &[u8]) {}

    fn layer(&mut self, _: &Batch<'_>, layer: u32, output: &Tensor) -> Result<Next> {
        self.layers.push(address(output)?);
        self.outputs.push(output.clone());
        if layer as usize != self.last {
            return Ok(Next::Layer);
        }
        if output.dtype() != candle_core::DType::U32 || output.elem_count() != self.rows {
            bail!("a step gives a token for each row")
        }
        let tokens = At::new(address(output)?.address());
        // SAFETY: the results have room for the tokens and for as many values as the runs give at most; outputs are kept until
        // they are hashed.
        unsafe {
            self.device.copy(tokens, self.tokens, self.rows)?;
            if self.hashed.0 > 0 {
                self.device.launch([hash_within(self.hashed, self.runs, self.values)])?;
            }
        }
        Ok(Next::Layer)
    }
}

/// A stream while it is captured.
struct Capture<'a>(Option<&'a std::sync::Arc<CudaStream>>);

impl<'a> Capture<'a> {
    fn begin(stream: &'a std::sync::Arc<CudaStream>) -> Result<Self> {
        // Kernels may have to be loaded on the way. What else a capture forbids concerns streams that others use too.
        stream.begin_capture(ALL_ALLOWED).w()?;
        Ok(Self(Some(stream)))
    }

    /// What was captured.
    fn end(mut self) -> Result<Captured> {
        let Some(stream) = self.0.take() else { bail!("a capture ends once") };
        match stream.end_capture(CUgraphInstantiate_flags(0)).w()? {
            Some(graph) => Ok(Captured(graph)),
            None => bail!("nothing was captured"),
        }
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        // A run that has panicked must not leave the stream as it is.
        if let Some(stream) = self.0.take() {
            let _ = stream.end_capture(CUgraphInstantiate_flags(0));
        }
    }
}

/// A graph that can be launched.
struct Captured(CudaGraph);

// SAFETY: a graph may be used by any thread, one at a time; it is reached through a lock alone.
unsafe impl Send for Captured {}

impl Captured {
    /// Launches it on a stream, after all that was launched there before.
    ///
    /// # Safety
    /// All that it reads and writes is there, and nobody else's, until it has run.
    unsafe fn launch(&self, stream: &CudaStream) -> Result<()> {
        stream.context().bind_to_thread().w()?;
        // SAFETY: graph and stream are alive; the caller answers for the arrays.
        unsafe { result::graph::launch(self.0.cu_graph_exec(), stream.cu_stream()) }.w()
    }
}
