//! Running a batch through the layers, while an observer watches.

use candle_core::Tensor;
use gainsay_program::{JobField, ValidatedModel};

use crate::batch::Batch;
use crate::error::RunError;
use crate::fault::Fault;
use crate::kernels::Kernels;
use crate::ops::{Value, from_floats, from_indices, read_floats};
use crate::plan::{LayerPlan, Source, Step};

/// What a run is for.
pub(crate) trait Observer {
    /// Whether this layer's ops are to be shown one by one.
    fn watches_ops(&self, layer: u32) -> bool;
    /// The stored output of an op of a layer that is watched.
    fn op(&mut self, batch: &Batch, layer: u32, op: usize, output: &[f32]);
    /// The output of a layer, watched or not. The run goes on if this says so.
    fn layer(&mut self, batch: &Batch, layer: u32, output: &[f32]) -> Next;
}

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// With the next layer.
    Layer,
    /// With the next batch.
    Batch,
}

/// A model's layers, ready to run.
pub(crate) struct Executor<'a> {
    pub(crate) model: &'a ValidatedModel,
    pub(crate) kernels: Kernels,
    pub(crate) plans: &'a [LayerPlan],
    pub(crate) fault: Option<&'a Fault>,
}

impl Executor<'_> {
    /// Runs one batch until the last layer, or until the observer has seen enough.
    pub(crate) fn run(&self, batch: &Batch, observer: &mut impl Observer) -> Result<(), RunError> {
        let mut input = None;
        for (layer, plan) in (0..).zip(self.plans) {
            let output = self.layer(batch, layer, plan, input.as_ref(), observer)?;
            if read_floats(output.tensor(), |output| observer.layer(batch, layer, output))? == Next::Batch {
                return Ok(());
            }
            input = Some(output);
        }
        Ok(())
    }

    fn layer(
        &self,
        batch: &Batch,
        layer: u32,
        plan: &LayerPlan,
        input: Option<&Value>,
        observer: &mut impl Observer,
    ) -> Result<Value, RunError> {
        let watched = observer.watches_ops(layer);
        let struck = self.fault.filter(|fault| fault.layer() == layer);
        let steps = if watched || struck.is_some() { &plan.by_op } else { &plan.fused };
        let mut outputs: Vec<Option<Value>> = vec![None; plan.by_op.len()];
        for step in steps {
            let mut output = self.step(batch, step, input, &outputs)?;
            if let Some(fault) = struck {
                output = self.corrupt(fault, batch, layer, step.output, input, output)?;
            }
            if watched {
                read_floats(output.tensor(), |floats| observer.op(batch, layer, step.output, floats))?;
            }
            outputs[step.output] = Some(output);
            for &forgotten in &step.last_uses {
                outputs[forgotten] = None;
            }
        }
        Ok(outputs.pop().flatten().expect("the last op's output stays"))
    }

    fn step(
        &self,
        batch: &Batch,
        step: &Step,
        layer_input: Option<&Value>,
        outputs: &[Option<Value>],
    ) -> Result<Value, RunError> {
        let columns = (step.inputs.iter())
            .map(|&source| match source {
                Source::Job(field) => job_column(batch, field).map(|column| Some(Value::new(column))),
                Source::LayerInput | Source::Op(_) => Ok(None),
            })
            .collect::<candle_core::Result<Vec<_>>>()?;
        let inputs: Vec<&Value> = (step.inputs.iter().zip(&columns))
            .map(|(&source, column)| match source {
                Source::Op(op) => outputs[op].as_ref(),
                Source::LayerInput => layer_input,
                Source::Job(_) => column.as_ref(),
            })
            .map(|tensor| tensor.expect("a validated program reads what is there, and last uses keep it"))
            .collect();
        Ok(step.operator.run(self.kernels, batch, &inputs)?)
    }

    /// The output of an op as the fault leaves it.
    fn corrupt(
        &self,
        fault: &Fault,
        batch: &Batch,
        layer: u32,
        op: usize,
        layer_input: Option<&Value>,
        output: Value,
    ) -> Result<Value, RunError> {
        let is_last = op + 1 == self.model.ops(layer).len();
        if let (Fault::SkipLayer { .. }, true, Some(input)) = (fault, is_last, layer_input) {
            return Ok(input.clone());
        }
        if !fault.strikes(layer, op) {
            return Ok(output);
        }
        let kind = self.model.output_type(layer, op as u32).expect("the op that has just run exists");
        let mut floats = read_floats(output.tensor(), <[f32]>::to_vec)?;
        fault.flip(batch, kind.space, kind.width as usize, &mut floats);
        Ok(Value::new(from_floats(floats, output.tensor().dims2()?)?))
    }
}

fn job_column(batch: &Batch, field: JobField) -> candle_core::Result<Tensor> {
    match field {
        JobField::Ids => from_indices(batch.ids()),
        JobField::Positions => from_indices(batch.positions()),
        JobField::TypeIds => from_indices(&vec![0; batch.tokens()]),
    }
}
