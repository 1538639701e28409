//! Models: fetched by hash, verified, loaded into the engine once, and let go when others need the memory.

mod shelf;
mod store;
mod weights;

pub use store::{ModelStore, StoreOptions};
pub use weights::WeightError;

use gainsay_commitment::tensor::tensor_commitment;
use gainsay_engine::{LoadError, Model, Options};
use gainsay_program::ValidatedModel;
use gainsay_protocol::TensorData;
use std::sync::Arc;
use weights::Weights;

/// A model in the engine, with its weights as a party shows them in a witness. Cheap to clone; it stays loaded for as
/// long as there is a clone.
#[derive(Clone)]
pub struct LoadedModel(Arc<Inner>);

struct Inner {
    engine: Model,
    weights: Weights,
    options: Options,
}

impl LoadedModel {
    /// Loads a model from its weights, in the order of the manifest's tensors, and keeps them in memory.
    ///
    /// # Errors
    /// [`LoadError`] for weights that are not the manifest's, or an engine that the machine cannot run.
    pub fn new(
        model: Arc<ValidatedModel>,
        weights: Vec<Arc<[u8]>>,
        options: Options,
    ) -> Result<Self, LoadError> {
        let engine = Model::new(model, weights.clone(), options)?;
        Ok(Self(Arc::new(Inner { engine, weights: Weights::held(weights), options })))
    }

    /// Loads a model from weights in files, which are read as they are packed, and again when one of them is to be shown.
    ///
    /// # Errors
    /// As [`LoadedModel::new`]; [`LoadError::Read`].
    fn from_files(model: Arc<ValidatedModel>, weights: Weights, options: Options) -> Result<Self, LoadError> {
        let read = |index: usize| weights.read(index as u32).map_err(std::io::Error::other);
        let engine = Model::read(model, read, options)?;
        Ok(Self(Arc::new(Inner { engine, weights, options })))
    }

    /// The engine's model.
    #[must_use]
    pub fn engine(&self) -> &Model {
        &self.0.engine
    }

    /// The manifest and what follows from it.
    #[must_use]
    pub fn model(&self) -> &Arc<ValidatedModel> {
        self.0.engine.model()
    }

    /// A weight with the tree over it.
    ///
    /// # Errors
    /// The model has no such weight, or its file can no longer be read.
    pub fn weight(&self, index: u32) -> Result<TensorData, WeightError> {
        self.0.weights.show(index)
    }

    /// The same program over other weights: `change` sees each tensor's index and bytes and may return others of the
    /// same length. The result has another model id; only a party that lies about its model runs such a thing.
    ///
    /// # Errors
    /// [`LoadError`] where the changed bytes are no weights.
    ///
    /// # Panics
    /// If the weights cannot be read any more.
    pub fn with_changed_weights(
        &self,
        change: impl Fn(usize, &[u8]) -> Option<Vec<u8>>,
    ) -> Result<Self, LoadError> {
        let mut manifest = self.model().manifest().clone();
        let mut weights = Vec::with_capacity(manifest.tensors.len());
        for (index, spec) in manifest.tensors.iter_mut().enumerate() {
            let mut bytes =
                self.0.weights.read(index as u32).expect("the weights lie where they were loaded from");
            if let Some(changed) = change(index, &bytes) {
                spec.commitment = tensor_commitment(&changed);
                bytes = changed.into();
            }
            weights.push(bytes);
        }
        let model = manifest.validate().expect("a manifest checks whatever its weights' hashes are");
        Self::new(Arc::new(model), weights, self.0.options)
    }

    /// Whether nobody but the store holds it.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}
