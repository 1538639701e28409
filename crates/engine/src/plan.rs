//! How the ops of a layer are run: in which steps, what is fused, what can be forgotten when.

use gainsay_program::{JobField, Op, OpKind, Operand};

use crate::kernels::{Binary, Unary};
use crate::ops::{Follow, Operator};

/// Where a step finds an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The layer's input.
    LayerInput,
    /// The output of an op of the layer.
    Op(usize),
    /// A column of the job.
    Job(JobField),
}

/// One operator call.
pub(crate) struct Step {
    /// What is called.
    pub(crate) operator: Operator,
    /// With what.
    pub(crate) inputs: Vec<Source>,
    /// The op whose output it computes.
    pub(crate) output: usize,
    /// Ops whose outputs no later step reads.
    pub(crate) last_uses: Vec<usize>,
    /// What a device does for later steps in this one.
    #[cfg(feature = "cuda")]
    pub(crate) ahead: crate::cuda::Ahead,
}

impl Step {
    fn new(operator: Operator, inputs: Vec<Source>, output: usize) -> Self {
        Self {
            operator,
            inputs,
            output,
            last_uses: Vec::new(),
            #[cfg(feature = "cuda")]
            ahead: crate::cuda::Ahead::default(),
        }
    }
}

/// The steps of a layer, twice.
pub(crate) struct LayerPlan {
    /// One step per op: every op's output exists.
    pub(crate) by_op: Vec<Step>,
    /// Linear maps fused with what follows: fewer outputs exist. Those that do are the same.
    pub(crate) fused: Vec<Step>,
}

impl LayerPlan {
    /// Plans a layer. `prepare` makes the operator of the op with an index; it is called for each op and [`Follow`] that is
    /// needed.
    pub(crate) fn new<E>(
        ops: &[Op],
        mut prepare: impl FnMut(usize, Follow) -> Result<Operator, E>,
    ) -> Result<Self, E> {
        let by_op =
            (0..ops.len()).map(|output| plain_step(ops, output, &mut prepare)).collect::<Result<_, E>>()?;
        let fusions: Vec<Option<Fusion>> = find_fusions(ops);
        let absorbed = |op: usize| fusions.iter().flatten().any(|fusion| fusion.linear == op);
        let fused = (0..ops.len())
            .filter(|&output| !absorbed(output))
            .map(|output| match &fusions[output] {
                Some(fusion) => fused_step(ops, output, fusion, &mut prepare),
                None => plain_step(ops, output, &mut prepare),
            })
            .collect::<Result<_, E>>()?;
        #[cfg(feature = "cuda")]
        let fused = crate::cuda::look_ahead(fused);
        Ok(Self { by_op: with_last_uses(by_op), fused: with_last_uses(fused) })
    }
}

/// A linear map that is computed in the step of the only op that reads it.
struct Fusion {
    linear: usize,
    follow: Follow,
    /// The other operand of [`Follow::Binary`].
    other: Option<Source>,
}

/// For each op the linear map that its step absorbs.
fn find_fusions(ops: &[Op]) -> Vec<Option<Fusion>> {
    let reads = |op: usize| {
        let operands = ops.iter().flat_map(|op| &op.inputs);
        operands.filter(|&&operand| operand == Operand::Op(op as u32)).count()
    };
    let linear = |operand: &Operand| match *operand {
        Operand::Op(op) if matches!(ops[op as usize].kind, OpKind::Linear(_)) => {
            (reads(op as usize) == 1).then_some(op as usize)
        }
        _ => None,
    };
    let fusion = |op: &Op| match &op.inputs[..] {
        [x] => {
            let follow = Follow::Unary(unary(&op.kind)?);
            linear(x).map(|linear| Fusion { linear, follow, other: None })
        }
        [a, b] => {
            let follow = Follow::Binary(binary(&op.kind)?);
            let (linear, other) = linear(a).map(|a| (a, b)).or_else(|| linear(b).map(|b| (b, a)))?;
            Some(Fusion { linear, follow, other: source(*other) })
        }
        _ => None,
    };
    ops.iter().map(fusion).collect()
}

/// The formula of an op of one operand that is elementwise.
pub(crate) fn unary(kind: &OpKind) -> Option<Unary> {
    match kind {
        OpKind::Gelu => Some(Unary::Gelu),
        OpKind::Silu => Some(Unary::Silu),
        OpKind::CastBf16 => Some(Unary::RoundBf16),
        _ => None,
    }
}

/// The formula of an op of two operands that is elementwise. Neither depends on their order.
pub(crate) fn binary(kind: &OpKind) -> Option<Binary> {
    match kind {
        OpKind::Add => Some(Binary::Add),
        OpKind::Mul => Some(Binary::Mul),
        _ => None,
    }
}

