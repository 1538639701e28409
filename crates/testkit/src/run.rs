//! Running a toy model: what a worker claims, and what a challenger compares it with.

use std::collections::BTreeMap;
use std::sync::Arc;

use gainsay_api::leases::Lease;
use gainsay_commitment::{Canonical, PartyId, SecretKey, Signed, TensorCommitment, trace_root};
use gainsay_program::reference::{self, Trace};
use gainsay_program::{JobInput, OpPlace, Scope, TensorRef};
use gainsay_protocol::{Claim, Job, TensorData, TraceError, TraceSource};

use crate::ToyModel;

/// One run of a job by the reference executor, with every tensor at hand.
#[derive(Debug)]
pub struct ToyRun {
    model: Arc<ToyModel>,
    input: JobInput,
    trace: Trace,
    tensors: BTreeMap<TensorRef, TensorData>,
}

impl ToyRun {
    /// Runs the job. `tamper` may falsify any op's output before later ops read it.
    ///
    /// # Panics
    /// If the job does not fit the model.
    #[must_use]
    pub fn new(model: &Arc<ToyModel>, input: &JobInput, tamper: impl FnMut(OpPlace, &mut [u8])) -> Self {
        let toy = &model.toy;
        let trace =
            reference::run_with(&toy.model, &toy.weights, input, tamper).expect("the job fits the model");
        let mut tensors = BTreeMap::new();
        for (layer, ops) in (0..).zip(trace.layers()) {
            for (op, bytes) in (0..).zip(ops) {
                let data = TensorData::new(bytes.clone());
                tensors.insert(TensorRef::LayerOutput(layer), data.clone());
                tensors.insert(TensorRef::Op(OpPlace::in_layer(layer, op)), data);
            }
        }
        for (index, bytes) in (0..).zip(&toy.weights) {
            tensors.insert(TensorRef::Weight(index), TensorData::new(bytes.clone()));
        }
        Self { model: Arc::clone(model), input: input.clone(), trace, tensors }
    }

    /// The commitments of all layer outputs, in order.
    #[must_use]
    pub fn layers(&self) -> Vec<TensorCommitment> {
        let layers = 0..self.model.toy.model.layer_count();
        layers.map(|layer| self.tensors[&TensorRef::LayerOutput(layer)].commitment()).collect()
    }

    /// The last layer's output.
    #[must_use]
    pub fn answer(&self) -> &[u8] {
        self.trace.answer()
    }

    /// The claim that a worker makes of this run under a lease.
    ///
    /// # Panics
    /// If the lease's job does not decode.
    #[must_use]
    pub fn claim(&self, coordinator: PartyId, lease: &Lease, worker: &SecretKey) -> Signed<Claim> {
        let job = job_of(lease);
        let layers = self.layers();
        let claim = Claim {
            coordinator,
            job: lease.job_id,
            lease: lease.id,
            model: lease.model,
            arithmetic: self.model.toy.model.manifest().arithmetic,
            input: job.commitment(),
            output: self.answer().to_vec(),
            trace: trace_root(&layers).expect("a model has layers"),
            layers,
            worker: worker.id(),
        };
        Signed::sign(claim, worker)
    }
}

/// What the program runs on in the embedding that a lease is about.
///
/// # Panics
/// If the job does not decode, or is no embedding.
#[must_use]
pub fn input_of(lease: &Lease) -> JobInput {
    job_of(lease).embedding_input().expect("the lease is about an embedding").clone()
}

/// The job that a lease is about.
///
/// # Panics
/// If it does not decode.
#[must_use]
pub fn job_of(lease: &Lease) -> Job {
    Job::from_bytes(&lease.job.0).expect("the coordinator leases canonical jobs")
}

impl TraceSource for ToyRun {
    fn tensor(&mut self, tensor: TensorRef) -> Result<TensorData, TraceError> {
        if let Some(data) = self.tensors.get(&tensor) {
            return Ok(data.clone());
        }
        let missing = || TraceError::new(tensor, "the run has no such tensor");
        let TensorRef::Op(OpPlace { layer, scope: Scope::Virtual { op, element }, .. }) = tensor else {
            return Err(missing());
        };
        let model = &self.model.toy.model;
        let outputs = reference::virtual_ops(model, &self.input, &self.trace, layer, op, element);
        let scope = Scope::Virtual { op, element };
        for (op, bytes) in (0..).zip(outputs.ok_or_else(missing)?) {
            self.tensors.insert(TensorRef::Op(OpPlace { layer, scope, op }), TensorData::new(bytes));
        }
        self.tensors.get(&tensor).cloned().ok_or_else(missing)
    }
}
