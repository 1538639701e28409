//! What `config.json`, `modules.json` and the pooling's `config.json` say, as far as it is supported.

use serde::Deserialize;
use serde_json::Value;

use super::encoder::EncoderShape;
use super::files::{Module, SourceFiles};

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the JSON that the format asks for.
    #[error("{file} does not parse")]
    Json {
        /// Name of the file.
        file: &'static str,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A field whose value names something that is not supported.
    #[error("{file}: {field} is {found}, but only {supported} is supported")]
    Unsupported {
        /// Name of the file.
        file: &'static str,
        /// Name of the field.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        supported: String,
    },
}

pub(super) const CONFIG: &str = "config.json";
const MODULES: &str = "modules.json";
const POOLING: &str = "the pooling's config.json";

/// Everything that lowering needs to know.
pub(super) struct BertConfig {
    pub(super) shape: EncoderShape,
}

#[derive(Deserialize)]
struct Transformer {
    model_type: String,
    hidden_act: String,
    hidden_size: u32,
    intermediate_size: u32,
    layer_norm_eps: f64,
    max_position_embeddings: u32,
    num_attention_heads: u32,
    num_hidden_layers: u32,
    type_vocab_size: u32,
    vocab_size: u32,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    #[serde(default)]
    add_cross_attention: bool,
}

#[derive(Deserialize)]
struct Pooling {
    word_embedding_dimension: u32,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

impl BertConfig {
    pub(super) fn parse(files: &SourceFiles) -> Result<Self, ConfigError> {
        let transformer: Transformer = parse(CONFIG, &files.config)?;
        let modules: Vec<Module> = parse(MODULES, &files.modules)?;
        let pooling: Pooling = parse(POOLING, &files.pooling)?;
        check_transformer(&transformer)?;
        check_pooling(&pooling, transformer.hidden_size)?;
        let normalize = check_modules(&modules)?;
        Ok(Self { shape: shape(&transformer, normalize) })
    }
}

pub(super) fn parse<'a, T: Deserialize<'a>>(file: &'static str, bytes: &'a [u8]) -> Result<T, ConfigError> {
    serde_json::from_slice(bytes).map_err(|source| ConfigError::Json { file, source })
}

fn shape(config: &Transformer, normalize: bool) -> EncoderShape {
    EncoderShape {
        hidden: config.hidden_size,
        heads: config.num_attention_heads,
        intermediate: config.intermediate_size,
        blocks: config.num_hidden_layers,
        vocabulary: config.vocab_size,
        positions: config.max_position_embeddings,
        types: config.type_vocab_size,
        eps: config.layer_norm_eps as f32,
        normalize,
    }
}

fn check_transformer(config: &Transformer) -> Result<(), ConfigError> {
    expect(CONFIG, "model_type", &config.model_type, "bert")?;
    expect(CONFIG, "hidden_act", &config.hidden_act, "gelu")?;
    let positions = config.position_embedding_type.as_deref().unwrap_or("absolute");
    expect(CONFIG, "position_embedding_type", positions, "absolute")?;
    expect(CONFIG, "is_decoder", &config.is_decoder.to_string(), "false")?;
    expect(CONFIG, "add_cross_attention", &config.add_cross_attention.to_string(), "false")?;
    at_least_one("hidden_size", config.hidden_size)?;
    at_least_one("intermediate_size", config.intermediate_size)?;
    at_least_one("num_attention_heads", config.num_attention_heads)?;
    at_least_one("num_hidden_layers", config.num_hidden_layers)?;
    at_least_one("max_position_embeddings", config.max_position_embeddings)?;
    at_least_one("type_vocab_size", config.type_vocab_size)?;
    at_least_one("vocab_size", config.vocab_size)?;
    if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
        let (found, supported) =
            (config.num_attention_heads.to_string(), "a divisor of hidden_size".to_owned());
        return Err(ConfigError::Unsupported {
            file: CONFIG,
            field: "num_attention_heads",
            found,
            supported,
        });
    }
    Ok(())
}

/// Every pooling mode but the mean must be absent or off, by whatever name it goes.
fn check_pooling(pooling: &Pooling, hidden: u32) -> Result<(), ConfigError> {
    let dimension = pooling.word_embedding_dimension;
    expect(POOLING, "word_embedding_dimension", &dimension.to_string(), &hidden.to_string())?;
    let mut modes =
        pooling.rest.iter().filter(|(name, value)| name.starts_with("pooling_mode") && is_on(value));
    let on: Vec<&str> = modes.by_ref().map(|(name, _)| name.as_str()).collect();
    expect(POOLING, "pooling_mode", &on.join(" and "), "pooling_mode_mean_tokens")
}

fn is_on(value: &Value) -> bool {
    !matches!(value, Value::Bool(false) | Value::Null)
}

/// The transformer, then the pooling, then perhaps a normalization; returns whether it is there.
fn check_modules(modules: &[Module]) -> Result<bool, ConfigError> {
    let classes: Vec<&str> = modules.iter().map(Module::class).collect();
    match classes[..] {
        ["Transformer", "Pooling"] => Ok(false),
        ["Transformer", "Pooling", "Normalize"] => Ok(true),
        _ => Err(ConfigError::Unsupported {
            file: MODULES,
            field: "type",
            found: classes.join(", "),
            supported: "Transformer, Pooling and optionally Normalize, in this order,".to_owned(),
        }),
    }
}

pub(super) fn expect(
    file: &'static str,
    field: &'static str,
    found: &str,
    supported: &str,
) -> Result<(), ConfigError> {
    if found == supported {
        return Ok(());
    }
    let (found, supported) = (format!("{found:?}"), format!("{supported:?}"));
    Err(ConfigError::Unsupported { file, field, found, supported })
}

pub(super) fn at_least_one(field: &'static str, found: u32) -> Result<(), ConfigError> {
    if found > 0 {
        return Ok(());
    }
    let (found, supported) = (found.to_string(), "a positive number".to_owned());
    Err(ConfigError::Unsupported { file: CONFIG, field, found, supported })
}
