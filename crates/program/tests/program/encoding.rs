//! Canonical encodings: fixed bytes, strict decoding.

use gainsay_commitment::encoding::{Canonical, Decoder, Encoder};
use gainsay_program::toy::{DecoderOptions, Toy, ToyOptions};
use gainsay_program::{ArithmeticProfile, JobInput, Manifest, OpPlace, Sampling, Scope, TensorRef};
use proptest::prelude::*;

/// A manifest that uses every op kind, both linears and two element types.
fn golden_manifest() -> Manifest {
    let options = ToyOptions {
        arithmetic: ArithmeticProfile::ExactInt8V1,
        blocks: 1,
        heads: 1,
        head_dim: 2,
        intermediate: 3,
        vocabulary: 3,
        max_sequence: 2,
        ..ToyOptions::default()
    };
    Toy::new(&options).expect("a small model").model.manifest().clone()
}

fn golden_f32_manifest() -> Manifest {
    let options = ToyOptions { blocks: 0, heads: 1, head_dim: 2, ..ToyOptions::default() };
    Toy::new(&options).expect("a small model").model.manifest().clone()
}

/// A manifest that uses every op kind of a language model.
fn golden_decoder() -> Manifest {
    let options = DecoderOptions {
        arithmetic: ArithmeticProfile::ExactInt8V1,
        blocks: 1,
        half_head: 1,
        kv_heads: 1,
        intermediate: 3,
        vocabulary: 3,
        max_sequence: 2,
        ornate: true,
        tied: false,
        ..DecoderOptions::default()
    };
    Toy::decoder(&options).expect("a small model").model.manifest().clone()
}

fn golden_generation() -> JobInput {
    let sampling = Sampling {
        temperature: 0.7,
        top_k: 40,
        top_p: 0.9,
        min_p: 0.05,
        repetition_penalty: 1.1,
        presence_penalty: -0.5,
        frequency_penalty: 0.25,
        logit_bias: vec![(3, -100.0), (0xffff_ffff, 1.5)],
        seed: 0x0123_4567_89ab_cdef,
        choice: 2,
    };
    JobInput::generation(&[1, 2], &[0xffff_ffff, 7], sampling).expect("a generation")
}

fn golden_job() -> JobInput {
    JobInput::new([vec![1, 0xffff_ffff], vec![7]]).expect("two sequences")
}

/// Lines of a name and the bytes in hex.
const GOLDEN: &str = include_str!("golden/encodings.txt");

fn golden(name: &str) -> Vec<u8> {
    let line = GOLDEN.lines().filter_map(|line| line.split_once(' ')).find(|(found, _)| *found == name);
    hex::decode(line.unwrap_or_else(|| panic!("golden/encodings.txt has no {name}")).1)
        .expect("golden vectors are hex")
}

#[test]
fn encodings_and_ids_are_the_recorded_ones() {
    let (int8, f32, job) = (golden_manifest(), golden_f32_manifest(), golden_job());
    let (decoder, generation) = (golden_decoder(), golden_generation());
    let found = [
        ("manifest_int8", int8.to_bytes()),
        ("manifest_int8_id", int8.id().as_bytes().to_vec()),
        ("manifest_f32", f32.to_bytes()),
        ("manifest_f32_id", f32.id().as_bytes().to_vec()),
        ("job", job.to_bytes()),
        ("job_digest", job.digest().to_vec()),
        ("manifest_decoder", decoder.to_bytes()),
        ("manifest_decoder_id", decoder.id().as_bytes().to_vec()),
        ("generation", generation.to_bytes()),
        ("generation_digest", generation.digest().to_vec()),
    ];
    let found: String =
        found.iter().map(|(name, bytes)| format!("{name} {}\n", hex::encode(bytes))).collect();
    assert!(
        found == GOLDEN,
        "encodings have changed, so that models and jobs get other ids; they are now\n{found}"
    );
}

#[test]
fn recorded_encodings_decode_to_what_was_encoded() {
    assert_eq!(Manifest::from_bytes(&golden("manifest_int8")), Ok(golden_manifest()));
    assert_eq!(Manifest::from_bytes(&golden("manifest_f32")), Ok(golden_f32_manifest()));
    assert_eq!(JobInput::from_bytes(&golden("job")), Ok(golden_job()));
    assert_eq!(Manifest::from_bytes(&golden("manifest_decoder")), Ok(golden_decoder()));
    assert_eq!(JobInput::from_bytes(&golden("generation")), Ok(golden_generation()));
}

