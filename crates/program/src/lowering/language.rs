//! The files of a language model's checkpoint, and what its configuration says, as far as it is supported.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::ConfigError;
use super::config::{CONFIG, at_least_one, expect, parse};
use super::decoder::DecoderShape;
use super::rope::Rope;
use crate::{MAX_TOP_K, SamplingDefaults};

const GENERATION: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer_config.json";
/// Where the weights are, if they are in one file.
const WHOLE: &str = "model.safetensors";
/// Which file each tensor is in, if they are in several.
const INDEX: &str = "model.safetensors.index.json";
/// Files that a checkpoint may be cut into.
const MAX_SHARDS: usize = 1_024;

/// The bytes of the files of a language model.
#[derive(Clone, Debug)]
pub struct LanguageFiles {
    /// `config.json`: the transformer.
    pub config: Vec<u8>,
    /// `model.safetensors`, or the files that `model.safetensors.index.json` names, in the order of their names.
    pub weights: Vec<Vec<u8>>,
    /// `tokenizer.json`; only its hash enters the manifest.
    pub tokenizer: Vec<u8>,
    /// `generation_config.json`, where there is one: which tokens end an answer, and how they are drawn.
    pub generation: Option<Vec<u8>>,
    /// `tokenizer_config.json`, where there is one: the chat template, and the tokens that it names.
    pub tokenizer_config: Option<Vec<u8>>,
    /// `chat_template.jinja`, where there is one: then this is the chat template.
    pub template: Option<Vec<u8>>,
}

/// Why the files of a language model could not be gathered.
#[derive(Debug, thiserror::Error)]
pub enum LanguageFilesError<E: std::error::Error + 'static> {
    /// The caller could not read a file.
    #[error("cannot read {name}")]
    Read {
        /// Name relative to the model's folder.
        name: String,
        /// The caller's reason.
        #[source]
        source: E,
    },
    /// A file that every model has is not there.
    #[error("there is no {name}")]
    Missing {
        /// Name relative to the model's folder.
        name: String,
    },
    /// The index of the weights does not parse, or names something that is no file of the folder.
    #[error("model.safetensors.index.json does not name files of the model's folder")]
    Index,
}

#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

impl LanguageFiles {
    /// Gathers the files, asking `read` for each by its name relative to the model's folder. It answers nothing for a file that is
    /// not there.
    ///
    /// # Errors
    /// A file that cannot be read, or is not there and has to be.
    pub fn load<E: std::error::Error + 'static>(
        mut read: impl FnMut(&str) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Self, LanguageFilesError<E>> {
        let mut find = |name: &str| {
            read(name).map_err(|source| LanguageFilesError::Read { name: name.to_owned(), source })
        };
        let missing = |name: &str| LanguageFilesError::Missing { name: name.to_owned() };
        let config = find(CONFIG)?.ok_or_else(|| missing(CONFIG))?;
        let tokenizer = find("tokenizer.json")?.ok_or_else(|| missing("tokenizer.json"))?;
        let weights = match find(INDEX)? {
            None => vec![find(WHOLE)?.ok_or_else(|| missing(WHOLE))?],
            Some(index) => {
                let names = shards(&index).ok_or(LanguageFilesError::Index)?;
                let mut shard = |name: &String| find(name)?.ok_or_else(|| missing(name));
                names.iter().map(&mut shard).collect::<Result<_, _>>()?
            }
        };
        let (generation, tokenizer_config) = (find(GENERATION)?, find(TOKENIZER)?);
        Ok(Self {
            config,
            weights,
            tokenizer,
            generation,
            tokenizer_config,
            template: find("chat_template.jinja")?,
        })
    }
}

/// The files that an index names. The names come from a stranger's file: only plain file names will do.
fn shards(index: &[u8]) -> Option<Vec<String>> {
    let index: Index = serde_json::from_slice(index).ok()?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort_unstable();
    names.dedup();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let is_file =
        |name: &String| name.ends_with(".safetensors") && !name.starts_with('.') && name.chars().all(plain);
    ((1..=MAX_SHARDS).contains(&names.len()) && names.iter().all(is_file)).then_some(names)
}

/// The families, by `model_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    /// Llama 2, 3 and their like, SmolLM2 among them.
    Llama,
    Mistral,
    /// Qwen2 and Qwen2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen3: each head of queries and keys is normalized.
    Qwen3,
}

/// Whether this `config.json` is of a language model that lowering may understand.
pub(super) fn is_language_model(config: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        model_type: String,
    }
    serde_json::from_slice::<Kind>(config).is_ok_and(|kind| family(&kind.model_type).is_some())
}

