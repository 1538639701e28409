//! Quantizing rows of activations into strips.

use gainsay_arithmetic::int8::{ActivationBits, Grid};
use rayon::prelude::*;

use super::Quantization;
use super::dots::{Dots, DotsKernel};
use crate::kernels::buffer::AlignedBuffer;
use crate::kernels::elementwise::load_front;
use crate::kernels::lanes::Lanes;
use crate::kernels::scratch::{lines, with_scratch};

/// Everything but the sign.
const MAGNITUDE: i32 = i32::MAX;

/// Quantized rows, [`Dots::STRIP`] to a strip.
pub(super) struct Strips {
    /// For each strip its lower digits, then its upper ones where there are some.
    words: AlignedBuffer,
    /// `[strip][group][row]`.
    scales: Vec<f32>,
    quantization: Quantization,
    shape: StripShape,
}

/// Sizes of a strip.
#[derive(Debug, Clone, Copy)]
pub(super) struct StripShape {
    /// Rows.
    pub(super) height: usize,
    /// Words of a row.
    pub(super) row_words: usize,
    /// Words of a group of a row.
    pub(super) group_words: usize,
    /// Words of one digit of all rows.
    pub(super) digit_words: usize,
    /// Words of all digits.
    pub(super) words: usize,
}

impl StripShape {
    fn new<D: Dots>(quantization: Quantization) -> Self {
        let group_words = D::group_words(quantization.group);
        let row_words = quantization.groups() * group_words;
        let digit_words = lines(row_words * D::STRIP + D::Lanes::LANES);
        let words = digit_words * quantization.digits();
        Self { height: D::STRIP, row_words, group_words, digit_words, words }
    }
}

impl Strips {
    pub(super) fn new<D: Dots>(dots: D, x: &[f32], quantization: Quantization) -> Self {
        let (depth, shape) = (quantization.depth, StripShape::new::<D>(quantization));
        assert!(x.len().is_multiple_of(depth), "whole rows");
        let count = (x.len() / depth).div_ceil(D::STRIP);
        let scales_per_strip = quantization.groups() * D::STRIP;
        let mut words = AlignedBuffer::zeroed(count * shape.words);
        let mut scales = vec![0.0; count * scales_per_strip];
        let strips = words.as_mut_slice().par_chunks_mut(shape.words);
        let scales_of_strips = scales.par_chunks_mut(scales_per_strip);
        strips.zip(scales_of_strips).zip(x.par_chunks(D::STRIP * depth)).for_each(|((strip, scales), x)| {
            let rows_words = D::STRIP * shape.row_words;
            with_scratch(rows_words * quantization.digits(), |scratch| {
                let (low, high) = scratch.split_at_mut(rows_words);
                dots.enter(Quantize { x, quantization, shape, low, high, strip, scales });
            });
        });
        Self { words, scales, quantization, shape }
    }

    pub(super) fn quantization(&self) -> Quantization {
        self.quantization
    }

    pub(super) fn shape(&self) -> StripShape {
        self.shape
    }

    /// The lower digits of a strip, and the upper ones where there are some.
    #[inline(always)]
    pub(super) fn digits(&self, strip: usize) -> (&[f32], &[f32]) {
        self.words.as_slice()[strip * self.shape.words..][..self.shape.words].split_at(self.shape.digit_words)
    }

    /// The scales of a group of a strip, a row each.
    #[inline(always)]
    pub(super) fn scales(&self, strip: usize, group: usize) -> &[f32] {
        let height = self.shape.height;
        &self.scales[(strip * self.quantization.groups() + group) * height..][..height]
    }
}

/// Quantizes up to a strip of rows.
struct Quantize<'a> {
    x: &'a [f32],
    quantization: Quantization,
    shape: StripShape,
    /// Lower digits by rows, for [`Dots::arrange`].
    low: &'a mut [f32],
    /// Upper digits by rows, or nothing.
    high: &'a mut [f32],
    strip: &'a mut [f32],
    scales: &'a mut [f32],
}

