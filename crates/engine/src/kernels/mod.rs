//! The operators on slices, fast.
//!
//! [`Kernels`] chooses once, when a model is loaded, what all its operators run on. [`portable`] calls
//! `arithmetic`'s own functions; [`linear`], [`attention`], [`causal`], [`rows`] and [`each`] are written over
//! [`lanes::Lanes`] and compiled for [`avx2`] and [`avx512`]; [`int8`] besides over the instructions that multiply bytes. All give the same bytes, and
//! `self_test` tries that on the machine at hand before a model is served. Outputs obey the storing rule. Kernels divide
//! their work over the rayon pool that they are called in; no bit depends on how.

pub(crate) mod answer;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod buffer;
mod cache;
mod causal;
mod each;
mod elementwise;
mod finish;
mod float_environment;
mod int8;
mod lanes;
mod linear;
mod pack;
mod portable;
mod rows;
mod scratch;
mod split;
mod tile;

use std::ops::Range;

use linear::LinearRows;
use pack::Panels;

pub(crate) use attention::{Heads, Qkv};
pub(crate) use cache::{KvCache, KvLayout, KvPlace, KvType, PAGE_TOKENS, PagePool};
pub(crate) use causal::CausalRows;
pub(crate) use each::{Binary, Rotation, Unary};
pub(crate) use finish::Then;
pub use float_environment::float_environment_is_default;
pub(crate) use int8::{Int8Matrix, Int8Weights, Levels, Quantization};
pub(crate) use pack::Elements;

use crate::options::Simd;

#[cfg(target_arch = "x86_64")]
use int8::{
    amx::{Amx, CoreTiles},
    dots::Dots as _,
    words::{Avx512Vnni, AvxVnni, Widened, Words},
};

/// What the operators run on: how integers are multiplied, which brings the float lanes with it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kernels {
    /// `arithmetic`'s functions.
    Portable,
    /// Eight lanes.
    #[cfg(target_arch = "x86_64")]
    Avx2(Words<Widened<avx2::Avx2>>),
    /// Eight lanes, VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(Words<AvxVnni>),
    /// Sixteen lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512(Words<Widened<avx512::Avx512>>),
    /// Sixteen lanes, VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Words<Avx512Vnni>),
    /// Sixteen lanes, AMX.
    #[cfg(target_arch = "x86_64")]
    Amx(Amx<CoreTiles>),
}

/// Runs `$vector` with the integer instructions `$dots`, or `$portable`.
macro_rules! choose_dots {
    ($kernels:expr, $dots:ident => $vector:expr, $portable:expr) => {
        match $kernels {
            Kernels::Portable => $portable,
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2($dots) => $vector,
            #[cfg(target_arch = "x86_64")]
            Kernels::AvxVnni($dots) => $vector,
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx512($dots) => $vector,
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx512Vnni($dots) => $vector,
            #[cfg(target_arch = "x86_64")]
            Kernels::Amx($dots) => $vector,
        }
    };
}

