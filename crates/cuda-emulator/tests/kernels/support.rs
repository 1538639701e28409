//! Numbers for kernels, and how results are compared.

use gainsay_arithmetic::store;
use gainsay_cuda_launch::{At, Launch};

/// Seeds that every kernel is tried with.
pub(crate) const SEEDS: std::ops::Range<u64> = 0..4;

/// Numbers that are the same everywhere: mostly in (−2, 2), some large, some small, all of them as weights and stored
/// results are.
pub(crate) fn numbers(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) ^ 0x85eb_ca6b;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let mut number = || {
        let x = (next() >> 8) as f32 / (1 << 22) as f32 - 2.0;
        match next() % 16 {
            0 => x * 40.0,
            1 => x * 1e-6,
            _ => x,
        }
    };
    (0..len).map(|_| store(number())).collect()
}

/// Numbers among which are zeros, infinities, NaN and the least that is stored.
pub(crate) fn with_specials(seed: u32, len: usize) -> Vec<f32> {
    const SPECIAL: [f32; 6] = [0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, f32::MAX];
    let mut all = numbers(seed, len);
    for (i, x) in all.iter_mut().step_by(11).enumerate() {
        *x = SPECIAL[i % SPECIAL.len()];
    }
    all
}

/// Fails with the first element that differs in a bit.
#[track_caller]
pub(crate) fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let differs = found.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits());
    if let Some(index) = differs {
        panic!("{what}: element {index} is {:e}, not {:e}", found[index], expected[index]);
    }
}

/// An array that a kernel reads.
pub(crate) fn at<T>(slice: &[T]) -> At<T> {
    At::new(slice.as_ptr() as u64)
}

/// An array that a kernel writes.
pub(crate) fn at_mut<T>(slice: &mut [T]) -> At<T> {
    At::new(slice.as_mut_ptr() as u64)
}

/// An array of weights, whatever their elements.
pub(crate) fn bytes_at<T>(slice: &[T]) -> At<u8> {
    At::new(slice.as_ptr() as u64)
}

/// Runs launches one after the other.
pub(crate) fn run(launches: impl IntoIterator<Item = Launch>, seed: u64) {
    for launch in launches {
        // SAFETY: a test's arrays outlive the call, and are as long as the launch that it tests is told.
        unsafe { gainsay_cuda_emulator::run(&launch, seed) };
    }
}
