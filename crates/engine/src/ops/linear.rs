//! Linear maps, alone or fused with the op that follows.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, bail};

use super::carrier::{RowsWidth, matrix, output};
use crate::kernels::{Kernels, LinearWeights, Then};

/// The op that is fused into a linear map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follow {
    /// None.
    Nothing,
    /// gelu of the map's output.
    Gelu,
    /// The sum of the map's output and another tensor.
    Add,
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
        let then = match self.follow {
            Follow::Nothing => Then::Nothing,
            Follow::Gelu => Then::Gelu,
            Follow::Add => bail!("a linear map that adds needs a second input"),
        };
        output(mapped(shape, self.weights)?, |out| self.kernels.linear(x, self.weights, then, out))
    }
}

/// A linear map of one tensor, plus another tensor.
pub(super) struct LinearAdd<'a> {
    pub(super) kernels: Kernels,
    pub(super) weights: &'a LinearWeights,
}

impl CustomOp2 for LinearAdd<'_> {
    fn name(&self) -> &'static str {
        "linear_add"
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
            bail!("cannot add {other_shape:?} to {shape:?}")
        }
        output(shape, |out| self.kernels.linear(x, self.weights, Then::Add(other), out))
    }
}

fn mapped((rows, width): RowsWidth, weights: &LinearWeights) -> Result<RowsWidth> {
    if width != weights.depth() {
        bail!("rows of {width} elements do not fit weights for {}", weights.depth())
    }
    Ok((rows, weights.columns()))
}
