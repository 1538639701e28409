//! The product of quantized rows with packed weights.

use std::ops::Range;

use rayon::prelude::*;

use super::dots::{Dots, DotsKernel, Part};
use super::levels::Strips;
use super::panels::Panels;
use super::sink::{Keep, Scale};
use crate::kernels::buffer::SharedRows;
use crate::kernels::finish::Then;
use crate::kernels::lanes::Lanes;
use crate::kernels::scratch::with_scratch;
use crate::kernels::split::{Split, Strips as StripSize};

/// A product.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    /// The rows.
    pub(super) strips: &'a Strips,
    /// The weights.
    pub(super) panels: &'a Panels,
    /// One value per output column, zeros up to whole panels.
    pub(super) bias: &'a [f32],
    /// What follows.
    pub(super) then: Then<'a>,
}

/// Writes the result, `[rows, columns]`.
pub(super) fn multiply<D: Dots>(dots: D, of: Product<'_>, out: &mut [f32]) {
    let (columns, panels) = (of.panels.columns(), of.panels.count());
    assert!(of.bias.len() >= panels * D::Lanes::PANEL, "a bias for every column of every panel");
    let strip = StripSize { height: D::STRIP, bytes: of.strips.shape().words * size_of::<f32>() };
    let split = Split::new(out.len() / columns, strip, panels, rayon::current_num_threads());
    let out = SharedRows::new(out, columns);
    (0..split.tasks()).into_par_iter().for_each(|task| {
        let (rows, panels) = split.task(task);
        with_scratch(2 * D::STRIP * D::Lanes::PANEL, |scratch| {
            let (totals, high) = scratch.split_at_mut(D::STRIP * D::Lanes::PANEL);
            dots.enter(RowBlock { of, rows, panels, totals, high, out: &out });
        });
    });
}

/// One task: some rows against some panels.
struct RowBlock<'a> {
    of: Product<'a>,
    rows: Range<usize>,
    panels: Range<usize>,
    /// Totals of a strip with a panel, `[row][column]`.
    totals: &'a mut [f32],
    /// Sums of upper digits, likewise.
    high: &'a mut [f32],
    out: &'a SharedRows<'a>,
}

impl DotsKernel for RowBlock<'_> {
    #[inline(always)]
    fn run<D: Dots>(mut self, dots: D) {
        let mut session = dots.begin(self.of.strips.quantization().group);
        for panel in self.panels.clone() {
            for first in self.rows.clone().step_by(D::STRIP) {
                let rows = first..(first + D::STRIP).min(self.rows.end);
                self.multiply(dots, &mut session, rows.clone(), panel);
                self.finish(dots.lanes(), rows, panel);
            }
        }
    }
}

impl RowBlock<'_> {
    /// The totals of a strip with a panel, group by group.
    #[inline(always)]
    fn multiply<D: Dots>(&mut self, dots: D, session: &mut D::Session, rows: Range<usize>, panel: usize) {
        let Product { strips, panels, bias, .. } = self.of;
        let (index, shape) = (rows.start / D::STRIP, strips.shape());
        let (low, high) = strips.digits(index);
        let bias = &bias[panel * D::Lanes::PANEL..][..D::Lanes::PANEL];
        let tile = D::STRIP * D::Lanes::PANEL;
        assert!(self.totals.len() >= tile && self.high.len() >= tile, "room for a strip's totals");
        for group in 0..strips.quantization().groups() {
            let (weights, starts, column_scales) = panels.group(panel, group);
            let row_scales = strips.scales(index, group);
            assert!(
                row_scales.len() == D::STRIP && starts.len() == D::Lanes::PANEL,
                "whole strips and panels"
            );
            assert_eq!(weights.len(), shape.group_words * D::WORD * D::Lanes::PANEL, "a whole group");
            let part = Part {
                strip: low.as_ptr().cast(),
                row_words: shape.row_words,
                group,
                group_words: shape.group_words,
                panel: weights.as_ptr(),
                starts: starts.as_ptr(),
            };
            let (after, kept) = (self.totals.as_mut_ptr(), self.high.as_mut_ptr());
            // Read through the pointer that is written through: another would not outlive the first write.
            let (before, before_step) = match group {
                0 => (bias.as_ptr(), 0),
                _ => (after.cast_const(), D::Lanes::PANEL),
            };
            let (row_scales, column_scales) = (row_scales.as_ptr(), column_scales.as_ptr());
            let scale = Scale::<false> { row_scales, column_scales, before, before_step, after, high: kept };
            // SAFETY: a task's rows are 1 to STRIP of one strip; strips and panels were made by `Dots` of this kind for
            // groups of this length, and are whole by the assertions. The sinks read a scale per row and per column
            // and read and write totals and kept sums of a strip, which are disjoint.
            unsafe {
                if high.is_empty() {
                    dots.multiply(session, rows.len(), part, scale);
                } else {
                    let upper = Part { strip: high.as_ptr().cast(), ..part };
                    dots.multiply(session, rows.len(), upper, Keep { to: kept });
                    dots.multiply(session, rows.len(), part, scale.with_high());
                }
            }
        }
    }

    #[inline(always)]
    fn finish<V: Lanes>(&self, v: V, rows: Range<usize>, panel: usize) {
        let columns = self.of.panels.columns();
        let first = panel * V::PANEL;
        let len = V::PANEL.min(columns - first);
        for (row, totals) in rows.zip(self.totals.chunks_exact(V::PANEL)) {
            let y = [v.load(totals), v.load(&totals[V::LANES..])];
            // SAFETY: tasks have disjoint rectangles of rows and panels, and a task meets each row once per panel.
            let out = unsafe { self.out.row_part(row, first, len) };
            self.of.then.finish(v, y, row * columns + first, out);
        }
    }
}