fn family(model_type: &str) -> Option<Family> {
    Some(match model_type {
        "llama" => Family::Llama,
        "mistral" => Family::Mistral,
        "qwen2" => Family::Qwen2,
        "qwen3" => Family::Qwen3,
        _ => return None,
    })
}

#[derive(Deserialize)]
struct Transformer {
    model_type: String,
    hidden_act: String,
    hidden_size: u32,
    intermediate_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    vocab_size: u32,
    max_position_embeddings: u32,
    rms_norm_eps: f64,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    sliding_window: Option<u32>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    partial_rotary_factor: Option<f64>,
    quantization_config: Option<Value>,
    eos_token_id: Option<Value>,
}

/// The shape that the configuration describes, for sequences of at most `max_sequence` tokens where that is given.
pub(super) fn decoder_shape(
    files: &LanguageFiles,
    max_sequence: Option<u32>,
) -> Result<DecoderShape, ConfigError> {
    let config: Transformer = parse(CONFIG, &files.config)?;
    let rest: Map<String, Value> = parse(CONFIG, &files.config)?;
    let Some(family) = family(&config.model_type) else {
        return Err(unsupported("model_type", &config.model_type, "llama, mistral, qwen2 or qwen3"));
    };
    check(&config)?;
    let kv_heads = config.num_key_value_heads.unwrap_or(config.num_attention_heads);
    if kv_heads == 0 || !config.num_attention_heads.is_multiple_of(kv_heads) {
        let found = kv_heads.to_string();
        return Err(unsupported("num_key_value_heads", &found, "a divisor of num_attention_heads"));
    }
    let head_dim = head_dim(&config)?;
    Ok(DecoderShape {
        hidden: config.hidden_size,
        heads: config.num_attention_heads,
        kv_heads,
        head_dim,
        intermediate: config.intermediate_size,
        blocks: config.num_hidden_layers,
        vocabulary: config.vocab_size,
        positions: positions(&config, family, max_sequence)?,
        eps: config.rms_norm_eps as f32,
        rope: Rope::parse(&rest)?,
        qkv_bias: family == Family::Qwen2 || config.attention_bias,
        projection_bias: family != Family::Qwen2 && config.attention_bias,
        mlp_bias: family == Family::Llama && config.mlp_bias,
        head_norms: family == Family::Qwen3,
        tied: config.tie_word_embeddings,
        stop_ids: stop_ids(files, &config)?,
        defaults: sampling_defaults(files)?,
    })
}

fn check(config: &Transformer) -> Result<(), ConfigError> {
    expect(CONFIG, "hidden_act", &config.hidden_act, "silu")?;
    at_least_one("hidden_size", config.hidden_size)?;
    at_least_one("intermediate_size", config.intermediate_size)?;
    at_least_one("num_hidden_layers", config.num_hidden_layers)?;
    at_least_one("num_attention_heads", config.num_attention_heads)?;
    at_least_one("vocab_size", config.vocab_size)?;
    at_least_one("max_position_embeddings", config.max_position_embeddings)?;
    if config.quantization_config.is_some() {
        return Err(unsupported("quantization_config", "there", "a checkpoint that is not quantized yet"));
    }
    if let Some(factor) = config.partial_rotary_factor.filter(|factor| *factor != 1.0) {
        return Err(unsupported("partial_rotary_factor", &factor.to_string(), "1"));
    }
    let known = |kind: &&String| !matches!(kind.as_str(), "full_attention" | "sliding_attention");
    match config.layer_types.iter().flatten().find(known) {
        Some(other) => Err(unsupported("layer_types", other, "full_attention or sliding_attention")),
        None => Ok(()),
    }
}

fn head_dim(config: &Transformer) -> Result<u32, ConfigError> {
    let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
    let head_dim = match config.head_dim {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            return Err(unsupported("num_attention_heads", &heads.to_string(), "a divisor of hidden_size"));
        }
    };
    let fits = heads.checked_mul(head_dim).is_some();
    if head_dim == 0 || !head_dim.is_multiple_of(2) || !fits {
        return Err(unsupported("head_dim", &head_dim.to_string(), "a positive even number of columns"));
    }
    Ok(head_dim)
}

/// Tokens of the longest sequence. Within its window a sliding attention sees all that a full one sees, so a model with a window
/// takes sequences up to that.
fn positions(config: &Transformer, family: Family, max_sequence: Option<u32>) -> Result<u32, ConfigError> {
    let slides = config.use_sliding_window.unwrap_or(family == Family::Mistral);
    let window = config.sliding_window.filter(|_| slides).unwrap_or(u32::MAX);
    at_least_one("sliding_window", window)?;
    let wanted = max_sequence.unwrap_or(u32::MAX).max(1);
    Ok(config.max_position_embeddings.min(window).min(wanted).min(crate::MAX_SEQUENCE))
}

