//! What runs leave behind: commitments, answers, the bytes of ops.

use std::ops::Range;

use candle_core::{Result, Tensor};
use gainsay_commitment::{TensorCommitment, TensorHasher};
#[cfg(feature = "cuda")]
use gainsay_cuda_launch::At;
use gainsay_program::{JobInput, RowSpace, ValidatedModel};
use rayon::prelude::*;

use crate::batch::Batch;
use crate::error::RunError;
use crate::execute::{Next, Observer};
use crate::machine::Machine;
use crate::ops::read_bytes;

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
#[derive(Default)]
pub(crate) struct JobRecord {
    hashers: Hashers,
    output: Vec<u8>,
}

/// A hasher for each layer, where the layers' outputs are.
enum Hashers {
    Host(Vec<RowHasher>),
    #[cfg(feature = "cuda")]
    Device(crate::cuda::LayerHashers),
}

impl Default for Hashers {
    fn default() -> Self {
        Self::Host(Vec::new())
    }
}

impl JobRecord {
    /// A record of a job that has not begun, to be run on this machine.
    pub(crate) fn new(model: &ValidatedModel, machine: &Machine) -> Self {
        let layers = model.layer_count() as usize;
        let hashers = match machine {
            Machine::Cpu(_) => Hashers::Host(vec![RowHasher::default(); layers]),
            #[cfg(feature = "cuda")]
            Machine::Cuda(device) => Hashers::Device(crate::cuda::LayerHashers::new(device, layers)),
        };
        Self { hashers, output: Vec::new() }
    }

    /// What a device knows of the commitments, if one does.
    #[cfg(feature = "cuda")]
    fn on_device(&mut self) -> Option<&mut crate::cuda::LayerHashers> {
        match &mut self.hashers {
            Hashers::Device(hashers) => Some(hashers),
            Hashers::Host(_) => None,
        }
    }

    /// The last layer's output so far.
    pub(crate) fn output(&self) -> &[u8] {
        &self.output
    }

    /// What the claim states.
    ///
    /// # Errors
    /// A device does not give the hashes.
    pub(crate) fn finish(self) -> std::result::Result<Trace, RunError> {
        let layers = match self.hashers {
            Hashers::Host(hashers) => hashers.into_iter().map(RowHasher::commitment).collect(),
            #[cfg(feature = "cuda")]
            Hashers::Device(hashers) => hashers.commitments()?,
        };
        Ok(Trace { layers, output: self.output })
    }
}

/// Hashes every layer of every job as it appears.
pub(crate) struct ClaimRecorder<'a> {
    model: &'a ValidatedModel,
    jobs: Vec<JobRecord>,
    hashes: bool,
    /// What a device has hashed of the batch that runs.
    #[cfg(feature = "cuda")]
    hashing: Option<crate::cuda::BatchHashes>,
}

impl<'a> ClaimRecorder<'a> {
    /// A recorder of a run's jobs, in the order of their indices. Without `hashes` it keeps answers alone.
    pub(crate) fn new(model: &'a ValidatedModel, jobs: Vec<JobRecord>, hashes: bool) -> Self {
        Self {
            model,
            jobs,
            hashes,
            #[cfg(feature = "cuda")]
            hashing: None,
        }
    }

    /// The records.
    pub(crate) fn finish(self) -> Vec<JobRecord> {
        self.jobs
    }

    fn is_last(&self, layer: u32) -> bool {
        layer + 1 == self.model.layer_count()
    }

    /// The records of the jobs that a batch holds rows of, and the bytes of a layer's output that are theirs.
    fn work<'w>(
        &'w mut self,
        batch: &Batch<'_>,
        layer: u32,
    ) -> impl Iterator<Item = (usize, &'w mut JobRecord, Range<usize>)> {
        let kind = self.model.layer_output_type(layer).expect("the layer that has just run exists");
        let row_bytes = kind.width as usize * ELEMENT;
        // Parts come in the order of their jobs.
        let mut parts = batch.parts().iter().peekable();
        self.jobs.iter_mut().enumerate().filter_map(move |(job, record)| {
            let rows = &parts.next_if(|part| part.job == job)?.rows(kind.space).in_batch;
            Some((job, record, rows.start * row_bytes..rows.end * row_bytes))
        })
    }

    /// Hashes what is on the CPU, and keeps the answer.
    fn record(&mut self, batch: &Batch<'_>, layer: u32, output: &[u8]) {
        let (hashes, is_last) = (self.hashes, self.is_last(layer));
        let work: Vec<_> = self.work(batch, layer).collect();
        work.into_par_iter().for_each(|(_, record, bytes)| {
            let bytes = &output[bytes];
            match &mut record.hashers {
                Hashers::Host(hashers) if hashes => hashers[layer as usize].update(bytes),
                _ => {}
            }
            if is_last {
                record.output.extend_from_slice(bytes);
            }
        });
    }
}

