//! Text to token ids, by the tokenizer file that a model's manifest names by hash.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use gainsay_commitment::TensorCommitment;
use serde_json::Value;
use tokenizers::Tokenizer;

/// Tokenizers kept decoded; a vocabulary of 30,000 words takes some ten megabytes.
const CACHE_MAX: usize = 8;

/// What may change a text. Not what its file can make replace one character by a million.
const NORMALIZERS: [&str; 8] =
    ["BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Strip", "StripAccents"];
/// What tokenizers of the Llama family do to a text: a space is written `▁`, and one is put before the text.
const SPACE: &str = "\u{2581}";
/// Patterns by which the tokenizers of language models cut a text into words: Llama 3's, Qwen's, GPT-2's, and the one of
/// models that share GPT-4's. Each runs in time proportional to the text.
const PATTERNS: [&str; 5] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"\p{N}{1,3}",
];
/// What may cut a text into words. Not patterns of the file's own, which may take for ever.
const PRE_TOKENIZERS: [&str; 9] = [
    "BertPreTokenizer",
    "ByteLevel",
    "Delimiter",
    "Digits",
    "Metaspace",
    "Punctuation",
    "UnicodeScripts",
    "Whitespace",
    "WhitespaceSplit",
];
/// What may put special tokens around a text.
const POST_PROCESSORS: [&str; 4] = ["BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing"];
/// What may cut words into tokens.
const MODELS: [&str; 3] = ["BPE", "WordLevel", "WordPiece"];
/// Pieces of a template, and ids of one of its special tokens.
const PIECES_MAX: usize = 8;
/// Characters of the words that WordPiece looks up, of which it copies every part that a token might be.
const WORD_CHARS_MAX: u64 = 200;
/// Bytes of what marks parts of words, which is copied for every part.
const AFFIX_MAX: usize = 16;

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
    /// Reads a `tokenizer.json`. Anybody can publish a model, so a file may do only what costs time and memory in
    /// proportion to the text.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let mut file: Value =
            serde_json::from_slice(bytes).map_err(|error| TokenizerError::Load(error.into()))?;
        check(&file).map_err(|what| TokenizerError::Load(what.into()))?;
        if let Some(fields) = file.as_object_mut() {
            for unused in ["truncation", "padding", "decoder"] {
                fields.insert(unused.to_owned(), Value::Null);
            }
        }
        // Written anew: what is read is what was checked, whatever the file says twice.
        let tokenizer = Tokenizer::from_bytes(file.to_string()).map_err(TokenizerError::Load)?;
        Ok(Self(tokenizer))
    }

    /// The ids of the text, with the special tokens that the model expects around it or without.
    pub(crate) fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.0.encode_fast(text, special).map_err(TokenizerError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// All texts in order, off the threads that serve requests: long texts take milliseconds. `turn` is dropped when
    /// the work is over, which is not when nobody waits for it any more.
    pub(crate) async fn encode_all(
        self: Arc<Self>,
        texts: Vec<String>,
        special: bool,
        turn: impl Send + 'static,
    ) -> Result<Vec<Vec<u32>>, TokenizerError> {
        let work = move || {
            let _turn = turn;
            texts.iter().map(|text| self.encode(text, special)).collect()
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(TokenizerError::Panicked))
    }
}

/// Whether a file holds only what is known to be bounded.
fn check(file: &Value) -> Result<(), &'static str> {
    let known = chain(&file["normalizer"], "normalizers", &NORMALIZERS, marks_spaces)
        && chain(&file["pre_tokenizer"], "pretokenizers", &PRE_TOKENIZERS, is_known_split)
        && chain(&file["post_processor"], "processors", &POST_PROCESSORS, |_| false)
        && file["model"]["dropout"].as_f64().unwrap_or(0.0) == 0.0
        && file["model"]["type"].as_str().is_some_and(|name| MODELS.contains(&name));
    let word = &file["model"]["max_input_chars_per_word"];
    let affixes = ["continuing_subword_prefix", "end_of_word_suffix"].map(|name| &file["model"][name]);
    let added = file["added_tokens"].as_array();
    let processor = &file["post_processor"];
    let none = Vec::new();
    let templates = processor["processors"].as_array().unwrap_or(&none).iter().chain([processor]);
    if !known {
        Err("it asks for a step that is not offered here")
    } else if !word.is_null() && word.as_u64().is_none_or(|chars| chars > WORD_CHARS_MAX) {
        Err("it asks for words that are too long")
    } else if !affixes.iter().all(|affix| affix.as_str().is_none_or(|affix| affix.len() <= AFFIX_MAX)) {
        Err("it marks parts of words by something too long")
    } else if !added.is_none_or(|added| added.iter().all(takes_no_blanks)) {
        Err("it has an added token of blanks that takes the blanks around it")
    } else if !templates.clone().all(is_short) {
        Err("it puts too many special tokens around a text")
    } else {
        Ok(())
    }
}

/// Nothing, one known step, or a sequence of different ones. `special` knows steps that are fit with certain settings alone.
fn chain(part: &Value, steps: &str, known: &[&str], special: fn(&Value) -> bool) -> bool {
    let is_known =
        |step: &Value| step["type"].as_str().is_some_and(|name| known.contains(&name)) || special(step);
    match (part.is_null(), part["type"].as_str()) {
        (true, _) => true,
        (false, Some("Sequence")) => {
            let Some(steps) = part[steps].as_array() else { return false };
            let once = |(place, step): (usize, &Value)| {
                steps[..place].iter().all(|before| before["type"] != step["type"])
            };
            steps.len() <= known.len() && steps.iter().all(is_known) && steps.iter().enumerate().all(once)
        }
        (false, _) => is_known(part),
    }
}

