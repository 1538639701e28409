//! Attention over whole sequences, one task per sequence and head.
//!
//! Everything is laid out with *query rows* in the lanes: a panel of queries, scores `[key][query]`, outputs
//! `[column][query]`. The greatest score, the exponentials, the 64 lanes of their sum and the division are then
//! plain vertical operations, and the scores have, as they stand, the layout of the panel that the
//! product with the values reads. No sum crosses lanes and nothing is transposed but queries and outputs.

use std::ops::Range;

use rayon::prelude::*;

use super::buffer::SharedRows;
use super::elementwise::{exp, store_rule};
use super::lanes::{Kernel, Lanes};
use super::pack::PackGroup;
use super::scratch::{cut, lines, with_scratch};
use super::tile::{Block, State, Totals, add_block, blocks};

/// Heads of an attention and the factor on its scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Heads {
    /// Number of heads.
    pub(crate) count: usize,
    /// Number of heads of the keys and values; divides `count`. Heads that follow each other share one.
    pub(crate) kv_count: usize,
    /// Columns of a head.
    pub(crate) width: usize,
    /// Factor on every score.
    pub(crate) scale: f32,
}

impl Heads {
    /// The head of keys and values that a head reads.
    pub(crate) fn kv_of(&self, head: usize) -> usize {
        head / (self.count / self.kv_count)
    }

    /// Columns of the queries and of the output.
    pub(crate) fn stride(&self) -> usize {
        self.count * self.width
    }

    /// Columns of the keys and of the values.
    pub(crate) fn kv_stride(&self) -> usize {
        self.kv_count * self.width
    }
}

/// The three inputs: queries `[rows, stride]`, keys and values `[rows, kv_stride]` of [`Heads`].
#[derive(Clone, Copy)]
pub(crate) struct Qkv<'a> {
    /// Queries.
    pub(crate) q: &'a [f32],
    /// Keys.
    pub(crate) k: &'a [f32],
    /// Values.
    pub(crate) v: &'a [f32],
}

/// Lanes of the sum of exponentials.
const SUM_LANES: usize = gainsay_arithmetic::LANES;

/// Writes the outputs, `[rows, heads · width]`; `sequences` are disjoint ranges of rows.
pub(crate) fn attention<V: Lanes>(
    v: V,
    heads: Heads,
    qkv: Qkv<'_>,
    sequences: &[Range<usize>],
    out: &mut [f32],
) {
    let kv_len = out.len() / heads.stride() * heads.kv_stride();
    assert!(qkv.q.len() == out.len() && qkv.k.len() == kv_len && qkv.v.len() == kv_len, "one number of rows");
    let out = SharedRows::new(out, heads.stride());
    (0..sequences.len() * heads.count).into_par_iter().for_each(|task| {
        let sequence = &sequences[task / heads.count];
        let head = HeadTask { heads, head: task % heads.count, qkv, sequence: sequence.clone(), out: &out };
        let sizes = Sizes::new::<V>(sequence.len(), heads.width);
        with_scratch(sizes.total(), |scratch| v.enter(WithScratch { head, sizes, scratch }));
    });
}

/// One head of one sequence.
struct HeadTask<'a> {
    heads: Heads,
    head: usize,
    qkv: Qkv<'a>,
    sequence: Range<usize>,
    out: &'a SharedRows<'a>,
}

/// Floats of each working buffer, in whole cache lines.
struct Sizes {
    key_strip: usize,
    keys: usize,
    values: usize,
    queries: usize,
    scores: usize,
    sum_lanes: usize,
    outputs: usize,
    rows: usize,
    row: usize,
}

impl Sizes {
    fn new<V: Lanes>(keys: usize, width: usize) -> Self {
        let key_strip = lines(width * V::STRIP + V::LANES);
        let row = width.next_multiple_of(V::LANES);
        Self {
            key_strip,
            keys: keys.div_ceil(V::STRIP) * key_strip,
            values: lines(keys * width + V::STRIP),
            queries: lines(width * V::PANEL + V::LANES),
            scores: lines(keys.next_multiple_of(V::STRIP) * V::PANEL),
            sum_lanes: SUM_LANES * V::PANEL,
            outputs: lines((width.next_multiple_of(V::STRIP).max(row)) * V::PANEL),
            rows: lines(V::PANEL * row),
            row,
        }
    }

    fn total(&self) -> usize {
        self.keys + self.values + self.queries + self.scores + self.sum_lanes + self.outputs + self.rows
    }
}

/// The working buffers of one head.
struct Working<'a> {
    /// Keys in strips: `[strip][column][key]`.
    keys: &'a mut [f32],
    /// Values of the head, `[key][column]`, and room for the last tile's surplus rows.
    values: &'a mut [f32],
    /// A panel of queries, `[column][query]`.
    queries: &'a mut [f32],
    /// Scores, then their exponentials, `[key][query]`.
    scores: &'a mut [f32],
    /// The lanes of the exponentials' sum, `[lane][query]`.
    sum_lanes: &'a mut [f32],
    /// `[column][query]`.
    outputs: &'a mut [f32],
    /// Outputs transposed, `[query][column]`.
    rows: &'a mut [f32],
}