fn source(operand: Operand) -> Option<Source> {
    match operand {
        Operand::LayerInput => Some(Source::LayerInput),
        Operand::Op(op) => Some(Source::Op(op as usize)),
        Operand::Job(field) => Some(Source::Job(field)),
        Operand::Weight(_) => None,
    }
}

fn sources(op: &Op) -> Vec<Source> {
    op.inputs.iter().filter_map(|&operand| source(operand)).collect()
}

fn plain_step<E>(
    ops: &[Op],
    output: usize,
    prepare: &mut impl FnMut(usize, Follow) -> Result<Operator, E>,
) -> Result<Step, E> {
    let (operator, inputs) = (prepare(output, Follow::Nothing)?, sources(&ops[output]));
    Ok(Step::new(operator, inputs, output))
}

fn fused_step<E>(
    ops: &[Op],
    output: usize,
    fusion: &Fusion,
    prepare: &mut impl FnMut(usize, Follow) -> Result<Operator, E>,
) -> Result<Step, E> {
    let linear = &ops[fusion.linear];
    let mut inputs = sources(linear);
    inputs.extend(fusion.other);
    let operator = prepare(fusion.linear, fusion.follow)?;
    Ok(Step::new(operator, inputs, output))
}

/// Notes at each step what no later step reads. The last step's output is the layer's and stays.
fn with_last_uses(mut steps: Vec<Step>) -> Vec<Step> {
    let last_step = steps.len() - 1;
    let outputs: Vec<usize> = steps[..last_step].iter().map(|step| step.output).collect();
    for (produced, output) in outputs.into_iter().enumerate() {
        let last = steps.iter().rposition(|step| step.inputs.contains(&Source::Op(output)));
        steps[last.unwrap_or(produced)].last_uses.push(output);
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use gainsay_program::LinearKind;

    use super::*;

    fn op(kind: OpKind, inputs: &[Operand]) -> Op {
        Op { kind, inputs: inputs.to_vec() }
    }

    fn linear(input: Operand) -> Op {
        op(OpKind::Linear(LinearKind::F32), &[input, Operand::Weight(0)])
    }

    fn plan(ops: &[Op]) -> LayerPlan {
        let prepare = |op: usize, follow| match (&ops[op].kind, follow) {
            (OpKind::Linear(_), Follow::Nothing) => Operator::Normalize,
            (OpKind::Linear(_), Follow::Unary(formula)) => Operator::Unary(formula),
            (OpKind::Linear(_), Follow::Binary(formula)) => Operator::Binary(formula),
            _ => Operator::MeanPool,
        };
        let Ok(plan) = LayerPlan::new(ops, |op, follow| Ok::<_, Infallible>(prepare(op, follow)));
        plan
    }

    fn outputs(steps: &[Step]) -> Vec<(usize, Vec<Source>, Vec<usize>)> {
        steps.iter().map(|step| (step.output, step.inputs.clone(), step.last_uses.clone())).collect()
    }

    #[test]
    fn a_linear_map_is_fused_with_its_only_reader() {
        let ops = [
            linear(Operand::LayerInput),
            op(OpKind::Gelu, &[Operand::Op(0)]),
            linear(Operand::Op(1)),
            op(OpKind::Add, &[Operand::LayerInput, Operand::Op(2)]),
            op(OpKind::Normalize, &[Operand::Op(3)]),
        ];
        let plan = plan(&ops);
        assert_eq!(plan.by_op.len(), 5);
        let input = Source::LayerInput;
        let expected = [
            (1, vec![input], vec![]),
            (3, vec![Source::Op(1), input], vec![1]),
            (4, vec![Source::Op(3)], vec![3]),
        ];
        assert_eq!(outputs(&plan.fused), expected);
        assert!(matches!(plan.fused[0].operator, Operator::Unary(Unary::Gelu)));
        assert!(matches!(plan.fused[1].operator, Operator::Binary(Binary::Add)));
    }

    #[test]
    fn a_linear_map_with_two_readers_or_none_stays() {
        let twice = [linear(Operand::LayerInput), op(OpKind::Add, &[Operand::Op(0), Operand::Op(0)])];
        assert_eq!(outputs(&plan(&twice).fused)[0], (0, vec![Source::LayerInput], vec![]));
        let last = [op(OpKind::Gelu, &[Operand::LayerInput]), linear(Operand::Op(0))];
        assert_eq!(plan(&last).fused.len(), 2);
    }

    #[test]
    fn of_two_linear_maps_one_is_fused_into_their_sum() {
        let ops = [
            linear(Operand::LayerInput),
            linear(Operand::LayerInput),
            op(OpKind::Add, &[Operand::Op(0), Operand::Op(1)]),
        ];
        let fused = outputs(&plan(&ops).fused);
        let input = Source::LayerInput;
        assert_eq!(fused, [(1, vec![input], vec![]), (2, vec![input, Source::Op(1)], vec![1])]);
    }
}
