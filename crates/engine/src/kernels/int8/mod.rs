//! Linear maps of the profile `exact-int8/1`.
//!
//! Activations are quantized once ([`Levels`]), weights come quantized and are packed when the model is loaded
//! ([`Int8Weights`]). Integer sums are exact in any order, so that [`dots`] may use whatever instructions multiply
//! bytes; the floating-point steps around them, the [`grid`](levels) of a group and the [`sink`] of its sum,
//! restate `arithmetic::int8` operation by operation.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod dots;
#[cfg(target_arch = "x86_64")]
mod levels;
#[cfg(target_arch = "x86_64")]
mod multiply;
#[cfg(target_arch = "x86_64")]
mod panels;
mod portable;
#[cfg(target_arch = "x86_64")]
mod sink;
#[cfg(target_arch = "x86_64")]
pub(crate) mod words;

use gainsay_arithmetic::int8::ActivationBits;

use super::finish::Then;

/// How the rows of an activation are quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Quantization {
    /// Elements of a row.
    pub(crate) depth: usize,
    /// Elements that share a scale; divides `depth`.
    pub(crate) group: usize,
    /// Width of the levels.
    pub(crate) bits: ActivationBits,
}

impl Quantization {
    /// Groups of a row.
    pub(crate) fn groups(&self) -> usize {
        self.depth / self.group
    }

    /// Integers that a level is split into.
    pub(crate) fn digits(&self) -> usize {
        match self.bits {
            ActivationBits::Eight => 1,
            ActivationBits::Sixteen => 2,
        }
    }
}

/// An int8 matrix as a model holds it.
#[derive(Debug, Clone)]
pub(crate) struct Int8Matrix {
    /// `[columns, depth]`.
    pub(crate) weights: Vec<i8>,
    /// `[columns, groups]`.
    pub(crate) scales: Vec<f32>,
    /// What its activations are made into.
    pub(crate) quantization: Quantization,
}

impl Int8Matrix {
    /// Elements of an output row.
    pub(crate) fn columns(&self) -> usize {
        self.weights.len() / self.quantization.depth
    }
}

/// A linear map's int8 weights as the kernels want them.
pub(crate) struct Int8Weights {
    form: WeightForm,
    bias: Vec<f32>,
    columns: usize,
    quantization: Quantization,
}

enum WeightForm {
    Plain(Int8Matrix),
    #[cfg(target_arch = "x86_64")]
    Packed(panels::Panels),
    #[cfg(feature = "cuda")]
    Device(crate::cuda::DeviceInt8),
}

impl Int8Weights {
    /// Elements of an output row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// What its activations are made into.
    pub(crate) fn quantization(&self) -> Quantization {
        self.quantization
    }

    /// Keeps `matrix` as it is.
    pub(crate) fn plain(matrix: Int8Matrix, bias: Vec<f32>) -> Self {
        let (columns, quantization) = (checked_columns(&matrix, &bias), matrix.quantization);
        Self { form: WeightForm::Plain(matrix), bias, columns, quantization }
    }

    /// Packs `matrix` for `dots`.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn pack<D: dots::Dots>(dots: D, matrix: &Int8Matrix, mut bias: Vec<f32>) -> Self {
        let (columns, quantization) = (checked_columns(matrix, &bias), matrix.quantization);
        let panels = panels::Panels::pack(dots, matrix);
        // A sum without a bias starts at +0.
        bias.resize(panels.padded_columns(), 0.0);
        Self { form: WeightForm::Packed(panels), bias, columns, quantization }
    }
}

#[cfg(feature = "cuda")]
impl Int8Weights {
    /// Weights that lie on a device.
    pub(crate) fn of_device(
        weights: crate::cuda::DeviceInt8,
        columns: usize,
        quantization: Quantization,
    ) -> Self {
        Self { form: WeightForm::Device(weights), bias: Vec::new(), columns, quantization }
    }

    /// The weights, for an op on their device.
    pub(crate) fn on_device(&self) -> candle_core::Result<&crate::cuda::DeviceInt8> {
        match &self.form {
            WeightForm::Device(weights) => Ok(weights),
            _ => candle_core::bail!("weights on the CPU meet a tensor on a device"),
        }
    }
}

