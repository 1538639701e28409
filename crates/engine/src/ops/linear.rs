//! Linear maps, alone or fused with the op that follows.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, bail};

use super::carrier::{RowsWidth, matrix, output};
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::kernels::{Binary, Kernels, LinearWeights, Then, Unary};

/// The op that is fused into a linear map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follow {
    /// None.
    Nothing,
    /// A formula of the map's output.
    Unary(Unary),
    /// A formula of the map's output and another tensor.
    Binary(Binary),
}

impl Follow {
    /// What follows without another tensor.
    pub(super) fn alone(self) -> Result<Then<'static>> {
        match self {
            Self::Nothing => Ok(Then::Nothing),
            Self::Unary(formula) => Ok(Then::Unary(formula)),
            Self::Binary(formula) => bail!("a linear map before {formula:?} needs a second input"),
        }
    }
}

/// A linear map of one tensor.
pub(super) struct Linear<'a> {
    pub(super) kernels: Kernels,
    pub(super) weights: &'a LinearWeights,
    pub(super) follow: Follow,
}

impl CustomOp1 for Linear<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, shape) = matrix(x, layout)?;
        let then = self.follow.alone()?;
        output(mapped(shape, self.weights)?, |out| self.kernels.linear(x, self.weights, then, out))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (_, columns) = mapped(layout.shape().dims2()?, self.weights)?;
        cuda::linear((self.weights.on_device()?, columns, self.follow), (x, layout), None)
    }
}

/// A formula of a linear map of one tensor and another tensor.
pub(super) struct LinearBinary<'a> {
    pub(super) kernels: Kernels,
    pub(super) weights: &'a LinearWeights,
    pub(super) formula: Binary,
}

impl CustomOp2 for LinearBinary<'_> {
    fn name(&self) -> &'static str {
        "linear_binary"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        other: &CpuStorage,
        other_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, shape) = matrix(x, layout)?;
        let (other, other_shape) = matrix(other, other_layout)?;
        let shape = mapped(shape, self.weights)?;
        if shape != other_shape {
            bail!("{other_shape:?} does not fit {shape:?}")
        }
        output(shape, |out| self.kernels.linear(x, self.weights, Then::Binary(self.formula, other), out))
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
        cuda::linear(map, (x, layout), Some((other, other_layout)))
    }
}

fn mapped((rows, width): RowsWidth, weights: &LinearWeights) -> Result<RowsWidth> {
    if width != weights.depth() {
        bail!("rows of {width} elements do not fit weights for {}", weights.depth())
    }
    Ok((rows, weights.columns()))
}
