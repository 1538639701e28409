//! Every kernel on every instruction set against `arithmetic`, bit for bit.

use gainsay_arithmetic as arithmetic;
use rayon::prelude::*;

use super::lanes::{Kernel, Lanes};
use super::*;

/// xorshift64*, seeded: the same numbers in every run.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in [−1, 1).
    pub(super) fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(super) fn ordinary(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.unit()).collect()
    }

    /// Mostly ordinary numbers, with the edges of binary32 strewn in.
    fn with_edges(&mut self, len: usize) -> Vec<f32> {
        (0..len)
            .map(|_| match self.bits() % 40 {
                0 => EDGES[(self.bits() % EDGES.len() as u64) as usize],
                1 => f32::from_bits((self.bits() >> 32) as u32),
                2..10 => self.unit() * 1e3,
                _ => self.unit(),
            })
            .collect()
    }
}

const EDGES: [f32; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::NAN,
    f32::from_bits(0xffc1_2345),
    f32::from_bits(0x7f80_0001),
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    f32::from_bits(0x0000_0001),
    f32::from_bits(0x807f_ffff),
    f32::from_bits(0x0080_0001),
    1e-30,
];

fn vector_kernels() -> Vec<Kernels> {
    let all = [Simd::Avx2, Simd::Avx512].into_iter().filter_map(Kernels::detect);
    let all: Vec<_> = all.collect();
    if cfg!(target_arch = "x86_64") {
        assert!(!all.is_empty(), "these tests want a machine with AVX2 at least");
    }
    all
}

#[track_caller]
pub(super) fn assert_bits(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.to_bits(), expected.to_bits(), "{what}, element {i}: {found:e}, not {expected:e}");
    }
}

/// Runs `kernel` on the portable path and on every other, twice the threads, and compares.
#[track_caller]
fn same_everywhere(len: usize, what: &str, kernel: impl Fn(Kernels, &mut [f32]) + Sync) -> Vec<f32> {
    let mut expected = vec![f32::NAN; len];
    kernel(Kernels::Portable, &mut expected);
    for kernels in vector_kernels() {
        for threads in [1, 3] {
            let mut found = vec![f32::NAN; len];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| kernel(kernels, &mut found));
            assert_bits(&found, &expected, &format!("{what}, {kernels:?}, {threads} threads"));
        }
    }
    expected
}

#[test]
fn elementwise_ops_meet_every_edge_and_every_exponent() {
    let mut random = Random(1);
    let mut x: Vec<f32> = (0..1 << 16).map(|high: u32| f32::from_bits(high << 16 | high)).collect();
    x.extend(EDGES);
    x.extend(random.with_edges(5000));
    let y = random.with_edges(x.len());
    type BinaryLaw = (Binary, fn(f32, f32) -> f32);
    let binary: [BinaryLaw; 2] = [(Binary::Add, |a, b| a + b), (Binary::Mul, |a, b| a * b)];
    for (formula, scalar) in binary {
        let what = format!("{formula:?}");
        let found = same_everywhere(x.len(), &what, |kernels, out| kernels.binary(formula, &x, &y, out));
        let expected: Vec<f32> = x.iter().zip(&y).map(|(&a, &b)| arithmetic::store(scalar(a, b))).collect();
        assert_bits(&found, &expected, &what);
    }
    let round = |x| arithmetic::widen_bf16(arithmetic::round_bf16(x));
    type UnaryLaw = (Unary, fn(f32) -> f32);
    let unary: [UnaryLaw; 3] =
        [(Unary::Gelu, arithmetic::gelu), (Unary::Silu, arithmetic::silu), (Unary::RoundBf16, round)];
    for (formula, scalar) in unary {
        let what = format!("{formula:?}");
        let found = same_everywhere(x.len(), &what, |kernels, out| kernels.unary(formula, &x, out));
        let expected: Vec<f32> = x.iter().map(|&x| arithmetic::store(scalar(x))).collect();
        assert_bits(&found, &expected, &what);
    }
}

/// A function of one vector, applied to many.
struct Apply<'a> {
    function: Function,
    values: &'a mut [f32],
}

#[derive(Debug, Clone, Copy)]
enum Function {
    Exp,
    Erf,
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, v: V) {
        for values in self.values.chunks_exact_mut(V::LANES) {
            let x = v.load(values);
            let y = match self.function {
                Function::Exp => elementwise::exp(v, x),
                Function::Erf => elementwise::erf(v, x),
            };
            v.store(y, values);
        }
    }
}

