//! Ops whose output rows depend on one row of each input.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, bail};
use gainsay_program::{Dtype, weights::widen};

use super::carrier::{indices, matrix, output};
use crate::kernels::{Binary, Kernels, Rotation, Unary};

/// A table of rows, in the bytes of its weight.
pub(crate) struct Table {
    /// All rows, little-endian.
    pub(crate) bytes: Arc<[u8]>,
    /// Type of the elements.
    pub(crate) dtype: Dtype,
    /// Elements of a row.
    pub(crate) width: usize,
}

impl CustomOp1 for Table {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn cpu_fwd(&self, rows: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let rows = indices(rows, layout)?;
        let row_bytes = self.width * self.dtype.bytes() as usize;
        let count = (self.bytes.len() / row_bytes) as u32;
        if let Some(row) = rows.iter().find(|&&row| row >= count) {
            bail!("row {row} of a table of {count}")
        }
        // Weights obey the storing rule, and widening keeps to it.
        output((rows.len(), self.width), |out| {
            for (out, &row) in out.chunks_exact_mut(self.width).zip(rows) {
                let bytes = &self.bytes[row as usize * row_bytes..][..row_bytes];
                out.copy_from_slice(&widen(self.dtype, bytes));
            }
        })
    }
}

/// A formula of two tensors, element by element.
pub(super) struct BinaryEach {
    pub(super) kernels: Kernels,
    pub(super) formula: Binary,
}

impl CustomOp2 for BinaryEach {
    fn name(&self) -> &'static str {
        match self.formula {
            Binary::Add => "add",
            Binary::Mul => "mul",
        }
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, shape) = matrix(a, a_layout)?;
        let (b, b_shape) = matrix(b, b_layout)?;
        if shape != b_shape {
            bail!("{b_shape:?} does not fit {shape:?}")
        }
        output(shape, |out| self.kernels.binary(self.formula, a, b, out))
    }
}

/// LayerNorm.
pub(super) struct LayerNorm<'a> {
    pub(super) kernels: Kernels,
    pub(super) weight: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) eps: f32,
}

impl CustomOp1 for LayerNorm<'_> {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, shape) = matrix(x, layout)?;
        if shape.1 != self.weight.len() {
            bail!("rows of {} elements do not fit a norm of {}", shape.1, self.weight.len())
        }
        output(shape, |out| self.kernels.layer_norm(x, self.weight, self.bias, self.eps, out))
    }
}

/// RMSNorm of groups of columns, all with the same weights.
pub(super) struct RmsNorm<'a> {
    pub(super) kernels: Kernels,
    pub(super) weight: &'a [f32],
    pub(super) eps: f32,
}

impl CustomOp1 for RmsNorm<'_> {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, shape) = matrix(x, layout)?;
        if !shape.1.is_multiple_of(self.weight.len()) {
            bail!("rows of {} elements do not fit norms of {}", shape.1, self.weight.len())
        }
        output(shape, |out| self.kernels.rms_norm(x, self.weight, self.eps, out))
    }
}

/// The rotation of every head by its row's position.
pub(super) struct Rope<'a> {
    pub(super) kernels: Kernels,
    pub(super) rotation: Rotation<'a>,
}

impl CustomOp1 for Rope<'_> {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, (rows, width)) = matrix(x, layout)?;
        if rows != self.rotation.positions.len() || !width.is_multiple_of(self.rotation.width) {
            bail!("{rows} rows of {width} elements do not fit {:?}", self.rotation.positions.len())
        }
        output((rows, width), |out| self.kernels.rope(self.rotation, x, out))
    }
}

/// A formula of one tensor, element by element.
pub(super) struct UnaryEach {
    pub(super) kernels: Kernels,
    pub(super) formula: Unary,
}

impl CustomOp1 for UnaryEach {
    fn name(&self) -> &'static str {
        match self.formula {
            Unary::Gelu => "gelu",
            Unary::Silu => "silu",
            Unary::RoundBf16 => "cast_bf16",
        }
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, shape) = matrix(x, layout)?;
        output(shape, |out| self.kernels.unary(self.formula, x, out))
    }
}

/// Rows divided by their norms.
pub(super) struct Normalize {
    pub(super) kernels: Kernels,
}

impl CustomOp1 for Normalize {
    fn name(&self) -> &'static str {
        "normalize"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, shape) = matrix(x, layout)?;
        output(shape, |out| self.kernels.normalize(x, shape.1, out))
    }
}
