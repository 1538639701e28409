//! Attention of new rows to what came before them and to themselves, over the keys and values of a cache.
//!
//! One task takes up to [`Lanes::STRIP`] queries that read the same head of keys: rows that follow each other, and for
//! each of them the heads that share it. Its scores, `[query][key]`, are all that is ever held of the scores. A query's
//! keys end with its own token: that is a loop bound, and no weight of a later key is ever zero instead, since zero times
//! a NaN is none. Blocks count keys from the start of the sequence, so a row has the same bits whether it came in a
//! prompt of thousands or alone.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::attention::Heads;
use super::buffer::SharedRows;
use super::cache::{KvCache, KvPlace, KvType, PAGE_TOKENS};
use super::elementwise::{exp, load_front, store_front, store_rule};
use super::lanes::{Bf16, Element, Kernel, Lanes};
use super::pack::PackGroup;
use super::rows::sum64;
use super::scratch::{cut, lines, with_scratch};
use super::tile::{Block, FEW_ROWS, State, Totals, add_block, add_few, blocks};

/// Rows of one sequence that a batch holds, and the cache that holds their keys and values and all before.
pub(crate) struct CausalRows<'a> {
    /// Where they are in the batch.
    pub(crate) rows: Range<usize>,
    /// The first of them, counted in the sequence.
    pub(crate) first: usize,
    /// The sequence's cache.
    pub(crate) cache: &'a KvCache,
}

/// Queries that one task takes.
struct Task<'a> {
    of: &'a CausalRows<'a>,
    head: usize,
    queries: Range<usize>,
}

/// Writes the outputs, `[rows, heads · width]`.
pub(crate) fn causal<V: Lanes>(
    v: V,
    heads: Heads,
    place: KvPlace,
    q: &[f32],
    sequences: &[CausalRows<'_>],
    out: &mut [f32],
) {
    assert_eq!(q.len(), out.len(), "an output for every query");
    let shared = heads.count / heads.kv_count;
    let out = SharedRows::new(out, heads.count * heads.width);
    let tasks = sequences.iter().flat_map(|of| {
        let queries = of.rows.len() * shared;
        (0..heads.kv_count).flat_map(move |head| {
            let strips = (0..queries).step_by(V::STRIP);
            strips.map(move |first| Task { of, head, queries: first..(first + V::STRIP).min(queries) })
        })
    });
    let tasks: Vec<_> = tasks.collect();
    tasks.into_par_iter().for_each(|task| {
        let queries = Queries { heads, place, q, task: &task, out: &out };
        let sizes = Sizes::new::<V>(queries.keys_of(task.queries.end - 1), heads.width);
        with_scratch(sizes.total(), |scratch| match task.of.cache.kind() {
            KvType::F32 => v.enter(Entered { queries, sizes, scratch, elements: PhantomData::<f32> }),
            KvType::Bf16 => v.enter(Entered { queries, sizes, scratch, elements: PhantomData::<Bf16> }),
        });
    });
}

/// Floats of each working buffer, in whole cache lines.
struct Sizes {
    queries: usize,
    scores_step: usize,
    scores: usize,
    weights: usize,
    outputs_step: usize,
    outputs: usize,
}

impl Sizes {
    fn new<V: Lanes>(keys: usize, width: usize) -> Self {
        let scores_step = keys.next_multiple_of(V::PANEL);
        let outputs_step = width.next_multiple_of(V::PANEL);
        Self {
            queries: lines(width * V::STRIP),
            scores_step,
            scores: lines(V::STRIP * scores_step),
            weights: lines(PAGE_TOKENS * V::STRIP + V::LANES),
            outputs_step,
            outputs: lines(V::STRIP * outputs_step),
        }
    }

    fn total(&self) -> usize {
        self.queries + self.scores + self.weights + 2 * self.outputs
    }
}

/// The working buffers of a task.
struct Working<'a> {
    /// `[column][query]`.
    queries: &'a mut [f32],
    /// Scores, then their exponentials, `[query][key]`.
    scores: &'a mut [f32],
    /// The exponentials of one page, `[key][query]`.
    weights: &'a mut [f32],
    /// Sums of the block at hand, `[query][column]`.
    partial: &'a mut [f32],
    /// Sums of the blocks before, `[query][column]`.
    outputs: &'a mut [f32],
}

struct Entered<'a, E> {
    queries: Queries<'a>,
    sizes: Sizes,
    scratch: &'a mut [f32],
    elements: PhantomData<E>,
}

