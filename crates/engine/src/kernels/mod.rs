//! The operators on slices, fast.
//!
//! [`Kernels`] chooses once, when a model is loaded, what all its operators run on. [`portable`] calls
//! `arithmetic`'s own functions; [`linear`], [`attention`] and [`rows`] are written over [`lanes::Lanes`] and compiled for
//! [`avx2`] and [`avx512`]. All give the same bytes. Outputs obey the storing rule. Kernels divide their work over the
//! rayon pool that they are called in; no bit depends on how.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod buffer;
mod elementwise;
mod float_environment;
mod lanes;
mod linear;
mod pack;
mod portable;
mod rows;
mod scratch;
mod tile;

use std::ops::Range;

use linear::LinearRows;
use pack::Panels;

pub(crate) use attention::{Heads, Qkv};
pub use float_environment::float_environment_is_default;
pub(crate) use linear::Then;
pub(crate) use portable::Int8Matrix;

use crate::options::Simd;

/// What the operators run on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kernels {
    /// `arithmetic`'s functions.
    Portable,
    /// Eight lanes.
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    /// Sixteen lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

/// Runs `$vector` with the instructions `$v`, or `$portable`.
macro_rules! choose {
    ($kernels:expr, $v:ident => $vector:expr, $portable:expr) => {
        match $kernels {
            Kernels::Portable => $portable,
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2($v) => $vector,
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx512($v) => $vector,
        }
    };
}

/// A linear map's weights as the kernels want them.
pub(crate) struct LinearWeights {
    matrix: Matrix,
    bias: Vec<f32>,
    columns: usize,
    depth: usize,
}

enum Matrix {
    Rows(Vec<f32>),
    Panels(Panels),
    Int8(Int8Matrix),
}

impl LinearWeights {
    /// Elements of an output row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Elements of an input row.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }
}

impl Kernels {
    /// The kernels that `simd` asks for, or `None` where this machine lacks the instructions.
    pub(crate) fn detect(simd: Simd) -> Option<Self> {
        match simd {
            Simd::Portable => Some(Self::Portable),
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 => avx2::Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512 => avx512::Avx512::detect().map(Self::Avx512),
            #[cfg(not(target_arch = "x86_64"))]
            Simd::Avx2 | Simd::Avx512 => None,
            Simd::Auto => {
                let best = [Simd::Avx512, Simd::Avx2].into_iter().find_map(Self::detect);
                Some(best.unwrap_or(Self::Portable))
            }
        }
    }

    /// The choice by name.
    pub(crate) fn simd(self) -> Simd {
        match self {
            Self::Portable => Simd::Portable,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Simd::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Simd::Avx512,
        }
    }

    /// Prepares row-major `matrix`, `[columns, depth]`; `bias` is empty where there is none.
    pub(crate) fn pack(self, matrix: Vec<f32>, depth: usize, mut bias: Vec<f32>) -> LinearWeights {
        assert!(depth > 0 && !matrix.is_empty() && matrix.len().is_multiple_of(depth), "a whole matrix");
        let columns = matrix.len() / depth;
        assert!(bias.is_empty() || bias.len() == columns, "one bias per column");
        let matrix = choose!(self, v => {
            let panels = Panels::pack(v, &matrix, columns, depth);
            // Adding +0 changes only −0, which the storing rule turns into +0 anyway: so every map has a bias.
            bias.resize(panels.padded_columns(), 0.0);
            Matrix::Panels(panels)
        }, Matrix::Rows(matrix));
        LinearWeights { matrix, bias, columns, depth }
    }

    /// Keeps an int8 matrix as it is.
    pub(crate) fn pack_int8(self, matrix: Int8Matrix, bias: Vec<f32>) -> LinearWeights {
        let depth = matrix.depth;
        LinearWeights { columns: matrix.weights.len() / depth, depth, matrix: Matrix::Int8(matrix), bias }
    }

    /// `out = stored(x · wᵀ + bias)`, then `then`; `x` is `[rows, depth]`, `out` `[rows, columns]`.
    pub(crate) fn linear(self, x: &[f32], weights: &LinearWeights, then: Then<'_>, out: &mut [f32]) {
        let bias = &weights.bias;
        match &weights.matrix {
            Matrix::Rows(w) => portable::linear(x, w, weights.depth, bias, then, out),
            Matrix::Int8(w) => portable::linear_int8(x, w, bias, then, out),
            Matrix::Panels(panels) => choose!(
                self,
                v => linear::linear(v, LinearRows { x, panels, bias, then }, out),
                unreachable!("panels are packed for vectors only")
            ),
        }
    }

    /// `out = stored(LayerNorm(x))`, rows of `weight.len()` elements.
    pub(crate) fn layer_norm(self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        choose!(
            self,
            v => rows::layer_norm(v, x, weight, bias, eps, out),
            portable::layer_norm(x, weight, bias, eps, out)
        );
    }

    /// `out = stored(gelu(x))`.
    pub(crate) fn gelu(self, x: &[f32], out: &mut [f32]) {
        choose!(self, v => rows::gelu_each(v, x, out), portable::gelu(x, out));
    }

    /// `out = stored(a + b)`.
    pub(crate) fn add(self, a: &[f32], b: &[f32], out: &mut [f32]) {
        choose!(self, v => rows::add(v, a, b, out), portable::add(a, b, out));
    }

    /// Attention within each of `sequences`, which follow each other and cover all rows.
    pub(crate) fn attention(self, heads: Heads, qkv: Qkv<'_>, sequences: &[Range<usize>], out: &mut [f32]) {
        choose!(
            self,
            v => attention::attention(v, heads, qkv, sequences, out),
            portable::attention(heads, qkv, sequences, out)
        );
    }

    /// `out = stored(mean of each column over each sequence)`, `[sequences, width]`.
    pub(crate) fn mean_pool(self, x: &[f32], width: usize, sequences: &[Range<usize>], out: &mut [f32]) {
        portable::mean_pool(x, width, sequences, out);
    }

    /// `out = stored(x / norm of its row)`, rows of `width` elements.
    pub(crate) fn normalize(self, x: &[f32], width: usize, out: &mut [f32]) {
        choose!(self, v => rows::normalize(v, x, width, out), portable::normalize(x, width, out));
    }
}

#[cfg(test)]
mod tests;
