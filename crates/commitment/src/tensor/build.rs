//! What a prover keeps of a tensor.

use super::verify::{parents, siblings};
use super::{
    CHUNK_BYTES, NodeAddress, NodeHash, Opening, TreeShape, chunk_node, root_node, tensor_commitment,
};
use crate::hash::{ChainingValue, TensorCommitment};

/// Every node of a tensor's tree, without the bytes: a sixteenth of their size.
///
/// Building one hashes chunk by chunk, several times slower than [`tensor_commitment`]: a tensor needs its
/// tree only when it is opened.
#[derive(Clone, Debug)]
pub struct TensorTree {
    shape: TreeShape,
    commitment: TensorCommitment,
    /// Chunks first; the last level holds the root's two children. Empty for a single chunk.
    levels: Vec<Vec<ChainingValue>>,
}

impl TensorTree {
    /// Hashes the tensor.
    pub fn new(tensor: &[u8]) -> Self {
        let shape = TreeShape::new(tensor.len() as u64);
        if shape.height() == 0 {
            return Self { shape, commitment: tensor_commitment(tensor), levels: Vec::new() };
        }
        let chunks = (0u64..).zip(tensor.chunks(CHUNK_BYTES));
        let mut levels = vec![chunks.map(|(index, bytes)| chunk_node(index, bytes)).collect::<Vec<_>>()];
        loop {
            let top = &levels[levels.len() - 1];
            if let [left, right] = &top[..] {
                return Self { shape, commitment: root_node(left, right), levels };
            }
            levels.push(parents(top));
        }
    }

    /// The tensor's commitment, equal to [`tensor_commitment`] of its bytes.
    pub fn commitment(&self) -> TensorCommitment {
        self.commitment
    }

    /// The shape that the tensor's length gives.
    pub fn shape(&self) -> TreeShape {
        self.shape
    }

    /// The hash of a node, or `None` if the tree does not [contain](TreeShape::contains) it.
    pub fn node(&self, node: NodeAddress) -> Option<NodeHash> {
        if !self.shape.contains(node) {
            return None;
        }
        if node == self.shape.root() {
            return Some(NodeHash::Root(self.commitment));
        }
        self.inner(node).map(NodeHash::Inner)
    }

    /// The nodes that a reveal of `node` shows, in the order of [`TreeShape::revealed_children`]; `None` where
    /// that gives none.
    pub fn children(&self, node: NodeAddress) -> Option<Vec<ChainingValue>> {
        self.shape.revealed_children(node)?.into_iter().map(|child| self.inner(child)).collect()
    }

    /// Opens a chunk of `tensor`, the bytes that the tree was built from. `None` past the last chunk or where
    /// the length shows that these are other bytes.
    pub fn open(&self, tensor: &[u8], chunk: u64) -> Option<Opening> {
        if tensor.len() as u64 != self.shape.bytes() {
            return None;
        }
        let range = self.shape.chunk_range(chunk)?;
        let bytes = tensor[range.start as usize..range.end as usize].to_vec();
        Some(Opening { chunk, bytes, path: self.path(chunk)? })
    }

    /// The siblings that lead from a chunk to the root, or `None` past the last chunk.
    pub fn path(&self, chunk: u64) -> Option<Vec<ChainingValue>> {
        if chunk >= self.shape.chunks() {
            return None;
        }
        siblings(self.shape, chunk).map(|sibling| self.inner(sibling.address)).collect()
    }

    fn inner(&self, node: NodeAddress) -> Option<ChainingValue> {
        self.levels.get(usize::from(node.height))?.get(usize::try_from(node.index).ok()?).copied()
    }
}

/// Commits to a tensor that arrives piece by piece.
#[derive(Clone, Debug, Default)]
pub struct TensorHasher(blake3::Hasher);

impl TensorHasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.count()
    }

    /// The commitment to the bytes so far.
    pub fn commitment(&self) -> TensorCommitment {
        TensorCommitment::from_bytes(self.0.finalize().into())
    }
}
