//! How the referee's function reads tensors.

use std::ops::Range;

use crate::TensorRef;

/// A source of tensor bytes: a party's own trace, or the chunks that a witness opens.
pub trait Oracle {
    /// Fills `into` with the bytes `bytes` of `tensor`. The range lies inside the tensor and is as long as `into`.
    ///
    /// An oracle that does not hold all of the range says so; that is never a statement about the value.
    fn read(&mut self, tensor: TensorRef, bytes: Range<u64>, into: &mut [u8]) -> Result<(), Missing>;
}

/// Bytes that an oracle does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("bytes {start}..{end} of {tensor} are missing")]
pub struct Missing {
    /// The tensor that was read.
    pub tensor: TensorRef,
    /// First byte of the range.
    pub start: u64,
    /// End of the range.
    pub end: u64,
}

impl Missing {
    /// The error for a read that could not be answered.
    pub const fn new(tensor: TensorRef, bytes: &Range<u64>) -> Self {
        Self { tensor, start: bytes.start, end: bytes.end }
    }
}
