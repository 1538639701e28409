//! The bytes of each token.

use std::collections::HashMap;

use gainsay_program::TokenBytes;
use serde::Deserialize;
use serde_json::Value;

/// Token ids that a table holds at most: ids from 0 to one less.
pub const MAX_TOKEN_IDS: u32 = 1 << 22;

/// How tokenizers of the sentencepiece kind write a space.
const SPACE: &str = "\u{2581}";

/// Why a file gives no table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file is no JSON, or not of the form of a `tokenizer.json`.
    #[error("the tokenizer file does not read")]
    Read(#[source] serde_json::Error),
    /// The tokenizer is of a kind whose tokens have no bytes of their own.
    #[error(
        "the tokenizer's model is {0:?}: only BPE, Unigram and WordLevel have tokens that stand for bytes"
    )]
    Model(String),
    /// An id beyond what a table holds.
    #[error("the tokenizer gives a token the id {0}; ids are below {MAX_TOKEN_IDS}")]
    Id(u64),
    /// A token of more bytes than any language needs: an answer of a few would fill the memory.
    #[error("the tokenizer's token {id} stands for {bytes} bytes; at most {MAX_TOKEN_BYTES} are allowed")]
    LongToken {
        /// Its id.
        id: u32,
        /// Bytes that it stands for.
        bytes: usize,
    },
    /// Two entries of the vocabulary with one id: which of them counts would depend on who reads it.
    #[error("the tokenizer's vocabulary gives the id {0} to two tokens")]
    Twice(u32),
}

/// Bytes that a token may stand for.
pub const MAX_TOKEN_BYTES: usize = 1024;

/// The bytes of every token of a tokenizer. Concatenated, they are the text.
///
/// Special tokens have none: they steer a model and are no part of what it says. An id that the tokenizer does not
/// know has none either, since models may have more rows than their tokenizer has tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenTable {
    bytes: Vec<u8>,
    // Where each token's bytes end; they start where the token before ends.
    ends: Vec<u32>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u64,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    // Older files leave it out of BPE.
    #[serde(rename = "type", default = "bpe")]
    kind: String,
    #[serde(default)]
    byte_fallback: bool,
    vocab: Vocabulary,
}

fn bpe() -> String {
    "BPE".to_owned()
}

/// Token to id, or in the order of ids with scores.
#[derive(Deserialize)]
#[serde(untagged)]
enum Vocabulary {
    Ids(HashMap<String, u64>),
    Scored(Vec<(String, f64)>),
}

/// How tokens are written in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// Each byte as one printable character, as GPT-2 began it.
    ByteLevel,
    /// A space as `▁`, and with byte fallback `<0x0A>` for a byte that no token holds.
    Pieces { byte_fallback: bool },
}