/// Every 509th argument, or with `GAINSAY_STRIDE=1` in the environment all of them, which takes minutes.
#[test]
fn exp_and_erf_over_the_whole_range() {
    const CHUNK: u64 = 1 << 12;
    let stride = std::env::var("GAINSAY_STRIDE").map_or(509, |stride| stride.parse().unwrap());
    let chunks = (1u64 << 32).div_ceil(stride * CHUNK);
    (0..chunks).into_par_iter().for_each(|chunk| {
        let x: Vec<f32> = (0..CHUNK).map(|i| f32::from_bits(((chunk * CHUNK + i) * stride) as u32)).collect();
        for (function, scalar) in
            [(Function::Exp, arithmetic::exp as fn(f32) -> f32), (Function::Erf, arithmetic::erf)]
        {
            let expected: Vec<f32> = x.iter().map(|&x| arithmetic::canonical(scalar(x))).collect();
            for kernels in vector_kernels() {
                let mut found = x.clone();
                choose!(
                    kernels,
                    v => v.enter(Apply { function, values: &mut found }),
                    unreachable!("these are vector kernels")
                );
                found.iter_mut().for_each(|y| *y = arithmetic::canonical(*y));
                assert_bits(&found, &expected, &format!("{function:?}, {kernels:?}, chunk {chunk}"));
            }
        }
    });
}

#[test]
fn linear_maps_of_every_shape_and_sequel() {
    let mut random = Random(2);
    let shapes = [
        (1, 1, 1),
        (2, 127, 33),
        (3, 128, 31),
        (5, 129, 15),
        (14, 16, 32),
        (15, 257, 65),
        (29, 40, 17),
        (61, 24, 70),
    ];
    for (rows, depth, columns) in shapes {
        for edges in [false, true] {
            let mut numbers = |len| if edges { random.with_edges(len) } else { random.ordinary(len) };
            let (x, w) = (numbers(rows * depth), numbers(columns * depth));
            let (bias, other) = (numbers(columns), numbers(rows * columns));
            for bias in [&bias[..], &[]] {
                let unary = [Unary::Gelu, Unary::Silu, Unary::RoundBf16].map(Then::Unary);
                let binary = [Binary::Add, Binary::Mul].map(|formula| Then::Binary(formula, &other));
                for (index, then) in unary.into_iter().chain(binary).chain([Then::Nothing]).enumerate() {
                    let what = format!("linear {rows}×{depth}×{columns}, then {index}, edges: {edges}");
                    same_everywhere(rows * columns, &what, |kernels, out| {
                        let weights = kernels.pack(Elements::F32(&w), depth, bias.to_vec());
                        kernels.linear(&x, &weights, then, out);
                    });
                }
            }
        }
    }
}

#[test]
fn a_linear_map_larger_than_a_task() {
    let (rows, depth, columns) = (150, 1537, 40);
    let mut random = Random(3);
    let (x, w) = (random.ordinary(rows * depth), random.ordinary(columns * depth));
    same_everywhere(rows * columns, "large linear", |kernels, out| {
        let weights = kernels.pack(Elements::F32(&w), depth, Vec::new());
        kernels.linear(&x, &weights, Then::Nothing, out);
    });
}

/// Weights of 16 bits are widened in registers; the product is that of the widened matrix.
#[test]
fn linear_maps_of_short_weights() {
    let mut random = Random(8);
    for (rows, depth, columns) in
        [(1, 700, 33), (2, 129, 64), (3, 512, 31), (4, 16, 70), (5, 257, 40), (31, 150, 65)]
    {
        let x = random.with_edges(rows * depth);
        let shorts: Vec<u16> = (0..columns * depth)
            .map(|_| match random.bits() % 30 {
                0 => (random.bits() >> 48) as u16,
                _ => (random.unit().to_bits() >> 16) as u16,
            })
            .collect();
        let halves: Vec<u16> = shorts.iter().map(|bits| bits ^ 0x0800).collect();
        let (shorts, halves) = (bytemuck::cast_slice(&shorts), bytemuck::cast_slice(&halves));
        for elements in [Elements::Bf16(shorts), Elements::F16(halves)] {
            let what = format!("linear {rows}×{depth}×{columns} of shorts");
            let expected = same_everywhere(rows * columns, &what, |kernels, out| {
                kernels.linear(&x, &kernels.pack(elements, depth, Vec::new()), Then::Nothing, out);
            });
            let widened = elements.widened();
            let found = same_everywhere(rows * columns, &what, |kernels, out| {
                let map = kernels.pack(Elements::F32(&widened), depth, Vec::new());
                kernels.linear(&x, &map, Then::Nothing, out);
            });
            assert_bits(&found, &expected, &what);
        }
    }
}

