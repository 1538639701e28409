//! Ops whose output rows depend on one row of each input.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, bail};
use gainsay_program::{Dtype, weights::widen};

use super::carrier::{indices, matrix, output};
use super::stored::Stored;
use crate::batch::Batch;
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::kernels::{Binary, Kernels, Rotation, Unary};

/// A table of rows, in the bytes of its weight.
pub(crate) struct Table {
    /// All rows, little-endian.
    pub(crate) bytes: Stored<u8>,
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
        let (rows, table) = (indices(rows, layout)?, self.bytes.host()?);
        let row_bytes = self.width * self.dtype.bytes() as usize;
        let count = (table.len() / row_bytes) as u32;
        if let Some(row) = rows.iter().find(|&&row| row >= count) {
            bail!("row {row} of a table of {count}")
        }
        // Weights obey the storing rule, and widening keeps to it.
        output((rows.len(), self.width), |out| {
            for (out, &row) in out.chunks_exact_mut(self.width).zip(rows) {
                let bytes = &table[row as usize * row_bytes..][..row_bytes];
                out.copy_from_slice(&widen(self.dtype, bytes));
            }
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::gather(self.bytes.device()?, self.dtype, self.width, (x, layout))
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

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
        other: &CudaStorage,
        other_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        cuda::binary(self.formula, (x, layout), (other, other_layout))
    }
}

/// LayerNorm.
pub(super) struct LayerNorm<'a> {
    pub(super) kernels: Kernels,
    pub(super) weight: &'a Stored<f32>,
    pub(super) bias: &'a Stored<f32>,
    pub(super) eps: f32,
}

impl CustomOp1 for LayerNorm<'_> {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, shape) = matrix(x, layout)?;
        let (weight, bias) = (self.weight.host()?, self.bias.host()?);
        if shape.1 != weight.len() {
            bail!("rows of {} elements do not fit a norm of {}", shape.1, weight.len())
        }
        output(shape, |out| self.kernels.layer_norm(x, weight, bias, self.eps, out))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let norm = (self.weight.device()?, self.bias.device()?, self.eps);
        cuda::layer_norm(norm, (x, layout))
    }
}

/// RMSNorm of groups of columns, all with the same weights.
pub(super) struct RmsNorm<'a> {
    pub(super) kernels: Kernels,
    pub(super) weight: &'a Stored<f32>,
    pub(super) eps: f32,
}

impl CustomOp1 for RmsNorm<'_> {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((x, shape), weight) = (matrix(x, layout)?, self.weight.host()?);
        if !shape.1.is_multiple_of(weight.len()) {
            bail!("rows of {} elements do not fit norms of {}", shape.1, weight.len())
        }
        output(shape, |out| self.kernels.rms_norm(x, weight, self.eps, out))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::rms_norm((self.weight.device()?, self.eps), (x, layout))
    }
}

/// The rotation of every head by its row's position.
pub(super) struct Rope<'a> {
    pub(super) kernels: Kernels,
    pub(super) cos: &'a Stored<f32>,
    pub(super) sin: &'a Stored<f32>,
    /// Columns of a head.
    pub(super) width: usize,
    pub(super) batch: &'a Batch<'a>,
}

impl CustomOp1 for Rope<'_> {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, (rows, width)) = matrix(x, layout)?;
        let positions = self.batch.positions();
        if rows != positions.len() || !width.is_multiple_of(self.width) {
            bail!("{rows} rows of {width} elements do not fit {:?}", positions.len())
        }
        let rotation =
            Rotation { width: self.width, cos: self.cos.host()?, sin: self.sin.host()?, positions };
        output((rows, width), |out| self.kernels.rope(rotation, x, out))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let angles = (self.cos.device()?, self.sin.device()?, self.width);
        cuda::rope(angles, self.batch.staged()?, (x, layout))
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

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::unary(self.formula, (x, layout))
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

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::normalize((x, layout))
    }
}