#[cfg(feature = "cuda")]
impl crate::cuda::StepRecorder for ClaimRecorder<'_> {
    fn hashes(&self) -> bool {
        self.hashes
    }

    fn runs(&mut self, batch: &Batch<'_>, layers: &[At<u8>]) -> Result<crate::cuda::BatchRuns> {
        let mut runs = crate::cuda::BatchRuns::default();
        let layers = if self.hashes { layers } else { &[] };
        for (layer, &at) in layers.iter().enumerate() {
            let jobs = self.work(batch, layer as u32);
            let jobs = jobs.filter_map(|(job, record, bytes)| Some((job, record.on_device()?, bytes)));
            runs.layer(layer, at, jobs)?;
        }
        Ok(runs)
    }

    fn take(
        &mut self,
        batch: &Batch<'_>,
        (runs, values): (crate::cuda::BatchRuns, &[u32]),
        output: &[u8],
    ) -> Result<()> {
        runs.hand_out(values, &mut self.jobs, JobRecord::on_device)?;
        self.record(batch, self.model.layer_count() - 1, output);
        Ok(())
    }
}

#[cfg(feature = "cuda")]
impl ClaimRecorder<'_> {
    /// Has a device hash what lies there. After the last layer waits for the batch, and keeps hashes and answer.
    fn record_on(
        &mut self,
        device: &crate::cuda::Device,
        batch: &Batch<'_>,
        layer: u32,
        output: &Tensor,
    ) -> Result<()> {
        if self.hashes {
            let mut hashing = match self.hashing.take().filter(|_| layer > 0) {
                Some(hashing) => hashing,
                None => crate::cuda::BatchHashes::new(device, self.values(batch))?,
            };
            let jobs = self.work(batch, layer);
            let jobs = jobs.filter_map(|(job, record, bytes)| Some((job, record.on_device()?, bytes)));
            hashing.layer(layer as usize, output.clone(), jobs)?;
            self.hashing = Some(hashing);
        }
        if !self.is_last(layer) {
            return Ok(());
        }
        if let Some(hashing) = self.hashing.take() {
            hashing.finish(&mut self.jobs, JobRecord::on_device)?;
        }
        read_bytes(output, |output| self.record(batch, layer, output))
    }

    /// How many chaining values a batch gives, all layers together.
    fn values(&mut self, batch: &Batch<'_>) -> u64 {
        let layers = self.model.layer_count();
        let of_layer = |layer| {
            let jobs = self.work(batch, layer);
            jobs.map(|(_, record, bytes)| match &record.hashers {
                Hashers::Device(hashers) => hashers.values(layer as usize, bytes.len() as u64),
                Hashers::Host(_) => 0,
            })
            .sum::<u64>()
        };
        (0..layers).map(of_layer).sum()
    }
}

impl Observer for ClaimRecorder<'_> {
    fn watches_ops(&self, _: u32) -> bool {
        false
    }

    fn op(&mut self, _: &Batch<'_>, _: u32, _: usize, _: &[u8]) {}

    fn layer(&mut self, batch: &Batch<'_>, layer: u32, output: &Tensor) -> Result<Next> {
        #[cfg(feature = "cuda")]
        if let candle_core::Device::Cuda(device) = output.device() {
            self.record_on(&crate::cuda::Device::of(device)?, batch, layer, output)?;
            return Ok(Next::Layer);
        }
        read_bytes(output, |output| self.record(batch, layer, output))?;
        Ok(Next::Layer)
    }

    #[cfg(feature = "cuda")]
    fn steps(&mut self) -> Option<&mut dyn crate::cuda::StepRecorder> {
        Some(self)
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

    fn layer(&mut self, _: &Batch<'_>, layer: u32, _: &Tensor) -> Result<Next> {
        Ok(if layer == self.layer { Next::Batch } else { Next::Layer })
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

    fn layer(&mut self, _: &Batch<'_>, layer: u32, output: &Tensor) -> Result<Next> {
        if layer < self.layer {
            return Ok(Next::Layer);
        }
        read_bytes(output, |output| self.output.extend_from_slice(output))?;
        Ok(Next::Batch)
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
