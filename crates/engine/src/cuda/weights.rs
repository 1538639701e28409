//! Weights of linear maps, and what they are applied to, in a device's memory.

use candle_core::Result;
use gainsay_cuda_launch::{At, Format, linear};
use gainsay_program::Dtype;

use super::ops::format;
use super::{Array, Device};
use crate::kernels::{Int8Matrix, Int8Weights, LinearWeights, Quantization};

/// A matrix of a linear map as its manifest has it, and a bias.
pub(crate) struct DeviceLinear {
    matrix: Array<u8>,
    format: Format,
    bias: Option<Array<f32>>,
}

impl DeviceLinear {
    /// Copies `matrix`, row-major in this format; `bias` is empty where there is none.
    pub(crate) fn upload(device: &Device, matrix: &[u8], format: Format, bias: &[f32]) -> Result<Self> {
        Ok(Self { matrix: Array::upload(device, matrix)?, format, bias: upload_bias(device, bias)? })
    }

    /// As launches take it.
    pub(super) fn launched(&self, columns: usize, depth: usize) -> linear::FloatWeights {
        let (columns, depth) = (columns as u32, depth as u32);
        linear::FloatWeights {
            at: self.matrix.at(),
            format: self.format,
            bias: at_or_none(self.bias.as_ref()),
            columns,
            depth,
        }
    }
}

/// A matrix of an int8 map, its scales, and a bias.
pub(crate) struct DeviceInt8 {
    matrix: Array<i8>,
    scales: Array<f32>,
    bias: Option<Array<f32>>,
}

impl DeviceInt8 {
    /// Copies a matrix; `bias` is empty where there is none.
    pub(crate) fn upload(device: &Device, matrix: &Int8Matrix, bias: &[f32]) -> Result<Self> {
        Ok(Self {
            matrix: Array::upload(device, &matrix.weights)?,
            scales: Array::upload(device, &matrix.scales)?,
            bias: upload_bias(device, bias)?,
        })
    }

    /// As launches take it.
    pub(super) fn launched(&self, columns: usize, of: Quantization) -> linear::Int8Weights {
        linear::Int8Weights {
            at: self.matrix.at(),
            scales: self.scales.at(),
            bias: at_or_none(self.bias.as_ref()),
            columns: columns as u32,
            depth: of.depth as u32,
            group: of.group as u32,
            sixteen: of.digits() == 2,
        }
    }
}

fn upload_bias(device: &Device, bias: &[f32]) -> Result<Option<Array<f32>>> {
    (!bias.is_empty()).then(|| Array::upload(device, bias)).transpose()
}

fn at_or_none(array: Option<&Array<f32>>) -> At<f32> {
    array.map_or(At::none(), Array::at)
}

/// Quantized rows.
pub(crate) struct DeviceLevels {
    low: Array<i8>,
    high: Option<Array<i8>>,
    scales: Array<f32>,
}

impl DeviceLevels {
    /// Room for the levels of so many rows.
    pub(super) fn new(device: &Device, rows: usize, of: Quantization) -> Result<Self> {
        let levels = || Array::scratch(device, rows * of.depth);
        let high = (of.digits() == 2).then(levels).transpose()?;
        Ok(Self { low: levels()?, high, scales: Array::scratch(device, rows * of.groups())? })
    }

    /// As launches take them.
    pub(super) fn launched(&self) -> linear::Levels {
        let high = self.high.as_ref().map_or(At::none(), Array::at);
        linear::Levels { low: self.low.at(), high, scales: self.scales.at() }
    }
}

/// A linear map's weights on a device: row-major `matrix` of rows of `depth`, as its manifest has it.
pub(crate) fn upload_linear(
    device: &Device,
    matrix: &[u8],
    (dtype, depth): (Dtype, usize),
    bias: &[f32],
) -> Result<LinearWeights> {
    let columns = matrix.len() / (depth * dtype.bytes() as usize);
    let weights = DeviceLinear::upload(device, matrix, format(dtype)?, bias)?;
    Ok(LinearWeights::of_device(weights, columns, depth))
}

/// An int8 map's weights on a device.
pub(crate) fn upload_int8(device: &Device, matrix: &Int8Matrix, bias: &[f32]) -> Result<Int8Weights> {
    let weights = DeviceInt8::upload(device, matrix, bias)?;
    Ok(Int8Weights::of_device(weights, matrix.columns(), matrix.quantization))
}
