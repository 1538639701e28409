//! Models: fetched by hash, verified, loaded into the engine once.

use crate::ParticipantError;
use gainsay_api::client::blobs::BlobCache;
use gainsay_api::client::{Client, ClientError};
use gainsay_commitment::{Canonical, ModelId, TensorTree, tensor::tensor_commitment};
use gainsay_engine::{LoadError, Model, Options};
use gainsay_program::{Manifest, ValidatedModel};
use gainsay_protocol::TensorData;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::OnceCell;

/// A model in the engine, with its weights as a party shows them in a witness. Cheap to clone.
#[derive(Clone)]
pub struct LoadedModel(Arc<Inner>);

struct Inner {
    engine: Model,
    weights: Vec<Arc<[u8]>>,
    /// Trees over the weights, each made when a witness first needs it.
    trees: Vec<OnceLock<Arc<TensorTree>>>,
    options: Options,
}

impl LoadedModel {
    /// Loads a model from its weights, in the order of the manifest's tensors.
    ///
    /// # Errors
    /// [`LoadError`] for weights that are not the manifest's, or an engine that the machine cannot run.
    pub fn new(
        model: Arc<ValidatedModel>,
        weights: Vec<Arc<[u8]>>,
        options: Options,
    ) -> Result<Self, LoadError> {
        let engine = Model::new(model, weights.clone(), options)?;
        let trees = weights.iter().map(|_| OnceLock::new()).collect();
        Ok(Self(Arc::new(Inner { engine, weights, trees, options })))
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
    #[must_use]
    pub fn weight(&self, index: u32) -> Option<TensorData> {
        let bytes = self.0.weights.get(index as usize)?;
        let tree = self.0.trees.get(index as usize)?.get_or_init(|| Arc::new(TensorTree::new(bytes)));
        Some(TensorData { bytes: bytes.clone(), tree: tree.clone() })
    }

    /// The same program over other weights: `change` sees each tensor's index and bytes and may return others of the
    /// same length. The result has another model id; only a party that lies about its model runs such a thing.
    ///
    /// # Errors
    /// [`LoadError`] where the changed bytes are no weights.
    pub fn with_changed_weights(
        &self,
        change: impl Fn(usize, &[u8]) -> Option<Vec<u8>>,
    ) -> Result<Self, LoadError> {
        let mut manifest = self.model().manifest().clone();
        let mut weights = self.0.weights.clone();
        for (index, bytes) in weights.iter_mut().enumerate() {
            if let Some(changed) = change(index, bytes) {
                manifest.tensors[index].commitment = tensor_commitment(&changed);
                *bytes = changed.into();
            }
        }
        let model = manifest.validate().expect("a manifest checks whatever its weights' hashes are");
        Self::new(Arc::new(model), weights, self.0.options)
    }
}

/// The models of a coordinator, each fetched and loaded when it is first asked for.
#[derive(Clone)]
pub struct ModelStore {
    client: Client,
    cache: BlobCache,
    options: Options,
    loaded: Arc<Mutex<HashMap<ModelId, Arc<OnceCell<LoadedModel>>>>>,
}

impl ModelStore {
    /// A store that keeps weights under `cache_dir` and runs models with these engine options.
    #[must_use]
    pub fn new(client: Client, cache_dir: impl Into<PathBuf>, options: Options) -> Self {
        Self { client, cache: BlobCache::new(cache_dir), options, loaded: Arc::default() }
    }

    /// A model, fetched and loaded if it is not yet. Callers that come at once wait for one load.
    ///
    /// # Errors
    /// The coordinator does not serve it, serves something else, or the engine does not take it.
    pub async fn get(&self, id: ModelId) -> Result<LoadedModel, ParticipantError> {
        let cell = self.loaded.lock().expect("no holder of the map panics").entry(id).or_default().clone();
        cell.get_or_try_init(|| self.load(id)).await.cloned()
    }

    async fn load(&self, id: ModelId) -> Result<LoadedModel, ParticipantError> {
        let model = Arc::new(self.manifest(id).await?);
        tracing::info!(model = %id, name = model.manifest().name, "fetching model");
        let loaded = self.load_weights(&model).await;
        if let Err(ParticipantError::Load { source, .. }) = &loaded
            && let LoadError::Weight(fault) = &**source
        {
            tracing::warn!(model = %id, %fault, "a file in the cache has rotted; fetching it again");
            self.discard_rotten(&model).await?;
            return self.load_weights(&model).await;
        }
        loaded
    }

    async fn manifest(&self, id: ModelId) -> Result<ValidatedModel, ParticipantError> {
        let bytes = self.client.manifest(id).await?;
        let manifest = Manifest::from_bytes(&bytes)
            .map_err(|source| ParticipantError::ManifestEncoding { model: id, source })?;
        let model = manifest
            .validate()
            .map_err(|source| ParticipantError::Manifest { model: id, source: Box::new(source) })?;
        if model.id() != id {
            return Err(ParticipantError::ManifestId { model: id, found: model.id() });
        }
        Ok(model)
    }

    async fn load_weights(&self, model: &Arc<ValidatedModel>) -> Result<LoadedModel, ParticipantError> {
        let mut paths = Vec::new();
        for tensor in &model.manifest().tensors {
            paths.push(self.cache.fetch(&self.client, tensor.commitment).await?);
        }
        let (model, options) = (model.clone(), self.options);
        let loaded = tokio::task::spawn_blocking(move || {
            let read = |path: PathBuf| match std::fs::read(&path) {
                Ok(bytes) => Ok(bytes.into()),
                Err(source) => Err(ClientError::File { path, source }),
            };
            let weights = paths.into_iter().map(read).collect::<Result<Vec<Arc<[u8]>>, _>>()?;
            let id = model.id();
            LoadedModel::new(model, weights, options)
                .map_err(|source| ParticipantError::Load { model: id, source: Box::new(source) })
        });
        let loaded = loaded.await.expect("loading a model does not panic")?;
        let engine = loaded.engine();
        tracing::info!(model = %engine.model().id(), simd = %engine.simd(), threads = engine.threads(), "model is ready");
        Ok(loaded)
    }

    /// Removes from the cache whatever does not hash to its name.
    async fn discard_rotten(&self, model: &Arc<ValidatedModel>) -> Result<(), ParticipantError> {
        for tensor in &model.manifest().tensors {
            let path = self.cache.fetch(&self.client, tensor.commitment).await?;
            let hash = tokio::task::spawn_blocking(move || gainsay_api::client::blobs::hash_file(&path));
            if hash.await.expect("hashing a file does not panic")? != tensor.commitment {
                self.cache.discard(tensor.commitment)?;
            }
        }
        Ok(())
    }
}