impl<E: Element> Kernel for Entered<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, v: V) {
        let Self { queries, sizes, scratch: mut rest, .. } = self;
        let mut working = Working {
            queries: cut(&mut rest, sizes.queries),
            scores: cut(&mut rest, sizes.scores),
            weights: cut(&mut rest, sizes.weights),
            partial: cut(&mut rest, sizes.outputs),
            outputs: cut(&mut rest, sizes.outputs),
        };
        queries.pack::<V>(&mut working);
        queries.scores::<V, E>(v, &sizes, &mut working);
        const MOST: usize = 16;
        const { assert!(V::STRIP <= MOST, "a sum for every query") };
        let mut sums = [0.0; MOST];
        for (query, sum) in queries.task.queries.clone().zip(&mut sums) {
            let row = &mut working.scores[(query - queries.task.queries.start) * sizes.scores_step..];
            *sum = exponentials(v, queries.heads.scale, &mut row[..queries.keys_of(query)]);
        }
        working.outputs.fill(0.0);
        let keys = queries.keys_of(queries.task.queries.end - 1);
        for page in 0..keys.div_ceil(PAGE_TOKENS) {
            queries.weigh::<V, E>(v, &sizes, page, &mut working);
        }
        queries.finish(v, &sizes, &sums, &mut working);
    }
}

/// The queries of a task with what they read.
#[derive(Clone, Copy)]
struct Queries<'a> {
    heads: Heads,
    place: KvPlace,
    q: &'a [f32],
    task: &'a Task<'a>,
    out: &'a SharedRows<'a>,
}

