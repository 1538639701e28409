//! Commitments to tensors whose chunks are hashed elsewhere, where the bytes are.

use std::ops::Range;

use super::{CHUNK_BYTES, chunk_node, parent_node, root_node, tensor_commitment};
use crate::hash::{ChainingValue, TensorCommitment};

/// The chaining values do not make a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubtreeError {
    /// A subtree begins at a multiple of its own length.
    #[error("a subtree of height {height} cannot begin at chunk {chunk}")]
    Misplaced {
        /// Levels above the chunks.
        height: u8,
        /// The chunk that it would begin with.
        chunk: u64,
    },
    /// The last chunk has 1 to 1024 bytes, or none in a tensor without any.
    #[error("behind {chunks} chunks a tensor does not end with {bytes} bytes")]
    Tail {
        /// Chunks before.
        chunks: u64,
        /// Bytes given.
        bytes: usize,
    },
}

/// Commits to a tensor by the chaining values of its subtrees and the bytes of its last chunk.
///
/// The last chunk, even where it is a whole one, comes as bytes: it may be the only one, and that is hashed otherwise. So the
/// tree's root is above every subtree, and none of them is it.
#[derive(Debug, Clone, Default)]
pub struct SubtreeHasher {
    /// Subtrees that wait for their neighbours, the highest first: one for each set bit of `chunks`.
    waiting: Vec<ChainingValue>,
    chunks: u64,
}

impl SubtreeHasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Chunks so far.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Appends a subtree of `2^height` chunks.
    ///
    /// # Errors
    /// The chunks so far are not a multiple of as many, or there would be more than any tensor has.
    pub fn push(&mut self, height: u8, value: ChainingValue) -> Result<(), SubtreeError> {
        let misplaced = SubtreeError::Misplaced { height, chunk: self.chunks };
        let length = 1u64.checked_shl(u32::from(height)).ok_or(misplaced)?;
        if !self.chunks.is_multiple_of(length) {
            return Err(misplaced);
        }
        let chunks = self.chunks.checked_add(length).ok_or(misplaced)?;
        let mut merged = value;
        for _ in 0..(self.chunks / length).trailing_ones() {
            let left = self.waiting.pop().expect("a subtree waits for each set bit");
            merged = parent_node(&left, &merged);
        }
        self.waiting.push(merged);
        self.chunks = chunks;
        Ok(())
    }

    /// The commitment to the tensor that ends with these bytes.
    ///
    /// # Errors
    /// They are not the last chunk of any tensor with so many chunks before.
    pub fn finish(self, tail: &[u8]) -> Result<TensorCommitment, SubtreeError> {
        if tail.len() > CHUNK_BYTES || (tail.is_empty() && self.chunks > 0) {
            return Err(SubtreeError::Tail { chunks: self.chunks, bytes: tail.len() });
        }
        let Some((first, others)) = self.waiting.split_first() else {
            return Ok(tensor_commitment(tail));
        };
        let last = chunk_node(self.chunks, tail);
        let right = others.iter().rev().fold(last, |right, left| parent_node(left, &right));
        Ok(root_node(first, &right))
    }
}

/// The heights of the subtrees that consecutive chunks fall into: from left to right each as high as its place, the number of
/// chunks and `most` allow.
pub fn subtree_heights(chunks: Range<u64>, most: u8) -> impl Iterator<Item = u8> {
    let mut start = chunks.start;
    std::iter::from_fn(move || {
        let left = chunks.end.checked_sub(start).filter(|&left| left > 0)?;
        let height = left.ilog2().min(start.trailing_zeros()).min(u32::from(most));
        start += 1 << height;
        Some(height as u8)
    })
}