struct WithScratch<'a> {
    head: HeadTask<'a>,
    sizes: Sizes,
    scratch: &'a mut [f32],
}

impl Kernel for WithScratch<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, v: V) {
        let Self { head, sizes, scratch: mut rest } = self;
        let mut working = Working {
            keys: cut(&mut rest, sizes.keys),
            values: cut(&mut rest, sizes.values),
            queries: cut(&mut rest, sizes.queries),
            scores: cut(&mut rest, sizes.scores),
            sum_lanes: cut(&mut rest, sizes.sum_lanes),
            outputs: cut(&mut rest, sizes.outputs),
            rows: cut(&mut rest, sizes.rows),
        };
        head.pack_keys_and_values(v, &sizes, &mut working);
        for first in head.sequence.clone().step_by(V::PANEL) {
            let queries = first..(first + V::PANEL).min(head.sequence.end);
            head.pack_queries(v, &queries, &mut working);
            head.scores(v, &sizes, &mut working);
            let greatest = scale_and_find_greatest(v, head.heads.scale, head.sequence.len(), working.scores);
            exponentials(v, greatest, head.sequence.len(), &mut working);
            let sums = fold_lanes(v, working.sum_lanes);
            head.weigh_values(v, &mut working);
            head.finish(v, &sizes, sums, queries, &mut working);
        }
    }
}

impl HeadTask<'_> {
    /// The part of keys or values from `row` on, starting at the first column of the head that this one reads.
    #[inline(always)]
    fn from<'x>(&self, x: &'x [f32], row: usize) -> &'x [f32] {
        &x[row * self.heads.kv_stride() + self.heads.kv_of(self.head) * self.heads.width..]
    }

    #[inline(always)]
    fn pack_keys_and_values<V: Lanes>(&self, v: V, sizes: &Sizes, working: &mut Working<'_>) {
        let width = self.heads.width;
        let strips = working.keys.chunks_exact_mut(sizes.key_strip);
        for (first, out) in self.sequence.clone().step_by(V::STRIP).zip(strips) {
            PackGroup {
                from: self.from(self.qkv.k, first),
                stride: self.heads.kv_stride(),
                rows: V::STRIP.min(self.sequence.end - first),
                depth: width,
                group: V::STRIP,
                out,
            }
            .run(v);
        }
        for (row, out) in self.sequence.clone().zip(working.values.chunks_exact_mut(width)) {
            out.copy_from_slice(&self.from(self.qkv.v, row)[..width]);
        }
        working.values[self.sequence.len() * width..].fill(0.0);
    }

    #[inline(always)]
    fn pack_queries<V: Lanes>(&self, v: V, rows: &Range<usize>, working: &mut Working<'_>) {
        PackGroup {
            from: &self.qkv.q[rows.start * self.heads.stride() + self.head * self.heads.width..],
            stride: self.heads.stride(),
            rows: rows.len(),
            depth: self.heads.width,
            group: V::PANEL,
            out: working.queries,
        }
        .run(v);
    }

    /// The dot products of all keys with the panel of queries.
    #[inline(always)]
    fn scores<V: Lanes>(&self, v: V, sizes: &Sizes, working: &mut Working<'_>) {
        let (keys, width) = (self.sequence.len(), self.heads.width);
        let strips = keys.div_ceil(V::STRIP);
        assert!(working.keys.len() >= strips * sizes.key_strip, "all keys are packed");
        assert!(sizes.key_strip >= width * V::STRIP, "a strip holds whole keys");
        assert!(working.queries.len() >= width * V::PANEL, "a whole panel of queries");
        assert!(working.scores.len() >= strips * V::STRIP * V::PANEL, "room for all scores");
        for strip in 0..strips {
            for (start, len) in blocks(width) {
                let rows = V::STRIP.min(keys - strip * V::STRIP);
                let block = Block {
                    depth: len,
                    strip: working.keys[strip * sizes.key_strip + start * V::STRIP..].as_ptr(),
                    strip_step: V::STRIP,
                    row_step: 1,
                    panel: working.queries[start * V::PANEL..].as_ptr(),
                    panel_step: V::PANEL,
                };
                let at = working.scores[strip * V::STRIP * V::PANEL..].as_mut_ptr();
                let totals = Totals { at, step: V::PANEL, state: State::before(start) };
                // SAFETY: at least one and at most STRIP rows; start + len ≤ width, so that strip, panel and
                // scores hold what is read and written, by the assertions; `scores` is borrowed exclusively.
                unsafe { add_block(v, rows, block, totals) };
            }
        }
    }

    /// The dot products of the exponentials with every column of the values, blocks counted in keys.
    #[inline(always)]
    fn weigh_values<V: Lanes>(&self, v: V, working: &mut Working<'_>) {
        let (keys, width) = (self.sequence.len(), self.heads.width);
        assert!(working.values.len() >= keys * width + V::STRIP, "all values, and room for surplus rows");
        assert!(working.scores.len() >= keys * V::PANEL, "all exponentials");
        assert!(working.outputs.len() >= width.next_multiple_of(V::STRIP) * V::PANEL, "room for all columns");
        for (start, len) in blocks(keys) {
            for column in (0..width).step_by(V::STRIP) {
                let rows = V::STRIP.min(width - column);
                let block = Block {
                    depth: len,
                    strip: working.values[start * width + column..].as_ptr(),
                    strip_step: width,
                    row_step: 1,
                    panel: working.scores[start * V::PANEL..].as_ptr(),
                    panel_step: V::PANEL,
                };
                let at = working.outputs[column * V::PANEL..].as_mut_ptr();
                let totals = Totals { at, step: V::PANEL, state: State::before(start) };
                // SAFETY: at least one and at most STRIP rows. The strip's element k of row i is the value of key
                // start + k in column + i: the last float read is below keys·width + STRIP. Exponentials and
                // outputs are long enough by the assertions; `outputs` is borrowed exclusively.
                unsafe { add_block(v, rows, block, totals) };
            }
        }
    }

    /// Divides by the sums, stores, and puts the rows in their places.
    #[inline(always)]
    fn finish<V: Lanes>(
        &self,
        v: V,
        sizes: &Sizes,
        sums: [V::F; 2],
        queries: Range<usize>,
        working: &mut Working<'_>,
    ) {
        let width = self.heads.width;
        for column in working.outputs.chunks_exact_mut(V::PANEL).take(width) {
            for (x, sum) in column.chunks_exact_mut(V::LANES).zip(sums) {
                v.store(store_rule(v, v.div(v.load(x), sum)), x);
            }
        }
        assert!(working.outputs.len() >= sizes.row * V::PANEL, "whole squares of outputs");
        assert!(working.rows.len() >= V::PANEL * sizes.row, "room for whole squares");
        for column in (0..width).step_by(V::LANES) {
            for half in [0, V::LANES] {
                // SAFETY: the square reads columns column .. column + LANES ≤ row of the outputs and writes rows
                // half .. half + LANES ≤ PANEL of `rows`, each inside its row: in bounds by the assertions.
                unsafe {
                    let from = working.outputs.as_ptr().add(column * V::PANEL + half);
                    let to = working.rows.as_mut_ptr().add(half * sizes.row + column);
                    v.transpose(from, V::PANEL, V::LANES.min(width - column), to, sizes.row);
                }
            }
        }
        for (row, from) in queries.zip(working.rows.chunks_exact(sizes.row)) {
            // SAFETY: each task has its own sequence and head, hence its own rectangle; each row comes once.
            let out = unsafe { self.out.row_part(row, self.head * width, width) };
            out.copy_from_slice(&from[..width]);
        }
    }
}

