//! What a verifier checks: revealed nodes, revealed chunks, opened chunks.

use std::ops::Range;

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

/// Consecutive chunks of a tensor, one or more, with the nodes that lead from them to the commitment. A run of chunks needs
/// one path on either side, however long it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Opening {
    /// The first of the chunks.
    pub chunk: u64,
    /// Their bytes: 1 KiB each, fewer at the tensor's end.
    pub bytes: Vec<u8>,
    /// The siblings on the left and on the right of the run and of its ancestors, from the chunks upwards, left before right;
    /// levels where there is none are left out.
    pub path: Vec<ChainingValue>,
}

impl Opening {
    /// Bytes of the longest run.
    pub const MAX_BYTES: usize = 4 << 20;
    /// Height of the tallest tree, 2^64 bytes, on both sides.
    const MAX_PATH: usize = 2 * 54;

    /// The chunks that so many bytes are, whatever the tensor's length; `None` past the last chunk of any tensor.
    pub fn chunks(&self) -> Option<Range<u64>> {
        let count = self.bytes.len().div_ceil(CHUNK_BYTES).max(1) as u64;
        Some(self.chunk..self.chunk.checked_add(count)?)
    }

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
            bytes: decoder.bytes(Self::MAX_BYTES)?,
            path: decoder.list(Self::MAX_PATH, Decoder::hash)?,
        })
    }
}

/// Checks that an opening belongs to the tensor of this commitment and shape.
///
/// # Errors
/// No such chunks, bytes or a path of another length than the shape gives them, or another root.
pub fn verify_opening(
    commitment: TensorCommitment,
    shape: TreeShape,
    opening: &Opening,
) -> Result<(), TreeError> {
    let run = check_run_length(shape, opening)?;
    let expected = outer_nodes(shape, run.clone()).len();
    if expected != opening.path.len() {
        return Err(TreeError::PathLength { expected, found: opening.path.len() });
    }
    if shape.height() == 0 {
        return check(tensor_commitment(&opening.bytes) == commitment);
    }
    let chunks = run.clone().zip(opening.bytes.chunks(CHUNK_BYTES));
    let mut level: Vec<ChainingValue> = chunks.map(|(index, bytes)| chunk_node(index, bytes)).collect();
    let (mut first, mut path) = (run.start, opening.path.iter());
    for height in 0..shape.height() {
        if first % 2 == 1 {
            level.splice(0..0, path.next().copied());
            first -= 1;
        }
        let end = first + level.len() as u64;
        if end % 2 == 1 && end < shape.count(height) {
            level.extend(path.next());
        }
        if let ([left, right], true) = (&level[..], height + 1 == shape.height()) {
            return check(root_node(left, right) == commitment);
        }
        level = parents(&level);
        first /= 2;
    }
    // The level below the root has two nodes, and the siblings have completed it.
    Err(TreeError::HashMismatch)
}

/// The nodes beside a run of chunks and beside its ancestors, bottom up, left before right: what its path holds. A node may
/// have a longer name here than its own.
pub(super) fn outer_nodes(shape: TreeShape, run: Range<u64>) -> Vec<NodeAddress> {
    let Range { start: mut first, mut end } = run;
    let mut outer = Vec::new();
    for height in 0..shape.height() {
        if first % 2 == 1 {
            first -= 1;
            outer.push(NodeAddress { height, index: first });
        }
        if end % 2 == 1 && end < shape.count(height) {
            outer.push(NodeAddress { height, index: end });
        }
        (first, end) = (first / 2, end.div_ceil(2));
    }
    outer
}

/// The chunks of an opening, where its bytes are as many as these have in the tensor.
fn check_run_length(shape: TreeShape, opening: &Opening) -> Result<Range<u64>, TreeError> {
    let no_such_chunk = TreeError::NoSuchChunk { chunk: opening.chunk, chunks: shape.chunks() };
    let run = opening.chunks().ok_or(no_such_chunk)?;
    let first = shape.chunk_range(run.start).ok_or(no_such_chunk)?;
    let last = shape.chunk_range(run.end.min(shape.chunks()) - 1).ok_or(no_such_chunk)?;
    let (expected, found) = ((last.end - first.start) as usize, opening.bytes.len());
    if expected == found && run.end <= shape.chunks() {
        Ok(run)
    } else {
        Err(TreeError::ChunkLength { expected, found })
    }
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
