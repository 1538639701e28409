//! Where models run: which devices there are, and how one is chosen.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Simd;
use crate::machine::Machine;
use crate::self_test::Check;

/// Which device a model runs on. None changes a bit of any result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// The first CUDA device where there is one that can be used, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with this index, or none.
    Cuda(usize),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// What [`DeviceChoice`] is not written like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no device: `auto`, `cpu` and `cuda:0` do")]
pub struct DeviceChoiceError(String);

impl FromStr for DeviceChoice {
    type Err = DeviceChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => (text.strip_prefix("cuda:").and_then(|index| index.parse().ok()).map(Self::Cuda))
                .ok_or_else(|| DeviceChoiceError(text.to_owned())),
        }
    }
}

/// A device that models can run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceInfo {
    /// The CPU.
    Cpu {
        /// The instructions that the kernels use.
        simd: Simd,
    },
    /// A CUDA device.
    Cuda {
        /// Its index.
        index: usize,
        /// What its maker calls it.
        name: String,
        /// Bytes of its memory.
        memory: u64,
        /// Its compute capability, major and minor.
        capability: (u32, u32),
        /// The CUDA version that the driver is for, as `13.0`.
        driver: String,
    },
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu { simd } => write!(f, "cpu ({simd})"),
            Self::Cuda { index, name, .. } => write!(f, "cuda:{index} ({name})"),
        }
    }
}

/// Why a device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The program is built for the CPU alone.
    #[error("this program is built without CUDA")]
    NotBuilt,
    /// There is no driver, or it does not start.
    #[error("the CUDA driver cannot be used: {0}")]
    Driver(String),
    /// There are fewer devices.
    #[error("there is no CUDA device {index}: {count} found")]
    Absent {
        /// The one asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The device does not open.
    #[error("CUDA device {index} cannot be used: {reason}")]
    Unusable {
        /// Its index.
        index: usize,
        /// What the driver or a library says.
        reason: String,
    },
    /// The device gives other bits than it should.
    #[error("{device} gives other bits than it should in: {ops}")]
    Differs {
        /// The device.
        device: String,
        /// The operators concerned.
        ops: String,
    },
    /// The device has not the memory for a model's weights.
    #[error("the weights take {bytes} bytes of memory; {device} has {free} free")]
    Memory {
        /// The device.
        device: String,
        /// What the weights take.
        bytes: u64,
        /// What nothing else uses.
        free: u64,
    },
    /// The machine lacks the instructions asked for.
    #[error("this machine does not have the instructions for {0}")]
    Simd(Simd),
}

/// The CUDA devices that there are, whether or not they pass their self-test.
///
/// # Errors
/// There is no driver, or the program is built without CUDA.
pub fn devices() -> Result<Vec<DeviceInfo>, DeviceError> {
    #[cfg(feature = "cuda")]
    return crate::cuda::devices();
    #[cfg(not(feature = "cuda"))]
    Err(DeviceError::NotBuilt)
}

/// Whether the CUDA device that a process relies on is lost to it.
struct Loss {
    relied_on: AtomicBool,
    reason: OnceLock<String>,
}

static LOSS: Loss = Loss::new();

impl Loss {
    const fn new() -> Self {
        Self { relied_on: AtomicBool::new(false), reason: OnceLock::new() }
    }

    /// Takes note that a device has passed its self-test, so that models may run there.
    fn rely(&self) {
        self.relied_on.store(true, Ordering::Relaxed);
    }

    /// Takes note that a device is of no more use, and says whether that is a loss. One that fails in its first self-test is
    /// none: nothing was promised with it, and the CPU may do.
    fn lose(&self, reason: &str) -> bool {
        self.relied_on.load(Ordering::Relaxed) && self.reason.set(reason.to_owned()).is_ok()
    }
}

/// Takes note that a device does nothing more for this process, whatever it is asked.
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "only a CUDA device is lost"))]
pub(crate) fn lose(reason: &str) {
    if LOSS.lose(reason) {
        tracing::error!(reason, "a device is lost to this process");
    }
}

