//! Trying the kernels on the machine at hand before anything is served by them.
//!
//! Tests hold all kernels against `arithmetic`, but not on every machine: an instruction may be emulated badly, a processor
//! may be broken. Small inputs that take every kernel through all its parts are compared with the portable path.

use super::lanes::{Bf16, F16};
use super::{
    Binary, CausalRows, Elements, Heads, Int8Matrix, Kernels, KvCache, KvLayout, KvType, PagePool, Qkv,
    Quantization, Rotation, Then, Unary,
};
use crate::options::Simd;
use gainsay_arithmetic::int8::{ActivationBits, quantize_group};

const ROWS: usize = 37;
const DEPTH: usize = 144;
const GROUP: usize = 72;
const COLUMNS: usize = 45;
/// Columns of a head; several heads make [`DEPTH`].
const WIDTH: usize = 36;
/// Tokens of a cache: more than a page.
const CACHED: usize = 150;

/// The kernels that `simd` asks for if they agree with the portable ones, else the next slower that do. `None` where the
/// machine lacks the instructions.
pub(crate) fn checked_kernels(simd: Simd) -> Option<Kernels> {
    let first = Kernels::detect(simd)?;
    let slower = Simd::LADDER.into_iter().rev().skip_while(|&simd| simd != first.simd()).skip(1);
    let candidates = std::iter::once(first).chain(slower.filter_map(Kernels::detect));
    Some(first_good(candidates, agrees))
}

/// The first that is good; the portable ones if none is.
fn first_good(
    candidates: impl Iterator<Item = Kernels>,
    mut is_good: impl FnMut(Kernels) -> bool,
) -> Kernels {
    for kernels in candidates {
        if is_good(kernels) {
            return kernels;
        }
        tracing::warn!(
            simd = kernels.simd().name(),
            "these instructions give other bits on this machine than they should: not using them"
        );
    }
    Kernels::Portable
}

/// Whether the kernels give the portable ones' bits.
fn agrees(kernels: Kernels) -> bool {
    matches!(kernels, Kernels::Portable) || golden(kernels) == golden(Kernels::Portable)
}

/// The bits that every kernel gives for some input.
fn golden(kernels: Kernels) -> Vec<u32> {
    let mut all = Vec::new();
    let mut run = |len: usize, kernel: &dyn Fn(&mut [f32])| {
        let mut out = vec![0.0; len];
        kernel(&mut out);
        all.extend(out.iter().map(|y| y.to_bits()));
    };
    linear_maps(kernels, &mut run);
    by_rows(kernels, &mut run);
    attentions(kernels, &mut run);
    all
}

/// Runs a kernel on an output of some length and takes its bits.
type Run<'a> = &'a mut dyn FnMut(usize, &dyn Fn(&mut [f32]));

fn linear_maps(kernels: Kernels, run: Run<'_>) {
    let (x, w) = (numbers(1, ROWS * DEPTH), numbers(2, COLUMNS * DEPTH));
    let (bias, other) = (numbers(3, COLUMNS), numbers(4, ROWS * COLUMNS));
    let bits = |shift: u32| w.iter().map(move |w| (w.to_bits() >> shift) as u16);
    let bf16: Vec<_> = bits(16).map(Bf16).collect();
    // Of these bits a binary16 is another number than they were, but some number.
    let f16: Vec<_> = bits(12).map(|bits| F16(bits & 0xbbff)).collect();
    for elements in [Elements::F32(&w), Elements::Bf16(&bf16), Elements::F16(&f16)] {
        let map = kernels.pack(elements, DEPTH, bias.clone());
        for rows in [1, 2, 3, 4, ROWS] {
            let (x, other) = (&x[..rows * DEPTH], &other[..rows * COLUMNS]);
            for then in [Then::Unary(Unary::Gelu), Then::Unary(Unary::Silu), Then::Binary(Binary::Mul, other)]
            {
                run(rows * COLUMNS, &|out| kernels.linear(x, &map, then, out));
            }
        }
    }
    for activations in [ActivationBits::Eight, ActivationBits::Sixteen] {
        let quantization = Quantization { depth: DEPTH, group: GROUP, bits: activations };
        let mut weights = vec![0; w.len()];
        let groups = w.chunks_exact(GROUP).zip(weights.chunks_exact_mut(GROUP));
        let scales = groups.map(|(w, q)| quantize_group(w, q)).collect();
        let matrix = Int8Matrix { weights, scales, quantization };
        let map = kernels.pack_int8(matrix, bias.clone());
        for rows in [1, ROWS] {
            let levels = kernels.quantize(&x[..rows * DEPTH], quantization);
            let then = Then::Binary(Binary::Add, &other[..rows * COLUMNS]);
            run(rows * COLUMNS, &|out| kernels.linear_int8(&levels, &map, then, out));
        }
    }
}

