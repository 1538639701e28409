//! Normalization over a row: first the row's statistics, then one element at a time.

use crate::scalar::{fma, sqrt};
use crate::sums::{sum64, sum64_squares, sum64_squares_by};

/// The statistics of a row of width d for LayerNorm.
#[derive(Clone, Copy, Debug)]
pub struct LayerNormRow {
    /// `sum64(x) / d`.
    pub mean: f32,
    /// `1 / sqrt(v + eps)` with `v = sum64((x − mean)²) / d`, the squares added by fma.
    pub r: f32,
}

impl LayerNormRow {
    /// The statistics of `x`; those of an empty row are NaN.
    #[must_use]
    pub fn of(x: &[f32], eps: f32) -> Self {
        let width = x.len() as f32;
        let mean = sum64(x) / width;
        let variance = sum64_squares_by(x.len(), |i| x[i] - mean) / width;
        Self { mean, r: 1.0 / sqrt(variance + eps) }
    }

    /// `fma((x − mean)·r, w, b)` for an element of the row with its weight and bias.
    #[must_use]
    pub fn element(&self, x: f32, w: f32, b: f32) -> f32 {
        fma((x - self.mean) * self.r, w, b)
    }
}

/// The statistic of a row of width d for RMSNorm.
#[derive(Clone, Copy, Debug)]
pub struct RmsNormRow {
    /// `1 / sqrt(sum64(x²)/d + eps)`, the squares added by fma.
    pub r: f32,
}

impl RmsNormRow {
    /// The statistic of `x`; that of an empty row is NaN.
    #[must_use]
    pub fn of(x: &[f32], eps: f32) -> Self {
        let mean_square = sum64_squares(x) / x.len() as f32;
        Self { r: 1.0 / sqrt(mean_square + eps) }
    }

    /// `(x·r)·w` for an element of the row with its weight.
    #[must_use]
    pub fn element(&self, x: f32, w: f32) -> f32 {
        (x * self.r) * w
    }
}
