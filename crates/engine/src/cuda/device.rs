//! A CUDA device of this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use candle_core::cuda_backend::cudarc::driver::result::{self, mem_pool};
use candle_core::cuda_backend::cudarc::driver::sys::CUdevice_attribute_enum::{
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as MULTIPROCESSORS,
};
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as MOST_SHARED;
use candle_core::cuda_backend::cudarc::driver::sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD as RELEASE_THRESHOLD;
use candle_core::cuda_backend::cudarc::driver::sys::{CUmemoryPool, CUresult, cuDriverGetVersion};
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaStream, DriverError, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDevice, CudaError, WrapErr};
use candle_core::{Device as Tensors, Error, Result, bail};
use gainsay_cuda_launch::attention::Room;
use gainsay_cuda_launch::{At, Launch};

use crate::device::{DeviceError, DeviceInfo, lose};

/// Kernels by file, compiled for several GPUs.
const IMAGES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/cuda_images.rs"));

/// Bytes of dynamic shared memory that any kernel may have without asking.
const SHARED_UNASKED: u32 = 48 << 10;

/// Devices that are open. Each is opened once and stays: to open one again would take a second context's memory.
static OPEN: Mutex<Vec<Device>> = Mutex::new(Vec::new());

/// A device. Clones are the same device.
#[derive(Clone)]
pub(crate) struct Device(Arc<Inner>);

/// Kernels that have been launched, with the most shared memory that was asked for them. What was asked is the driver's, for all
/// streams: to ask for less on one of them would take it from the others.
type Functions = Arc<Mutex<HashMap<&'static str, (CudaFunction, u32)>>>;

struct Inner {
    info: DeviceInfo,
    candle: CudaDevice,
    tensors: Tensors,
    stream: Arc<CudaStream>,
    modules: Vec<Arc<CudaModule>>,
    multiprocessors: u32,
    functions: Functions,
    /// The same device by a stream that does nothing but be captured.
    captured: OnceLock<Device>,
    /// Held by whoever captures it: several models may run on a device.
    capturing: Mutex<()>,
}

/// The devices that there are.
///
/// # Errors
/// There is no driver.
pub(crate) fn devices() -> std::result::Result<Vec<DeviceInfo>, DeviceError> {
    (0..count()?).map(describe).collect()
}

