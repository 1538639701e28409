//! Pooling the tokens of a sequence and normalizing the result.

use crate::scalar::sqrt;
use crate::sums::{BLOCK, sum64_squares};

/// The least divisor of [`normalize`], 10⁻¹².
pub const MIN_DIVISOR: f32 = f32::from_bits(0x2b8c_bccc);

/// The mean of one column over the tokens of a sequence: the sum in blocks of [`BLOCK`], each from +0 and
/// added in order, divided by the count. That is a [`crate::dot`] with ones. An empty column gives NaN.
#[must_use]
pub fn mean_pool(column: &[f32]) -> f32 {
    let blocks = column.chunks(BLOCK).map(|block| block.iter().fold(0.0, |partial, x| partial + x));
    blocks.fold(0.0, |total, partial| total + partial) / column.len() as f32
}

/// The divisor of a row: `n = sqrt(sum64(x²))`, or [`MIN_DIVISOR`] where `n` is less; a NaN stays a NaN.
#[must_use]
pub fn normalize_divisor(x: &[f32]) -> f32 {
    let norm = sqrt(sum64_squares(x));
    if norm < MIN_DIVISOR { MIN_DIVISOR } else { norm }
}

/// `x / divisor`, for an element of the row that [`normalize_divisor`] saw.
#[must_use]
pub fn normalize(x: f32, divisor: f32) -> f32 {
    x / divisor
}
