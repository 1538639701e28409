//! A tiny BERT checkpoint in memory, and ways to spoil it.

use std::collections::BTreeMap;

use gainsay_program::lowering::SourceFiles;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

/// A checkpoint that lowers as it is: two blocks, two heads of 4 columns.
pub(crate) struct Checkpoint {
    pub(crate) config: Value,
    pub(crate) modules: Value,
    pub(crate) pooling: Value,
    pub(crate) tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

const HIDDEN: usize = 8;
const INTERMEDIATE: usize = 12;

impl Checkpoint {
    pub(crate) fn new() -> Self {
        let mut checkpoint = Self {
            config: json!({
                "model_type": "bert", "hidden_act": "gelu", "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
                "layer_norm_eps": 1e-12, "max_position_embeddings": 6, "num_attention_heads": 2,
                "num_hidden_layers": 2, "type_vocab_size": 2, "vocab_size": 11, "use_cache": true,
            }),
            modules: modules(&["Transformer", "Pooling", "Normalize"]),
            pooling: json!({
                "word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true,
            }),
            tensors: BTreeMap::new(),
        };
        checkpoint.add_tensors();
        checkpoint
    }

    fn add_tensors(&mut self) {
        for (table, rows) in [("word", 11), ("position", 6), ("token_type", 2)] {
            self.add(format!("embeddings.{table}_embeddings.weight"), &[rows, HIDDEN]);
        }
        self.add_pair("embeddings.LayerNorm", &[HIDDEN]);
        for block in 0..2 {
            let name = |part: &str| format!("encoder.layer.{block}.{part}");
            for part in [
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
                "attention.output.dense",
            ] {
                self.add_pair(&name(part), &[HIDDEN, HIDDEN]);
            }
            self.add_pair(&name("attention.output.LayerNorm"), &[HIDDEN]);
            self.add_pair(&name("intermediate.dense"), &[INTERMEDIATE, HIDDEN]);
            self.add_pair(&name("output.dense"), &[HIDDEN, INTERMEDIATE]);
            self.add_pair(&name("output.LayerNorm"), &[HIDDEN]);
        }
        // Checkpoints hold more than lowering reads.
        self.add_pair("pooler.dense", &[HIDDEN, HIDDEN]);
    }

    fn add_pair(&mut self, name: &str, weight_shape: &[usize]) {
        self.add(format!("{name}.weight"), weight_shape);
        self.add(format!("{name}.bias"), &weight_shape[..1]);
    }

    fn add(&mut self, name: String, shape: &[usize]) {
        let seed = name.bytes().fold(17_u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        let value = |index: usize| ((index as f32 + 1.0) * (seed % 1009) as f32).sin();
        let bytes = (0..shape.iter().product()).flat_map(|index| value(index).to_le_bytes()).collect();
        self.tensors.insert(name, (Dtype::F32, shape.to_vec(), bytes));
    }

    /// Rewrites every tensor as a type of 16 bits.
    pub(crate) fn narrow(&mut self, dtype: Dtype, narrow: impl Fn(f32) -> u16) {
        for (tensor_dtype, _, bytes) in self.tensors.values_mut() {
            let values = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
            *bytes = values.flat_map(|value| narrow(value).to_le_bytes()).collect();
            *tensor_dtype = dtype;
        }
    }

    /// Renames every tensor.
    pub(crate) fn rename(&mut self, rename: impl Fn(&str) -> String) {
        self.tensors =
            std::mem::take(&mut self.tensors).into_iter().map(|(name, t)| (rename(&name), t)).collect();
    }

    pub(crate) fn files(&self) -> SourceFiles {
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).expect("the bytes fit the shape"))
        });
        SourceFiles {
            config: self.config.to_string().into_bytes(),
            weights: safetensors::serialize(views, None).expect("the tensors serialize"),
            tokenizer: b"{}".to_vec(),
            modules: self.modules.to_string().into_bytes(),
            pooling: self.pooling.to_string().into_bytes(),
        }
    }
}

/// `modules.json` with modules of these classes.
pub(crate) fn modules(classes: &[&str]) -> Value {
    let module = |(index, class): (usize, &&str)| {
        json!({
            "idx": index,
            "name": index.to_string(),
            "path": if index == 0 { String::new() } else { format!("{index}_{class}") },
            "type": format!("sentence_transformers.models.{class}"),
        })
    };
    classes.iter().enumerate().map(module).collect()
}
