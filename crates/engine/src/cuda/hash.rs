//! Commitments to tensors that lie on a device: they are hashed there, and chaining values of subtrees travel.

use std::ops::Range;

use candle_core::{DType, Error, Result, Storage, Tensor, bail};
use gainsay_commitment::{ChainingValue, SubtreeHasher, TensorCommitment, subtree_heights};
use gainsay_cuda_launch::At;
use gainsay_cuda_launch::blake3::{CHUNK_BYTES, HEIGHT, Run, VALUE_BYTES, hash, tail_bytes};

use super::array::elements;
use super::{Array, Device};

/// Words of a chaining value.
pub(super) const VALUE_WORDS: usize = VALUE_BYTES as usize / size_of::<u32>();

/// What is known of the commitments to a job's layers.
pub(crate) struct LayerHashers {
    device: Device,
    layers: Vec<Layer>,
    /// A tail for each layer, once there are rows.
    tails: Option<Array<u8>>,
}

/// The tensor of one layer, so far.
#[derive(Default, Clone)]
struct Layer {
    hasher: SubtreeHasher,
    /// Bytes that were launched.
    bytes: u64,
}

impl LayerHashers {
    /// Hashers of so many layers.
    pub(crate) fn new(device: &Device, layers: usize) -> Self {
        Self { device: device.clone(), layers: vec![Layer::default(); layers], tails: None }
    }

    /// How many chaining values so many more bytes of a layer give.
    pub(crate) fn values(&self, layer: usize, bytes: u64) -> u64 {
        let before = self.layers[layer].bytes;
        Run { at: At::none(), before, bytes, tail: At::none(), out: 0 }.values()
    }

    /// The commitments. Waits for what was launched.
    ///
    /// # Errors
    /// The device refuses.
    pub(crate) fn commitments(self) -> Result<Vec<TensorCommitment>> {
        let tails = self.tails.map(|tails| tails.download(&self.device)).transpose()?.unwrap_or_default();
        let mut tails = tails.chunks_exact(CHUNK_BYTES as usize);
        let layers = self.layers.into_iter().map(|Layer { hasher, bytes }| {
            let tail = tails.next().map_or(&[][..], |tail| &tail[..tail_bytes(bytes) as usize]);
            hasher.finish(tail).map_err(Error::wrap)
        });
        layers.collect()
    }

    /// The next bytes of a layer's tensor, which lie at `at`.
    fn run(&mut self, layer: usize, (at, bytes): (At<u8>, u64), out: u64) -> Result<Run> {
        if bytes > Run::MOST_BYTES {
            bail!("{bytes} bytes of one layer are more than are hashed at once")
        }
        let tails = match &self.tails {
            Some(tails) => tails,
            None => {
                let bytes = self.layers.len() * CHUNK_BYTES as usize;
                self.tails.insert(Array::scratch(&self.device, bytes)?)
            }
        };
        let tail = tails.at().skip(layer as u64 * CHUNK_BYTES);
        let before = self.layers[layer].bytes;
        self.layers[layer].bytes += bytes;
        Ok(Run { at, before, bytes, tail, out })
    }

    /// Takes note of the chaining values of these chunks of a layer.
    fn take(
        &mut self,
        layer: usize,
        chunks: Range<u64>,
        values: &mut std::slice::ChunksExact<'_, u32>,
    ) -> Result<()> {
        for height in subtree_heights(chunks, HEIGHT) {
            let Some(words) = values.next() else { bail!("a chaining value is missing") };
            let mut bytes = [0; VALUE_BYTES as usize];
            for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
                *bytes = word.to_le_bytes();
            }
            self.layers[layer].hasher.push(height, ChainingValue::from_bytes(bytes)).map_err(Error::wrap)?;
        }
        Ok(())
    }
}

/// Bytes of outputs that wait until they are hashed together. The layers of a decoding step are small, and a launch for each
/// would cost more than the hashing.
const MOST_WAITING: usize = 16 << 20;

/// What of a batch is hashed, and whose the chaining values are that this gives.
#[derive(Default)]
pub(crate) struct BatchRuns {
    /// Values that all runs so far give.
    taken: u64,
    /// Runs that are not launched yet, and how many bytes they have.
    runs: Vec<Run>,
    waiting: usize,
    /// Job, layer, and the chunks whose values these are, in order.
    given: Vec<(usize, usize, Range<u64>)>,
}