/// Why this process can use no device any more, once a kernel or the hardware has failed in a way that only a new process
/// recovers from. Every run on a device fails from then on.
pub fn lost_device() -> Option<&'static str> {
    LOSS.reason.get().map(String::as_str)
}

/// What a self-test that was passed has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfTest {
    /// The device that models would run on.
    pub device: DeviceInfo,
    /// Why it is not a CUDA device, where one would have been welcome.
    pub passed_over: Option<DeviceError>,
    /// Every operator on some input, held against the digests of what it should give.
    pub checks: Vec<Check>,
}

/// Chooses a device as a model would and has every operator on it tried. Takes less than a second.
///
/// # Errors
/// There is no such device, or it cannot be used; [`DeviceError::Differs`] where it gives other bits than it should.
pub fn self_test(choice: DeviceChoice, simd: Simd) -> Result<SelfTest, DeviceError> {
    let Chosen { machine, passed_over, checks } = Chosen::new(choice, simd)?;
    Ok(SelfTest { device: machine.info(), passed_over, checks })
}

/// A device as it was chosen.
pub(crate) struct Chosen {
    /// What runs on it.
    pub(crate) machine: Machine,
    passed_over: Option<DeviceError>,
    /// What its self-test has found, which it had to pass to be chosen.
    checks: Vec<Check>,
}

impl Chosen {
    /// Opens a device. One of CUDA passes its self-test first; of the CPU's instructions those are used that do.
    ///
    /// # Errors
    /// There is no such device, or it cannot be used.
    pub(crate) fn new(choice: DeviceChoice, simd: Simd) -> Result<Self, DeviceError> {
        match choice {
            DeviceChoice::Cpu => Self::cpu(simd, None),
            DeviceChoice::Cuda(index) => Self::cuda(index),
            DeviceChoice::Auto => Self::cuda(0).or_else(|error| Self::cpu(simd, Some(error))),
        }
    }

    /// Opens a device for weights that take so many bytes of its memory.
    ///
    /// # Errors
    /// There is no such device, it cannot be used, or has not the memory.
    pub(crate) fn for_weights(bytes: u64, choice: DeviceChoice, simd: Simd) -> Result<Self, DeviceError> {
        let chosen = Self::new(choice, simd)?;
        let free = chosen.machine.free_memory().map_err(|error| chosen.machine.unusable(&error))?;
        match free.filter(|&free| free < bytes) {
            None => Ok(chosen),
            Some(free) => {
                let error = DeviceError::Memory { device: chosen.machine.info().to_string(), bytes, free };
                if choice == DeviceChoice::Auto { Self::cpu(simd, Some(error)) } else { Err(error) }
            }
        }
    }

    /// The CPU, where a CUDA device could not be used for this reason.
    fn cpu(simd: Simd, passed_over: Option<DeviceError>) -> Result<Self, DeviceError> {
        match &passed_over {
            None | Some(DeviceError::NotBuilt) => {}
            Some(error @ DeviceError::Differs { .. }) => tracing::error!(%error, "running on the CPU"),
            Some(error) => tracing::info!(%error, "running on the CPU"),
        }
        let (machine, checks) = Machine::cpu(simd)?;
        Ok(Self { machine, passed_over, checks })
    }

    fn cuda(index: usize) -> Result<Self, DeviceError> {
        let machine = Machine::cuda(index)?;
        let checks = machine.checks()?;
        machine.judge(&checks)?;
        LOSS.rely();
        Ok(Self { machine, passed_over: None, checks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_fails_before_it_is_relied_on_is_not_lost() {
        let loss = Loss::new();
        // A party that took the CPU instead must not end.
        assert!(!loss.lose("in its self-test"));
        assert_eq!(loss.reason.get(), None);
        loss.rely();
        assert!(loss.lose("in a run"));
        assert!(!loss.lose("in the next run"));
        assert_eq!(loss.reason.get().map(String::as_str), Some("in a run"));
    }
}
