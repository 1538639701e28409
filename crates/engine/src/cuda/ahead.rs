//! What a step does for later ones: several kernels that would each start and end for little work are one.
//!
//! Int8 linear maps that read the same tensor (queries, keys and values of a block) are computed by one launch, where there are
//! few rows; a norm quantizes its output for the maps that read it. What comes out is the same, and is kept with the tensor that
//! it was made of until its step comes.

use std::sync::Arc;

use candle_core::Result;

use super::ops;
use crate::kernels::{Int8Weights, Quantization};
use crate::ops::{Follow, Operator, Value};
use crate::plan::{Source, Step};

/// Most maps of one launch.
const MOST_MAPS: usize = 3;

/// What a step does besides.
#[derive(Default)]
pub(crate) struct Ahead {
    /// The step's own map and others of the same input.
    maps: Vec<(Arc<Int8Weights>, Follow)>,
    /// How the output is quantized for the maps that read it.
    quantized: Option<Quantization>,
}

/// An int8 map that needs no second tensor, and what reads it.
fn map(step: &Step) -> Option<(&Arc<Int8Weights>, Follow)> {
    match &step.operator {
        Operator::LinearInt8(weights, follow) if !matches!(follow, Follow::Binary(_)) => {
            Some((weights, *follow))
        }
        _ => None,
    }
}

/// Looks for what the steps of a layer may do for later ones.
pub(crate) fn look_ahead(mut steps: Vec<Step>) -> Vec<Step> {
    let found = what_they_do(&steps);
    steps.iter_mut().zip(found).for_each(|(step, ahead)| step.ahead = ahead);
    steps
}

fn what_they_do(steps: &[Step]) -> Vec<Ahead> {
    let mut all: Vec<Ahead> = steps.iter().map(|_| Ahead::default()).collect();
    let mut joined = vec![false; steps.len()];
    for (index, step) in steps.iter().enumerate() {
        if matches!(step.operator, Operator::LayerNorm { .. } | Operator::RmsNorm { .. }) {
            let of_output = |later: &&Step| later.inputs.first() == Some(&Source::Op(step.output));
            let reader = steps[index + 1..].iter().filter(of_output).find_map(|step| match &step.operator {
                Operator::LinearInt8(weights, _) => Some(weights.quantization()),
                _ => None,
            });
            all[index].quantized = reader;
        }
        let Some((weights, follow)) = map(step).filter(|_| !joined[index]) else { continue };
        let mut maps = vec![(Arc::clone(weights), follow)];
        for (other, later) in steps.iter().enumerate().skip(index + 1) {
            if let Some((others, follow)) = map(later)
                && maps.len() < MOST_MAPS
                && later.inputs.first() == step.inputs.first()
                && others.quantization() == weights.quantization()
            {
                maps.push((Arc::clone(others), follow));
                joined[other] = true;
            }
        }
        if maps.len() > 1 {
            all[index].maps = maps;
        }
    }
    all
}

impl Ahead {
    /// Runs a step with what it does besides; `None` where it does nothing, and is run as any other.
    pub(crate) fn run(&self, operator: &Operator, inputs: &[&Value]) -> Result<Option<Value>> {
        let Some(input) = inputs.first() else { return Ok(None) };
        match operator {
            Operator::LayerNorm { weight, bias, eps } => match self.quantized {
                Some(of) => {
                    ops::norm_and_quantize((weight.device()?, Some(bias.device()?), *eps), input.tensor(), of)
                }
                None => Ok(None),
            },
            Operator::RmsNorm { weight, eps } => match self.quantized {
                Some(of) => ops::norm_and_quantize((weight.device()?, None, *eps), input.tensor(), of),
                None => Ok(None),
            },
            Operator::LinearInt8(weights, follow) => {
                if let Some(made) = input.take_made(weights, *follow) {
                    return Ok(Some(Value::new(made)));
                }
                if self.maps.is_empty() {
                    return Ok(None);
                }
                let levels = input.levels_on_device(weights.quantization())?;
                let Some(outputs) =
                    ops::linear_int8_together(&self.maps, levels.on_device()?.0, input.tensor())?
                else {
                    return Ok(None);
                };
                for ((weights, follow), output) in self.maps.iter().zip(outputs) {
                    input.put_made(weights, *follow, output);
                }
                Ok(input.take_made(weights, *follow).map(Value::new))
            }
            _ => Ok(None),
        }
    }
}
