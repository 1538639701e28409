//! Language models with seeded random weights, of any size.

use std::sync::Arc;

use gainsay_commitment::tensor::tensor_commitment;
use gainsay_program::{
    ArithmeticProfile, Dtype, GenerationSpec, JobField, KvDtype, Layer, LinearKind, Manifest, Op, OpKind,
    Operand, Program, TensorSpec, ValidatedModel,
};

/// What the model looks like.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    /// Transformer blocks.
    pub(crate) blocks: usize,
    /// Number of query heads.
    pub(crate) heads: u32,
    /// Number of key and value heads.
    pub(crate) kv_heads: u32,
    /// Columns of a head.
    pub(crate) head_dim: u32,
    /// Width between the linear maps of a block.
    pub(crate) intermediate: u32,
    /// Number of token ids.
    pub(crate) vocabulary: u32,
    /// Tokens of the longest sequence.
    pub(crate) max_sequence: u32,
    /// Type of the matrices: f32 or bf16.
    pub(crate) dtype: Dtype,
    /// Type of keys and values.
    pub(crate) kv_dtype: KvDtype,
    /// Seed of the weights.
    pub(crate) seed: u64,
}

impl Decoder {
    #[cfg_attr(not(test), expect(dead_code, reason = "for tests"))]
    /// Two blocks, four heads on two of keys, 60 token ids, sequences of up to 300 tokens.
    pub(crate) fn small() -> Self {
        Self {
            blocks: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 12,
            intermediate: 40,
            vocabulary: 60,
            max_sequence: 300,
            dtype: Dtype::F32,
            kv_dtype: KvDtype::Bf16,
            seed: 1,
        }
    }

    /// The model and its tensors.
    pub(crate) fn build(&self) -> (Arc<ValidatedModel>, Vec<Arc<[u8]>>) {
        let hidden = self.heads * self.head_dim;
        let mut builder =
            Builder { random: super::Random(self.seed), tensors: Vec::new(), weights: Vec::new() };
        let embedding = builder.matrix(self.dtype, self.vocabulary, hidden, 1.0);
        let (cos, sin) = self.angles(&mut builder);
        let ids = Operand::Job(JobField::Ids);
        let mut layers = vec![Layer { ops: vec![Op { kind: OpKind::Gather, inputs: vec![ids, embedding] }] }];
        layers.extend((0..self.blocks).map(|_| self.block(&mut builder, cos, sin)));
        let norm = builder.norm(hidden);
        let head = builder.matrix(self.dtype, self.vocabulary, hidden, 0.5);
        let mut ops = Ops::default();
        let x = ops.push(OpKind::SelectRows, &[Operand::LayerInput]);
        let x = ops.push(OpKind::RmsNorm { eps: 1e-6, group: hidden }, &[x, norm]);
        let x = ops.push(OpKind::Linear(LinearKind::F32), &[x, head]);
        let x = ops.push(OpKind::Penalize, &[x]);
        ops.push(OpKind::Sample, &[x]);
        layers.push(Layer { ops: ops.0 });
        let manifest = Manifest {
            name: "decoder".to_owned(),
            arithmetic: ArithmeticProfile::ExactF32V1,
            tokenizer: tensor_commitment(b"tokenizer"),
            vocabulary: self.vocabulary,
            max_sequence: self.max_sequence,
            expand_from_rows: 16,
            blocks_per_layer: 1,
            generation: Some(GenerationSpec {
                stop_ids: vec![2],
                kv_dtype: self.kv_dtype,
                template: None,
                defaults: gainsay_program::SamplingDefaults::default(),
            }),
            tensors: builder.tensors,
            program: Program { layers },
        };
        (Arc::new(manifest.validate().unwrap()), builder.weights)
    }

    fn angles(&self, builder: &mut Builder) -> (Operand, Operand) {
        let half = self.head_dim / 2;
        let angles = (0..self.max_sequence).flat_map(|position| {
            (0..half).map(move |c| f64::from(position) / 10_000f64.powf(f64::from(c) / f64::from(half)))
        });
        let angles: Vec<f64> = angles.collect();
        let mut add = |of: fn(f64) -> f64| {
            let bytes = angles.iter().flat_map(|&angle| {
                let value = of(angle) as f32;
                gainsay_arithmetic::store(value).to_le_bytes()
            });
            builder.add(Dtype::F32, self.max_sequence, half, bytes.collect())
        };
        (add(f64::cos), add(f64::sin))
    }

