//! A language model made on the spot, where no real one can be had: the files of a Llama with random weights and a
//! tokenizer of single bytes. What it says means nothing; what it costs, and how it is verified, is as with a real one.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

/// What people are told that it is.
pub(crate) const DESCRIPTION: &str = "a generated model with random weights, whose words mean nothing";

/// How large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Size {
    /// 2 blocks of width 64: runs anywhere in no time.
    Tiny,
    /// 12 blocks of width 512: 38 million parameters.
    Small,
}

impl Size {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tiny => "generated-tiny",
            Self::Small => "generated-small",
        }
    }

    fn shape(self) -> Shape {
        match self {
            Self::Tiny => {
                Shape { blocks: 2, heads: 4, kv_heads: 2, head_dim: 16, intermediate: 128, vocabulary: 320 }
            }
            Self::Small => Shape {
                blocks: 12,
                heads: 8,
                kv_heads: 4,
                head_dim: 64,
                intermediate: 1_536,
                vocabulary: 8_192,
            },
        }
    }
}

struct Shape {
    blocks: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    intermediate: usize,
    vocabulary: usize,
}

/// Longest sequence.
const MAX_SEQUENCE: usize = 4_096;
/// The id that ends an answer, behind one for each byte.
const END: usize = 256;
/// Of the random weights; the same files each time give the same model id.
const SEED: u64 = 0x6761_696e_7361_7921;

const TEMPLATE: &str =
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:";

/// Writes the model's files into a folder.
pub(crate) fn write(dir: &Path, size: Size) -> Result<()> {
    let shape = size.shape();
    std::fs::create_dir_all(dir).with_context(|| format!("cannot write to {}", dir.display()))?;
    let files = [
        ("config.json", config(&shape)),
        ("tokenizer.json", tokenizer()),
        (
            "tokenizer_config.json",
            json!({ "chat_template": TEMPLATE, "eos_token": "</s>" }).to_string().into_bytes(),
        ),
        ("model.safetensors", weights(&shape)),
    ];
    for (name, bytes) in files {
        let path = dir.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn config(shape: &Shape) -> Vec<u8> {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.heads * shape.head_dim,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.blocks,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "max_position_embeddings": MAX_SEQUENCE,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": false,
        "attention_bias": false,
        "mlp_bias": false,
        "bos_token_id": END,
        "eos_token_id": END,
        "torch_dtype": "bfloat16",
    })
    .to_string()
    .into_bytes()
}

/// A byte-level BPE without merges: a token is a byte.
fn tokenizer() -> Vec<u8> {
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        alphabet().into_iter().enumerate().map(|(byte, char)| (char.to_string(), byte.into())).collect();
    let bytes =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{ "id": END, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true }],
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": null,
        "decoder": bytes,
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": [] },
    })
    .to_string()
    .into_bytes()
}

/// The characters that byte-level BPE writes bytes as: themselves where they are printable, others beyond 255.
fn alphabet() -> Vec<char> {
    let mut next = 256;
    let write = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => {
            let char = char::from_u32(next).expect("far below the surrogates");
            next += 1;
            char
        }
    };
    (0..=255).map(write).collect()
}

/// All tensors in bf16, in the format of safetensors: a header that says where each is, then their bytes.
fn weights(shape: &Shape) -> Vec<u8> {
    let Shape { blocks, heads, kv_heads, head_dim, intermediate, vocabulary } = *shape;
    let hidden = heads * head_dim;
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden])];
    for block in 0..blocks {
        let parts = [
            ("input_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![heads * head_dim, hidden]),
            ("self_attn.k_proj", vec![kv_heads * head_dim, hidden]),
            ("self_attn.v_proj", vec![kv_heads * head_dim, hidden]),
            ("self_attn.o_proj", vec![hidden, heads * head_dim]),
            ("post_attention_layernorm", vec![hidden]),
            ("mlp.gate_proj", vec![intermediate, hidden]),
            ("mlp.up_proj", vec![intermediate, hidden]),
            ("mlp.down_proj", vec![hidden, intermediate]),
        ];
        tensors.extend(parts.map(|(part, shape)| (format!("model.layers.{block}.{part}.weight"), shape)));
    }
    tensors.push(("model.norm.weight".to_owned(), vec![hidden]));
    tensors.push(("lm_head.weight".to_owned(), vec![vocabulary, hidden]));
    let (mut header, mut data, mut random) = (serde_json::Map::new(), Vec::new(), SEED);
    for (name, shape) in tensors {
        let start = data.len();
        match shape[..] {
            // Norms scale by one.
            [width] => (0..width).for_each(|_| data.extend_from_slice(&0x3f80_u16.to_le_bytes())),
            _ => {
                // Sums over a row then have a size near one.
                let scale = (3.0 / shape[1] as f32).sqrt();
                for _ in 0..shape.iter().product() {
                    let value = scale * uniform(&mut random);
                    data.extend_from_slice(&((value.to_bits() >> 16) as u16).to_le_bytes());
                }
            }
        }
        let entry = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(name, entry);
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

/// Uniform over −1 to 1, by SplitMix64.
fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^= word >> 31;
    (word >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::LocalModel;
    use gainsay_program::ArithmeticProfile;
    use gainsay_program::lowering::LowerOptions;

    #[test]
    fn its_files_are_those_of_a_language_model_with_a_conversation() {
        let dir = std::env::temp_dir().join(format!("gainsay-generated-{}", std::process::id()));
        write(&dir, Size::Tiny).unwrap();
        let options = LowerOptions::new("generated", ArithmeticProfile::ExactF32V1);
        let model = LocalModel::read(&dir, &options, &mut |_| {}).unwrap();
        let again = LocalModel::read(&dir, &options, &mut |_| {}).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(model.id(), again.id());
        assert!(model.template.is_some());
        assert_eq!(model.manifest.generation.as_ref().unwrap().stop_ids, [END as u32]);
        let tokenizer = tokenizers::Tokenizer::from_bytes(&model.tokenizer).unwrap();
        let text = "Ünïcode,\n two words\u{0}";
        let ids = tokenizer.encode_fast(text, true).unwrap().get_ids().to_vec();
        assert_eq!(ids, text.bytes().map(u32::from).collect::<Vec<_>>());
    }
}
