//! What runs leave behind: commitments, answers, the bytes of ops.

use gainsay_commitment::{TensorCommitment, TensorHasher};
use gainsay_program::{JobInput, RowSpace, ValidatedModel};

use crate::batch::Batch;
use crate::execute::{Next, Observer};

/// A job's run as a claim states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The commitment to every layer's output, in order.
    pub layers: Vec<TensorCommitment>,
    /// The last layer's output: row-major little-endian f32, a row for each sequence.
    pub output: Vec<u8>,
}

/// Hashes every layer of every job as it appears, and keeps nothing but the answers.
pub(crate) struct ClaimRecorder<'a> {
    model: &'a ValidatedModel,
    jobs: Vec<(Vec<TensorHasher>, Vec<u8>)>,
}

impl<'a> ClaimRecorder<'a> {
    pub(crate) fn new(model: &'a ValidatedModel, jobs: usize) -> Self {
        let hashers = vec![TensorHasher::new(); model.layer_count() as usize];
        Self { model, jobs: vec![(hashers, Vec::new()); jobs] }
    }

    pub(crate) fn finish(self) -> Vec<Trace> {
        let trace = |(hashers, output): (Vec<TensorHasher>, _)| Trace {
            layers: hashers.iter().map(TensorHasher::commitment).collect(),
            output,
        };
        self.jobs.into_iter().map(trace).collect()
    }
}

impl Observer for ClaimRecorder<'_> {
    fn watches_ops(&self, _: u32) -> bool {
        false
    }

    fn op(&mut self, _: &Batch, _: u32, _: usize, _: &[f32]) {}

    fn layer(&mut self, batch: &Batch, layer: u32, output: &[f32]) -> Next {
        let kind = self.model.layer_output_type(layer).expect("the layer that has just run exists");
        let is_last = layer + 1 == self.model.layer_count();
        for (job, bytes) in part_bytes(batch, kind.space, kind.width as usize, output) {
            let (hashers, answer) = &mut self.jobs[job];
            hashers[layer as usize].update(bytes);
            if is_last {
                answer.extend_from_slice(bytes);
            }
        }
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

    fn op(&mut self, batch: &Batch, layer: u32, op: usize, output: &[f32]) {
        let kind = self.model.output_type(layer, op as u32).expect("the op that has just run exists");
        for (_, bytes) in part_bytes(batch, kind.space, kind.width as usize, output) {
            self.ops[op].extend_from_slice(bytes);
        }
    }

    fn layer(&mut self, _: &Batch, layer: u32, _: &[f32]) -> Next {
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

    fn op(&mut self, _: &Batch, _: u32, _: usize, _: &[f32]) {}

    fn layer(&mut self, _: &Batch, layer: u32, output: &[f32]) -> Next {
        if layer < self.layer {
            return Next::Layer;
        }
        self.output.extend_from_slice(bytes_of(output));
        Next::Batch
    }
}

/// The bytes that each job has in a batch's tensor.
fn part_bytes<'b>(
    batch: &'b Batch,
    space: RowSpace,
    width: usize,
    output: &'b [f32],
) -> impl Iterator<Item = (usize, &'b [u8])> {
    batch.parts().iter().map(move |part| {
        let rows = &part.rows(space).in_batch;
        (part.job, bytes_of(&output[rows.start * width..rows.end * width]))
    })
}

/// The bytes of a tensor, as commitments see them.
fn bytes_of(floats: &[f32]) -> &[u8] {
    const { assert!(cfg!(target_endian = "little"), "tensors in memory are the bytes that are committed to") };
    bytemuck::cast_slice(floats)
}
