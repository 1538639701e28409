//! The referee's function: one element of one op.

use gainsay_arithmetic as arithmetic;

use crate::validate::{ExpandedElement, attended};
use crate::{
    Dtype, History, JobField, JobInput, LinearKind, Missing, Op, OpKind, OpPlace, Operand, Oracle, Scope,
    TensorRef, ValidatedModel, VirtualOp, weights,
};

/// Why an element has no value here. None of these says anything about a claim.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ElementError {
    /// The model has no such op in a run of this job.
    #[error("there is no {0}")]
    NoSuchOp(OpPlace),
    /// The op's output has fewer elements.
    #[error("{place} has {elements} elements, not one with index {index}")]
    NoSuchElement {
        /// The op.
        place: OpPlace,
        /// The index asked for.
        index: u64,
        /// Elements of its output.
        elements: u64,
    },
    /// The job does not fit the model: see [`ValidatedModel::check_job`].
    #[error("{tensor} ends before element {first} + {count}")]
    OutOfTensor {
        /// The tensor that would have been read.
        tensor: TensorRef,
        /// First element of the read.
        first: u64,
        /// Elements to read.
        count: u64,
    },
    /// An operand that the op cannot read. Validation refuses such programs.
    #[error("{0} has an operand of the wrong sort")]
    Operand(OpPlace),
    /// The oracle does not hold what the element depends on.
    #[error(transparent)]
    Missing(#[from] Missing),
}

/// Computes the element with row-major index `index` of the op at `place`, as it is stored: little-endian bytes of an
/// f32 under the storing rule (in virtual layers, before `out`, under its NaN part), or of a drawn token's id.
///
/// An element of a layer is computed in the direct form, whether or not it is expanded. A referee that must bound its
/// work asks [`ValidatedModel::is_expanded`] first.
///
/// For all other elements it reads at most what [`Manifest::validate`](crate::Manifest::validate) has bounded, provided that
/// [`ValidatedModel::check_job`] accepts the job; for other jobs it may fail, but is still total.
pub fn element<O: Oracle + ?Sized>(
    model: &ValidatedModel,
    job: &JobInput,
    place: OpPlace,
    index: u64,
    oracle: &mut O,
) -> Result<[u8; 4], ElementError> {
    let shape = model.op_shape(job, place).ok_or(ElementError::NoSuchOp(place))?;
    let elements = shape.elements();
    if index >= elements {
        return Err(ElementError::NoSuchElement { place, index, elements });
    }
    let mut evaluation = Evaluation { model, job, place, oracle };
    let (row, column) = (index / shape.width, index % shape.width);
    match place.scope {
        Scope::Layer if shape.dtype == Dtype::U32 => evaluation.sample(row).map(u32::to_le_bytes),
        Scope::Layer => evaluation.op(row, column).map(|value| arithmetic::store(value).to_le_bytes()),
        Scope::Virtual { op, element } => evaluation.virtual_op(op, element, index).map(f32::to_le_bytes),
    }
}

/// One call of [`element`]: what it is asked for, and what it reads from.
struct Evaluation<'a, O: ?Sized> {
    model: &'a ValidatedModel,
    job: &'a JobInput,
    place: OpPlace,
    oracle: &'a mut O,
}

