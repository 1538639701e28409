//! The same model by candle's own operators, as candle's model library writes BERT, with its fused softmax and norm.
//!
//! All sequences have one length, so that no padding and no mask is needed, which favours candle.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{D, Device, Tensor, safetensors};
use candle_nn::{Embedding, LayerNorm, Linear, Module, ops::softmax_last_dim};

const HEADS: usize = 12;
const BLOCKS: usize = 6;
const EPS: f64 = 1e-12;

pub(crate) struct CandleBert {
    words: Embedding,
    positions: Embedding,
    types: Embedding,
    norm: LayerNorm,
    blocks: Vec<Block>,
}

struct Block {
    query: Linear,
    key: Linear,
    value: Linear,
    projection: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    output_norm: LayerNorm,
}

struct Tensors(HashMap<String, Tensor>);

impl Tensors {
    fn get(&self, name: &str) -> Result<Tensor> {
        self.0.get(name).cloned().with_context(|| format!("no tensor {name}"))
    }

    fn linear(&self, name: &str) -> Result<Linear> {
        Ok(Linear::new(self.get(&format!("{name}.weight"))?, Some(self.get(&format!("{name}.bias"))?)))
    }

    fn norm(&self, name: &str) -> Result<LayerNorm> {
        Ok(LayerNorm::new(self.get(&format!("{name}.weight"))?, self.get(&format!("{name}.bias"))?, EPS))
    }

    fn embedding(&self, name: &str) -> Result<Embedding> {
        let table = self.get(&format!("embeddings.{name}_embeddings.weight"))?;
        let width = table.dim(1)?;
        Ok(Embedding::new(table, width))
    }

    fn block(&self, index: usize) -> Result<Block> {
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        Ok(Block {
            query: self.linear(&name("attention.self.query"))?,
            key: self.linear(&name("attention.self.key"))?,
            value: self.linear(&name("attention.self.value"))?,
            projection: self.linear(&name("attention.output.dense"))?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"))?,
            up: self.linear(&name("intermediate.dense"))?,
            down: self.linear(&name("output.dense"))?,
            output_norm: self.norm(&name("output.LayerNorm"))?,
        })
    }
}

impl CandleBert {
    pub(crate) fn load(file: &Path) -> Result<Self> {
        let tensors = Tensors(
            safetensors::load(file, &Device::Cpu).context("fetch it with `cargo xtask fetch-model`")?,
        );
        Ok(Self {
            words: tensors.embedding("word")?,
            positions: tensors.embedding("position")?,
            types: tensors.embedding("token_type")?,
            norm: tensors.norm("embeddings.LayerNorm")?,
            blocks: (0..BLOCKS).map(|index| tensors.block(index)).collect::<Result<_>>()?,
        })
    }

    /// Normalized mean-pooled vectors of `sequences` sequences of one length.
    pub(crate) fn embed(&self, ids: &[u32], sequences: usize) -> Result<Vec<f32>> {
        let tokens = ids.len() / sequences;
        let ids = Tensor::from_slice(ids, (sequences, tokens), &Device::Cpu)?;
        let positions = Tensor::arange(0, tokens as u32, &Device::Cpu)?;
        let words = (self.words.forward(&ids)? + self.types.forward(&ids.zeros_like()?)?)?;
        let mut x = self.norm.forward(&words.broadcast_add(&self.positions.forward(&positions)?)?)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        let pooled = (x.sum(1)? / tokens as f64)?;
        let norms = pooled.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        Ok(pooled.broadcast_div(&norms)?.flatten_all()?.to_vec1()?)
    }
}

impl Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let attended = self.projection.forward(&self.attend(x)?)?;
        let x = self.attention_norm.forward(&(attended + x)?)?;
        let up = self.up.forward(&x)?.gelu_erf()?;
        Ok(self.output_norm.forward(&(self.down.forward(&up)? + &x)?)?)
    }

    fn attend(&self, x: &Tensor) -> Result<Tensor> {
        let (sequences, tokens, width) = x.dims3()?;
        let heads =
            |x: Tensor| x.reshape((sequences, tokens, HEADS, width / HEADS))?.transpose(1, 2)?.contiguous();
        let [q, k, v] = [&self.query, &self.key, &self.value].map(|map| map.forward(x).and_then(heads));
        let scores = (q?.matmul(&k?.t()?)? / ((width / HEADS) as f64).sqrt())?;
        let context = softmax_last_dim(&scores)?.matmul(&v?)?;
        Ok(context.transpose(1, 2)?.contiguous()?.flatten_from(D::Minus2)?)
    }
}
