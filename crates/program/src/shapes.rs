//! Shape inference. It lives here alone: everyone else asks a [`ValidatedModel`](crate::ValidatedModel).

use gainsay_arithmetic as arithmetic;

use crate::limits::{MAX_GROUP, MAX_WIDTH};
use crate::{
    ArithmeticProfile, Dtype, JobField, LinearKind, Manifest, Op, OpKind, Operand, RowSpace, TensorSpec,
};

/// Type of an op's output, with rows as a job has them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OutputType {
    /// What a row stands for.
    pub space: RowSpace,
    /// Elements of a row.
    pub width: u32,
    /// Type of the elements: f32, or u32 for sampled tokens.
    pub dtype: Dtype,
}

impl OutputType {
    /// Rows of f32.
    pub const fn floats(space: RowSpace, width: u32) -> Self {
        Self { space, width, dtype: Dtype::F32 }
    }
}

/// Why an op does not check.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum OpError {
    /// The op kind takes another number of inputs.
    #[error("has {found} inputs, but takes {expected}")]
    InputCount {
        /// What the kind takes.
        expected: &'static str,
        /// What the op lists.
        found: usize,
    },
    /// The first layer has nothing before it.
    #[error("input {input} is the layer's input, which the first layer does not have")]
    NoLayerInput {
        /// Index among the op's inputs.
        input: usize,
    },
    /// An op may read earlier ops only.
    #[error("input {input} is op {op}, which does not come before it")]
    NotEarlier {
        /// Index among the op's inputs.
        input: usize,
        /// The op that it names.
        op: u32,
    },
    /// An index beyond the manifest's tensors.
    #[error("input {input} is weight {weight}, which the manifest does not list")]
    NoSuchWeight {
        /// Index among the op's inputs.
        input: usize,
        /// The weight that it names.
        weight: u32,
    },
    /// An operand of the wrong sort.
    #[error("input {input} must be {expected}")]
    Sort {
        /// Index among the op's inputs.
        input: usize,
        /// What it must be.
        expected: &'static str,
    },
    /// A weight whose elements the op cannot read.
    #[error("input {input} has elements of type {}, but must have {expected}", found.name())]
    WeightDtype {
        /// Index among the op's inputs.
        input: usize,
        /// What the tensor holds.
        found: Dtype,
        /// What the op reads.
        expected: &'static str,
    },
    /// A weight of the wrong shape.
    #[error("input {input} has shape {found:?}, but must have {expected:?}")]
    WeightShape {
        /// Index among the op's inputs.
        input: usize,
        /// Rows and width of the tensor.
        found: (u32, u32),
        /// Rows and width that the op reads.
        expected: (u32, u32),
    },
    /// Two inputs that must agree.
    #[error("input {input} is {found:?}, but must be {expected:?}")]
    Type {
        /// Index among the op's inputs.
        input: usize,
        /// Its type.
        found: OutputType,
        /// The type that the other inputs or the op's parameters ask for.
        expected: OutputType,
    },
    /// A table that an index could fall out of.
    #[error("the table has {rows} rows, but indices go up to {needed}")]
    TableRows {
        /// Rows of the table.
        rows: u32,
        /// Number of indices that may occur.
        needed: u32,
    },
    /// An int8 group that does not cut K evenly, or is too long for exact integer sums.
    #[error("group {group} does not divide {k}, or is over {MAX_GROUP}")]
    Group {
        /// The group.
        group: u32,
        /// Elements of a row of the input.
        k: u32,
    },
    /// Heads that do not make up the width.
    #[error("{heads} heads of {head_dim} columns are not between 1 and {MAX_WIDTH} columns")]
    Heads {
        /// Number of heads.
        heads: u32,
        /// Columns of a head.
        head_dim: u32,
    },
    /// Query heads that do not share the key heads evenly.
    #[error("{heads} heads do not share {kv_heads} key and value heads evenly")]
    KvHeads {
        /// Number of query heads.
        heads: u32,
        /// Number of key and value heads.
        kv_heads: u32,
    },
    /// Groups that do not cut a row evenly.
    #[error("groups of {group} columns do not divide a row of {width}")]
    RowGroup {
        /// Columns of a group.
        group: u32,
        /// Columns of the row.
        width: u32,
    },
    /// An odd head has no halves to rotate.
    #[error("a head of {head_dim} columns cannot be rotated by halves")]
    OddHead {
        /// Columns of a head.
        head_dim: u32,
    },
    /// A constant that is not finite, or that storing would change.
    #[error("the constant {name} is not a finite number that storing keeps as it is")]
    Constant {
        /// The parameter.
        name: &'static str,
    },
    /// An op that the manifest's arithmetic does not define.
    #[error("{} has no int8 linears", profile.name())]
    Profile {
        /// The manifest's arithmetic.
        profile: ArithmeticProfile,
    },
}

/// What an operand is, resolved.
enum Input<'a> {
    Rows(OutputType),
    Weight(&'a TensorSpec),
    Job(JobField),
}

