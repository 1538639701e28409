//! Linear maps in f32: `y = x · wᵀ + bias`, with what follows it fused in.

use std::ops::Range;

use rayon::prelude::*;

use super::buffer::SharedRows;
use super::finish::Then;
use super::lanes::{Kernel, Lanes};
use super::pack::{PackGroup, Panels};
use super::scratch::{cut, lines, with_scratch};
use super::split::{Split, Strips};
use super::tile::{Block, Totals, add_block, blocks};

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
    of.then.check(out.len());
    let strip = Strips { height: V::STRIP, bytes: strip_floats::<V>(depth) * size_of::<f32>() };
    let split = Split::new(rows, strip, of.panels.count(), rayon::current_num_threads());
    let out = SharedRows::new(out, columns);
    (0..split.tasks()).into_par_iter().for_each(|task| {
        let (rows, panels) = split.task(task);
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
    fn finish<V: Lanes>(&self, v: V, panel: usize) {
        let columns = self.of.panels.columns;
        let first = panel * V::PANEL;
        let len = V::PANEL.min(columns - first);
        let bias = &self.of.bias[first..first + V::PANEL];
        let bias = [v.load(bias), v.load(&bias[V::LANES..])];
        for (row, totals) in self.rows.clone().zip(self.totals.chunks_exact(V::PANEL)) {
            let y = [v.add(v.load(totals), bias[0]), v.add(v.load(&totals[V::LANES..]), bias[1])];
            // SAFETY: tasks have disjoint rectangles of rows and panels, and this loop meets each row once.
            let out = unsafe { self.out.row_part(row, first, len) };
            self.of.then.finish(v, y, row * columns + first, out);
        }
    }
}
