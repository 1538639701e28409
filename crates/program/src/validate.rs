//! A manifest that checks, with the shapes that follow from it.

use std::collections::HashSet;

use gainsay_commitment::ModelId;

use crate::generation::check_generation;
use crate::job::{JobError, JobInput, Sequence};
use crate::limits::{
    self, Cost, MAX_LAYERS, MAX_NAME_BYTES, MAX_OPS, MAX_OPS_PER_LAYER, MAX_OUTPUT_BYTES, MAX_SEQUENCE,
    MAX_TENSORS, MAX_WIDTH, MAX_WITNESS_BYTES, MAX_WORK,
};
use crate::memory::{
    JobMemory, MAX_JOB_MEMORY, MAX_SEQUENCE_MEMORY, MAX_WEIGHT_MEMORY, RowCounts, weight_memory,
};
use crate::shapes::{OpError, OutputType, infer};
use crate::{
    Dtype, GenerationRequest, Manifest, Op, OpKind, OpPlace, Operand, RequestError, RowSpace, Scope, Shape,
    TensorRef, TensorSpec, VirtualOp,
};

/// Why a manifest is refused.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ManifestError {
    /// A count or size outside its limits.
    #[error("{what} is {found}; it must be between {min} and {max}")]
    OutOfRange {
        /// The count or size.
        what: &'static str,
        /// Its value.
        found: u64,
        /// Least allowed value.
        min: u64,
        /// Greatest allowed value.
        max: u64,
    },
    /// A tensor without elements, or with rows that are too wide.
    #[error(
        "tensor {name} has shape [{rows}, {width}]; both must be at least 1, the width at most {MAX_WIDTH}"
    )]
    TensorShape {
        /// Its name.
        name: String,
        /// Its rows.
        rows: u32,
        /// Elements of a row.
        width: u32,
    },
    /// Two tensors of one name.
    #[error("two tensors are named {name}")]
    DuplicateTensor {
        /// Their name.
        name: String,
    },
    /// A tensor that no op reads.
    #[error("no op reads tensor {name}")]
    UnusedTensor {
        /// Its name.
        name: String,
    },
    /// An op does not check.
    #[error("layer {layer} op {op}")]
    Op {
        /// Index of the layer.
        layer: u32,
        /// Index of the op in the layer.
        op: u32,
        /// What is wrong with it.
        #[source]
        source: OpError,
    },
    /// Some element of the op could not be shown to a referee within the limit.
    #[error(
        "an element of layer {layer} op {op} needs a witness of {bytes} bytes; at most {MAX_WITNESS_BYTES} are allowed"
    )]
    Witness {
        /// Index of the layer.
        layer: u32,
        /// Index of the op in the layer.
        op: u32,
        /// Upper bound of the witness.
        bytes: u64,
    },
    /// Some element of the op costs the referee more than the limit.
    #[error("an element of layer {layer} op {op} costs {work} operations; at most {MAX_WORK} are allowed")]
    Work {
        /// Index of the layer.
        layer: u32,
        /// Index of the op in the layer.
        op: u32,
        /// Upper bound of the operations.
        work: u64,
    },
    /// The weights would take more memory than a party can be asked for.
    #[error(
        "the weights take {bytes} bytes of memory once they are packed; at most {MAX_WEIGHT_MEMORY} are allowed"
    )]
    WeightMemory {
        /// Upper bound of what they take.
        bytes: u64,
    },
    /// One sequence would take more memory than a party can be asked for.
    #[error(
        "the ops of one layer take {bytes} bytes for the longest sequence; at most {MAX_SEQUENCE_MEMORY} are allowed"
    )]
    SequenceMemory {
        /// What their outputs take, with the layer's input.
        bytes: u64,
    },
    /// The program does not end with a row for each sequence, or not with the drawn tokens of an answer.
    #[error(
        "the last layer's output must be one row of floats for each sequence, or the drawn tokens of an answer"
    )]
    Output,
    /// An op that the program's kind has no use for.
    #[error("layer {layer} op {op}: {reason}")]
    Misplaced {
        /// Index of the layer.
        layer: u32,
        /// Index of the op in the layer.
        op: u32,
        /// Why it may not stand there.
        reason: &'static str,
    },
    /// End tokens out of order, given twice, or outside the vocabulary.
    #[error("the end tokens must be ids of the vocabulary in ascending order, each once")]
    StopIds,
    /// A parameter of sampling that no job could state.
    #[error("the defaults of sampling: {0}")]
    Defaults(RequestError),
}

