//! The operators as launches: what the custom ops do with tensors on a device.
//!
//! Every function here allocates what it gives, so that its launches write what is nobody else's, and reads tensors, weights
//! and the batch's columns, all of which outlive the launch by the order of the stream.

use std::sync::Arc;

use candle_core::cuda_backend::CudaStorage;
use candle_core::op::BackpropOp;
use candle_core::{Layout, Result, Shape, Storage, Tensor, bail};
use gainsay_cuda_launch::linear::Output as LinearOutput;
use gainsay_cuda_launch::{At, Format, Launch, Then, attention, each, linear, rows, sampling};

use super::array::{elements, matrix, output};
use super::{Array, Device, DeviceInt8, DeviceLevels, DeviceLinear, Staged};
use crate::kernels::{Binary, Heads, Int8Weights, KvPlace, Levels, Quantization, Unary};
use crate::ops::{Follow, RowsWidth, Value};
use gainsay_program::Dtype;

/// A tensor as a custom op is given it.
pub(crate) type Given<'a> = (&'a CudaStorage, &'a Layout);
/// What a custom op gives.
pub(crate) type Made = Result<(CudaStorage, Shape)>;

impl Unary {
    fn then(self) -> Then {
        match self {
            Self::Gelu => Then::Gelu,
            Self::Silu => Then::Silu,
            Self::RoundBf16 => Then::RoundBf16,
        }
    }
}

impl Binary {
    fn then(self) -> Then {
        match self {
            Self::Add => Then::Add,
            Self::Mul => Then::Mul,
        }
    }
}

impl Follow {
    fn then(self) -> Then {
        match self {
            Self::Nothing => Then::Nothing,
            Self::Unary(formula) => formula.then(),
            Self::Binary(formula) => formula.then(),
        }
    }
}

/// How a weight of this type is written, where floats are read from it.
pub(crate) fn format(dtype: Dtype) -> Result<Format> {
    match dtype {
        Dtype::F32 => Ok(Format::F32),
        Dtype::Bf16 => Ok(Format::Bf16),
        Dtype::F16 => Ok(Format::F16),
        _ => bail!("a weight of {dtype:?} holds no floats"),
    }
}

/// A matrix of this shape, which launches write.
fn made(
    storage: &CudaStorage,
    shape: RowsWidth,
    launches: impl FnOnce(At<f32>) -> Result<Vec<Launch>>,
) -> Made {
    let device = Device::of(&storage.device)?;
    // SAFETY: see the module; shapes were compared before, and the launches write `shape`.
    output(&device, shape, |out| unsafe { device.launch(launches(out)?) })
}

fn sizes((rows, width): RowsWidth) -> (u32, u32) {
    (rows as u32, width as u32)
}

/// Rows of a table. A validated program's tables have all rows that a job which it takes may ask for.
pub(crate) fn gather(table: &Array<u8>, dtype: Dtype, width: usize, (storage, layout): Given<'_>) -> Made {
    let (indices, count) = elements::<u32>(storage, layout)?;
    let (shape, format) = ((count, width), format(dtype)?);
    made(storage, shape, |out| Ok(vec![each::gather((table.at(), format), indices, out, sizes(shape))]))
}

/// A formula of one tensor.
pub(crate) fn unary(formula: Unary, (storage, layout): Given<'_>) -> Made {
    let (x, shape) = matrix(storage, layout)?;
    let count = (shape.0 * shape.1) as u64;
    made(storage, shape, |out| Ok(vec![each::each(formula.then(), x, At::none(), out, count)]))
}

/// A formula of two tensors.
pub(crate) fn binary(
    formula: Binary,
    (storage, layout): Given<'_>,
    (other, other_layout): Given<'_>,
) -> Made {
    let (x, shape) = matrix(storage, layout)?;
    let (other, other_shape) = matrix(other, other_layout)?;
    same(shape, other_shape)?;
    let count = (shape.0 * shape.1) as u64;
    made(storage, shape, |out| Ok(vec![each::each(formula.then(), x, other, out, count)]))
}

fn same(shape: RowsWidth, other: RowsWidth) -> Result<()> {
    if shape == other { Ok(()) } else { bail!("{other:?} does not fit {shape:?}") }
}

