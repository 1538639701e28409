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

/// Loads a model; its weights, what was live once it was loaded, and at the most while it was, without what there was.
fn load(toy: Toy, simd: Simd) -> (u64, u64, u64) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let weights: Vec<Arc<[u8]>> = toy.weights.iter().map(|bytes| Arc::from(bytes.as_slice())).collect();
    let stored = weights.iter().map(|bytes| bytes.len() as u64).sum();
    let options = Options { threads: 1, simd, ..Options::default() };
    let model = Model::new(Arc::new(toy.model), weights, options).unwrap();
    let [live, peak] = [&LIVE, &PEAK].map(|count| count.load(Ordering::Relaxed).saturating_sub(before));
    drop(model);
    (stored, live, peak)
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
            // Widths that divide by no kernel's tile; about a million weights a block.
            let decoder = DecoderOptions {
                arithmetic,
                activation_bits,
                dtype,
                tied,
                half_head: 20,
                kv_heads: 3,
                heads_per_kv: 3,
                intermediate: 1_000,
                vocabulary: 999,
                ornate: true,
                blocks: 1,
                ..DecoderOptions::default()
            };
            let encoder = ToyOptions {
                arithmetic,
                activation_bits,
                dtype,
                head_dim: 40,
                heads: 9,
                intermediate: 1_000,
                vocabulary: 999,
                blocks: 1,
                ..ToyOptions::default()
            };
            for simd in Simd::available() {
                for toy in [Toy::decoder(&decoder).unwrap(), Toy::new(&encoder).unwrap()] {
                    let bound = toy.model.weight_memory();
                    let (stored, live, peak) = load(toy, simd);
                    let what =
                        format!("{arithmetic:?}, {activation_bits:?}, {dtype:?}, tied: {tied}, {simd}");
                    assert!(stored > 3 * BESIDE, "{what}: {stored} bytes are too few to tell");
                    assert!(live <= bound + BESIDE, "{what}: {live} live, {bound} said");
                    assert!(peak <= bound + BESIDE, "{what}: {peak} at the most, {bound} said");
                    // Nor is the bound an idle one.
                    assert!(bound < 8 * stored, "{what}: {bound} said of {stored}");
                }
            }
        }
    }
}
