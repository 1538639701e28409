//! Linear maps in f32: `y = x · wᵀ + bias`, with what follows it fused in.

use std::ops::Range;

use rayon::prelude::*;

use super::buffer::SharedRows;
use super::elementwise::{gelu, store_rule};
use super::lanes::{Kernel, Lanes};
use super::pack::{PackGroup, Panels};
use super::scratch::{cut, lines, with_scratch};
use super::tile::{Block, Totals, add_block, blocks};

/// Bytes of packed rows that a task works on: they stay in a core's second-level cache while all panels pass.
const ROW_BLOCK_BYTES: usize = 512 << 10;

/// What happens to a linear map's output before it is written. The output itself obeys the storing rule first,
/// so that fused and separate ops give the same bytes.
#[derive(Clone, Copy)]
pub(crate) enum Then<'a> {
    /// It is the result.
    Nothing,
    /// gelu of it is.
    Gelu,
    /// Its sum with these rows is.
    Add(&'a [f32]),
}

/// A linear map applied to rows.
#[derive(Clone, Copy)]
pub(crate) struct LinearRows<'a> {
    /// `[rows, depth]`.
    pub(crate) x: &'a [f32],
    /// The weights.
    pub(crate) panels: &'a Panels,
    /// One value per output column, zeros up to whole panels.
    pub(crate) bias: &'a [f32],
    /// What follows.
    pub(crate) then: Then<'a>,
}

/// Writes the result, `[rows, columns]`.
pub(crate) fn linear<V: Lanes>(v: V, of: LinearRows<'_>, out: &mut [f32]) {
    let (depth, columns) = (of.panels.depth, of.panels.columns);
    let rows = out.len() / columns;
    assert!(out.len() == rows * columns && of.x.len() == rows * depth, "whole rows");
    assert!(of.bias.len() >= of.panels.count() * V::PANEL, "a bias for every column of every panel");
    if let Then::Add(other) = of.then {
        assert_eq!(other.len(), out.len(), "one summand per output");
    }
    let split = Split::new::<V>(rows, depth, of.panels.count(), rayon::current_num_threads());
    let out = SharedRows::new(out, columns);
    (0..split.tasks()).into_par_iter().for_each(|task| {
        let (rows, panels) = split.task(task, rows, of.panels.count());
        let strips = rows.len().div_ceil(V::STRIP);
        let packed = strips * strip_floats::<V>(depth);
        with_scratch(packed + lines(strips * V::STRIP * V::PANEL), |mut scratch| {
            let strips = cut(&mut scratch, packed);
            v.enter(RowBlock { of, rows, panels, strips, totals: scratch, out: &out });
        });
    });
}

/// Floats of one packed strip, with room for what packing overwrites.
fn strip_floats<V: Lanes>(depth: usize) -> usize {
    lines(depth * V::STRIP + V::LANES)
}

/// How rows and panels are divided into tasks.
struct Split {
    rows_per_task: usize,
    row_tasks: usize,
    panels_per_task: usize,
    panel_tasks: usize,
}

impl Split {
    fn new<V: Lanes>(rows: usize, depth: usize, panels: usize, threads: usize) -> Self {
        let strips = rows.div_ceil(V::STRIP).max(1);
        let most = (ROW_BLOCK_BYTES / (strip_floats::<V>(depth) * size_of::<f32>())).max(1);
        let blocks = strips.div_ceil(most).next_multiple_of(threads).min(strips);
        let rows_per_task = strips.div_ceil(blocks) * V::STRIP;
        let row_tasks = rows.div_ceil(rows_per_task);
        let panels_per_task = panels.div_ceil(threads.div_ceil(row_tasks.max(1)).min(panels));
        Self { rows_per_task, row_tasks, panels_per_task, panel_tasks: panels.div_ceil(panels_per_task) }
    }

    fn tasks(&self) -> usize {
        self.row_tasks * self.panel_tasks
    }

    fn task(&self, index: usize, rows: usize, panels: usize) -> (Range<usize>, Range<usize>) {
        let (row, panel) = (index / self.panel_tasks, index % self.panel_tasks);
        let (row, panel) = (row * self.rows_per_task, panel * self.panels_per_task);
        (row..(row + self.rows_per_task).min(rows), panel..(panel + self.panels_per_task).min(panels))
    }
}

