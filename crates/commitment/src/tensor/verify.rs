//! What a verifier checks: revealed nodes, revealed chunks, opened chunks.

use super::{CHUNK_BYTES, NodeAddress, TreeShape, chunk_node, parent_node, root_node, tensor_commitment};
use crate::encoding::{DecodeError, Decoder, Encoder};
use crate::hash::{ChainingValue, TensorCommitment};

/// The hash of a node: the commitment at the root, a chaining value below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeHash {
    /// The whole tensor.
    Root(TensorCommitment),
    /// A node below the root.
    Inner(ChainingValue),
}

/// Why revealed nodes or bytes do not belong to a commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The tree has no such node, or it is a chunk where an inner node is needed.
    #[error("no inner node at height {}, index {}", .0.height, .0.index)]
    NoSuchNode(NodeAddress),
    /// The tensor has fewer chunks.
    #[error("chunk {chunk} is beyond the {chunks} of the tensor")]
    NoSuchChunk {
        /// The chunk asked for.
        chunk: u64,
        /// How many there are.
        chunks: u64,
    },
    /// A root was compared with a chaining value or the other way round.
    #[error("a commitment stands only at the root of a tree, a chaining value only below it")]
    RootMismatch,
    /// Not one hash for every node that the reveal shows.
    #[error("{found} nodes given where the tree has {expected}")]
    NodeCount {
        /// Nodes that the tree has there.
        expected: usize,
        /// Nodes given.
        found: usize,
    },
    /// Not one sibling for every level.
    #[error("a path of {found} nodes given where the tree needs {expected}")]
    PathLength {
        /// Siblings on the way up.
        expected: usize,
        /// Siblings given.
        found: usize,
    },
    /// The chunk has another length in this tensor.
    #[error("a chunk of {found} bytes given where the tensor has {expected}")]
    ChunkLength {
        /// Length that the tensor's shape gives the chunk.
        expected: usize,
        /// Length given.
        found: usize,
    },
    /// The hashes do not lead to the expected one.
    #[error("the hashes do not lead to the expected node")]
    HashMismatch,
}

/// Checks that `children` are the nodes of [`TreeShape::revealed_children`] below `node`, whose hash is
/// `expected`.
///
/// # Errors
/// No such inner node, a count that is not the tree's, or hashes that do not lead to `expected`.
pub fn verify_children(
    shape: TreeShape,
    node: NodeAddress,
    expected: NodeHash,
    children: &[ChainingValue],
) -> Result<(), TreeError> {
    let addresses = shape.revealed_children(node).ok_or(TreeError::NoSuchNode(node))?;
    if addresses.len() != children.len() {
        return Err(TreeError::NodeCount { expected: addresses.len(), found: children.len() });
    }
    let (left, right) = fold_to_pair(children).expect("an inner node has at least two children");
    match expected {
        NodeHash::Root(root) if node == shape.root() => check(root_node(&left, &right) == root),
        NodeHash::Inner(inner) if node != shape.root() => check(parent_node(&left, &right) == inner),
        NodeHash::Root(_) | NodeHash::Inner(_) => Err(TreeError::RootMismatch),
    }
}

/// Hashes a level pairwise until two nodes are left; an odd last node moves up as it is. `None` below two.
fn fold_to_pair(nodes: &[ChainingValue]) -> Option<(ChainingValue, ChainingValue)> {
    let mut level = nodes.to_vec();
    while level.len() > 2 {
        level = parents(&level);
    }
    match level[..] {
        [left, right] => Some((left, right)),
        _ => None,
    }
}

/// The next level up.
pub(super) fn parents(level: &[ChainingValue]) -> Vec<ChainingValue> {
    let parent = |pair: &[ChainingValue]| match pair {
        [left, right] => parent_node(left, right),
        _ => pair[0],
    };
    level.chunks(2).map(parent).collect()
}