/// A manifest that checks. It answers all questions about shapes, for any job.
#[derive(Clone, PartialEq, Debug)]
pub struct ValidatedModel {
    manifest: Manifest,
    id: ModelId,
    outputs: Vec<Vec<OutputType>>,
    costs: Vec<Vec<Cost>>,
    weight_memory: u64,
    job_memory: JobMemory,
}

/// An element of an expanded op, and the part of its sequence that it depends on.
#[derive(Clone, Copy)]
pub(crate) struct ExpandedElement<'a> {
    pub(crate) op: &'a Op,
    pub(crate) row: u64,
    pub(crate) column: u64,
    pub(crate) sequence: Sequence,
}

impl ValidatedModel {
    /// See [`Manifest::validate`].
    pub fn new(manifest: Manifest) -> Result<Self, ManifestError> {
        check_sizes(&manifest)?;
        check_tensors(&manifest)?;
        let outputs = infer_all(&manifest)?;
        check_generation(&manifest, &outputs)?;
        let costs = bound_costs(&manifest, &outputs)?;
        check_all_used(&manifest)?;
        let (weight_memory, job_memory) = check_memory(&manifest, &outputs)?;
        Ok(Self { id: manifest.id(), manifest, outputs, costs, weight_memory, job_memory })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The model's identity, computed once.
    pub fn id(&self) -> ModelId {
        self.id
    }

    /// Number of layers; at least 1.
    pub fn layer_count(&self) -> u32 {
        self.outputs.len() as u32
    }

    /// The ops of a layer; nothing beyond the last layer.
    pub fn ops(&self, layer: u32) -> &[Op] {
        self.manifest.program.layers.get(layer as usize).map_or(&[], |layer| &layer.ops)
    }

    /// One op of a layer.
    pub fn op(&self, layer: u32, op: u32) -> Option<&Op> {
        self.ops(layer).get(op as usize)
    }

    /// One weight's description.
    pub fn weight(&self, index: u32) -> Option<&TensorSpec> {
        self.manifest.tensors.get(index as usize)
    }

    /// Row space and width of an op's output.
    pub fn output_type(&self, layer: u32, op: u32) -> Option<OutputType> {
        self.outputs.get(layer as usize)?.get(op as usize).copied()
    }

    /// Row space and width of a layer's output.
    pub fn layer_output_type(&self, layer: u32) -> Option<OutputType> {
        self.outputs.get(layer as usize)?.last().copied()
    }

    /// Bounds of what a referee needs for any one element of an op, over all jobs that the model takes.
    pub fn worst_cost(&self, layer: u32, op: u32) -> Option<Cost> {
        self.costs.get(layer as usize)?.get(op as usize).copied()
    }

    /// Upper bound of the bytes that the weights take, as they are and as an engine packs them.
    pub fn weight_memory(&self) -> u64 {
        self.weight_memory
    }

    /// Bytes of the outputs of all ops of one layer and of its input in a run of `job`, for the layer that has most: what
    /// a party holds that shows the layer in a dispute.
    pub fn job_memory(&self, job: &JobInput) -> u64 {
        self.job_memory.bytes(RowCounts::of(job))
    }

    /// As [`ValidatedModel::job_memory`], for this many rows of any jobs that are computed together.
    pub fn batch_memory(&self, rows: RowCounts) -> u64 {
        self.job_memory.bytes(rows)
    }

    /// Whether the model continues prompts; it encodes sequences if not.
    pub fn generates(&self) -> bool {
        self.manifest.generation.is_some()
    }

    /// Elements of the vector that each sequence is answered with, or 1 for a token.
    pub fn answer_width(&self) -> u32 {
        self.layer_output_type(self.layer_count() - 1).expect("validation refuses empty programs").width
    }

    /// Refuses a job with ids outside the vocabulary, sequences longer than the model takes, an answer longer than a
    /// claim can carry, or a layer of more than [`MAX_JOB_MEMORY`]; a generation by an encoder, and an encoding by a
    /// language model.
    pub fn check_job(&self, job: &JobInput) -> Result<(), JobError> {
        let Manifest { vocabulary, max_sequence, .. } = self.manifest;
        if job.answer().is_some() != self.generates() {
            return Err(JobError::Kind { generates: self.generates() });
        }
        if let Some((index, &id)) = job.token_ids().iter().enumerate().find(|&(_, &id)| id >= vocabulary) {
            return Err(JobError::UnknownToken { index, id, vocabulary });
        }
        if let Some(Sequence { index, len, .. }) =
            job.sequences().find(|sequence| sequence.len > max_sequence.into())
        {
            return Err(JobError::SequenceTooLong { sequence: index, tokens: len, max_sequence });
        }
        let answer = self.layer_output_type(self.layer_count() - 1).map(|output| shape_in(job, output));
        let bytes = answer.map_or(0, |answer| answer.bytes());
        if bytes > MAX_OUTPUT_BYTES {
            return Err(JobError::OutputTooLong { bytes });
        }
        let bytes = self.job_memory(job);
        if bytes > MAX_JOB_MEMORY { Err(JobError::TooMuchMemory { bytes }) } else { Ok(()) }
    }

    /// Refuses a request for which some answer that it allows would be a job that [`check_job`](Self::check_job) refuses.
    pub fn check_request(&self, request: &GenerationRequest) -> Result<(), JobError> {
        let GenerationRequest { prompt, sampling, stop } = request;
        let Manifest { vocabulary, max_sequence, .. } = self.manifest;
        if !self.generates() {
            return Err(JobError::Kind { generates: false });
        }
        sampling.check()?;
        stop.check()?;
        if prompt.is_empty() {
            return Err(JobError::EmptySequence { sequence: 0 });
        }
        // The last token of an answer is no input.
        let (answers, prompt_tokens) = (u64::from(stop.max_tokens), prompt.len() as u64);
        let tokens = prompt_tokens.saturating_add(answers - 1);
        if tokens > max_sequence.into() {
            return Err(JobError::SequenceTooLong { sequence: 0, tokens, max_sequence });
        }
        let unknown = |index, id| JobError::UnknownToken { index, id, vocabulary };
        if let Some((index, &id)) = prompt.iter().enumerate().find(|&(_, &id)| id >= vocabulary) {
            return Err(unknown(index, id));
        }
        if let Some(&(id, _)) = sampling.logit_bias.iter().find(|&&(id, _)| id >= vocabulary) {
            return Err(unknown(0, id));
        }
        let bytes = self.batch_memory(RowCounts { tokens, sequences: 1, answers });
        if bytes > MAX_JOB_MEMORY { Err(JobError::TooMuchMemory { bytes }) } else { Ok(()) }
    }

    /// The tensor that an op of `layer` reads through `operand`, or nothing for a column of the job and for the
    /// input of the first layer.
    pub fn operand_tensor(&self, layer: u32, operand: Operand) -> Option<TensorRef> {
        match operand {
            Operand::LayerInput => layer.checked_sub(1).map(TensorRef::LayerOutput),
            Operand::Op(op) => Some(TensorRef::Op(OpPlace::in_layer(layer, op))),
            Operand::Weight(index) => Some(TensorRef::Weight(index)),
            Operand::Job(_) => None,
        }
    }

    /// Shape of an op's output in a run of `job`; nothing where there is no such op.
    pub fn op_shape(&self, job: &JobInput, place: OpPlace) -> Option<Shape> {
        match place.scope {
            Scope::Layer => self.output_type(place.layer, place.op).map(|output| shape_in(job, output)),
            Scope::Virtual { op, element } => {
                let expanded = self.expanded(job, place.layer, op, element)?;
                let rows = match VirtualOp::of(&expanded.op.kind).get(place.op as usize)? {
                    VirtualOp::Out => 1,
                    _ => expanded.sequence.len,
                };
                Some(Shape { rows, width: 1, dtype: Dtype::F32 })
            }
        }
    }

    /// Shape of any tensor of a run of `job`; nothing where there is no such tensor.
    pub fn shape_of(&self, job: &JobInput, tensor: TensorRef) -> Option<Shape> {
        match tensor {
            TensorRef::Op(place) => self.op_shape(job, place),
            TensorRef::LayerOutput(layer) => {
                self.layer_output_type(layer).map(|output| shape_in(job, output))
            }
            TensorRef::Weight(index) => self.weight(index).map(TensorSpec::shape),
        }
    }

    /// Number of ops of a layer or virtual layer; nothing where there is no such layer.
    pub fn op_count(&self, job: &JobInput, layer: u32, scope: Scope) -> Option<u32> {
        match scope {
            Scope::Layer => self.outputs.get(layer as usize).map(|ops| ops.len() as u32),
            Scope::Virtual { op, element } => {
                let expanded = self.expanded(job, layer, op, element)?;
                Some(VirtualOp::of(&expanded.op.kind).len() as u32)
            }
        }
    }

    /// Whether the element of this op (row-major index in its output) is disputed through a virtual layer. That
    /// depends on the op's kind and on the number of rows that the element depends on alone.
    pub fn is_expanded(&self, job: &JobInput, layer: u32, op: u32, element: u64) -> bool {
        self.expanded(job, layer, op, element).is_some()
    }

    /// A short name for the op at `place`, for people.
    pub fn op_name(&self, place: OpPlace) -> Option<&'static str> {
        match place.scope {
            Scope::Layer => self.op(place.layer, place.op).map(|op| op.kind.name()),
            Scope::Virtual { op, .. } => {
                let kind = &self.op(place.layer, op)?.kind;
                VirtualOp::of(kind).get(place.op as usize).map(|op| op.name())
            }
        }
    }

