//! Tensors of safetensors files, by name and expected shape.

use safetensors::{SafeTensorError, SafeTensors, tensor::TensorView};

use super::LowerError;
use super::tensors::{SourceTensor, TensorSource};
use crate::Dtype;

/// Why a checkpoint is refused.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file does not parse.
    #[error("model.safetensors does not parse")]
    Format(#[from] SafeTensorError),
    /// A tensor that the configuration promises.
    #[error("model.safetensors has no tensor {name}")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A tensor of another shape than the configuration says.
    #[error("tensor {name} has shape {found:?}, but the configuration makes it {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape by the configuration.
        expected: Vec<usize>,
    },
    /// A tensor whose elements are not floats that widen to f32.
    #[error("tensor {name} has elements of type {found}, but only F32, BF16 and F16 are supported")]
    Dtype {
        /// Its name.
        name: String,
        /// Type in the file.
        found: String,
    },
}

/// Open safetensors files that hold the tensors of one model.
pub(super) struct Checkpoint<'a> {
    shards: Vec<SafeTensors<'a>>,
    prefix: &'static str,
}

/// Names in the file begin with this where the encoder was saved inside a larger model.
const PREFIX: &str = "bert.";

impl<'a> Checkpoint<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, CheckpointError> {
        let tensors = SafeTensors::deserialize(bytes)?;
        let prefixed = tensors.iter().any(|(name, _)| name.starts_with(PREFIX));
        Ok(Self { shards: vec![tensors], prefix: if prefixed { PREFIX } else { "" } })
    }

    /// The tensors of several files, by the names that they have there.
    pub(super) fn open_all(files: &'a [Vec<u8>]) -> Result<Self, CheckpointError> {
        let shards = files.iter().map(|bytes| SafeTensors::deserialize(bytes)).collect::<Result<_, _>>()?;
        Ok(Self { shards, prefix: "" })
    }

    fn view(&self, name: &str) -> Result<TensorView<'a>, CheckpointError> {
        let full_name = format!("{}{name}", self.prefix);
        for shard in &self.shards {
            match shard.tensor(&full_name) {
                Ok(view) => return Ok(view),
                Err(SafeTensorError::TensorNotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CheckpointError::Missing { name: full_name })
    }
}

impl TensorSource for Checkpoint<'_> {
    fn load(&mut self, name: &str, shape: &[u32]) -> Result<SourceTensor, LowerError> {
        let view = self.view(name)?;
        let expected: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
        if view.shape() != expected {
            let (name, found) = (name.to_owned(), view.shape().to_vec());
            return Err(CheckpointError::Shape { name, found, expected }.into());
        }
        let dtype = match view.dtype() {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::BF16 => Dtype::Bf16,
            safetensors::Dtype::F16 => Dtype::F16,
            other => {
                let (name, found) = (name.to_owned(), format!("{other:?}"));
                return Err(CheckpointError::Dtype { name, found }.into());
            }
        };
        Ok(SourceTensor { dtype, bytes: view.data().to_vec() })
    }
}
