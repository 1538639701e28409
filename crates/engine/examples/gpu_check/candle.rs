//! The same shapes by candle's own operators in bf16, its matrix products by cuBLAS: what the speed is measured against.
//!
//! Weights are pseudo-random; what they are does not matter to how long they take. Whatever could be left out in candle's
//! favour is: keys and values of a decode step are already where they are read, as are masks; heads that share keys are
//! multiplied without a copy; no token is drawn, and no logit leaves the device.

use anyhow::Result;
use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::rope;

use super::shape::Shape;

/// Weights of a Llama, in candle's tensors.
pub(crate) struct CandleLlama {
    shape: Shape,
    table: Tensor,
    blocks: Vec<Block>,
    norm: Tensor,
    head: Tensor,
    cos: Tensor,
    sin: Tensor,
}

struct Block {
    norms: [Tensor; 2],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

/// Pseudo-random matrices, made of repetitions of one piece.
pub(crate) struct Noise {
    piece: Tensor,
    dtype: DType,
}

const PIECE: usize = 1 << 20;

impl Noise {
    pub(crate) fn new(device: &Device) -> Result<Self> {
        let mut random = super::support::Random(1);
        let values: Vec<f32> =
            (0..PIECE).map(|_| (random.next_u64() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect();
        // candle multiplies bf16 on devices alone.
        let dtype = if device.is_cuda() { DType::BF16 } else { DType::F32 };
        Ok(Self { piece: Tensor::new(values, device)?.to_dtype(dtype)?, dtype })
    }

    /// A tensor of numbers up to `size`.
    pub(crate) fn tensor(&self, shape: &[usize], size: f64) -> Result<Tensor> {
        let elements: usize = shape.iter().product();
        let copies = elements.div_ceil(PIECE);
        let all = (&self.piece * size)?.broadcast_as((copies, PIECE))?.contiguous()?.flatten_all()?;
        Ok(all.narrow(0, 0, elements)?.reshape(shape)?.copy()?)
    }

    fn matrix(&self, rows: u32, width: u32) -> Result<Tensor> {
        self.tensor(&[rows as usize, width as usize], (3.0 / f64::from(width)).sqrt())
    }

    fn ones(&self, width: u32) -> Result<Tensor> {
        Ok(Tensor::ones(width as usize, self.dtype, self.piece.device())?)
    }
}

const EPS: f32 = 1e-5;

fn linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    Ok(x.matmul(&w.t()?)?)
}

impl CandleLlama {
    pub(crate) fn new(shape: Shape, device: &Device) -> Result<Self> {
        let noise = Noise::new(device)?;
        let (hidden, kv) = (shape.hidden(), shape.kv_heads * shape.head_dim);
        let block = || -> Result<Block> {
            Ok(Block {
                norms: [noise.ones(hidden)?, noise.ones(hidden)?],
                q: noise.matrix(hidden, hidden)?,
                k: noise.matrix(kv, hidden)?,
                v: noise.matrix(kv, hidden)?,
                o: noise.matrix(hidden, hidden)?,
                gate: noise.matrix(shape.intermediate, hidden)?,
                up: noise.matrix(shape.intermediate, hidden)?,
                down: noise.matrix(hidden, shape.intermediate)?,
            })
        };
        let angles = [shape.max_sequence as usize, shape.head_dim as usize / 2];
        Ok(Self {
            shape,
            table: noise.matrix(shape.vocabulary, hidden)?,
            blocks: (0..shape.blocks).map(|_| block()).collect::<Result<_>>()?,
            norm: noise.ones(hidden)?,
            head: noise.matrix(shape.vocabulary, hidden)?,
            cos: noise.tensor(&angles, 0.7)?,
            sin: noise.tensor(&angles, 0.7)?,
        })
    }

    /// Keys and values of `tokens` tokens of `batch` sequences, of one block; all blocks read the same.
    pub(crate) fn cache(&self, batch: usize, tokens: usize) -> Result<[Tensor; 2]> {
        let noise = Noise::new(self.table.device())?;
        let Shape { kv_heads, head_dim, .. } = self.shape;
        let shape = [batch, kv_heads as usize, tokens, head_dim as usize];
        Ok([noise.tensor(&shape, 1.0)?, noise.tensor(&shape, 1.0)?])
    }

    /// What hides later tokens from each of `tokens` tokens.
    pub(crate) fn mask(&self, tokens: usize) -> Result<Option<Tensor>> {
        causal_mask(tokens, self.table.dtype(), self.table.device())
    }

    /// The logits of the last of `tokens` new tokens of each sequence, after those of the cache; waits for the device.
    pub(crate) fn forward(
        &self,
        (batch, tokens): (usize, usize),
        cache: Option<&[Tensor; 2]>,
        mask: Option<&Tensor>,
    ) -> Result<()> {
        let device = self.table.device();
        let ids: Vec<u32> = (0..batch * tokens).map(|at| at as u32 * 7 % self.shape.vocabulary).collect();
        let hidden = self.shape.hidden() as usize;
        let mut x = self.table.index_select(&Tensor::new(ids, device)?, 0)?;
        for block in &self.blocks {
            let normed = rms_norm(&x, &block.norms[0], EPS)?;
            let attended = self.attend(block, &normed, (batch, tokens), cache, mask)?;
            x = (x + linear(&attended, &block.o)?)?;
            let normed = rms_norm(&x, &block.norms[1], EPS)?;
            let between = (silu(&linear(&normed, &block.gate)?)? * linear(&normed, &block.up)?)?;
            x = (x + linear(&between, &block.down)?)?;
        }
        let last = x.reshape((batch, tokens, hidden))?.narrow(1, tokens - 1, 1)?.contiguous()?;
        let last = rms_norm(&last.reshape((batch, hidden))?, &self.norm, EPS)?;
        linear(&last, &self.head)?;
        Ok(device.synchronize()?)
    }