/// The inputs of one op, with what they may refer to.
struct Inputs<'a> {
    manifest: &'a Manifest,
    layer_input: Option<OutputType>,
    earlier: &'a [OutputType],
    operands: &'a [Operand],
}

/// Type of the output of `op`, which comes after the ops of its layer whose types are `earlier`.
pub(crate) fn infer(
    manifest: &Manifest,
    layer_input: Option<OutputType>,
    earlier: &[OutputType],
    op: &Op,
) -> Result<OutputType, OpError> {
    let inputs = Inputs { manifest, layer_input, earlier, operands: &op.inputs };
    match op.kind {
        OpKind::Gather => inputs.gather(),
        OpKind::Add | OpKind::Mul => {
            inputs.count(2, "2")?;
            let first = inputs.rows(0)?;
            inputs.rows_of(1, first)
        }
        OpKind::Linear(kind) => inputs.linear(kind),
        OpKind::LayerNorm { eps } => {
            inputs.count(3, "3")?;
            constant("eps", eps)?;
            let x = inputs.rows(0)?;
            inputs.vector(1, x.width)?;
            inputs.vector(2, x.width)?;
            Ok(x)
        }
        OpKind::Gelu | OpKind::Normalize | OpKind::Silu | OpKind::CastBf16 => {
            inputs.count(1, "1")?;
            inputs.rows(0)
        }
        OpKind::Attention { heads, kv_heads, head_dim, scale, .. } => {
            constant("scale", scale)?;
            inputs.attention(heads, kv_heads, head_dim)
        }
        OpKind::MeanPool => inputs.rows_to(RowSpace::Sequences),
        OpKind::RmsNorm { eps, group } => inputs.rms_norm(eps, group),
        OpKind::Rope { heads, head_dim } => inputs.rope(heads, head_dim),
        OpKind::SelectRows => inputs.rows_to(RowSpace::Answer),
        OpKind::Penalize => inputs.logits(),
        OpKind::Sample => {
            inputs.logits()?;
            Ok(OutputType { space: RowSpace::Answer, width: 1, dtype: Dtype::U32 })
        }
    }
}

