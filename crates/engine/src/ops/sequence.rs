//! Ops whose output rows depend on a whole sequence.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, bail};

use super::carrier::{matrix, output};
use crate::kernels::{Heads, Kernels, Qkv};

/// Attention within each sequence.
pub(super) struct Attention<'a> {
    pub(super) kernels: Kernels,
    pub(super) heads: Heads,
    pub(super) sequences: &'a [Range<usize>],
}

impl CustomOp3 for Attention<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, shape) = matrix(q, q_layout)?;
        let (k, k_shape) = matrix(k, k_layout)?;
        let (v, v_shape) = matrix(v, v_layout)?;
        let expected = (rows_of(self.sequences), self.heads.count * self.heads.width);
        if [shape, k_shape, v_shape] != [expected; 3] {
            bail!("attention over {shape:?}, {k_shape:?}, {v_shape:?}, where {expected:?} is due")
        }
        output(shape, |out| self.kernels.attention(self.heads, Qkv { q, k, v }, self.sequences, out))
    }
}

/// The mean of each sequence's rows.
pub(super) struct MeanPool<'a> {
    pub(super) kernels: Kernels,
    pub(super) sequences: &'a [Range<usize>],
}

impl CustomOp1 for MeanPool<'_> {
    fn name(&self) -> &'static str {
        "mean_pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, (rows, width)) = matrix(x, layout)?;
        if rows != rows_of(self.sequences) {
            bail!("{rows} rows do not fit sequences of {}", rows_of(self.sequences))
        }
        let shape = (self.sequences.len(), width);
        output(shape, |out| self.kernels.mean_pool(x, width, self.sequences, out))
    }
}

fn rows_of(sequences: &[Range<usize>]) -> usize {
    sequences.last().map_or(0, |last| last.end)
}
