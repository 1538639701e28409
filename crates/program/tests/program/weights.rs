//! Which bytes pass as a weight.

use gainsay_commitment::tensor::tensor_commitment;
use gainsay_program::weights::{WeightError, check, store, widen};
use gainsay_program::{Dtype, TensorSpec};
use proptest::prelude::*;

fn spec(dtype: Dtype, bytes: &[u8]) -> TensorSpec {
    let width = (bytes.len() as u64 / dtype.bytes()) as u32;
    TensorSpec { name: "w".to_owned(), dtype, rows: 1, width, commitment: tensor_commitment(bytes) }
}

fn refused_at(dtype: Dtype, bytes: &[u8]) -> Option<u64> {
    match check(&spec(dtype, bytes), bytes) {
        Ok(()) => None,
        Err(WeightError::Value { index, .. }) => Some(index),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn length_and_hash_must_be_the_manifest_s() {
    let bytes = 1.0_f32.to_le_bytes();
    let spec = spec(Dtype::F32, &bytes);
    assert_eq!(check(&spec, &bytes), Ok(()));
    assert!(matches!(check(&spec, &bytes[..3]), Err(WeightError::Length { found: 3, expected: 4, .. })));
    assert!(matches!(check(&spec, &[]), Err(WeightError::Length { .. })));
    assert!(matches!(check(&spec, &1.5_f32.to_le_bytes()), Err(WeightError::Commitment { .. })));
}

#[test]
fn floats_that_storing_changes_are_refused() {
    let f32s = |bits: &[u32]| bits.iter().flat_map(|bits| bits.to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(refused_at(Dtype::F32, &f32s(&[0, 0x7fc0_0000, 0x7f80_0000, 0x0080_0000, 0xbf80_0000])), None);
    for bits in [0x8000_0000, 0x0000_0001, 0x807f_ffff, 0x7fc0_0001, 0xffc0_0000, 0x7f80_0001] {
        assert_eq!(refused_at(Dtype::F32, &f32s(&[0x3f80_0000, bits])), Some(1), "{bits:08x}");
    }
    let halves = |bits: &[u16]| bits.iter().flat_map(|bits| bits.to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(refused_at(Dtype::Bf16, &halves(&[0, 0x7fc0, 0xff80, 0x0080, 0x3f80])), None);
    for bits in [0x8000, 0x0001, 0x7fc1, 0xffc0] {
        assert_eq!(refused_at(Dtype::Bf16, &halves(&[0, bits])), Some(1), "{bits:04x}");
    }
    // A subnormal f16 is a normal f32.
    assert_eq!(refused_at(Dtype::F16, &halves(&[0, 0x7e00, 0xfc00, 0x0001, 0x83ff])), None);
    for bits in [0x8000, 0x7e01, 0xfe00] {
        assert_eq!(refused_at(Dtype::F16, &halves(&[0, bits])), Some(1), "{bits:04x}");
    }
}

#[test]
fn the_level_that_quantization_never_gives_is_refused() {
    assert_eq!(refused_at(Dtype::I8, &[0, 127, 0x81]), None);
    assert_eq!(refused_at(Dtype::I8, &[0, 127, 0x80]), Some(2));
}

proptest! {
    #[test]
    fn stored_bytes_pass_and_stay(bytes in prop::collection::vec(any::<[u8; 4]>(), 1..20)) {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            let original = bytes.concat();
            let mut stored = original.clone();
            let changed = store(dtype, &mut stored);
            prop_assert_eq!(changed == 0, refused_at(dtype, &original).is_none());
            prop_assert_eq!(refused_at(dtype, &stored), None);
            for (before, after) in widen(dtype, &original).into_iter().zip(widen(dtype, &stored)) {
                prop_assert_eq!(gainsay_arithmetic::store(before).to_bits(), after.to_bits());
            }
        }
    }
}
