//! Linear maps in f32: `y = x · wᵀ + bias`, with what follows it fused in.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::buffer::SharedRows;
use super::finish::Then;
use super::lanes::{Bf16, Element, F16, Kernel, Lanes};
use super::pack::{PackGroup, PanelType, Panels};
use super::scratch::{cut, lines, with_scratch};
use super::split::{Split, Strips};
use super::tile::{Block, FEW_ROWS, State, Totals, add_block, blocks, dot_few};

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
    match of.panels.elements() {
        PanelType::F32 => linear_of::<V, f32>(v, of, out),
        PanelType::Bf16 => linear_of::<V, Bf16>(v, of, out),
        PanelType::F16 => linear_of::<V, F16>(v, of, out),
    }
}

fn linear_of<V: Lanes, E: Element>(v: V, of: LinearRows<'_>, out: &mut [f32]) {
    let (depth, columns) = (of.panels.depth, of.panels.columns);
    let rows = out.len() / columns;
    assert!(out.len() == rows * columns && of.x.len() == rows * depth, "whole rows");
    assert!(of.bias.len() >= of.panels.count() * V::PANEL, "a bias for every column of every panel");
    of.then.check(out.len());
    let is_packed = rows > FEW_ROWS;
    let strip = Strips { height: V::STRIP, bytes: strip_floats::<V>(depth) * size_of::<f32>() };
    let split = Split::new(rows, strip, of.panels.count(), rayon::current_num_threads());
    let out = SharedRows::new(out, columns);
    (0..split.tasks()).into_par_iter().for_each(|task| {
        let (rows, panels) = split.task(task);
        let strips = rows.len().div_ceil(V::STRIP);
        let packed = if is_packed { strips * strip_floats::<V>(depth) } else { 0 };
        with_scratch(packed + lines(strips * V::STRIP * V::PANEL), |mut scratch| {
            let strips = cut(&mut scratch, packed);
            let block = RowBlock { of, rows, panels, strips, totals: scratch, out: &out };
            v.enter(OfElements { block, elements: PhantomData::<E> });
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
    /// Packed rows, or nothing where they are so few that they stay as they are.
    strips: &'a mut [f32],
    totals: &'a mut [f32],
    out: &'a SharedRows<'a>,
}

struct OfElements<'a, E> {
    block: RowBlock<'a>,
    elements: PhantomData<E>,
}

impl<E: Element> Kernel for OfElements<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, v: V) {
        let Self { mut block, .. } = self;
        if block.strips.is_empty() {
            for panel in block.panels.clone() {
                block.multiply_few::<V, E>(v, panel);
                block.finish(v, panel);
            }
        } else {
            block.pack_rows(v);
            for panel in block.panels.clone() {
                block.multiply::<V, E>(v, panel);
                block.finish(v, panel);
            }
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

    /// The dot products of one to [`FEW_ROWS`] rows with one panel, which passes through once.
    #[inline(always)]
    fn multiply_few<V: Lanes, E: Element>(&mut self, v: V, panel: usize) {
        let depth = self.of.panels.depth;
        let panel: &[E] = self.of.panels.panel(panel);
        let x = &self.of.x[self.rows.start * depth..self.rows.end * depth];
        let rows = self.rows.len();
        assert!((1..=FEW_ROWS).contains(&rows) && panel.len() == depth * V::PANEL, "few rows, a whole panel");
        assert!(self.totals.len() >= rows * V::PANEL, "room for all totals");
        let block = Block {
            depth,
            strip: x.as_ptr(),
            strip_step: 1,
            row_step: depth,
            panel: panel.as_ptr(),
            panel_step: V::PANEL,
        };
        let totals = Totals { at: self.totals.as_mut_ptr(), step: V::PANEL, state: State::Fresh };
        // SAFETY: rows, panel and totals hold what is read and written, by the assertions; `totals` is borrowed
        // exclusively.
        unsafe { dot_few(v, rows, block, totals) };
    }

    /// The dot products of all rows with one panel. Blocks are the outer loop: a block of the panel stays in the
    /// first-level cache while the strips pass.
    #[inline(always)]
    fn multiply<V: Lanes, E: Element>(&mut self, v: V, panel: usize) {
        let depth = self.of.panels.depth;
        let panel: &[E] = self.of.panels.panel(panel);
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
                    row_step: 1,
                    panel: panel[start * V::PANEL..].as_ptr(),
                    panel_step: V::PANEL,
                };
                let at = self.totals[strip * V::STRIP * V::PANEL..].as_mut_ptr();
                let totals = Totals { at, step: V::PANEL, state: State::before(start) };
                // SAFETY: `rows` is at most STRIP and not 0; strip, panel and totals hold what is read and
                // written, by the assertions and start + len ≤ depth; `totals` is borrowed exclusively.
                unsafe { add_block(v, rows, block, totals) };
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