/// Runs `$vector` with the float lanes `$v`, or `$portable`.
macro_rules! choose {
    ($kernels:expr, $v:ident => $vector:expr, $portable:expr) => {
        choose_dots!(
            $kernels,
            dots => {
                let $v = dots.lanes();
                $vector
            },
            $portable
        )
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
    #[cfg(feature = "cuda")]
    Device(crate::cuda::DeviceLinear),
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

#[cfg(feature = "cuda")]
impl LinearWeights {
    /// Weights that lie on a device.
    pub(crate) fn of_device(weights: crate::cuda::DeviceLinear, columns: usize, depth: usize) -> Self {
        Self { matrix: Matrix::Device(weights), bias: Vec::new(), columns, depth }
    }

    /// The weights, for an op on their device.
    pub(crate) fn on_device(&self) -> candle_core::Result<&crate::cuda::DeviceLinear> {
        match &self.matrix {
            Matrix::Device(weights) => Ok(weights),
            Matrix::Rows(_) | Matrix::Panels(_) => {
                candle_core::bail!("weights on the CPU meet a tensor on a device")
            }
        }
    }
}

impl Kernels {
    /// The kernels that `simd` asks for, or `None` where this machine lacks the instructions.
    pub(crate) fn detect(simd: Simd) -> Option<Self> {
        match simd {
            Simd::Portable => Some(Self::Portable),
            Simd::Auto => Simd::LADDER.into_iter().rev().find_map(Self::detect),
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 => avx2::Avx2::detect().map(|v| Self::Avx2(Words(Widened(v)))),
            #[cfg(target_arch = "x86_64")]
            Simd::AvxVnni => AvxVnni::detect().map(|v| Self::AvxVnni(Words(v))),
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512 => avx512::Avx512::detect().map(|v| Self::Avx512(Words(Widened(v)))),
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512Vnni => Avx512Vnni::detect().map(|v| Self::Avx512Vnni(Words(v))),
            #[cfg(target_arch = "x86_64")]
            Simd::Amx => Amx::detect().map(Self::Amx),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }

    /// The choice by name.
    pub(crate) fn simd(self) -> Simd {
        match self {
            Self::Portable => Simd::Portable,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Simd::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) => Simd::AvxVnni,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Simd::Avx512,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => Simd::Avx512Vnni,
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => Simd::Amx,
        }
    }

    /// Prepares row-major `matrix`, `[columns, depth]`; `bias` is empty where there is none.
    pub(crate) fn pack(self, matrix: Elements<'_>, depth: usize, mut bias: Vec<f32>) -> LinearWeights {
        let len = matrix.len();
        assert!(depth > 0 && len > 0 && len.is_multiple_of(depth), "a whole matrix");
        let columns = len / depth;
        assert!(bias.is_empty() || bias.len() == columns, "one bias per column");
        let matrix = choose!(self, v => {
            let panels = Panels::pack(v, matrix, columns, depth);
            // Adding +0 changes only −0, which the storing rule turns into +0 anyway: so every map has a bias.
            bias.resize(panels.padded_columns(), 0.0);
            Matrix::Panels(panels)
        }, Matrix::Rows(matrix.widened()));
        LinearWeights { matrix, bias, columns, depth }
    }

    /// Prepares an int8 matrix; `bias` is empty where there is none.
    pub(crate) fn pack_int8(self, matrix: Int8Matrix, bias: Vec<f32>) -> Int8Weights {
        choose_dots!(
            self,
            dots => Int8Weights::pack(dots, &matrix, bias),
            Int8Weights::plain(matrix, bias)
        )
    }

    /// Quantizes rows for the linear maps that want them so.
    pub(crate) fn quantize(self, x: &[f32], quantization: Quantization) -> Levels {
        choose_dots!(
            self,
            dots => Levels::pack(dots, x, quantization),
            Levels::plain(x, quantization)
        )
    }

    /// As [`Kernels::linear`] for an int8 matrix and rows that are quantized as it wants them.
    pub(crate) fn linear_int8(self, levels: &Levels, weights: &Int8Weights, then: Then<'_>, out: &mut [f32]) {
        let rows = int8::Int8Rows { levels, weights, then };
        choose_dots!(self, dots => rows.run(dots, out), rows.run_plain(out));
    }

    /// `out = stored(x · wᵀ + bias)`, then `then`; `x` is `[rows, depth]`, `out` `[rows, columns]`.
    pub(crate) fn linear(self, x: &[f32], weights: &LinearWeights, then: Then<'_>, out: &mut [f32]) {
        let bias = &weights.bias;
        match &weights.matrix {
            Matrix::Rows(w) => portable::linear(x, w, weights.depth, bias, then, out),
            Matrix::Panels(panels) => choose!(
                self,
                v => linear::linear(v, LinearRows { x, panels, bias, then }, out),
                unreachable!("panels are packed for vectors only")
            ),
            #[cfg(feature = "cuda")]
            Matrix::Device(_) => unreachable!("weights on a device meet no slices"),
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

    /// `out = stored(RMSNorm(x))`, rows of `weight.len()` elements.
    pub(crate) fn rms_norm(self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        choose!(
            self,
            v => rows::rms_norm(v, x, weight, eps, out),
            portable::rms_norm(x, weight, eps, out)
        );
    }

    /// `out = stored(formula(x))`.
    pub(crate) fn unary(self, formula: Unary, x: &[f32], out: &mut [f32]) {
        choose!(self, v => each::unary(v, formula, x, out), portable::unary(formula, x, out));
    }

    /// `out = stored(formula(a, b))`.
    pub(crate) fn binary(self, formula: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
        choose!(self, v => each::binary(v, formula, a, b, out), portable::binary(formula, a, b, out));
    }

    /// `out = stored(x rotated)`, rows of as many elements for each of the rotation's positions.
    pub(crate) fn rope(self, of: Rotation<'_>, x: &[f32], out: &mut [f32]) {
        choose!(self, v => each::rope(v, of, x, out), portable::rope(of, x, out));
    }

    /// Keys side by side in the panels of a cache.
    pub(crate) fn kv_panel(self) -> usize {
        choose!(self, v => panel_of(v), 1)
    }

    /// Causal attention of rows whose keys and values their caches hold already.
    pub(crate) fn causal(
        self,
        heads: Heads,
        place: KvPlace,
        q: &[f32],
        sequences: &[CausalRows<'_>],
        out: &mut [f32],
    ) {
        choose!(
            self,
            v => causal::causal(v, heads, place, q, sequences, out),
            portable::causal(heads, place, q, sequences, out)
        );
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

fn panel_of<V: lanes::Lanes>(_: V) -> usize {
    V::PANEL
}

#[cfg(test)]
mod tests;