/// A step that writes spaces as tokenizers of the sentencepiece kind do.
fn marks_spaces(step: &Value) -> bool {
    match step["type"].as_str() {
        Some("Prepend") => step["prepend"] == SPACE,
        Some("Replace") => step["pattern"]["String"] == " " && step["content"] == SPACE,
        _ => false,
    }
}

/// A step that cuts by a pattern which is known to be fast.
fn is_known_split(step: &Value) -> bool {
    let pattern = step["pattern"]["Regex"].as_str();
    step["type"] == "Split" && pattern.is_some_and(|pattern| PATTERNS.contains(&pattern))
}

/// Whether an added token is found in a run of blanks without taking the rest of the run with it: each of them would, and what
/// is kept of a text would be the square of its length.
fn takes_no_blanks(token: &Value) -> bool {
    let strips = token["lstrip"] != false || token["rstrip"] != false;
    !strips || token["content"].as_str().is_some_and(|content| !content.contains(char::is_whitespace))
}

/// Whether a post-processor, where it is a template, adds a few tokens.
fn is_short(processor: &Value) -> bool {
    let few = |list: &Value| list.as_array().is_some_and(|list| list.len() <= PIECES_MAX);
    if processor["type"] != "TemplateProcessing" {
        return true;
    }
    let special = processor["special_tokens"].as_object();
    few(&processor["single"])
        && few(&processor["pair"])
        && special
            .is_some_and(|tokens| tokens.values().all(|token| few(&token["ids"]) && few(&token["tokens"])))
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
        turn: impl Send + 'static,
    ) -> Result<Arc<TextTokenizer>, TokenizerError> {
        let work = move || {
            let _turn = turn;
            TextTokenizer::from_json(&json)
        };
        let decoded = tokio::task::spawn_blocking(work).await;
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
    use serde_json::json;

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
        assert_eq!(tokenizer.encode("one two three four", true).unwrap(), [1, 2, 3, 0]);
    }

    /// A broken file must be an error, never a panic of the service.
    #[test]
    fn a_file_that_is_no_tokenizer_is_refused() {
        for file in ["", "{}", "[]", "\u{0}", r#"{"model":{"type":"BPE"}}"#] {
            assert!(TextTokenizer::from_json(file.as_bytes()).is_err(), "{file:?} was taken");
        }
    }

    /// Each of these turned one short text into more than any memory holds, or into work without end.
    #[test]
    fn a_file_that_blows_up_a_text_is_refused() {
        let bomb = |part: &str, with: Value| {
            let mut file: Value = serde_json::from_str(FILE).unwrap();
            file[part] = with;
            TextTokenizer::from_json(file.to_string().as_bytes())
        };
        let swell = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaa"});
        let many = json!({"type": "Sequence", "normalizers": vec![swell.clone(); 12]});
        let doubling =
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
        let doublings = json!({"type": "Sequence", "pretokenizers": vec![doubling.clone(); 32]});
        let pattern =
            json!({"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": false});
        let nested = json!({"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": []}]});
        let pieces = vec![json!({"SpecialToken": {"id": "one", "type_id": 0}}); 1_000];
        let special = json!({"one": {"id": "one", "ids": [1], "tokens": ["one"]}});
        let template =
            json!({"type": "TemplateProcessing", "single": pieces, "pair": [], "special_tokens": special});
        let word_piece = |prefix: &str, chars: u64| {
            json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": prefix,
                "max_input_chars_per_word": chars, "vocab": {"[UNK]": 0}})
        };
        let blank = |content: &str, strips: bool| {
            json!([{"id": 1, "content": content, "single_word": false, "lstrip": false, "rstrip": strips,
                "normalized": false, "special": false}])
        };
        for (part, with) in [
            ("normalizer", swell),
            ("normalizer", many),
            ("normalizer", nested),
            ("pre_tokenizer", doublings),
            ("pre_tokenizer", pattern),
            ("post_processor", template.clone()),
            ("post_processor", json!({"type": "Sequence", "processors": [template]})),
            ("model", word_piece("##", 1_000_000)),
            ("model", word_piece(&"#".repeat(100_000), 100)),
            ("added_tokens", blank(" ", true)),
            ("added_tokens", blank("\u{3000}", true)),
        ] {
            assert!(bomb(part, with.clone()).is_err(), "{part}: {with}");
        }
        assert!(bomb("pre_tokenizer", doubling).is_ok());
        assert!(bomb("model", word_piece("##", 100)).is_ok());
        assert!(bomb("added_tokens", blank(" ", false)).is_ok());
        assert!(bomb("added_tokens", blank("<mask>", true)).is_ok());
        assert!(bomb("normalizer", json!({"type": "Sequence", "normalizers": [{"type": "NFC"}]})).is_ok());
    }

    /// Without a bound, a flood of models would fill the memory.
    #[tokio::test]
    async fn the_cache_keeps_the_ones_used_last() {
        let tokenizers = Tokenizers::default();
        let hash = |n: u8| TensorCommitment::from([n; 32]);
        for n in 0..CACHE_MAX as u8 {
            tokenizers.load(hash(n), FILE.into(), ()).await.unwrap();
        }
        assert!(tokenizers.cached(hash(0)).is_some());
        tokenizers.load(hash(200), FILE.into(), ()).await.unwrap();
        assert!(tokenizers.cached(hash(1)).is_none(), "the one unused longest was kept");
        assert!(tokenizers.cached(hash(0)).is_some());
        assert!(tokenizers.cached(hash(200)).is_some());
    }
}
