//! Lowering of BERT checkpoints: what is understood, and what is refused with which words.

use std::error::Error;
use std::io;

use gainsay_program::lowering::{
    LoadError, LowerError, LowerOptions, Lowered, SourceFiles, Transform, lower_bert,
};
use gainsay_program::{ArithmeticProfile, Dtype, JobInput, KvDtype, LinearKind, OpKind, reference, weights};
use serde_json::{Value, json};

use crate::checkpoint::{Checkpoint, modules};
use crate::common::assert_agrees;

fn options() -> LowerOptions {
    LowerOptions::new("tiny", ArithmeticProfile::ExactF32V1)
}

fn int8_options() -> LowerOptions {
    LowerOptions { int8_group: 4, ..LowerOptions::new("tiny", ArithmeticProfile::ExactInt8V1) }
}

fn lower(checkpoint: &Checkpoint, options: &LowerOptions) -> Lowered {
    lower_bert(&checkpoint.files(), options).expect("the checkpoint lowers")
}

/// The error with its sources, as a person reads it.
fn refusal(checkpoint: &Checkpoint) -> String {
    chain(&lower_bert(&checkpoint.files(), &options()).expect_err("the checkpoint is spoiled"))
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn answer(lowered: &Lowered, job: &JobInput) -> Vec<u8> {
    let model = lowered.manifest.clone().validate().expect("lowered manifests validate");
    reference::run(&model, &lowered.weights, job).expect("the job fits").answer().to_vec()
}

fn job() -> JobInput {
    JobInput::new([vec![1, 2, 3, 10, 0], vec![4]]).expect("two sequences")
}

#[test]
fn a_checkpoint_becomes_layers_of_the_expected_ops() {
    let Lowered { manifest, weights, transforms, .. } = lower(&Checkpoint::new(), &options());
    let names = |layer: usize| -> Vec<&str> {
        manifest.program.layers[layer].ops.iter().map(|op| op.kind.name()).collect()
    };
    let block = [
        "linear",
        "linear",
        "linear",
        "attention",
        "linear",
        "add",
        "layer_norm",
        "linear",
        "gelu",
        "linear",
        "add",
        "layer_norm",
    ];
    assert_eq!(manifest.program.layers.len(), 4);
    assert_eq!(names(0), ["gather", "gather", "gather", "add", "add", "layer_norm"]);
    assert_eq!(names(1), block);
    assert_eq!(names(2), block);
    assert_eq!(names(3), ["mean_pool", "normalize"]);
    assert_eq!((manifest.vocabulary, manifest.max_sequence, manifest.expand_from_rows), (11, 6, 64));
    assert_eq!(transforms, [], "the checkpoint holds no value that storing changes");
    for (spec, bytes) in manifest.tensors.iter().zip(&weights) {
        weights::check(spec, bytes).expect("lowered weights pass the check that uploads must pass");
    }
    assert_eq!(manifest.tensors.len(), weights.len());
    assert!(manifest.tensors.iter().all(|spec| !spec.name.starts_with("pooler")));
}

#[test]
fn lowered_programs_compute_what_the_reference_computes() {
    for options in
        [options(), int8_options(), LowerOptions { blocks_per_layer: 2, expand_from_rows: 3, ..options() }]
    {
        let Lowered { manifest, weights, .. } = lower(&Checkpoint::new(), &options);
        let model = manifest.validate().expect("lowered manifests validate");
        assert!(assert_agrees(&model, &weights, &job()) > 0);
    }
}

#[test]
fn grouping_blocks_changes_the_layers_but_not_the_answer() {
    let one_by_one = lower(&Checkpoint::new(), &options());
    let grouped = lower(&Checkpoint::new(), &LowerOptions { blocks_per_layer: 5, ..options() });
    assert_eq!(grouped.manifest.program.layers.len(), 3);
    assert_ne!(grouped.manifest.id(), one_by_one.manifest.id());
    assert_eq!(answer(&grouped, &job()), answer(&one_by_one, &job()));
}

#[test]
fn the_encoder_of_a_larger_model_is_found_by_its_prefix() {
    let mut prefixed = Checkpoint::new();
    prefixed.rename(|name| format!("bert.{name}"));
    assert_eq!(lower(&prefixed, &options()), lower(&Checkpoint::new(), &options()));
}

#[test]
fn without_normalization_the_mean_is_the_answer() {
    let mut checkpoint = Checkpoint::new();
    checkpoint.modules = modules(&["Transformer", "Pooling"]);
    let Lowered { manifest, .. } = lower(&checkpoint, &options());
    let last = manifest.program.layers.last().expect("programs have layers");
    assert_eq!(last.ops.iter().map(|op| op.kind.name()).collect::<Vec<_>>(), ["mean_pool"]);
}

#[test]
fn int8_quantizes_all_linears_and_nothing_else() {
    let Lowered { manifest, transforms, weights, .. } = lower(&Checkpoint::new(), &int8_options());
    for op in manifest.program.layers.iter().flat_map(|layer| &layer.ops) {
        assert!(!matches!(op.kind, OpKind::Linear(LinearKind::F32)));
    }
    let find = |name: &str| {
        let index = manifest.tensors.iter().position(|spec| spec.name == name);
        let index = index.unwrap_or_else(|| panic!("there is no tensor {name}"));
        (manifest.tensors[index].clone(), weights[index].as_slice())
    };
    let (levels, bytes) = find("encoder.layer.0.output.dense.weight");
    assert_eq!((levels.dtype, levels.rows, levels.width), (Dtype::I8, 8, 12));
    let (scales, scale_bytes) = find("encoder.layer.0.output.dense.weight.scales");
    assert_eq!((scales.dtype, scales.rows, scales.width), (Dtype::F32, 8, 3));
    assert_eq!(find("embeddings.word_embeddings.weight").0.dtype, Dtype::F32);
    assert_eq!(transforms.len(), 12);
    assert!(transforms.iter().all(|applied| applied.transform == Transform::Quantized { group: 4 }));

    let checkpoint = Checkpoint::new();
    let (_, _, original) = &checkpoint.tensors["encoder.layer.0.output.dense.weight"];
    let scales = weights::widen(Dtype::F32, scale_bytes);
    for (index, value) in weights::widen(Dtype::F32, original).into_iter().enumerate() {
        let restored = f32::from(bytes[index].cast_signed()) * scales[index / 4];
        assert!(
            (restored - value).abs() <= scales[index / 4] * 0.5001,
            "element {index}: {restored} for {value}"
        );
    }
}

#[test]
fn a_group_that_does_not_divide_k_becomes_all_of_k() {
    let Lowered { manifest, .. } =
        lower(&Checkpoint::new(), &LowerOptions { int8_group: 5, ..int8_options() });
    let groups: Vec<u32> = (manifest.program.layers.iter().flat_map(|layer| &layer.ops))
        .filter_map(|op| match op.kind {
            OpKind::Linear(LinearKind::Int8 { group, .. }) => Some(group),
            _ => None,
        })
        .collect();
    assert_eq!(groups, [8, 8, 8, 8, 8, 12, 8, 8, 8, 8, 8, 12]);
}

#[test]
fn half_precision_matrices_stay_and_vectors_are_widened() {
    let mut checkpoint = Checkpoint::new();
    checkpoint.narrow(safetensors::Dtype::BF16, |value| (value.to_bits() >> 16) as u16);
    let Lowered { manifest, transforms, weights, .. } = lower(&checkpoint, &options());
    for (spec, bytes) in manifest.tensors.iter().zip(&weights) {
        assert_eq!(spec.dtype, if spec.rows == 1 { Dtype::F32 } else { Dtype::Bf16 }, "{}", spec.name);
        weights::check(spec, bytes).expect("lowered weights pass the check that uploads must pass");
    }
    assert!(transforms.iter().all(|applied| applied.transform == Transform::Widened { from: Dtype::Bf16 }));
    assert_agrees(&manifest.validate().expect("lowered manifests validate"), &weights, &job());
}

#[test]
fn values_that_storing_changes_are_stored_and_noted() {
    let mut checkpoint = Checkpoint::new();
    let name = "embeddings.word_embeddings.weight";
    let (_, _, bytes) = checkpoint.tensors.get_mut(name).expect("the checkpoint has word embeddings");
    for (index, bits) in [0x8000_0000_u32, 0x0000_0001, 0xffc1_2345, 0x0080_0000].into_iter().enumerate() {
        bytes[4 * index..4 * index + 4].copy_from_slice(&bits.to_le_bytes());
    }
    let Lowered { weights, transforms, .. } = lower(&checkpoint, &options());
    let expected: Vec<u8> =
        [0_u32, 0, 0x7fc0_0000, 0x0080_0000].iter().flat_map(|bits| bits.to_le_bytes()).collect();
    assert_eq!(weights[0][..16], expected);
    assert_eq!(transforms.len(), 1);
    assert_eq!(
        (transforms[0].tensor.as_str(), transforms[0].transform),
        (name, Transform::Stored { elements: 3 })
    );
}

#[test]
fn unsupported_configurations_are_named() {
    let cases: [(&str, Value); 16] = [
        ("model_type", json!("roberta")),
        ("hidden_act", json!("relu")),
        ("hidden_act", json!("gelu_new")),
        ("position_embedding_type", json!("relative_key")),
        ("is_decoder", json!(true)),
        ("add_cross_attention", json!(true)),
        ("num_attention_heads", json!(3)),
        ("num_attention_heads", json!(0)),
        ("hidden_size", json!(0)),
        ("intermediate_size", json!(0)),
        ("num_hidden_layers", json!(0)),
        ("max_position_embeddings", json!(0)),
        ("type_vocab_size", json!(0)),
        ("vocab_size", json!(0)),
        ("hidden_size", json!("eight")),
        ("layer_norm_eps", Value::Null),
    ];
    for (field, value) in cases {
        let mut checkpoint = Checkpoint::new();
        checkpoint.config[field] = value.clone();
        let text = refusal(&checkpoint);
        let by_parser = value.is_null() || value == json!("eight");
        assert!(
            text.contains("config.json") && (by_parser || text.contains(field)),
            "{field} = {value}: {text}"
        );
    }
}

#[test]
fn other_poolings_and_modules_are_named() {
    let with_pooling = |field: &str, value: Value| {
        let mut checkpoint = Checkpoint::new();
        checkpoint.pooling[field] = value;
        refusal(&checkpoint)
    };
    let both = with_pooling("pooling_mode_cls_token", json!(true));
    assert!(both.contains("pooling_mode_cls_token and pooling_mode_mean_tokens"), "{both}");
    let unknown = with_pooling("pooling_mode_weightedmean_tokens", json!(true));
    assert!(unknown.contains("pooling_mode_weightedmean_tokens"), "{unknown}");
    assert!(with_pooling("pooling_mode_mean_tokens", json!(false)).contains("pooling_mode"));
    assert!(with_pooling("word_embedding_dimension", json!(9)).contains("word_embedding_dimension"));
    for classes in
        [&["Transformer", "Pooling", "Dense"][..], &["Transformer"], &["Pooling", "Transformer"], &[]]
    {
        let mut checkpoint = Checkpoint::new();
        checkpoint.modules = modules(classes);
        assert!(refusal(&checkpoint).contains("modules.json"), "{classes:?}");
    }
}

#[test]
fn checkpoints_that_do_not_fit_their_configuration_are_named() {
    let name = "encoder.layer.1.output.dense.bias";
    let mut missing = Checkpoint::new();
    missing.tensors.remove(name);
    assert!(refusal(&missing).contains(&format!("no tensor {name}")));

    let mut endless = Checkpoint::new();
    endless.config["num_hidden_layers"] = json!(u32::MAX);
    assert!(refusal(&endless).contains("no tensor encoder.layer.2.attention.self.query.weight"));

    let mut misshapen = Checkpoint::new();
    misshapen.config["vocab_size"] = json!(12);
    assert!(refusal(&misshapen).contains("embeddings.word_embeddings.weight has shape [11, 8]"));

    let mut integers = Checkpoint::new();
    integers.tensors.get_mut(name).expect("the bias exists").0 = safetensors::Dtype::I32;
    assert!(refusal(&integers).contains(&format!("{name} has elements of type I32")));

    let mut files = Checkpoint::new().files();
    files.weights.truncate(100);
    let broken = lower_bert(&files, &options()).expect_err("the file is cut");
    assert!(chain(&broken).contains("model.safetensors does not parse"));
}

#[test]
fn files_are_asked_for_by_name() {
    let checkpoint = Checkpoint::new().files();
    let mut asked = Vec::new();
    let loaded = SourceFiles::load(|name| -> Result<Vec<u8>, io::Error> {
        asked.push(name.to_owned());
        Ok(match name {
            "modules.json" => checkpoint.modules.clone(),
            name => name.as_bytes().to_vec(),
        })
    });
    let loaded = loaded.expect("all files are there");
    assert_eq!(loaded.pooling, b"1_Pooling/config.json");
    assert_eq!((&loaded.config[..], &loaded.weights[..]), (&b"config.json"[..], &b"model.safetensors"[..]));
    assert_eq!(asked.len(), 5);
}

#[test]
fn a_missing_file_and_a_path_out_of_the_folder_are_refused() {
    let modules_at =
        |path: &str| json!([{ "path": path, "type": "sentence_transformers.models.Pooling" }]).to_string();
    let load = |modules: String| {
        SourceFiles::load(|name| match name {
            "modules.json" => Ok(modules.clone().into_bytes()),
            name => Err(io::Error::other(name.to_owned())),
        })
    };
    for path in ["", "..", "../1_Pooling", "/etc", "a/b", "a\\b", "."] {
        assert!(matches!(load(modules_at(path)), Err(LoadError::NoPooling)), "{path:?}");
    }
    let missing = load(modules_at("1_Pooling")).expect_err("config.json is missing");
    assert!(matches!(missing, LoadError::Read { name, .. } if name == "config.json"));
}

#[test]
fn what_only_a_language_model_leaves_open_is_refused_for_an_encoder() {
    for (chosen, named) in [
        (LowerOptions { kv_dtype: Some(KvDtype::F32), ..options() }, "keys and values"),
        (LowerOptions { max_sequence: Some(4), ..options() }, "longest sequence"),
    ] {
        let refused = lower_bert(&Checkpoint::new().files(), &chosen).unwrap_err();
        assert!(matches!(&refused, LowerError::OfLanguageModels(what) if what.contains(named)), "{refused}");
    }
}
