//! Which manifests are refused, and for what.

use gainsay_commitment::tensor::tensor_commitment;
use gainsay_program::toy::{Toy, ToyOptions};
use gainsay_program::{
    ArithmeticProfile, Dtype, GenerationRequest, GenerationSpec, JobError, JobField, JobInput, KvDtype,
    Layer, LinearKind, MAX_SEQUENCE, MAX_SEQUENCE_MEMORY, MAX_WEIGHT_MEMORY, MAX_WIDTH, Manifest,
    ManifestError, Op, OpError, OpKind, Operand, Program, RowCounts, Sampling, StopRules, TensorSpec,
};
use proptest::prelude::*;

fn toy() -> Manifest {
    Toy::new(&ToyOptions::default()).expect("a small model").model.manifest().clone()
}

fn int8_toy() -> Manifest {
    let options = ToyOptions { arithmetic: ArithmeticProfile::ExactInt8V1, ..ToyOptions::default() };
    Toy::new(&options).expect("a small model").model.manifest().clone()
}

/// Why a manifest is refused after a change.
fn refused(mut manifest: Manifest, change: impl FnOnce(&mut Manifest)) -> ManifestError {
    change(&mut manifest);
    manifest.validate().expect_err("the change spoils the manifest")
}

/// Why an op is refused after a change to it.
fn op_refused(manifest: Manifest, layer: u32, op: u32, change: impl FnOnce(&mut Op)) -> OpError {
    let change =
        |manifest: &mut Manifest| change(&mut manifest.program.layers[layer as usize].ops[op as usize]);
    match refused(manifest, change) {
        ManifestError::Op { layer: found_layer, op: found_op, source }
            if (found_layer, found_op) == (layer, op) =>
        {
            source
        }
        other => panic!("{other:?}"),
    }
}

/// A program of one layer over tensors whose contents do not matter.
fn manifest(tensors: &[(Dtype, u32, u32)], ops: Vec<Op>) -> Manifest {
    let spec = |(index, &(dtype, rows, width)): (usize, &(Dtype, u32, u32))| TensorSpec {
        name: format!("t{index}"),
        dtype,
        rows,
        width,
        commitment: tensor_commitment(b""),
    };
    Manifest {
        name: "hostile".to_owned(),
        arithmetic: ArithmeticProfile::ExactInt8V1,
        tokenizer: tensor_commitment(b""),
        vocabulary: 1,
        max_sequence: 1,
        expand_from_rows: 64,
        blocks_per_layer: 1,
        generation: None,
        tensors: tensors.iter().enumerate().map(spec).collect(),
        program: Program { layers: vec![Layer { ops }] },
    }
}

fn op(kind: OpKind, inputs: &[Operand]) -> Op {
    Op { kind, inputs: inputs.to_vec() }
}

fn attention(heads: u32, head_dim: u32, scale: f32) -> OpKind {
    OpKind::Attention { heads, kv_heads: heads, head_dim, scale, causal: false }
}

fn gather(table: u32) -> Op {
    op(OpKind::Gather, &[Operand::Job(JobField::Ids), Operand::Weight(table)])
}

fn pool(input: u32) -> Op {
    op(OpKind::MeanPool, &[Operand::Op(input)])
}

#[test]
fn sizes_have_limits() {
    let out_of_range =
        |change: fn(&mut Manifest)| matches!(refused(toy(), change), ManifestError::OutOfRange { .. });
    assert!(out_of_range(|m| m.name.clear()));
    assert!(out_of_range(|m| m.name = "n".repeat(257)));
    assert!(out_of_range(|m| m.vocabulary = 0));
    assert!(out_of_range(|m| m.max_sequence = 0));
    assert!(out_of_range(|m| m.max_sequence = MAX_SEQUENCE + 1));
    assert!(out_of_range(|m| m.blocks_per_layer = 0));
    assert!(out_of_range(|m| m.program.layers.clear()));
    assert!(out_of_range(|m| m.program.layers[1].ops.clear()));
    assert!(out_of_range(|m| m.program.layers = vec![m.program.layers[0].clone(); 4097]));
    assert!(out_of_range(|m| m.program.layers[0].ops = vec![gather(0); 4097]));
    assert!(out_of_range(|m| m.program.layers = vec![Layer { ops: vec![gather(0); 4096] }; 17]));
    assert!(out_of_range(|m| m.tensors = vec![m.tensors[0].clone(); 65_537]));
    assert!(out_of_range(|m| m.tensors[0].name.clear()));
}

