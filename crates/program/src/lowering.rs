//! From the files of a checkpoint to a manifest and the tensors that it commits to.
//!
//! Understood are BERT encoders as `transformers` saves them, with mean pooling as `sentence-transformers` describes
//! it, and language models of the Llama family (Llama, Mistral, Qwen2, Qwen3). Anything else is refused with the name of the file and field. Lowering does no IO: [`SourceFiles::load`] and [`LanguageFiles::load`]
//! ask their caller for files by name.

mod config;
pub(crate) mod decoder;
pub(crate) mod encoder;
mod files;
mod language;
pub(crate) mod rope;
mod source;
pub(crate) mod tensors;

use gainsay_arithmetic::int8::ActivationBits;
use gainsay_commitment::tensor::tensor_commitment;

pub use config::ConfigError;
use decoder::lower_decoder;
use encoder::lower_encoder;
pub use files::{LoadError, SourceFiles};
pub use language::{LanguageFiles, LanguageFilesError};
pub use source::CheckpointError;

use crate::{ArithmeticProfile, Dtype, KvDtype, Manifest, ManifestError};
use config::BertConfig;
use source::Checkpoint;
use tensors::{SourceTensor, TensorSource};

/// How a model is lowered. The choices become part of the manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LowerOptions {
    /// Name of the model, for people.
    pub name: String,
    /// Whether linears are quantized.
    pub arithmetic: ArithmeticProfile,
    /// Transformer blocks to a layer.
    pub blocks_per_layer: u32,
    /// Attention and pooling over longer sequences are disputed through a virtual layer.
    pub expand_from_rows: u32,
    /// Elements along K that share an int8 scale, where this divides K; elsewhere, and where it is 0, a whole row shares
    /// one.
    pub int8_group: u32,
    /// Widths of the quantized activations of int8 linears.
    pub activations: ActivationWidths,
    /// Type to which a language model rounds keys and values before attention reads them; bf16 where nothing is said. An
    /// encoder has none, and is refused where one is said.
    pub kv_dtype: Option<KvDtype>,
    /// Tokens of the longest sequence of a language model, where that is to be less than its configuration and the
    /// protocol's limit on memory allow. An encoder's is its configuration's, and it is refused where another is said.
    pub max_sequence: Option<u32>,
}

/// Widths of the quantized activations of a transformer block's linears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActivationWidths {
    /// Of queries, keys and values.
    pub attention: ActivationBits,
    /// Of the projection that follows attention.
    pub projection: ActivationBits,
    /// Of the linears before the activation: gelu, or silu and its gate.
    pub up: ActivationBits,
    /// Of the linear after it.
    pub down: ActivationBits,
}

impl ActivationWidths {
    /// 16 bits for what comes from a norm, where a few columns are much greater than the others of their group; 8 for the
    /// rest. On all-MiniLM-L6-v2 that is nearly as good as 16 bits for all (README.md has the numbers).
    pub const AFTER_NORMS: Self = Self {
        attention: ActivationBits::Sixteen,
        up: ActivationBits::Sixteen,
        ..Self::all(ActivationBits::Eight)
    };

    /// One width for all.
    pub const fn all(bits: ActivationBits) -> Self {
        Self { attention: bits, projection: bits, up: bits, down: bits }
    }
}

impl LowerOptions {
    /// The usual choices for a model of this name: one block a layer, expansion beyond 64 rows, int8 groups of
    /// 128 and activations of 16 bits after norms.
    pub fn new(name: impl Into<String>, arithmetic: ArithmeticProfile) -> Self {
        Self {
            name: name.into(),
            arithmetic,
            blocks_per_layer: 1,
            expand_from_rows: 64,
            int8_group: 128,
            activations: ActivationWidths::AFTER_NORMS,
            kv_dtype: None,
            max_sequence: None,
        }
    }
}

/// What lowering did to a tensor of the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transform {
    /// The storing rule changed some elements: a NaN's payload, a −0, a subnormal.
    Stored {
        /// How many.
        elements: u64,
    },
    /// A vector of 16-bit floats became f32.
    Widened {
        /// Type in the checkpoint.
        from: Dtype,
    },
    /// A matrix became int8, with its scales as a tensor of their own.
    Quantized {
        /// Elements along K that share a scale.
        group: u32,
    },
}

