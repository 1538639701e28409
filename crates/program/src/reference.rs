//! The reference executor: every element of every op, in plain loops over the scalar arithmetic.
//!
//! It holds a whole run in memory and is as slow as it is simple. Tests of faster executors, of the referee and of
//! disputes take it as the truth; [`run_with`] lets a test falsify an output and carry the falsehood on.

use std::ops::Range;

use gainsay_arithmetic as arithmetic;

use crate::validate::ExpandedElement;
use crate::{
    Dtype, History, JobField, JobInput, LinearKind, Missing, Op, OpKind, OpPlace, Operand, Oracle, Scope,
    Sequence, TensorRef, TensorSpec, ValidatedModel, weights,
};

/// Why a run cannot start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReferenceError {
    /// The job does not fit the model.
    #[error(transparent)]
    Job(#[from] crate::JobError),
    /// A weight is missing, superfluous or of the wrong length.
    #[error("the weights do not have the lengths that the manifest lists")]
    Weights,
}

/// The bytes of every op's output in one run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    layers: Vec<Vec<Vec<u8>>>,
}

impl Trace {
    /// The outputs of all ops of all layers.
    pub fn layers(&self) -> &[Vec<Vec<u8>>] {
        &self.layers
    }

    /// The output of an op of a layer.
    pub fn op(&self, layer: u32, op: u32) -> Option<&[u8]> {
        self.layers.get(layer as usize)?.get(op as usize).map(Vec::as_slice)
    }

    /// The output of a layer.
    pub fn layer_output(&self, layer: u32) -> Option<&[u8]> {
        self.layers.get(layer as usize)?.last().map(Vec::as_slice)
    }

    /// What the submitter gets: the output of the last layer.
    pub fn answer(&self) -> &[u8] {
        self.layers.last().and_then(|ops| ops.last()).expect("a validated program has an op in every layer")
    }
}

/// Runs the model.
pub fn run<W: AsRef<[u8]>>(
    model: &ValidatedModel,
    weights: &[W],
    job: &JobInput,
) -> Result<Trace, ReferenceError> {
    run_with(model, weights, job, |_, _| {})
}

/// Runs the model, handing every op's stored output to `tamper` before a later op reads it. Only ops of layers are
/// handed over. `tamper` sees the place and the bytes.
pub fn run_with<W: AsRef<[u8]>>(
    model: &ValidatedModel,
    weights: &[W],
    job: &JobInput,
    mut tamper: impl FnMut(OpPlace, &mut [u8]),
) -> Result<Trace, ReferenceError> {
    model.check_job(job)?;
    let tensors = &model.manifest().tensors;
    let lengths_fit =
        tensors.iter().map(|spec| spec.shape().bytes()).eq(weights.iter().map(|w| w.as_ref().len() as u64));
    if !lengths_fit {
        return Err(ReferenceError::Weights);
    }
    let weights =
        tensors.iter().zip(weights).map(|(spec, bytes)| Weight::new(spec, bytes.as_ref())).collect();
    let mut run = Run { model, job, weights, layers: Vec::new() };
    for layer in 0..model.layer_count() {
        run.layers.push(Vec::new());
        for (index, op) in model.ops(layer).iter().enumerate() {
            let mut bytes = match op.kind {
                OpKind::Sample => run.sample(op).into_iter().flat_map(u32::to_le_bytes).collect(),
                _ => to_bytes(run.op(op).into_iter().map(arithmetic::store)),
            };
            tamper(OpPlace::in_layer(layer, index as u32), &mut bytes);
            run.layers[layer as usize].push(Output::new(bytes));
        }
    }
    let bytes_of = |outputs: Vec<Output>| outputs.into_iter().map(|output| output.bytes).collect();
    Ok(Trace { layers: run.layers.into_iter().map(bytes_of).collect() })
}

