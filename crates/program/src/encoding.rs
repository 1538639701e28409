//! Canonical encodings: of what other messages embed, and of the two messages that have an identity here.

use gainsay_commitment::encoding::{Canonical, DecodeError, Decoder, Encoder};

use crate::limits::{
    MAX_JOB_TOKENS, MAX_LAYERS, MAX_NAME_BYTES, MAX_OPS_PER_LAYER, MAX_STOP_IDS, MAX_TENSORS,
};
use crate::{
    ActivationBits, Answer, ArithmeticProfile, Dtype, GenerationSpec, JobField, JobInput, KvDtype, Layer,
    LinearKind, Manifest, Op, OpKind, OpPlace, Operand, Program, Sampling, SamplingDefaults, Scope,
    TensorRef, TensorSpec,
};

/// No op kind takes more.
const MAX_INPUTS: usize = 4;

/// Enums without fields: a tag, which is the position in the list.
macro_rules! encode_by_tag {
    ($type:ty, $what:literal, [$($variant:path),+ $(,)?]) => {
        impl $type {
            const BY_TAG: &'static [Self] = &[$($variant),+];

            /// Appends the tag.
            pub fn encode(self, encoder: &mut Encoder) {
                let tag = Self::BY_TAG.iter().position(|&variant| variant == self);
                encoder.u8(tag.expect("the list names every variant") as u8);
            }

            /// Reads a tag.
            pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                let tag = decoder.u8()?;
                Self::BY_TAG.get(usize::from(tag)).copied().ok_or(DecodeError::UnknownTag { what: $what, tag })
            }
        }
    };
}

encode_by_tag!(Dtype, "element type", [Dtype::F32, Dtype::U32, Dtype::Bf16, Dtype::F16, Dtype::I8]);
encode_by_tag!(JobField, "job column", [JobField::Ids, JobField::Positions, JobField::TypeIds]);
encode_by_tag!(KvDtype, "type of cached keys and values", [KvDtype::F32, KvDtype::Bf16]);
encode_by_tag!(
    ArithmeticProfile,
    "arithmetic profile",
    [ArithmeticProfile::ExactF32V1, ArithmeticProfile::ExactInt8V1]
);

impl Scope {
    fn encode(self, encoder: &mut Encoder) {
        match self {
            Self::Layer => encoder.u8(0),
            Self::Virtual { op, element } => encoder.u8(1).u32(op).u64(element),
        };
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match decoder.u8()? {
            0 => Ok(Self::Layer),
            1 => Ok(Self::Virtual { op: decoder.u32()?, element: decoder.u64()? }),
            tag => Err(DecodeError::UnknownTag { what: "scope", tag }),
        }
    }
}

impl OpPlace {
    /// Appends layer, scope and op.
    pub fn encode(self, encoder: &mut Encoder) {
        encoder.u32(self.layer);
        self.scope.encode(encoder);
        encoder.u32(self.op);
    }

    /// Reads what [`encode`](Self::encode) wrote. Whether there is such an op is not checked.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { layer: decoder.u32()?, scope: Scope::decode(decoder)?, op: decoder.u32()? })
    }
}

impl TensorRef {
    /// Appends a tag and what it selects.
    pub fn encode(self, encoder: &mut Encoder) {
        match self {
            Self::Op(place) => place.encode(encoder.u8(0)),
            Self::LayerOutput(layer) => {
                encoder.u8(1).u32(layer);
            }
            Self::Weight(index) => {
                encoder.u8(2).u32(index);
            }
        }
    }

    /// Reads what [`encode`](Self::encode) wrote. Whether there is such a tensor is not checked.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match decoder.u8()? {
            0 => OpPlace::decode(decoder).map(Self::Op),
            1 => decoder.u32().map(Self::LayerOutput),
            2 => decoder.u32().map(Self::Weight),
            tag => Err(DecodeError::UnknownTag { what: "tensor", tag }),
        }
    }
}