#[test]
fn tensors_are_named_once_and_used() {
    let duplicate = refused(toy(), |m| m.tensors[1].name = m.tensors[0].name.clone());
    assert!(
        matches!(duplicate, ManifestError::DuplicateTensor { name } if name == "embeddings.word_embeddings.weight")
    );
    let unused = refused(toy(), |m| {
        let spec = TensorSpec { name: "spare".to_owned(), ..m.tensors[0].clone() };
        m.tensors.push(spec);
    });
    assert!(matches!(unused, ManifestError::UnusedTensor { name } if name == "spare"));
    for (rows, width) in [(0, 16), (50, 0), (50, MAX_WIDTH + 1), (u32::MAX, u32::MAX)] {
        let shapeless = refused(toy(), |m| (m.tensors[0].rows, m.tensors[0].width) = (rows, width));
        assert!(matches!(shapeless, ManifestError::TensorShape { .. }));
    }
}

#[test]
fn operands_name_what_comes_before() {
    let swap = |input: usize, operand: Operand| move |op: &mut Op| op.inputs[input] = operand;
    assert!(matches!(
        op_refused(toy(), 0, 3, swap(0, Operand::Op(3))),
        OpError::NotEarlier { input: 0, op: 3 }
    ));
    assert!(matches!(
        op_refused(toy(), 0, 3, swap(1, Operand::Op(u32::MAX))),
        OpError::NotEarlier { input: 1, .. }
    ));
    assert!(matches!(
        op_refused(toy(), 0, 3, swap(1, Operand::LayerInput)),
        OpError::NoLayerInput { input: 1 }
    ));
    assert!(matches!(
        op_refused(toy(), 1, 0, swap(1, Operand::Weight(9999))),
        OpError::NoSuchWeight { input: 1, .. }
    ));
    assert!(matches!(op_refused(toy(), 1, 0, swap(1, Operand::LayerInput)), OpError::Sort { input: 1, .. }));
    assert!(matches!(op_refused(toy(), 1, 0, swap(0, Operand::Weight(0))), OpError::Sort { input: 0, .. }));
    assert!(matches!(
        op_refused(toy(), 1, 0, swap(0, Operand::Job(JobField::Ids))),
        OpError::Sort { input: 0, .. }
    ));
    assert!(matches!(op_refused(toy(), 0, 0, swap(0, Operand::Weight(0))), OpError::Sort { input: 0, .. }));
}

#[test]
fn ops_take_as_many_inputs_as_their_kind_lists() {
    for layer in [0, 1, 3] {
        for op in 0..toy().program.layers[layer].ops.len() as u32 {
            let (no_input, layer) =
                (op_refused(toy(), layer as u32, op, |op| op.inputs.clear()), layer as u32);
            assert!(
                matches!(no_input, OpError::InputCount { found: 0, .. } | OpError::Sort { .. }),
                "{no_input}"
            );
            let too_many = op_refused(toy(), layer, op, |op| {
                let first = op.inputs[0];
                op.inputs.resize(5, first);
            });
            assert!(matches!(too_many, OpError::InputCount { found: 5, .. }), "{too_many}");
        }
    }
}

#[test]
fn shapes_must_agree() {
    let tables = [(Dtype::F32, 1, 8), (Dtype::F32, 1, 6)];
    let add = op(OpKind::Add, &[Operand::Op(0), Operand::Op(1)]);
    let differing = manifest(&tables, vec![gather(0), gather(1), add, pool(2)]).validate();
    assert!(matches!(
        differing,
        Err(ManifestError::Op { op: 2, source: OpError::Type { input: 1, .. }, .. })
    ));

    let pooled = op(OpKind::Add, &[Operand::Op(0), Operand::Op(1)]);
    let spaces = manifest(&tables[..1], vec![gather(0), pool(0), pooled]).validate();
    assert!(matches!(spaces, Err(ManifestError::Op { op: 2, source: OpError::Type { input: 1, .. }, .. })));

    let twice = manifest(&tables[..1], vec![gather(0), pool(0), pool(1)]).validate();
    assert!(matches!(twice, Err(ManifestError::Op { op: 2, source: OpError::Type { input: 0, .. }, .. })));

    let unpooled = manifest(&tables[..1], vec![gather(0)]).validate();
    assert_eq!(unpooled, Err(ManifestError::Output));
}