impl Inputs<'_> {
    fn count(&self, expected: usize, text: &'static str) -> Result<(), OpError> {
        let found = self.operands.len();
        if found == expected { Ok(()) } else { Err(OpError::InputCount { expected: text, found }) }
    }

    fn get(&self, input: usize) -> Result<Input<'_>, OpError> {
        let operand = *self.operands.get(input).ok_or(OpError::Sort { input, expected: "present" })?;
        match operand {
            Operand::LayerInput => self.layer_input.map(Input::Rows).ok_or(OpError::NoLayerInput { input }),
            Operand::Op(op) => {
                let found = self.earlier.get(op as usize).copied();
                found.map(Input::Rows).ok_or(OpError::NotEarlier { input, op })
            }
            Operand::Weight(weight) => {
                let found = self.manifest.tensors.get(weight as usize);
                found.map(Input::Weight).ok_or(OpError::NoSuchWeight { input, weight })
            }
            Operand::Job(field) => Ok(Input::Job(field)),
        }
    }

    fn rows(&self, input: usize) -> Result<OutputType, OpError> {
        match self.get(input)? {
            Input::Rows(found) if found.dtype == Dtype::F32 => Ok(found),
            _ => Err(OpError::Sort { input, expected: "an output of floats of an op or layer" }),
        }
    }

    fn rows_of(&self, input: usize, expected: OutputType) -> Result<OutputType, OpError> {
        let found = self.rows(input)?;
        if found == expected { Ok(found) } else { Err(OpError::Type { input, found, expected }) }
    }

    fn weight(&self, input: usize) -> Result<&TensorSpec, OpError> {
        match self.get(input)? {
            Input::Weight(spec) => Ok(spec),
            _ => Err(OpError::Sort { input, expected: "a weight" }),
        }
    }

    /// A matrix whose elements widen to f32.
    fn matrix(&self, input: usize) -> Result<&TensorSpec, OpError> {
        let spec = self.weight(input)?;
        if spec.dtype.is_float() {
            Ok(spec)
        } else {
            Err(OpError::WeightDtype { input, found: spec.dtype, expected: "f32, bf16 or f16" })
        }
    }

    /// An f32 weight of exactly this shape.
    fn f32_weight(&self, input: usize, expected: (u32, u32)) -> Result<(), OpError> {
        let spec = self.weight(input)?;
        let found = (spec.rows, spec.width);
        if spec.dtype != Dtype::F32 {
            return Err(OpError::WeightDtype { input, found: spec.dtype, expected: "f32" });
        }
        if found == expected { Ok(()) } else { Err(OpError::WeightShape { input, found, expected }) }
    }

    fn vector(&self, input: usize, width: u32) -> Result<(), OpError> {
        self.f32_weight(input, (1, width))
    }

    fn gather(&self) -> Result<OutputType, OpError> {
        self.count(2, "2")?;
        let Input::Job(field) = self.get(0)? else {
            return Err(OpError::Sort { input: 0, expected: "an index column of the job" });
        };
        let table = self.matrix(1)?;
        let needed = match field {
            JobField::Ids => self.manifest.vocabulary,
            JobField::Positions => self.manifest.max_sequence,
            JobField::TypeIds => 1,
        };
        if table.rows < needed {
            return Err(OpError::TableRows { rows: table.rows, needed });
        }
        Ok(OutputType::floats(RowSpace::Tokens, table.width))
    }

    fn linear(&self, kind: LinearKind) -> Result<OutputType, OpError> {
        let x = self.rows(0)?;
        let (matrix, before_bias) = match kind {
            LinearKind::F32 => (self.matrix(1)?, 2),
            LinearKind::Int8 { group, .. } => (self.int8_matrix(group, x.width)?, 3),
        };
        if matrix.width != x.width {
            let (found, expected) = ((matrix.rows, matrix.width), (matrix.rows, x.width));
            return Err(OpError::WeightShape { input: 1, found, expected });
        }
        if matrix.rows > MAX_WIDTH {
            let (found, expected) = ((matrix.rows, matrix.width), (MAX_WIDTH, matrix.width));
            return Err(OpError::WeightShape { input: 1, found, expected });
        }
        match self.operands.len() {
            found if found == before_bias => {}
            found if found == before_bias + 1 => self.vector(before_bias, matrix.rows)?,
            found => {
                let expected = if before_bias == 2 { "2 or 3" } else { "3 or 4" };
                return Err(OpError::InputCount { expected, found });
            }
        }
        Ok(OutputType::floats(x.space, matrix.rows))
    }

    fn int8_matrix(&self, group: u32, k: u32) -> Result<&TensorSpec, OpError> {
        let profile = self.manifest.arithmetic;
        if profile != ArithmeticProfile::ExactInt8V1 {
            return Err(OpError::Profile { profile });
        }
        let matrix = self.weight(1)?;
        if matrix.dtype != Dtype::I8 {
            return Err(OpError::WeightDtype { input: 1, found: matrix.dtype, expected: "i8" });
        }
        if group == 0 || group > MAX_GROUP || !k.is_multiple_of(group) {
            return Err(OpError::Group { group, k });
        }
        self.f32_weight(2, (matrix.rows, k / group))?;
        Ok(matrix)
    }

    /// Rows of so many heads.
    fn heads(heads: u32, head_dim: u32) -> Result<OutputType, OpError> {
        let width = heads.checked_mul(head_dim).filter(|width| (1..=MAX_WIDTH).contains(width));
        let width = width.ok_or(OpError::Heads { heads, head_dim })?;
        Ok(OutputType::floats(RowSpace::Tokens, width))
    }

    fn attention(&self, heads: u32, kv_heads: u32, head_dim: u32) -> Result<OutputType, OpError> {
        self.count(3, "3")?;
        let query = Self::heads(heads, head_dim)?;
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(OpError::KvHeads { heads, kv_heads });
        }
        let key = Self::heads(kv_heads, head_dim)?;
        let output = self.rows_of(0, query)?;
        self.rows_of(1, key)?;
        self.rows_of(2, key)?;
        Ok(output)
    }

    /// Rows of tokens that become rows of another sort.
    fn rows_to(&self, space: RowSpace) -> Result<OutputType, OpError> {
        self.count(1, "1")?;
        let x = self.rows(0)?;
        self.rows_of(0, OutputType { space: RowSpace::Tokens, ..x })?;
        Ok(OutputType { space, ..x })
    }

    fn rms_norm(&self, eps: f32, group: u32) -> Result<OutputType, OpError> {
        self.count(2, "2")?;
        constant("eps", eps)?;
        let x = self.rows(0)?;
        if group == 0 || !x.width.is_multiple_of(group) {
            return Err(OpError::RowGroup { group, width: x.width });
        }
        self.vector(1, group)?;
        Ok(x)
    }

    fn rope(&self, heads: u32, head_dim: u32) -> Result<OutputType, OpError> {
        self.count(3, "3")?;
        if !head_dim.is_multiple_of(2) {
            return Err(OpError::OddHead { head_dim });
        }
        let expected = Self::heads(heads, head_dim)?;
        for input in [1, 2] {
            let (rows, needed) = (self.weight(input)?.rows, self.manifest.max_sequence);
            if rows < needed {
                return Err(OpError::TableRows { rows, needed });
            }
            self.f32_weight(input, (rows, head_dim / 2))?;
        }
        self.rows_of(0, expected)
    }

    /// One logit for each token of the vocabulary.
    fn logits(&self) -> Result<OutputType, OpError> {
        self.count(1, "1")?;
        self.rows_of(0, OutputType::floats(RowSpace::Answer, self.manifest.vocabulary))
    }
}

/// Constants obey the storing rule like weights, so that no executor meets a subnormal or a payload in them.
fn constant(name: &'static str, value: f32) -> Result<(), OpError> {
    let kept = arithmetic::store(value).to_bits() == value.to_bits();
    if value.is_finite() && kept { Ok(()) } else { Err(OpError::Constant { name }) }
}