impl Queries<'_> {
    /// Heads that share one of keys.
    #[inline(always)]
    fn shared(&self) -> usize {
        self.heads.count / self.heads.kv_count
    }

    /// Row in the batch and first column of a query.
    #[inline(always)]
    fn place_of(&self, query: usize) -> (usize, usize) {
        let head = self.task.head * self.shared() + query % self.shared();
        (self.task.of.rows.start + query / self.shared(), head * self.heads.width)
    }

    /// Keys that a query attends to.
    #[inline(always)]
    fn keys_of(&self, query: usize) -> usize {
        self.task.of.first + query / self.shared() + 1
    }

    #[inline(always)]
    fn pack<V: Lanes>(&self, working: &mut Working<'_>) {
        let stride = self.heads.count * self.heads.width;
        for (i, query) in self.task.queries.clone().enumerate() {
            let (row, column) = self.place_of(query);
            let from = &self.q[row * stride + column..][..self.heads.width];
            let out = working.queries[i..].iter_mut().step_by(V::STRIP);
            out.zip(from).for_each(|(out, &x)| *out = x);
        }
    }

    /// The dot products of all queries with all keys, those that later queries alone attend to included.
    #[inline(always)]
    fn scores<V: Lanes, E: Element>(&self, v: V, sizes: &Sizes, working: &mut Working<'_>) {
        let width = self.heads.width;
        let rows = self.task.queries.len();
        let keys = self.keys_of(self.task.queries.end - 1);
        assert!(working.queries.len() >= width * V::STRIP, "whole queries");
        assert!(
            sizes.scores_step >= keys && working.scores.len() >= V::STRIP * sizes.scores_step,
            "room for all scores"
        );
        for first in (0..keys).step_by(V::PANEL) {
            let page = self.task.of.cache.keys::<E>(self.place, self.task.head, first / PAGE_TOKENS);
            let panel = &page[first % PAGE_TOKENS * width..][..V::PANEL * width];
            for (start, depth) in blocks(width) {
                let block = Block {
                    depth,
                    strip: working.queries[start * V::STRIP..].as_ptr(),
                    strip_step: V::STRIP,
                    row_step: 1,
                    panel: panel[start * V::PANEL..].as_ptr(),
                    panel_step: V::PANEL,
                };
                let at = working.scores[first..].as_mut_ptr();
                let totals = Totals { at, step: sizes.scores_step, state: State::before(start) };
                // SAFETY: at least one and at most STRIP rows; start + depth ≤ width, so that queries and panel hold what
                // is read; the panel's scores end within each row, whose step is a multiple of a panel and not below
                // the number of keys; `scores` is borrowed exclusively.
                unsafe { add_block(v, rows, block, totals) };
            }
        }
    }

    /// Adds the dot products of the exponentials of one page with every column of the values.
    #[inline(always)]
    fn weigh<V: Lanes, E: Element>(&self, v: V, sizes: &Sizes, page: usize, working: &mut Working<'_>) {
        let (width, rows) = (self.heads.width, self.task.queries.len());
        let values = self.task.of.cache.values::<E>(self.place, self.task.head, page);
        let before = page * PAGE_TOKENS;
        let in_page = |query: usize| self.keys_of(query).saturating_sub(before).min(PAGE_TOKENS);
        let (common, most) = (in_page(self.task.queries.start), in_page(self.task.queries.end - 1));
        assert!(values.len() >= most * width + V::PANEL, "all values, and room for surplus columns");
        assert!(sizes.outputs_step >= width && working.partial.len() >= V::STRIP * sizes.outputs_step);
        assert!(working.scores.len() >= (rows - 1) * sizes.scores_step + before + common, "all weights");
        if common == 0 {
            working.partial.fill(0.0);
        } else {
            if rows > FEW_ROWS {
                PackGroup {
                    from: &working.scores[before..],
                    stride: sizes.scores_step,
                    rows,
                    depth: common,
                    group: V::STRIP,
                    out: working.weights,
                }
                .run(v);
            }
            for column in (0..width).step_by(V::PANEL) {
                let at = working.partial[column..].as_mut_ptr();
                let totals = Totals { at, step: sizes.outputs_step, state: State::Fresh };
                let panel = values[column..].as_ptr();
                let block = Block {
                    depth: common,
                    strip: working.scores[before..].as_ptr(),
                    strip_step: 1,
                    row_step: sizes.scores_step,
                    panel,
                    panel_step: width,
                };
                // SAFETY: at least one and at most STRIP rows, of which few are read where they are, within the scores
                // by the third assertion, and more from their packed form of `common` elements. A panel of values
                // ends below most·width + PANEL, by the first; each row of totals has room for whole panels, by
                // the second, and they are borrowed exclusively.
                unsafe {
                    if rows > FEW_ROWS {
                        let strip = working.weights.as_ptr();
                        add_block(
                            v,
                            rows,
                            Block { strip, strip_step: V::STRIP, row_step: 1, ..block },
                            totals,
                        );
                    } else {
                        add_few(v, rows, block, totals);
                    }
                }
            }
        }
        for (i, query) in self.task.queries.clone().enumerate() {
            let weights = &working.scores[i * sizes.scores_step + before..][..in_page(query)];
            let partial = &mut working.partial[i * sizes.outputs_step..][..sizes.outputs_step];
            let outputs = &mut working.outputs[i * sizes.outputs_step..][..sizes.outputs_step];
            for column in (0..width).step_by(V::LANES) {
                let mut sum = v.load(&partial[column..]);
                for (key, &weight) in weights.iter().enumerate().skip(common) {
                    // SAFETY: key < most and column < width: the vector ends below most·width + PANEL.
                    let value = unsafe { E::load(v, values.as_ptr().add(key * width + column)) };
                    sum = v.fma(v.splat(weight), value, sum);
                }
                let output = &mut outputs[column..];
                v.store(v.add(v.load(output), sum), output);
            }
        }
    }

    /// Divides by the sums, stores, and puts the rows in their places.
    #[inline(always)]
    fn finish<V: Lanes>(&self, v: V, sizes: &Sizes, sums: &[f32], working: &mut Working<'_>) {
        for (i, query) in self.task.queries.clone().enumerate() {
            let from = &working.outputs[i * sizes.outputs_step..];
            let (row, column) = self.place_of(query);
            // SAFETY: each task has its own queries, and each query its own row and columns of its head.
            let out = unsafe { self.out.row_part(row, column, self.heads.width) };
            let sum = v.splat(sums[i]);
            for (x, out) in from.chunks_exact(V::LANES).zip(out.chunks_mut(V::LANES)) {
                store_front(v, store_rule(v, v.div(v.load(x), sum)), out);
            }
        }
    }
}

/// Makes products of a query the exponentials of its scores, and returns their sum.
#[inline(always)]
fn exponentials<V: Lanes>(v: V, scale: f32, row: &mut [f32]) -> f32 {
    let lowest = v.splat(f32::NEG_INFINITY);
    let mut greatest = lowest;
    for x in row.chunks_mut(V::LANES) {
        let len = x.len();
        let scaled = v.mul(load_front(v, x), v.splat(scale));
        store_front(v, scaled, x);
        if len == V::LANES {
            greatest = v.max(scaled, greatest);
        } else {
            let mut last = [f32::NEG_INFINITY; 16];
            last[..len].copy_from_slice(x);
            greatest = v.max(v.load(&last), greatest);
        }
    }
    let mut lanes = [f32::NEG_INFINITY; 16];
    v.store(greatest, &mut lanes);
    let greatest = v.splat(gainsay_arithmetic::max(&lanes));
    for x in row.chunks_mut(V::LANES) {
        store_front(v, exp(v, v.sub(load_front(v, x), greatest)), x);
    }
    sum64::<V, false>(v, row)
}
