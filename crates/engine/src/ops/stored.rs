//! Weights that ops read as they are.

use std::sync::Arc;

use candle_core::Result;
#[cfg(feature = "cuda")]
use candle_core::bail;

/// An array where the model runs. Clones are the same array.
pub(crate) enum Stored<T> {
    /// In the machine's memory.
    Host(Arc<[T]>),
    /// In a device's.
    #[cfg(feature = "cuda")]
    Device(crate::cuda::Array<T>),
}

impl<T> Clone for Stored<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Host(values) => Self::Host(Arc::clone(values)),
            #[cfg(feature = "cuda")]
            Self::Device(values) => Self::Device(values.clone()),
        }
    }
}

impl<T> Stored<T> {
    /// The values, for an op on the CPU.
    pub(crate) fn host(&self) -> Result<&[T]> {
        match self {
            Self::Host(values) => Ok(values),
            #[cfg(feature = "cuda")]
            Self::Device(_) => bail!("a weight on a device meets a tensor on the CPU"),
        }
    }
}

#[cfg(feature = "cuda")]
impl<T> Stored<T> {
    /// The array, for an op on its device.
    pub(crate) fn device(&self) -> Result<&crate::cuda::Array<T>> {
        match self {
            Self::Host(_) => bail!("a weight on the CPU meets a tensor on a device"),
            Self::Device(values) => Ok(values),
        }
    }
}
