//! The bytes that the referee reads: opened chunks, nothing else.

use gainsay_commitment::{DecodeError, Decoder, Encoder, Opening};
use gainsay_program::{MAX_WITNESS_BYTES, TensorRef};

use crate::codec::{get_tensor, put_tensor};

/// Consecutive chunks of one tensor with their path to the tensor's commitment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WitnessRun {
    /// The tensor that the chunks belong to.
    pub tensor: TensorRef,
    /// The chunks and their path. Which commitment, length and tree it must fit follows from `tensor`.
    pub opening: Opening,
}

impl WitnessRun {
    /// Whether another run comes after it, with at least a chunk in between: what touches is one run.
    fn is_before(&self, other: &Self) -> bool {
        let apart = || self.opening.chunks().is_some_and(|run| run.end < other.opening.chunk);
        self.tensor < other.tensor || (self.tensor == other.tensor && apart())
    }

    fn bytes(&self) -> u64 {
        (self.opening.bytes.len() + self.opening.path.len() * 32) as u64
    }
}

/// Every chunk that the evaluation of one op element touches, each once, ordered by tensor and chunk. Chunks that follow each
/// other are opened together, so that there is one witness for one set of chunks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Witness {
    runs: Vec<WitnessRun>,
}

/// Why chunks do not make a witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WitnessFormError {
    /// Runs overlap or touch, or do not ascend by tensor and chunk.
    #[error("the runs of chunks of a witness must ascend by tensor and chunk, and lie apart")]
    Order,
    /// The witness is larger than any op element of a registered program needs.
    #[error("a witness may hold at most {MAX_WITNESS_BYTES} bytes of chunks and paths")]
    TooLarge,
}

impl Witness {
    /// A witness of these runs of chunks.
    ///
    /// # Errors
    /// Runs out of order, overlapping or touching, or more bytes than any witness needs.
    pub fn new(runs: Vec<WitnessRun>) -> Result<Self, WitnessFormError> {
        if runs.windows(2).any(|pair| !pair[0].is_before(&pair[1])) {
            return Err(WitnessFormError::Order);
        }
        let witness = Self { runs };
        if witness.bytes() > MAX_WITNESS_BYTES { Err(WitnessFormError::TooLarge) } else { Ok(witness) }
    }

    /// The runs of chunks, in order.
    #[must_use]
    pub fn runs(&self) -> &[WitnessRun] {
        &self.runs
    }

    /// Bytes of all chunks and paths.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(WitnessRun::bytes).sum()
    }

    pub(crate) fn encode(&self, e: &mut Encoder) {
        e.list(&self.runs, |e, run| {
            put_tensor(e, run.tensor);
            run.opening.encode(e);
        });
    }

    pub(crate) fn decode(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let mut total: u64 = 0;
        let runs = d.list(MAX_WITNESS_BYTES as usize, |d| {
            let run = WitnessRun { tensor: get_tensor(d)?, opening: Opening::decode(d)? };
            total += run.bytes();
            if total > MAX_WITNESS_BYTES {
                return Err(DecodeError::TooLong { length: total, limit: MAX_WITNESS_BYTES });
            }
            Ok(run)
        })?;
        Self::new(runs).map_err(|_| {
            DecodeError::Invalid("the runs of a witness must ascend by tensor and chunk, and lie apart")
        })
    }
}
