//! Lowering of language models, from the files of the small models that `transformers` has made of each family.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};

use gainsay_commitment::Canonical as _;
use gainsay_program::lowering::{
    LanguageFiles, LanguageFilesError, LowerError, LowerOptions, Lowered, is_language_model, lower_language,
};
use gainsay_program::{
    ArithmeticProfile, KvDtype, MAX_TOP_K, Manifest, ManifestError, OpKind, Sampling, SamplingDefaults,
    ValidatedModel,
};
use serde_json::{Value, json};

pub(crate) const FAMILIES: [&str; 7] =
    ["llama2", "llama3", "llama_linear", "mistral", "qwen2", "qwen3", "smollm2"];

pub(crate) fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/fixtures/families").join(family)
}

pub(crate) fn files(family: &str) -> LanguageFiles {
    LanguageFiles::load(|name| Ok::<_, Infallible>(fs::read(folder(family).join(name)).ok()))
        .unwrap_or_else(|error| panic!("{family}: {error}"))
}

fn options(arithmetic: ArithmeticProfile) -> LowerOptions {
    LowerOptions { int8_group: 16, ..LowerOptions::new("small", arithmetic) }
}

fn lower(family: &str, arithmetic: ArithmeticProfile) -> Lowered {
    lower_language(&files(family), &options(arithmetic)).unwrap_or_else(|error| panic!("{family}: {error:?}"))
}

fn model(family: &str) -> ValidatedModel {
    lower(family, ArithmeticProfile::ExactF32V1).manifest.validate().expect("lowering validates")
}

fn count(model: &ValidatedModel, layer: u32, wanted: impl Fn(&OpKind) -> bool) -> usize {
    model.ops(layer).iter().filter(|op| wanted(&op.kind)).count()
}

/// What lowering says of a family whose `config.json` was changed.
fn refusal(family: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut files = files(family);
    let mut config: Value = serde_json::from_slice(&files.config).expect("the configuration parses");
    change(&mut config);
    files.config = config.to_string().into_bytes();
    match lower_language(&files, &options(ArithmeticProfile::ExactF32V1)) {
        Err(LowerError::Config(error)) => error.to_string(),
        Err(error) => panic!("refused for another reason: {error:?}"),
        Ok(_) => panic!("the change is not refused"),
    }
}

