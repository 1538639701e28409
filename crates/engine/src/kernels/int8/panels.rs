//! Int8 weights in panels.

use super::dots::Dots;
use super::{Int8Matrix, Quantization};
use crate::kernels::buffer::AlignedBuffer;
use crate::kernels::lanes::Lanes;

/// A matrix in panels of [`Lanes::PANEL`] columns, each `[group][word][column][element of the word]`.
pub(super) struct Panels {
    weights: AlignedBuffer,
    /// `[panel][group][column]`.
    scales: AlignedBuffer,
    /// What the sums start at, `[panel][group][column]`.
    starts: Vec<i32>,
    columns: usize,
    panel_columns: usize,
    groups: usize,
    group_bytes: usize,
}

impl Panels {
    pub(super) fn pack<D: Dots>(_: D, matrix: &Int8Matrix) -> Self {
        let Quantization { depth, group, .. } = matrix.quantization;
        let (columns, groups) = (matrix.columns(), matrix.quantization.groups());
        let panel_columns = D::Lanes::PANEL;
        let padded = columns.next_multiple_of(panel_columns);
        let group_bytes = D::group_words(group) * D::WORD * panel_columns;
        let mut panels = Self {
            weights: AlignedBuffer::zeroed((padded / panel_columns * groups * group_bytes).div_ceil(4)),
            scales: AlignedBuffer::zeroed(padded * groups),
            starts: vec![0; padded * groups],
            columns,
            panel_columns,
            groups,
            group_bytes,
        };
        let weights: &mut [i8] = bytemuck::cast_slice_mut(panels.weights.as_mut_slice());
        for (column, row) in matrix.weights.chunks_exact(depth).enumerate() {
            let (panel, place) = (column / panel_columns, column % panel_columns);
            for (g, values) in row.chunks_exact(group).enumerate() {
                let target = &mut weights[(panel * groups + g) * group_bytes..][..group_bytes];
                for (k, &value) in values.iter().enumerate() {
                    target[(k / D::WORD * panel_columns + place) * D::WORD + k % D::WORD] = value;
                }
                let index = (panel * groups + g) * panel_columns + place;
                let sum: i32 = values.iter().map(|&value| i32::from(value)).sum();
                // Sums wrap on their way; the whole fits.
                panels.starts[index] = sum.wrapping_mul(-D::OFFSET);
                panels.scales.as_mut_slice()[index] = matrix.scales[column * groups + g];
            }
        }
        panels
    }

    /// Columns without padding.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Number of panels.
    pub(super) fn count(&self) -> usize {
        self.columns.div_ceil(self.panel_columns)
    }

    /// Columns of all panels, the padding of the last included.
    pub(super) fn padded_columns(&self) -> usize {
        self.count() * self.panel_columns
    }

    /// Weights, starts and scales of one group of one panel.
    #[inline(always)]
    pub(super) fn group(&self, panel: usize, group: usize) -> (&[u8], &[i32], &[f32]) {
        let index = panel * self.groups + group;
        let weights: &[u8] = bytemuck::cast_slice(self.weights.as_slice());
        let columns = index * self.panel_columns..(index + 1) * self.panel_columns;
        (
            &weights[index * self.group_bytes..][..self.group_bytes],
            &self.starts[columns.clone()],
            &self.scales.as_slice()[columns],
        )
    }
}