/// LayerNorm.
pub(crate) fn layer_norm(
    (weight, bias, eps): (&Array<f32>, &Array<f32>, f32),
    (storage, layout): Given<'_>,
) -> Made {
    let (x, shape) = matrix(storage, layout)?;
    if shape.1 != weight.len() {
        bail!("rows of {} elements do not fit a norm of {}", shape.1, weight.len())
    }
    made(storage, shape, |out| {
        Ok(vec![rows::layer_norm(x, (weight.at(), bias.at()), eps, out, sizes(shape))])
    })
}

/// RMSNorm of groups of columns.
pub(crate) fn rms_norm((weight, eps): (&Array<f32>, f32), (storage, layout): Given<'_>) -> Made {
    let (x, shape) = matrix(storage, layout)?;
    if !shape.1.is_multiple_of(weight.len()) {
        bail!("rows of {} elements do not fit norms of {}", shape.1, weight.len())
    }
    let groups = (shape.0 * (shape.1 / weight.len()), weight.len());
    made(storage, shape, |out| Ok(vec![rows::rms_norm(x, weight.at(), eps, out, sizes(groups))]))
}

/// Rows divided by their norms.
pub(crate) fn normalize((storage, layout): Given<'_>) -> Made {
    let (x, shape) = matrix(storage, layout)?;
    made(storage, shape, |out| Ok(vec![rows::normalize(x, out, sizes(shape))]))
}

/// The rotation of heads of `head` columns by their rows' positions.
pub(crate) fn rope(
    (cos, sin, head): (&Array<f32>, &Array<f32>, usize),
    staged: &Staged,
    (storage, layout): Given<'_>,
) -> Made {
    let (x, shape) = matrix(storage, layout)?;
    if shape.0 != staged.rows() || !shape.1.is_multiple_of(head) {
        bail!("rows of {shape:?} elements do not fit {} positions in heads of {head}", staged.rows())
    }
    let (rows, width) = sizes(shape);
    made(storage, shape, |out| {
        Ok(vec![each::rope(x, (cos.at(), sin.at()), staged.positions(), out, (rows, width, head as u32))])
    })
}

/// The mean of each sequence's rows.
pub(crate) fn mean_pool(staged: &Staged, (storage, layout): Given<'_>) -> Made {
    let (x, (rows, width)) = matrix(storage, layout)?;
    if rows != staged.rows() {
        bail!("{rows} rows do not fit sequences of {}", staged.rows())
    }
    let shape = (staged.sequences(), width);
    made(storage, shape, |out| Ok(vec![rows::mean_pool(x, staged.starts(), out, sizes(shape))]))
}

/// The rows that give the rows of answers.
pub(crate) fn select_rows(staged: &Staged, (storage, layout): Given<'_>) -> Made {
    let (x, (rows, width)) = matrix(storage, layout)?;
    if rows != staged.rows() {
        bail!("{rows} rows do not fit a batch of {}", staged.rows())
    }
    let shape = (staged.answers(), width);
    made(storage, shape, |out| Ok(vec![rows::select(x, staged.answer_rows(), out, sizes(shape))]))
}

/// Where the second operand of what follows a linear map is.
fn operand(shape: RowsWidth, other: Option<Given<'_>>) -> Result<At<f32>> {
    other.map_or(Ok(At::none()), |(storage, layout)| {
        let (other, other_shape) = matrix(storage, layout)?;
        same(shape, other_shape).map(|()| other)
    })
}

/// A linear map of `columns` outputs, and what follows.
pub(crate) fn linear(
    (weights, columns, follow): (&DeviceLinear, usize, Follow),
    (storage, layout): Given<'_>,
    other: Option<Given<'_>>,
) -> Made {
    let (x, (rows, depth)) = matrix(storage, layout)?;
    let shape = (rows, columns);
    let other = operand(shape, other)?;
    made(storage, shape, |out| {
        let to = LinearOutput { then: follow.then(), other, out };
        Ok(linear::linear(&weights.launched(columns, depth), x, rows as u32, to))
    })
}