#[test]
fn weights_have_the_shape_and_type_that_the_op_reads() {
    let spoil = |weight: &str, change: fn(&mut TensorSpec)| {
        let spoil = |m: &mut Manifest| {
            change(m.tensors.iter_mut().find(|spec| spec.name == weight).expect("the toy has this tensor"));
        };
        match refused(int8_toy(), spoil) {
            ManifestError::Op { source, .. } => source,
            other => panic!("{weight}: {other:?}"),
        }
    };
    let query = "encoder.layer.0.attention.self.query.weight";
    assert!(matches!(spoil(query, |t| t.width = 15), OpError::WeightShape { input: 1, .. }));
    assert!(matches!(spoil(query, |t| t.dtype = Dtype::F32), OpError::WeightDtype { input: 1, .. }));
    let scales = "encoder.layer.0.attention.self.query.weight.scales";
    assert!(matches!(spoil(scales, |t| t.width = 1), OpError::WeightShape { input: 2, .. }));
    assert!(matches!(spoil(scales, |t| t.dtype = Dtype::Bf16), OpError::WeightDtype { input: 2, .. }));
    let bias = "encoder.layer.0.attention.self.query.bias";
    assert!(matches!(spoil(bias, |t| t.rows = 2), OpError::WeightShape { input: 3, .. }));
    assert!(matches!(
        spoil("embeddings.LayerNorm.bias", |t| t.width = 8),
        OpError::WeightShape { input: 2, .. }
    ));
    let table = "embeddings.word_embeddings.weight";
    assert!(matches!(spoil(table, |t| t.rows = 49), OpError::TableRows { rows: 49, needed: 50 }));
    assert!(matches!(spoil(table, |t| t.dtype = Dtype::U32), OpError::WeightDtype { input: 1, .. }));
    let positions = "embeddings.position_embeddings.weight";
    assert!(matches!(spoil(positions, |t| t.rows = 31), OpError::TableRows { rows: 31, needed: 32 }));
}

#[test]
fn parameters_have_rules() {
    let int8 = |group: u32| {
        move |op: &mut Op| match &mut op.kind {
            OpKind::Linear(LinearKind::Int8 { group: found, .. }) => *found = group,
            kind => panic!("{kind:?}"),
        }
    };
    for group in [0, 3, 32, u32::MAX] {
        assert!(matches!(op_refused(int8_toy(), 1, 0, int8(group)), OpError::Group { .. }), "group {group}");
    }
    let profile = refused(int8_toy(), |m| m.arithmetic = ArithmeticProfile::ExactF32V1);
    assert!(matches!(profile, ManifestError::Op { source: OpError::Profile { .. }, .. }));

    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::from_bits(1)] {
        let eps = op_refused(toy(), 0, 5, |op| op.kind = OpKind::LayerNorm { eps: value });
        assert!(matches!(eps, OpError::Constant { name: "eps" }), "{value}");
        let scale = |op: &mut Op| op.kind = attention(2, 8, value);
        assert!(matches!(op_refused(toy(), 1, 3, scale), OpError::Constant { name: "scale" }), "{value}");
    }
    for (heads, head_dim) in [(0, 8), (2, 0), (0x1_0000, 0x1_0000), (u32::MAX, 2), (1, MAX_WIDTH + 1)] {
        let attention = op_refused(toy(), 1, 3, |op| op.kind = attention(heads, head_dim, 1.0));
        assert!(matches!(attention, OpError::Heads { .. }), "{heads} heads of {head_dim}");
    }
    let narrow = op_refused(toy(), 1, 3, |op| op.kind = attention(2, 4, 1.0));
    assert!(matches!(narrow, OpError::Type { input: 0, .. }));
}

