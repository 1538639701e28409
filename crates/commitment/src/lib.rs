//! Hashes that bind, encodings that have one form, signatures that name what they sign.
//!
//! Everything that a party of the protocol promises ends up here: a tensor is bound by the BLAKE3
//! [tree](tensor) of its bytes, a trace by the [Merkle root](trace) over its layer commitments, a message by
//! the [digest](encoding::Canonical::digest) of its one [canonical encoding](encoding), and its author by an
//! Ed25519 [signature] over that digest.
//!
//! Every byte that enters this crate may come from an adversary. Decoding and verifying are total: they
//! return errors, never panic, and allocate no more than a small multiple of the bytes at hand.
//!
//! The crate knows bytes alone. What a tensor means, which shapes a program gives it, and who may send which
//! message is decided above it: shapes and positions come from the caller's own records, never from the
//! message under test.
#![forbid(unsafe_code)]

pub mod encoding;
pub mod hash;
pub mod signature;
pub mod tensor;
pub mod trace;

pub use encoding::{Canonical, DecodeError, Decoder, Encoder};
pub use hash::{
    ChainingValue, ClaimId, CoordinatorId, DisputeId, InputCommitment, ModelId, MoveHash, ParseHexError,
    PartyId, TensorCommitment, TraceNode, TraceRoot,
};
pub use signature::{SecretKey, Signature, SignatureError, Signed};
pub use tensor::{
    NodeAddress, NodeHash, Opening, SubtreeError, SubtreeHasher, TensorHasher, TensorTree, TreeError,
    TreeShape, subtree_heights,
};
pub use trace::{TraceError, TraceTree, trace_root};
