//! Weights outside the engine: for witnesses, which show a few of them and rarely.

use gainsay_api::client::blobs::Hold;
use gainsay_commitment::TensorCommitment;
use gainsay_protocol::TensorData;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Bytes of weights that were shown lately and are kept for the next witness (but never less than the newest).
const SHOWN_BYTES: usize = 256 << 20;

/// A weight cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The model has none of this index.
    #[error("the model has no weight {0}")]
    Unknown(u32),
    /// Its file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Its file holds other bytes than when the model was loaded.
    #[error("{} has changed since the model was loaded", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
}

/// The weights of a model, where they are.
pub(super) struct Weights {
    place: Place,
    /// Last used last.
    shown: Mutex<VecDeque<(u32, TensorData)>>,
}

enum Place {
    Memory(Vec<Arc<[u8]>>),
    Files {
        files: Vec<(PathBuf, TensorCommitment)>,
        /// Keeps the files in their cache.
        _hold: Hold,
    },
}

impl Weights {
    pub(super) fn held(weights: Vec<Arc<[u8]>>) -> Self {
        Self { place: Place::Memory(weights), shown: Mutex::default() }
    }

    pub(super) fn in_files(files: Vec<(PathBuf, TensorCommitment)>, hold: Hold) -> Self {
        Self { place: Place::Files { files, _hold: hold }, shown: Mutex::default() }
    }

    /// The bytes of a weight.
    pub(super) fn read(&self, index: u32) -> Result<Arc<[u8]>, WeightError> {
        match &self.place {
            Place::Memory(weights) => weights.get(index as usize).cloned().ok_or(WeightError::Unknown(index)),
            Place::Files { files, .. } => {
                let (path, _) = files.get(index as usize).ok_or(WeightError::Unknown(index))?;
                let read = std::fs::read(path);
                read.map(Arc::from).map_err(|source| WeightError::File { path: path.clone(), source })
            }
        }
    }

    /// A weight with the tree over it.
    pub(super) fn show(&self, index: u32) -> Result<TensorData, WeightError> {
        let mut shown = self.shown.lock().expect("reading a file does not panic");
        if let Some(at) = shown.iter().position(|(held, _)| *held == index)
            && let Some(found) = shown.remove(at)
        {
            let data = found.1.clone();
            shown.push_back(found);
            return Ok(data);
        }
        let data = TensorData::new(self.read(index)?);
        if let Place::Files { files, .. } = &self.place
            && let Some((path, commitment)) = files.get(index as usize)
            && data.commitment() != *commitment
        {
            return Err(WeightError::Changed { path: path.clone() });
        }
        shown.push_back((index, data.clone()));
        while shown.len() > 1 && shown.iter().map(|(_, data)| data.bytes.len()).sum::<usize>() > SHOWN_BYTES {
            shown.pop_front();
        }
        Ok(data)
    }
}