/// Tokens that end an answer: what `generation_config.json` says, else `config.json`; one id or a list.
fn stop_ids(files: &LanguageFiles, config: &Transformer) -> Result<Vec<u32>, ConfigError> {
    #[derive(Deserialize)]
    struct Generation {
        eos_token_id: Option<Value>,
    }
    let generation =
        files.generation.as_deref().map(|bytes| parse::<Generation>(GENERATION, bytes)).transpose()?;
    let from_generation = generation.and_then(|generation| generation.eos_token_id);
    let file = if from_generation.is_some() { GENERATION } else { CONFIG };
    let value = from_generation.or_else(|| config.eos_token_id.clone()).unwrap_or(Value::Null);
    let listed = match value {
        Value::Null => Vec::new(),
        Value::Array(ids) => ids,
        id => vec![id],
    };
    let id_of = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id < config.vocab_size);
        id.ok_or_else(|| ConfigError::Unsupported {
            file,
            field: "eos_token_id",
            found: value.to_string(),
            supported: "ids of the vocabulary".to_owned(),
        })
    };
    let mut ids = listed.iter().map(id_of).collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// How answers are drawn where a request does not say, by `generation_config.json`. `do_sample: false` takes the most probable
/// token; a `top_k` that is not positive is no bound, and no bound is above what a draw considers.
fn sampling_defaults(files: &LanguageFiles) -> Result<SamplingDefaults, ConfigError> {
    #[derive(Deserialize)]
    struct Generation {
        do_sample: Option<bool>,
        temperature: Option<f32>,
        top_k: Option<i64>,
        top_p: Option<f32>,
        min_p: Option<f32>,
        repetition_penalty: Option<f32>,
    }
    let top_k = |top_k| match u32::try_from(top_k) {
        Ok(0) | Err(_) => MAX_TOP_K,
        Ok(top_k) => top_k.min(MAX_TOP_K),
    };
    let Some(bytes) = files.generation.as_deref() else { return Ok(SamplingDefaults::default()) };
    let said: Generation = parse(GENERATION, bytes)?;
    let defaults = SamplingDefaults {
        temperature: if said.do_sample == Some(false) { Some(0.0) } else { said.temperature },
        top_k: said.top_k.map(top_k),
        top_p: said.top_p,
        min_p: said.min_p,
        repetition_penalty: said.repetition_penalty,
    };
    defaults.check().map(|()| defaults).map_err(|error| ConfigError::Unsupported {
        file: GENERATION,
        field: "sampling",
        found: "beyond what a job may state".to_owned(),
        supported: error.to_string(),
    })
}

/// What renders conversations: a JSON object of `bos_token`, `chat_template` and `eos_token`, its keys in this order and nothing
/// else in it, so that whoever makes it from the same files gets the same bytes. Nothing where the model has no template.
pub(super) fn template(files: &LanguageFiles) -> Result<Option<Vec<u8>>, ConfigError> {
    let config: Map<String, Value> = files
        .tokenizer_config
        .as_deref()
        .map(|bytes| parse(TOKENIZER, bytes))
        .transpose()?
        .unwrap_or_default();
    let from_file = files.template.as_deref().map(|bytes| {
        String::from_utf8(bytes.to_vec()).map_err(|_| ConfigError::Unsupported {
            file: "chat_template.jinja",
            field: "text",
            found: "other bytes".to_owned(),
            supported: "UTF-8".to_owned(),
        })
    });
    let template = match from_file.transpose()? {
        Some(template) => Some(template),
        None => default_template(config.get("chat_template")),
    };
    let Some(template) = template else {
        return Ok(None);
    };
    let blob = json!({
        "bos_token": token_text(config.get("bos_token")),
        "chat_template": template,
        "eos_token": token_text(config.get("eos_token")),
    });
    Ok(Some(blob.to_string().into_bytes()))
}

/// The template itself, or the one named `default` of a list.
fn default_template(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(template) => Some(template.clone()),
        Value::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default")?;
            default["template"].as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// The text of a special token, which is written as such or as an object.
fn token_text(value: Option<&Value>) -> Option<String> {
    let value = value?;
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

fn unsupported(field: &'static str, found: &str, supported: &str) -> ConfigError {
    ConfigError::Unsupported { file: CONFIG, field, found: found.to_owned(), supported: supported.to_owned() }
}