    fn attend(
        &self,
        block: &Block,
        x: &Tensor,
        (batch, tokens): (usize, usize),
        cache: Option<&[Tensor; 2]>,
        mask: Option<&Tensor>,
    ) -> Result<Tensor> {
        let Shape { heads, kv_heads, head_dim, .. } = self.shape;
        let split = |x: Tensor, heads: u32| -> Result<Tensor> {
            let shape = (batch, tokens, heads as usize, head_dim as usize);
            Ok(x.reshape(shape)?.transpose(1, 2)?.contiguous()?)
        };
        let before = cache.map_or(Ok(0), |[k, _]| k.dim(2))?;
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.narrow(0, before, tokens));
        let (cos, sin) = (cos?, sin?);
        let q = rope(&split(linear(x, &block.q)?, heads)?, &cos, &sin)?;
        let k = rope(&split(linear(x, &block.k)?, kv_heads)?, &cos, &sin)?;
        let v = split(linear(x, &block.v)?, kv_heads)?;
        let context = match cache {
            Some([keys, values]) => attention(&q, keys, values, None)?,
            None => attention(&q, &k, &v, mask)?,
        };
        let width = (heads * head_dim) as usize;
        Ok(context.transpose(1, 2)?.contiguous()?.reshape((batch * tokens, width))?)
    }
}

/// 0 where a token sees another, −∞ where it does not; none for a single token.
pub(crate) fn causal_mask(tokens: usize, dtype: DType, device: &Device) -> Result<Option<Tensor>> {
    if tokens == 1 {
        return Ok(None);
    }
    let mask: Vec<f32> = (0..tokens)
        .flat_map(|row| (0..tokens).map(move |column| if column > row { f32::NEG_INFINITY } else { 0.0 }))
        .collect();
    Ok(Some(Tensor::from_vec(mask, (tokens, tokens), device)?.to_dtype(dtype)?))
}

/// Attention of `[batch, heads, tokens, width]` over `[batch, kv_heads, seen, width]`. Heads that share keys are rows of one
/// product.
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let (batch, heads, tokens, width) = q.dims4()?;
    let (kv_heads, seen) = (k.dim(1)?, k.dim(2)?);
    let q =
        (q * (1.0 / (width as f64).sqrt()))?.reshape((batch, kv_heads, heads / kv_heads * tokens, width))?;
    let mut scores = q.matmul(&k.t()?)?.reshape((batch, heads, tokens, seen))?;
    if let Some(mask) = mask {
        scores = scores.broadcast_add(mask)?;
    }
    let weights = softmax_last_dim(&scores)?.reshape((batch, kv_heads, heads / kv_heads * tokens, seen))?;
    Ok(weights.matmul(v)?.reshape((batch, heads, tokens, width))?)
}

/// An encoder in the shape of MiniLM: the products and fused operators of its blocks.
pub(crate) struct CandleEncoder {
    width: usize,
    heads: usize,
    blocks: Vec<[Tensor; 6]>,
    weight: Tensor,
    bias: Tensor,
    noise: Noise,
}

impl CandleEncoder {
    pub(crate) fn new(blocks: u32, heads: u32, head_dim: u32, between: u32, device: &Device) -> Result<Self> {
        let noise = Noise::new(device)?;
        let width = heads * head_dim;
        let block = || -> Result<[Tensor; 6]> {
            let square = || noise.matrix(width, width);
            Ok([
                square()?,
                square()?,
                square()?,
                square()?,
                noise.matrix(between, width)?,
                noise.matrix(width, between)?,
            ])
        };
        Ok(Self {
            width: width as usize,
            heads: heads as usize,
            blocks: (0..blocks).map(|_| block()).collect::<Result<_>>()?,
            weight: noise.ones(width)?,
            bias: noise.tensor(&[width as usize], 0.1)?,
            noise,
        })
    }

    /// Rows for so many tokens.
    pub(crate) fn input(&self, tokens: usize) -> Result<Tensor> {
        self.noise.tensor(&[tokens, self.width], 1.0)
    }

    /// Vectors of `sequences` sequences of one length, from their tokens' rows; waits for the device, and fetches them.
    pub(crate) fn forward(&self, input: &Tensor, sequences: usize) -> Result<()> {
        let tokens = input.dim(0)? / sequences;
        let norm = |x: &Tensor| candle_nn::ops::layer_norm(x, &self.weight, &self.bias, 1e-12);
        let mut x = norm(input)?;
        let width = self.width / self.heads;
        for [q, k, v, o, up, down] in &self.blocks {
            let split = |w: &Tensor| -> Result<Tensor> {
                let heads = linear(&x, w)?.reshape((sequences, tokens, self.heads, width))?;
                Ok(heads.transpose(1, 2)?.contiguous()?)
            };
            let context = attention(&split(q)?, &split(k)?, &split(v)?, None)?;
            let context = context.transpose(1, 2)?.contiguous()?.reshape((sequences * tokens, self.width))?;
            x = norm(&(linear(&context, o)? + &x)?)?;
            let between = linear(&x, up)?.gelu_erf()?;
            x = norm(&(linear(&between, down)? + &x)?)?;
        }
        let pooled = (x.reshape((sequences, tokens, self.width))?.sum(1)? / tokens as f64)?;
        let norms = pooled.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        let vectors = pooled.broadcast_div(&norms)?;
        vectors.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(())
    }
}
