//! A loaded model.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use gainsay_program::{
    GenerationRequest, JobInput, OpKind, Operand, RowCounts, RowSpace, Sequence, TensorSpec, ValidatedModel,
};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::batch::{BATCH_BYTES, BATCH_ROWS, BatchSize, divide};
use crate::device::Chosen;
use crate::error::{FloatEnvironmentError, JobRefusal, LoadError, RunError};
use crate::execute::{Executor, Observer};
use crate::kernels::{Heads, KvCache, KvType, PAGE_TOKENS, PagePool, float_environment_is_default};
use crate::load::{Plans, is_incremental, kv_type, plan_layers};
use crate::machine::Machine;
use crate::record::{ClaimRecorder, JobRecord, LayerRecorder, OpRecorder, Trace};
use crate::virtual_layer::{self, Element, Rows};
use crate::{DeviceInfo, Fault, Options, Simd};

/// A model with its weights checked and packed, and the threads that run it. Clones share everything.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    model: Arc<ValidatedModel>,
    plans: Plans,
    /// Whether rows may be computed as they come.
    incremental: bool,
    kv_type: KvType,
    machine: Machine,
    pool: ThreadPool,
    memory: u64,
    #[cfg(feature = "cuda")]
    graphs: crate::cuda::Graphs,
    #[cfg(feature = "cuda")]
    pages: PagePool,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("id", &self.0.model.id())
            .field("device", &self.device())
            .field("threads", &self.threads())
            .finish_non_exhaustive()
    }
}

impl Model {
    /// [`Model::read`] from weights that are in memory already.
    ///
    /// # Errors
    /// As [`Model::read`]; [`LoadError::WeightCount`].
    pub fn new(
        model: Arc<ValidatedModel>,
        weights: Vec<Arc<[u8]>>,
        options: Options,
    ) -> Result<Self, LoadError> {
        let (expected, found) = (model.manifest().tensors.len(), weights.len());
        if expected != found {
            return Err(LoadError::WeightCount { expected, found });
        }
        Self::read(model, |index| Ok(Arc::clone(&weights[index])), options)
    }