/// A linear map of quantized rows, and what follows. The tensor is what the levels were made of.
pub(crate) fn linear_int8(
    (weights, columns, follow): (&DeviceInt8, usize, Follow),
    (levels, quantization): (&DeviceLevels, Quantization),
    (storage, layout): Given<'_>,
    other: Option<Given<'_>>,
) -> Made {
    let (_, (rows, _)) = matrix(storage, layout)?;
    let shape = (rows, columns);
    let other = operand(shape, other)?;
    made(storage, shape, |out| {
        let to = LinearOutput { then: follow.then(), other, out };
        Ok(linear::linear_int8(&weights.launched(columns, quantization), &levels.launched(), rows as u32, to))
    })
}

/// A tensor of what an op has made outside of candle's.
fn tensor((storage, shape): (CudaStorage, Shape)) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

/// Two or three linear maps of the same quantized rows, each with what follows, by one launch; `None` where there are too many
/// rows for that. The tensor is what the levels were made of.
pub(crate) fn linear_int8_together(
    maps: &[(Arc<Int8Weights>, Follow)],
    levels: &DeviceLevels,
    x: &Tensor,
) -> Result<Option<Vec<Tensor>>> {
    let (storage, _) = x.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { bail!("a tensor on a device is mapped there") };
    let (device, rows) = (Device::of(&storage.device)?, x.dims2()?.0);
    let mut parts = Vec::new();
    for (weights, follow) in maps {
        let (columns, of) = (weights.columns(), weights.quantization());
        let weights = weights.on_device()?.launched(columns, of);
        parts.push(linear::Int8Part { weights, then: follow.then(), out: At::none() });
    }
    // Whether there is such a launch depends on sizes alone, and nothing is to be allocated for none.
    if linear::linear_int8_together(&parts, &levels.launched(), rows as u32).is_none() {
        return Ok(None);
    }
    let mut outputs = Vec::new();
    for part in &mut parts {
        outputs.push(tensor(output::<f32>(&device, (rows, part.weights.columns as usize), |out| {
            part.out = out;
            Ok(())
        })?));
    }
    // SAFETY: see the module; each output has room for its map.
    unsafe { device.launch(linear::linear_int8_together(&parts, &levels.launched(), rows as u32)) }?;
    Ok(Some(outputs))
}

/// A norm of whole rows with its levels; `None` where groups of columns are normed.
pub(crate) fn norm_and_quantize(
    (weight, bias, eps): (&Array<f32>, Option<&Array<f32>>, f32),
    x: &Tensor,
    quantization: Quantization,
) -> Result<Option<Value>> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { bail!("a tensor on a device is normed there") };
    let (x, shape) = matrix(storage, layout)?;
    if shape.1 != weight.len() || shape.1 != quantization.depth {
        return Ok(None);
    }
    let device = Device::of(&storage.device)?;
    let levels = DeviceLevels::new(&device, shape.0, quantization)?;
    let made = made(storage, shape, |out| {
        let of = (sizes(shape), quantization.group as u32, &levels.launched());
        Ok(vec![rows::norm_and_quantize(x, (weight.at(), bias.map(Array::at)), eps, out, of)])
    })?;
    let levels = Levels::of_device(levels, shape.0, quantization);
    Ok(Some(Value::quantized(tensor(made), levels)))
}

/// The rows of a matrix, quantized.
pub(crate) fn quantize(x: &Tensor, quantization: Quantization) -> Result<DeviceLevels> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { bail!("a tensor on a device is quantized there") };
    let (x, (rows, width)) = matrix(storage, layout)?;
    if width != quantization.depth {
        bail!("rows of {width} elements are not quantized as rows of {}", quantization.depth)
    }
    let device = Device::of(&storage.device)?;
    let levels = DeviceLevels::new(&device, rows, quantization)?;
    let size = (rows as u32, width as u32, quantization.group as u32);
    // SAFETY: see the module; the levels have room for `rows`.
    unsafe { device.launch(linear::quantize(x, size, &levels.launched())) }?;
    Ok(levels)
}

impl Heads {
    pub(super) fn launched(self) -> attention::Heads {
        let Self { count, kv_count, width, scale } = self;
        attention::Heads { count: count as u32, kv_count: kv_count as u32, width: width as u32, scale }
    }
}

