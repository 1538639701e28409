//! Tensors that are hashed where they lie.

use crate::support::{SEEDS, at, at_mut, bytes_at, run};
use gainsay_commitment::{ChainingValue, SubtreeHasher, subtree_heights, tensor::tensor_commitment};
use gainsay_cuda_launch::At;
use gainsay_cuda_launch::blake3::{
    CHUNK_BYTES, HEIGHT, Run, complete_chunks, hash, hash_within, most_values, tail_bytes,
};

const CHUNK_WORDS: usize = CHUNK_BYTES as usize / 4;
const VALUE_WORDS: usize = 8;
/// What stands where nothing has been written.
const UNWRITTEN: u32 = 0xabab_abab;

/// A tensor that is hashed run by run.
struct Tensor {
    words: Vec<u32>,
    /// Where each run ends, in words.
    ends: Vec<usize>,
    done: usize,
    tail: Vec<u32>,
    hasher: SubtreeHasher,
}

impl Tensor {
    fn new(seed: u32, ends: &[usize]) -> Self {
        let words = (0..*ends.last().unwrap() as u32).map(|i| (i ^ seed << 20).wrapping_mul(0x9e37_79b9));
        Self {
            words: words.collect(),
            ends: ends.to_vec(),
            done: 0,
            tail: vec![UNWRITTEN; CHUNK_WORDS],
            hasher: SubtreeHasher::new(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The next run, if there is one, with its words where a kernel finds them: at any multiple of 4 bytes.
    fn next(&mut self, step: usize, shift: usize, out: u64) -> Option<(Run, Vec<u32>)> {
        let end = *self.ends.get(step)?;
        let mut words = vec![UNWRITTEN; shift];
        words.extend_from_slice(&self.words[self.done..end]);
        let run = Run {
            at: bytes_at(&words).skip(4 * shift as u64),
            before: 4 * self.done as u64,
            bytes: 4 * (end - self.done) as u64,
            tail: At::new(at_mut(&mut self.tail).address()),
            out,
        };
        self.done = end;
        Some((run, words))
    }

    fn take(&mut self, run: &Run, values: &[u32]) {
        let values = values.chunks_exact(VALUE_WORDS).skip(run.out as usize).take(run.values() as usize);
        let heights = subtree_heights(run.chunks(), HEIGHT);
        assert_eq!(heights.count() as u64, run.values(), "{run:?}");
        for (value, height) in values.zip(subtree_heights(run.chunks(), HEIGHT)) {
            let bytes: Vec<u8> = value.iter().flat_map(|word| word.to_le_bytes()).collect();
            self.hasher.push(height, ChainingValue::try_from(&bytes[..]).unwrap()).unwrap();
        }
    }
}

/// Hashes tensors side by side, a launch for each of their runs' steps, and compares with the hash of their bytes.
fn check(mut tensors: Vec<Tensor>, seed: u64) {
    let steps = tensors.iter().map(|tensor| tensor.ends.len()).max().unwrap();
    for step in 0..steps {
        let (mut runs, mut out) = (Vec::new(), 0);
        for (index, tensor) in tensors.iter_mut().enumerate() {
            if let Some((run, words)) = tensor.next(step, (index + step) % 5, out) {
                out += run.values();
                runs.push((index, run, words));
            }
        }
        let mut values = vec![UNWRITTEN; (out as usize + 1) * VALUE_WORDS];
        let described: Vec<Run> = runs.iter().map(|(_, run, _)| *run).collect();
        let words: Vec<u64> = described.iter().flat_map(Run::words).collect();
        let longest = described.iter().map(|run| run.bytes).max().unwrap();
        let size = (described.len() as u32, longest);
        let launch = match step % 2 {
            0 => hash(&described, at(&words), at_mut(&mut values)),
            _ => Some(hash_within(size, at(&words), at_mut(&mut values))),
        };
        run(launch, seed);
        let (written, beyond) = values.split_at(out as usize * VALUE_WORDS);
        assert!(beyond.iter().all(|&word| word == UNWRITTEN), "a value behind the last was written");
        for (index, run, _) in &runs {
            tensors[*index].take(run, written);
        }
    }
    for tensor in tensors {
        let bytes = tensor.bytes();
        assert_eq!(tensor.hasher.chunks(), complete_chunks(bytes.len() as u64));
        let tail: Vec<u8> = tensor.tail.iter().flat_map(|word| word.to_le_bytes()).collect();
        let found = tensor.hasher.finish(&tail[..tail_bytes(bytes.len() as u64) as usize]).unwrap();
        assert_eq!(found, tensor_commitment(&bytes), "runs end at {:?}", tensor.ends);
    }
}

/// Runs that end before, at and behind the end of a chunk, and of a group.
#[test]
fn runs_of_any_length_give_the_plain_hash() {
    for seed in SEEDS {
        let ends: [&[usize]; 9] = [
            &[1],
            &[CHUNK_WORDS],
            &[CHUNK_WORDS, CHUNK_WORDS + 1],
            &[CHUNK_WORDS - 1, CHUNK_WORDS, 2 * CHUNK_WORDS, 2 * CHUNK_WORDS + 255],
            &[100, 200, 300, 2000, 2001, 8192],
            &[16 * CHUNK_WORDS, 32 * CHUNK_WORDS, 48 * CHUNK_WORDS],
            &[127 * CHUNK_WORDS, 128 * CHUNK_WORDS, 128 * CHUNK_WORDS + 1],
            &[5 * CHUNK_WORDS + 3, 300 * CHUNK_WORDS + 7, 301 * CHUNK_WORDS],
            &[130 * CHUNK_WORDS, 400 * CHUNK_WORDS],
        ];
        check(ends.iter().zip(1..).map(|(ends, seed)| Tensor::new(seed, ends)).collect(), seed);
    }
}

/// Rows of jobs that come by turns, as decoding leaves them, of odd widths too.
#[test]
fn rows_that_come_one_by_one_give_the_plain_hash() {
    for width in [3, 64, 97, 1024] {
        let tensors = [30usize, 7, 19].into_iter().zip(1..).map(|(rows, seed)| {
            let first = rows / 2;
            let ends: Vec<_> = (first..=rows).map(|rows| rows * width).collect();
            Tensor::new(seed, &ends)
        });
        check(tensors.collect(), width as u64);
    }
}

#[test]
fn there_is_room_for_the_values_of_any_run() {
    for before in (0..300 * CHUNK_BYTES).step_by(252) {
        for bytes in [4, CHUNK_BYTES, 16 * CHUNK_BYTES, 127 * CHUNK_BYTES + 4, 400 * CHUNK_BYTES] {
            let run = Run { at: At::none(), before, bytes, tail: At::none(), out: 0 };
            assert!(run.values() <= most_values(bytes), "{run:?}");
        }
    }
}

#[test]
fn nothing_is_launched_for_no_run() {
    assert_eq!(hash(&[], At::none(), At::none()), None);
}
