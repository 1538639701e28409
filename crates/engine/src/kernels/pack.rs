//! Packing operands of matrix products into strips and panels.

use rayon::prelude::*;

use super::buffer::AlignedBuffer;
use super::lanes::{Bf16, Element, F16, Kernel, Lanes};

/// Rows of a row-major matrix, element `k` of `group` rows side by side: strips and panels alike.
///
/// `out` receives `depth` groups of `group` floats; rows that do not exist count as zeros. `out` must hold
/// [`Lanes::LANES`] more floats, which are overwritten with anything.
pub(crate) struct PackGroup<'a> {
    /// First element of the first row, and all that follows.
    pub(crate) from: &'a [f32],
    /// Floats from one row to the next.
    pub(crate) stride: usize,
    /// Rows that exist.
    pub(crate) rows: usize,
    /// Elements of a row.
    pub(crate) depth: usize,
    /// Rows side by side.
    pub(crate) group: usize,
    /// The packed group.
    pub(crate) out: &'a mut [f32],
}

impl Kernel for PackGroup<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, v: V) {
        let Self { from, stride, rows, depth, group, out } = self;
        assert!(rows > 0 && rows <= group && out.len() >= depth * group + V::LANES, "room for the group");
        assert!(from.len() >= (rows - 1) * stride + depth, "all rows exist");
        assert!(group <= V::LANES || group.is_multiple_of(V::LANES), "one slice, or whole slices");
        let squares = depth / V::LANES * V::LANES;
        // One slice narrower than LANES writes beyond its group, into what a later step writes again or into
        // the room at the end: both loops ascend in k.
        for k in (0..squares).step_by(V::LANES) {
            for column in (0..group).step_by(V::LANES) {
                let present = rows.saturating_sub(column).min(V::LANES);
                // SAFETY: rows column .. column + present exist and hold k .. k + LANES, by the second
                // assertion. The last row written starts at (k + LANES − 1)·group + column, which is at most
                // depth·group − group + column, and column + LANES ≤ group or column = 0: it ends inside
                // `out`, by the first and third assertion.
                unsafe {
                    let source = from.as_ptr().wrapping_add(column * stride + k);
                    let target = out.as_mut_ptr().add(k * group + column);
                    v.transpose(source, stride, present, target, group);
                }
            }
        }
        pack_slowly(from, stride, 0..rows, squares..depth, group, out);
        zero_missing(rows..group, squares..depth, group, out);
    }
}

#[inline(always)]
fn pack_slowly(
    from: &[f32],
    stride: usize,
    rows: std::ops::Range<usize>,
    depth: std::ops::Range<usize>,
    group: usize,
    out: &mut [f32],
) {
    for k in depth {
        for i in rows.clone() {
            out[k * group + i] = from[i * stride + k];
        }
    }
}

#[inline(always)]
fn zero_missing(rows: std::ops::Range<usize>, depth: std::ops::Range<usize>, group: usize, out: &mut [f32]) {
    for k in depth {
        out[k * group + rows.start..k * group + rows.end].fill(0.0);
    }
}

/// Elements of a matrix as a model holds them.
#[derive(Clone, Copy)]
pub(crate) enum Elements<'a> {
    /// IEEE binary32.
    F32(&'a [f32]),
    /// bfloat16.
    Bf16(&'a [Bf16]),
    /// IEEE binary16.
    F16(&'a [F16]),
}

impl Elements<'_> {
    /// Their number.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(all) => all.len(),
            Self::Bf16(all) => all.len(),
            Self::F16(all) => all.len(),
        }
    }

    /// All of them widened.
    pub(crate) fn widened(&self) -> Vec<f32> {
        match self {
            Self::F32(all) => all.to_vec(),
            Self::Bf16(all) => all.iter().map(|x| gainsay_arithmetic::widen_bf16(x.0)).collect(),
            Self::F16(all) => all.iter().map(|x| gainsay_arithmetic::widen_f16(x.0)).collect(),
        }
    }
}

/// What the elements of panels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PanelType {
    /// IEEE binary32.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE binary16.
    F16,
}

/// A matrix `[n, k]` in panels: what the weights of a linear map become when a model is loaded. Sixteen bits stay
/// sixteen bits: where few rows meet the matrix, the memory's speed is the product's.
pub(crate) struct Panels {
    data: AlignedBuffer,
    elements: PanelType,
    /// Rows of the matrix: columns of all panels together, less the padding of the last.
    pub(crate) columns: usize,
    /// Elements of a dot product.
    pub(crate) depth: usize,
    width: usize,
}

impl Panels {
    /// Packs row-major `matrix`, `columns` rows of `depth`.
    pub(crate) fn pack<V: Lanes>(v: V, matrix: Elements<'_>, columns: usize, depth: usize) -> Self {
        assert!(columns > 0 && depth > 0 && matrix.len() == columns * depth, "a whole matrix");
        let width = V::PANEL;
        let elements = columns.div_ceil(width) * width * depth + width;
        let (elements, len) = match matrix {
            Elements::F32(_) => (PanelType::F32, elements),
            Elements::Bf16(_) => (PanelType::Bf16, elements.div_ceil(2)),
            Elements::F16(_) => (PanelType::F16, elements.div_ceil(2)),
        };
        let mut panels = Self { data: AlignedBuffer::zeroed(len), elements, columns, depth, width };
        match matrix {
            Elements::F32(matrix) => panels.pack_floats(v, matrix),
            Elements::Bf16(matrix) => panels.pack_shorts(matrix),
            Elements::F16(matrix) => panels.pack_shorts(matrix),
        }
        panels
    }

    fn pack_floats<V: Lanes>(&mut self, v: V, matrix: &[f32]) {
        let Self { columns, depth, width, .. } = *self;
        for first in (0..columns).step_by(width) {
            v.enter(PackGroup {
                from: &matrix[first * depth..],
                stride: depth,
                rows: width.min(columns - first),
                depth,
                group: width,
                out: &mut self.data.as_mut_slice()[first * depth..],
            });
        }
    }

    fn pack_shorts<E: Element>(&mut self, matrix: &[E]) {
        let Self { columns, depth, width, .. } = *self;
        let panels: &mut [E] = bytemuck::cast_slice_mut(self.data.as_mut_slice());
        let panels = panels.par_chunks_mut(width * depth).take(columns.div_ceil(width));
        panels.zip(matrix.par_chunks(width * depth)).for_each(|(panel, rows)| {
            for (k, out) in panel.chunks_exact_mut(width).enumerate() {
                for (out, row) in out.iter_mut().zip(rows.chunks_exact(depth)) {
                    *out = row[k];
                }
            }
        });
    }

    /// What the elements are.
    pub(crate) fn elements(&self) -> PanelType {
        self.elements
    }

    /// Number of panels.
    pub(crate) fn count(&self) -> usize {
        self.columns.div_ceil(self.width)
    }

    /// Columns of all panels, the padding of the last included.
    pub(crate) fn padded_columns(&self) -> usize {
        self.count() * self.width
    }

    /// One panel: `depth` rows of [`Lanes::PANEL`] elements of the type that [`Panels::elements`] says.
    #[inline(always)]
    pub(crate) fn panel<E: Element>(&self, index: usize) -> &[E] {
        let len = self.width * self.depth;
        &bytemuck::cast_slice(self.data.as_slice())[index * len..(index + 1) * len]
    }
}