fn count() -> std::result::Result<usize, DeviceError> {
    let count = CudaContext::device_count().map_err(|error| DeviceError::Driver(reason(error)))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// What an error of the driver says. The driver itself may not be there to ask.
fn reason(error: DriverError) -> String {
    match error.error_string() {
        // What a program was linked with where there was no driver answers so.
        _ if error.0 == CUresult::CUDA_ERROR_STUB_LIBRARY => "there is none on this machine".to_owned(),
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => format!("{:?}", error.0),
    }
}

/// What a device is, as can be told without opening it.
fn describe(index: usize) -> std::result::Result<DeviceInfo, DeviceError> {
    let told = || {
        let device = result::device::get(i32::try_from(index).unwrap_or(i32::MAX))?;
        // SAFETY: the device is one that the driver has just named.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) };
        let capability = (attribute(MAJOR)?.unsigned_abs(), attribute(MINOR)?.unsigned_abs());
        // SAFETY: as above.
        let memory = unsafe { result::device::total_mem(device) }? as u64;
        let mut version = 0;
        // SAFETY: the driver writes one integer to where it is told to.
        unsafe { cuDriverGetVersion(&raw mut version) }.result()?;
        let driver = format!("{}.{}", version / 1000, version % 1000 / 10);
        Ok(DeviceInfo::Cuda { index, name: result::device::get_name(device)?, memory, capability, driver })
    };
    told().map_err(|error| DeviceError::Unusable { index, reason: reason(error) })
}

impl Device {
    /// Opens a device, or gives the one that is open.
    ///
    /// # Errors
    /// There is no driver or no such device, or it refuses what is done first of all.
    pub(crate) fn open(index: usize) -> std::result::Result<Self, DeviceError> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it =
            |device: &&Self| matches!(device.info(), DeviceInfo::Cuda { index: it, .. } if *it == index);
        if let Some(device) = open.iter().find(is_it) {
            return Ok(device.clone());
        }
        let count = count()?;
        if index >= count {
            return Err(DeviceError::Absent { index, count });
        }
        let info = describe(index)?;
        let device = Self::load(index, info)
            .map_err(|error| DeviceError::Unusable { index, reason: error.to_string() })?;
        open.push(device.clone());
        Ok(device)
    }

    fn load(index: usize, info: DeviceInfo) -> Result<Self> {
        let candle = new_stream(index)?;
        let stream = candle.cuda_stream();
        let load =
            |(_, image): &(&str, &[u8])| stream.context().load_module(Ptx::from_binary(image.to_vec()));
        let modules = IMAGES.iter().map(load).collect::<std::result::Result<_, _>>().w()?;
        keep_memory(&stream).w()?;
        let multiprocessors = stream.context().attribute(MULTIPROCESSORS).w()?.unsigned_abs();
        Ok(Self::with((info, candle), modules, Functions::default(), multiprocessors))
    }

    fn with(
        (info, candle): (DeviceInfo, CudaDevice),
        modules: Vec<Arc<CudaModule>>,
        functions: Functions,
        multiprocessors: u32,
    ) -> Self {
        let (tensors, stream) = (Tensors::Cuda(candle.clone()), candle.cuda_stream());
        let (captured, capturing) = (OnceLock::new(), Mutex::default());
        Self(Arc::new(Inner {
            info,
            candle,
            tensors,
            stream,
            modules,
            multiprocessors,
            functions,
            captured,
            capturing,
        }))
    }

    /// The same device, by a stream of its own on which nothing runs: what is launched and allocated there is captured. For
    /// whoever holds the turn.
    ///
    /// # Errors
    /// The driver refuses another stream.
    pub(crate) fn captured(&self) -> Result<(&Self, MutexGuard<'_, ()>)> {
        let turn = self.0.capturing.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { info, modules, functions, multiprocessors, captured, .. } = &*self.0;
        if let Some(device) = captured.get() {
            return Ok((device, turn));
        }
        let DeviceInfo::Cuda { index, .. } = info else { bail!("the CPU captures nothing") };
        let opened = (info.clone(), new_stream(*index)?);
        let device = Self::with(opened, modules.clone(), Arc::clone(functions), *multiprocessors);
        Ok((captured.get_or_init(|| device), turn))
    }

    /// The device whose tensors these are.
    ///
    /// # Errors
    /// The engine has not opened it.
    pub(crate) fn of(candle: &CudaDevice) -> Result<Self> {
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let both = open.iter().flat_map(|device| std::iter::once(device).chain(device.0.captured.get()));
        let found = both.into_iter().find(|device| device.0.candle.id() == candle.id());
        found.cloned().ok_or_else(|| Error::Msg("a tensor of a device that is not the engine's".to_owned()))
    }

    /// What can be told of it.
    pub(crate) fn info(&self) -> &DeviceInfo {
        &self.0.info
    }

    /// The device as candle has it.
    pub(crate) fn candle(&self) -> &CudaDevice {
        &self.0.candle
    }

    /// Where its tensors are.
    pub(crate) fn tensors(&self) -> &Tensors {
        &self.0.tensors
    }

    /// What plans of attentions may count on.
    pub(crate) fn room(&self) -> Room {
        Room { multiprocessors: self.0.multiprocessors, ..Room::default() }
    }

    /// Bytes of its memory that nothing uses.
    pub(crate) fn free_memory(&self) -> Result<u64> {
        let context = self.0.stream.context();
        context.bind_to_thread().w()?;
        // What the pool keeps for later is free too.
        self.0.stream.synchronize().w()?;
        // SAFETY: the pool is the device's.
        unsafe { pool(&self.0.stream).and_then(|pool| mem_pool::trim_to(pool, 0)) }.w()?;
        context.mem_get_info().map(|(free, _)| free as u64).w()
    }

    /// What it launches through.
    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.0.stream
    }

    /// Copies words from one array to another, after all that was launched before.
    ///
    /// # Safety
    /// As for [`Device::launch`].
    pub(super) unsafe fn copy(&self, from: At<u32>, to: At<u32>, count: usize) -> Result<()> {
        self.0.stream.context().bind_to_thread().w()?;
        let bytes = count * size_of::<u32>();
        // SAFETY: the caller answers for the arrays.
        unsafe { result::memcpy_dtod_async(to.address(), from.address(), bytes, self.0.stream.cu_stream()) }
            .w()
    }

    /// Runs kernels after all that were launched before. Does not wait for them.
    ///
    /// # Safety
    /// What the launches read is there, and what they write has room and is nobody else's, until they have run: arrays that
    /// are dropped earlier stay that long, for their memory goes back in the order of the stream.
    pub(crate) unsafe fn launch(&self, launches: impl IntoIterator<Item = Launch>) -> Result<()> {
        for Launch { kernel, shape, arguments } in launches {
            // What has no rows has no blocks, and the driver refuses that.
            if shape.grid.contains(&0) {
                continue;
            }
            let function = self.function(kernel, shape.shared)?;
            let words: Vec<u64> =
                (arguments.iter()).map(|argument| u64::from_ne_bytes(argument.to_ne_bytes())).collect();
            let mut builder = self.0.stream.launch_builder(&function);
            for word in &words {
                builder.arg(word);
            }
            let config = LaunchConfig {
                grid_dim: shape.grid.into(),
                block_dim: shape.block.into(),
                shared_mem_bytes: shape.shared,
            };
            // SAFETY: an argument's bytes are the first of its word; number and types are those of the kernel, to which the
            // emulator's tests hold all launches. The caller answers for the arrays.
            unsafe { builder.launch(config) }.w()?;
        }
        Ok(())
    }

    /// A kernel that may have this much shared memory.
    fn function(&self, kernel: &'static str, shared: u32) -> Result<CudaFunction> {
        let mut functions = self.0.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let (function, asked) = match functions.entry(kernel) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let found = self.0.modules.iter().find_map(|module| module.load_function(kernel).ok());
                let function =
                    found.ok_or_else(|| Error::Msg(format!("no kernel {kernel} is compiled in")))?;
                entry.insert((function, SHARED_UNASKED))
            }
        };
        if shared > *asked {
            function.set_attribute(MOST_SHARED, shared.cast_signed()).w()?;
            *asked = shared;
        }
        Ok(function.clone())
    }
}