impl TokenTable {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// The file is none that this version understands.
    pub fn from_json(file: &[u8]) -> Result<Self, TableError> {
        let file: File = serde_json::from_slice(file).map_err(TableError::Read)?;
        if !["BPE", "Unigram", "WordLevel"].contains(&file.model.kind.as_str()) {
            return Err(TableError::Model(file.model.kind.chars().take(40).collect()));
        }
        let spelling =
            if names_step(&file.decoder, "ByteLevel") || names_step(&file.pre_tokenizer, "ByteLevel") {
                Spelling::ByteLevel
            } else {
                Spelling::Pieces { byte_fallback: file.model.byte_fallback }
            };
        let vocabulary: Vec<(u64, String)> = match file.model.vocab {
            Vocabulary::Ids(ids) => ids.into_iter().map(|(token, id)| (id, token)).collect(),
            Vocabulary::Scored(tokens) => (0..).zip(tokens.into_iter().map(|(token, _)| token)).collect(),
        };
        let alphabet = byte_level_alphabet();
        let mut tokens: Vec<(u32, Vec<u8>)> = Vec::with_capacity(vocabulary.len() + file.added_tokens.len());
        for (id, token) in vocabulary {
            tokens.push((table_id(id)?, spelled(&token, spelling, &alphabet)));
        }
        tokens.sort_by_key(|(id, _)| *id);
        if let Some(pair) = tokens.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(TableError::Twice(pair[0].0));
        }
        // Later entries of an id win: added tokens are written as they are, whatever the vocabulary says.
        for added in file.added_tokens {
            let bytes = if added.special { Vec::new() } else { added.content.into_bytes() };
            tokens.push((table_id(added.id)?, bytes));
        }
        match tokens.iter().find(|(_, bytes)| bytes.len() > MAX_TOKEN_BYTES) {
            Some((id, bytes)) => Err(TableError::LongToken { id: *id, bytes: bytes.len() }),
            None => Ok(Self::from_tokens(tokens)),
        }
    }

    fn from_tokens(mut tokens: Vec<(u32, Vec<u8>)>) -> Self {
        tokens.sort_by_key(|(id, _)| *id);
        let mut table = Self { bytes: Vec::new(), ends: Vec::new() };
        for chunk in tokens.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((id, bytes)) = chunk.last() else { continue };
            table.ends.resize(*id as usize, table.bytes.len() as u32);
            table.bytes.extend_from_slice(bytes);
            table.ends.push(table.bytes.len() as u32);
        }
        table
    }

    /// The bytes of a token; none for a special or unknown one.
    #[must_use]
    pub fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(end) = self.ends.get(id) else { return &[] };
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..*end as usize]
    }

    /// The bytes of several tokens, one after the other.
    #[must_use]
    pub fn concat(&self, ids: &[u32]) -> Vec<u8> {
        ids.iter().flat_map(|id| self.bytes(*id)).copied().collect()
    }

    /// Ids that it holds: one more than the highest.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it holds no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Memory that it takes, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()
    }
}

impl TokenBytes for TokenTable {
    fn bytes(&self, id: u32) -> &[u8] {
        self.bytes(id)
    }
}

fn table_id(id: u64) -> Result<u32, TableError> {
    u32::try_from(id).ok().filter(|id| *id < MAX_TOKEN_IDS).ok_or(TableError::Id(id))
}

/// Whether a part of the file is this step, or a sequence that holds it.
fn names_step(part: &Value, name: &str) -> bool {
    let lists = ["decoders", "pretokenizers"].into_iter().filter_map(|list| part[list].as_array());
    part["type"] == name || lists.flatten().any(|step| step["type"] == name)
}

fn spelled(token: &str, spelling: Spelling, alphabet: &HashMap<char, u8>) -> Vec<u8> {
    match spelling {
        Spelling::ByteLevel => {
            let bytes: Option<Vec<u8>> = token.chars().map(|c| alphabet.get(&c).copied()).collect();
            // A token with a character outside the alphabet stands for itself.
            bytes.unwrap_or_else(|| token.as_bytes().to_vec())
        }
        Spelling::Pieces { byte_fallback: true } if let Some(byte) = fallback_byte(token) => vec![byte],
        Spelling::Pieces { .. } => token.replace(SPACE, " ").into_bytes(),
    }
}

