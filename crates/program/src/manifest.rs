//! The manifest: everything that a model id stands for.

use gainsay_commitment::{ModelId, TensorCommitment, encoding::Canonical};

use crate::{Dtype, ManifestError, Program, SamplingDefaults, Shape, ValidatedModel};

/// Which edition of the arithmetic decides what the ops mean, and which ops are allowed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ArithmeticProfile {
    /// `exact-f32/1`: floating-point linears only.
    ExactF32V1,
    /// `exact-int8/1`: int8 linears besides.
    ExactInt8V1,
}

impl ArithmeticProfile {
    /// Every profile.
    pub const ALL: [Self; 2] = [Self::ExactF32V1, Self::ExactInt8V1];

    /// The profile of this name and version.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// The profile's name and version, as people read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ExactF32V1 => "exact-f32/1",
            Self::ExactInt8V1 => "exact-int8/1",
        }
    }
}

/// A weight tensor as executed: quantized where the program says so, row-major, little-endian.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorSpec {
    /// Unique within the manifest.
    pub name: String,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Number of rows; 1 for vectors.
    pub rows: u32,
    /// Elements of a row.
    pub width: u32,
    /// BLAKE3 of the bytes.
    pub commitment: TensorCommitment,
}

impl TensorSpec {
    /// Shape of the tensor; it does not depend on a job.
    pub const fn shape(&self) -> Shape {
        Shape { rows: self.rows as u64, width: self.width as u64, dtype: self.dtype }
    }
}

/// Type in which an engine may keep the keys and values of earlier tokens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KvDtype {
    /// As they are.
    F32,
    /// As bfloat16: the program rounds all keys and values to it before attention reads them.
    Bf16,
}

impl KvDtype {
    /// Every type.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    /// The type of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The type's name, as people read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// What a language model needs besides its program.
#[derive(Clone, PartialEq, Debug)]
pub struct GenerationSpec {
    /// Tokens that end an answer, ascending.
    pub stop_ids: Vec<u32>,
    /// Type of cached keys and values.
    pub kv_dtype: KvDtype,
    /// BLAKE3 of the JSON object of chat template, `bos_token` and `eos_token`, where the model has a chat template.
    pub template: Option<TensorCommitment>,
    /// How answers are drawn where a request does not say.
    pub defaults: SamplingDefaults,
}

/// A model: its program, and commitments to everything that the program reads.
#[derive(Clone, PartialEq, Debug)]
pub struct Manifest {
    /// For people; part of the model id all the same.
    pub name: String,
    /// The arithmetic that the ops are defined by.
    pub arithmetic: ArithmeticProfile,
    /// BLAKE3 of the bytes of `tokenizer.json`.
    pub tokenizer: TensorCommitment,
    /// Token ids are below this.
    pub vocabulary: u32,
    /// Tokens in the longest sequence that the model takes.
    pub max_sequence: u32,
    /// Attention and pooling over sequences of more tokens than this are disputed through a virtual layer.
    pub expand_from_rows: u32,
    /// Transformer blocks that share a layer of the program. The program itself decides; this says how it was cut.
    pub blocks_per_layer: u32,
    /// What a language model needs besides; nothing for encoders. It decides which jobs the model takes.
    pub generation: Option<GenerationSpec>,
    /// The weights. Operands name them by index.
    pub tensors: Vec<TensorSpec>,
    /// The computation.
    pub program: Program,
}

impl Manifest {
    /// The model's identity: hash of the canonical encoding.
    pub fn id(&self) -> ModelId {
        ModelId::from(self.digest())
    }

    /// Infers all shapes and refuses a manifest that does not check, or in which some op element could not be
    /// disputed within [`MAX_WITNESS_BYTES`](crate::MAX_WITNESS_BYTES) and [`MAX_WORK`](crate::MAX_WORK).
    pub fn validate(self) -> Result<ValidatedModel, ManifestError> {
        ValidatedModel::new(self)
    }
}