/// The device by a new stream.
fn new_stream(index: usize) -> Result<CudaDevice> {
    let candle = CudaDevice::new_with_stream(index)?;
    // SAFETY: all that this process runs on the device goes through one stream, see `cuda`.
    unsafe { candle.disable_event_tracking() };
    Ok(candle)
}

/// The pool that arrays on this stream's device come from.
fn pool(stream: &CudaStream) -> std::result::Result<CUmemoryPool, DriverError> {
    // SAFETY: the device is that of an open context.
    unsafe { result::device::get_mem_pool(stream.context().cu_device()) }
}

/// Has the device keep what is given back for the next array. Otherwise every wait would return it to the system, and every
/// step take it anew.
fn keep_memory(stream: &CudaStream) -> std::result::Result<(), DriverError> {
    let mut bytes = u64::MAX;
    // SAFETY: the threshold is a 64-bit number, which the driver reads before it returns.
    unsafe { mem_pool::set_attribute(pool(stream)?, RELEASE_THRESHOLD, (&raw mut bytes).cast()) }
}

/// Whether an operation failed for want of the device's memory.
pub(crate) fn is_out_of_memory(error: &Error) -> bool {
    cause(error) == Some(CUresult::CUDA_ERROR_OUT_OF_MEMORY)
}

/// Takes note of an error after which the driver refuses everything that this process asks.
pub(crate) fn note_loss(error: &Error) {
    if let Some(code) = loss(error) {
        lose(&reason(DriverError(code)));
    }
}

/// What the driver has answered, if it is that.
fn loss(error: &Error) -> Option<CUresult> {
    use CUresult::*;
    let lost = [
        CUDA_ERROR_ECC_UNCORRECTABLE,
        CUDA_ERROR_ILLEGAL_ADDRESS,
        CUDA_ERROR_LAUNCH_TIMEOUT,
        CUDA_ERROR_CONTEXT_IS_DESTROYED,
        CUDA_ERROR_ASSERT,
        CUDA_ERROR_HARDWARE_STACK_ERROR,
        CUDA_ERROR_ILLEGAL_INSTRUCTION,
        CUDA_ERROR_MISALIGNED_ADDRESS,
        CUDA_ERROR_INVALID_ADDRESS_SPACE,
        CUDA_ERROR_INVALID_PC,
        CUDA_ERROR_LAUNCH_FAILED,
        CUDA_ERROR_EXTERNAL_DEVICE,
        CUDA_ERROR_CONTAINED,
        CUDA_ERROR_NVLINK_UNCORRECTABLE,
        CUDA_ERROR_TENSOR_MEMORY_LEAK,
        CUDA_ERROR_MPS_CLIENT_TERMINATED,
        CUDA_ERROR_UNKNOWN,
    ];
    cause(error).filter(|code| lost.contains(code))
}

/// What the driver has answered, where that is the error.
fn cause(error: &Error) -> Option<CUresult> {
    match error {
        Error::Cuda(cause) => match cause.downcast_ref::<CudaError>() {
            Some(CudaError::Cuda(DriverError(code))) => Some(*code),
            _ => None,
        },
        Error::WithBacktrace { inner, .. } | Error::Context { inner, .. } | Error::WithPath { inner, .. } => {
            cause(inner)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunError;

    #[test]
    fn an_error_that_no_run_recovers_from_is_a_loss_and_no_other() {
        let error = |code| Error::Cuda(Box::new(CudaError::Cuda(DriverError(code)))).bt();
        let full = RunError::from(error(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        assert!(matches!(full, RunError::OutOfMemory(_)), "{full:?}");
        assert_eq!(loss(&error(CUresult::CUDA_ERROR_INVALID_VALUE)), None);
        let fault = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
        assert_eq!(loss(&error(fault)), Some(fault));
    }
}
