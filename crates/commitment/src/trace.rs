//! The root over a job's layer commitments, in the format of OpenZeppelin's `StandardMerkleTree`.
//!
//! A leaf is `keccak256(keccak256(abi.encode(uint256 layer, bytes32 commitment)))`; leaves are sorted, pairs
//! are hashed in ascending order. A Solidity contract checks a layer with the stock `MerkleProof`. The root
//! binds (layer, commitment) pairs; it does not show that there is exactly one for every layer, so whoever
//! accepts a trace needs the whole list and recomputes the root with [`trace_root`].

use tiny_keccak::{Hasher as _, Keccak};

use crate::hash::{TensorCommitment, TraceNode, TraceRoot};

/// Why there is no root, or a proof fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// The format has no tree without leaves.
    #[error("a trace has at least one layer")]
    Empty,
    /// The proof does not lead from the layer's commitment to the root.
    #[error("the proof does not lead to the trace root")]
    ProofMismatch,
}

/// The root over the layer commitments, in layer order.
///
/// # Errors
/// [`TraceError::Empty`] for no layers.
pub fn trace_root(layers: &[TensorCommitment]) -> Result<TraceRoot, TraceError> {
    TraceTree::new(layers).map(|tree| tree.root())
}

/// Checks with a proof that layer `layer` has this commitment under the root.
///
/// # Errors
/// [`TraceError::ProofMismatch`].
pub fn verify_proof(
    root: TraceRoot,
    layer: u64,
    commitment: TensorCommitment,
    proof: &[TraceNode],
) -> Result<(), TraceError> {
    let leaf = leaf_hash(&encode_layer(layer, commitment));
    let top = proof.iter().fold(leaf, |node, sibling| pair_hash(node, *sibling));
    if top.as_bytes() == root.as_bytes() { Ok(()) } else { Err(TraceError::ProofMismatch) }
}

/// `abi.encode(uint256, bytes32)`: the leaf of one layer before hashing.
pub fn encode_layer(layer: u64, commitment: TensorCommitment) -> [u8; 64] {
    let mut encoding = [0; 64];
    encoding[24..32].copy_from_slice(&layer.to_be_bytes());
    encoding[32..].copy_from_slice(commitment.as_bytes());
    encoding
}

/// A whole tree, for handing out proofs.
#[derive(Clone, Debug)]
pub struct TraceTree {
    /// The heap layout of the format: the root first, children of `i` at `2i + 1` and `2i + 2`, leaves last,
    /// in descending order.
    nodes: Vec<TraceNode>,
    /// Where each leaf is in `nodes`, in the order given.
    positions: Vec<usize>,
}

impl TraceTree {
    /// The tree over layer commitments, in layer order.
    ///
    /// # Errors
    /// [`TraceError::Empty`] for no layers.
    pub fn new(layers: &[TensorCommitment]) -> Result<Self, TraceError> {
        Self::from_encoded((0..).zip(layers).map(|(layer, commitment)| encode_layer(layer, *commitment)))
    }

    /// The tree over leaves of any types, each given as its ABI encoding. The format hashes a leaf twice, so
    /// that no inner node can pass for one.
    ///
    /// # Errors
    /// [`TraceError::Empty`] for no leaves.
    pub fn from_encoded(leaves: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<Self, TraceError> {
        let hashes: Vec<_> = leaves.into_iter().map(|leaf| leaf_hash(leaf.as_ref())).collect();
        if hashes.is_empty() {
            return Err(TraceError::Empty);
        }
        let mut order: Vec<usize> = (0..hashes.len()).collect();
        order.sort_by_key(|&leaf| hashes[leaf]);

        let size = 2 * hashes.len() - 1;
        let mut nodes = vec![TraceNode::from_bytes([0; 32]); size];
        let mut positions = vec![0; hashes.len()];
        for (rank, &leaf) in order.iter().enumerate() {
            nodes[size - 1 - rank] = hashes[leaf];
            positions[leaf] = size - 1 - rank;
        }
        for parent in (0..hashes.len() - 1).rev() {
            nodes[parent] = pair_hash(nodes[2 * parent + 1], nodes[2 * parent + 2]);
        }
        Ok(Self { nodes, positions })
    }

    /// The root.
    pub fn root(&self) -> TraceRoot {
        TraceRoot::from_bytes(self.nodes[0].to_bytes())
    }

    /// The siblings from leaf `index`, in the order given, up to the root; `None` past the last leaf.
    pub fn proof(&self, index: usize) -> Option<Vec<TraceNode>> {
        let mut position = *self.positions.get(index)?;
        let mut proof = Vec::new();
        while position > 0 {
            let sibling = if position % 2 == 1 { position + 1 } else { position - 1 };
            proof.push(self.nodes[sibling]);
            position = (position - 1) / 2;
        }
        Some(proof)
    }
}

fn leaf_hash(encoding: &[u8]) -> TraceNode {
    TraceNode::from_bytes(keccak256(&[&keccak256(&[encoding])]))
}

fn pair_hash(a: TraceNode, b: TraceNode) -> TraceNode {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    TraceNode::from_bytes(keccak256(&[low.as_bytes(), high.as_bytes()]))
}

fn keccak256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Keccak::v256();
    for part in parts {
        hasher.update(part);
    }
    let mut output = [0; 32];
    hasher.finalize(&mut output);
    output
}
