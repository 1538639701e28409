//! What a model's operators run on.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{Device as Tensors, Result};

use gainsay_program::Dtype;
use gainsay_program::weights::widen;

use crate::batch::Batch;
use crate::device::{DeviceError, DeviceInfo};
use crate::kernels::{Elements, Int8Matrix, Int8Weights, Kernels, KvCache, LinearWeights};
use crate::ops::Stored;
use crate::options::Simd;
use crate::self_test::{Check, differing, golden};

/// A device, opened.
#[derive(Clone)]
pub(crate) enum Machine {
    /// The CPU.
    Cpu(Kernels),
    /// A CUDA device.
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::Device),
}

impl Machine {
    /// The CPU with these instructions or, where they give other bits than they should, the next slower ones that do not,
    /// and what trying them has found.
    ///
    /// # Errors
    /// It lacks them, or none gives the bits that it should.
    pub(crate) fn cpu(simd: Simd) -> std::result::Result<(Self, Vec<Check>), DeviceError> {
        let first = Kernels::detect(simd).ok_or(DeviceError::Simd(simd))?;
        let slower = Simd::LADDER.into_iter().rev().skip_while(|&simd| simd != first.simd()).skip(1);
        first_good(std::iter::once(first).chain(slower.filter_map(Kernels::detect)), |kernels| {
            Self::Cpu(kernels).checks()
        })
    }

    /// What trying every operator on it finds.
    ///
    /// # Errors
    /// It refuses one.
    pub(crate) fn checks(&self) -> std::result::Result<Vec<Check>, DeviceError> {
        golden(self).map_err(|error| self.unusable(&error))
    }

    /// That it gives other bits than it should, if it does.
    ///
    /// # Errors
    /// It does.
    pub(crate) fn judge(&self, checks: &[Check]) -> std::result::Result<(), DeviceError> {
        let ops = differing(checks);
        if ops.is_empty() {
            return Ok(());
        }
        Err(DeviceError::Differs { device: self.info().to_string(), ops: ops.join(", ") })
    }

    /// A CUDA device.
    ///
    /// # Errors
    /// It cannot be used.
    #[cfg(feature = "cuda")]
    pub(crate) fn cuda(index: usize) -> std::result::Result<Self, DeviceError> {
        crate::cuda::Device::open(index).map(Self::Cuda)
    }

    /// No CUDA device.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "cuda"))]
    pub(crate) fn cuda(_: usize) -> std::result::Result<Self, DeviceError> {
        Err(DeviceError::NotBuilt)
    }

    /// What can be told of it.
    pub(crate) fn info(&self) -> DeviceInfo {
        match self {
            Self::Cpu(kernels) => DeviceInfo::Cpu { simd: kernels.simd() },
            #[cfg(feature = "cuda")]
            Self::Cuda(device) => device.info().clone(),
        }
    }

    /// The error of a device that does not run what it should.
    pub(crate) fn unusable(&self, error: &candle_core::Error) -> DeviceError {
        #[cfg(feature = "cuda")]
        crate::cuda::note_loss(error);
        let index = match self.info() {
            DeviceInfo::Cuda { index, .. } => index,
            DeviceInfo::Cpu { .. } => 0,
        };
        DeviceError::Unusable { index, reason: error.to_string() }
    }

    /// The kernels that run what is on the CPU.
    pub(crate) fn kernels(&self) -> Kernels {
        match self {
            Self::Cpu(kernels) => *kernels,
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => Kernels::Portable,
        }
    }

    /// Bytes of a device's memory that nothing uses. The CPU's is bounded by what the engine may use of it.
    ///
    /// # Errors
    /// The device refuses.
    pub(crate) fn free_memory(&self) -> Result<Option<u64>> {
        match self {
            Self::Cpu(_) => Ok(None),
            #[cfg(feature = "cuda")]
            Self::Cuda(device) => device.free_memory().map(Some),
        }
    }

    /// Where its tensors are.
    pub(crate) fn tensors(&self) -> &Tensors {
        match self {
            Self::Cpu(_) => &Tensors::Cpu,
            #[cfg(feature = "cuda")]
            Self::Cuda(device) => device.tensors(),
        }
    }

