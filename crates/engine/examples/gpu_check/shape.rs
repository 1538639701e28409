//! Language models of any size with weights that are made from a seed whenever they are asked for.
//!
//! Nothing of a model is kept but what its tensors look like: one of 8 billion weights needs no file, and no more memory
//! than a tensor beside what the engine packs.

use std::sync::Arc;

use anyhow::Result;
use gainsay_commitment::tensor::tensor_commitment;
use gainsay_engine::{DeviceChoice, Model, Options};
use gainsay_program::{
    ActivationBits, ArithmeticProfile, Dtype, GenerationSpec, JobField, KvDtype, Layer, LinearKind, Manifest,
    Op, OpKind, Operand, Program, SamplingDefaults, TensorSpec,
};
use rayon::prelude::*;

/// How the matrices of linear maps are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Matrices {
    /// Floats, multiplied in f32.
    Floats(Dtype),
    /// int8, in groups of so many columns; 0 for a scale a row.
    Int8(u32),
}

impl Matrices {
    /// As tables name it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Floats(Dtype::Bf16) => "f32 (bf16 weights)".to_owned(),
            Self::Floats(_) => "f32".to_owned(),
            Self::Int8(0) => "int8 per channel".to_owned(),
            Self::Int8(group) => format!("int8 groups of {group}"),
        }
    }

    /// As names of parts have it.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Floats(Dtype::Bf16) => "bf16",
            Self::Floats(_) => "f32",
            Self::Int8(0) => "int8",
            Self::Int8(_) => "int8-grouped",
        }
    }
}

/// A decoder of the Llama family.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// As tables name it.
    pub(crate) name: &'static str,
    /// As names of parts have it.
    pub(crate) id: &'static str,
    /// Transformer blocks.
    pub(crate) blocks: u32,
    /// Heads of queries.
    pub(crate) heads: u32,
    /// Heads of keys and values.
    pub(crate) kv_heads: u32,
    /// Columns of a head.
    pub(crate) head_dim: u32,
    /// Width between the linear maps of a block.
    pub(crate) intermediate: u32,
    /// Token ids.
    pub(crate) vocabulary: u32,
    /// Tokens of the longest sequence.
    pub(crate) max_sequence: u32,
}

/// Runs where the check has little time: two blocks of a few columns.
pub(crate) const TINY: Shape = Shape {
    name: "tiny",
    id: "tiny",
    blocks: 2,
    heads: 4,
    kv_heads: 2,
    head_dim: 12,
    intermediate: 40,
    vocabulary: 60,
    max_sequence: 320,
};

/// As Llama 3.2 1B.
pub(crate) const LLAMA_1B: Shape = Shape {
    name: "llama 1B",
    id: "1b",
    blocks: 16,
    heads: 32,
    kv_heads: 8,
    head_dim: 64,
    intermediate: 8192,
    vocabulary: 128_256,
    max_sequence: 5120,
};

/// As Llama 3.1 8B.
pub(crate) const LLAMA_8B: Shape =
    Shape { name: "llama 8B", id: "8b", blocks: 32, head_dim: 128, intermediate: 14_336, ..LLAMA_1B };

impl Shape {
    /// Columns of the residual stream.
    pub(crate) fn hidden(&self) -> u32 {
        self.heads * self.head_dim
    }

    fn kv_width(&self) -> u32 {
        self.kv_heads * self.head_dim
    }

    /// Weights that every token is multiplied with: all but the table of embeddings.
    pub(crate) fn active_weights(&self) -> u64 {
        let [hidden, kv, between] = [self.hidden(), self.kv_width(), self.intermediate].map(u64::from);
        let block = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * between;
        u64::from(self.blocks) * block + hidden * u64::from(self.vocabulary)
    }

    /// The whole model on a device.
    pub(crate) fn load(&self, matrices: Matrices, device: DeviceChoice) -> Result<Model> {
        let mut builder = Builder { matrices, tensors: Vec::new() };
        let table = builder.tensor(Dtype::Bf16, Fill::Uniform(1.0), self.vocabulary, self.hidden());
        let half = self.head_dim / 2;
        let [cos, sin] =
            [Fill::Cos, Fill::Sin].map(|fill| builder.tensor(Dtype::F32, fill, self.max_sequence, half));
        let ids = Operand::Job(JobField::Ids);
        let mut layers = vec![Layer { ops: vec![Op { kind: OpKind::Gather, inputs: vec![ids, table] }] }];
        layers.extend((0..self.blocks).map(|_| self.block(&mut builder, cos, sin)));
        layers.push(self.head(&mut builder));
        builder.load(self, layers, device)
    }

