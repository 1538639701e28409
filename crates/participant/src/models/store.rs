//! The models of a coordinator, in the memory and on the disk of one party.

use super::LoadedModel;
use super::shelf::{Idle, NoRoom, Shelf};
use super::weights::Weights;
use crate::ParticipantError;
use crate::machine::MemoryPlan;
use gainsay_api::client::Client;
use gainsay_api::client::blobs::{BlobCache, Hold, Wanted, hash_file};
use gainsay_commitment::{Canonical, ModelId, TensorCommitment};
use gainsay_engine::{DeviceChoice, LoadError, Options};
use gainsay_program::{Manifest, ValidatedModel};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::OnceCell;

/// Where a party keeps models, and how much of its machine they may take.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Folder of weights by hash; several parties may share it.
    pub cache_dir: PathBuf,
    /// Bytes of files that the folder may hold.
    pub cache_bytes: u64,
    /// How models are run.
    pub engine: Options,
    /// Bytes of memory that all loaded models may take together, by [`ValidatedModel::weight_memory`].
    pub memory: u64,
}

impl StoreOptions {
    /// Bytes on disk where nothing else is said.
    pub const DEFAULT_CACHE_BYTES: u64 = 100 << 30;

    /// Weights in this folder, run on such a device, with as much memory as is planned for that.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>, device: DeviceChoice) -> Self {
        let MemoryPlan { models, job, .. } = MemoryPlan::for_device(device);
        Self {
            cache_dir: cache_dir.into(),
            cache_bytes: Self::DEFAULT_CACHE_BYTES,
            engine: Options { memory: job, weights: models, device, ..Options::default() },
            memory: models,
        }
    }
}

/// The models of a coordinator, each fetched and loaded when it is first asked for, and again after it had to make room.
#[derive(Clone)]
pub struct ModelStore {
    client: Client,
    cache: BlobCache,
    engine: Options,
    shelf: Arc<Mutex<Shelf<Place>>>,
    short: Arc<Mutex<Vec<WhenShort>>>,
}

/// Called when a model finds no room, so that whoever keeps idle ones lets them go.
type WhenShort = Box<dyn Fn() + Send + Sync>;

/// Where a model is, once it is loaded.
#[derive(Default)]
struct Place(OnceCell<LoadedModel>);

impl Idle for Place {
    fn is_idle(&self) -> bool {
        self.0.get().is_none_or(LoadedModel::is_idle)
    }
}

impl ModelStore {
    /// A store with nothing in it.
    #[must_use]
    pub fn new(client: Client, options: &StoreOptions) -> Self {
        tracing::info!(
            available_mib = MemoryPlan::for_device(options.engine.device).available.map(|bytes| bytes >> 20),
            models_mib = options.memory >> 20,
            memory_mib = options.engine.memory >> 20,
            "memory for all models together, and for the layers of one job"
        );
        Self {
            client,
            cache: BlobCache::new(&options.cache_dir).limited_to(options.cache_bytes),
            engine: options.engine,
            shelf: Arc::new(Mutex::new(Shelf::new(options.memory))),
            short: Arc::default(),
        }
    }

    /// Has `let_go` called when memory is short: whoever keeps models for later drops them there.
    pub fn when_short(&self, let_go: impl Fn() + Send + Sync + 'static) {
        self.short.lock().expect("no holder of the list panics").push(Box::new(let_go));
    }

    /// A model, fetched and loaded if it is not; models that are not in use make room for it. Callers that come at once
    /// wait for one load, and no load waits for that of another model.
    ///
    /// # Errors
    /// The coordinator does not serve it, serves something else, or the engine does not take it;
    /// [`ParticipantError::NoRoom`] where what is in use leaves too little memory.
    pub async fn get(&self, id: ModelId) -> Result<LoadedModel, ParticipantError> {
        self.get_or_load(id, true).await
    }

    /// [`ModelStore::get`], but only into memory that is free: nothing makes room.
    ///
    /// # Errors
    /// As [`ModelStore::get`].
    pub async fn get_if_it_fits(&self, id: ModelId) -> Result<LoadedModel, ParticipantError> {
        self.get_or_load(id, false).await
    }

    /// The path of a file that a manifest names beside its weights: a tokenizer, say.
    ///
    /// # Errors
    /// As [`BlobCache::fetch`].
    pub async fn file(&self, hash: TensorCommitment) -> Result<PathBuf, ParticipantError> {
        Ok(self.cache.fetch(&self.client, hash).await?)
    }

