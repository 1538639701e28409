//! Int8 linear maps, alone or fused with the op that follows. They compute with the levels of their first tensor.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, bail};

use super::carrier::{RowsWidth, matrix, output};
use super::linear::Follow;
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::kernels::{Binary, Int8Weights, Kernels, Levels, Then};

/// A linear map of one tensor.
pub(super) struct LinearInt8<'a> {
    pub(super) kernels: Kernels,
    pub(super) weights: &'a Int8Weights,
    pub(super) levels: &'a Levels,
    pub(super) follow: Follow,
}

impl CustomOp1 for LinearInt8<'_> {
    fn name(&self) -> &'static str {
        "linear_int8"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, shape) = matrix(x, layout)?;
        let then = self.follow.alone()?;
        output(mapped(shape, self.weights)?, |out| {
            self.kernels.linear_int8(self.levels, self.weights, then, out);
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (_, columns) = mapped(layout.shape().dims2()?, self.weights)?;
        let map = (self.weights.on_device()?, columns, self.follow);
        cuda::linear_int8(map, self.levels.on_device()?, (x, layout), None)
    }
}

/// A formula of a linear map of one tensor and another tensor.
pub(super) struct LinearInt8Binary<'a> {
    pub(super) kernels: Kernels,
    pub(super) weights: &'a Int8Weights,
    pub(super) levels: &'a Levels,
    pub(super) formula: Binary,
}

impl CustomOp2 for LinearInt8Binary<'_> {
    fn name(&self) -> &'static str {
        "linear_int8_binary"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        other: &CpuStorage,
        other_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, shape) = matrix(x, layout)?;
        let (other, other_shape) = matrix(other, other_layout)?;
        let shape = mapped(shape, self.weights)?;
        if shape != other_shape {
            bail!("{other_shape:?} does not fit {shape:?}")
        }
        output(shape, |out| {
            self.kernels.linear_int8(self.levels, self.weights, Then::Binary(self.formula, other), out);
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
        other: &CudaStorage,
        other_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (_, columns) = mapped(layout.shape().dims2()?, self.weights)?;
        let map = (self.weights.on_device()?, columns, Follow::Binary(self.formula));
        cuda::linear_int8(map, self.levels.on_device()?, (x, layout), Some((other, other_layout)))
    }
}

fn mapped((rows, width): RowsWidth, weights: &Int8Weights) -> Result<RowsWidth> {
    let depth = weights.quantization().depth;
    if width != depth {
        bail!("rows of {width} elements do not fit weights for {depth}")
    }
    Ok((rows, weights.columns()))
}