/// An element that nobody could dispute must not be registered.
#[test]
fn elements_that_are_too_dear_to_dispute_are_refused() {
    let wide = MAX_WIDTH;
    let linear = op(OpKind::Linear(LinearKind::F32), &[Operand::Op(0), Operand::Weight(1)]);
    let model = manifest(&[(Dtype::F32, 1, wide), (Dtype::F32, 1, wide)], vec![gather(0), linear, pool(1)]);
    assert!(matches!(model.validate(), Err(ManifestError::Witness { op: 1, .. })));

    let long = |expand_from_rows: u32| {
        let mut model = manifest(&[(Dtype::F32, 1, 64)], vec![gather(0), pool(0)]);
        (model.max_sequence, model.expand_from_rows) = (MAX_SEQUENCE, expand_from_rows);
        model.validate()
    };
    assert!(long(64).is_ok(), "expanded, a long sequence can be disputed");
    assert!(matches!(long(MAX_SEQUENCE), Err(ManifestError::Witness { op: 1, .. })), "a whole column cannot");

    let attention = |head_dim: u32, expand_from_rows: u32| {
        let kind = attention(1, head_dim, 1.0);
        let attention = op(kind, &[Operand::Op(0), Operand::Op(0), Operand::Op(0)]);
        let mut model = manifest(&[(Dtype::F32, 1, head_dim)], vec![gather(0), attention, pool(1)]);
        (model.max_sequence, model.expand_from_rows) = (4096, expand_from_rows);
        model.validate()
    };
    assert!(attention(128, 64).is_ok());
    assert!(matches!(attention(128, 4096), Err(ManifestError::Witness { op: 1, .. })));
    assert!(matches!(attention(MAX_WIDTH, 0), Err(ManifestError::Witness { op: 1, .. })));
}

#[test]
fn jobs_must_fit_the_model() {
    let model = toy().validate().expect("the toy validates");
    let check = |sequences: &[Vec<u32>]| JobInput::new(sequences).and_then(|job| model.check_job(&job));
    assert_eq!(check(&[vec![0, 49], vec![1; 32]]), Ok(()));
    assert_eq!(check(&[]), Err(JobError::NoSequence));
    assert_eq!(check(&[vec![1], vec![]]), Err(JobError::EmptySequence { sequence: 1 }));
    assert_eq!(
        check(&[vec![1, 2], vec![50]]),
        Err(JobError::UnknownToken { index: 2, id: 50, vocabulary: 50 })
    );
    let too_long = JobError::SequenceTooLong { sequence: 1, tokens: 33, max_sequence: 32 };
    assert_eq!(check(&[vec![1], vec![1; 33]]), Err(too_long));
    let huge = vec![0; gainsay_program::MAX_JOB_TOKENS];
    assert_eq!(
        check(&[huge, vec![0]]),
        Err(JobError::TooManyTokens { tokens: gainsay_program::MAX_JOB_TOKENS + 1 })
    );
}

#[test]
fn an_answer_that_no_claim_can_carry_is_refused() {
    let gather = Op { kind: OpKind::Gather, inputs: vec![Operand::Job(JobField::Ids), Operand::Weight(0)] };
    let pool = Op { kind: OpKind::MeanPool, inputs: vec![Operand::Op(0)] };
    let model = manifest(&[(Dtype::F32, 1, MAX_WIDTH)], vec![gather, pool]).validate().unwrap();
    let check = |sequences: usize| model.check_job(&JobInput::new(vec![[0]; sequences]).unwrap());
    assert_eq!(check(16), Ok(()));
    assert_eq!(check(17), Err(JobError::OutputTooLong { bytes: 17 << 22 }));
}

/// Few bytes of manifest, many of memory: an op after the other on the widest row there is.
#[test]
fn a_layer_that_fills_a_machine_is_refused() {
    let wide = |adds: u32| {
        let add = |before| op(OpKind::Add, &[Operand::Op(before), Operand::Op(before)]);
        let adds = (0..adds).map(add);
        let ops = [gather(0)].into_iter().chain(adds).chain([pool(0)]).collect();
        manifest(&[(Dtype::F32, 1, MAX_WIDTH)], ops)
    };
    let model = wide(1022).validate().expect("4 GiB are allowed");
    let job = |sequences: usize| JobInput::new(vec![[0]; sequences]).expect("a job");
    assert_eq!(model.job_memory(&job(1)), MAX_SEQUENCE_MEMORY);
    assert_eq!(model.job_memory(&job(3)), 3 * MAX_SEQUENCE_MEMORY);
    assert_eq!(model.check_job(&job(2)), Ok(()));
    assert_eq!(model.check_job(&job(3)), Err(JobError::TooMuchMemory { bytes: 3 * MAX_SEQUENCE_MEMORY }));
    let refused = wide(1023).validate().expect_err("more are not");
    assert_eq!(refused, ManifestError::SequenceMemory { bytes: MAX_SEQUENCE_MEMORY + (4 << 20) });
}