    /// A model that attends so many times from each token, and does next to nothing else: what `count` attentions take is
    /// what models of different counts take apart.
    pub(crate) fn load_attention(&self, count: u32, device: DeviceChoice) -> Result<Model> {
        let mut builder = Builder { matrices: Matrices::Floats(Dtype::Bf16), tensors: Vec::new() };
        let mut ops = Ops::default();
        let vocabulary = 64;
        let [mut x, k, v] = [self.hidden(), self.kv_width(), self.kv_width()].map(|width| {
            let table = builder.tensor(Dtype::Bf16, Fill::Uniform(1.0), vocabulary, width);
            ops.push(OpKind::Gather, &[Operand::Job(JobField::Ids), table])
        });
        let [k, v] = [k, v].map(|x| ops.push(OpKind::CastBf16, &[x]));
        for _ in 0..count {
            x = ops.push(self.attention(), &[x, k, v]);
        }
        let shape = Self { vocabulary, ..*self };
        let layers = vec![Layer { ops: ops.0 }, shape.head(&mut builder)];
        builder.load(&shape, layers, device)
    }

    fn attention(&self) -> OpKind {
        let (heads, kv_heads, head_dim) = (self.heads, self.kv_heads, self.head_dim);
        OpKind::Attention { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt(), causal: true }
    }

    fn head(&self, builder: &mut Builder) -> Layer {
        let mut ops = Ops::default();
        let x = ops.push(OpKind::SelectRows, &[Operand::LayerInput]);
        let x = builder.norm(&mut ops, x, self.hidden());
        let x = builder.linear(&mut ops, x, self.vocabulary, self.hidden());
        let x = ops.push(OpKind::Penalize, &[x]);
        ops.push(OpKind::Sample, &[x]);
        Layer { ops: ops.0 }
    }

    fn block(&self, builder: &mut Builder, cos: Operand, sin: Operand) -> Layer {
        let Self { heads, kv_heads, head_dim, intermediate, .. } = *self;
        let (hidden, kv) = (self.hidden(), self.kv_width());
        let mut ops = Ops::default();
        let input = Operand::LayerInput;
        let x = builder.norm(&mut ops, input, hidden);
        let [q, k, v] = [hidden, kv, kv].map(|width| builder.linear(&mut ops, x, width, hidden));
        let q = ops.push(OpKind::Rope { heads, head_dim }, &[q, cos, sin]);
        let k = ops.push(OpKind::Rope { heads: kv_heads, head_dim }, &[k, cos, sin]);
        let [k, v] = [k, v].map(|x| ops.push(OpKind::CastBf16, &[x]));
        let x = ops.push(self.attention(), &[q, k, v]);
        let x = builder.linear(&mut ops, x, hidden, hidden);
        let residual = ops.push(OpKind::Add, &[input, x]);
        let x = builder.norm(&mut ops, residual, hidden);
        let [gate, up] = [0; 2].map(|_| builder.linear(&mut ops, x, intermediate, hidden));
        let gate = ops.push(OpKind::Silu, &[gate]);
        let x = ops.push(OpKind::Mul, &[gate, up]);
        let x = builder.linear(&mut ops, x, hidden, intermediate);
        ops.push(OpKind::Add, &[residual, x]);
        Layer { ops: ops.0 }
    }
}

/// What a tensor is filled with.
#[derive(Debug, Clone, Copy)]
enum Fill {
    /// Uniform up to this size.
    Uniform(f32),
    /// int8 levels, uniform.
    Levels,
    /// One number.
    Same(f32),
    /// Cosines of the angles of positions.
    Cos,
    /// Sines of the angles of positions.
    Sin,
}

#[derive(Default)]
struct Ops(Vec<Op>);

impl Ops {
    fn push(&mut self, kind: OpKind, inputs: &[Operand]) -> Operand {
        self.0.push(Op { kind, inputs: inputs.to_vec() });
        Operand::Op(self.0.len() as u32 - 1)
    }
}

struct Builder {
    matrices: Matrices,
    tensors: Vec<Tensor>,
}

#[derive(Clone, Copy)]
struct Tensor {
    dtype: Dtype,
    fill: Fill,
    rows: u32,
    width: u32,
}

impl Builder {
    fn tensor(&mut self, dtype: Dtype, fill: Fill, rows: u32, width: u32) -> Operand {
        self.tensors.push(Tensor { dtype, fill, rows, width });
        Operand::Weight(self.tensors.len() as u32 - 1)
    }

    fn norm(&mut self, ops: &mut Ops, x: Operand, width: u32) -> Operand {
        let weight = self.tensor(Dtype::F32, Fill::Same(1.0), 1, width);
        ops.push(OpKind::RmsNorm { eps: 1e-5, group: width }, &[x, weight])
    }