/// The outputs of all ops of the virtual layer of one expanded element, as they follow from the outputs in `trace`;
/// nothing where the element is not expanded.
pub fn virtual_ops(
    model: &ValidatedModel,
    job: &JobInput,
    trace: &Trace,
    layer: u32,
    op: u32,
    element: u64,
) -> Option<Vec<Vec<u8>>> {
    let expanded = model.expanded(job, layer, op, element)?;
    let inputs: Vec<(Vec<f32>, usize)> = (expanded.op.inputs.iter())
        .map(|&operand| {
            let tensor = model.operand_tensor(layer, operand)?;
            let bytes = match tensor {
                TensorRef::Op(place) => trace.op(place.layer, place.op),
                TensorRef::LayerOutput(layer) => trace.layer_output(layer),
                TensorRef::Weight(_) => None,
            }?;
            Some((floats(bytes), model.shape_of(job, tensor)?.width as usize))
        })
        .collect::<Option<_>>()?;
    let outputs = match expanded.op.kind {
        OpKind::Attention { heads, kv_heads, head_dim, scale, .. } => {
            let heads = Heads { dim: head_dim as usize, shared: (heads / kv_heads) as usize };
            virtual_attention(&inputs, &expanded, heads, scale)
        }
        _ => virtual_pooling(&inputs, &expanded),
    };
    Some(outputs)
}

/// How heads share keys and values.
#[derive(Clone, Copy)]
struct Heads {
    /// Columns of a head.
    dim: usize,
    /// Query heads that read the same keys.
    shared: usize,
}

impl Heads {
    /// First column of the keys that the head reads whose first column is `head`.
    fn key(self, head: usize) -> usize {
        head / self.dim / self.shared * self.dim
    }
}

fn virtual_attention(
    inputs: &[(Vec<f32>, usize)],
    expanded: &ExpandedElement<'_>,
    heads: Heads,
    scale: f32,
) -> Vec<Vec<u8>> {
    let [(q, width), (k, key_width), (v, _)] = inputs else {
        unreachable!("inference gives attention three inputs");
    };
    let (row, column) = (expanded.row as usize, expanded.column as usize);
    let head = column / heads.dim * heads.dim;
    let (key_head, value) = (heads.key(head), heads.key(head) + column - head);
    let rows = rows_of(expanded.sequence);
    let column: Vec<f32> = rows.clone().map(|j| arithmetic::canonical(v[j * key_width + value])).collect();
    let query = &q[row * width + head..][..heads.dim];
    let key = |j: usize| &k[j * key_width + key_head..][..heads.dim];
    let score = |j: usize| arithmetic::attention::score(query, key(j), scale);
    let scores: Vec<f32> = rows.map(|j| arithmetic::canonical(score(j))).collect();
    let max = arithmetic::max(&scores);
    let exponential = |&score: &f32| arithmetic::canonical(arithmetic::attention::weight(score, max));
    let exponentials: Vec<f32> = scores.iter().map(exponential).collect();
    let out = arithmetic::store(arithmetic::attention::output(&exponentials, &column));
    vec![to_bytes(column), to_bytes(scores), to_bytes(exponentials), to_bytes([out])]
}

fn virtual_pooling(inputs: &[(Vec<f32>, usize)], expanded: &ExpandedElement<'_>) -> Vec<Vec<u8>> {
    let [(x, width)] = inputs else {
        unreachable!("inference gives pooling one input");
    };
    let value = |j: usize| arithmetic::canonical(x[j * width + expanded.column as usize]);
    let column: Vec<f32> = rows_of(expanded.sequence).map(value).collect();
    let out = arithmetic::store(arithmetic::mean_pool(&column));
    vec![to_bytes(column), to_bytes([out])]
}

/// An oracle over a whole run, and over the virtual layer of one of its elements.
#[derive(Clone, Debug)]
pub struct TraceOracle<'a, W> {
    /// The outputs of all ops.
    pub trace: &'a Trace,
    /// The weights, in the manifest's order.
    pub weights: &'a [W],
    /// The scope of one virtual layer with the outputs of its ops.
    pub virtual_layer: Option<(u32, Scope, &'a [Vec<u8>])>,
}