#[test]
fn rotations_of_every_width() {
    let mut random = Random(9);
    for (heads, width) in [(1, 2), (3, 12), (2, 32), (4, 34), (1, 130)] {
        let positions = [0, 5, 1, 1, 40];
        let angles = 41 * width / 2;
        let (cos, sin) = (random.ordinary(angles), random.ordinary(angles));
        let x = random.with_edges(positions.len() * heads * width);
        let of = Rotation { width, cos: &cos, sin: &sin, positions: &positions };
        same_everywhere(x.len(), &format!("rope {heads}×{width}"), |kernels, out| kernels.rope(of, &x, out));
    }
}

#[test]
fn norms_of_every_width() {
    let mut random = Random(4);
    for width in [1, 7, 8, 16, 63, 64, 65, 100, 128, 384, 391] {
        for edges in [false, true] {
            let rows = 9;
            let mut numbers = |len| if edges { random.with_edges(len) } else { random.ordinary(len) };
            let (x, w, b) = (numbers(rows * width), numbers(width), numbers(width));
            let what = format!("width {width}, edges: {edges}");
            same_everywhere(x.len(), &format!("layer norm, {what}"), |kernels, out| {
                kernels.layer_norm(&x, &w, &b, 1e-12, out);
            });
            same_everywhere(x.len(), &format!("RMS norm, {what}"), |kernels, out| {
                kernels.rms_norm(&x, &w, 1e-6, out);
            });
            same_everywhere(x.len(), &format!("normalize, {what}"), |kernels, out| {
                kernels.normalize(&x, width, out);
            });
        }
    }
    let zeros = [0.0; 64];
    same_everywhere(64, "normalize zeros", |kernels, out| kernels.normalize(&zeros, 32, out));
}

#[test]
fn attention_of_every_length_and_head() {
    let mut random = Random(5);
    for (lengths, heads, width) in [
        (&[1][..], 1, 1),
        (&[1, 2, 13, 14, 15], 2, 8),
        (&[31, 32, 33], 3, 20),
        (&[63, 65, 5], 2, 32),
        (&[129], 1, 33),
        (&[17], 1, 130),
    ] {
        let sequences = consecutive(lengths);
        let len = lengths.iter().sum::<usize>() * heads * width;
        for edges in [false, true] {
            let mut numbers = |len| if edges { random.with_edges(len) } else { random.ordinary(len) };
            let (q, k, v) = (numbers(len), numbers(len), numbers(len));
            let heads = Heads { count: heads, kv_count: heads, width, scale: 0.37 };
            let what = format!("attention {lengths:?}, {heads:?}, edges: {edges}");
            same_everywhere(len, &what, |kernels, out| {
                kernels.attention(heads, Qkv { q: &q, k: &k, v: &v }, &sequences, out);
            });
        }
    }
}

/// Keys and values of `rows` tokens in a cache, appended in steps of these lengths, over and over.
fn cached(
    kernels: Kernels,
    heads: Heads,
    kind: KvType,
    [k, v]: [&[f32]; 2],
    steps: &[usize],
) -> (KvPlace, KvCache) {
    let mut layout = KvLayout::new(kernels.kv_panel());
    // Another attention in front, whose place nobody writes.
    layout.add(1, 3);
    let place = layout.add(heads.kv_count, heads.width);
    let mut cache = KvCache::new(&PagePool::new(&layout, kind));
    let (stride, rows) = (heads.kv_stride(), k.len() / heads.kv_stride());
    let mut first = 0;
    for step in steps.iter().cycle() {
        let end = (first + step).min(rows);
        cache.grow(end).unwrap();
        cache.append(place, first, &k[first * stride..end * stride], &v[first * stride..end * stride]);
        first = end;
        if first == rows {
            return (place, cache);
        }
    }
    unreachable!("an endless cycle")
}