#[inline(always)]
fn scale_and_find_greatest<V: Lanes>(v: V, scale: f32, keys: usize, scores: &mut [f32]) -> [V::F; 2] {
    let scale = v.splat(scale);
    let mut greatest = [v.splat(f32::NEG_INFINITY); 2];
    for key in scores.chunks_exact_mut(V::PANEL).take(keys) {
        for (score, greatest) in key.chunks_exact_mut(V::LANES).zip(&mut greatest) {
            let scaled = v.mul(v.load(score), scale);
            *greatest = v.max(scaled, *greatest);
            v.store(scaled, score);
        }
    }
    greatest
}

/// Turns scores into exponentials and adds them up in lanes: lane j takes the keys j, j + 64, … in order.
#[inline(always)]
fn exponentials<V: Lanes>(v: V, greatest: [V::F; 2], keys: usize, working: &mut Working<'_>) {
    let lanes = working.sum_lanes.chunks_exact_mut(V::PANEL);
    for (lane, sums) in lanes.enumerate() {
        let mut sum = [v.splat(0.0); 2];
        for key in (lane..keys).step_by(SUM_LANES) {
            let scores = &mut working.scores[key * V::PANEL..(key + 1) * V::PANEL];
            for (half, score) in scores.chunks_exact_mut(V::LANES).enumerate() {
                let e = exp(v, v.sub(v.load(score), greatest[half]));
                sum[half] = v.add(sum[half], e);
                v.store(e, score);
            }
        }
        v.store(sum[0], sums);
        v.store(sum[1], &mut sums[V::LANES..]);
    }
}

/// `lane[j] += lane[j + 32]`, then + 16, …, + 1; the result is lane 0.
#[inline(always)]
fn fold_lanes<V: Lanes>(v: V, lanes: &mut [f32]) -> [V::F; 2] {
    let mut count = SUM_LANES / 2;
    while count > 0 {
        let (low, high) = lanes.split_at_mut(count * V::PANEL);
        for (a, b) in low.chunks_exact_mut(V::LANES).zip(high.chunks_exact(V::LANES)) {
            v.store(v.add(v.load(a), v.load(b)), a);
        }
        count /= 2;
    }
    [v.load(lanes), v.load(&lanes[V::LANES..])]
}