impl<W: AsRef<[u8]>> Oracle for TraceOracle<'_, W> {
    fn read(&mut self, tensor: TensorRef, bytes: Range<u64>, into: &mut [u8]) -> Result<(), Missing> {
        let whole = match tensor {
            TensorRef::Op(OpPlace { layer, scope: Scope::Layer, op }) => self.trace.op(layer, op),
            TensorRef::Op(OpPlace { layer, scope, op }) => match self.virtual_layer {
                Some((in_layer, in_scope, outputs)) if (in_layer, in_scope) == (layer, scope) => {
                    outputs.get(op as usize).map(Vec::as_slice)
                }
                _ => None,
            },
            TensorRef::LayerOutput(layer) => self.trace.layer_output(layer),
            TensorRef::Weight(index) => self.weights.get(index as usize).map(AsRef::as_ref),
        };
        let found = whole.and_then(|whole| whole.get(bytes.start as usize..bytes.end as usize));
        into.copy_from_slice(found.ok_or(Missing::new(tensor, &bytes))?);
        Ok(())
    }
}

/// A weight as the scalar functions take it.
struct Weight<'a> {
    width: usize,
    floats: Vec<f32>,
    int8s: Vec<i8>,
    spec: &'a TensorSpec,
}

impl<'a> Weight<'a> {
    fn new(spec: &'a TensorSpec, bytes: &[u8]) -> Self {
        Self {
            width: spec.width as usize,
            floats: weights::widen(spec.dtype, bytes),
            int8s: if spec.dtype == Dtype::I8 {
                bytes.iter().map(|&byte| byte.cast_signed()).collect()
            } else {
                Vec::new()
            },
            spec,
        }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.floats[row * self.width..][..self.width]
    }

    fn int8_row(&self, row: usize) -> &[i8] {
        &self.int8s[row * self.width..][..self.width]
    }
}

/// An op's output as it is stored, and as later ops read it.
struct Output {
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl Output {
    fn new(bytes: Vec<u8>) -> Self {
        Self { values: floats(&bytes), bytes }
    }
}

struct Run<'a> {
    model: &'a ValidatedModel,
    job: &'a JobInput,
    weights: Vec<Weight<'a>>,
    layers: Vec<Vec<Output>>,
}

