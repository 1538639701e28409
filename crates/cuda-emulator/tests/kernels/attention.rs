//! Attention, of whole sequences and over a cache.

use crate::support::{SEEDS, assert_same, at, at_mut, bytes_at, numbers, run, with_specials};
use gainsay_arithmetic::attention::{output, score, weight};
use gainsay_arithmetic::{max, round_bf16, store, widen_bf16};
use gainsay_cuda_launch::attention::{Cache, Heads, PAGE_TOKENS, Plan, Room, Segment, append};

/// What a query attends to, row by row: keys and values, `[kv_count · width]` each.
struct Attended<'a> {
    heads: Heads,
    keys: Vec<&'a [f32]>,
    values: Vec<&'a [f32]>,
}

impl Attended<'_> {
    /// The output of a row of queries, of all heads.
    fn output(&self, q: &[f32]) -> Vec<f32> {
        let Heads { count, kv_count, width, scale } = self.heads;
        let width = width as usize;
        let heads = (0..count as usize).flat_map(|head| {
            let columns = head / (count / kv_count) as usize * width..;
            let q = &q[head * width..][..width];
            let scores: Vec<f32> =
                self.keys.iter().map(|key| score(q, &key[columns.clone()][..width], scale)).collect();
            let greatest = max(&scores);
            let weights: Vec<f32> = scores.iter().map(|&score| weight(score, greatest)).collect();
            let column = |c: usize| -> Vec<f32> {
                self.values.iter().map(|value| value[columns.clone()][c]).collect()
            };
            (0..width).map(|c| store(output(&weights, &column(c)))).collect::<Vec<_>>()
        });
        heads.collect()
    }
}

fn heads(count: u32, kv_count: u32, width: u32) -> Heads {
    Heads { count, kv_count, width, scale: 1.0 / (width as f32).sqrt() }
}

/// Queries, keys or values: small enough that weights do not all but vanish.
fn small(seed: u32, len: usize) -> Vec<f32> {
    numbers(seed, len).into_iter().map(|x| store(x * 0.25)).collect()
}

/// Runs a plan's launches with scratch memory that is full of NaN and ends where the plan says.
fn run_plan(plan: &Plan, seed: u64, launches: impl FnOnce(&Scratch) -> Vec<gainsay_cuda_launch::Launch>) {
    let scratch = Scratch::new(plan);
    run(launches(&scratch), seed);
    assert!(
        scratch.floats[plan.scratch_bytes() as usize / 4..].iter().all(|x| x.to_bits() == Scratch::GUARD)
    );
}

/// What a plan needs on the device.
struct Scratch {
    words: Vec<[u32; 4]>,
    floats: Vec<f32>,
}

impl Scratch {
    const GUARD: u32 = 0x7fc0_1234;

    fn new(plan: &Plan) -> Self {
        let words = plan.words().chunks_exact(4).map(|four| [four[0], four[1], four[2], four[3]]).collect();
        let len = plan.scratch_bytes() as usize / 4 + 64;
        Self { words, floats: vec![f32::from_bits(Self::GUARD); len.next_multiple_of(4)] }
    }

    fn words(&self) -> gainsay_cuda_launch::At<u32> {
        gainsay_cuda_launch::At::new(self.words.as_ptr() as u64)
    }

    fn at(&self) -> gainsay_cuda_launch::At<u8> {
        bytes_at(&self.floats)
    }
}

/// As much memory as a plan likes or as little as it can do with, and blocks of keys shared out or not.
const ROOMS: [Room; 4] = [
    Room { scratch_bytes: 1 << 30, multiprocessors: 132 },
    Room { scratch_bytes: 0, multiprocessors: 132 },
    Room { scratch_bytes: 1 << 30, multiprocessors: 0 },
    Room { scratch_bytes: 40_000, multiprocessors: 0 },
];

