//! Models: manifests first, then the files they name, hashed on receipt. A model takes jobs once all are here.

use std::sync::{Arc, PoisonError};

use gainsay_commitment::{Canonical, ModelId, TensorCommitment};
use gainsay_program::weights::WeightTypes;
use gainsay_program::{Manifest, TensorSpec, ValidatedModel};
use serde_json::json;

use super::work::{About, Work};
use super::{App, AppError, AppResult, ModelView};
use crate::blob::{Blob, BlobUpload};
use crate::store::models::{self, ModelState, NeededFile, StoredModel};
use crate::store::{Connection, StoreError, voids};

/// Decoded models kept in memory; beyond it they are decoded anew.
const CACHED_MODELS_MAX: usize = 256;
/// What a manifest is called that does not decode or fit the rules.
const MANIFEST: &str = "a manifest";
/// Bytes of one file, whatever a manifest says.
const FILE_BYTES_MAX: u64 = 16 << 30;

impl App {
    /// Registers a manifest under its id. What it needs is told by [`ModelView::missing`]. Idempotent.
    ///
    /// # Errors
    /// The manifest is too long, does not decode, breaks a rule, or has another id.
    pub async fn register_model(&self, stated: ModelId, manifest: &[u8]) -> AppResult<ModelView> {
        if manifest.len() > self.config().limits.manifest_bytes {
            return Err(AppError::InvalidManifest("it is too long".to_owned()));
        }
        let invalid = |error: &dyn std::fmt::Display| AppError::InvalidManifest(error.to_string());
        let decoded = Manifest::from_bytes(manifest).map_err(|error| invalid(&error))?;
        let actual = decoded.id();
        if actual != stated {
            return Err(AppError::ManifestIdMismatch { stated, actual });
        }
        let model = decoded.validate().map_err(|error| invalid(&error))?;
        self.record_model(&model, manifest).await?;
        self.model(actual).await
    }

    async fn record_model(&self, model: &ValidatedModel, manifest: &[u8]) -> AppResult<()> {
        let (id, name) = (model.id(), &model.manifest().name);
        let mut work = Work::begin(self).await?;
        // Nobody withdraws the profile between the look and the registration.
        voids::lock_shared(&mut work.tx).await?;
        self.require_valid(&mut work.tx, model.manifest().arithmetic).await?;
        let now = work.now().await?;
        if models::insert(&mut work.tx, id, name, manifest, now).await? {
            let files = needed_files(model.manifest());
            models::insert_files(&mut work.tx, id, &files).await?;
            work.event("model_registered", About::default(), json!({ "model": id, "name": name }));
        }
        // Other models may have brought every file of this one, or the last of them while it was being registered.
        for opened in models::open_complete(&mut work.tx, model.manifest().tokenizer).await? {
            work.event("model_serving", About::default(), json!({ "model": opened }));
        }
        work.finish().await
    }

    /// A model.
    ///
    /// # Errors
    /// There is none of this id.
    pub async fn model(&self, id: ModelId) -> AppResult<ModelView> {
        let mut conn = self.connection().await?;
        let stored = models::get(&mut conn, id).await?.ok_or(AppError::UnknownModel(id))?;
        self.model_view(&mut conn, &stored).await
    }

    /// The canonical manifest bytes of a model.
    ///
    /// # Errors
    /// There is none of this id.
    pub async fn manifest_bytes(&self, id: ModelId) -> AppResult<Vec<u8>> {
        let mut conn = self.connection().await?;
        models::manifest(&mut conn, id).await?.ok_or(AppError::UnknownModel(id))
    }

