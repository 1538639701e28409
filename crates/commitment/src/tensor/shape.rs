//! Where the nodes of a tensor's tree are. Decided by the byte length alone.

use std::ops::Range;

use super::CHUNK_BYTES;
use crate::encoding::{DecodeError, Decoder, Encoder};

/// How many levels of the tree one reveal goes down: up to 64 nodes a move.
pub const REVEAL_LEVELS: u8 = 6;

/// Names a subtree: the chunks from `index · 2^height` on, `2^height` of them or as many as the tensor has.
///
/// Where the last subtree of a level holds so few chunks that it is its own left half, it has several
/// names; the tree knows it by the lowest ([`TreeShape::canonical`]). So height 0 always is a chunk, and every
/// other node has two children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAddress {
    /// Levels above the chunks.
    pub height: u8,
    /// Position in the level, from the tensor's start.
    pub index: u64,
}

impl NodeAddress {
    /// The address of a chunk.
    pub const fn chunk(index: u64) -> Self {
        Self { height: 0, index }
    }

    /// Appends height and index.
    pub fn encode(&self, encoder: &mut Encoder) {
        encoder.u8(self.height).u64(self.index);
    }

    /// Reads any address, inside a tree or not.
    ///
    /// # Errors
    /// The input ends early.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { height: decoder.u8()?, index: decoder.u64()? })
    }
}

/// The tree over a tensor of a given length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TreeShape {
    bytes: u64,
}

impl TreeShape {
    /// The tree over `bytes` bytes.
    pub const fn new(bytes: u64) -> Self {
        Self { bytes }
    }

    /// Length of the tensor in bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of chunks, at least one: an empty tensor is one empty chunk.
    pub const fn chunks(&self) -> u64 {
        let chunks = self.bytes.div_ceil(CHUNK_BYTES as u64);
        if chunks == 0 { 1 } else { chunks }
    }

    /// Levels above the chunks: 0 for one chunk, at most 54.
    pub const fn height(&self) -> u8 {
        (u64::BITS - (self.chunks() - 1).leading_zeros()) as u8
    }

    /// The address of the whole tensor.
    pub const fn root(&self) -> NodeAddress {
        NodeAddress { height: self.height(), index: 0 }
    }

    /// The bytes that chunk `index` covers, or `None` past the last one.
    pub fn chunk_range(&self, index: u64) -> Option<Range<u64>> {
        if index >= self.chunks() {
            return None;
        }
        let start = index * CHUNK_BYTES as u64;
        Some(start..self.bytes.min(start.saturating_add(CHUNK_BYTES as u64)))
    }

    /// Length of chunk `index` in bytes, or `None` past the last one.
    pub fn chunk_len(&self, index: u64) -> Option<usize> {
        self.chunk_range(index).map(|range| (range.end - range.start) as usize)
    }

    /// The chunks that hold the bytes of `range`, or `None` where it leaves the tensor or runs backwards.
    /// An empty range needs no chunk.
    pub fn chunks_of(&self, range: Range<u64>) -> Option<Range<u64>> {
        if range.start > range.end || range.end > self.bytes {
            return None;
        }
        let first = range.start / CHUNK_BYTES as u64;
        let end = if range.is_empty() { first } else { range.end.div_ceil(CHUNK_BYTES as u64) };
        Some(first..end)
    }

    /// The tree's own name for a node, or `None` where no node is.
    pub fn canonical(&self, node: NodeAddress) -> Option<NodeAddress> {
        if node.height > self.height() || node.index >= self.count(node.height) {
            return None;
        }
        let NodeAddress { mut height, mut index } = node;
        while height > 0 && 2 * index + 1 >= self.count(height - 1) {
            height -= 1;
            index *= 2;
        }
        Some(NodeAddress { height, index })
    }

    /// Whether this is the tree's own name for one of its nodes.
    pub fn contains(&self, node: NodeAddress) -> bool {
        self.canonical(node) == Some(node)
    }

    /// The chunks below a node, or `None` if the tree does not [contain](Self::contains) it.
    pub fn chunks_below(&self, node: NodeAddress) -> Option<Range<u64>> {
        self.contains(node).then(|| {
            let start = node.index << node.height;
            start..self.chunks().min(start + (1 << node.height))
        })
    }

    /// The nodes that a reveal of `node` shows, left to right: those [`REVEAL_LEVELS`] levels below it, or its
    /// chunks where it is lower than that; 2 to 64 of them, under their canonical names. `None` for a chunk and
    /// for what the tree does not [contain](Self::contains).
    pub fn revealed_children(&self, node: NodeAddress) -> Option<Vec<NodeAddress>> {
        if node.height == 0 || !self.contains(node) {
            return None;
        }
        let levels = node.height.min(REVEAL_LEVELS);
        let height = node.height - levels;
        let first = node.index << levels;
        let end = self.count(height).min(first + (1 << levels));
        let child = |index| self.canonical(NodeAddress { height, index });
        (first..end).map(child).collect()
    }

    /// Number of nodes in a level, `height` being at most the tree's.
    pub(super) const fn count(&self, height: u8) -> u64 {
        self.chunks().div_ceil(1 << height)
    }
}