#[test]
fn rows_attend_to_their_sequences() {
    // Few rows, one more than a tile, more keys than a block; heads of odd, narrow and wide widths.
    let starts = [0u32, 3, 4, 69, 69, 218];
    let rows = starts[starts.len() - 1];
    let shapes = [heads(2, 2, 32), heads(3, 1, 5), heads(1, 1, 136), heads(4, 2, 68)];
    for (seed, heads) in SEEDS.zip(shapes) {
        let (stride, kv_stride) = (heads.count * heads.width, heads.kv_count * heads.width);
        let mut q = small(1, (rows * stride) as usize);
        let k = small(2, (rows * kv_stride) as usize);
        let mut v = small(3, (rows * kv_stride) as usize);
        // Specials in the last sequence but one alone: what is next to it must not see them.
        let last = (4 * kv_stride) as usize..(69 * kv_stride) as usize;
        v[last.clone()].copy_from_slice(&with_specials(4, last.len()));
        q[(10 * stride) as usize] = f32::NAN;
        q[(11 * stride) as usize] = f32::INFINITY;
        let mut expected = Vec::new();
        for sequence in starts.windows(2) {
            let rows = sequence[0] as usize..sequence[1] as usize;
            let of = |x: &'_ [f32]| -> Vec<Vec<f32>> {
                rows.clone().map(|row| x[row * kv_stride as usize..][..kv_stride as usize].to_vec()).collect()
            };
            let (keys, values) = (of(&k), of(&v));
            let attended = Attended {
                heads,
                keys: keys.iter().map(Vec::as_slice).collect(),
                values: values.iter().map(Vec::as_slice).collect(),
            };
            for row in rows.clone() {
                expected.extend(attended.output(&q[row * stride as usize..][..stride as usize]));
            }
        }
        let plan = Plan::full(heads, &starts, ROOMS[seed as usize]);
        let mut out = vec![f32::NAN; q.len()];
        run_plan(&plan, seed, |scratch| {
            plan.attend(scratch.words(), [at(&q), at(&k), at(&v)], scratch.at(), at_mut(&mut out))
        });
        assert_same(&out, &expected, &format!("{heads:?}"));
    }
}

#[test]
fn rows_attend_to_a_cache() {
    let shapes = [heads(4, 2, 32), heads(3, 1, 7), heads(2, 2, 132), heads(8, 1, 64)];
    for (seed, (heads, is_bf16)) in SEEDS.zip(shapes.into_iter().zip([true, false, false, true])) {
        let lengths = vec![[300, 1], [0, 40], [120, 9], [5, 1], [0, 1]];
        Cached::new(heads, is_bf16, lengths, seed as u32).check(seed);
    }
}

/// More keys than exponentials are held, and more blocks of them than are loaded ahead.
#[test]
fn a_row_attends_to_a_long_text() {
    Cached::new(heads(2, 1, 4), true, vec![[9000, 1]], 7).check(0);
}

/// Sequences in a cache with pages out of order, and rows that are new.
struct Cached {
    heads: Heads,
    is_bf16: bool,
    /// Of each sequence, tokens before the new ones, and new ones.
    lengths: Vec<[u32; 2]>,
    pages: Vec<u32>,
    /// Of each sequence, where its pages begin in `pages`, and all keys and values.
    sequences: Vec<(u32, Vec<f32>, Vec<f32>)>,
}

impl Cached {
    fn new(heads: Heads, is_bf16: bool, lengths: Vec<[u32; 2]>, seed: u32) -> Self {
        let row = (heads.kv_count * heads.width) as usize;
        let mut pages = Vec::new();
        let mut sequences = Vec::new();
        for (index, &[before, new]) in lengths.iter().enumerate() {
            let len = (before + new) as usize * row;
            let round = |mut x: Vec<f32>| {
                if is_bf16 {
                    x.iter_mut().for_each(|x| *x = widen_bf16(round_bf16(*x)));
                }
                x
            };
            let k = round(small(seed * 100 + index as u32 * 2, len));
            let mut v = round(small(seed * 100 + index as u32 * 2 + 1, len));
            // Later keys are of no weight for earlier rows, not of weight zero.
            v[len - 1] = f32::NAN;
            sequences.push((pages.len() as u32, k, v));
            let first = pages.len() as u32;
            pages.extend(first..first + (before + new).div_ceil(PAGE_TOKENS));
        }
        let count = pages.len() as u32;
        pages.iter_mut().for_each(|page| *page = count - 1 - *page);
        Self { heads, is_bf16, lengths, pages, sequences }
    }