    fn block(&self, builder: &mut Builder, cos: Operand, sin: Operand) -> Layer {
        let (heads, kv_heads, head_dim) = (self.heads, self.kv_heads, self.head_dim);
        let (hidden, kv) = (heads * head_dim, kv_heads * head_dim);
        let rms = |group| OpKind::RmsNorm { eps: 1e-6, group };
        let mut ops = Ops::default();
        let mut linear = |ops: &mut Ops, x, rows, width| {
            let matrix = builder.matrix(self.dtype, rows, width, 1.0);
            ops.push(OpKind::Linear(LinearKind::F32), &[x, matrix])
        };
        let input = Operand::LayerInput;
        // The weights of norms are put in at the end.
        let x = ops.push(rms(hidden), &[input, Operand::Weight(0)]);
        let (q, k) = (linear(&mut ops, x, hidden, hidden), linear(&mut ops, x, kv, hidden));
        let v = linear(&mut ops, x, kv, hidden);
        let q = ops.push(rms(head_dim), &[q, Operand::Weight(0)]);
        let k = ops.push(rms(head_dim), &[k, Operand::Weight(0)]);
        let q = ops.push(OpKind::Rope { heads, head_dim }, &[q, cos, sin]);
        let mut k = ops.push(OpKind::Rope { heads: kv_heads, head_dim }, &[k, cos, sin]);
        let mut v = v;
        if self.kv_dtype == KvDtype::Bf16 {
            k = ops.push(OpKind::CastBf16, &[k]);
            v = ops.push(OpKind::CastBf16, &[v]);
        }
        let scale = 1.0 / (head_dim as f32).sqrt();
        let x = ops.push(OpKind::Attention { heads, kv_heads, head_dim, scale, causal: true }, &[q, k, v]);
        let x = linear(&mut ops, x, hidden, hidden);
        let residual = ops.push(OpKind::Add, &[input, x]);
        let x = ops.push(rms(hidden), &[residual, Operand::Weight(0)]);
        let gate = linear(&mut ops, x, self.intermediate, hidden);
        let gate = ops.push(OpKind::Silu, &[gate]);
        let up = linear(&mut ops, x, self.intermediate, hidden);
        let x = ops.push(OpKind::Mul, &[gate, up]);
        let x = linear(&mut ops, x, hidden, self.intermediate);
        ops.push(OpKind::Add, &[residual, x]);
        for op in &mut ops.0 {
            if let OpKind::RmsNorm { group, .. } = op.kind {
                op.inputs[1] = builder.norm(group);
            }
        }
        Layer { ops: ops.0 }
    }
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
    random: super::Random,
    tensors: Vec<TensorSpec>,
    weights: Vec<Arc<[u8]>>,
}

impl Builder {
    fn add(&mut self, dtype: Dtype, rows: u32, width: u32, bytes: Vec<u8>) -> Operand {
        let index = self.tensors.len() as u32;
        let commitment = tensor_commitment(&bytes);
        self.tensors.push(TensorSpec { name: format!("tensor {index}"), dtype, rows, width, commitment });
        self.weights.push(bytes.into());
        Operand::Weight(index)
    }

    /// Uniform numbers whose products with rows of numbers around 1 are around `size`.
    fn matrix(&mut self, dtype: Dtype, rows: u32, width: u32, size: f32) -> Operand {
        let scale = size * (3.0 / width as f32).sqrt();
        let values = (0..u64::from(rows) * u64::from(width)).map(|_| {
            let unit = (self.random.next_u64() >> 40) as f32 / (1 << 23) as f32 - 1.0;
            gainsay_arithmetic::store(unit * scale)
        });
        let bytes = match dtype {
            Dtype::Bf16 => values.flat_map(|x| gainsay_arithmetic::round_bf16(x).to_le_bytes()).collect(),
            _ => values.flat_map(f32::to_le_bytes).collect(),
        };
        self.add(if dtype == Dtype::Bf16 { dtype } else { Dtype::F32 }, rows, width, bytes)
    }

    fn norm(&mut self, width: u32) -> Operand {
        let values = (0..width).map(|_| 1.0 + (self.random.next_u64() >> 40) as f32 / (1 << 24) as f32 / 4.0);
        let bytes = values.flat_map(f32::to_le_bytes).collect();
        self.add(Dtype::F32, 1, width, bytes)
    }
}