impl Operand {
    fn encode(self, encoder: &mut Encoder) {
        match self {
            Self::LayerInput => {
                encoder.u8(0);
            }
            Self::Op(op) => {
                encoder.u8(1).u32(op);
            }
            Self::Weight(index) => {
                encoder.u8(2).u32(index);
            }
            Self::Job(field) => field.encode(encoder.u8(3)),
        }
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match decoder.u8()? {
            0 => Ok(Self::LayerInput),
            1 => decoder.u32().map(Self::Op),
            2 => decoder.u32().map(Self::Weight),
            3 => JobField::decode(decoder).map(Self::Job),
            tag => Err(DecodeError::UnknownTag { what: "operand", tag }),
        }
    }
}

impl OpKind {
    fn encode(&self, encoder: &mut Encoder) {
        match *self {
            Self::Gather => {
                encoder.u8(0);
            }
            Self::Add => {
                encoder.u8(1);
            }
            Self::Linear(LinearKind::F32) => {
                encoder.u8(2);
            }
            Self::Linear(LinearKind::Int8 { group, activation_bits }) => {
                encoder.u8(3).u32(group).u8(match activation_bits {
                    ActivationBits::Eight => 8,
                    ActivationBits::Sixteen => 16,
                });
            }
            Self::LayerNorm { eps } => {
                encoder.u8(4).f32_bits(eps);
            }
            Self::Gelu => {
                encoder.u8(5);
            }
            Self::Attention { heads, kv_heads, head_dim, scale, causal } => {
                encoder.u8(6).u32(heads).u32(kv_heads).u32(head_dim).f32_bits(scale).bool(causal);
            }
            Self::MeanPool => {
                encoder.u8(7);
            }
            Self::Normalize => {
                encoder.u8(8);
            }
            Self::RmsNorm { eps, group } => {
                encoder.u8(9).f32_bits(eps).u32(group);
            }
            Self::Rope { heads, head_dim } => {
                encoder.u8(10).u32(heads).u32(head_dim);
            }
            Self::Silu => {
                encoder.u8(11);
            }
            Self::Mul => {
                encoder.u8(12);
            }
            Self::CastBf16 => {
                encoder.u8(13);
            }
            Self::SelectRows => {
                encoder.u8(14);
            }
            Self::Penalize => {
                encoder.u8(15);
            }
            Self::Sample => {
                encoder.u8(16);
            }
        }
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(match decoder.u8()? {
            0 => Self::Gather,
            1 => Self::Add,
            2 => Self::Linear(LinearKind::F32),
            3 => {
                let group = decoder.u32()?;
                let activation_bits = match decoder.u8()? {
                    8 => ActivationBits::Eight,
                    16 => ActivationBits::Sixteen,
                    tag => return Err(DecodeError::UnknownTag { what: "activation width", tag }),
                };
                Self::Linear(LinearKind::Int8 { group, activation_bits })
            }
            4 => Self::LayerNorm { eps: decoder.f32_bits()? },
            5 => Self::Gelu,
            6 => Self::Attention {
                heads: decoder.u32()?,
                kv_heads: decoder.u32()?,
                head_dim: decoder.u32()?,
                scale: decoder.f32_bits()?,
                causal: decoder.bool()?,
            },
            7 => Self::MeanPool,
            8 => Self::Normalize,
            9 => Self::RmsNorm { eps: decoder.f32_bits()?, group: decoder.u32()? },
            10 => Self::Rope { heads: decoder.u32()?, head_dim: decoder.u32()? },
            11 => Self::Silu,
            12 => Self::Mul,
            13 => Self::CastBf16,
            14 => Self::SelectRows,
            15 => Self::Penalize,
            16 => Self::Sample,
            tag => return Err(DecodeError::UnknownTag { what: "op kind", tag }),
        })
    }
}

impl Op {
    fn encode(&self, encoder: &mut Encoder) {
        self.kind.encode(encoder);
        encoder.list(&self.inputs, |encoder, input| input.encode(encoder));
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { kind: OpKind::decode(decoder)?, inputs: decoder.list(MAX_INPUTS, Operand::decode)? })
    }
}

