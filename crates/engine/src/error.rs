//! What can go wrong when a model is loaded or run.

use gainsay_program::JobError;
use gainsay_program::weights::WeightError;

use crate::{DeviceError, Fault};

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not one byte string per tensor of the manifest.
    #[error("{found} weights given where the manifest lists {expected}")]
    WeightCount {
        /// Tensors in the manifest.
        expected: usize,
        /// Byte strings given.
        found: usize,
    },
    /// The weights would take more memory than this engine may use.
    #[error("the weights may take {bytes} bytes of memory; this engine may use {allowed}")]
    Memory {
        /// Upper bound of what they take.
        bytes: u64,
        /// See [`Options::weights`](crate::Options::weights).
        allowed: u64,
    },
    /// A weight is not what the manifest commits to.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// A weight cannot be read.
    #[error("weight {index} cannot be read: {source}")]
    Read {
        /// Its index in the manifest.
        index: usize,
        /// Why not.
        source: std::io::Error,
    },
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device has not the memory that the weights take, or refuses them.
    #[error("the device does not take the weights")]
    Upload(#[source] candle_core::Error),
    /// The threads did not start.
    #[error("cannot start the worker threads")]
    Threads(#[source] rayon::ThreadPoolBuildError),
    /// A thread rounds or flushes other than the arithmetic asks.
    #[error(transparent)]
    FloatEnvironment(#[from] FloatEnvironmentError),
}

/// A thread's floating-point control register is not at its default: it would flush subnormals, or round in
/// another direction. Some library in this process has changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a thread's floating-point control register is not at its default, so results would have other bits")]
pub struct FloatEnvironmentError;

/// Why an engine does not take a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobRefusal {
    /// It does not fit the model.
    #[error(transparent)]
    Model(#[from] JobError),
    /// It would take more memory than this engine may use.
    #[error("to show its layers takes {bytes} bytes of memory; this engine may use {allowed}")]
    Memory {
        /// What the outputs of the widest layer's ops take as they are computed and recorded, with keys and values.
        bytes: u64,
        /// See [`Options::memory`](crate::Options::memory).
        allowed: u64,
    },
}

/// Why a run fails.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A job cannot be run.
    #[error("job {job} cannot be run")]
    Job {
        /// Its index among the jobs of the run.
        job: usize,
        /// Why not.
        #[source]
        source: JobRefusal,
    },
    /// The program has fewer layers.
    #[error("there is no layer {0}")]
    NoSuchLayer(u32),
    /// The element is not disputed through a virtual layer, or does not exist.
    #[error("element {element} of op {op} in layer {layer} has no virtual layer")]
    NotExpanded {
        /// The layer.
        layer: u32,
        /// The op.
        op: u32,
        /// The element.
        element: u64,
    },
    /// The program has no place for the fault.
    #[error("the program has no place for the fault {0:?}")]
    Fault(Fault),
    /// A thread rounds or flushes other than the arithmetic asks.
    #[error(transparent)]
    FloatEnvironment(#[from] FloatEnvironmentError),
    /// The engine's own code has panicked: a defect, of which nothing can be said but that this run met it.
    #[error("the engine has panicked: {0}")]
    Panicked(String),
    /// What says where the answer stops has panicked.
    #[error("what says where the answer stops has failed")]
    Stop,
    /// The device had no memory left for what was to be computed together.
    #[error("the device is out of memory")]
    OutOfMemory(#[source] candle_core::Error),
    /// The tensor library refuses an operation.
    #[error("the tensor library refuses an operation")]
    Tensor(#[source] candle_core::Error),
}

impl From<candle_core::Error> for RunError {
    fn from(error: candle_core::Error) -> Self {
        #[cfg(feature = "cuda")]
        if crate::cuda::is_out_of_memory(&error) {
            return Self::OutOfMemory(error);
        }
        #[cfg(feature = "cuda")]
        crate::cuda::note_loss(&error);
        Self::Tensor(error)
    }
}

impl RunError {
    /// What a panic left behind.
    pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self::Panicked(text.unwrap_or_else(|| "it does not say why".to_owned()))
    }
}
