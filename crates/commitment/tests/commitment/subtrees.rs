//! A commitment from chaining values alone is that to the bytes.

use blake3::hazmat::HasherExt;
use gainsay_commitment::tensor::{CHUNK_BYTES, tensor_commitment};
use gainsay_commitment::{ChainingValue, SubtreeError, SubtreeHasher, TensorCommitment, subtree_heights};
use proptest::prelude::*;

const CHUNK: u64 = CHUNK_BYTES as u64;

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251 + i / 1021) as u8).collect()
}

/// What whoever has the bytes hashes, for the next chunks that are complete.
fn push_all(hasher: &mut SubtreeHasher, tensor: &[u8], end: u64, most: u8) {
    for height in subtree_heights(hasher.chunks()..end, most) {
        let (start, len) = ((hasher.chunks() * CHUNK) as usize, CHUNK_BYTES << height);
        let mut subtree = blake3::Hasher::new();
        subtree.set_input_offset(start as u64).update(&tensor[start..start + len]);
        hasher.push(height, ChainingValue::from_bytes(subtree.finalize_non_root())).expect("aligned");
    }
}

fn in_runs(tensor: &[u8], ends: &[usize], most: u8) -> TensorCommitment {
    let mut hasher = SubtreeHasher::new();
    for &end in ends.iter().chain([&tensor.len()]) {
        push_all(&mut hasher, tensor, (end as u64).saturating_sub(1) / CHUNK, most);
    }
    let tail = &tensor[(hasher.chunks() * CHUNK) as usize..];
    hasher.finish(tail).expect("a tail")
}

#[test]
fn every_size_around_a_boundary_gives_the_plain_hash() {
    for chunks in [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 127, 128, 129, 256] {
        for more in [0, 1, 64, 1020, 1023] {
            let tensor = bytes(chunks * CHUNK_BYTES + more);
            for most in [0, 2, 7, 20] {
                assert_eq!(
                    in_runs(&tensor, &[], most),
                    tensor_commitment(&tensor),
                    "{chunks} chunks and {more}"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn every_split_into_runs_gives_the_plain_hash(
        len in 0usize..200_000, most in 0u8..12, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let tensor = bytes(len);
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(len + 1)).collect();
        ends.sort_unstable();
        prop_assert_eq!(in_runs(&tensor, &ends, most), tensor_commitment(&tensor));
    }
}

#[test]
fn what_is_no_tensor_is_refused() {
    let value = ChainingValue::from_bytes([7; 32]);
    let mut hasher = SubtreeHasher::new();
    hasher.push(0, value).expect("any place is right for a chunk");
    assert_eq!(hasher.push(1, value), Err(SubtreeError::Misplaced { height: 1, chunk: 1 }));
    assert_eq!(hasher.push(64, value), Err(SubtreeError::Misplaced { height: 64, chunk: 1 }));
    assert_eq!(hasher.chunks(), 1, "what is refused changes nothing");
    let tail = |bytes: usize| hasher.clone().finish(&vec![0; bytes]);
    for bytes in [0, CHUNK_BYTES + 1] {
        assert_eq!(tail(bytes), Err(SubtreeError::Tail { chunks: 1, bytes }));
    }
    assert!(tail(1).is_ok() && tail(CHUNK_BYTES).is_ok());
    let mut full = SubtreeHasher::new();
    full.push(63, value).expect("the left half of all chunks there can be");
    assert_eq!(full.push(63, value), Err(SubtreeError::Misplaced { height: 63, chunk: 1 << 63 }));
}
