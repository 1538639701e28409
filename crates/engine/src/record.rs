//! What runs leave behind: commitments, answers, the bytes of ops.

use gainsay_commitment::{TensorCommitment, TensorHasher};
use gainsay_program::{JobInput, RowSpace, ValidatedModel};
use rayon::prelude::*;

use crate::batch::Batch;
use crate::execute::{Next, Observer};

/// A job's run as a claim states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The commitment to every layer's output, in order.
    pub layers: Vec<TensorCommitment>,
    /// The last layer's output, row-major and little-endian: f32, a row for each sequence, or u32, a token of an answer in
    /// each row.
    pub output: Vec<u8>,
}

/// Bytes that are hashed at once where rows come one by one: so many that the hash's chunks fill the vectors.
const HASHED_AT_ONCE: usize = 16 << 10;

/// Commits to a tensor whose rows come in any pieces.
#[derive(Debug, Clone, Default)]
struct RowHasher {
    hasher: TensorHasher,
    waiting: Vec<u8>,
}

impl RowHasher {
    fn update(&mut self, mut bytes: &[u8]) {
        if !self.waiting.is_empty() {
            let (front, rest) = bytes.split_at(bytes.len().min(HASHED_AT_ONCE - self.waiting.len()));
            self.waiting.extend_from_slice(front);
            bytes = rest;
            if self.waiting.len() < HASHED_AT_ONCE {
                return;
            }
            self.hasher.update(&self.waiting);
            self.waiting.clear();
        }
        let (whole, rest) = bytes.split_at(bytes.len() / HASHED_AT_ONCE * HASHED_AT_ONCE);
        if !whole.is_empty() {
            self.hasher.update(whole);
        }
        self.waiting.extend_from_slice(rest);
    }

    fn commitment(mut self) -> TensorCommitment {
        self.hasher.update(&self.waiting).commitment()
    }
}

/// What is recorded of one job for its claim: nothing is kept but hashes and the answer.
#[derive(Debug, Default)]
pub(crate) struct JobRecord {
    hashers: Vec<RowHasher>,
    output: Vec<u8>,
}

impl JobRecord {
    /// A record of a job that has not begun.
    pub(crate) fn new(model: &ValidatedModel) -> Self {
        Self { hashers: vec![RowHasher::default(); model.layer_count() as usize], output: Vec::new() }
    }

    /// The last layer's output so far.
    pub(crate) fn output(&self) -> &[u8] {
        &self.output
    }

    /// What the claim states.
    pub(crate) fn finish(self) -> Trace {
        Trace { layers: self.hashers.into_iter().map(RowHasher::commitment).collect(), output: self.output }
    }
}

/// Hashes every layer of every job as it appears.
pub(crate) struct ClaimRecorder<'a> {
    model: &'a ValidatedModel,
    jobs: Vec<JobRecord>,
    hashes: bool,
}

impl<'a> ClaimRecorder<'a> {
    /// A recorder of a run's jobs, in the order of their indices. Without `hashes` it keeps answers alone.
    pub(crate) fn new(model: &'a ValidatedModel, jobs: Vec<JobRecord>, hashes: bool) -> Self {
        Self { model, jobs, hashes }
    }

    /// The records.
    pub(crate) fn finish(self) -> Vec<JobRecord> {
        self.jobs
    }
}

impl Observer for ClaimRecorder<'_> {
    fn watches_ops(&self, _: u32) -> bool {
        false
    }

    fn op(&mut self, _: &Batch<'_>, _: u32, _: usize, _: &[u8]) {}

    fn layer(&mut self, batch: &Batch<'_>, layer: u32, output: &[u8]) -> Next {
        let kind = self.model.layer_output_type(layer).expect("the layer that has just run exists");
        let is_last = layer + 1 == self.model.layer_count();
        let row_bytes = kind.width as usize * ELEMENT;
        // Parts come in the order of their jobs.
        let mut parts = batch.parts().iter().peekable();
        let records = self.jobs.iter_mut().enumerate();
        let work: Vec<_> = records
            .filter_map(|(job, record)| {
                let rows = &parts.next_if(|part| part.job == job)?.rows(kind.space).in_batch;
                Some((record, &output[rows.start * row_bytes..rows.end * row_bytes]))
            })
            .collect();
        let hashes = self.hashes;
        work.into_par_iter().for_each(|(record, bytes)| {
            if hashes {
                record.hashers[layer as usize].update(bytes);
            }
            if is_last {
                record.output.extend_from_slice(bytes);
            }
        });
        Next::Layer
    }
}

