//! Random lists from a seed that is printed, so that a failure can be had again.

use std::hash::{BuildHasher, Hasher, RandomState};

use gainsay_commitment::TensorCommitment;

/// SplitMix64 (Steele, Lea, Flood, 2014): a few lines, and random enough for choosing inputs.
pub(crate) struct Random(u64);

/// Another seed each time, from the process's own source of randomness.
pub(crate) fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, nearly uniform for the small bounds used here.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Commitments of `count` layers. Some repeat and some are extreme: equal leaves and long runs of equal bits are
    /// where a sort or a decimal conversion goes wrong.
    pub(crate) fn layers(&mut self, count: u64) -> Vec<TensorCommitment> {
        let mut layers: Vec<TensorCommitment> = Vec::new();
        for _ in 0..count {
            let layer = match (self.below(8), layers.last()) {
                (0, Some(last)) => *last,
                (1, _) => TensorCommitment::from_bytes([0; 32]),
                (2, _) => TensorCommitment::from_bytes([0xff; 32]),
                _ => self.bytes().into(),
            };
            layers.push(layer);
        }
        layers
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for part in bytes.chunks_exact_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes());
        }
        bytes
    }
}
