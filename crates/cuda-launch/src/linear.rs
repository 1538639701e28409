//! Linear maps: `linear_f32.cu`, `linear_int8.cu`.
//!
//! What is given here is `x`, `[rows, depth]`, and weights, `[columns, depth]`, as a manifest has them; what comes out is
//! `[rows, columns]`. Few rows go by kernels that are as fast as the weights come, many by tiles; which of them runs
//! changes no bit.

use crate::{At, Format, Launch, Shape, Then, launch};

/// What follows a linear map, and where its results go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// What follows.
    pub then: Then,
    /// The other operand where `then` has two, `[rows, columns]`; else none.
    pub other: At<f32>,
    /// The results, `[rows, columns]`; may be `other`, but not what the map reads.
    pub out: At<f32>,
}

/// A linear map of the profile `exact-f32`.
#[derive(Debug, Clone, Copy)]
pub struct FloatWeights {
    /// `[columns, depth]`.
    pub at: At<u8>,
    /// How the weights are written.
    pub format: Format,
    /// `[columns]`, or none.
    pub bias: At<f32>,
    /// Outputs of a row.
    pub columns: u32,
    /// Inputs of a row.
    pub depth: u32,
}

/// The most rows that go by the kernels for few of them.
const FEW_ROWS: u32 = 32;
/// Columns of a block of threads of those kernels.
const FEW_COLUMNS: u32 = 16;
/// From this depth on a warp has but one column at a time.
const DEEP: u32 = 2049;
/// Rows and columns of a tile.
const TILE: (u32, u32) = (64, 128);
/// Threads of a block.
const THREADS: u32 = 128;

/// `out = then(stored(x · wᵀ + bias))`.
pub fn linear(weights: &FloatWeights, x: At<f32>, rows: u32, output: Output) -> Vec<Launch> {
    let FloatWeights { at, format, bias, columns, depth } = *weights;
    if rows == 0 || columns == 0 {
        return Vec::new();
    }
    let (kernel, shape) = float_kernel(weights, rows);
    let Output { then, other, out } = output;
    let name = match format {
        Format::F32 => kernel.f32,
        Format::Bf16 => kernel.bf16,
        Format::F16 => kernel.f16,
    };
    vec![launch!(name, shape, x, at, bias, other, out, rows, columns, depth, then.code())]
}

/// A kernel's name for each format.
struct Names {
    f32: &'static str,
    bf16: &'static str,
    f16: &'static str,
}

macro_rules! names {
    ($name:literal) => {
        Names { f32: concat!($name, "_f32"), bf16: concat!($name, "_bf16"), f16: concat!($name, "_f16") }
    };
}

/// Bytes of a weight.
fn size(format: Format) -> u32 {
    match format {
        Format::F32 => 4,
        Format::Bf16 | Format::F16 => 2,
    }
}

fn float_kernel(weights: &FloatWeights, rows: u32) -> (Names, Shape) {
    let FloatWeights { format, columns, depth, .. } = *weights;
    let size = size(format);
    let is_aligned = depth.is_multiple_of(16 / size);
    if rows > FEW_ROWS || !is_aligned {
        let blocks = rows.div_ceil(TILE.0) * columns.div_ceil(TILE.1);
        let stage = TILE.0 * (16 * 4 + 16) + TILE.1 * (16 * size + 16);
        let shape = Shape::line(blocks, THREADS).with_shared(TILE.0 * TILE.1 * 4 + 2 * stage);
        return (if is_aligned { names!("linear_tile") } else { names!("linear_odd") }, shape);
    }
    let is_deep = depth >= DEEP;
    let names = match (is_deep, rows) {
        (true, 1) => names!("linear_deep_1"),
        (true, 2..=4) => names!("linear_deep_4"),
        (true, _) => names!("linear_deep_8"),
        (false, 1) => names!("linear_shallow_1"),
        (false, 2..=4) => names!("linear_shallow_4"),
        (false, _) => names!("linear_shallow_8"),
    };
    // Blocks of 128 positions side by side, columns of a lane.
    let (span, lane_columns) = if is_deep { (32, 4) } else { (8, 1) };
    // As `FewSizes` in the kernels: rows of a block of threads, bytes of a block's weights in a slice.
    let (row_step, segment) = match rows {
        1 => (1, 64),
        2..=4 => (4, 64),
        _ => (8, 32),
    };
    let stage = THREADS * lane_columns * segment + row_step * span * (segment / size) * 4;
    let blocks = columns.div_ceil(FEW_COLUMNS) * rows.div_ceil(row_step);
    (names, Shape::line(blocks, THREADS).with_shared(2 * stage))
}