    async fn get_or_load(&self, id: ModelId, make_room: bool) -> Result<LoadedModel, ParticipantError> {
        let known = self.shelf().find(id);
        let (place, model) = match known {
            Some(place) => match place.0.get() {
                Some(loaded) => return Ok(loaded.clone()),
                None => (place, None),
            },
            None => {
                let model = Arc::new(self.manifest(id).await?);
                (self.place(&model, make_room)?, Some(model))
            }
        };
        let load = || async {
            match model {
                Some(model) => self.load(&model).await,
                // Another began, and failed; this one waited.
                None => self.load(&Arc::new(self.manifest(id).await?)).await,
            }
        };
        let loaded = place.0.get_or_try_init(load).await.cloned();
        if loaded.is_err() {
            self.shelf().give_up(id, place);
        }
        loaded
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf<Place>> {
        self.shelf.lock().expect("no holder of the shelf panics")
    }

    /// A place for a model, before anything of it is fetched.
    fn place(&self, model: &ValidatedModel, make_room: bool) -> Result<Arc<Place>, ParticipantError> {
        let (id, bytes) = (model.id(), model.weight_memory());
        let placed = self.shelf().place(id, bytes, make_room);
        let placed = match placed {
            Err(_) if make_room => {
                self.short.lock().expect("no holder of the list panics").iter().for_each(|let_go| let_go());
                self.shelf().place(id, bytes, true)
            }
            placed => placed,
        };
        placed.map_err(|NoRoom { in_use }| ParticipantError::NoRoom {
            model: id,
            bytes,
            in_use,
            limit: self.shelf().limit(),
        })
    }

    async fn load(&self, model: &Arc<ValidatedModel>) -> Result<LoadedModel, ParticipantError> {
        let id = model.id();
        tracing::info!(model = %id, name = model.manifest().name, "fetching model");
        let loaded = self.load_weights(model).await;
        if let Err(ParticipantError::Load { source, .. }) = &loaded
            && let LoadError::Weight(fault) = &**source
        {
            tracing::warn!(model = %id, %fault, "a file in the cache has rotted; fetching it again");
            self.discard_rotten(model).await?;
            return self.load_weights(model).await;
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

    /// Keeps a model's files in the cache, there or still to come.
    async fn hold(&self, model: &ValidatedModel) -> Result<Hold, ParticipantError> {
        let manifest = model.manifest();
        let weights = manifest.tensors.iter();
        let weights = weights.map(|spec| Wanted { hash: spec.commitment, bytes: Some(spec.shape().bytes()) });
        let files = weights.chain([manifest.tokenizer.into()]).collect();
        Ok(self.cache.hold(&model.id().to_string(), files).await?)
    }

    async fn load_weights(&self, model: &Arc<ValidatedModel>) -> Result<LoadedModel, ParticipantError> {
        let hold = self.hold(model).await?;
        let mut files = Vec::new();
        for spec in &model.manifest().tensors {
            let wanted = Wanted { hash: spec.commitment, bytes: Some(spec.shape().bytes()) };
            files.push((self.cache.fetch(&self.client, wanted).await?, spec.commitment));
        }
        let (model, options) = (model.clone(), self.engine);
        let loaded = tokio::task::spawn_blocking(move || {
            let id = model.id();
            LoadedModel::from_files(model, Weights::in_files(files, hold), options)
                .map_err(|source| ParticipantError::Load { model: id, source: Box::new(source) })
        });
        // Weights are a stranger's.
        let loaded = loaded.await.map_err(|_| ParticipantError::Panicked("loading a model"))??;
        let engine = loaded.engine();
        tracing::info!(model = %engine.model().id(), simd = %engine.simd(), threads = engine.threads(), "model is ready");
        Ok(loaded)
    }

    /// Removes from the cache whatever does not hash to its name.
    async fn discard_rotten(&self, model: &Arc<ValidatedModel>) -> Result<(), ParticipantError> {
        for tensor in &model.manifest().tensors {
            let path = self.cache.fetch(&self.client, tensor.commitment).await?;
            let hash = tokio::task::spawn_blocking(move || hash_file(&path));
            if hash.await.expect("hashing a file does not panic")? != tensor.commitment {
                self.cache.discard(tensor.commitment)?;
            }
        }
        Ok(())
    }
}
