//! Runs programs on candle, fast, and records what a claim says about them.
//!
//! [`Model::run`] takes many jobs at once and returns each job's [`Trace`]: the commitment to every layer's output,
//! hashed while the next layer waits for nothing, and the answer. A party that has to show more re-runs the job:
//! [`Model::layer_ops`] gives the output of every op of one layer, [`Model::virtual_ops`] the steps inside one element.
//!
//! Every byte is decided by `gainsay-arithmetic` and by the program. Batches, threads, fused ops and vector width
//! change none; tests hold all of them against each other and against `gainsay_program::reference`.
//!
//! A [`Runner`] serves a model to jobs that come and go: it encodes, and generates token by token, all of them together.
//!
//! The flow: [`Model::new`] checks the weights, packs them and plans each layer in steps (`plan`); a run divides its
//! rows into batches of bounded size (`batch`), sends each through the steps (`execute`), whose operators are
//! candle custom ops (`ops`) around the kernels (`kernels`), and an observer (`record`) hashes or keeps what it sees.
//! Causal attention reads what rows before have left in a cache of pages, so that rows may come in any portions: a whole
//! generation that is checked and a single token of one that runs are the same code.
//!
//! The crate knows nothing of claims as signed objects, of disputes or of money, and does no IO.

mod batch;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod error;
mod execute;
mod fault;
mod kernels;
mod load;
mod machine;
pub mod measure;
mod model;
mod ops;
mod options;
mod plan;
mod record;
mod runner;
mod self_test;
mod virtual_layer;

pub use device::{
    DeviceChoice, DeviceChoiceError, DeviceError, DeviceInfo, SelfTest, devices, lost_device, self_test,
};
pub use error::{FloatEnvironmentError, JobRefusal, LoadError, RunError};
pub use fault::Fault;
pub use kernels::float_environment_is_default;
pub use model::Model;
pub use options::{Options, Simd};
pub use record::Trace;
pub use runner::{JoinRefusal, Progress, Runner, RunnerOptions, Work};
pub use self_test::Check;
