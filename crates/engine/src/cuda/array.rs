//! Arrays in a device's memory.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, CudaStorage};
use candle_core::{DType, Layout, Result, Shape, bail};
use gainsay_cuda_launch::At;

use super::Device;
use crate::ops::RowsWidth;

/// An array that is written once. Clones are the same array.
pub(crate) struct Array<T>(Arc<CudaSlice<T>>);

impl<T> Clone for Array<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: DeviceRepr + 'static> Array<T> {
    /// A copy of `values`; of none, an array of one element that is not read.
    pub(crate) fn upload(device: &Device, values: &[T]) -> Result<Self> {
        if values.is_empty() {
            return Self::scratch(device, 0);
        }
        Ok(Self(Arc::new(device.candle().clone_htod(values)?)))
    }

    /// Room for `len` elements, at least one, that hold anything.
    pub(crate) fn scratch(device: &Device, len: usize) -> Result<Self> {
        // SAFETY: kernels write what others read of it.
        Ok(Self(Arc::new(unsafe { device.candle().alloc(len.max(1)) }?)))
    }

    /// Writes values over the first elements, after all that was launched before.
    pub(crate) fn write(&mut self, device: &Device, values: &[T]) -> Result<()> {
        let Some(to) = Arc::get_mut(&mut self.0) else { bail!("an array that others use is not written") };
        device.candle().memcpy_htod(values, &mut to.slice_mut(..values.len()))
    }

    /// Where it is.
    pub(crate) fn at(&self) -> At<T> {
        at(&self.0)
    }

    /// A copy of the values. Waits for what was launched before.
    pub(crate) fn download(&self, device: &Device) -> Result<Vec<T>> {
        device.candle().clone_dtoh(&*self.0)
    }

    /// A copy of the first values, at least one. Waits for what was launched before.
    pub(crate) fn download_front(&self, device: &Device, count: usize) -> Result<Vec<T>> {
        device.candle().clone_dtoh(&self.0.slice(..count))
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Where a slice is. All work is in one stream, so that there is nothing to wait for.
pub(super) fn at<T>(slice: &CudaSlice<T>) -> At<T> {
    At::new(slice.device_ptr(slice.stream()).0)
}

/// Where the elements of a contiguous tensor are.
pub(super) fn elements<T: CudaDType>(storage: &CudaStorage, layout: &Layout) -> Result<(At<T>, usize)> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("the engine's ops take contiguous tensors")
    };
    Ok((at(storage.as_cuda_slice::<T>()?).skip(start as u64), end - start))
}

/// Where a contiguous f32 matrix is, with its rows and width.
pub(super) fn matrix(storage: &CudaStorage, layout: &Layout) -> Result<(At<f32>, RowsWidth)> {
    let shape = layout.shape().dims2()?;
    Ok((elements(storage, layout)?.0, shape))
}

/// An op's result: a matrix that `fill` has kernels write.
pub(super) fn output<T: CudaDType + DeviceRepr>(
    device: &Device,
    (rows, width): RowsWidth,
    fill: impl FnOnce(At<T>) -> Result<()>,
) -> Result<(CudaStorage, Shape)> {
    // SAFETY: `fill` has all of it written before anything else reads it.
    let slice = unsafe { device.candle().alloc::<T>((rows * width).max(1)) }?;
    fill(at(&slice))?;
    Ok((CudaStorage::wrap_cuda_slice(slice, device.candle().clone()), Shape::from((rows, width))))
}

/// The words of a contiguous tensor, floats as their bits. Waits for them.
pub(crate) fn download(storage: &CudaStorage, layout: &Layout) -> Result<Vec<u32>> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("the engine's ops take contiguous tensors")
    };
    if start == end {
        return Ok(Vec::new());
    }
    match storage.dtype() {
        DType::U32 => storage.device.clone_dtoh(&storage.as_cuda_slice::<u32>()?.slice(start..end)),
        _ => {
            let floats = storage.device.clone_dtoh(&storage.as_cuda_slice::<f32>()?.slice(start..end))?;
            Ok(floats.into_iter().map(f32::to_bits).collect())
        }
    }
}