/// One task: some rows against some panels.
struct RowBlock<'a> {
    of: LinearRows<'a>,
    rows: Range<usize>,
    panels: Range<usize>,
    strips: &'a mut [f32],
    totals: &'a mut [f32],
    out: &'a SharedRows<'a>,
}

impl Kernel for RowBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(mut self, v: V) {
        self.pack_rows(v);
        for panel in self.panels.clone() {
            self.multiply(v, panel);
            self.finish(v, panel);
        }
    }
}

impl RowBlock<'_> {
    #[inline(always)]
    fn pack_rows<V: Lanes>(&mut self, v: V) {
        let depth = self.of.panels.depth;
        let strips = self.strips.chunks_exact_mut(strip_floats::<V>(depth));
        for (first, out) in self.rows.clone().step_by(V::STRIP).zip(strips) {
            let rows = V::STRIP.min(self.rows.end - first);
            let from = &self.of.x[first * depth..];
            PackGroup { from, stride: depth, rows, depth, group: V::STRIP, out }.run(v);
        }
    }

    /// The dot products of all rows with one panel. Blocks are the outer loop: a block of the panel stays in the
    /// first-level cache while the strips pass.
    #[inline(always)]
    fn multiply<V: Lanes>(&mut self, v: V, panel: usize) {
        let depth = self.of.panels.depth;
        let panel = self.of.panels.panel(panel);
        let strip_len = strip_floats::<V>(depth);
        let count = self.rows.len().div_ceil(V::STRIP);
        assert!(self.strips.len() >= count * strip_len, "all strips are packed");
        assert!(self.totals.len() >= count * V::STRIP * V::PANEL, "room for all totals");
        assert!(panel.len() == depth * V::PANEL, "a whole panel");
        for (start, len) in blocks(depth) {
            for strip in 0..count {
                let rows = V::STRIP.min(self.rows.len() - strip * V::STRIP);
                let block = Block {
                    depth: len,
                    strip: self.strips[strip * strip_len + start * V::STRIP..].as_ptr(),
                    strip_step: V::STRIP,
                    panel: panel[start * V::PANEL..].as_ptr(),
                };
                let totals = self.totals[strip * V::STRIP * V::PANEL..].as_mut_ptr();
                // SAFETY: `rows` is at most STRIP and not 0; strip, panel and totals hold what is read and
                // written, by the assertions and start + len ≤ depth; `totals` is borrowed exclusively.
                unsafe { add_block(v, rows, block, Totals::before(start), totals) };
            }
        }
    }

    /// Bias, storing rule, what follows; then the columns go to their places.
    #[inline(always)]
    fn finish<V: Lanes>(&mut self, v: V, panel: usize) {
        let columns = self.of.panels.columns;
        let first = panel * V::PANEL;
        let len = V::PANEL.min(columns - first);
        let bias = &self.of.bias[first..first + V::PANEL];
        for (row, totals) in self.rows.clone().zip(self.totals.chunks_exact_mut(V::PANEL)) {
            for (y, b) in totals.chunks_exact_mut(V::LANES).zip(bias.chunks_exact(V::LANES)) {
                let sum = store_rule(v, v.add(v.load(y), v.load(b)));
                v.store(if let Then::Gelu = self.of.then { store_rule(v, gelu(v, sum)) } else { sum }, y);
            }
            // SAFETY: tasks have disjoint rectangles of rows and panels, and this loop meets each row once.
            let out = unsafe { self.out.row_part(row, first, len) };
            match self.of.then {
                Then::Add(other) => {
                    let other = &other[row * columns + first..][..len];
                    add_stored(v, totals, other, out);
                }
                Then::Nothing | Then::Gelu => out.copy_from_slice(&totals[..len]),
            }
        }
    }
}

/// `out = stored(a + b)` for up to a panel of columns; `a` is a whole panel.
#[inline(always)]
fn add_stored<V: Lanes>(v: V, a: &mut [f32], b: &[f32], out: &mut [f32]) {
    if out.len() == V::PANEL {
        for start in [0, V::LANES] {
            let sum = v.add(v.load(&a[start..]), v.load(&b[start..]));
            v.store(store_rule(v, sum), &mut out[start..]);
        }
    } else {
        for ((out, &a), &b) in out.iter_mut().zip(a.iter()).zip(b) {
            *out = gainsay_arithmetic::store(a + b);
        }
    }
}