/// Of every instruction set, however the rows come, and with keys beyond a row's own that are not numbers.
#[test]
fn causal_attention_of_every_length_head_and_step() {
    let mut random = Random(10);
    for (rows, count, kv_count, width) in
        [(1, 1, 1, 1), (5, 4, 2, 12), (40, 3, 3, 20), (130, 6, 2, 32), (260, 2, 1, 33), (129, 2, 2, 130)]
    {
        let heads = Heads { count, kv_count, width, scale: 0.37 };
        for kind in [KvType::F32, KvType::Bf16] {
            let mut numbers = |len: usize| -> Vec<f32> {
                let numbers = random.with_edges(len).into_iter();
                numbers
                    .map(|x| arithmetic::store(arithmetic::widen_bf16(arithmetic::round_bf16(x))))
                    .collect()
            };
            let (q, k, v) = (
                numbers(rows * heads.stride()),
                numbers(rows * heads.kv_stride()),
                numbers(rows * heads.kv_stride()),
            );
            let what = format!("causal attention of {rows} rows, {heads:?}, {kind:?}");
            let expected = same_everywhere(q.len(), &what, |kernels, out| {
                let (place, cache) = cached(kernels, heads, kind, [&k, &v], &[64, 7]);
                let of = CausalRows { rows: 0..rows, first: 0, cache: &cache };
                kernels.causal(heads, place, &q, &[of], out);
            });
            for step in [1, 3, 50] {
                same_everywhere(q.len(), &format!("{what}, by {step}"), |kernels, out| {
                    let (place, cache) = cached(kernels, heads, kind, [&k, &v], &[rows]);
                    for first in (0..rows).step_by(step) {
                        let rows = step.min(rows - first);
                        let part = first * heads.stride()..(first + rows) * heads.stride();
                        let of = CausalRows { rows: 0..rows, first, cache: &cache };
                        kernels.causal(heads, place, &q[part.clone()], &[of], &mut out[part]);
                    }
                });
            }
            // The last row of a sequence attends to all of it, as every row of a whole sequence does.
            let mut whole = vec![0.0; q.len()];
            let qkv = Qkv { q: &q, k: &k, v: &v };
            Kernels::Portable.attention(heads, qkv, std::slice::from_ref(&(0..rows)), &mut whole);
            let last = (rows - 1) * heads.stride()..;
            assert_bits(&expected[last.clone()], &whole[last], &what);
        }
    }
}

#[test]
fn attention_whose_heads_share_keys() {
    let mut random = Random(11);
    let (rows, heads) = (37, Heads { count: 6, kv_count: 2, width: 24, scale: 0.2 });
    let (q, kv) = (random.ordinary(rows * heads.stride()), random.ordinary(2 * rows * heads.kv_stride()));
    let (k, v) = kv.split_at(kv.len() / 2);
    same_everywhere(q.len(), "shared keys", |kernels, out| {
        kernels.attention(heads, Qkv { q: &q, k, v }, &consecutive(&[20, 17]), out);
    });
}

#[test]
fn attention_spread_over_scores_far_apart() {
    let mut random = Random(6);
    let len = 70 * 16;
    let [q, k, v] = [(); 3].map(|()| random.ordinary(len).iter().map(|x| x * 30.0).collect::<Vec<_>>());
    let heads = Heads { count: 1, kv_count: 1, width: 16, scale: 1.0 };
    let out = same_everywhere(len, "attention far apart", |kernels, out| {
        kernels.attention(heads, Qkv { q: &q, k: &k, v: &v }, &consecutive(&[70]), out);
    });
    assert!(out.iter().all(|x| x.is_finite()));
}

#[test]
fn mean_pooling_is_arithmetics() {
    let mut random = Random(7);
    let (lengths, width) = ([1, 127, 128, 129, 300], 5);
    let sequences = consecutive(&lengths);
    let x = random.with_edges(lengths.iter().sum::<usize>() * width);
    let mut found = vec![0.0; lengths.len() * width];
    Kernels::Portable.mean_pool(&x, width, &sequences, &mut found);
    let mean = |rows: &Range<usize>, c: usize| {
        let column: Vec<f32> = rows.clone().map(|row| x[row * width + c]).collect();
        arithmetic::store(arithmetic::mean_pool(&column))
    };
    let expected: Vec<f32> =
        sequences.iter().flat_map(|rows| (0..width).map(move |c| mean(rows, c))).collect();
    assert_bits(&found, &expected, "mean pool");
}

fn consecutive(lengths: &[usize]) -> Vec<Range<usize>> {
    let mut start = 0;
    let range = |len: &usize| {
        let range = start..start + len;
        start = range.end;
        range
    };
    lengths.iter().map(range).collect()
}
