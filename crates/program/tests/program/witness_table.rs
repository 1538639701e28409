//! What a dispute over a language model of eight billion weights costs, computed from the formats.
//!
//! The shape is that of Llama 3 8B with weights in bf16: all its rows are whole chunks or whole parts of one, so that reads
//! are as long as their bytes. Paths count as the longest that a run of chunks can have in its tree.

use gainsay_commitment::TreeShape;
use gainsay_commitment::tensor::{CHUNK_BYTES, REVEAL_LEVELS};

pub(crate) const HIDDEN: u64 = 4096;
pub(crate) const KEYS: u64 = 1024;
pub(crate) const INTERMEDIATE: u64 = 14_336;
pub(crate) const HEAD: u64 = 128;
pub(crate) const VOCABULARY: u64 = 128_256;
/// Attention over more rows goes through a virtual layer.
pub(crate) const DIRECT_ROWS: u64 = 64;

/// Witnesses and moves in a sequence of this many tokens, of which any number may be the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) tokens: u64,
    /// An element of the feed-forward part's last linear map, the widest there is.
    pub(crate) linear: u64,
    /// An element of attention over [`DIRECT_ROWS`].
    pub(crate) direct: u64,
    /// A score in a virtual layer.
    pub(crate) score: u64,
    /// The last op of the virtual layer of the last token.
    pub(crate) out: u64,
    /// A drawn token.
    pub(crate) sample: u64,
    /// Moves of the worker in the longest dispute.
    pub(crate) moves: u64,
}

impl Row {
    /// The largest witness of all ops but the draw of a token.
    pub(crate) fn largest_but_sample(&self) -> u64 {
        self.linear.max(self.direct).max(self.score).max(self.out)
    }

    pub(crate) fn new(tokens: u64) -> Self {
        let floats = |rows: u64, width: u64| TreeShape::new(rows * width * 4);
        let (hidden, keys) = (floats(tokens, HIDDEN), floats(tokens, KEYS));
        let column = floats(tokens, 1);
        let weight = TreeShape::new(HIDDEN * INTERMEDIATE * 2);
        let logits = floats(tokens, VOCABULARY);
        let attended = moves(hidden) + if tokens > DIRECT_ROWS { moves(column) } else { 0 };
        Self {
            tokens,
            linear: run(floats(tokens, INTERMEDIATE), INTERMEDIATE * 4) + run(weight, INTERMEDIATE * 2),
            direct: run(hidden, HEAD * 4) + tokens.min(DIRECT_ROWS) * (run(keys, HEAD * 4) + run(keys, 4)),
            score: run(hidden, HEAD * 4) + run(keys, HEAD * 4),
            out: 2 * run(column, column.bytes()),
            sample: run(logits, VOCABULARY * 4),
            moves: attended.max(moves(logits)).max(moves(floats(tokens, INTERMEDIATE))),
        }
    }
}

/// Witness bytes of so many bytes that follow each other, with their path.
fn run(tensor: TreeShape, bytes: u64) -> u64 {
    let chunks = bytes.div_ceil(CHUNK_BYTES as u64);
    let height = u64::from(tensor.height());
    let nodes = match chunks {
        1 => height,
        all if all == tensor.chunks() => 0,
        _ => 2 * height,
    };
    chunks * CHUNK_BYTES as u64 + nodes * 32
}

/// Reveals of ops, of nodes down to a chunk, and of the chunk.
fn moves(tensor: TreeShape) -> u64 {
    2 + u64::from(tensor.height().div_ceil(REVEAL_LEVELS))
}

pub(crate) fn rows() -> [Row; 5] {
    [128, 512, 2048, 32 << 10, 128 << 10].map(Row::new)
}