    /// The expanded element, where there is one.
    pub(crate) fn expanded(
        &self,
        job: &JobInput,
        layer: u32,
        op: u32,
        element: u64,
    ) -> Option<ExpandedElement<'_>> {
        let (output, op) = (self.output_type(layer, op)?, self.op(layer, op)?);
        let width = u64::from(output.width);
        let (row, column) = (element / width, element % width);
        let sequence = match op.kind {
            OpKind::Attention { causal, .. } => attended(job, row, causal),
            OpKind::MeanPool => job.sequence(row),
            _ => None,
        }?;
        let long = sequence.len > self.manifest.expand_from_rows.into();
        long.then_some(ExpandedElement { op, row, column, sequence })
    }
}

/// The rows that the token in row `row` attends to: its sequence, or what of it ends with the token.
pub(crate) fn attended(job: &JobInput, row: u64, causal: bool) -> Option<Sequence> {
    let sequence = job.sequence_of_token(row)?;
    Some(if causal { Sequence { len: row - sequence.start + 1, ..sequence } } else { sequence })
}

fn shape_in(job: &JobInput, output: OutputType) -> Shape {
    let rows = match output.space {
        RowSpace::Tokens => job.token_count(),
        RowSpace::Sequences => job.sequence_count(),
        RowSpace::Answer => job.answer_count(),
    };
    Shape { rows, width: output.width.into(), dtype: output.dtype }
}