    /// A linear map of rows of numbers around 1 to rows of numbers around 1.
    fn linear(&mut self, ops: &mut Ops, x: Operand, columns: u32, depth: u32) -> Operand {
        let size = (3.0 / depth as f32).sqrt();
        match self.matrices {
            Matrices::Floats(dtype) => {
                let matrix = self.tensor(dtype, Fill::Uniform(size), columns, depth);
                ops.push(OpKind::Linear(LinearKind::F32), &[x, matrix])
            }
            Matrices::Int8(group) => {
                let group = if group > 0 && depth.is_multiple_of(group) { group } else { depth };
                let levels = self.tensor(Dtype::I8, Fill::Levels, columns, depth);
                let scales = self.tensor(Dtype::F32, Fill::Same(size / 127.0), columns, depth / group);
                let kind = LinearKind::Int8 { group, activation_bits: ActivationBits::Eight };
                ops.push(OpKind::Linear(kind), &[x, levels, scales])
            }
        }
    }

    fn load(self, shape: &Shape, layers: Vec<Layer>, device: DeviceChoice) -> Result<Model> {
        let specs = self.tensors.par_iter().enumerate().map(|(index, tensor)| TensorSpec {
            name: format!("tensor {index}"),
            dtype: tensor.dtype,
            rows: tensor.rows,
            width: tensor.width,
            commitment: tensor_commitment(&tensor.bytes(index)),
        });
        let manifest = Manifest {
            name: shape.name.to_owned(),
            arithmetic: match self.matrices {
                Matrices::Floats(_) => ArithmeticProfile::ExactF32V1,
                Matrices::Int8(_) => ArithmeticProfile::ExactInt8V1,
            },
            tokenizer: tensor_commitment(b"no tokenizer"),
            vocabulary: shape.vocabulary,
            max_sequence: shape.max_sequence,
            expand_from_rows: 16,
            blocks_per_layer: 1,
            generation: Some(GenerationSpec {
                stop_ids: Vec::new(),
                kv_dtype: KvDtype::Bf16,
                template: None,
                defaults: SamplingDefaults::default(),
            }),
            tensors: specs.collect(),
            program: Program { layers },
        };
        let model = Arc::new(manifest.validate()?);
        // What is measured is the machine, not what a worker would be allowed of it.
        let options = Options { device, weights: u64::MAX, memory: u64::MAX, ..Options::default() };
        Ok(Model::read(model, |index| Ok(self.tensors[index].bytes(index).into()), options)?)
    }
}

/// Elements that are drawn; a tensor of more repeats them. A prime: of as many rows no two begin at the same of them, so
/// that a kernel which takes one row for another is found out.
const PIECE: usize = 65_521;

impl Tensor {
    /// The tensor's bytes, the same whenever they are asked for. Its index is its seed. Billions of them take no longer than
    /// to be copied.
    fn bytes(&self, index: usize) -> Vec<u8> {
        let element = self.dtype.bytes() as usize;
        let elements = self.rows as usize * self.width as usize;
        let repeats = !matches!(self.fill, Fill::Cos | Fill::Sin);
        let mut random = super::support::Random((index as u64) << 40);
        let mut piece = vec![0; element * if repeats { elements.min(PIECE) } else { elements }];
        for (at, bytes) in piece.chunks_exact_mut(element).enumerate() {
            self.fill(at, &mut random, bytes);
        }
        if piece.len() == elements * element {
            return piece;
        }
        let mut bytes = vec![0; elements * element];
        bytes.par_chunks_mut(piece.len()).for_each(|bytes| bytes.copy_from_slice(&piece[..bytes.len()]));
        bytes
    }

    fn fill(&self, at: usize, random: &mut super::support::Random, bytes: &mut [u8]) {
        let value = match self.fill {
            Fill::Levels => {
                bytes[0] = ((random.next_u64() % 255) as i32 - 127).cast_unsigned() as u8;
                return;
            }
            Fill::Uniform(size) => size * ((random.next_u64() >> 40) as f32 / (1 << 23) as f32 - 1.0),
            Fill::Same(value) => value,
            Fill::Cos => self.angle(at).cos() as f32,
            Fill::Sin => self.angle(at).sin() as f32,
        };
        let value = gainsay_arithmetic::store(value);
        match self.dtype {
            Dtype::Bf16 => bytes.copy_from_slice(&gainsay_arithmetic::round_bf16(value).to_le_bytes()),
            _ => bytes.copy_from_slice(&value.to_le_bytes()),
        }
    }

    fn angle(&self, at: usize) -> f64 {
        let (position, pair) = (at / self.width as usize, at % self.width as usize);
        position as f64 / 500_000f64.powf(pair as f64 / f64::from(self.width))
    }
}
