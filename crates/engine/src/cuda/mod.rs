//! CUDA devices: opening them, what lies in their memory, and the operators' launches.
//!
//! What runs is `src/kernels/cuda`, in the shapes of `gainsay-cuda-launch`. Everything of a process that runs on one device
//! goes through one stream, in order: an array is freed, and its memory used again, after whatever was launched before.
//! Steps of decoding that are like earlier ones are launched as one CUDA graph (`graphs`).

mod ahead;
mod answers;
mod arena;
mod array;
mod device;
mod graphs;
mod hash;
mod ops;
mod staged;
mod weights;

pub(crate) use ahead::{Ahead, look_ahead};
pub(crate) use arena::Arena;
pub(crate) use array::{Array, download};
pub(crate) use device::{Device, devices, is_out_of_memory, note_loss};
pub(crate) use graphs::{Graphs, StepRecorder};
pub(crate) use hash::{BatchHashes, BatchRuns, LayerHashers};
pub(crate) use ops::*;
pub(crate) use staged::Staged;
pub(crate) use weights::{DeviceInt8, DeviceLevels, DeviceLinear, upload_int8, upload_linear};
