//! A party's own trace, as the strategies read it.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use gainsay_commitment::{TensorCommitment, TensorTree, tensor::CHUNK_BYTES};
use gainsay_program::{Missing, OpPlace, Oracle, TensorRef, element};

use super::StrategyError;
use crate::{
    case::Case,
    witness::{Witness, WitnessRun},
};

/// A tensor's bytes and the tree over them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TensorData {
    /// Row-major little-endian bytes.
    pub bytes: Arc<[u8]>,
    /// The tree over `bytes`.
    pub tree: Arc<TensorTree>,
}

impl TensorData {
    /// Hashes the tensor.
    #[must_use]
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self { tree: Arc::new(TensorTree::new(&bytes)), bytes }
    }

    /// The tensor's commitment.
    #[must_use]
    pub fn commitment(&self) -> TensorCommitment {
        self.tree.commitment()
    }

    /// Four bytes of the tensor, by element index.
    pub(crate) fn element(&self, index: u64) -> Option<[u8; 4]> {
        let offset = usize::try_from(index.checked_mul(4)?).ok()?;
        self.bytes.get(offset..)?.first_chunk().copied()
    }
}

/// A tensor that a trace cannot provide.
#[derive(Debug, thiserror::Error)]
#[error("{tensor} is not available")]
pub struct TraceError {
    /// The tensor asked for.
    pub tensor: TensorRef,
    /// Why not.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl TraceError {
    /// The error for a tensor, with its reason.
    pub fn new(tensor: TensorRef, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { tensor, source: source.into() }
    }
}

/// A party's own run of one job: everything it holds or can recompute.
///
/// Worker and challenger implement this over the engine, tests over toy runs. Asked are op outputs of the disputed
/// layer, ops of virtual layers in it, outputs of layers below, and weights.
pub trait TraceSource {
    /// A tensor of the run.
    ///
    /// # Errors
    /// The tensor cannot be had.
    fn tensor(&mut self, tensor: TensorRef) -> Result<TensorData, TraceError>;
}

/// A tensor of the own trace, of the length that program and job give it.
pub(super) fn tensor(
    case: &Case<'_>,
    trace: &mut dyn TraceSource,
    tensor: TensorRef,
) -> Result<TensorData, StrategyError> {
    let data = trace.tensor(tensor)?;
    let shape = case.model().shape_of(case.input(), tensor).ok_or(StrategyError::ForeignCase)?;
    let (expected, found) = (shape.bytes(), data.bytes.len() as u64);
    if expected == found { Ok(data) } else { Err(StrategyError::TensorLength { tensor, expected, found }) }
}

/// Runs the referee's function over the own trace: the element's value, and the chunks it was computed from.
///
/// # Errors
/// The trace lacks a tensor, or the element does not exist.
pub fn build_witness(
    case: &Case<'_>,
    trace: &mut dyn TraceSource,
    place: OpPlace,
    index: u64,
) -> Result<([u8; 4], Witness), StrategyError> {
    let mut recorder = Recorder { trace, touched: BTreeSet::new(), held: None, failure: None };
    let value = element(case.model(), case.input(), place, index, &mut recorder);
    let Recorder { touched, failure, .. } = recorder;
    if let Some(failure) = failure {
        return Err(failure.into());
    }
    let value = value?;
    let mut opened = Vec::new();
    let mut held: Option<(TensorRef, TensorData)> = None;
    for (tensor, run) in runs(touched) {
        let data = match held.take() {
            Some((same, data)) if same == tensor => data,
            _ => trace.tensor(tensor)?,
        };
        let missing =
            || Missing::new(tensor, &(run.start * CHUNK_BYTES as u64..run.end * CHUNK_BYTES as u64));
        let opening = data.tree.open_run(&data.bytes, run.clone());
        let opening = opening.ok_or_else(|| TraceError::new(tensor, missing()))?;
        opened.push(WitnessRun { tensor, opening });
        held = Some((tensor, data));
    }
    Ok((value, Witness::new(opened)?))
}

/// Chunks that follow each other, put together.
fn runs(touched: BTreeSet<(TensorRef, u64)>) -> Vec<(TensorRef, Range<u64>)> {
    let mut runs: Vec<(TensorRef, Range<u64>)> = Vec::new();
    for (tensor, chunk) in touched {
        match runs.last_mut() {
            Some((same, run)) if *same == tensor && run.end == chunk => run.end += 1,
            _ => runs.push((tensor, chunk..chunk + 1)),
        }
    }
    runs
}

/// Reads from a trace, and notes which chunks were read.
struct Recorder<'a> {
    trace: &'a mut dyn TraceSource,
    touched: BTreeSet<(TensorRef, u64)>,
    /// The tensor read last: consecutive reads mostly stay in one.
    held: Option<(TensorRef, TensorData)>,
    failure: Option<TraceError>,
}

impl Oracle for Recorder<'_> {
    fn read(&mut self, tensor: TensorRef, bytes: Range<u64>, into: &mut [u8]) -> Result<(), Missing> {
        let missing = Missing::new(tensor, &bytes);
        if self.held.as_ref().is_none_or(|(held, _)| *held != tensor) {
            match self.trace.tensor(tensor) {
                Ok(data) => self.held = Some((tensor, data)),
                Err(failure) => {
                    self.failure = Some(failure);
                    return Err(missing);
                }
            }
        }
        let (_, data) = self.held.as_ref().ok_or(missing)?;
        let range = usize::try_from(bytes.start).ok().zip(usize::try_from(bytes.end).ok());
        let held = range.and_then(|(start, end)| data.bytes.get(start..end)).ok_or(missing)?;
        if held.len() != into.len() || held.is_empty() {
            return Err(missing);
        }
        into.copy_from_slice(held);
        let chunks = bytes.start / CHUNK_BYTES as u64..=(bytes.end - 1) / CHUNK_BYTES as u64;
        self.touched.extend(chunks.map(|chunk| (tensor, chunk)));
        Ok(())
    }
}