    /// Loads a model. `read` gives the tensors of the manifest by their indices there, row-major and little-endian, each
    /// when its layer is packed, so that no more than a layer's are in memory twice; one that several layers read is asked
    /// for several times, and checked each time. What runs is packed from them; of the bytes themselves only tables that
    /// rows are gathered from are kept.
    ///
    /// # Errors
    /// Weights that cannot be read, that are not those that the manifest commits to, or that take more memory than allowed;
    /// a device that cannot be used or has not the memory, threads that do not start or whose floating-point environment is not the
    /// default.
    pub fn read(
        model: Arc<ValidatedModel>,
        read: impl Fn(usize) -> std::io::Result<Arc<[u8]>> + Sync,
        options: Options,
    ) -> Result<Self, LoadError> {
        let (bytes, allowed) = (model.weight_memory(), options.weights);
        if bytes > allowed {
            return Err(LoadError::Memory { bytes, allowed });
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|index| format!("engine-{index}"))
            .build()
            .map_err(LoadError::Threads)?;
        check_float_environment(&pool)?;
        let Chosen { machine, .. } =
            pool.install(|| Chosen::for_weights(weight_bytes(&model), options.device, options.simd))?;
        let plans = pool.install(|| plan_layers(&model, &read, &machine))?;
        let (incremental, kv_type) = (is_incremental(&model), kv_type(&model));
        let inner = Inner {
            #[cfg(feature = "cuda")]
            graphs: crate::cuda::Graphs::new(&plans.layers),
            #[cfg(feature = "cuda")]
            pages: PagePool::on(&machine, &plans.layout, kv_type),
            model,
            plans,
            incremental,
            kv_type,
            machine,
            pool,
            memory: options.memory,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// The manifest and what follows from it.
    pub fn model(&self) -> &Arc<ValidatedModel> {
        &self.0.model
    }

    /// The instructions that the kernels use; never [`Simd::Auto`], and others than were asked for where those give other
    /// bits on this machine than they should.
    pub fn simd(&self) -> Simd {
        self.0.machine.kernels().simd()
    }

    /// Where the model runs.
    pub fn device(&self) -> DeviceInfo {
        self.0.machine.info()
    }

    /// Number of worker threads.
    pub fn threads(&self) -> usize {
        self.0.pool.current_num_threads()
    }

    /// Refuses a job that does not fit the model, or that needs more memory than the engine may use.
    ///
    /// # Errors
    /// See [`JobRefusal`].
    pub fn check_job(&self, job: &JobInput) -> Result<(), JobRefusal> {
        self.0.model.check_job(job)?;
        self.check_memory(RowCounts::of(job), job.sequences().map(|sequence| sequence.len).max())
    }

    /// Refuses a request of which some answer might be a job that [`Model::check_job`] refuses.
    ///
    /// # Errors
    /// See [`JobRefusal`].
    pub fn check_request(&self, request: &GenerationRequest) -> Result<(), JobRefusal> {
        self.0.model.check_request(request)?;
        let answers = u64::from(request.stop.max_tokens);
        let tokens = request.prompt.len() as u64 + answers - 1;
        self.check_memory(RowCounts { tokens, sequences: 1, answers }, Some(tokens))
    }

    /// A layer of a job is held as it is recorded, and once more as it is computed, of which a batch has no more than
    /// [`BATCH_BYTES`] where sequences can be cut; beside the keys and values of its longest sequence.
    fn check_memory(&self, rows: RowCounts, longest: Option<u64>) -> Result<(), JobRefusal> {
        let cache = self.cache_bytes(longest.unwrap_or(0), None);
        let recorded = self.0.model.batch_memory(rows);
        let computed = if self.0.incremental { recorded.min(BATCH_BYTES) } else { recorded };
        let (bytes, allowed) = (recorded.saturating_add(computed).saturating_add(cache), self.0.memory);
        if bytes > allowed { Err(JobRefusal::Memory { bytes, allowed }) } else { Ok(()) }
    }

    /// Runs jobs as [`Model::run`] does, but answers for each on its own: where they cannot be run together, each is run
    /// alone, and what is wrong with one is told of that one.
    pub fn run_each(&self, jobs: &[JobInput]) -> Vec<Result<Trace, RunError>> {
        if let Ok(traces) = self.run(jobs, None) {
            return traces.into_iter().map(Ok).collect();
        }
        let alone = |job| Ok(self.run(std::slice::from_ref(job), None)?.remove(0));
        jobs.iter().map(alone).collect()
    }

    /// Runs jobs, many rows at a time. Each job's trace is what it would be had it run alone, and a generation's what it
    /// would be had each token been fed as it was chosen: the tokens of its answer that the job gives are fed whether or
    /// not they are those that come out. A fault strikes every job.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn run(&self, jobs: &[JobInput], fault: Option<&Fault>) -> Result<Vec<Trace>, RunError> {
        let records = jobs.iter().map(|_| self.record()).collect();
        let mut recorder = ClaimRecorder::new(&self.0.model, records, true);
        self.observe(jobs, fault, &mut recorder)?;
        recorder.finish().into_iter().map(JobRecord::finish).collect()
    }

    /// The stored outputs of all ops of a layer, found by running the job up to there.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn layer_ops(
        &self,
        job: &JobInput,
        layer: u32,
        fault: Option<&Fault>,
    ) -> Result<Vec<Vec<u8>>, RunError> {
        if layer >= self.0.model.layer_count() {
            return Err(RunError::NoSuchLayer(layer));
        }
        let mut recorder = OpRecorder::new(&self.0.model, job, layer);
        self.observe(std::slice::from_ref(job), fault, &mut recorder)?;
        Ok(recorder.finish())
    }

    /// The output of a layer, found by running the job up to there: the last of [`Model::layer_ops`].
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn layer_output(
        &self,
        job: &JobInput,
        layer: u32,
        fault: Option<&Fault>,
    ) -> Result<Vec<u8>, RunError> {
        if layer >= self.0.model.layer_count() {
            return Err(RunError::NoSuchLayer(layer));
        }
        let mut recorder = LayerRecorder::new(layer);
        self.observe(std::slice::from_ref(job), fault, &mut recorder)?;
        Ok(recorder.finish())
    }