/// Keeps the outputs of all ops of one layer of one job.
pub(crate) struct OpRecorder<'a> {
    model: &'a ValidatedModel,
    layer: u32,
    ops: Vec<Vec<u8>>,
}

impl<'a> OpRecorder<'a> {
    /// A recorder for a layer that the model has.
    pub(crate) fn new(model: &'a ValidatedModel, job: &JobInput, layer: u32) -> Self {
        let capacity = |op: usize| {
            let place = gainsay_program::OpPlace::in_layer(layer, op as u32);
            model.op_shape(job, place).expect("the layer has this op").bytes() as usize
        };
        let ops = (0..model.ops(layer).len()).map(|op| Vec::with_capacity(capacity(op))).collect();
        Self { model, layer, ops }
    }

    pub(crate) fn finish(self) -> Vec<Vec<u8>> {
        self.ops
    }
}

impl Observer for OpRecorder<'_> {
    fn watches_ops(&self, layer: u32) -> bool {
        layer == self.layer
    }

    fn op(&mut self, batch: &Batch<'_>, layer: u32, op: usize, output: &[u8]) {
        let kind = self.model.output_type(layer, op as u32).expect("the op that has just run exists");
        for bytes in part_bytes(batch, kind.space, kind.width as usize, output) {
            self.ops[op].extend_from_slice(bytes);
        }
    }

    fn layer(&mut self, _: &Batch<'_>, layer: u32, _: &[u8]) -> Next {
        if layer == self.layer { Next::Batch } else { Next::Layer }
    }
}

/// Keeps the output of one layer of one job.
pub(crate) struct LayerRecorder {
    layer: u32,
    output: Vec<u8>,
}

impl LayerRecorder {
    pub(crate) fn new(layer: u32) -> Self {
        Self { layer, output: Vec::new() }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.output
    }
}

impl Observer for LayerRecorder {
    fn watches_ops(&self, _: u32) -> bool {
        false
    }

    fn op(&mut self, _: &Batch<'_>, _: u32, _: usize, _: &[u8]) {}

    fn layer(&mut self, _: &Batch<'_>, layer: u32, output: &[u8]) -> Next {
        if layer < self.layer {
            return Next::Layer;
        }
        self.output.extend_from_slice(output);
        Next::Batch
    }
}

/// Bytes of an element of any op's output.
const ELEMENT: usize = size_of::<f32>();

/// The bytes that each job has in a batch's tensor, in the order of the jobs.
fn part_bytes<'b>(
    batch: &'b Batch<'_>,
    space: RowSpace,
    width: usize,
    output: &'b [u8],
) -> impl Iterator<Item = &'b [u8]> {
    batch.parts().iter().map(move |part| {
        let rows = &part.rows(space).in_batch;
        &output[rows.start * width * ELEMENT..rows.end * width * ELEMENT]
    })
}

#[cfg(test)]
mod tests {
    use gainsay_commitment::tensor::tensor_commitment;

    use super::*;

    #[test]
    fn a_tensor_in_pieces_is_the_tensor() {
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        for piece in [1, 2048, HASHED_AT_ONCE - 1, HASHED_AT_ONCE, HASHED_AT_ONCE + 1, 70_000] {
            let mut hasher = RowHasher::default();
            bytes.chunks(piece).for_each(|bytes| hasher.update(bytes));
            assert!(hasher.waiting.len() < HASHED_AT_ONCE);
            assert_eq!(hasher.commitment(), tensor_commitment(&bytes), "pieces of {piece}");
        }
        assert_eq!(RowHasher::default().commitment(), tensor_commitment(&[]));
    }
}
