//! Text to token ids, by the tokenizer file that a model's manifest names by hash.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use gainsay_commitment::TensorCommitment;
use tokenizers::Tokenizer;

/// Tokenizers kept decoded; a vocabulary of 30,000 words takes some ten megabytes.
const CACHE_MAX: usize = 8;

/// Why text did not become token ids.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenizerError {
    /// The file is no tokenizer that this version understands: the model owner's doing.
    #[error("the tokenizer file does not load")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The tokenizer has no answer for this text, say no unknown token.
    #[error("the tokenizer does not take the text")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The tokenizer panicked.
    #[error("the tokenizer broke off")]
    Panicked,
}

/// One model's tokenizer, without the truncation and padding that its file may ask for: a job holds exactly
/// the tokens of its text.
#[derive(Debug)]
pub(crate) struct TextTokenizer(Tokenizer);

impl TextTokenizer {
    /// Reads a `tokenizer.json`.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(TokenizerError::Load)?;
        tokenizer.with_truncation(None).map_err(TokenizerError::Load)?;
        tokenizer.with_padding(None);
        Ok(Self(tokenizer))
    }

    /// The ids of the text with the special tokens that the model expects around it.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.0.encode_fast(text, true).map_err(TokenizerError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// All texts in order, off the threads that serve requests: long texts take milliseconds, and a hostile
    /// tokenizer file may make it more.
    pub(crate) async fn encode_all(
        self: Arc<Self>,
        texts: Vec<String>,
    ) -> Result<Vec<Vec<u32>>, TokenizerError> {
        let work = move || texts.iter().map(|text| self.encode(text)).collect();
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(TokenizerError::Panicked))
    }
}

/// The tokenizers used last, by the hash of their file.
#[derive(Debug, Default)]
pub(crate) struct Tokenizers {
    // In the order of last use. A handful: a scan beats a map.
    recent: Mutex<VecDeque<(TensorCommitment, Arc<TextTokenizer>)>>,
}

impl Tokenizers {
    /// The tokenizer of this hash, if it was used lately.
    pub(crate) fn cached(&self, hash: TensorCommitment) -> Option<Arc<TextTokenizer>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let place = recent.iter().position(|(kept, _)| *kept == hash)?;
        let entry = recent.remove(place)?;
        let tokenizer = Arc::clone(&entry.1);
        recent.push_back(entry);
        Some(tokenizer)
    }

    /// Decodes the file, whose hash the caller has checked, and keeps it.
    pub(crate) async fn load(
        &self,
        hash: TensorCommitment,
        json: Vec<u8>,
    ) -> Result<Arc<TextTokenizer>, TokenizerError> {
        let decoded = tokio::task::spawn_blocking(move || TextTokenizer::from_json(&json)).await;
        let tokenizer = Arc::new(decoded.unwrap_or(Err(TokenizerError::Panicked))?);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|(kept, _)| *kept != hash);
        if recent.len() == CACHE_MAX {
            recent.pop_front();
        }
        recent.push_back((hash, Arc::clone(&tokenizer)));
        Ok(tokenizer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A word tokenizer whose file asks for truncation to two tokens and padding to eight, as all-MiniLM's
    /// asks for 128.
    const FILE: &str = r#"{
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "[UNK]"},
        "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "one": 1, "two": 2, "three": 3},
                  "unk_token": "[UNK]"}
    }"#;

    /// A truncated or padded job would not be the text that the submitter pays for.
    #[test]
    fn neither_truncation_nor_padding_of_the_file_applies() {
        let tokenizer = TextTokenizer::from_json(FILE.as_bytes()).unwrap();
        assert_eq!(tokenizer.encode("one two three four").unwrap(), [1, 2, 3, 0]);
    }

    /// A broken file must be an error, never a panic of the service.
    #[test]
    fn a_file_that_is_no_tokenizer_is_refused() {
        for file in ["", "{}", "[]", "\u{0}", r#"{"model":{"type":"BPE"}}"#] {
            assert!(TextTokenizer::from_json(file.as_bytes()).is_err(), "{file:?} was taken");
        }
    }

    /// Without a bound, a flood of models would fill the memory.
    #[tokio::test]
    async fn the_cache_keeps_the_ones_used_last() {
        let tokenizers = Tokenizers::default();
        let hash = |n: u8| TensorCommitment::from([n; 32]);
        for n in 0..CACHE_MAX as u8 {
            tokenizers.load(hash(n), FILE.into()).await.unwrap();
        }
        assert!(tokenizers.cached(hash(0)).is_some());
        tokenizers.load(hash(200), FILE.into()).await.unwrap();
        assert!(tokenizers.cached(hash(1)).is_none(), "the one unused longest was kept");
        assert!(tokenizers.cached(hash(0)).is_some());
        assert!(tokenizers.cached(hash(200)).is_some());
    }
}