/// Attention within each sequence.
pub(crate) fn attention(heads: Heads, staged: &Staged, [q, k, v]: [Given<'_>; 3]) -> Made {
    let [(q_at, shape), (k, k_shape), (v, v_shape)] =
        [matrix(q.0, q.1)?, matrix(k.0, k.1)?, matrix(v.0, v.1)?];
    same((staged.rows(), heads.stride()), shape)?;
    same((staged.rows(), heads.kv_stride()), k_shape)?;
    same(k_shape, v_shape)?;
    let device = Device::of(&q.0.device)?;
    let planned = staged.plan(&device, heads.launched(), None)?;
    let scratch = Array::<u8>::scratch(&device, planned.plan.scratch_bytes() as usize)?;
    made(q.0, shape, |out| Ok(planned.plan.attend(planned.words, [q_at, k, v], scratch.at(), out)))
}

/// Appends the keys and values of a batch's rows to their sequences' pages.
pub(crate) fn append(heads: Heads, place: KvPlace, staged: &Staged, [k, v]: [&Tensor; 2]) -> Result<()> {
    let ((k, k_layout), (v, v_layout)) = (k.storage_and_layout(), v.storage_and_layout());
    let (Storage::Cuda(k), Storage::Cuda(v)) = (&*k, &*v) else {
        bail!("keys and values on a device are kept there")
    };
    let device = Device::of(&k.device)?;
    let (k, v) = (matrix(k, k_layout)?.0, matrix(v, v_layout)?.0);
    let row = heads.kv_stride() as u64;
    for cache in staged.caches() {
        let runs = cache.segments().chunk_by(|one, next| one.row + one.rows == next.row);
        for run in runs {
            let (first, rows) = (u64::from(run[0].row), run.iter().map(|segment| segment.rows).sum());
            let [k, v] = [k, v].map(|at| at.skip(first * row));
            let slots = staged.slots().skip(first);
            let launch = attention::append(cache.cache(place), heads.launched(), [k, v], slots, rows);
            // SAFETY: see the module; each sequence has its pages for itself, and they hold these rows.
            unsafe { device.launch([launch]) }?;
        }
    }
    Ok(())
}

/// Attention of new rows to what their pages hold, these rows included.
pub(crate) fn causal(heads: Heads, place: KvPlace, staged: &Staged, (q, layout): Given<'_>) -> Made {
    let (x, shape) = matrix(q, layout)?;
    same((staged.rows(), heads.stride()), shape)?;
    let device = Device::of(&q.device)?;
    let planned = (0..staged.caches().len())
        .map(|cache| staged.plan(&device, heads.launched(), Some(cache)))
        .collect::<Result<Vec<_>>>()?;
    let bytes = planned.iter().map(|planned| planned.plan.scratch_bytes()).max().unwrap_or(0);
    let scratch = Array::<u8>::scratch(&device, bytes as usize)?;
    made(q, shape, |out| {
        let launches = planned.iter().zip(staged.caches()).flat_map(|(planned, cache)| {
            let from = (cache.cache(place), staged.pages());
            planned.plan.attend_cached(planned.words, x, from, scratch.at(), out)
        });
        Ok(launches.collect())
    })
}

/// Logits of a batch's answers.
fn answers(staged: &Staged, (storage, layout): Given<'_>) -> Result<(At<f32>, RowsWidth)> {
    let (logits, shape) = matrix(storage, layout)?;
    same((staged.answers(), shape.1), shape).map(|()| (logits, shape))
}

/// Logits after penalties and biases.
pub(crate) fn penalize(staged: &Staged, given: Given<'_>) -> Made {
    let (logits, shape) = answers(staged, given)?;
    made(given.0, shape, |out| {
        let rows = staged.penalized();
        Ok(vec![sampling::penalize(logits, staged.changes(), rows, out, sizes(shape))])
    })
}

/// The tokens drawn from logits.
pub(crate) fn sample(staged: &Staged, given: Given<'_>) -> Made {
    let (logits, shape) = answers(staged, given)?;
    let device = Device::of(&given.0.device)?;
    output(&device, (shape.0, 1), |out| {
        let launch = sampling::sample(logits, staged.drawn(), out, sizes(shape));
        // SAFETY: see the module; there is a token for each row.
        unsafe { device.launch([launch]) }
    })
}