#[test]
fn a_job_with_offsets_that_do_not_fit_does_not_decode() {
    let encode = |ids: &[u32], offsets: &[u32]| {
        let mut encoder = Encoder::new();
        encoder.u8(JobInput::VERSION);
        for list in [ids, offsets] {
            encoder.list(list, |encoder, &value| {
                encoder.u32(value);
            });
        }
        encoder.bool(false);
        JobInput::from_bytes(&encoder.into_bytes())
    };
    assert!(encode(&[5, 6, 7], &[0, 1, 3]).is_ok());
    for offsets in
        [&[][..], &[0], &[0, 2], &[0, 4], &[1, 3], &[0, 0, 3], &[0, 2, 1, 3], &[0, 3, 3], &[0, u32::MAX]]
    {
        assert!(encode(&[5, 6, 7], offsets).is_err(), "{offsets:?}");
    }
    assert!(encode(&[], &[0, 0]).is_err());
    assert!(encode(&[], &[0]).is_err());
}

/// Any byte changed, cut or appended gives another manifest or none; never the same one, and never a panic.
#[test]
fn no_two_byte_strings_decode_to_one_manifest() {
    let (manifest, bytes) = (golden_manifest(), golden_manifest().to_bytes());
    for index in 0..bytes.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[index] ^= change;
            if let Ok(other) = Manifest::from_bytes(&changed) {
                assert_eq!(other.to_bytes(), changed, "byte {index}");
                assert_ne!(other.id(), manifest.id());
                // Whatever it says, validation ends without a panic.
                drop(other.validate());
            }
        }
        assert!(Manifest::from_bytes(&bytes[..index]).is_err(), "cut at {index}");
    }
    assert!(Manifest::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err());
}

fn place() -> impl Strategy<Value = OpPlace> {
    let in_layer = Just(Scope::Layer).boxed();
    let scope = prop_oneof![
        in_layer,
        (any::<u32>(), any::<u64>()).prop_map(|(op, element)| Scope::Virtual { op, element })
    ];
    (any::<u32>(), scope, any::<u32>()).prop_map(|(layer, scope, op)| OpPlace { layer, scope, op })
}

fn tensor() -> impl Strategy<Value = TensorRef> {
    prop_oneof![
        place().prop_map(TensorRef::Op),
        any::<u32>().prop_map(TensorRef::LayerOutput),
        any::<u32>().prop_map(TensorRef::Weight)
    ]
}

proptest! {
    #[test]
    fn manifests_survive_a_round_trip(seed: u64, int8: bool, blocks in 0..3_u32, heads in 1..3_u32) {
        let arithmetic = if int8 { ArithmeticProfile::ExactInt8V1 } else { ArithmeticProfile::ExactF32V1 };
        let options = ToyOptions { seed, arithmetic, blocks, heads, ..ToyOptions::default() };
        let manifest = Toy::new(&options).expect("a small model").model.manifest().clone();
        prop_assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest));
    }

    #[test]
    fn jobs_survive_a_round_trip(sequences in prop::collection::vec(prop::collection::vec(any::<u32>(), 1..5), 1..5)) {
        let job = JobInput::new(&sequences).expect("no sequence is empty");
        prop_assert_eq!(JobInput::from_bytes(&job.to_bytes()), Ok(job));
    }

    #[test]
    fn tensor_references_survive_a_round_trip(tensor in tensor()) {
        let mut encoder = Encoder::new();
        tensor.encode(&mut encoder);
        let bytes = encoder.into_bytes();
        let mut decoder = Decoder::new(&bytes);
        prop_assert_eq!(TensorRef::decode(&mut decoder), Ok(tensor));
        prop_assert!(decoder.finish().is_ok());
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(manifest) = Manifest::from_bytes(&bytes) {
            prop_assert_eq!(manifest.to_bytes(), bytes.clone());
        }
        if let Ok(job) = JobInput::from_bytes(&bytes) {
            prop_assert_eq!(job.to_bytes(), bytes.clone());
        }
        let mut decoder = Decoder::new(&bytes);
        if let Ok(tensor) = TensorRef::decode(&mut decoder) {
            let mut encoder = Encoder::new();
            tensor.encode(&mut encoder);
            prop_assert!(bytes.starts_with(&encoder.into_bytes()));
        }
    }
}