/// A [`Transform`] and the tensor of the checkpoint that it was applied to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppliedTransform {
    /// Name in the checkpoint.
    pub tensor: String,
    /// What was done.
    pub transform: Transform,
}

/// A lowered model.
#[derive(Clone, PartialEq, Debug)]
pub struct Lowered {
    /// The manifest; it validates.
    pub manifest: Manifest,
    /// Bytes of the tensors, in the manifest's order: row-major, little-endian, as executed.
    pub weights: Vec<Vec<u8>>,
    /// Where these differ from the checkpoint's.
    pub transforms: Vec<AppliedTransform>,
    /// The bytes that the manifest's chat template commits to, where it has one.
    pub template: Option<Vec<u8>>,
    /// Tokens of the longest sequence that files and options allow, where the limit on memory has cut it to less.
    pub cut_from: Option<u32>,
}

/// Why a model cannot be lowered.
#[derive(Debug, thiserror::Error)]
pub enum LowerError {
    /// A configuration does not parse, or asks for something that is not supported.
    #[error("the configuration is not supported")]
    Config(#[from] ConfigError),
    /// `model.safetensors` is broken, or lacks what the configuration promises.
    #[error("the checkpoint does not fit its configuration")]
    Checkpoint(#[from] CheckpointError),
    /// A choice that only a language model leaves open, made for an encoder.
    #[error("this is an encoder: {0} can be chosen for language models only")]
    OfLanguageModels(&'static str),
    /// The manifest that results is refused.
    #[error("the lowered model is refused")]
    Manifest(#[from] ManifestError),
}

/// Lowers a sentence encoder of the BERT family.
///
/// The result depends on the files and the options alone: whoever lowers the same gets the same model id.
pub fn lower_bert(files: &SourceFiles, options: &LowerOptions) -> Result<Lowered, LowerError> {
    lower_bert_observed(files, options, &mut |_| {})
}

/// As [`lower_bert`]; `observe` is told the size in bytes of each tensor of the checkpoint as its turn comes. All together
/// are about as long as `model.safetensors`.
pub fn lower_bert_observed(
    files: &SourceFiles,
    options: &LowerOptions,
    observe: &mut dyn FnMut(u64),
) -> Result<Lowered, LowerError> {
    let config = BertConfig::parse(files)?;
    let checkpoint = Checkpoint::open(&files.weights)?;
    let tokenizer = tensor_commitment(&files.tokenizer);
    lower_encoder(&config.shape, options, tokenizer, &mut Observed { checkpoint, observe })
}

/// Whether `config.json` is of a language model, whose files are [`LanguageFiles`]; else they are [`SourceFiles`].
pub fn is_language_model(config: &[u8]) -> bool {
    language::is_language_model(config)
}

/// Lowers a language model of the Llama family.
///
/// The result depends on the files and the options alone: whoever lowers the same gets the same model id.
pub fn lower_language(files: &LanguageFiles, options: &LowerOptions) -> Result<Lowered, LowerError> {
    lower_language_observed(files, options, &mut |_| {})
}

/// As [`lower_language`]; `observe` is told the size in bytes of each tensor of the checkpoint as its turn comes.
pub fn lower_language_observed(
    files: &LanguageFiles,
    options: &LowerOptions,
    observe: &mut dyn FnMut(u64),
) -> Result<Lowered, LowerError> {
    let shape = language::decoder_shape(files, options.max_sequence)?;
    let checkpoint = Checkpoint::open_all(&files.weights)?;
    let template = language::template(files)?;
    let commitments = (tensor_commitment(&files.tokenizer), template.as_deref().map(tensor_commitment));
    let mut source = Observed { checkpoint, observe };
    let lowered = lower_decoder(&shape, options, commitments.0, commitments.1, &mut source)?;
    Ok(Lowered { template, ..lowered })
}

/// A checkpoint that is watched.
struct Observed<'a> {
    checkpoint: Checkpoint<'a>,
    observe: &'a mut dyn FnMut(u64),
}

impl TensorSource for Observed<'_> {
    fn load(&mut self, name: &str, shape: &[u32]) -> Result<SourceTensor, LowerError> {
        let tensor = self.checkpoint.load(name, shape)?;
        (self.observe)(tensor.bytes.len() as u64);
        Ok(tensor)
    }
}
