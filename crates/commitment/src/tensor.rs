//! A tensor as a Merkle tree: BLAKE3 is one already.
//!
//! BLAKE3 cuts its input into chunks of 1 KiB and hashes them pairwise up to a root. The root is the plain
//! hash of the bytes, so committing costs one pass at full speed; the inner nodes let a chunk be opened
//! against it later. The root is hashed with a flag of its own: no inner node can pass for a root, nor a root
//! for an inner node. A tensor of at most one chunk has no inner nodes, its commitment is the chunk's root hash.
//!
//! [`TreeShape`] derives the tree from the byte length that the *verifier* knows; positions and lengths in a
//! message are only ever compared with it. [`verify_children`], [`verify_chunk`] and [`verify_opening`] are
//! what a verifier calls; [`TensorTree`] is what a prover keeps.

mod build;
mod shape;
mod subtrees;
mod verify;

pub use build::{TensorHasher, TensorTree};
pub use shape::{NodeAddress, REVEAL_LEVELS, TreeShape};
pub use subtrees::{SubtreeError, SubtreeHasher, subtree_heights};
pub use verify::{NodeHash, Opening, TreeError, verify_children, verify_chunk, verify_opening};

use crate::hash::{ChainingValue, TensorCommitment};
use blake3::hazmat::{self, HasherExt, Mode};

/// Bytes in every chunk but the last, which may be shorter.
pub const CHUNK_BYTES: usize = blake3::CHUNK_LEN;

/// The commitment to a tensor's bytes: their plain BLAKE3 hash.
pub fn tensor_commitment(bytes: &[u8]) -> TensorCommitment {
    TensorCommitment::from_bytes(blake3::hash(bytes).into())
}

/// Chaining value of one chunk of a tensor that has several. `bytes` is neither empty nor longer than a chunk.
fn chunk_node(index: u64, bytes: &[u8]) -> ChainingValue {
    assert!((1..=CHUNK_BYTES).contains(&bytes.len()), "a chunk below a root has 1 to 1024 bytes");
    let node =
        blake3::Hasher::new().set_input_offset(index * CHUNK_BYTES as u64).update(bytes).finalize_non_root();
    ChainingValue::from_bytes(node)
}

fn parent_node(left: &ChainingValue, right: &ChainingValue) -> ChainingValue {
    let node = hazmat::merge_subtrees_non_root(left.as_bytes(), right.as_bytes(), Mode::Hash);
    ChainingValue::from_bytes(node)
}

fn root_node(left: &ChainingValue, right: &ChainingValue) -> TensorCommitment {
    let root = hazmat::merge_subtrees_root(left.as_bytes(), right.as_bytes(), Mode::Hash);
    TensorCommitment::from_bytes(root.into())
}
