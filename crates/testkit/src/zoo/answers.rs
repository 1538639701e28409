//! Answers to jobs: right ones, and each way to be wrong.

use std::sync::Arc;

use gainsay_api::leases::Lease;
use gainsay_commitment::{PartyId, SecretKey, Signed, TensorCommitment, trace_root};
use gainsay_program::toy::Toy;
use gainsay_program::{Dtype, JobInput, OpPlace, Scope, TensorRef};
use gainsay_protocol::{Claim, TensorData, TraceError, TraceSource};

use crate::{ToyModel, ToyRun, input_of, job_of};

/// What a worker claims, and the run that it shows of it.
pub struct Answer {
    /// Commitments of all layers.
    pub layers: Vec<TensorCommitment>,
    /// The output.
    pub output: Vec<u8>,
    /// What it defends the claim with.
    pub run: Box<dyn TraceSource + Send>,
}

impl Answer {
    /// What a run gave, as it is.
    #[must_use]
    pub fn of(run: ToyRun) -> Self {
        Self { layers: run.layers(), output: run.answer().to_vec(), run: Box::new(run) }
    }

    /// The right answer.
    #[must_use]
    pub fn right(model: &Arc<ToyModel>, lease: &Lease) -> Self {
        Self::of(ToyRun::new(model, &input_of(lease), |_, _| {}))
    }

    /// One bit of an op's output is flipped, and the run goes on with it.
    #[must_use]
    pub fn flipped(model: &Arc<ToyModel>, lease: &Lease, place: OpPlace) -> Self {
        Self::of(ToyRun::new(model, &input_of(lease), |at, bytes| {
            if at == place {
                bytes[2] ^= 0x40;
            }
        }))
    }

    /// A layer passes its input on.
    #[must_use]
    pub fn skipping(model: &Arc<ToyModel>, lease: &Lease, layer: u32) -> Self {
        let last_op = |layer: u32| model.toy.model.ops(layer).len() as u32 - 1;
        let mut previous = Vec::new();
        Self::of(ToyRun::new(model, &input_of(lease), |at, bytes| {
            if at.op != last_op(at.layer) {
                return;
            }
            if at.layer == layer {
                bytes.copy_from_slice(&previous);
            }
            previous = bytes.to_vec();
        }))
    }

    /// The right output and the right layers, but for one in between, of which it shows another run.
    #[must_use]
    pub fn with_wrong_inner_layer(model: &Arc<ToyModel>, lease: &Lease, layer: u32) -> Self {
        let input = input_of(lease);
        let right = ToyRun::new(model, &input, |_, _| {});
        let wrong = ToyRun::new(model, &input, |at, bytes| {
            if at == OpPlace::in_layer(layer, 0) {
                bytes[2] ^= 0x40;
            }
        });
        let (mut layers, output) = (right.layers(), right.answer().to_vec());
        layers[layer as usize] = wrong.layers()[layer as usize];
        Self { layers, output, run: Box::new(Patched { right, wrong, layer }) }
    }

    /// Runs other tokens than were asked for.
    #[must_use]
    pub fn of_other_input(model: &Arc<ToyModel>, input: &JobInput) -> Self {
        Self::of(ToyRun::new(model, input, |_, _| {}))
    }

    /// Runs the right program on other weights.
    #[must_use]
    pub fn with_weights(model: &Arc<ToyModel>, lease: &Lease, change: impl Fn(usize, &mut [u8])) -> Self {
        let Toy { model: validated, mut weights } = model.toy.clone();
        for (index, bytes) in weights.iter_mut().enumerate() {
            change(index, bytes);
        }
        let other = ToyModel { toy: Toy { model: validated, weights }, tokenizer: model.tokenizer.clone() };
        Self::of(ToyRun::new(&Arc::new(other), &input_of(lease), |_, _| {}))
    }

    /// The weights of a larger type, rounded to fewer bits: a cheaper model under the same name.
    #[must_use]
    pub fn with_fewer_bits(model: &Arc<ToyModel>, lease: &Lease) -> Self {
        let dtypes: Vec<Dtype> =
            model.toy.model.manifest().tensors.iter().map(|tensor| tensor.dtype).collect();
        Self::with_weights(model, lease, |index, bytes| {
            if dtypes[index] == Dtype::F32 {
                // Sixteen bits of a number of thirty-two are all that a cheaper type would keep.
                bytes.as_chunks_mut::<4>().0.iter_mut().for_each(|number| number[..2].fill(0));
            }
        })
    }

    /// The claim that a worker makes of it under a lease.
    ///
    /// # Panics
    /// If there are no layers.
    #[must_use]
    pub fn claim(
        &self,
        model: &ToyModel,
        coordinator: PartyId,
        lease: &Lease,
        worker: &SecretKey,
    ) -> Signed<Claim> {
        let claim = Claim {
            coordinator,
            job: lease.job_id,
            lease: lease.id,
            model: lease.model,
            arithmetic: model.toy.model.manifest().arithmetic,
            input: job_of(lease).commitment(),
            output: self.output.clone(),
            trace: trace_root(&self.layers).expect("a model has layers"),
            layers: self.layers.clone(),
            worker: worker.id(),
        };
        Signed::sign(claim, worker)
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("layers", &self.layers).finish_non_exhaustive()
    }
}

/// A run that shows another one's ops in a single layer.
struct Patched {
    right: ToyRun,
    wrong: ToyRun,
    layer: u32,
}

impl TraceSource for Patched {
    fn tensor(&mut self, tensor: TensorRef) -> Result<TensorData, TraceError> {
        let patched = match tensor {
            TensorRef::Op(OpPlace { layer, scope: Scope::Layer | Scope::Virtual { .. }, .. })
            | TensorRef::LayerOutput(layer) => layer == self.layer,
            _ => false,
        };
        if patched { self.wrong.tensor(tensor) } else { self.right.tensor(tensor) }
    }
}
