//! The ops of one expanded element, from the inputs of its op.

use std::ops::Range;

use gainsay_arithmetic as arithmetic;
use gainsay_program::Sequence;

use crate::kernels::Heads;

/// Where an element is: its row in the tensors that are read, its column, what of its sequence it depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element {
    pub(crate) row: usize,
    pub(crate) column: usize,
    pub(crate) sequence: Sequence,
}

/// A tensor of the job, row-major little-endian f32.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) width: usize,
}

impl Rows<'_> {
    fn at(&self, row: usize, column: usize) -> f32 {
        let (elements, _) = self.bytes.as_chunks();
        f32::from_le_bytes(elements[row * self.width + column])
    }

    fn part(&self, row: usize, columns: Range<usize>) -> Vec<f32> {
        columns.map(|column| self.at(row, column)).collect()
    }

    fn column(&self, sequence: Sequence, column: usize) -> Vec<f32> {
        rows(sequence).map(|row| arithmetic::canonical(self.at(row, column))).collect()
    }
}

/// `column`, `scores`, `weights` of an attention's element, without its last op `out`. They obey the NaN rule only.
pub(crate) fn attention(heads: Heads, inputs: [Rows<'_>; 3], element: Element) -> Vec<Vec<u8>> {
    let [q, k, v] = inputs;
    let (head, column) = (element.column / heads.width, element.column % heads.width);
    let columns = |head: usize| head * heads.width..(head + 1) * heads.width;
    let query = q.part(element.row, columns(head));
    let kv = columns(heads.kv_of(head));
    let column = kv.start + column;
    let scores: Vec<f32> = rows(element.sequence)
        .map(|key| arithmetic::attention::score(&query, &k.part(key, kv.clone()), heads.scale))
        .map(arithmetic::canonical)
        .collect();
    let greatest = arithmetic::max(&scores);
    let weights = scores.iter().map(|&score| arithmetic::attention::weight(score, greatest));
    let weights: Vec<f32> = weights.map(arithmetic::canonical).collect();
    [v.column(element.sequence, column), scores, weights].iter().map(|values| to_bytes(values)).collect()
}

/// `column` of a pooling's element, without its last op `out`.
pub(crate) fn mean_pool(input: Rows<'_>, element: Element) -> Vec<Vec<u8>> {
    vec![to_bytes(&input.column(element.sequence, element.column))]
}

fn rows(sequence: Sequence) -> Range<usize> {
    sequence.start as usize..(sequence.start + sequence.len) as usize
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
