//! A loaded model.

use std::sync::Arc;

use gainsay_program::{JobInput, OpKind, Operand, RowCounts, RowSpace, ValidatedModel};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::batch::{BATCH_ROWS, Batch};
use crate::error::{FloatEnvironmentError, JobRefusal, LoadError, RunError};
use crate::execute::{Executor, Observer};
use crate::kernels::{Heads, Kernels, checked_kernels, float_environment_is_default};
use crate::load::{check_ops, check_weights, plan_layers};
use crate::plan::LayerPlan;
use crate::record::{ClaimRecorder, LayerRecorder, OpRecorder, Trace};
use crate::virtual_layer::{self, Element, Rows};
use crate::{Fault, Options, Simd};

/// A model with its weights checked and packed, and the threads that run it. Clones share everything.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    model: Arc<ValidatedModel>,
    plans: Vec<LayerPlan>,
    kernels: Kernels,
    pool: ThreadPool,
    memory: u64,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("id", &self.0.model.id())
            .field("simd", &self.simd())
            .field("threads", &self.threads())
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Loads a model. `weights` are the tensors of the manifest, in its order, row-major and little-endian. What runs
    /// is packed from them; of the bytes themselves only tables that rows are gathered from are kept.
    ///
    /// # Errors
    /// Weights that are not those that the manifest commits to or that take more memory than allowed, instructions that
    /// the machine lacks, threads that do not start or whose floating-point environment is not the default.
    pub fn new(
        model: Arc<ValidatedModel>,
        weights: Vec<Arc<[u8]>>,
        options: Options,
    ) -> Result<Self, LoadError> {
        let (bytes, allowed) = (model.weight_memory(), options.memory);
        if bytes > allowed {
            return Err(LoadError::Memory { bytes, allowed });
        }
        check_ops(&model)?;
        check_weights(&model, &weights)?;
        let pool = ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|index| format!("engine-{index}"))
            .build()
            .map_err(LoadError::Threads)?;
        check_float_environment(&pool)?;
        let kernels = pool.install(|| checked_kernels(options.simd)).ok_or(LoadError::Simd(options.simd))?;
        let plans = pool.install(|| plan_layers(&model, &weights, kernels));
        Ok(Self(Arc::new(Inner { model, plans, kernels, pool, memory: allowed })))
    }

    /// The manifest and what follows from it.
    pub fn model(&self) -> &Arc<ValidatedModel> {
        &self.0.model
    }

    /// The instructions that the kernels use; never [`Simd::Auto`], and others than were asked for where those give other
    /// bits on this machine than they should.
    pub fn simd(&self) -> Simd {
        self.0.kernels.simd()
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
        // Once as it is computed, once more as it is recorded.
        let (bytes, allowed) = (self.0.model.job_memory(job).saturating_mul(2), self.0.memory);
        if bytes > allowed { Err(JobRefusal::Memory { bytes, allowed }) } else { Ok(()) }
    }

    /// Runs jobs, many sequences at a time. Each job's trace is what it would be had it run alone. A fault strikes
    /// every job.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn run(&self, jobs: &[JobInput], fault: Option<&Fault>) -> Result<Vec<Trace>, RunError> {
        let mut recorder = ClaimRecorder::new(&self.0.model, jobs.len());
        self.observe(jobs, fault, &mut recorder)?;
        Ok(recorder.finish())
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
            OpKind::Attention { heads, head_dim, scale, .. } => {
                let heads = Heads { count: heads as usize, width: head_dim as usize, scale };
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
        let sequence = match output.space {
            RowSpace::Tokens => job.sequence_of_token(row)?,
            RowSpace::Sequences => job.sequence(row)?,
            RowSpace::Answer => return None,
        };
        Some(Element { row: row as usize, column: column as usize, sequence })
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
        check_float_environment(&inner.pool)?;
        let executor = Executor { model: &inner.model, kernels: inner.kernels, plans: &inner.plans, fault };
        let batches = Batch::divide(jobs, |tokens, sequences| {
            tokens <= BATCH_ROWS
                && inner.model.batch_memory(RowCounts {
                    tokens: tokens as u64,
                    sequences: sequences as u64,
                    answers: 0,
                }) <= inner.memory / 2
        });
        inner.pool.install(|| batches.iter().try_for_each(|batch| executor.run(batch, observer)))
    }
}

fn check_float_environment(pool: &ThreadPool) -> Result<(), FloatEnvironmentError> {
    let default_everywhere = pool.broadcast(|_| float_environment_is_default());
    default_everywhere.into_iter().all(|is| is).then_some(()).ok_or(FloatEnvironmentError)
}
