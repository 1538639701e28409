//! The referee: recomputes one element from opened chunks, and nothing else.
//!
//! It executes no model and holds no weights. Which tensors an element depends on, their shapes and where a chunk
//! lies in them follow from program and job; the message contributes bytes and paths alone. Bytes count only
//! after they have been hashed up to a commitment that is on record.

use std::ops::Range;

use gainsay_commitment::{
    TensorCommitment, TreeError, TreeShape,
    tensor::{CHUNK_BYTES, verify_opening},
};
use gainsay_program::{ElementError, Missing, OpPlace, Oracle, Scope, TensorRef, element};

use crate::{
    case::Case,
    dispute::Verdict,
    witness::{Witness, WitnessRun},
};

/// The commitments that bind what an op of one layer reads: what the worker revealed, what the claim holds for
/// the layers below, what the manifest holds for weights.
#[derive(Debug, Clone)]
pub struct Commitments<'a> {
    case: Case<'a>,
    layer: u32,
    ops: &'a [TensorCommitment],
    inner: Option<(Scope, &'a [TensorCommitment])>,
}

impl<'a> Commitments<'a> {
    /// For ops of `layer`, whose op outputs have the commitments `ops`.
    #[must_use]
    pub fn of_layer(case: Case<'a>, layer: u32, ops: &'a [TensorCommitment]) -> Self {
        Self { case, layer, ops, inner: None }
    }

    /// For ops of a virtual layer of the same layer.
    #[must_use]
    pub fn with_virtual(self, scope: Scope, ops: &'a [TensorCommitment]) -> Self {
        Self { inner: Some((scope, ops)), ..self }
    }

    /// The claim, job and model.
    #[must_use]
    pub fn case(&self) -> &Case<'a> {
        &self.case
    }

    /// The commitment and the tree of a tensor; nothing for what no op of the layer may read.
    #[must_use]
    pub fn find(&self, tensor: TensorRef) -> Option<(TensorCommitment, TreeShape)> {
        let shape = self.case.model().shape_of(self.case.input(), tensor)?;
        let commitment = match tensor {
            TensorRef::Op(place) => self.op(place)?,
            TensorRef::LayerOutput(layer) if layer < self.layer => {
                *self.case.claim().layers.get(layer as usize)?
            }
            TensorRef::LayerOutput(_) => return None,
            TensorRef::Weight(index) => self.case.model().weight(index)?.commitment,
        };
        Some((commitment, TreeShape::new(shape.bytes())))
    }

    fn op(&self, place: OpPlace) -> Option<TensorCommitment> {
        if place.layer != self.layer {
            return None;
        }
        let ops = match (place.scope, self.inner) {
            (Scope::Layer, _) => self.ops,
            (scope, Some((inner, ops))) if scope == inner => ops,
            _ => return None,
        };
        ops.get(place.op as usize).copied()
    }
}

/// What the referee found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// The element as the program defines it.
    pub recomputed: [u8; 4],
    /// [`Verdict::WorkerWins`] if that is what was claimed, else [`Verdict::ChallengerWins`].
    pub verdict: Verdict,
}

/// Why a witness decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WitnessFault {
    /// No op of the layer reads this tensor.
    #[error("no commitment is on record for {0}")]
    UnknownTensor(TensorRef),
    /// The chunk does not lead to the tensor's commitment.
    #[error("chunk {chunk} of {tensor} does not open: {fault}")]
    Opening {
        /// The tensor.
        tensor: TensorRef,
        /// The chunk.
        chunk: u64,
        /// What is wrong with it.
        fault: TreeError,
    },
    /// The evaluation reads a chunk that the witness lacks.
    #[error("the witness does not cover what the element depends on: {0}")]
    Missing(Missing),
    /// The evaluation never reads this chunk.
    #[error("chunk {chunk} of {tensor} is not needed")]
    Unneeded {
        /// The tensor.
        tensor: TensorRef,
        /// The chunk.
        chunk: u64,
    },
    /// There is no such element.
    #[error("there is no element {element} of {place}")]
    NoSuchElement {
        /// The op.
        place: OpPlace,
        /// The index.
        element: u64,
    },
}