fn by_rows(kernels: Kernels, run: Run<'_>) {
    let (x, y) = (numbers(5, ROWS * DEPTH), numbers(6, ROWS * DEPTH));
    let (weight, bias) = (numbers(7, DEPTH), numbers(8, DEPTH));
    let far: Vec<f32> = x.iter().map(|x| x * 90.0).collect();
    for formula in [Unary::Gelu, Unary::Silu, Unary::RoundBf16] {
        run(far.len(), &|out| kernels.unary(formula, &far, out));
    }
    for formula in [Binary::Add, Binary::Mul] {
        run(x.len(), &|out| kernels.binary(formula, &x, &y, out));
    }
    run(x.len(), &|out| kernels.layer_norm(&x, &weight, &bias, 1e-12, out));
    run(x.len(), &|out| kernels.rms_norm(&x, &weight, 1e-6, out));
    run(x.len(), &|out| kernels.normalize(&x, DEPTH, out));
    run(2 * DEPTH, &|out| kernels.mean_pool(&x, DEPTH, &[0..5, 5..ROWS], out));
    let positions: Vec<u32> = (0..ROWS as u32).rev().collect();
    let rotation = Rotation { width: WIDTH, cos: &y, sin: &x, positions: &positions };
    run(x.len(), &|out| kernels.rope(rotation, &x, out));
}

fn attentions(kernels: Kernels, run: Run<'_>) {
    let heads = Heads { count: DEPTH / WIDTH, kv_count: DEPTH / WIDTH / 2, width: WIDTH, scale: 0.7 };
    let q = numbers(9, CACHED * heads.stride());
    let numbers = |seed| {
        let mut numbers = numbers(seed, CACHED * heads.kv_stride());
        numbers.iter_mut().for_each(|x| *x = Unary::RoundBf16.of(*x));
        numbers
    };
    let (k, v) = (numbers(10), numbers(11));
    let whole = ROWS * heads.kv_stride();
    let qkv = Qkv { q: &q[..ROWS * heads.stride()], k: &k[..whole], v: &v[..whole] };
    run(qkv.q.len(), &|out| kernels.attention(heads, qkv, &[0..ROWS / 2, ROWS / 2..ROWS], out));
    for kind in [KvType::F32, KvType::Bf16] {
        let mut layout = KvLayout::new(kernels.kv_panel());
        let place = layout.add(heads.kv_count, heads.width);
        let mut cache = KvCache::new(&PagePool::new(&layout, kind));
        cache.grow(CACHED).expect("the machine's memory is its own to take");
        cache.append(place, 0, &k, &v);
        for rows in [1, ROWS] {
            let first = CACHED - rows;
            let of = [CausalRows { rows: 0..rows, first, cache: &cache }];
            let q = &q[first * heads.stride()..];
            run(q.len(), &|out| kernels.causal(heads, place, q, &of, out));
        }
    }
}

/// Numbers in [−1, 1) that are the same everywhere.
fn numbers(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_this_machine_passes() {
        for simd in Simd::available() {
            let kernels = checked_kernels(simd).unwrap();
            assert_eq!(kernels.simd(), simd);
            println!("{simd} gives the golden bits");
        }
    }

    #[test]
    fn a_path_that_gives_other_bits_is_not_used() {
        let all = || Simd::LADDER.into_iter().rev().filter_map(Kernels::detect);
        let count = all().count();
        for broken in 0..count {
            let mut tried = 0;
            let chosen = first_good(all(), |_| {
                tried += 1;
                tried > broken
            });
            assert_eq!(chosen.simd(), all().nth(broken).unwrap().simd());
        }
        assert!(matches!(first_good(all(), |_| false), Kernels::Portable));
    }
}