impl DotsKernel for Quantize<'_> {
    #[inline(always)]
    fn run<D: Dots>(mut self, dots: D) {
        let rows = self.x.len() / self.quantization.depth;
        for row in 0..rows {
            for group in 0..self.quantization.groups() {
                let scale = self.group(dots, row, group);
                self.scales[group * D::STRIP + row] = scale;
            }
        }
        let (low, high) = self.strip.split_at_mut(self.shape.digit_words);
        dots.arrange(self.low, rows, self.shape.row_words, low);
        if !self.high.is_empty() {
            dots.arrange(self.high, rows, self.shape.row_words, high);
        }
    }
}

impl Quantize<'_> {
    /// Quantizes one group of one row; returns its scale.
    #[inline(always)]
    fn group<D: Dots>(&mut self, dots: D, row: usize, group: usize) -> f32 {
        let v = dots.lanes();
        let Quantization { depth, group: len, bits, .. } = self.quantization;
        let x = &self.x[row * depth + group * len..][..len];
        let grid = Grid::from_greatest(greatest_magnitude(v, x), bits);
        let first = (row * self.shape.row_words + group * self.shape.group_words) * size_of::<f32>();
        let bytes = self.shape.group_words * size_of::<f32>();
        let low = &mut bytemuck::cast_slice_mut(self.low)[first..first + bytes];
        let step = D::Lanes::LANES * size_of::<f32>() / D::WORD;
        let vectors = x.chunks(D::Lanes::LANES).enumerate();
        match bits {
            ActivationBits::Eight => {
                for (i, x) in vectors {
                    put(dots, levels(v, x, &grid), &mut low[i * step..]);
                }
            }
            ActivationBits::Sixteen => {
                let high = &mut bytemuck::cast_slice_mut(self.high)[first..first + bytes];
                for (i, x) in vectors {
                    let levels = levels(v, x, &grid);
                    // hi = (q − lo) / 256 = ⌊(q + 128) / 256⌋, and lo is what is left.
                    let upper = v.shift_right::<8>(v.add_int(levels, v.splat_int(128)));
                    put(dots, v.sub_int(levels, v.shift_left::<8>(upper)), &mut low[i * step..]);
                    put(dots, upper, &mut high[i * step..]);
                }
            }
        }
        grid.scale
    }
}

/// The greatest magnitude, or if a value is not finite some NaN or ∞: as bits, magnitudes have the order of integers.
#[inline(always)]
fn greatest_magnitude<V: Lanes>(v: V, x: &[f32]) -> f32 {
    let magnitude = v.splat_int(MAGNITUDE);
    let (mut even, mut odd) = (v.splat_int(0), v.splat_int(0));
    let pairs = x.chunks_exact(2 * V::LANES);
    for x in pairs.remainder().chunks(V::LANES) {
        even = v.max_int(even, v.and(v.bits(load_front(v, x)), magnitude));
    }
    for pair in pairs {
        even = v.max_int(even, v.and(v.bits(v.load(pair)), magnitude));
        odd = v.max_int(odd, v.and(v.bits(v.load(&pair[V::LANES..])), magnitude));
    }
    f32::from_bits(v.greatest_int(v.max_int(even, odd)).cast_unsigned())
}

/// The levels of up to a vector of values.
#[inline(always)]
fn levels<V: Lanes>(v: V, x: &[f32], grid: &Grid) -> V::I {
    // Where all levels are 0 the values may be anything, and so may what rounding makes of them.
    if grid.factor == 0.0 {
        return v.splat_int(0);
    }
    let limit = grid.limit as i32;
    let rounded = v.round(v.mul(load_front(v, x), v.splat(grid.factor)));
    v.max_int(v.min_int(rounded, v.splat_int(limit)), v.splat_int(-limit))
}

/// Writes a vector's digits to the front of `to`, or as many as fit.
#[inline(always)]
fn put<D: Dots>(dots: D, digits: <D::Lanes as Lanes>::I, to: &mut [u8]) {
    const MOST: usize = 64;
    let bytes = D::Lanes::LANES * 4 / D::WORD;
    assert!(bytes <= MOST, "a vector's digits fit the buffer");
    if to.len() >= bytes {
        // SAFETY: `to` has room for a vector's digits.
        unsafe { dots.store_digits(digits, to.as_mut_ptr()) };
    } else {
        let mut all = [0; MOST];
        // SAFETY: the buffer has room for a vector's digits, by the assertion.
        unsafe { dots.store_digits(digits, all.as_mut_ptr()) };
        to.copy_from_slice(&all[..to.len()]);
    }
}
