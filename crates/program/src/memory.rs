//! How much memory a model makes a party use. A manifest is a stranger's: a few kilobytes of it may describe ops whose
//! outputs fill any machine. The bounds here are of what a dispute needs, where the outputs of all ops of one layer are
//! held at once.

use std::collections::BTreeSet;

use crate::shapes::OutputType;
use crate::{Dtype, JobInput, LinearKind, Manifest, OpKind, Operand, RowSpace, TensorSpec};

const FLOAT: u64 = size_of::<f32>() as u64;

/// Bytes that the weights may take as an engine packs them.
pub const MAX_WEIGHT_MEMORY: u64 = 64 << 30;
/// Bytes that the outputs of the widest layer may take in a job of one sequence, the longest that the model takes.
pub const MAX_SEQUENCE_MEMORY: u64 = 4 << 30;

/// Bytes that the outputs of the widest layer may take in any job, see [`ValidatedModel::job_memory`]. A rule of the
/// protocol: every party must be able to show a layer of every job that is accepted.
///
/// [`ValidatedModel::job_memory`]: crate::ValidatedModel::job_memory
pub const MAX_JOB_MEMORY: u64 = 8 << 30;

/// An engine may pad a matrix to a multiple of this many columns.
const PADDED_COLUMNS: u64 = 32;
/// Elements of an int8 group that an engine may pad to a multiple of this, and up to which it may pad to a multiple of 4.
const PADDED_GROUP: u64 = 64;
/// Bytes that a packed tensor may take for alignment and for reads past its end.
const PACKING_SLACK: u64 = 256;
/// Elements' worth of memory that an int8 linear map's input takes for each of its elements once it is quantized: two
/// levels of a byte padded to a word each, and a scale, where groups are of one element.
const QUANTIZED: u64 = 3;

/// Upper bound of the bytes of all weights and of what an engine makes of them: each tensor as it is; as f32 where an op other
/// than a linear map reads it so, and the largest once more while it is packed; and the matrix of every linear map packed
/// anew, since maps of one matrix may differ in their groups and activations.
pub(crate) fn weight_memory(manifest: &Manifest) -> u64 {
    let weight = |operand: &Operand| match *operand {
        Operand::Weight(index) => Some(index),
        _ => None,
    };
    let tensor = |operand: &Operand| manifest.tensors.get(weight(operand)? as usize);
    let stored = manifest.tensors.iter().map(|spec| spec.shape().bytes());
    let packing = manifest.tensors.iter().map(widened).max();
    let ops = || manifest.program.layers.iter().flat_map(|layer| &layer.ops);
    // However many ops read such a tensor, it is kept once.
    let kept = ops().filter(|op| !matches!(op.kind, OpKind::Linear(_) | OpKind::Gather));
    let kept: BTreeSet<u32> = kept.flat_map(|op| &op.inputs).filter_map(weight).collect();
    let kept = kept.into_iter().filter_map(|index| manifest.tensors.get(index as usize)).map(widened);
    let maps = ops().filter_map(|op| match op.kind {
        OpKind::Linear(kind) => Some((kind, op)),
        _ => None,
    });
    let packed =
        maps.flat_map(|(kind, op)| op.inputs.iter().filter_map(tensor).map(move |spec| packed(kind, spec)));
    stored.chain(packing).chain(kept).chain(packed).fold(0, u64::saturating_add)
}

/// Bytes of a tensor's elements as f32.
fn widened(spec: &TensorSpec) -> u64 {
    u64::from(spec.rows).saturating_mul(spec.width.into()).saturating_mul(FLOAT)
}

/// Bytes of a linear map's matrix, scales or bias as an engine packs them: levels by the byte, in padded groups; all else as
/// f32, and beside each scale what its group's sum starts at.
fn packed(kind: LinearKind, spec: &TensorSpec) -> u64 {
    let rows = u64::from(spec.rows).next_multiple_of(PADDED_COLUMNS);
    let width = u64::from(spec.width);
    let row = match kind {
        LinearKind::Int8 { group, .. } if spec.dtype == Dtype::I8 => {
            let group = u64::from(group);
            let padded = group.next_multiple_of(group.next_multiple_of(4).min(PADDED_GROUP));
            width / group * padded
        }
        LinearKind::Int8 { .. } => width * 2 * FLOAT,
        LinearKind::F32 => width * FLOAT,
    };
    // Beside each row there may be what its sum starts at, where there is no bias too.
    rows.saturating_mul(row.saturating_add(FLOAT)).saturating_add(PACKING_SLACK)
}

/// Elements that a token, and a sequence, adds to what one layer's ops and its input hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct LayerWidths {
    tokens: u64,
    sequences: u64,
    answers: u64,
}

/// Rows of jobs that are computed together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RowCounts {
    /// Tokens of all sequences.
    pub tokens: u64,
    /// Sequences.
    pub sequences: u64,
    /// Tokens of the answers of generations.
    pub answers: u64,
}

impl RowCounts {
    /// The rows of one job.
    pub fn of(job: &JobInput) -> Self {
        Self { tokens: job.token_count(), sequences: job.sequence_count(), answers: job.answer_count() }
    }
}

impl LayerWidths {
    fn add(&mut self, output: OutputType, times: u64) {
        let width = u64::from(output.width) * times;
        match output.space {
            RowSpace::Tokens => self.tokens += width,
            RowSpace::Sequences => self.sequences += width,
            RowSpace::Answer => self.answers += width,
        }
    }

    fn bytes(self, rows: RowCounts) -> u64 {
        let parts =
            [(rows.tokens, self.tokens), (rows.sequences, self.sequences), (rows.answers, self.answers)];
        let elements = parts.into_iter().map(|(rows, width)| rows.saturating_mul(width));
        elements.fold(0, u64::saturating_add).saturating_mul(FLOAT)
    }
}

/// What a model's jobs hold in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct JobMemory(Vec<LayerWidths>);

impl JobMemory {
    pub(crate) fn new(manifest: &Manifest, outputs: &[Vec<OutputType>]) -> Self {
        let mut input = None;
        let layers = manifest.program.layers.iter().zip(outputs).map(|(layer, outputs)| {
            let mut widths = LayerWidths::default();
            input.iter().chain(outputs).for_each(|&output| widths.add(output, 1));
            let maps =
                layer.ops.iter().filter(|op| matches!(op.kind, OpKind::Linear(LinearKind::Int8 { .. })));
            let quantized = maps.filter_map(|op| match *op.inputs.first()? {
                Operand::LayerInput => input,
                Operand::Op(index) => outputs.get(index as usize).copied(),
                Operand::Weight(_) | Operand::Job(_) => None,
            });
            quantized.for_each(|output| widths.add(output, QUANTIZED));
            input = outputs.last().copied();
            widths
        });
        Self(layers.collect())
    }

    /// Bytes of the outputs, the input and the quantized inputs of the layer that has most.
    pub(crate) fn bytes(&self, rows: RowCounts) -> u64 {
        self.0.iter().map(|layer| layer.bytes(rows)).max().unwrap_or(0)
    }
}