impl<O: Oracle + ?Sized> Evaluation<'_, O> {
    /// An element of an op of a layer, before storing.
    fn op(&mut self, row: u64, column: u64) -> Result<f32, ElementError> {
        let op = self.model.op(self.place.layer, self.place.op).ok_or(ElementError::NoSuchOp(self.place))?;
        match op.kind {
            OpKind::Gather => {
                let table_row = self.table_row(op, row)?;
                self.at(op, 1, table_row, column)
            }
            OpKind::Add => Ok(self.at(op, 0, row, column)? + self.at(op, 1, row, column)?),
            OpKind::Linear(LinearKind::F32) => self.linear(op, row, column),
            OpKind::Linear(LinearKind::Int8 { group, activation_bits }) => {
                self.linear_int8(op, row, column, group, activation_bits)
            }
            OpKind::LayerNorm { eps } => {
                let x = self.row(op, 0, row)?;
                let (weight, bias) = (self.at(op, 1, 0, column)?, self.at(op, 2, 0, column)?);
                let value = self.column_of(&x, column)?;
                Ok(arithmetic::LayerNormRow::of(&x, eps).element(value, weight, bias))
            }
            OpKind::Gelu => self.at(op, 0, row, column).map(arithmetic::gelu),
            OpKind::Attention { .. } => self.attention(op, row, column),
            OpKind::MeanPool => {
                let sequence = self.job.sequence(row).ok_or(ElementError::NoSuchOp(self.place))?;
                let column = self.column(op, 0, sequence.start, sequence.len, column)?;
                Ok(arithmetic::mean_pool(&column))
            }
            OpKind::Normalize => {
                let x = self.row(op, 0, row)?;
                let value = self.column_of(&x, column)?;
                Ok(arithmetic::normalize(value, arithmetic::normalize_divisor(&x)))
            }
            OpKind::Mul => Ok(self.at(op, 0, row, column)? * self.at(op, 1, row, column)?),
            OpKind::Silu => self.at(op, 0, row, column).map(arithmetic::silu),
            OpKind::CastBf16 => {
                let value = self.at(op, 0, row, column)?;
                Ok(arithmetic::widen_bf16(arithmetic::round_bf16(value)))
            }
            OpKind::RmsNorm { eps, group } => self.rms_norm(op, row, column, eps, group),
            OpKind::Rope { head_dim, .. } => self.rope(op, row, column, head_dim),
            OpKind::SelectRows => {
                let token = self.job.token_of_answer(row).ok_or(ElementError::NoSuchOp(self.place))?;
                self.at(op, 0, token, column)
            }
            OpKind::Penalize => {
                let logit = self.at(op, 0, row, column)?;
                let history = History::of(self.job, row).ok_or(ElementError::NoSuchOp(self.place))?;
                u32::try_from(column)
                    .map(|token| history.penalize(logit, token))
                    .map_err(|_| ElementError::Operand(self.place))
            }
            OpKind::Sample => Err(ElementError::Operand(self.place)),
        }
    }

    /// A token of the answer.
    fn sample(&mut self, row: u64) -> Result<u32, ElementError> {
        let op = self.model.op(self.place.layer, self.place.op).ok_or(ElementError::NoSuchOp(self.place))?;
        let history = History::of(self.job, row).ok_or(ElementError::NoSuchOp(self.place))?;
        let logits = self.row(op, 0, row)?;
        Ok(history.sample(&logits))
    }

    fn rms_norm(
        &mut self,
        op: &Op,
        row: u64,
        column: u64,
        eps: f32,
        group: u32,
    ) -> Result<f32, ElementError> {
        let (tensor, width) = self.input(op, 0)?;
        let in_group = column % u64::from(group);
        let first = row.saturating_mul(width).saturating_add(column - in_group);
        let x = self.floats(tensor, first, group.into())?;
        let weight = self.at(op, 1, 0, in_group)?;
        Ok(arithmetic::RmsNormRow::of(&x, eps).element(self.column_of(&x, in_group)?, weight))
    }

    fn rope(&mut self, op: &Op, row: u64, column: u64, head_dim: u32) -> Result<f32, ElementError> {
        let sequence = self.job.sequence_of_token(row).ok_or(ElementError::NoSuchOp(self.place))?;
        let (position, head_dim) = (row - sequence.start, u64::from(head_dim));
        let half = head_dim / 2;
        let in_head = column % head_dim;
        let (pair, is_second) = (in_head % half, in_head >= half);
        let first = column - in_head + pair;
        let (x1, x2) = (self.at(op, 0, row, first)?, self.at(op, 0, row, first + half)?);
        let (cos, sin) = (self.at(op, 1, position, pair)?, self.at(op, 2, position, pair)?);
        let (y1, y2) = arithmetic::rope_pair(x1, x2, cos, sin);
        Ok(if is_second { y2 } else { y1 })
    }

    /// Row of the table that the token in row `row` selects.
    fn table_row(&self, op: &Op, row: u64) -> Result<u64, ElementError> {
        let Some(Operand::Job(field)) = op.inputs.first() else {
            return Err(ElementError::Operand(self.place));
        };
        match field {
            JobField::Ids => {
                let id = usize::try_from(row).ok().and_then(|row| self.job.token_ids().get(row));
                id.copied().map(u64::from)
            }
            JobField::Positions => self.job.sequence_of_token(row).map(|sequence| row - sequence.start),
            JobField::TypeIds => Some(0),
        }
        .ok_or(ElementError::NoSuchOp(self.place))
    }

    fn linear(&mut self, op: &Op, row: u64, column: u64) -> Result<f32, ElementError> {
        let x = self.row(op, 0, row)?;
        let w = self.row(op, 1, column)?;
        let bias = self.bias(op, 2, column)?;
        Ok(arithmetic::linear(&x, &w, bias))
    }

    fn linear_int8(
        &mut self,
        op: &Op,
        row: u64,
        column: u64,
        group: u32,
        bits: arithmetic::int8::ActivationBits,
    ) -> Result<f32, ElementError> {
        let x = self.row(op, 0, row)?;
        let w = self.int8_row(op, 1, column)?;
        let scales = self.row(op, 2, column)?;
        let bias = self.bias(op, 3, column)?;
        Ok(arithmetic::int8::linear(&x, &w, &scales, group as usize, bits, bias))
    }

    fn bias(&mut self, op: &Op, input: usize, column: u64) -> Result<Option<f32>, ElementError> {
        if op.inputs.len() > input { self.at(op, input, 0, column).map(Some) } else { Ok(None) }
    }

    fn attention(&mut self, op: &Op, row: u64, column: u64) -> Result<f32, ElementError> {
        let OpKind::Attention { causal, .. } = op.kind else {
            return Err(ElementError::Operand(self.place));
        };
        let sequence = attended(self.job, row, causal).ok_or(ElementError::NoSuchOp(self.place))?;
        let (start, len) = (sequence.start, sequence.len);
        let query = self.head(op, 0, row, column)?;
        let mut scores = Vec::with_capacity(len as usize);
        for key_row in start..start + len {
            scores.push(self.score(op, &query, key_row, column)?);
        }
        let max = arithmetic::max(&scores);
        let exponentials: Vec<f32> =
            scores.iter().map(|&score| arithmetic::attention::weight(score, max)).collect();
        let values = self.column(op, 2, start, len, self.value_column(op, column)?)?;
        Ok(arithmetic::attention::output(&exponentials, &values))
    }

    /// Score of `query` against the key in `key_row`, for the head that owns `column`.
    fn score(&mut self, op: &Op, query: &[f32], key_row: u64, column: u64) -> Result<f32, ElementError> {
        let OpKind::Attention { scale, .. } = op.kind else {
            return Err(ElementError::Operand(self.place));
        };
        let column = self.value_column(op, column)?;
        let key = self.head(op, 1, key_row, column)?;
        Ok(arithmetic::attention::score(query, &key, scale))
    }

    /// An element of a virtual op, as stored.
    fn virtual_op(&mut self, op: u32, element: u64, index: u64) -> Result<f32, ElementError> {
        let no_such_op = ElementError::NoSuchOp(self.place);
        let Some(expanded) = self.model.expanded(self.job, self.place.layer, op, element) else {
            return Err(no_such_op);
        };
        let ops = VirtualOp::of(&expanded.op.kind);
        let virtual_op = ops.get(self.place.op as usize).ok_or(no_such_op)?;
        match virtual_op {
            VirtualOp::Column => self.virtual_column(&expanded, index).map(arithmetic::canonical),
            VirtualOp::Scores => {
                let ExpandedElement { op, row, column, sequence } = expanded;
                let query = self.head(op, 0, row, column)?;
                self.score(op, &query, sequence.start + index, column).map(arithmetic::canonical)
            }
            VirtualOp::Weights => {
                let scores = self.virtual_input(ops, VirtualOp::Scores, expanded.sequence.len)?;
                let score = self.column_of(&scores, index)?;
                Ok(arithmetic::canonical(arithmetic::attention::weight(score, arithmetic::max(&scores))))
            }
            VirtualOp::Out => self.virtual_out(ops, &expanded).map(arithmetic::store),
        }
    }

    fn virtual_column(&mut self, expanded: &ExpandedElement<'_>, index: u64) -> Result<f32, ElementError> {
        let row = expanded.sequence.start + index;
        if matches!(expanded.op.kind, OpKind::Attention { .. }) {
            let column = self.value_column(expanded.op, expanded.column)?;
            self.at(expanded.op, 2, row, column)
        } else {
            self.at(expanded.op, 0, row, expanded.column)
        }
    }

    /// The column of keys and values that the head of an output column reads for it.
    fn value_column(&self, op: &Op, column: u64) -> Result<u64, ElementError> {
        let OpKind::Attention { heads, kv_heads, head_dim, .. } = op.kind else {
            return Err(ElementError::Operand(self.place));
        };
        let (head, in_head) = (column / u64::from(head_dim), column % u64::from(head_dim));
        Ok(head / u64::from(heads / kv_heads) * u64::from(head_dim) + in_head)
    }

    fn virtual_out(
        &mut self,
        ops: &[VirtualOp],
        expanded: &ExpandedElement<'_>,
    ) -> Result<f32, ElementError> {
        let len = expanded.sequence.len;
        let column = self.virtual_input(ops, VirtualOp::Column, len)?;
        if matches!(expanded.op.kind, OpKind::Attention { .. }) {
            let exponentials = self.virtual_input(ops, VirtualOp::Weights, len)?;
            Ok(arithmetic::attention::output(&exponentials, &column))
        } else {
            Ok(arithmetic::mean_pool(&column))
        }
    }

    /// The whole output of an earlier op of the same virtual layer.
    fn virtual_input(
        &mut self,
        ops: &[VirtualOp],
        op: VirtualOp,
        len: u64,
    ) -> Result<Vec<f32>, ElementError> {
        let index = ops.iter().position(|&other| other == op).ok_or(ElementError::NoSuchOp(self.place))?;
        self.floats(TensorRef::Op(OpPlace { op: index as u32, ..self.place }), 0, len)
    }

    /// The tensor behind an input, and the width of its rows.
    fn input(&self, op: &Op, input: usize) -> Result<(TensorRef, u64), ElementError> {
        let operand = op.inputs.get(input).copied();
        let tensor = operand.and_then(|operand| self.model.operand_tensor(self.place.layer, operand));
        let tensor = tensor.ok_or(ElementError::Operand(self.place))?;
        let shape = self.model.shape_of(self.job, tensor).ok_or(ElementError::Operand(self.place))?;
        Ok((tensor, shape.width))
    }

    /// One element of an input.
    fn at(&mut self, op: &Op, input: usize, row: u64, column: u64) -> Result<f32, ElementError> {
        let (tensor, width) = self.input(op, input)?;
        let value = self.floats(tensor, row.saturating_mul(width).saturating_add(column), 1)?;
        self.column_of(&value, 0)
    }

    /// A whole row of an input.
    fn row(&mut self, op: &Op, input: usize, row: u64) -> Result<Vec<f32>, ElementError> {
        let (tensor, width) = self.input(op, input)?;
        self.floats(tensor, row.saturating_mul(width), width)
    }

    /// One column of `len` rows of an input.
    fn column(
        &mut self,
        op: &Op,
        input: usize,
        start: u64,
        len: u64,
        column: u64,
    ) -> Result<Vec<f32>, ElementError> {
        (start..start.saturating_add(len)).map(|row| self.at(op, input, row, column)).collect()
    }

    /// The part of a row that belongs to the head that owns `column`.
    fn head(&mut self, op: &Op, input: usize, row: u64, column: u64) -> Result<Vec<f32>, ElementError> {
        let OpKind::Attention { head_dim, .. } = op.kind else {
            return Err(ElementError::Operand(self.place));
        };
        let (tensor, width) = self.input(op, input)?;
        let head_dim = u64::from(head_dim);
        let first_column = column - column % head_dim;
        self.floats(tensor, row.saturating_mul(width).saturating_add(first_column), head_dim)
    }

    fn column_of(&self, row: &[f32], column: u64) -> Result<f32, ElementError> {
        usize::try_from(column)
            .ok()
            .and_then(|column| row.get(column))
            .copied()
            .ok_or(ElementError::Operand(self.place))
    }

    /// `count` elements of a float tensor from element `first` on, widened.
    fn floats(&mut self, tensor: TensorRef, first: u64, count: u64) -> Result<Vec<f32>, ElementError> {
        let (dtype, bytes) = self.read(tensor, first, count)?;
        if dtype.is_float() {
            Ok(weights::widen(dtype, &bytes))
        } else {
            Err(ElementError::Operand(self.place))
        }
    }

    fn int8_row(&mut self, op: &Op, input: usize, row: u64) -> Result<Vec<i8>, ElementError> {
        let (tensor, width) = self.input(op, input)?;
        match self.read(tensor, row.saturating_mul(width), width)? {
            (Dtype::I8, bytes) => Ok(bytes.into_iter().map(u8::cast_signed).collect()),
            _ => Err(ElementError::Operand(self.place)),
        }
    }

    /// The one place that reads: nothing outside a tensor passes it.
    fn read(&mut self, tensor: TensorRef, first: u64, count: u64) -> Result<(Dtype, Vec<u8>), ElementError> {
        let shape = self.model.shape_of(self.job, tensor).ok_or(ElementError::Operand(self.place))?;
        let inside = first.checked_add(count).is_some_and(|end| end <= shape.elements());
        if !inside {
            return Err(ElementError::OutOfTensor { tensor, first, count });
        }
        let element_bytes = shape.dtype.bytes();
        let range = first * element_bytes..(first + count) * element_bytes;
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.oracle.read(tensor, range, &mut bytes)?;
        Ok((shape.dtype, bytes))
    }
}
