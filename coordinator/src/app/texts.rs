//! What stands between token ids and text, by the files that a model brings: token bytes and chat templates.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use gainsay_commitment::TensorCommitment;
use gainsay_program::ValidatedModel;
use gainsay_text::{ChatMessage, MAX_TEMPLATE_BYTES, TemplateError, TokenTable, UnixSeconds};
use tokio::sync::Semaphore;

use super::{App, AppError, AppResult};
use crate::blob::BlobUpload;
use crate::store::models;
use crate::templates::{Template, TemplateHost, Templates};

/// Bytes of tables that are kept. A table of 150,000 tokens takes two megabytes.
const TABLES_KEPT: usize = 128 << 20;
/// Bytes of templates that are kept.
const TEMPLATES_KEPT: usize = 16 << 20;
/// What an entry counts for besides what it holds, so that files that do not decode are few too.
const ENTRY_BYTES: usize = 4 << 10;
/// Files that are decoded at a time for each kind of caller: while it is, one takes several times its size.
const DECODING: usize = 1;
/// Callers of a kind that may wait for it.
const WAITING: usize = 64;
/// Models that are looked at to tell what a file is to them.
const NEEDED_BY: i64 = 16;

/// The files used last by their hashes, decoded; none for a file that does not decode.
#[derive(Debug)]
struct Recent<T> {
    kept: Mutex<VecDeque<Entry<T>>>,
    budget: usize,
}

#[derive(Debug)]
struct Entry<T> {
    hash: TensorCommitment,
    decoded: Option<Arc<T>>,
    bytes: usize,
}

impl<T> Recent<T> {
    fn new(budget: usize) -> Self {
        Self { kept: Mutex::default(), budget }
    }

    fn get(&self, hash: TensorCommitment) -> Option<Option<Arc<T>>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|entry| entry.hash == hash)?;
        let entry = kept.remove(place)?;
        let decoded = entry.decoded.clone();
        kept.push_back(entry);
        Some(decoded)
    }

    /// Keeps a file, and forgets those that were used longest ago as far as there is no room.
    fn keep(&self, hash: TensorCommitment, decoded: Option<Arc<T>>, bytes: usize) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|entry| entry.hash != hash);
        kept.push_back(Entry { hash, decoded, bytes: bytes.saturating_add(ENTRY_BYTES) });
        let mut sum: usize = kept.iter().map(|entry| entry.bytes).fold(0, usize::saturating_add);
        while sum > self.budget
            && kept.len() > 1
            && let Some(oldest) = kept.pop_front()
        {
            sum -= oldest.bytes.min(sum);
        }
    }
}

/// Who needs a file decoded. Each kind waits in a line of its own: requests for text, which cost nothing, cannot keep
/// claims from being taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A request for text.
    Request,
    /// The claim of a worker that holds the lease.
    Claim,
}

/// Turns at decoding, and places in the line for them.
#[derive(Debug)]
struct Line {
    room: Semaphore,
    turns: Semaphore,
}

impl Default for Line {
    fn default() -> Self {
        Self { room: Semaphore::new(DECODING + WAITING), turns: Semaphore::new(DECODING) }
    }
}

/// Decoded files.
#[derive(Debug)]
pub(super) struct Texts {
    tables: Recent<TokenTable>,
    templates: Recent<Template>,
    renderers: Templates,
    requests: Line,
    claims: Line,
}

impl Texts {
    pub(super) fn new(host: TemplateHost) -> Self {
        Self {
            tables: Recent::new(TABLES_KEPT),
            templates: Recent::new(TEMPLATES_KEPT),
            renderers: Templates::new(host),
            requests: Line::default(),
            claims: Line::default(),
        }
    }

    fn line(&self, caller: Caller) -> &Line {
        match caller {
            Caller::Request => &self.requests,
            Caller::Claim => &self.claims,
        }
    }
}

impl App {
    /// The bytes of the model's tokens; none where its tokenizer is of a kind that has none.
    ///
    /// # Errors
    /// The file cannot be read, or too many are waiting.
    pub async fn token_table(
        &self,
        model: &ValidatedModel,
        caller: Caller,
    ) -> AppResult<Option<Arc<TokenTable>>> {
        let (hash, limit) = (model.manifest().tokenizer, self.config().limits.tokenizer_bytes);
        let decode = |file: Vec<u8>| {
            let table = TokenTable::from_json(&file).map_err(|error| error.to_string())?;
            let bytes = table.memory();
            Ok((table, bytes))
        };
        self.decoded(&self.inner.texts.tables, hash, limit, caller, decode).await
    }