    /// Appends all but the new rows, then the new rows, and attends.
    fn check(&self, seed: u64) {
        let heads = self.heads;
        let (stride, row) = ((heads.count * heads.width) as usize, (heads.kv_count * heads.width) as usize);
        // Another attention is before this one in a page.
        let place = 64;
        let page = place + 2 * Cache::elements(heads) + 32;
        let words = self.pages.len() as u64 * page;
        let arena = vec![f32::NAN; if self.is_bf16 { words.div_ceil(2) } else { words } as usize];
        let bytes = if self.is_bf16 { 2 } else { 4 };
        // Some pages lie before page 0.
        let zero = self.pages.len() as u64 / 2;
        let arena = bytes_at(&arena).skip(zero * page * bytes);
        let cache = Cache { arena, is_bf16: self.is_bf16, page, place };
        let number = |page: u32| page.wrapping_sub(zero as u32);
        let pages: Vec<u32> = self.pages.iter().map(|&page| number(page)).collect();
        for new in [false, true] {
            let (mut k, mut v, mut slots) = (Vec::new(), Vec::new(), Vec::new());
            for (&[before, len], (first, keys, values)) in self.lengths.iter().zip(&self.sequences) {
                let tokens = if new { before..before + len } else { 0..before };
                let part = tokens.start as usize * row..tokens.end as usize * row;
                k.extend_from_slice(&keys[part.clone()]);
                v.extend_from_slice(&values[part]);
                slots.extend(tokens.map(|token| {
                    let page = pages[(first + token / PAGE_TOKENS) as usize];
                    page.wrapping_mul(PAGE_TOKENS).wrapping_add(token % PAGE_TOKENS)
                }));
            }
            run([append(cache, heads, [at(&k), at(&v)], at(&slots), slots.len() as u32)], seed);
        }
        let mut segments = Vec::new();
        let mut rows = 0;
        for (&[before, len], (pages, ..)) in self.lengths.iter().zip(&self.sequences) {
            segments.push(Segment { row: rows, rows: len, first: before, pages: *pages });
            rows += len;
        }
        let q = small(99, rows as usize * stride);
        let mut expected = Vec::new();
        for (segment, (_, k, v)) in segments.iter().zip(&self.sequences) {
            for new in 0..segment.rows {
                let keys = (segment.first + new + 1) as usize;
                let attended = Attended {
                    heads,
                    keys: k.chunks_exact(row).take(keys).collect(),
                    values: v.chunks_exact(row).take(keys).collect(),
                };
                let query = (segment.row + new) as usize;
                expected.extend(attended.output(&q[query * stride..][..stride]));
            }
        }
        for room in [ROOMS[seed as usize], ROOMS[(seed as usize + 2) % 4]] {
            let plan = Plan::causal(heads, &segments, room);
            let mut out = vec![f32::NAN; q.len()];
            run_plan(&plan, seed, |scratch| {
                let cached = (cache, at(&pages));
                plan.attend_cached(scratch.words(), at(&q), cached, scratch.at(), at_mut(&mut out))
            });
            assert_same(&out, &expected, &format!("{heads:?}, bf16: {}, {room:?}", self.is_bf16));
        }
        // Launches with room for twice the keys, which are the same for shorter sequences.
        let most = segments.iter().map(|segment| segment.first + segment.rows).max().unwrap() * 2;
        let shorter: Vec<Segment> = segments.iter().map(|segment| Segment { first: 0, ..*segment }).collect();
        let [plan, other] = [&segments, &shorter].map(|of| Plan::causal_within(heads, of, most, ROOMS[0]));
        let mut out = vec![f32::NAN; q.len()];
        run_plan(&plan, seed, |scratch| {
            let cached = (cache, at(&pages));
            let launches =
                plan.attend_cached(scratch.words(), at(&q), cached, scratch.at(), at_mut(&mut out));
            let of_others =
                other.attend_cached(scratch.words(), at(&q), cached, scratch.at(), at_mut(&mut out));
            assert_eq!(launches, of_others);
            launches
        });
        assert_same(&out, &expected, &format!("{heads:?}, bf16: {}, within {most} keys", self.is_bf16));
    }
}
