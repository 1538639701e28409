//! Trying the kernels on the machine at hand before anything is served by them.
//!
//! Tests hold all kernels against `arithmetic`, but not on every machine: an instruction may be emulated badly, a processor
//! may be broken. A small product that meets every instruction of a path is compared with the portable path.

use super::{Int8Matrix, Kernels, Quantization, Then};
use crate::options::Simd;
use gainsay_arithmetic::int8::{ActivationBits, quantize_group};

const ROWS: usize = 37;
const DEPTH: usize = 144;
const GROUP: usize = 72;
const COLUMNS: usize = 45;

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

/// The bits of some linear maps.
fn golden(kernels: Kernels) -> Vec<u32> {
    let (x, w) = (numbers(1, ROWS * DEPTH), numbers(2, COLUMNS * DEPTH));
    let (bias, other) = (numbers(3, COLUMNS), numbers(4, ROWS * COLUMNS));
    let mut out = vec![0.0; ROWS * COLUMNS];
    kernels.linear(&x, &kernels.pack(w.clone(), DEPTH, bias.clone()), Then::Gelu, &mut out);
    let mut bits: Vec<u32> = out.iter().map(|y| y.to_bits()).collect();
    for activations in [ActivationBits::Eight, ActivationBits::Sixteen] {
        let quantization = Quantization { depth: DEPTH, group: GROUP, bits: activations };
        let mut weights = vec![0; w.len()];
        let groups = w.chunks_exact(GROUP).zip(weights.chunks_exact_mut(GROUP));
        let scales = groups.map(|(w, q)| quantize_group(w, q)).collect();
        let matrix = Int8Matrix { weights, scales, quantization };
        let map = kernels.pack_int8(matrix, bias.clone());
        kernels.linear_int8(&kernels.quantize(&x, quantization), &map, Then::Add(&other), &mut out);
        bits.extend(out.iter().map(|y| y.to_bits()));
    }
    bits
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