impl Run<'_> {
    /// All elements of an op of the layer under way, before storing.
    fn op(&self, op: &Op) -> Vec<f32> {
        match op.kind {
            OpKind::Gather => self.gather(op),
            OpKind::Add => self.values(op, 0).iter().zip(self.values(op, 1)).map(|(a, b)| a + b).collect(),
            OpKind::Linear(LinearKind::F32) => {
                let (w, bias) = (self.weight(op, 1), self.vector(op, 2));
                self.by_row_and_output(op, w, |x, n| {
                    arithmetic::linear(x, w.row(n), bias.map(|bias| bias[n]))
                })
            }
            OpKind::Linear(LinearKind::Int8 { group, activation_bits }) => {
                let (w, scales, bias) = (self.weight(op, 1), self.weight(op, 2), self.vector(op, 3));
                let (group, bits) = (group as usize, activation_bits);
                self.by_row_and_output(op, w, |x, n| {
                    arithmetic::int8::linear(
                        x,
                        w.int8_row(n),
                        scales.row(n),
                        group,
                        bits,
                        bias.map(|bias| bias[n]),
                    )
                })
            }
            OpKind::LayerNorm { eps } => {
                let (weight, bias) = (self.weight(op, 1).row(0), self.weight(op, 2).row(0));
                self.by_row(op, |x| {
                    let statistics = arithmetic::LayerNormRow::of(x, eps);
                    let columns = x.iter().zip(weight).zip(bias);
                    columns.map(|((&x, &w), &b)| statistics.element(x, w, b)).collect()
                })
            }
            OpKind::Gelu => self.values(op, 0).iter().map(|&x| arithmetic::gelu(x)).collect(),
            OpKind::Attention { heads, kv_heads, head_dim, scale, causal } => {
                let heads = Heads { dim: head_dim as usize, shared: (heads / kv_heads) as usize };
                self.attention(op, heads, scale, causal)
            }
            OpKind::MeanPool => self.mean_pool(op),
            OpKind::Normalize => self.by_row(op, |x| {
                let divisor = arithmetic::normalize_divisor(x);
                x.iter().map(|&x| arithmetic::normalize(x, divisor)).collect()
            }),
            OpKind::RmsNorm { eps, group } => {
                let weight = self.weight(op, 1).row(0);
                let norm = |x: &[f32]| -> Vec<f32> {
                    let statistic = arithmetic::RmsNormRow::of(x, eps);
                    x.iter().zip(weight).map(|(&x, &w)| statistic.element(x, w)).collect()
                };
                self.values(op, 0).chunks(group as usize).flat_map(norm).collect()
            }
            OpKind::Rope { head_dim, .. } => self.rope(op, head_dim as usize),
            OpKind::Silu => self.values(op, 0).iter().map(|&x| arithmetic::silu(x)).collect(),
            OpKind::Mul => self.values(op, 0).iter().zip(self.values(op, 1)).map(|(a, b)| a * b).collect(),
            OpKind::CastBf16 => {
                let rounded = |&x: &f32| arithmetic::widen_bf16(arithmetic::round_bf16(x));
                self.values(op, 0).iter().map(rounded).collect()
            }
            OpKind::SelectRows => {
                let (x, width) = (self.values(op, 0), self.width(op, 0));
                self.answer_rows()
                    .filter_map(|row| self.job.token_of_answer(row))
                    .flat_map(|token| &x[token as usize * width..][..width])
                    .copied()
                    .collect()
            }
            OpKind::Penalize => {
                let (logits, width) = (self.values(op, 0), self.width(op, 0));
                let rows = self.answer_rows().filter_map(|row| History::of(self.job, row));
                rows.zip(logits.chunks(width))
                    .flat_map(|(history, logits)| {
                        (0..).zip(logits).map(move |(token, &logit)| history.penalize(logit, token))
                    })
                    .collect()
            }
            OpKind::Sample => unreachable!("tokens are no floats: run_with calls sample"),
        }
    }

    /// The tokens of the answer.
    fn sample(&self, op: &Op) -> Vec<u32> {
        let (logits, width) = (self.values(op, 0), self.width(op, 0));
        let rows = self.answer_rows().filter_map(|row| History::of(self.job, row));
        rows.zip(logits.chunks(width)).map(|(history, logits)| history.sample(logits)).collect()
    }

    fn answer_rows(&self) -> Range<u64> {
        0..self.job.answer_count()
    }

    fn rope(&self, op: &Op, head_dim: usize) -> Vec<f32> {
        let (x, width, half) = (self.values(op, 0), self.width(op, 0), head_dim / 2);
        let (cos, sin) = (self.weight(op, 1), self.weight(op, 2));
        let mut out = vec![0.0; x.len()];
        for rows in self.job.sequences().map(rows_of) {
            for (position, row) in rows.enumerate() {
                let heads = (0..width).step_by(head_dim);
                for (column, pair) in heads.flat_map(|head| (0..half).map(move |pair| (head + pair, pair))) {
                    let (first, second) = (row * width + column, row * width + column + half);
                    let (c, s) = (cos.row(position)[pair], sin.row(position)[pair]);
                    (out[first], out[second]) = arithmetic::rope_pair(x[first], x[second], c, s);
                }
            }
        }
        out
    }

    fn gather(&self, op: &Op) -> Vec<f32> {
        let Operand::Job(field) = op.inputs[0] else {
            unreachable!("inference gives a gather a column of the job");
        };
        let table = self.weight(op, 1);
        let rows = self.job.sequences().flat_map(|sequence| {
            rows_of(sequence).enumerate().map(|(position, row)| match field {
                JobField::Ids => self.job.token_ids()[row] as usize,
                JobField::Positions => position,
                JobField::TypeIds => 0,
            })
        });
        rows.flat_map(|row| table.row(row).iter().copied()).collect()
    }

    fn attention(&self, op: &Op, heads: Heads, scale: f32, causal: bool) -> Vec<f32> {
        let (q, k, v) = (self.values(op, 0), self.values(op, 1), self.values(op, 2));
        let (width, key_width) = (self.width(op, 0), self.width(op, 1));
        let mut out = vec![0.0; q.len()];
        for sequence in self.job.sequences().map(rows_of) {
            for (t, head) in
                sequence.clone().flat_map(|t| (0..width).step_by(heads.dim).map(move |head| (t, head)))
            {
                let rows = if causal { sequence.start..t + 1 } else { sequence.clone() };
                let (query, key_head) = (&q[t * width + head..][..heads.dim], heads.key(head));
                let key = |j: usize| &k[j * key_width + key_head..][..heads.dim];
                let scores: Vec<f32> =
                    rows.clone().map(|j| arithmetic::attention::score(query, key(j), scale)).collect();
                let max = arithmetic::max(&scores);
                let exponentials: Vec<f32> =
                    scores.iter().map(|&score| arithmetic::attention::weight(score, max)).collect();
                for column in 0..heads.dim {
                    let values: Vec<f32> =
                        rows.clone().map(|j| v[j * key_width + key_head + column]).collect();
                    out[t * width + head + column] = arithmetic::attention::output(&exponentials, &values);
                }
            }
        }
        out
    }

    fn mean_pool(&self, op: &Op) -> Vec<f32> {
        let (x, width) = (self.values(op, 0), self.width(op, 0));
        let mean = |rows: Range<usize>, column: usize| {
            let values: Vec<f32> = rows.map(|row| x[row * width + column]).collect();
            arithmetic::mean_pool(&values)
        };
        self.job
            .sequences()
            .flat_map(|sequence| (0..width).map(move |column| (sequence, column)))
            .map(|(sequence, column)| mean(rows_of(sequence), column))
            .collect()
    }

    fn by_row(&self, op: &Op, f: impl Fn(&[f32]) -> Vec<f32>) -> Vec<f32> {
        self.values(op, 0).chunks(self.width(op, 0)).flat_map(f).collect()
    }

    fn by_row_and_output(&self, op: &Op, w: &Weight<'_>, f: impl Fn(&[f32], usize) -> f32) -> Vec<f32> {
        let outputs = w.spec.rows as usize;
        self.by_row(op, |x| (0..outputs).map(|n| f(x, n)).collect())
    }

    fn values(&self, op: &Op, input: usize) -> &[f32] {
        let (current, earlier) = self.layers.split_last().expect("a layer is under way");
        let output = match op.inputs[input] {
            Operand::Op(index) => current.get(index as usize),
            Operand::LayerInput => earlier.last().and_then(|layer| layer.last()),
            Operand::Weight(_) | Operand::Job(_) => None,
        };
        &output.expect("inference gives the op this input").values
    }

    fn width(&self, op: &Op, input: usize) -> usize {
        let layer = self.layers.len() as u32 - 1;
        let tensor = self.model.operand_tensor(layer, op.inputs[input]);
        let shape = tensor.and_then(|tensor| self.model.shape_of(self.job, tensor));
        shape.expect("inference gives the op this input").width as usize
    }

    fn weight(&self, op: &Op, input: usize) -> &Weight<'_> {
        match op.inputs[input] {
            Operand::Weight(index) => &self.weights[index as usize],
            _ => unreachable!("inference gives the op a weight here"),
        }
    }

    fn vector(&self, op: &Op, input: usize) -> Option<&[f32]> {
        (op.inputs.len() > input).then(|| self.weight(op, input).row(0))
    }
}

fn rows_of(sequence: Sequence) -> Range<usize> {
    sequence.start as usize..(sequence.start + sequence.len) as usize
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    weights::widen(Dtype::F32, bytes)
}

fn to_bytes(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}
