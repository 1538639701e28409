//! What a manifest says of the memory of its weights holds, however they are packed: a party that counts on it must not
//! run out of memory on a stranger's model.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gainsay_engine::{Model, Options, Simd};
use gainsay_program::toy::{DecoderOptions, Toy, ToyOptions};
use gainsay_program::{ActivationBits, ArithmeticProfile, Dtype};

/// The system's allocator, which counts.
struct Counting;

static LIVE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it comes; counting touches no memory that it hands out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size() as u64, Ordering::Relaxed) + layout.size() as u64;
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of `dealloc`, and the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What loading takes beside weights: plans, threads, queues. The models below have weights of many times as much.
const BESIDE: u64 = 512 << 10;

/// What loading has allocated: live once the model was loaded, and at the most until then, without what there was.
struct Allocated {
    live: u64,
    peak: u64,
}

/// Loads a model from weights that are all in memory, or from such that are read one by one.
fn load(toy: &Toy, simd: Simd, at_once: bool) -> Allocated {
    let model = Arc::new(toy.model.clone());
    let read = |index: usize| Arc::<[u8]>::from(toy.weights[index].as_slice());
    let options = Options { threads: 1, simd, ..Options::default() };
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let loaded = if at_once {
        Model::new(model, (0..toy.weights.len()).map(read).collect(), options)
    } else {
        Model::read(model, |index| Ok(read(index)), options)
    };
    let loaded = loaded.unwrap();
    let [live, peak] = [&LIVE, &PEAK].map(|count| count.load(Ordering::Relaxed).saturating_sub(before));
    drop(loaded);
    Allocated { live, peak }
}

#[test]
fn weights_take_no_more_than_their_manifest_says_however_they_are_packed() {
    let kinds = [
        (ArithmeticProfile::ExactF32V1, ActivationBits::Eight),
        (ArithmeticProfile::ExactInt8V1, ActivationBits::Eight),
        (ArithmeticProfile::ExactInt8V1, ActivationBits::Sixteen),
    ];
    for (arithmetic, activation_bits) in kinds {
        for (dtype, tied) in [(Dtype::F32, true), (Dtype::Bf16, false), (Dtype::F16, true)] {
            // Widths that divide by no kernel's tile; three blocks of half a million weights.
            let decoder = DecoderOptions {
                arithmetic,
                activation_bits,
                dtype,
                tied,
                half_head: 14,
                kv_heads: 3,
                heads_per_kv: 3,
                intermediate: 500,
                vocabulary: 999,
                ornate: true,
                blocks: 3,
                ..DecoderOptions::default()
            };
            let encoder = ToyOptions {
                arithmetic,
                activation_bits,
                dtype,
                head_dim: 28,
                heads: 9,
                intermediate: 500,
                vocabulary: 999,
                blocks: 3,
                ..ToyOptions::default()
            };
            for simd in Simd::available() {
                for toy in [Toy::decoder(&decoder).unwrap(), Toy::new(&encoder).unwrap()] {
                    let bound = toy.model.weight_memory();
                    let stored: u64 = toy.weights.iter().map(|bytes| bytes.len() as u64).sum();
                    let what =
                        format!("{arithmetic:?}, {activation_bits:?}, {dtype:?}, tied: {tied}, {simd}");
                    assert!(stored > 3 * BESIDE, "{what}: {stored} bytes are too few to tell");
                    let [held, read] = [true, false].map(|at_once| load(&toy, simd, at_once));
                    for Allocated { live, peak } in [&held, &read] {
                        assert!(*live <= bound + BESIDE, "{what}: {live} live, {bound} said");
                        assert!(*peak <= bound + BESIDE, "{what}: {peak} at the most, {bound} said");
                    }
                    assert!(
                        read.peak < held.peak,
                        "{what}: {} read one by one, {} at once",
                        read.peak,
                        held.peak
                    );
                    // Nor is the bound an idle one.
                    assert!(bound < 8 * stored, "{what}: {bound} said of {stored}");
                }
            }
        }
    }
}