impl WitnessFault {
    /// A stable name for interfaces.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownTensor(_) => "witness_unknown_tensor",
            Self::Opening { .. } => "witness_opening",
            Self::Missing(_) => "witness_incomplete",
            Self::Unneeded { .. } => "witness_unneeded",
            Self::NoSuchElement { .. } => "no_such_element",
        }
    }
}

/// Recomputes element `index` of the op at `place` from the witness, and compares it with the four bytes that
/// the worker revealed.
///
/// # Errors
/// The witness names a tensor that no op here reads, holds a chunk that does not open, lacks one that is read, or
/// holds one that is not. None of these says anything about the claim.
pub fn judge(
    commitments: &Commitments<'_>,
    place: OpPlace,
    index: u64,
    claimed: [u8; 4],
    witness: &Witness,
) -> Result<Judgement, WitnessFault> {
    for run in witness.runs() {
        check_opening(commitments, run)?;
    }
    let case = commitments.case();
    let mut opened = OpenedChunks::new(witness);
    let recomputed =
        element(case.model(), case.input(), place, index, &mut opened).map_err(|error| match error {
            ElementError::Missing(missing) => WitnessFault::Missing(missing),
            _ => WitnessFault::NoSuchElement { place, element: index },
        })?;
    if let Some(unread) = opened.first_unread() {
        return Err(WitnessFault::Unneeded { tensor: unread.0, chunk: unread.1 });
    }
    let verdict = if recomputed == claimed { Verdict::WorkerWins } else { Verdict::ChallengerWins };
    Ok(Judgement { recomputed, verdict })
}

fn check_opening(commitments: &Commitments<'_>, run: &WitnessRun) -> Result<(), WitnessFault> {
    let tensor = run.tensor;
    let (commitment, shape) = commitments.find(tensor).ok_or(WitnessFault::UnknownTensor(tensor))?;
    verify_opening(commitment, shape, &run.opening).map_err(|fault| WitnessFault::Opening {
        tensor,
        chunk: run.opening.chunk,
        fault,
    })
}

/// Reads from the chunks of a witness, and notes which were read.
struct OpenedChunks<'a> {
    runs: &'a [WitnessRun],
    /// Of each run, which of its chunks were read.
    read: Vec<Vec<bool>>,
}

impl<'a> OpenedChunks<'a> {
    fn new(witness: &'a Witness) -> Self {
        let unread = |run: &WitnessRun| vec![false; run.opening.bytes.len().div_ceil(CHUNK_BYTES)];
        Self { runs: witness.runs(), read: witness.runs().iter().map(unread).collect() }
    }

    fn first_unread(&self) -> Option<(TensorRef, u64)> {
        self.runs.iter().zip(&self.read).find_map(|(run, read)| {
            let index = read.iter().position(|read| !read)?;
            Some((run.tensor, run.opening.chunk + index as u64))
        })
    }

    /// The bytes of a chunk.
    fn find(&mut self, tensor: TensorRef, chunk: u64) -> Option<&'a [u8]> {
        let after = self.runs.partition_point(|run| (run.tensor, run.opening.chunk) <= (tensor, chunk));
        let index = after.checked_sub(1)?;
        let run = self.runs.get(index).filter(|run| run.tensor == tensor)?;
        let in_run = usize::try_from(chunk - run.opening.chunk).ok()?;
        *self.read[index].get_mut(in_run)? = true;
        run.opening.bytes.chunks(CHUNK_BYTES).nth(in_run)
    }
}

impl Oracle for OpenedChunks<'_> {
    fn read(&mut self, tensor: TensorRef, bytes: Range<u64>, into: &mut [u8]) -> Result<(), Missing> {
        let missing = Missing::new(tensor, &bytes);
        let (mut position, mut rest) = (bytes.start, into);
        while !rest.is_empty() {
            let chunk = position / CHUNK_BYTES as u64;
            let offset = (position % CHUNK_BYTES as u64) as usize;
            let held = self.find(tensor, chunk).and_then(|held| held.get(offset..)).ok_or(missing)?;
            let count = held.len().min(rest.len());
            if count == 0 {
                return Err(missing);
            }
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(&held[..count]);
            (position, rest) = (position + count as u64, later);
        }
        Ok(())
    }
}