    /// All models whose manifests fit the rules, oldest first.
    ///
    /// # Errors
    /// The database.
    pub async fn models(&self) -> AppResult<Vec<ModelView>> {
        let mut conn = self.connection().await?;
        let mut views = Vec::new();
        for stored in models::list(&mut conn).await? {
            match self.model_view(&mut conn, &stored).await {
                Ok(view) => views.push(view),
                // A manifest of long ago that today's rules refuse serves nobody, and hides no other model.
                Err(AppError::Store(StoreError::Corrupt { what: MANIFEST })) => {
                    tracing::warn!(model = %stored.id, "a manifest on record does not fit the rules of today");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(views)
    }

    async fn model_view(&self, conn: &mut Connection, stored: &StoredModel) -> AppResult<ModelView> {
        let model = self.validated(conn, stored.id).await?;
        let missing = match stored.state {
            ModelState::Incomplete => models::missing_files(conn, stored.id).await?,
            ModelState::Serving | ModelState::Voided => Vec::new(),
        };
        Ok(ModelView { id: stored.id, model, state: stored.state, missing })
    }

    /// A model as rules read it, decoded once.
    pub(super) async fn validated(
        &self,
        conn: &mut Connection,
        id: ModelId,
    ) -> AppResult<Arc<ValidatedModel>> {
        if let Some(model) = self.cached(id) {
            return Ok(model);
        }
        let manifest = models::manifest(conn, id).await?.ok_or(AppError::UnknownModel(id))?;
        let corrupt = StoreError::Corrupt { what: MANIFEST };
        let Ok(manifest) = Manifest::from_bytes(&manifest) else { return Err(corrupt.into()) };
        let Ok(model) = manifest.validate() else { return Err(corrupt.into()) };
        let model = Arc::new(model);
        let mut cache = self.inner.models.write().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED_MODELS_MAX {
            cache.clear();
        }
        cache.insert(id, Arc::clone(&model));
        Ok(model)
    }

    fn cached(&self, id: ModelId) -> Option<Arc<ValidatedModel>> {
        self.inner.models.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Starts an upload of a file that some manifest names. Write to it, then [`finish_blob`](Self::finish_blob).
    ///
    /// # Errors
    /// No manifest names such a file.
    pub async fn begin_blob(&self, hash: TensorCommitment) -> AppResult<BlobUpload> {
        let mut conn = self.connection().await?;
        let unstated = self.config().limits.tokenizer_bytes;
        let limit = models::needed(&mut conn, hash, unstated).await?.ok_or(AppError::UnknownBlob(hash))?;
        drop(conn);
        Ok(self.inner.files.begin(hash, limit.min(FILE_BYTES_MAX)).await?)
    }

    /// Ends an upload, and opens every model for jobs for which it was the last file. Idempotent: the same file
    /// again changes nothing.
    ///
    /// # Errors
    /// Hash or length are not those named, or it is to be a chat template and does not compile; then nothing was uploaded.
    pub async fn finish_blob(&self, mut upload: BlobUpload) -> AppResult<()> {
        let stated = upload.stated();
        let file = upload.finish().await?;
        if file.hash != stated {
            return Err(AppError::BlobMismatch { stated, actual: file.hash, actual_bytes: file.bytes });
        }
        self.check_template(&upload).await?;
        self.inner.files.keep(upload, &file.hash).await?;
        let mut work = Work::begin(self).await?;
        let now = work.now().await?;
        for model in models::record_file(&mut work.tx, &file, now).await? {
            work.event("model_serving", About::default(), json!({ "model": model }));
        }
        work.finish().await
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// It was not uploaded.
    pub async fn blob(&self, hash: TensorCommitment) -> AppResult<Blob> {
        let mut conn = self.connection().await?;
        let stored = models::is_stored(&mut conn, hash).await?;
        drop(conn);
        let file = if stored { self.inner.files.get(&hash).await? } else { None };
        file.ok_or(AppError::UnknownBlob(hash))
    }
}

fn needed_files(manifest: &Manifest) -> Vec<NeededFile> {
    let weight = |spec: &TensorSpec| NeededFile {
        hash: spec.commitment,
        bytes: Some(spec.shape().bytes()),
        type_bit: Some(WeightTypes::bit(spec.dtype)),
    };
    let mut files: Vec<NeededFile> = manifest.tensors.iter().map(weight).collect();
    let template = manifest.generation.as_ref().and_then(|generation| generation.template);
    let texts = [Some(manifest.tokenizer), template].into_iter().flatten();
    files.extend(texts.map(|hash| NeededFile { hash, bytes: None, type_bit: None }));
    files
}
