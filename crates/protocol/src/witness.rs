//! The bytes that the referee reads: opened chunks, nothing else.

use gainsay_commitment::{DecodeError, Decoder, Encoder, Opening};
use gainsay_program::{MAX_WITNESS_BYTES, TensorRef};

use crate::codec::{get_tensor, put_tensor};

/// One chunk of one tensor with its path to the tensor's commitment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WitnessChunk {
    /// The tensor that the chunk belongs to.
    pub tensor: TensorRef,
    /// The chunk and its path. Which commitment, length and tree it must fit follows from `tensor`.
    pub opening: Opening,
}

impl WitnessChunk {
    fn key(&self) -> (TensorRef, u64) {
        (self.tensor, self.opening.chunk)
    }

    fn bytes(&self) -> u64 {
        (self.opening.bytes.len() + self.opening.path.len() * 32) as u64
    }
}

/// Every chunk that the evaluation of one op element touches, each once, ordered by tensor and chunk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Witness {
    chunks: Vec<WitnessChunk>,
}

/// Why chunks do not make a witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WitnessFormError {
    /// A chunk stands twice, or not in ascending order of tensor and chunk.
    #[error("the chunks of a witness must ascend strictly by tensor and chunk")]
    Order,
    /// The witness is larger than any op element of a registered program needs.
    #[error("a witness may hold at most {MAX_WITNESS_BYTES} bytes of chunks and paths")]
    TooLarge,
}

impl Witness {
    /// A witness of these chunks.
    ///
    /// # Errors
    /// Chunks out of order or given twice, or more bytes than any witness needs.
    pub fn new(chunks: Vec<WitnessChunk>) -> Result<Self, WitnessFormError> {
        if chunks.windows(2).any(|pair| pair[0].key() >= pair[1].key()) {
            return Err(WitnessFormError::Order);
        }
        let witness = Self { chunks };
        if witness.bytes() > MAX_WITNESS_BYTES { Err(WitnessFormError::TooLarge) } else { Ok(witness) }
    }

    /// The chunks, in order.
    #[must_use]
    pub fn chunks(&self) -> &[WitnessChunk] {
        &self.chunks
    }

    /// Bytes of all chunks and paths.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(WitnessChunk::bytes).sum()
    }

    pub(crate) fn encode(&self, e: &mut Encoder) {
        e.list(&self.chunks, |e, chunk| {
            put_tensor(e, chunk.tensor);
            chunk.opening.encode(e);
        });
    }

    pub(crate) fn decode(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let mut total: u64 = 0;
        let chunks = d.list(MAX_WITNESS_BYTES as usize, |d| {
            let chunk = WitnessChunk { tensor: get_tensor(d)?, opening: Opening::decode(d)? };
            total += chunk.bytes();
            if total > MAX_WITNESS_BYTES {
                return Err(DecodeError::TooLong { length: total, limit: MAX_WITNESS_BYTES });
            }
            Ok(chunk)
        })?;
        Self::new(chunks).map_err(|_| {
            DecodeError::Invalid("the chunks of a witness must ascend strictly by tensor and chunk")
        })
    }
}
