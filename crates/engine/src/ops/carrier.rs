//! Between candle's tensors and slices.

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Storage, Tensor, bail};

/// Rows and width of a matrix.
pub(crate) type RowsWidth = (usize, usize);

/// The elements of a contiguous f32 matrix, with its rows and width.
pub(crate) fn matrix<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<(&'a [f32], RowsWidth)> {
    let (rows, width) = layout.shape().dims2()?;
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("the engine's ops take contiguous tensors")
    };
    Ok((&storage.as_slice::<f32>()?[start..end], (rows, width)))
}

/// The elements of a contiguous tensor of indices.
pub(crate) fn indices<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [u32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("the engine's ops take contiguous tensors")
    };
    Ok(&storage.as_slice::<u32>()?[start..end])
}

/// Storage and shape of an op's result: a matrix that `fill` writes.
pub(crate) fn output((rows, width): RowsWidth, fill: impl FnOnce(&mut [f32])) -> Result<(CpuStorage, Shape)> {
    let mut out = vec![0.0; rows * width];
    fill(&mut out);
    Ok((CpuStorage::F32(out), Shape::from((rows, width))))
}

/// A matrix of floats.
pub(crate) fn from_floats(values: Vec<f32>, shape: RowsWidth, device: &Device) -> Result<Tensor> {
    Tensor::from_vec(values, shape, device)
}

/// A matrix of words.
pub(crate) fn from_words(values: Vec<u32>, shape: RowsWidth, device: &Device) -> Result<Tensor> {
    Tensor::from_vec(values, shape, device)
}

/// A vector of indices on the CPU.
pub(crate) fn from_indices(values: &[u32]) -> Result<Tensor> {
    Tensor::from_slice(values, values.len(), &Device::Cpu)
}

/// Calls `read` with the elements of a matrix of floats on the CPU.
pub(crate) fn read_floats<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(read(matrix(storage, layout)?.0)),
        _ => bail!("a tensor on the CPU is read where it is"),
    }
}

/// Calls `read` with the elements of a matrix, floats as their bits. Those of a device are copied, and waited for.
pub(crate) fn read_words<R>(tensor: &Tensor, read: impl FnOnce(&[u32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage @ CpuStorage::U32(_)) => Ok(read(indices(storage, layout)?)),
        Storage::Cpu(storage) => Ok(read(bytemuck::cast_slice(matrix(storage, layout)?.0))),
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => Ok(read(&crate::cuda::download(storage, layout)?)),
        _ => bail!("the engine's tensors are on other devices"),
    }
}

/// Calls `read` with the bytes of a matrix, as commitments see them.
pub(crate) fn read_bytes<R>(tensor: &Tensor, read: impl FnOnce(&[u8]) -> R) -> Result<R> {
    const { assert!(cfg!(target_endian = "little"), "tensors in memory are the bytes that are committed to") };
    read_words(tensor, |words| read(bytemuck::cast_slice(words)))
}