fn in_range(what: &'static str, found: u64, min: u64, max: u64) -> Result<(), ManifestError> {
    if (min..=max).contains(&found) {
        Ok(())
    } else {
        Err(ManifestError::OutOfRange { what, found, min, max })
    }
}

fn check_sizes(manifest: &Manifest) -> Result<(), ManifestError> {
    let layers = &manifest.program.layers;
    in_range("the length of the model's name", manifest.name.len() as u64, 1, MAX_NAME_BYTES as u64)?;
    in_range("vocabulary", manifest.vocabulary.into(), 1, u32::MAX.into())?;
    in_range("max_sequence", manifest.max_sequence.into(), 1, MAX_SEQUENCE.into())?;
    in_range("blocks_per_layer", manifest.blocks_per_layer.into(), 1, MAX_LAYERS as u64)?;
    in_range("the number of tensors", manifest.tensors.len() as u64, 0, MAX_TENSORS as u64)?;
    in_range("the number of layers", layers.len() as u64, 1, MAX_LAYERS as u64)?;
    for layer in layers {
        in_range("the number of ops of a layer", layer.ops.len() as u64, 1, MAX_OPS_PER_LAYER as u64)?;
    }
    let ops: usize = layers.iter().map(|layer| layer.ops.len()).sum();
    in_range("the number of ops", ops as u64, 1, MAX_OPS as u64)
}

