//! Faults: how tests and misbehaving workers corrupt a run. Honest code, and one divergence.

use gainsay_program::{RowSpace, ValidatedModel};

use crate::batch::Batch;

/// One divergence from the program, in every job of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Flips a bit of one element of an op's stored output; later ops compute with it.
    FlipBit {
        /// The layer.
        layer: u32,
        /// The op, an index into the layer's ops.
        op: u32,
        /// Row-major index of the element, modulo the number of elements that the output has in the job.
        element: u64,
        /// The bit, 0 for the lowest, modulo 32.
        bit: u8,
    },
    /// The output of a layer is its input.
    SkipLayer {
        /// The layer; its output must have the rows and the width of its input.
        layer: u32,
    },
}

impl Fault {
    /// The layer that it strikes.
    pub const fn layer(&self) -> u32 {
        match *self {
            Self::FlipBit { layer, .. } | Self::SkipLayer { layer } => layer,
        }
    }

    /// Whether the program has the op, or a layer that can be skipped.
    pub fn fits(&self, model: &ValidatedModel) -> bool {
        match *self {
            Self::FlipBit { layer, op, .. } => model.op(layer, op).is_some(),
            Self::SkipLayer { layer } => {
                let input = layer.checked_sub(1).and_then(|before| model.layer_output_type(before));
                input.is_some() && input == model.layer_output_type(layer)
            }
        }
    }

    /// Whether it strikes this op's output.
    pub(crate) fn strikes(&self, in_layer: u32, op_index: usize) -> bool {
        matches!(*self, Self::FlipBit { layer, op, .. } if layer == in_layer && op as usize == op_index)
    }

    /// Flips the bit in what `batch` holds of an op's output, in each job whose element it is.
    pub(crate) fn flip(&self, batch: &Batch, space: RowSpace, width: usize, output: &mut [f32]) {
        let Self::FlipBit { element, bit, .. } = *self else { return };
        for part in batch.parts() {
            let rows = part.rows(space);
            let element = (element % (rows.in_job as u64 * width as u64)) as usize;
            let first = rows.first_in_job * width;
            if (first..first + rows.in_batch.len() * width).contains(&element) {
                let value = &mut output[rows.in_batch.start * width + element - first];
                *value = f32::from_bits(value.to_bits() ^ 1 << (bit % 32));
            }
        }
    }
}