impl Program {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.list(&self.layers, |encoder, layer| {
            encoder.list(&layer.ops, |encoder, op| op.encode(encoder));
        });
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let layers = decoder
            .list(MAX_LAYERS, |decoder| Ok(Layer { ops: decoder.list(MAX_OPS_PER_LAYER, Op::decode)? }))?;
        Ok(Self { layers })
    }
}

impl TensorSpec {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.str(&self.name);
        self.dtype.encode(encoder);
        encoder.u32(self.rows).u32(self.width).hash(&self.commitment);
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: decoder.str(MAX_NAME_BYTES)?,
            dtype: Dtype::decode(decoder)?,
            rows: decoder.u32()?,
            width: decoder.u32()?,
            commitment: decoder.hash()?,
        })
    }
}

impl GenerationSpec {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.list(&self.stop_ids, |encoder, &id| {
            encoder.u32(id);
        });
        self.kv_dtype.encode(encoder);
        encoder.option(self.template.as_ref(), |encoder, template| {
            encoder.hash(template);
        });
        self.defaults.encode(encoder);
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            stop_ids: decoder.list(MAX_STOP_IDS, Decoder::u32)?,
            kv_dtype: KvDtype::decode(decoder)?,
            template: decoder.option(Decoder::hash)?,
            defaults: SamplingDefaults::decode(decoder)?,
        })
    }
}

impl Canonical for Manifest {
    const CONTEXT: &'static str = "gainsay v1 manifest";

    fn encode_fields(&self, encoder: &mut Encoder) {
        encoder.str(&self.name);
        self.arithmetic.encode(encoder);
        encoder.hash(&self.tokenizer);
        encoder.u32(self.vocabulary).u32(self.max_sequence);
        encoder.u32(self.expand_from_rows).u32(self.blocks_per_layer);
        encoder.option(self.generation.as_ref(), |encoder, generation| generation.encode(encoder));
        encoder.list(&self.tensors, |encoder, tensor| tensor.encode(encoder));
        self.program.encode(encoder);
    }

    fn decode_fields(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: decoder.str(MAX_NAME_BYTES)?,
            arithmetic: ArithmeticProfile::decode(decoder)?,
            tokenizer: decoder.hash()?,
            vocabulary: decoder.u32()?,
            max_sequence: decoder.u32()?,
            expand_from_rows: decoder.u32()?,
            blocks_per_layer: decoder.u32()?,
            generation: decoder.option(GenerationSpec::decode)?,
            tensors: decoder.list(MAX_TENSORS, TensorSpec::decode)?,
            program: Program::decode(decoder)?,
        })
    }
}

impl Canonical for JobInput {
    const CONTEXT: &'static str = "gainsay v1 job input";

    fn encode_fields(&self, encoder: &mut Encoder) {
        let number = |encoder: &mut Encoder, &value: &u32| {
            encoder.u32(value);
        };
        encoder.list(self.token_ids(), number).list(self.offsets(), number);
        encoder.option(self.answer(), |encoder, answer| {
            encoder.u32(answer.prompt);
            answer.sampling.encode(encoder);
        });
    }

    fn decode_fields(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let token_ids = decoder.list(MAX_JOB_TOKENS, Decoder::u32)?;
        let offsets = decoder.list(MAX_JOB_TOKENS + 1, Decoder::u32)?;
        let answer = decoder
            .option(|decoder| Ok(Answer { prompt: decoder.u32()?, sampling: Sampling::decode(decoder)? }))?;
        let job = Self::from_parts(token_ids, offsets)
            .map_err(|_| DecodeError::Invalid("the offsets do not fit the token ids"))?;
        match answer {
            None => Ok(job),
            Some(answer) => job
                .with_answer(answer)
                .ok_or(DecodeError::Invalid("the prompt is not the beginning of the only sequence")),
        }
    }
}