    /// The prompt of a conversation by the model's chat template; none where it has no template.
    ///
    /// # Errors
    /// The template is none, or does not take the conversation; the file cannot be read; too many are waiting.
    pub async fn chat_prompt(
        &self,
        model: &ValidatedModel,
        messages: Vec<ChatMessage>,
        now: UnixSeconds,
    ) -> AppResult<Option<String>> {
        let template = model.manifest().generation.as_ref().and_then(|generation| generation.template);
        let Some(hash) = template else { return Ok(None) };
        let decode = move |file: Vec<u8>| {
            let template = Template::new(hash, file).map_err(|error| error.to_string())?;
            let bytes = template.file.len();
            Ok((template, bytes))
        };
        let (kept, limit) = (&self.inner.texts.templates, MAX_TEMPLATE_BYTES as u64);
        let Some(template) = self.decoded(kept, hash, limit, Caller::Request, decode).await? else {
            return Err(TemplateError::File("it is too long, or no text".to_owned()).into());
        };
        Ok(Some(self.inner.texts.renderers.render(template, messages, now).await?))
    }

    /// Refuses a file that is to be a chat template, and does not compile. A file that some model names as anything else is
    /// left alone: nobody's manifest may keep a file from others.
    pub(super) async fn check_template(&self, upload: &BlobUpload) -> AppResult<()> {
        let hash = upload.stated();
        let mut conn = self.connection().await?;
        for model in models::needing(&mut conn, hash, NEEDED_BY).await? {
            let model = self.validated(&mut conn, model).await?;
            let manifest = model.manifest();
            let template = manifest.generation.as_ref().and_then(|generation| generation.template);
            let is_weight = manifest.tensors.iter().any(|tensor| tensor.commitment == hash);
            if template != Some(hash) || manifest.tokenizer == hash || is_weight {
                return Ok(());
            }
        }
        drop(conn);
        let file = upload.read(MAX_TEMPLATE_BYTES as u64).await?;
        let file = file.ok_or_else(|| TemplateError::File("it is too long".to_owned()))?;
        Ok(self.inner.texts.renderers.compile(Template::new(hash, file)?).await?)
    }

    async fn decoded<T: Send + Sync + 'static>(
        &self,
        kept: &Recent<T>,
        hash: TensorCommitment,
        limit: u64,
        caller: Caller,
        decode: impl FnOnce(Vec<u8>) -> Result<(T, usize), String> + Send + 'static,
    ) -> AppResult<Option<Arc<T>>> {
        if let Some(known) = kept.get(hash) {
            return Ok(known);
        }
        let line = self.inner.texts.line(caller);
        let _room = line.room.try_acquire().map_err(|_| AppError::TextBusy)?;
        let _turn = line.turns.acquire().await.expect("nobody closes the semaphore");
        // Others may have waited for the same file.
        if let Some(known) = kept.get(hash) {
            return Ok(known);
        }
        let blob = self.blob(hash).await?;
        let decoded = if blob.len() > limit {
            Err("it is too long".to_owned())
        } else {
            let file = blob.read_all().await.map_err(AppError::Blob)?;
            let decoding = tokio::task::spawn_blocking(move || decode(file)).await;
            decoding.unwrap_or_else(|_| Err("decoding it panicked".to_owned()))
        };
        let (decoded, bytes) = match decoded {
            Ok((decoded, bytes)) => (Some(Arc::new(decoded)), bytes),
            Err(error) => {
                tracing::info!(file = %hash, error, "a model's text file is of no use here");
                (None, 0)
            }
        };
        kept.keep(hash, decoded.clone(), bytes);
        Ok(decoded)
    }
}

#[cfg(test)]
mod tests {
    use gainsay_commitment::tensor::tensor_commitment;

    use super::*;

    /// Whoever registers models with large files must not be able to fill the memory with them.
    #[test]
    fn what_was_used_longest_ago_makes_room_by_bytes() {
        let hash = |n: u8| tensor_commitment(&[n]);
        let kept: Recent<u8> = Recent::new(3 * (ENTRY_BYTES + 1_000));
        for n in 0..3 {
            kept.keep(hash(n), Some(Arc::new(n)), 1_000);
        }
        assert!(kept.get(hash(0)).is_some());
        kept.keep(hash(3), None, 0);
        assert!(kept.get(hash(1)).is_none(), "the one used longest ago went");
        assert_eq!(kept.get(hash(0)).flatten().as_deref(), Some(&0));
        assert!(kept.get(hash(3)).is_some_and(|known| known.is_none()), "that it is of no use is kept too");
        kept.keep(hash(4), Some(Arc::new(4)), 1 << 30);
        assert!(kept.get(hash(0)).is_none() && kept.get(hash(4)).is_some());
    }
}