/// A matrix of one column is padded when it is packed, and packed for each op that reads it.
#[test]
fn weights_that_grow_when_they_are_packed_are_refused() {
    let many = |linears: u32| {
        let linear = op(OpKind::Linear(LinearKind::F32), &[Operand::Op(0), Operand::Weight(1)]);
        let linears = vec![linear; linears as usize];
        let ops = [gather(0)].into_iter().chain(linears).chain([pool(0)]).collect();
        manifest(&[(Dtype::F32, 1, 1 << 18), (Dtype::F32, 1, 1 << 18)], ops)
    };
    let model = many(2047).validate().expect("just below 64 GiB");
    assert_eq!(model.weight_memory(), (3 << 20) + 2047 * ((32 << 20) + 128 + 256));
    assert!(model.weight_memory() <= MAX_WEIGHT_MEMORY);
    assert!(matches!(many(2048).validate(), Err(ManifestError::WeightMemory { .. })));
}

#[test]
fn every_token_knows_its_sequence() {
    let job = JobInput::new([vec![7; 3], vec![8], vec![9; 2]]).expect("three sequences");
    let of_token: Vec<_> =
        (0..6).map(|row| job.sequence_of_token(row).map(|sequence| sequence.index)).collect();
    assert_eq!(of_token, [Some(0), Some(0), Some(0), Some(1), Some(2), Some(2)]);
    for row in [6, u64::from(u32::MAX), u64::MAX] {
        assert_eq!(job.sequence_of_token(row), None);
        assert_eq!(job.sequence(row), None);
    }
    let listed: Vec<_> = job.sequences().collect();
    assert_eq!(listed, (0..3).filter_map(|index| job.sequence(index)).collect::<Vec<_>>());
    assert_eq!((listed[2].start, listed[2].len), (4, 2));
}

fn kind() -> impl Strategy<Value = OpKind> {
    let small = prop_oneof![0..5_u32, Just(8), Just(16), any::<u32>()];
    prop_oneof![
        Just(OpKind::Gather),
        Just(OpKind::Add),
        Just(OpKind::Linear(LinearKind::F32)),
        small.clone().prop_map(|group| {
            let activation_bits = gainsay_program::ActivationBits::Eight;
            OpKind::Linear(LinearKind::Int8 { group, activation_bits })
        }),
        any::<f32>().prop_map(|eps| OpKind::LayerNorm { eps }),
        Just(OpKind::Gelu),
        (small.clone(), small).prop_map(|(heads, head_dim)| OpKind::Attention {
            heads,
            kv_heads: heads,
            head_dim,
            scale: 1.0,
            causal: false,
        }),
        Just(OpKind::MeanPool),
        Just(OpKind::Normalize),
    ]
}

fn operand() -> impl Strategy<Value = Operand> {
    prop_oneof![
        Just(Operand::LayerInput),
        (0..14_u32).prop_map(Operand::Op),
        (0..40_u32).prop_map(Operand::Weight),
        Just(Operand::Job(JobField::Positions)),
    ]
}

proptest! {
    /// Whatever is changed in a good program, validation ends with an answer.
    #[test]
    fn changed_programs_validate_or_are_refused(
        layer in 0..4_usize,
        op: prop::sample::Index,
        kind in prop::option::of(kind()),
        inputs in prop::option::of(prop::collection::vec(operand(), 0..5)),
        max_sequence in prop_oneof![1..40_u32, any::<u32>()],
        expand_from_rows: u32,
    ) {
        let mut manifest = int8_toy();
        (manifest.max_sequence, manifest.expand_from_rows) = (max_sequence, expand_from_rows);
        let op = op.get_mut(&mut manifest.program.layers[layer].ops);
        op.kind = kind.unwrap_or(op.kind);
        op.inputs = inputs.unwrap_or_else(|| op.inputs.clone());
        if let Ok(model) = manifest.validate() {
            let job = JobInput::new([[1, 2, 3]]).expect("one sequence");
            for layer in 0..model.layer_count() {
                prop_assert!((0..model.ops(layer).len() as u32).all(|op| model.worst_cost(layer, op).is_some()));
                prop_assert!(model.layer_output_type(layer).is_some());
                prop_assert!(model.op_count(&job, layer, gainsay_program::Scope::Layer).is_some());
            }
        }
    }
}

