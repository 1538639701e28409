//! What stands between token ids and text, by the files that a model brings: token bytes and chat templates.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use gainsay_commitment::TensorCommitment;
use gainsay_program::ValidatedModel;
use gainsay_text::{ChatTemplate, MAX_TEMPLATE_BYTES, TokenTable};
use tokio::sync::Semaphore;

use super::{App, AppError, AppResult};

/// Tables, and templates, that are kept decoded. A table of 150,000 tokens takes two megabytes.
const KEPT: usize = 16;
/// Files that are decoded at a time: while it is, one takes several times its size.
const DECODING: usize = 2;

/// The files used last by their hashes, decoded; none for a file that does not decode.
#[derive(Debug)]
struct Recent<T>(Mutex<VecDeque<(TensorCommitment, Option<Arc<T>>)>>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Recent<T> {
    fn get(&self, hash: TensorCommitment) -> Option<Option<Arc<T>>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(known, _)| *known == hash)?;
        let entry = kept.remove(place)?;
        let decoded = entry.1.clone();
        kept.push_back(entry);
        Some(decoded)
    }

    fn keep(&self, hash: TensorCommitment, decoded: Option<Arc<T>>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(known, _)| *known != hash);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((hash, decoded));
    }
}

/// Decoded files.
#[derive(Debug)]
pub(super) struct Texts {
    tables: Recent<TokenTable>,
    templates: Recent<ChatTemplate>,
    turns: Semaphore,
}

impl Default for Texts {
    fn default() -> Self {
        Self { tables: Recent::default(), templates: Recent::default(), turns: Semaphore::new(DECODING) }
    }
}

impl App {
    /// The bytes of the model's tokens; none where its tokenizer is of a kind that has none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn token_table(&self, model: &ValidatedModel) -> AppResult<Option<Arc<TokenTable>>> {
        let (hash, limit) = (model.manifest().tokenizer, self.config().limits.tokenizer_bytes);
        let decode = |file: &[u8]| TokenTable::from_json(file).map_err(|error| error.to_string());
        self.decoded(&self.inner.texts.tables, hash, limit, decode).await
    }

    /// The model's chat template; none where it has none, or one that does not compile.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn chat_template(&self, model: &ValidatedModel) -> AppResult<Option<Arc<ChatTemplate>>> {
        let template = model.manifest().generation.as_ref().and_then(|generation| generation.template);
        let Some(hash) = template else { return Ok(None) };
        let decode = |file: &[u8]| ChatTemplate::from_json(file).map_err(|error| error.to_string());
        self.decoded(&self.inner.texts.templates, hash, MAX_TEMPLATE_BYTES as u64, decode).await
    }

    async fn decoded<T: Send + Sync + 'static>(
        &self,
        kept: &Recent<T>,
        hash: TensorCommitment,
        limit: u64,
        decode: impl FnOnce(&[u8]) -> Result<T, String> + Send + 'static,
    ) -> AppResult<Option<Arc<T>>> {
        if let Some(known) = kept.get(hash) {
            return Ok(known);
        }
        let _turn = self.inner.texts.turns.acquire().await.expect("nobody closes the semaphore");
        // Others may have waited for the same file.
        if let Some(known) = kept.get(hash) {
            return Ok(known);
        }
        let blob = self.blob(hash).await?;
        let decoded = if blob.len() > limit {
            Err("it is too long".to_owned())
        } else {
            let file = blob.read_all().await.map_err(AppError::Blob)?;
            let decoding = tokio::task::spawn_blocking(move || decode(&file)).await;
            decoding.unwrap_or_else(|_| Err("decoding it panicked".to_owned()))
        };
        let decoded = match decoded {
            Ok(decoded) => Some(Arc::new(decoded)),
            Err(error) => {
                tracing::info!(file = %hash, error, "a model's text file is of no use here");
                None
            }
        };
        kept.keep(hash, decoded.clone());
        Ok(decoded)
    }
}