    /// The outputs of all ops of the virtual layer of one element of an expanded op. The last of them is the element
    /// itself, as [`Model::layer_ops`] has it under the same fault; the others follow honestly from the op's inputs.
    ///
    /// # Errors
    /// [`RunError::NotExpanded`] where the element has no virtual layer; otherwise see [`RunError`].
    pub fn virtual_ops(
        &self,
        job: &JobInput,
        layer: u32,
        op: u32,
        element: u64,
        fault: Option<&Fault>,
    ) -> Result<Vec<Vec<u8>>, RunError> {
        let ops = self.layer_ops(job, layer, fault)?;
        let input = match layer.checked_sub(1) {
            Some(before) if self.reads_layer_input(layer, op) => self.layer_output(job, before, fault)?,
            _ => Vec::new(),
        };
        self.virtual_ops_from(job, (layer, op, element), &ops, &input)
    }

    /// [`Model::virtual_ops`] from what a run has given before: `ops` are those of [`Model::layer_ops`], `layer_input` is
    /// the output of the layer before, or empty where the op does not read it. Runs nothing.
    ///
    /// # Errors
    /// [`RunError::NotExpanded`] where the element has no virtual layer, or the tensors lack what it is computed from.
    pub fn virtual_ops_from(
        &self,
        job: &JobInput,
        (layer, op, element): (u32, u32, u64),
        ops: &[impl AsRef<[u8]>],
        layer_input: &[u8],
    ) -> Result<Vec<Vec<u8>>, RunError> {
        let outputs = self.steps(job, (layer, op, element), ops, layer_input);
        outputs.ok_or(RunError::NotExpanded { layer, op, element })
    }

    /// Whether an op reads the output of the layer before.
    pub fn reads_layer_input(&self, layer: u32, op: u32) -> bool {
        self.0.model.op(layer, op).is_some_and(|op| op.inputs.contains(&Operand::LayerInput))
    }

    fn steps(
        &self,
        job: &JobInput,
        (layer, op_index, element): (u32, u32, u64),
        ops: &[impl AsRef<[u8]>],
        layer_input: &[u8],
    ) -> Option<Vec<Vec<u8>>> {
        let model = &self.0.model;
        if !model.is_expanded(job, layer, op_index, element) {
            return None;
        }
        let op = model.op(layer, op_index)?;
        let place = self.element(job, layer, op_index, element)?;
        let input = |index: usize| match *op.inputs.get(index)? {
            Operand::LayerInput => {
                let width = model.layer_output_type(layer.checked_sub(1)?)?.width as usize;
                Some(Rows { bytes: layer_input, width })
            }
            Operand::Op(op) => {
                let width = model.output_type(layer, op)?.width as usize;
                Some(Rows { bytes: ops.get(op as usize)?.as_ref(), width })
            }
            Operand::Weight(_) | Operand::Job(_) => None,
        };
        let mut outputs = match op.kind {
            OpKind::Attention { heads, kv_heads, head_dim, scale, .. } => {
                let (count, kv_count) = (heads as usize, kv_heads as usize);
                let heads = Heads { count, kv_count, width: head_dim as usize, scale };
                virtual_layer::attention(heads, [input(0)?, input(1)?, input(2)?], place)
            }
            OpKind::MeanPool => virtual_layer::mean_pool(input(0)?, place),
            _ => return None,
        };
        let start = usize::try_from(element).ok()?.checked_mul(size_of::<f32>())?;
        outputs.push(ops.get(op_index as usize)?.as_ref().get(start..start + size_of::<f32>())?.to_vec());
        Some(outputs)
    }

    fn element(&self, job: &JobInput, layer: u32, op: u32, element: u64) -> Option<Element> {
        let output = self.0.model.output_type(layer, op)?;
        let (row, column) = (element / u64::from(output.width), element % u64::from(output.width));
        let causal = matches!(self.0.model.op(layer, op)?.kind, OpKind::Attention { causal: true, .. });
        let sequence = match output.space {
            RowSpace::Tokens => job.sequence_of_token(row)?,
            RowSpace::Sequences => job.sequence(row)?,
            RowSpace::Answer => return None,
        };
        let len = if causal { row - sequence.start + 1 } else { sequence.len };
        Some(Element { row: row as usize, column: column as usize, sequence: Sequence { len, ..sequence } })
    }

