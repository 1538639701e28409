//! What a prover keeps of a tensor.

use std::ops::Range;

use super::verify::{outer_nodes, parents};
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
        self.open_run(tensor, chunk..chunk.checked_add(1)?)
    }

    /// Opens consecutive chunks together. `None` for no chunk, past the last one, or where the length shows that these are
    /// other bytes.
    pub fn open_run(&self, tensor: &[u8], run: Range<u64>) -> Option<Opening> {
        if tensor.len() as u64 != self.shape.bytes() || run.is_empty() {
            return None;
        }
        let (first, last) = (self.shape.chunk_range(run.start)?, self.shape.chunk_range(run.end - 1)?);
        let bytes = tensor[first.start as usize..last.end as usize].to_vec();
        let path = outer_nodes(self.shape, run.clone()).into_iter().map(|node| self.inner(node));
        Some(Opening { chunk: run.start, bytes, path: path.collect::<Option<_>>()? })
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