    /// Prepares the weights of a linear map: row-major rows of `depth` elements, as a manifest has them. `bias` is empty where
    /// there is none.
    ///
    /// # Errors
    /// A device has not the memory.
    pub(crate) fn linear(
        &self,
        bytes: &[u8],
        (dtype, depth): (Dtype, usize),
        bias: Vec<f32>,
    ) -> Result<LinearWeights> {
        match self {
            Self::Cpu(kernels) => Ok(match dtype {
                Dtype::Bf16 => {
                    kernels.pack(Elements::Bf16(bytemuck::cast_slice(&shorts(bytes))), depth, bias)
                }
                Dtype::F16 => kernels.pack(Elements::F16(bytemuck::cast_slice(&shorts(bytes))), depth, bias),
                _ => kernels.pack(Elements::F32(&widen(dtype, bytes)), depth, bias),
            }),
            #[cfg(feature = "cuda")]
            Self::Cuda(device) => crate::cuda::upload_linear(device, bytes, (dtype, depth), &bias),
        }
    }

    /// Prepares the weights of an int8 linear map; `bias` is empty where there is none.
    ///
    /// # Errors
    /// A device has not the memory.
    pub(crate) fn linear_int8(&self, matrix: Int8Matrix, bias: Vec<f32>) -> Result<Int8Weights> {
        match self {
            Self::Cpu(kernels) => Ok(kernels.pack_int8(matrix, bias)),
            #[cfg(feature = "cuda")]
            Self::Cuda(device) => crate::cuda::upload_int8(device, &matrix, &bias),
        }
    }

    /// Gets a batch ready to run. The caches have grown to hold it.
    ///
    /// # Errors
    /// A device has not the memory.
    pub(crate) fn stage(&self, batch: &Batch<'_>, caches: &[KvCache]) -> Result<()> {
        match self {
            Self::Cpu(_) => {
                let _ = (batch, caches);
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(device) => batch.stage(device, caches),
        }
    }

    /// Puts a weight where it computes.
    ///
    /// # Errors
    /// A device has not the memory.
    pub(crate) fn store<T: Storable>(&self, values: Arc<[T]>) -> Result<Stored<T>> {
        match self {
            Self::Cpu(_) => Ok(Stored::Host(values)),
            #[cfg(feature = "cuda")]
            Self::Cuda(device) => Ok(Stored::Device(crate::cuda::Array::upload(device, &values)?)),
        }
    }
}

/// The first whose checks agree.
fn first_good(
    candidates: impl Iterator<Item = Kernels>,
    mut checks: impl FnMut(Kernels) -> std::result::Result<Vec<Check>, DeviceError>,
) -> std::result::Result<(Machine, Vec<Check>), DeviceError> {
    let mut found = None;
    for kernels in candidates {
        let (machine, checks) = (Machine::Cpu(kernels), checks(kernels)?);
        match machine.judge(&checks) {
            Ok(()) => return Ok((machine, checks)),
            Err(error) => {
                tracing::error!(%error, "these instructions are not used");
                found.get_or_insert(error);
            }
        }
    }
    Err(found.unwrap_or(DeviceError::Simd(Simd::Portable)))
}

/// An element that every device holds.
#[cfg(feature = "cuda")]
pub(crate) trait Storable: candle_core::cuda_backend::cudarc::driver::DeviceRepr + 'static {}
/// An element that every device holds.
#[cfg(not(feature = "cuda"))]
pub(crate) trait Storable {}
impl Storable for f32 {}
impl Storable for u8 {}

/// Little-endian words of 16 bits, where they lie if they are aligned.
fn shorts(bytes: &[u8]) -> Cow<'_, [u16]> {
    const { assert!(cfg!(target_endian = "little"), "words in memory are as weights have them") };
    bytemuck::try_cast_slice(bytes).map_or_else(
        |_| bytes.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes)).collect(),
        Cow::Borrowed,
    )
}

#[cfg(test)]
mod tests {
    use gainsay_commitment::TensorCommitment;

    use super::*;

    #[test]
    fn instructions_that_give_other_bits_are_not_used() {
        let all = || Simd::LADDER.into_iter().rev().filter_map(Kernels::detect);
        let count = all().count();
        let tried = |broken: usize| {
            let mut tried = 0;
            first_good(all(), |_| {
                tried += 1;
                let digest = TensorCommitment::from_bytes([0; 32]);
                Ok(vec![Check { op: "add", digest, agrees: tried > broken }])
            })
        };
        for broken in 0..count {
            let (machine, _) = tried(broken).ok().unwrap();
            assert_eq!(machine.kernels().simd(), all().nth(broken).unwrap().simd());
        }
        let error = tried(count).err().unwrap();
        assert!(
            matches!(error, DeviceError::Differs { .. }),
            "a machine of which none is right serves nothing"
        );
    }
}