    fn observe(
        &self,
        jobs: &[JobInput],
        fault: Option<&Fault>,
        observer: &mut (impl Observer + Send),
    ) -> Result<(), RunError> {
        let inner = &*self.0;
        for (job, input) in jobs.iter().enumerate() {
            self.check_job(input).map_err(|source| RunError::Job { job, source })?;
        }
        if let Some(fault) = fault.filter(|fault| !fault.fits(&inner.model)) {
            return Err(RunError::Fault(*fault));
        }
        self.check_threads()?;
        let batches = divide(jobs, fault.copied(), inner.incremental, |size| self.fits(size, BATCH_ROWS));
        let sequences: u64 = jobs.iter().map(JobInput::sequence_count).sum();
        let pool = self.pages(fault);
        let mut caches: Vec<_> = (0..sequences).map(|_| KvCache::new(&pool)).collect();
        self.install(|executor| {
            batches.iter().try_for_each(|batch| {
                executor.run(batch, &mut caches, observer)?;
                let finished = batch.segments().iter().filter(|segment| segment.is_last());
                finished.for_each(|segment| caches[segment.cache].clear());
                Ok(())
            })
        })
    }

    /// Calls `work` in the threads with what runs a batch. A panic there ends this run and no other: the model is only
    /// read, and whatever else the run has touched is its caller's to drop.
    pub(crate) fn install<R: Send>(
        &self,
        work: impl FnOnce(Executor<'_>) -> Result<R, RunError> + Send,
    ) -> Result<R, RunError> {
        let inner = &*self.0;
        let Plans { layers: plans, layout } = &inner.plans;
        let executor = Executor {
            model: &inner.model,
            machine: &inner.machine,
            plans,
            layout,
            #[cfg(feature = "cuda")]
            graphs: &inner.graphs,
        };
        catch_unwind(AssertUnwindSafe(|| inner.pool.install(|| work(executor))))
            .unwrap_or_else(|payload| Err(RunError::panicked(&*payload)))
    }

    /// Whether a batch of this size is within `rows` and within what is sensible in memory.
    pub(crate) fn fits(&self, size: BatchSize, rows: usize) -> bool {
        let BatchSize { tokens, sequences, answers } = size;
        let counts =
            RowCounts { tokens: tokens as u64, sequences: sequences as u64, answers: answers as u64 };
        let mut allowed = self.0.memory / 2;
        if self.0.incremental {
            allowed = allowed.min(BATCH_BYTES);
        }
        tokens <= rows && self.0.model.batch_memory(counts) <= allowed
    }

    /// A record of a job that has not begun.
    pub(crate) fn record(&self) -> JobRecord {
        JobRecord::new(&self.0.model, &self.0.machine)
    }

    /// Whether rows may be computed as they come.
    pub(crate) fn is_incremental(&self) -> bool {
        self.0.incremental
    }

    /// Pages for caches. On a device all runs of a model take them from one place, which its graphs know.
    pub(crate) fn pages(&self, fault: Option<&Fault>) -> PagePool {
        #[cfg(feature = "cuda")]
        if let (Machine::Cuda(_), None) = (&self.0.machine, fault) {
            return self.0.pages.clone();
        }
        PagePool::on(&self.0.machine, &self.0.plans.layout, self.kv_type(fault))
    }

    /// Bytes that the keys and values of so many tokens of one sequence take.
    pub(crate) fn cache_bytes(&self, tokens: u64, fault: Option<&Fault>) -> u64 {
        let layout = &self.0.plans.layout;
        if layout.is_empty() {
            return 0;
        }
        tokens.div_ceil(PAGE_TOKENS as u64).saturating_mul(layout.page_bytes(self.kv_type(fault)))
    }

    /// How a cache holds keys and values: a fault may strike what 16 bits do not hold.
    fn kv_type(&self, fault: Option<&Fault>) -> KvType {
        if fault.is_some() { KvType::F32 } else { self.0.kv_type }
    }

    /// Whether the threads compute as the arithmetic asks.
    pub(crate) fn check_threads(&self) -> Result<(), FloatEnvironmentError> {
        check_float_environment(&self.0.pool)
    }
}

/// Bytes of a model's weights as its manifest has them.
fn weight_bytes(model: &ValidatedModel) -> u64 {
    let bytes = |spec: &TensorSpec| u64::from(spec.rows) * u64::from(spec.width) * spec.dtype.bytes();
    model.manifest().tensors.iter().map(bytes).fold(0, u64::saturating_add)
}

fn check_float_environment(pool: &ThreadPool) -> Result<(), FloatEnvironmentError> {
    let default_everywhere = pool.broadcast(|_| float_environment_is_default());
    default_everywhere.into_iter().all(|is| is).then_some(()).ok_or(FloatEnvironmentError)
}