/// The byte of a token like `<0x0A>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// The characters that stand for bytes: printable Latin-1 for itself, the 68 others from U+0100 on, in order.
fn byte_level_alphabet() -> HashMap<char, u8> {
    let is_itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut shifted = '\u{100}'..;
    let character = |byte: u8| match is_itself(byte) {
        true => char::from(byte),
        false => shifted.next().expect("there are far more than 68 characters"),
    };
    (0..=u8::MAX).map(character).zip(0..=u8::MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(file: Value) -> TokenTable {
        TokenTable::from_json(file.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_token_that_would_fill_the_memory_and_an_id_given_twice_are_refused() {
        let file = |token: String| json!({"model": {"type": "BPE", "vocab": {token: 0}}}).to_string();
        assert!(TokenTable::from_json(file("x".repeat(MAX_TOKEN_BYTES)).as_bytes()).is_ok());
        let long = TokenTable::from_json(file("x".repeat(MAX_TOKEN_BYTES + 1)).as_bytes());
        assert!(matches!(long, Err(TableError::LongToken { id: 0, bytes: 1025 })), "{long:?}");
        let twice = json!({"model": {"type": "BPE", "vocab": {"end": 5, "other": 5}}}).to_string();
        assert!(matches!(TokenTable::from_json(twice.as_bytes()), Err(TableError::Twice(5))));
    }

    /// GPT-2's alphabet is fixed by what everybody ships: space is Ġ, a line feed Ċ, a soft hyphen Ń.
    #[test]
    fn byte_level_tokens_are_the_bytes_that_their_characters_stand_for() {
        let alphabet = byte_level_alphabet();
        assert_eq!(alphabet.len(), 256);
        assert_eq!(
            [alphabet[&'Ġ'], alphabet[&'Ċ'], alphabet[&'Ń'], alphabet[&'a']],
            [b' ', b'\n', 0xad, b'a']
        );
        let table = table(json!({
            "added_tokens": [
                {"id": 3, "content": "<|end|>", "special": true},
                {"id": 5, "content": "<tool é>", "special": false},
            ],
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]},
            "decoder": null,
            "model": {"type": "BPE", "vocab": {"Ġthe": 0, "Ã": 1, "©": 2, "<|end|>": 3}, "merges": []},
        }));
        assert_eq!(table.concat(&[0, 1, 2]), " the\u{e9}".as_bytes());
        assert_eq!(table.bytes(3), b"", "special tokens are not text");
        assert_eq!(table.bytes(4), b"", "a gap in the ids has no bytes");
        assert_eq!(table.bytes(5), "<tool é>".as_bytes());
        assert_eq!(table.bytes(6), b"");
        assert_eq!(table.len(), 6);
    }

    #[test]
    fn pieces_hold_spaces_and_bytes() {
        let file = |fallback: bool| {
            json!({
                "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
                "model": {"type": "BPE", "byte_fallback": fallback,
                    "vocab": {"▁Hello": 0, "<0x0A>": 1, "<0xF0>": 2, "<0xzz>": 3, "▁▁": 4}, "merges": []},
            })
        };
        let tokens = table(file(true));
        assert_eq!(tokens.concat(&[0, 1, 2, 3, 4]), b" Hello\n\xf0<0xzz>  ");
        assert_eq!(table(file(false)).bytes(1), b"<0x0A>");
    }

    #[test]
    fn a_unigram_list_counts_its_ids() {
        let table =
            table(json!({"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["▁a", -1.5], ["b", -2]]}}));
        assert_eq!(table.concat(&[1, 2]), b" ab");
    }

    /// One entry must not make the service allocate for four billion tokens.
    #[test]
    fn what_is_no_tokenizer_is_refused() {
        for file in ["", "[]", "{}", r#"{"model":{"type":"BPE"}}"#, r#"{"model":{"vocab":{"a":-1}}}"#] {
            assert!(matches!(TokenTable::from_json(file.as_bytes()), Err(TableError::Read(_))), "{file:?}");
        }
        let far = json!({"model": {"vocab": {"a": MAX_TOKEN_IDS}}}).to_string();
        assert!(matches!(TokenTable::from_json(far.as_bytes()), Err(TableError::Id(_))));
        let far =
            json!({"model": {"vocab": {}}, "added_tokens": [{"id": u64::MAX, "content": ""}]}).to_string();
        assert!(matches!(TokenTable::from_json(far.as_bytes()), Err(TableError::Id(_))));
        let words = json!({"model": {"type": "WordPiece", "vocab": {"a": 0}}}).to_string();
        assert!(matches!(TokenTable::from_json(words.as_bytes()), Err(TableError::Model(_))));
    }
}