fn check_tensors(manifest: &Manifest) -> Result<(), ManifestError> {
    let mut names = HashSet::new();
    for TensorSpec { name, rows, width, .. } in &manifest.tensors {
        in_range("the length of a tensor's name", name.len() as u64, 1, MAX_NAME_BYTES as u64)?;
        if *rows == 0 || *width == 0 || *width > MAX_WIDTH {
            return Err(ManifestError::TensorShape { name: name.clone(), rows: *rows, width: *width });
        }
        if !names.insert(name.as_str()) {
            return Err(ManifestError::DuplicateTensor { name: name.clone() });
        }
    }
    Ok(())
}

fn infer_all(manifest: &Manifest) -> Result<Vec<Vec<OutputType>>, ManifestError> {
    let mut outputs: Vec<Vec<OutputType>> = Vec::with_capacity(manifest.program.layers.len());
    for (layer_index, layer) in manifest.program.layers.iter().enumerate() {
        let layer_input = outputs.last().and_then(|layer| layer.last()).copied();
        let mut types = Vec::with_capacity(layer.ops.len());
        for (op_index, op) in layer.ops.iter().enumerate() {
            let output = infer(manifest, layer_input, &types, op).map_err(|source| ManifestError::Op {
                layer: layer_index as u32,
                op: op_index as u32,
                source,
            })?;
            types.push(output);
        }
        outputs.push(types);
    }
    Ok(outputs)
}

fn bound_costs(manifest: &Manifest, outputs: &[Vec<OutputType>]) -> Result<Vec<Vec<Cost>>, ManifestError> {
    let layers = manifest.program.layers.iter().enumerate();
    layers
        .map(|(layer_index, layer)| {
            let ops = layer.ops.iter().enumerate();
            ops.map(|(op_index, op)| {
                let width = input_width(manifest, outputs, layer_index, op);
                let cost = limits::worst_element(manifest, op, width);
                check_cost(cost, layer_index as u32, op_index as u32)
            })
            .collect()
        })
        .collect()
}

fn check_memory(manifest: &Manifest, outputs: &[Vec<OutputType>]) -> Result<(u64, JobMemory), ManifestError> {
    let bytes_of_weights = weight_memory(manifest);
    if bytes_of_weights > MAX_WEIGHT_MEMORY {
        return Err(ManifestError::WeightMemory { bytes: bytes_of_weights });
    }
    let jobs = JobMemory::new(manifest, outputs);
    let longest = RowCounts {
        tokens: manifest.max_sequence.into(),
        sequences: 1,
        answers: manifest.generation.is_some().into(),
    };
    match jobs.bytes(longest) {
        bytes if bytes > MAX_SEQUENCE_MEMORY => Err(ManifestError::SequenceMemory { bytes }),
        _ => Ok((bytes_of_weights, jobs)),
    }
}

fn check_cost(cost: Cost, layer: u32, op: u32) -> Result<Cost, ManifestError> {
    let Cost { witness_bytes, work } = cost;
    if witness_bytes > MAX_WITNESS_BYTES {
        return Err(ManifestError::Witness { layer, op, bytes: witness_bytes });
    }
    if work > MAX_WORK {
        return Err(ManifestError::Work { layer, op, work });
    }
    Ok(cost)
}

/// Width of an op's first input: for a Gather, of its table.
fn input_width(manifest: &Manifest, outputs: &[Vec<OutputType>], layer: usize, op: &Op) -> u32 {
    let of_operand = |operand: &Operand| match *operand {
        Operand::LayerInput => outputs[..layer].last().and_then(|ops| ops.last()).map(|output| output.width),
        Operand::Op(index) => outputs[layer].get(index as usize).map(|output| output.width),
        Operand::Weight(index) => manifest.tensors.get(index as usize).map(|spec| spec.width),
        Operand::Job(_) => None,
    };
    op.inputs.iter().find_map(of_operand).expect("inference refuses ops without a tensor to read")
}

fn check_all_used(manifest: &Manifest) -> Result<(), ManifestError> {
    let mut used = vec![false; manifest.tensors.len()];
    for operand in manifest.program.layers.iter().flat_map(|layer| &layer.ops).flat_map(|op| &op.inputs) {
        if let Operand::Weight(index) = *operand {
            used[index as usize] = true;
        }
    }
    match manifest.tensors.iter().zip(used).find(|(_, used)| !used) {
        None => Ok(()),
        Some((spec, _)) => Err(ManifestError::UnusedTensor { name: spec.name.clone() }),
    }
}