/// Checks that `bytes` are chunk `index`, whose hash is `expected`: the commitment itself where the tensor has
/// one chunk, a chaining value otherwise.
///
/// # Errors
/// No such chunk, bytes of another length than the shape gives it, or another hash.
pub fn verify_chunk(shape: TreeShape, index: u64, expected: NodeHash, bytes: &[u8]) -> Result<(), TreeError> {
    check_chunk_length(shape, index, bytes)?;
    match expected {
        NodeHash::Root(root) if shape.height() == 0 => check(tensor_commitment(bytes) == root),
        NodeHash::Inner(inner) if shape.height() > 0 => check(chunk_node(index, bytes) == inner),
        NodeHash::Root(_) | NodeHash::Inner(_) => Err(TreeError::RootMismatch),
    }
}

/// A chunk with the siblings that lead from it to the commitment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Opening {
    /// Which chunk of the tensor.
    pub chunk: u64,
    /// Its bytes: 1 KiB, fewer at the tensor's end.
    pub bytes: Vec<u8>,
    /// Siblings from the chunk upwards; levels where the node has none are left out.
    pub path: Vec<ChainingValue>,
}

impl Opening {
    /// Height of the tallest tree: 2^64 bytes.
    const MAX_PATH: usize = 54;

    /// Appends chunk index, bytes and path.
    pub fn encode(&self, encoder: &mut Encoder) {
        encoder.u64(self.chunk).bytes(&self.bytes).list(&self.path, |encoder, node| {
            encoder.hash(node);
        });
    }

    /// Reads an opening of any tensor; [`verify_opening`] says whether it is one of this tensor.
    ///
    /// # Errors
    /// A broken field, or more bytes or siblings than any opening has.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            chunk: decoder.u64()?,
            bytes: decoder.bytes(CHUNK_BYTES)?,
            path: decoder.list(Self::MAX_PATH, Decoder::hash)?,
        })
    }
}

/// Checks that an opening belongs to the tensor of this commitment and shape.
///
/// # Errors
/// No such chunk, bytes or a path of another length than the shape gives it, or another root.
pub fn verify_opening(
    commitment: TensorCommitment,
    shape: TreeShape,
    opening: &Opening,
) -> Result<(), TreeError> {
    check_chunk_length(shape, opening.chunk, &opening.bytes)?;
    let expected = siblings(shape, opening.chunk).count();
    if expected != opening.path.len() {
        return Err(TreeError::PathLength { expected, found: opening.path.len() });
    }
    let Some((top, below)) = opening.path.split_last() else {
        return check(tensor_commitment(&opening.bytes) == commitment);
    };
    let mut node = chunk_node(opening.chunk, &opening.bytes);
    let mut sides = siblings(shape, opening.chunk);
    for (sibling, side) in below.iter().zip(&mut sides) {
        let (left, right) = side.order(node, *sibling);
        node = parent_node(&left, &right);
    }
    let side = sides.next().expect("there are as many siblings as path nodes, and one is left");
    let (left, right) = side.order(node, *top);
    check(root_node(&left, &right) == commitment)
}

/// A sibling on the way from a chunk to the root.
pub(super) struct Sibling {
    /// Where it is; may be a longer name of a lower node.
    pub(super) address: NodeAddress,
}

impl Sibling {
    /// The pair in tree order; a sibling at an even position stands left.
    fn order(&self, node: ChainingValue, sibling: ChainingValue) -> (ChainingValue, ChainingValue) {
        if self.address.index.is_multiple_of(2) { (sibling, node) } else { (node, sibling) }
    }
}

/// The siblings of a chunk and of its ancestors, bottom up, without the levels where there is none.
pub(super) fn siblings(shape: TreeShape, chunk: u64) -> impl Iterator<Item = Sibling> {
    (0..shape.height()).filter_map(move |height| {
        let index = (chunk >> height) ^ 1;
        (index < shape.count(height)).then_some(Sibling { address: NodeAddress { height, index } })
    })
}

fn check_chunk_length(shape: TreeShape, chunk: u64, bytes: &[u8]) -> Result<(), TreeError> {
    let expected = shape.chunk_len(chunk).ok_or(TreeError::NoSuchChunk { chunk, chunks: shape.chunks() })?;
    if expected == bytes.len() {
        Ok(())
    } else {
        Err(TreeError::ChunkLength { expected, found: bytes.len() })
    }
}

fn check(equal: bool) -> Result<(), TreeError> {
    if equal { Ok(()) } else { Err(TreeError::HashMismatch) }
}
