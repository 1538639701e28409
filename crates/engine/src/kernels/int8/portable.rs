//! By the functions of `arithmetic`, for any machine.

use gainsay_arithmetic::int8::{ActivationBits, quantize_group, quantize_group16};
use rayon::prelude::*;

use super::{Int8Matrix, Quantization};
use crate::kernels::finish::Then;
use crate::kernels::portable::finish;

/// Quantized rows, row-major.
pub(super) struct Levels {
    /// The levels, or their lower digits.
    low: Vec<i8>,
    /// The upper digits of 16-bit levels.
    high: Vec<i8>,
    /// `[rows, groups]`.
    scales: Vec<f32>,
}

impl Levels {
    pub(super) fn new(x: &[f32], quantization: Quantization) -> Self {
        let groups = x.par_chunks(quantization.group);
        let mut low = vec![0; x.len()];
        let low_groups = low.par_chunks_mut(quantization.group);
        match quantization.bits {
            ActivationBits::Eight => {
                let scales = groups.zip(low_groups).map(|(x, q)| quantize_group(x, q)).collect();
                Self { low, high: Vec::new(), scales }
            }
            ActivationBits::Sixteen => {
                let mut high = vec![0; x.len()];
                let digits = high.par_chunks_mut(quantization.group).zip(low_groups);
                let scales = groups.zip(digits).map(|(x, (hi, lo))| quantize_group16(x, hi, lo)).collect();
                Self { low, high, scales }
            }
        }
    }
}

/// `out = stored(levels · weightsᵀ + bias)` and what follows; `bias` is empty where there is none.
pub(super) fn linear(levels: &Levels, w: &Int8Matrix, bias: &[f32], then: Then<'_>, out: &mut [f32]) {
    let Quantization { depth, group, .. } = w.quantization;
    let (columns, groups) = (w.columns(), w.quantization.groups());
    out.par_chunks_mut(columns).enumerate().for_each(|(row, out)| {
        let row_scales = &levels.scales[row * groups..][..groups];
        for (n, out) in out.iter_mut().enumerate() {
            let mut t = bias.get(n).copied().unwrap_or(0.0);
            for (g, &row_scale) in row_scales.iter().enumerate() {
                let weights = &w.weights[n * depth + g * group..][..group];
                let dot = |digits: &[i8]| dot(&digits[row * depth + g * group..][..group], weights);
                let low = dot(&levels.low);
                let sum = match w.quantization.bits {
                    ActivationBits::Eight => low,
                    ActivationBits::Sixteen => gainsay_arithmetic::fma(dot(&levels.high), 256.0, low),
                };
                t = gainsay_arithmetic::fma(sum, row_scale * w.scales[n * groups + g], t);
            }
            *out = finish(gainsay_arithmetic::store(t), then, row * columns + n);
        }
    });
}

fn dot(a: &[i8], b: &[i8]) -> f32 {
    a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>() as f32
}