impl BatchRuns {
    /// Adds a layer's output, which lies at `at`: of each job some bytes.
    pub(crate) fn layer<'a>(
        &mut self,
        layer: usize,
        at: At<u8>,
        jobs: impl Iterator<Item = (usize, &'a mut LayerHashers, Range<usize>)>,
    ) -> Result<()> {
        for (job, hashers, bytes) in jobs.filter(|(.., bytes)| !bytes.is_empty()) {
            let part = at.skip(bytes.start as u64);
            let run = hashers.run(layer, (part, bytes.len() as u64), self.taken)?;
            self.taken += run.values();
            self.given.push((job, layer, run.chunks()));
            self.runs.push(run);
            self.waiting += bytes.len();
        }
        Ok(())
    }

    /// Values that all runs give.
    pub(crate) fn values(&self) -> usize {
        self.taken as usize
    }

    /// What the device is told of the runs that are not launched.
    pub(crate) fn words(&self) -> Vec<u64> {
        self.runs.iter().flat_map(Run::words).collect()
    }

    /// Hands the values out.
    pub(crate) fn hand_out<J>(
        self,
        words: &[u32],
        jobs: &mut [J],
        hashers: impl Fn(&mut J) -> Option<&mut LayerHashers>,
    ) -> Result<()> {
        let mut values = words.chunks_exact(VALUE_WORDS);
        for (job, layer, chunks) in self.given {
            let Some(hashers) = jobs.get_mut(job).and_then(&hashers) else {
                bail!("job {job} is not hashed on the device")
            };
            hashers.take(layer, chunks, &mut values)?;
        }
        Ok(())
    }
}

/// The chaining values that a batch gives, all its layers together.
pub(crate) struct BatchHashes {
    device: Device,
    values: Array<u32>,
    room: u64,
    runs: BatchRuns,
    /// The outputs that runs lie in that are not launched yet.
    outputs: Vec<Tensor>,
}

impl BatchHashes {
    /// Room for so many values.
    pub(crate) fn new(device: &Device, room: u64) -> Result<Self> {
        let values = Array::scratch(device, room as usize * VALUE_WORDS)?;
        let (device, runs, outputs) = (device.clone(), BatchRuns::default(), Vec::new());
        Ok(Self { device, values, room, runs, outputs })
    }

    /// Hashes a layer's output, now or with those of the layers behind it: of each job some bytes. Waits for nothing.
    pub(crate) fn layer<'a>(
        &mut self,
        layer: usize,
        output: Tensor,
        jobs: impl Iterator<Item = (usize, &'a mut LayerHashers, Range<usize>)>,
    ) -> Result<()> {
        self.runs.layer(layer, address(&output)?, jobs)?;
        if self.runs.taken > self.room {
            bail!("{} chaining values, where room is for {}", self.runs.taken, self.room)
        }
        self.outputs.push(output);
        if self.runs.waiting < MOST_WAITING { Ok(()) } else { self.launch() }
    }

    /// Hashes what waits.
    fn launch(&mut self) -> Result<()> {
        if self.runs.runs.is_empty() {
            return Ok(());
        }
        let words = Array::upload(&self.device, &self.runs.words())?;
        // SAFETY: the runs lie in the outputs, which are kept until here, and no two are of one tensor; tails belong to their
        // hashers, and there is room for all values.
        unsafe { self.device.launch(hash(&self.runs.runs, words.at(), self.values.at())) }?;
        self.runs.runs.clear();
        self.runs.waiting = 0;
        self.outputs.clear();
        Ok(())
    }

    /// Waits for the values and hands them out.
    pub(crate) fn finish<J>(
        mut self,
        jobs: &mut [J],
        hashers: impl Fn(&mut J) -> Option<&mut LayerHashers>,
    ) -> Result<()> {
        self.launch()?;
        let words = self.values.download(&self.device)?;
        self.runs.hand_out(&words, jobs, hashers)
    }
}

/// Where a tensor on a device lies.
pub(super) fn address(tensor: &Tensor) -> Result<At<u8>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { bail!("a tensor on a device is hashed there") };
    Ok(At::new(match tensor.dtype() {
        DType::U32 => elements::<u32>(storage, layout)?.0.address(),
        _ => elements::<f32>(storage, layout)?.0.address(),
    }))
}