#[cfg(feature = "cuda")]
impl Levels {
    /// Levels that lie on a device.
    pub(crate) fn of_device(
        levels: crate::cuda::DeviceLevels,
        rows: usize,
        quantization: Quantization,
    ) -> Self {
        Self { form: LevelForm::Device(levels), rows, quantization }
    }

    /// The levels, for an op on their device, and what they were made by.
    pub(crate) fn on_device(&self) -> candle_core::Result<(&crate::cuda::DeviceLevels, Quantization)> {
        match &self.form {
            LevelForm::Device(levels) => Ok((levels, self.quantization)),
            _ => candle_core::bail!("levels on the CPU meet a tensor on a device"),
        }
    }
}

fn checked_columns(matrix: &Int8Matrix, bias: &[f32]) -> usize {
    let Quantization { depth, group, .. } = matrix.quantization;
    assert!(group > 0 && depth > 0 && depth.is_multiple_of(group), "groups divide a row");
    let columns = matrix.columns();
    assert!(columns > 0 && matrix.weights.len() == columns * depth, "a whole matrix");
    assert_eq!(matrix.scales.len(), columns * matrix.quantization.groups(), "a scale for every group");
    assert!(bias.is_empty() || bias.len() == columns, "one bias per column");
    columns
}

/// Quantized rows.
pub(crate) struct Levels {
    form: LevelForm,
    rows: usize,
    quantization: Quantization,
}

enum LevelForm {
    Plain(portable::Levels),
    #[cfg(target_arch = "x86_64")]
    Packed(levels::Strips),
    #[cfg(feature = "cuda")]
    Device(crate::cuda::DeviceLevels),
}

impl Levels {
    /// What they were made by.
    pub(crate) fn quantization(&self) -> Quantization {
        self.quantization
    }

    /// Quantizes by `arithmetic`'s own function.
    pub(crate) fn plain(x: &[f32], quantization: Quantization) -> Self {
        let form = LevelForm::Plain(portable::Levels::new(x, quantization));
        Self { form, rows: x.len() / quantization.depth, quantization }
    }

    /// Quantizes for `dots`.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn pack<D: dots::Dots>(dots: D, x: &[f32], quantization: Quantization) -> Self {
        let form = LevelForm::Packed(levels::Strips::new(dots, x, quantization));
        Self { form, rows: x.len() / quantization.depth, quantization }
    }
}

/// A linear map applied to quantized rows.
#[derive(Clone, Copy)]
pub(crate) struct Int8Rows<'a> {
    /// The rows.
    pub(crate) levels: &'a Levels,
    /// The map.
    pub(crate) weights: &'a Int8Weights,
    /// What follows.
    pub(crate) then: Then<'a>,
}

impl Int8Rows<'_> {
    fn check(&self, out: &[f32]) {
        assert_eq!(self.levels.quantization, self.weights.quantization, "levels as the map wants them");
        assert_eq!(out.len(), self.levels.rows * self.weights.columns, "whole rows");
        self.then.check(out.len());
    }

    /// Writes the result of plain levels and weights, `[rows, columns]`.
    pub(crate) fn run_plain(&self, out: &mut [f32]) {
        self.check(out);
        match (&self.levels.form, &self.weights.form) {
            (LevelForm::Plain(levels), WeightForm::Plain(matrix)) => {
                portable::linear(levels, matrix, &self.weights.bias, self.then, out);
            }
            #[cfg(any(target_arch = "x86_64", feature = "cuda"))]
            _ => unreachable!("the portable kernels pack nothing, and meet nothing on a device"),
        }
    }

    /// Writes the result of levels and weights packed for `dots`, `[rows, columns]`.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn run<D: dots::Dots>(&self, dots: D, out: &mut [f32]) {
        self.check(out);
        match (&self.levels.form, &self.weights.form) {
            (LevelForm::Packed(strips), WeightForm::Packed(panels)) => {
                let bias = &self.weights.bias;
                multiply::multiply(dots, multiply::Product { strips, panels, bias, then: self.then }, out);
            }
            _ => unreachable!("kernels with vectors pack everything"),
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod emulated;
#[cfg(test)]
mod tests;
