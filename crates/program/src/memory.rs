//! How much memory a model makes a party use. A manifest is a stranger's: a few kilobytes of it may describe ops whose
//! outputs fill any machine. The bounds here are of what a dispute needs, where the outputs of all ops of one layer are
//! held at once.

use crate::shapes::OutputType;
use crate::{Dtype, JobInput, Manifest, OpKind, Operand, RowSpace};

/// Bytes that the weights may take as an engine packs them.
pub const MAX_WEIGHT_MEMORY: u64 = 64 << 30;
/// Bytes that the outputs of the widest layer may take in a job of one sequence, the longest that the model takes.
pub const MAX_SEQUENCE_MEMORY: u64 = 4 << 30;

/// Columns up to which an engine may pad a matrix.
const PADDED_COLUMNS: u64 = 32;
/// Elements to a group up to which an engine may pad an int8 matrix.
const PADDED_GROUP: u64 = 4;

/// Upper bound of the bytes of all weights and of what an engine makes of them: every linear map packs its matrix anew, since
/// maps of one matrix may differ in their groups and activations.
pub(crate) fn weight_memory(manifest: &Manifest) -> u64 {
    let stored = manifest.tensors.iter().map(|spec| spec.shape().bytes());
    let ops = manifest.program.layers.iter().flat_map(|layer| &layer.ops);
    let packed = ops.filter(|op| matches!(op.kind, OpKind::Linear(_))).flat_map(|op| &op.inputs);
    let packed = packed.filter_map(|operand| match *operand {
        Operand::Weight(index) => manifest.tensors.get(index as usize),
        _ => None,
    });
    let packed = packed.map(|spec| {
        let elements = u64::from(spec.rows).max(PADDED_COLUMNS).saturating_mul(spec.width.into());
        // Levels take a byte, and up to a word each where groups are short; all else is held as f32.
        elements.saturating_mul(if spec.dtype == Dtype::I8 { PADDED_GROUP } else { size_of::<f32>() as u64 })
    });
    stored.chain(packed).fold(0, u64::saturating_add)
}

/// Elements that a token, and a sequence, adds to what one layer's ops and its input hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct LayerWidths {
    tokens: u64,
    sequences: u64,
}

impl LayerWidths {
    fn add(&mut self, output: OutputType) {
        let width = u64::from(output.width);
        match output.space {
            RowSpace::Tokens => self.tokens += width,
            RowSpace::Sequences => self.sequences += width,
        }
    }

    fn bytes(self, tokens: u64, sequences: u64) -> u64 {
        let elements =
            tokens.saturating_mul(self.tokens).saturating_add(sequences.saturating_mul(self.sequences));
        elements.saturating_mul(size_of::<f32>() as u64)
    }
}

/// What a model's jobs hold in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct JobMemory(Vec<LayerWidths>);

impl JobMemory {
    pub(crate) fn new(outputs: &[Vec<OutputType>]) -> Self {
        let mut input = None;
        let layers = outputs.iter().map(|ops| {
            let mut widths = LayerWidths::default();
            input.iter().chain(ops).for_each(|&output| widths.add(output));
            input = ops.last().copied();
            widths
        });
        Self(layers.collect())
    }

    /// Bytes of the outputs and the input of the layer that has most.
    pub(crate) fn bytes(&self, tokens: u64, sequences: u64) -> u64 {
        self.0.iter().map(|layer| layer.bytes(tokens, sequences)).max().unwrap_or(0)
    }

    pub(crate) fn of_job(&self, job: &JobInput) -> u64 {
        self.bytes(job.token_count(), job.sequence_count())
    }
}