#[test]
fn every_family_lowers_and_twice_the_same_gives_one_id() {
    for family in FAMILIES {
        assert!(is_language_model(&files(family).config), "{family}");
        for arithmetic in ArithmeticProfile::ALL {
            let (first, second) = (lower(family, arithmetic), lower(family, arithmetic));
            assert_eq!(first.manifest.id(), second.manifest.id(), "{family} {}", arithmetic.name());
            let lengths = first.manifest.tensors.iter().map(|spec| spec.shape().bytes());
            assert!(lengths.eq(first.weights.iter().map(|bytes| bytes.len() as u64)), "{family}");
        }
    }
    assert!(!is_language_model(br#"{"model_type": "bert"}"#));
    assert!(!is_language_model(b"{"));
}

#[test]
fn a_block_has_what_its_family_has() {
    let block = |family: &str, wanted: fn(&OpKind) -> bool| count(&model(family), 1, wanted);
    let norms = |kind: &OpKind| matches!(kind, OpKind::RmsNorm { .. });
    assert_eq!(block("llama3", norms), 2);
    assert_eq!(block("qwen3", norms), 4, "each head of queries and keys is normalized");
    let inputs_of_linears = |family: &str| -> Vec<usize> {
        let model = model(family);
        let linears = model.ops(1).iter().filter(|op| matches!(op.kind, OpKind::Linear(_)));
        linears.map(|op| op.inputs.len()).collect()
    };
    assert_eq!(inputs_of_linears("llama2"), [2; 7]);
    assert_eq!(inputs_of_linears("llama_linear"), [3; 7]);
    assert_eq!(inputs_of_linears("qwen2"), [3, 3, 3, 2, 2, 2, 2], "biases on queries, keys and values alone");
    let heads = |family: &str| {
        let model = model(family);
        model.ops(1).iter().find_map(|op| match op.kind {
            OpKind::Attention { heads, kv_heads, head_dim, causal, .. } => {
                Some((heads, kv_heads, head_dim, causal))
            }
            _ => None,
        })
    };
    assert_eq!(heads("llama2"), Some((4, 4, 8, true)));
    assert_eq!(heads("qwen3"), Some((4, 2, 12, true)), "the width of a head is a number of its own");
}

#[test]
fn a_tied_head_reads_the_embeddings() {
    let tied = lower("qwen2", ArithmeticProfile::ExactF32V1);
    let heads = tied.manifest.tensors.iter().filter(|spec| spec.name.contains("lm_head")).count();
    assert_eq!(heads, 0);
    let untied = lower("llama2", ArithmeticProfile::ExactF32V1);
    assert!(untied.manifest.tensors.iter().any(|spec| spec.name == "lm_head.weight"));
}

#[test]
fn keys_and_values_are_rounded_where_the_cache_is_to_hold_16_bits() {
    let casts = |kv_dtype| {
        let options = LowerOptions { kv_dtype: Some(kv_dtype), ..options(ArithmeticProfile::ExactF32V1) };
        let lowered = lower_language(&files("llama3"), &options).expect("it lowers");
        assert_eq!(lowered.manifest.generation.as_ref().map(|spec| spec.kv_dtype), Some(kv_dtype));
        let model = lowered.manifest.validate().expect("it validates");
        count(&model, 1, |kind| *kind == OpKind::CastBf16)
    };
    assert_eq!((casts(KvDtype::Bf16), casts(KvDtype::F32)), (2, 0));
}

#[test]
fn the_ends_of_answers_come_from_the_generation_config_first() {
    let ids = |files: &LanguageFiles| {
        let lowered = lower_language(files, &options(ArithmeticProfile::ExactF32V1)).expect("it lowers");
        lowered.manifest.generation.expect("it is a language model").stop_ids
    };
    let mut files = files("llama3");
    assert_eq!(ids(&files), [301, 302]);
    files.generation = Some(br#"{"eos_token_id": 7}"#.to_vec());
    assert_eq!(ids(&files), [7]);
    files.generation = None;
    assert_eq!(ids(&files), [301, 302]);
    files.generation = Some(br#"{"eos_token_id": [5, 320]}"#.to_vec());
    let error = lower_language(&files, &options(ArithmeticProfile::ExactF32V1)).expect_err("320 is no id");
    let LowerError::Config(error) = error else { panic!("{error:?}") };
    assert!(
        error.to_string().contains("generation_config.json") && error.to_string().contains("eos_token_id"),
        "{error}"
    );
}

/// A buyer who says nothing expects what the model's publisher found to work.
#[test]
fn the_defaults_of_sampling_come_from_the_generation_config() {
    let lowered = |generation: &str| {
        let mut files = files("llama3");
        files.generation = Some(generation.as_bytes().to_vec());
        lower_language(&files, &options(ArithmeticProfile::ExactF32V1))
    };
    let defaults = |generation: &str| {
        let manifest = lowered(generation).expect("it lowers").manifest;
        assert_eq!(Manifest::from_bytes(&manifest.to_bytes()).as_ref(), Ok(&manifest));
        manifest.generation.expect("it is a language model").defaults
    };
    assert_eq!(defaults("{}"), SamplingDefaults::default());
    let said = SamplingDefaults {
        temperature: Some(0.6),
        top_k: Some(20),
        top_p: Some(0.95),
        min_p: Some(0.0),
        repetition_penalty: Some(1.05),
    };
    let qwen = r#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0, "repetition_penalty": 1.05}"#;
    assert_eq!(defaults(qwen), said);
    let over = said.over(Sampling { seed: 3, ..Sampling::default() });
    assert_eq!((over.temperature, over.top_k, over.seed), (0.6, 20, 3));
    assert_eq!(defaults(r#"{"do_sample": false, "temperature": 0.7}"#).temperature, Some(0.0), "greedy");
    assert_eq!(defaults(r#"{"top_k": 0}"#).top_k, Some(MAX_TOP_K), "no bound");
    assert_eq!(defaults(r#"{"top_k": 100000}"#).top_k, Some(MAX_TOP_K));
    let refused = lowered(r#"{"repetition_penalty": 1000.0}"#).expect_err("no job may state it");
    let LowerError::Config(refused) = refused else { panic!("{refused:?}") };
    assert!(refused.to_string().contains("repetition_penalty"), "{refused}");
    let mut manifest = lowered("{}").expect("it lowers").manifest;
    manifest.generation.as_mut().expect("a language model").defaults.top_p = Some(f32::NAN);
    assert!(matches!(manifest.validate(), Err(ManifestError::Defaults(_))));
}

#[test]
fn the_longest_sequence_is_what_the_window_the_table_and_the_caller_allow() {
    assert_eq!(model("llama3").manifest().max_sequence, 8_192);
    assert_eq!(model("mistral").manifest().max_sequence, 256, "within its window it is a full attention");
    let options = LowerOptions { max_sequence: Some(100), ..options(ArithmeticProfile::ExactF32V1) };
    let lowered = lower_language(&files("llama3"), &options).expect("it lowers");
    assert_eq!(lowered.manifest.max_sequence, 100);
}

#[test]
fn the_chat_template_is_the_same_wherever_it_stands() {
    let from_config = lower("llama3", ArithmeticProfile::ExactF32V1);
    let blob = from_config.template.expect("the family has a template");
    let value: Value = serde_json::from_slice(&blob).expect("the blob is JSON");
    assert_eq!(value["bos_token"], "<|endoftext|>");
    assert_eq!(value["eos_token"], "<|im_end|>");
    let commitment = gainsay_commitment::tensor::tensor_commitment(&blob);
    assert_eq!(from_config.manifest.generation.expect("a language model").template, Some(commitment));

    let mut files = files("llama3");
    files.template = Some(value["chat_template"].as_str().expect("a text").as_bytes().to_vec());
    files.tokenizer_config = Some(
        json!({
            "bos_token": {"content": "<|endoftext|>"},
            "eos_token": {"content": "<|im_end|>", "special": true},
            "chat_template": [{"name": "default", "template": "another"}],
        })
        .to_string()
        .into_bytes(),
    );
    let from_file = lower_language(&files, &options(ArithmeticProfile::ExactF32V1)).expect("it lowers");
    assert_eq!(from_file.template, Some(blob));
    files.template = None;
    let named = lower_language(&files, &options(ArithmeticProfile::ExactF32V1)).expect("it lowers");
    assert!(
        String::from_utf8(named.template.expect("there is one")).expect("JSON is text").contains("another")
    );
    files.tokenizer_config = None;
    let without = lower_language(&files, &options(ArithmeticProfile::ExactF32V1)).expect("it lowers");
    assert_eq!(
        (without.template, without.manifest.generation.expect("a language model").template),
        (None, None)
    );
}

#[test]
fn what_is_not_supported_is_refused_by_its_field() {
    let cases: [(&str, &str, Value); 12] = [
        ("llama3", "model_type", json!("gemma3")),
        ("llama3", "hidden_act", json!("gelu")),
        ("llama3", "hidden_size", json!(0)),
        ("llama3", "num_key_value_heads", json!(3)),
        ("llama3", "quantization_config", json!({"bits": 4})),
        ("llama3", "partial_rotary_factor", json!(0.5)),
        ("llama3", "rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})),
        ("llama3", "rope_theta", json!(-1.0)),
        ("llama3", "head_dim", json!(7)),
        ("qwen3", "layer_types", json!(["linear_attention"])),
        ("qwen3", "max_position_embeddings", json!(0)),
        ("mistral", "sliding_window", json!(0)),
    ];
    for (family, field, value) in cases {
        let message = refusal(family, |config| config[field] = value);
        assert!(message.contains(field) && message.contains("config.json"), "{field}: {message}");
    }
}

#[test]
fn a_checkpoint_in_pieces_needs_all_of_them() {
    let load = |hidden: &str| {
        LanguageFiles::load(|name| {
            Ok::<_, Infallible>(if name == hidden {
                None
            } else {
                fs::read(folder("mistral").join(name)).ok()
            })
        })
    };
    assert_eq!(load("nothing").expect("all are there").weights.len(), 2);
    let shard = "model-00002-of-00002.safetensors";
    assert!(matches!(load(shard), Err(LanguageFilesError::Missing { name }) if name == shard));
    assert!(matches!(load("tokenizer.json"), Err(LanguageFilesError::Missing { .. })));

    let mut files = files("mistral");
    files.weights.pop();
    let error =
        lower_language(&files, &options(ArithmeticProfile::ExactF32V1)).expect_err("a piece is missing");
    assert!(matches!(error, LowerError::Checkpoint(_)), "{error:?}");
}

#[test]
fn an_index_cannot_name_files_elsewhere() {
    for name in
        ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", ".hidden.safetensors", "model.bin", ""]
    {
        let index = json!({"weight_map": {"model.norm.weight": name}}).to_string().into_bytes();
        let loaded = LanguageFiles::load(|file| {
            Ok::<_, Infallible>(match file {
                "model.safetensors.index.json" => Some(index.clone()),
                "config.json" | "tokenizer.json" => Some(Vec::new()),
                other => panic!("{other} was asked for"),
            })
        });
        assert!(matches!(loaded, Err(LanguageFilesError::Index)), "{name}");
    }
}