/// A model that people run must not be refused for what nobody holds: an engine keeps int8 levels as bytes.
#[test]
fn an_int8_model_of_eight_billion_weights_fits() {
    const LEVELS: u64 = 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14_336 * 4096);
    const MAPS: usize = 16;
    let rows = (LEVELS / 4096 / MAPS as u64) as u32;
    let activation_bits = gainsay_program::ActivationBits::Sixteen;
    let kind = OpKind::Linear(LinearKind::Int8 { group: 128, activation_bits });
    let int8 = op(kind, &[Operand::Op(0), Operand::Weight(1), Operand::Weight(2)]);
    let ops = [gather(0)].into_iter().chain(vec![int8; MAPS]).chain([pool(0)]).collect();
    let model = manifest(&[(Dtype::Bf16, 1, 4096), (Dtype::I8, rows, 4096), (Dtype::F32, rows, 32)], ops);
    let packed = model.validate().expect("it fits").weight_memory();
    assert!((LEVELS..2 * LEVELS).contains(&packed), "{packed} bytes for {LEVELS} levels");
}

/// What an engine pads and keeps twice counts: 33 columns become 64, and a norm's vectors are held as f32 besides.
#[test]
fn weights_count_as_they_are_kept() {
    let linear = op(OpKind::Linear(LinearKind::F32), &[Operand::Op(0), Operand::Weight(1)]);
    let norm = op(OpKind::LayerNorm { eps: 1e-5 }, &[Operand::Op(1), Operand::Weight(2), Operand::Weight(3)]);
    let again =
        op(OpKind::LayerNorm { eps: 1e-5 }, &[Operand::Op(2), Operand::Weight(2), Operand::Weight(3)]);
    let tensors = [(Dtype::Bf16, 1, 8), (Dtype::Bf16, 33, 8), (Dtype::F32, 1, 33), (Dtype::F32, 1, 33)];
    let model = manifest(&tensors, vec![gather(0), linear, norm, again, pool(3)]).validate().expect("small");
    let stored = (8 + 33 * 8) * 2 + (33 + 33) * 4;
    let (packing, kept) = (33 * 8 * 4, (33 + 33) * 4);
    let packed = 64 * (8 * 4 + 4) + 256;
    assert_eq!(model.weight_memory(), stored + packing + kept + packed);
}

/// A request is held to the answer rows that it may have, a model to one of them.
#[test]
fn an_answer_of_many_rows_over_a_wide_vocabulary_is_refused() {
    let ops = vec![
        gather(0),
        op(OpKind::SelectRows, &[Operand::Op(0)]),
        op(OpKind::Linear(LinearKind::F32), &[Operand::Op(1), Operand::Weight(1)]),
        op(OpKind::Penalize, &[Operand::Op(2)]),
        op(OpKind::Sample, &[Operand::Op(3)]),
    ];
    const VOCABULARY: u32 = MAX_WIDTH / 2;
    let mut wide = manifest(&[(Dtype::F32, VOCABULARY, 1), (Dtype::F32, VOCABULARY, 1)], ops);
    (wide.vocabulary, wide.max_sequence) = (VOCABULARY, 2048);
    wide.generation = Some(GenerationSpec {
        stop_ids: vec![2],
        kv_dtype: KvDtype::F32,
        template: None,
        defaults: gainsay_program::SamplingDefaults::default(),
    });
    let model = wide.validate().expect("a row of logits is not much");
    let row = 4 * (2 * u64::from(VOCABULARY) + 2);
    let rows = |answers| RowCounts { tokens: 5, sequences: 1, answers };
    assert_eq!(model.batch_memory(rows(7)) - model.batch_memory(rows(6)), row);
    let check = |max_tokens| {
        let (sampling, stop) = (Sampling::default(), StopRules::max_tokens(max_tokens));
        model.check_request(&GenerationRequest { prompt: vec![1], sampling, stop })
    };
    assert_eq!(check(2047), Ok(()));
    assert!(matches!(check(2048), Err(JobError::TooMuchMemory { .. })));
}
