//! BLAKE3 of tensors that lie on the device: `blake3.cu`.
//!
//! A tensor is hashed run by run, in order. What leaves the device of a run are chaining values of subtrees, each as high as
//! its place and [`HEIGHT`] allow, from left to right; what remains of the tensor is in its tail.
//!
//! A chunk is hashed by one thread, step after step: a launch takes what ten thousand instructions in a row take, some
//! microseconds, even for a single chunk, and hardly longer for ten thousand. Where the outputs of layers are small, as in
//! decoding, they are best kept and hashed by one launch together, or on a stream of their own.

use std::ops::Range;

use crate::{At, Launch, Shape, launch};

/// Bytes of a chunk, and of a tail.
pub const CHUNK_BYTES: u64 = 1024;
/// Height of the highest subtree that a launch gives.
pub const HEIGHT: u8 = 7;
/// Bytes of a chaining value.
pub const VALUE_BYTES: u64 = 32;
/// Most groups of 128 chunks of one run: 8 GiB − 128 KiB.
const MOST_GROUPS: u64 = 65_535;
const GROUP: u64 = 1 << HEIGHT;

/// The next bytes of a tensor.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Where they are, at a multiple of 4 bytes.
    pub at: At<u8>,
    /// Bytes of the tensor before them, a multiple of 4.
    pub before: u64,
    /// How many they are, a multiple of 4 and at most [`Run::MOST_BYTES`].
    pub bytes: u64,
    /// The tensor's tail: [`CHUNK_BYTES`] that belong to it from its first run to its last, at a multiple of 4 bytes. Its first
    /// [`tail_bytes`] of all bytes so far are what is left to hash.
    pub tail: At<u8>,
    /// Which of the launch's chaining values is the first of this run's.
    pub out: u64,
}

impl Run {
    /// 64-bit words that describe a run to the device.
    pub const WORDS: usize = 5;
    /// Bytes of the longest run.
    pub const MOST_BYTES: u64 = (MOST_GROUPS - 1) * GROUP * CHUNK_BYTES;

    /// What the device is told.
    pub const fn words(&self) -> [u64; Self::WORDS] {
        [self.at.address(), self.before, self.bytes, self.tail.address(), self.out]
    }

    /// The chunks that this run completes.
    pub const fn chunks(&self) -> Range<u64> {
        complete_chunks(self.before)..complete_chunks(self.before + self.bytes)
    }

    /// How many chaining values it gives.
    pub const fn values(&self) -> u64 {
        let Range { start, end } = self.chunks();
        let (first, last) = (start / GROUP, end / GROUP);
        if first < last {
            // Up to a group's end a subtree for each set bit, then whole groups, then again one for each set bit.
            (GROUP - start % GROUP).count_ones() as u64
                + (last - first - 1)
                + (end % GROUP).count_ones() as u64
        } else {
            nodes_within(start % GROUP, end % GROUP)
        }
    }

    /// Blocks: one for each group that it completes chunks of, and one for the tail if there is none.
    const fn groups(&self) -> u64 {
        let Range { start, end } = self.chunks();
        let last = if end > start { (end - 1) / GROUP } else { start / GROUP };
        last - start / GROUP + 1
    }
}

/// The subtrees of chunks of one group, from left to right each as high as place and number allow.
const fn nodes_within(mut start: u64, end: u64) -> u64 {
    let mut count = 0;
    while start < end {
        let number = 1 << (end - start).ilog2();
        let place = if start == 0 { GROUP } else { start & start.wrapping_neg() };
        start += if number < place { number } else { place };
        count += 1;
    }
    count
}

/// The chunks that can be hashed once so many bytes of a tensor are known: those with a byte behind them.
pub const fn complete_chunks(bytes: u64) -> u64 {
    bytes.saturating_sub(1) / CHUNK_BYTES
}

/// Bytes that are in the tail then.
pub const fn tail_bytes(bytes: u64) -> u64 {
    bytes - complete_chunks(bytes) * CHUNK_BYTES
}

/// Hashes runs of tensors, each of another tensor. `words` are the runs' [`Run::words`], one after another; `out` has room for
/// as many chaining values as [`Run::out`] and [`Run::values`] say. `None` where there is no run.
pub fn hash(runs: &[Run], words: At<u64>, out: At<u32>) -> Option<Launch> {
    let groups = runs.iter().map(Run::groups).max()?;
    debug_assert!(groups <= MOST_GROUPS, "a run is no longer than MOST_BYTES");
    Some(of_shape((runs.len() as u32, groups), words, out))
}

/// As [`hash`], for so many runs, at least one, of at most so many bytes each: the same launch whatever they are.
pub fn hash_within((runs, bytes): (u32, u64), words: At<u64>, out: At<u32>) -> Launch {
    // The chunk in the tail may be the last of a group.
    let groups = bytes.div_ceil(CHUNK_BYTES).div_ceil(GROUP) + 1;
    debug_assert!(groups <= MOST_GROUPS, "a run is no longer than MOST_BYTES");
    of_shape((runs, groups), words, out)
}

fn of_shape((runs, groups): (u32, u64), words: At<u64>, out: At<u32>) -> Launch {
    launch!("blake3_runs", Shape::grid([runs, groups as u32, 1], GROUP as u32), words, out)
}

/// The most chaining values that so many bytes give, wherever in a tensor they are.
pub const fn most_values(bytes: u64) -> u64 {
    // With the tail they complete that many chunks at most; of the first and of the last group there may be a value for each
    // height.
    let chunks = bytes.div_ceil(CHUNK_BYTES);
    let (within, groups) = (2 * (HEIGHT as u64 + 1), chunks / GROUP);
    if chunks < within { chunks } else { within + groups }
}
