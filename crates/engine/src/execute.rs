//! Running a batch through the layers, while an observer watches.

use candle_core::Tensor;
use gainsay_program::{JobField, RowSpace, ValidatedModel};

use crate::batch::{Batch, Part};
use crate::error::RunError;
use crate::fault::{Fault, Strike};
use crate::kernels::{KvCache, KvLayout};
use crate::machine::Machine;
use crate::ops::{Context, Value, from_indices, from_words, read_bytes, read_words};
use crate::plan::{LayerPlan, Source, Step};

/// What a run is for.
pub(crate) trait Observer {
    /// Whether this layer's ops are to be shown one by one.
    fn watches_ops(&self, layer: u32) -> bool;
    /// The stored output of an op of a layer that is watched.
    fn op(&mut self, batch: &Batch<'_>, layer: u32, op: usize, output: &[u8]);
    /// The output of a layer, watched or not. The run goes on if this says so.
    fn layer(&mut self, batch: &Batch<'_>, layer: u32, output: &Tensor) -> candle_core::Result<Next>;
    /// What takes the results of a step as a whole, where nothing else is to be seen.
    #[cfg(feature = "cuda")]
    fn steps(&mut self) -> Option<&mut dyn crate::cuda::StepRecorder> {
        None
    }
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
#[derive(Clone, Copy)]
pub(crate) struct Executor<'a> {
    pub(crate) model: &'a ValidatedModel,
    pub(crate) machine: &'a Machine,
    pub(crate) plans: &'a [LayerPlan],
    pub(crate) layout: &'a KvLayout,
    #[cfg(feature = "cuda")]
    pub(crate) graphs: &'a crate::cuda::Graphs,
}

/// Where a step runs.
struct Place<'a, 'b> {
    batch: &'a Batch<'b>,
    layer: u32,
    input: Option<&'a Value>,
}

impl Executor<'_> {
    /// Runs one batch until the last layer, or until the observer has seen enough. `caches` hold what the sequences'
    /// rows before have left, and are left with these rows too.
    pub(crate) fn run(
        &self,
        batch: &Batch<'_>,
        caches: &mut [KvCache],
        observer: &mut impl Observer,
    ) -> Result<(), RunError> {
        if !self.layout.is_empty() {
            for segment in batch.segments() {
                caches[segment.cache].grow(segment.first + segment.rows.len())?;
            }
        }
        #[cfg(feature = "cuda")]
        if let (Machine::Cuda(device), Some(recorder)) = (self.machine, observer.steps())
            && self.graphs.step(self, device, (batch, caches), recorder)?
        {
            return Ok(());
        }
        self.machine.stage(batch, caches)?;
        self.layers(batch, caches, observer)
    }

    /// Runs a batch that is staged through the layers.
    pub(crate) fn layers(
        &self,
        batch: &Batch<'_>,
        caches: &mut [KvCache],
        observer: &mut impl Observer,
    ) -> Result<(), RunError> {
        let mut input: Option<Value> = None;
        for (layer, plan) in (0..).zip(self.plans) {
            let place = Place { batch, layer, input: input.as_ref() };
            let output = self.layer(&place, plan, caches, observer)?;
            if observer.layer(batch, layer, output.tensor())? == Next::Batch {
                return Ok(());
            }
            input = Some(output);
        }
        Ok(())
    }

    fn layer(
        &self,
        place: &Place<'_, '_>,
        plan: &LayerPlan,
        caches: &mut [KvCache],
        observer: &mut impl Observer,
    ) -> Result<Value, RunError> {
        let watched = observer.watches_ops(place.layer);
        let struck = struck_parts(self.model, place);
        let steps = if watched || !struck.is_empty() { &plan.by_op } else { &plan.fused };
        let mut outputs: Vec<Option<Value>> = vec![None; plan.by_op.len()];
        for step in steps {
            let mut output = self.step(place, step, caches, &outputs)?;
            for (part, strike) in &struck {
                output = self.corrupt(place, (part, *strike), step.output, output)?;
            }
            if watched {
                let shown = |bytes: &[u8]| observer.op(place.batch, place.layer, step.output, bytes);
                read_bytes(output.tensor(), shown)?;
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
        place: &Place<'_, '_>,
        step: &Step,
        caches: &mut [KvCache],
        outputs: &[Option<Value>],
    ) -> Result<Value, RunError> {
        let kind = self.output_type(place.layer, step.output);
        if place.batch.rows(kind.0) == 0 {
            return Ok(Value::new(from_words(Vec::new(), (0, kind.1), self.machine.tensors())?));
        }
        let columns = (step.inputs.iter())
            .map(|&source| match source {
                Source::Job(field) => {
                    self.job_column(place.batch, field).map(|column| Some(Value::new(column)))
                }
                Source::LayerInput | Source::Op(_) => Ok(None),
            })
            .collect::<candle_core::Result<Vec<_>>>()?;
        let inputs: Vec<&Value> = (step.inputs.iter().zip(&columns))
            .map(|(&source, column)| match source {
                Source::Op(op) => outputs[op].as_ref(),
                Source::LayerInput => place.input,
                Source::Job(_) => column.as_ref(),
            })
            .map(|tensor| tensor.expect("a validated program reads what is there, and last uses keep it"))
            .collect();
        #[cfg(feature = "cuda")]
        if let Machine::Cuda(_) = self.machine
            && let Some(output) = step.ahead.run(&step.operator, &inputs)?
        {
            return Ok(output);
        }
        let context = Context { kernels: self.machine.kernels(), batch: place.batch, caches };
        Ok(step.operator.run(context, &inputs)?)
    }

    /// An op's output as a fault leaves it in one job.
    fn corrupt(
        &self,
        place: &Place<'_, '_>,
        (part, strike): (&Part, Strike),
        op: usize,
        output: Value,
    ) -> Result<Value, RunError> {
        let is_last = op + 1 == self.model.ops(place.layer).len();
        let (space, width) = self.output_type(place.layer, op);
        let mut words = read_words(output.tensor(), <[u32]>::to_vec)?;
        if let Some(fault) = part.fault.filter(|_| is_last) {
            fault.panic_at(part.rows(space));
        }
        match (strike, place.input) {
            (Strike::Layer(_), Some(input))
                if is_last && matches!(part.fault, Some(Fault::SkipLayer { .. })) =>
            {
                let rows = &part.rows(space).in_batch;
                let columns = rows.start * width..rows.end * width;
                read_words(input.tensor(), |input| {
                    words[columns.clone()].copy_from_slice(&input[columns.clone()]);
                })?;
            }
            (Strike::Op(_, struck), _) if struck == op => {
                if let Some(fault) = part.fault {
                    fault.corrupt(self.model, (place.batch, part), (space, width), &mut words);
                }
            }
            _ => return Ok(output),
        }
        let (rows, width) = output.tensor().dims2()?;
        Ok(Value::new(output.like(words, (rows, width))?))
    }

    /// A column of the batch's jobs.
    fn job_column(&self, batch: &Batch<'_>, field: JobField) -> candle_core::Result<Tensor> {
        #[cfg(feature = "cuda")]
        if matches!(self.machine, Machine::Cuda(_)) {
            return batch.staged()?.column(field);
        }
        match field {
            JobField::Ids => from_indices(batch.ids()),
            JobField::Positions => from_indices(batch.positions()),
            JobField::TypeIds => from_indices(&vec![0; batch.ids().len()]),
        }
    }

    /// Rows and width of an op's output.
    fn output_type(&self, layer: u32, op: usize) -> (RowSpace, usize) {
        let kind = self.model.output_type(layer, op as u32).expect("the program has the op that a plan runs");
        (kind.space, kind.width as usize)
    }
}

/// The parts that a fault strikes in this layer.
fn struck_parts<'p>(model: &ValidatedModel, place: &Place<'p, '_>) -> Vec<(&'p Part, Strike)> {
    let strikes = place.batch.parts().iter().filter_map(|part| Some((part, part.fault?.strike(model)?)));
    strikes.filter(|(_, strike)| strike.layer() == place.layer).collect()
}
