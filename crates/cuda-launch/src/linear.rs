//! Linear maps: `linear_f32.cu`, `linear_int8.cu`.
//!
//! What is given here is `x`, `[rows, depth]`, and weights, `[columns, depth]`, as a manifest has them; what comes out is
//! `[rows, columns]`. Few rows go by kernels that are as fast as the weights come, many by tiles; which of them runs
//! changes no bit.

use crate::{Argument, At, Format, Launch, Shape, Then, launch};

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
/// From this depth on a warp's lanes have 32 blocks of a column side by side.
const DEEP: u32 = 2049;
/// From this depth on they have 16 of two columns, below 8 of four.
const MIDDLE: u32 = 1025;
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
    // Blocks of 128 positions side by side, columns of a lane.
    let (span, lane_columns, names) = match depth {
        DEEP.. => (32, 4, [names!("linear_deep_1"), names!("linear_deep_4"), names!("linear_deep_8")]),
        MIDDLE.. => {
            (16, 2, [names!("linear_middle_1"), names!("linear_middle_4"), names!("linear_middle_8")])
        }
        _ => (8, 1, [names!("linear_shallow_1"), names!("linear_shallow_4"), names!("linear_shallow_8")]),
    };
    let [one, four, eight] = names;
    // As `FewSizes` in the kernels: rows of a block of threads, bytes of a block's weights in a slice.
    let (row_step, segment, names) = match rows {
        1 => (1, 64, one),
        2..=4 => (4, 64, four),
        _ => (8, 32, eight),
    };
    let stage = THREADS * lane_columns * segment + row_step * span * (segment / size) * 4;
    let blocks = columns.div_ceil(FEW_COLUMNS) * rows.div_ceil(row_step);
    (names, Shape::line(blocks, THREADS).with_shared(2 * stage))
}

/// Quantized activations.
#[derive(Debug, Clone, Copy)]
pub struct Levels {
    /// `[rows, depth]`: levels, or their lower digits.
    pub low: At<i8>,
    /// `[rows, depth]`: the upper digits of levels of 16 bits, else none.
    pub high: At<i8>,
    /// `[rows, depth / group]`.
    pub scales: At<f32>,
}

/// A linear map of the profile `exact-int8`.
#[derive(Debug, Clone, Copy)]
pub struct Int8Weights {
    /// `[columns, depth]`.
    pub at: At<i8>,
    /// `[columns, depth / group]`.
    pub scales: At<f32>,
    /// `[columns]`, or none.
    pub bias: At<f32>,
    /// Outputs of a row.
    pub columns: u32,
    /// Inputs of a row.
    pub depth: u32,
    /// Inputs of a group; it divides the depth.
    pub group: u32,
    /// Whether activations have 16 bits.
    pub sixteen: bool,
}

/// Groups up to this length are quantized by a warp each, longer ones by a block.
pub(crate) const SHORT_GROUP: u32 = 1024;
/// Warps of a block that quantizes.
const QUANTIZE_WARPS: u32 = 8;
/// Threads of a block.
const INT8_THREADS: u32 = 256;
/// Positions that a warp multiplies at once.
const MMA_STEP: u32 = 64;
/// Offsets within a tile are of 32 bits, which is enough for rows below this length.
const MOST_DEPTH: u32 = 1 << 25;
/// The most rows of digits that go by the kernels for few of them.
const FEW_DIGITS: u32 = 64;
/// Rows of digits and columns of a tile.
const INT8_TILE: u32 = 128;

/// Quantizes `x`, `[rows, depth]`, in groups, to 16 bits where `levels` has upper digits.
pub fn quantize(x: At<f32>, (rows, depth, group): (u32, u32, u32), levels: &Levels) -> Vec<Launch> {
    let Levels { low, high, scales } = *levels;
    let groups = u64::from(rows) * u64::from(depth / group);
    let (kernel, blocks) = if group <= SHORT_GROUP {
        ("quantize_short", groups.div_ceil(u64::from(QUANTIZE_WARPS)))
    } else {
        ("quantize_long", groups)
    };
    if blocks == 0 {
        return Vec::new();
    }
    let shape = Shape::line(blocks as u32, QUANTIZE_WARPS * 32);
    vec![launch!(kernel, shape, x, low, high, scales, groups, group)]
}

/// `out = then(stored(t))`, `t` the scaled sums of the groups of levels · weights, from the bias on.
pub fn linear_int8(weights: &Int8Weights, levels: &Levels, rows: u32, output: Output) -> Vec<Launch> {
    let Int8Weights { at, scales, bias, columns, depth, group, .. } = *weights;
    if rows == 0 || columns == 0 {
        return Vec::new();
    }
    let Int8Kernel { kernel, shape, slots } = int8_kernel(weights, rows);
    let Output { then, other, out } = output;
    let Levels { low, high, scales: row_scales } = *levels;
    let then = then.code();
    vec![launch!(
        kernel, shape, low, high, row_scales, at, scales, bias, other, out, rows, columns, depth, group,
        then, slots
    )]
}

/// A linear map among others that read the same levels.
#[derive(Debug, Clone, Copy)]
pub struct Int8Part {
    /// Its weights; depth, group and width of activations are those of the others.
    pub weights: Int8Weights,
    /// What follows, of one operand.
    pub then: Then,
    /// The results, `[rows, columns]`.
    pub out: At<f32>,
}

/// Two or three maps of the same levels by one launch, each as [`linear_int8`]; `None` where there are too many rows, or sizes
/// that no kernel for few rows takes.
pub fn linear_int8_together(parts: &[Int8Part], levels: &Levels, rows: u32) -> Option<Launch> {
    let first = parts.first().filter(|_| rows > 0 && (2..=3).contains(&parts.len()))?;
    let Int8Weights { depth, group, sixteen, .. } = first.weights;
    let alike = |part: &Int8Part| {
        let Int8Weights { columns, depth: its_depth, group: its_group, sixteen: its_sixteen, .. } =
            part.weights;
        columns > 0 && (its_depth, its_group, its_sixteen) == (depth, group, sixteen)
    };
    if !parts.iter().all(alike) {
        return None;
    }
    let Int8Kernel { kernel, shape, slots } = int8_kernel(&first.weights, rows);
    let kernel = TOGETHER.iter().find(|(alone, _)| *alone == kernel)?.1;
    let blocks = parts.iter().map(|part| int8_kernel(&part.weights, rows).shape.grid[0]).sum();
    let Levels { low, high, scales } = *levels;
    let mut launch = launch!(
        kernel,
        Shape { grid: [blocks, 1, 1], ..shape },
        low,
        high,
        scales,
        rows,
        depth,
        group,
        slots
    );
    for index in 0..3 {
        let part = parts.get(index);
        let of = part.map(|part| part.weights);
        launch.arguments.extend([
            Argument::from(of.map_or(At::none(), |of| of.at)),
            of.map_or(At::none(), |of| of.scales).into(),
            of.map_or(At::none(), |of| of.bias).into(),
            part.map_or(At::none(), |part| part.out).into(),
            of.map_or(0, |of| of.columns).into(),
            part.map_or(Then::Nothing, |part| part.then).code().into(),
        ]);
    }
    Some(launch)
}

/// Kernels for few rows, and those for several maps of them.
const TOGETHER: [(&str, &str); 6] = [
    ("int8_few_8", "int8_few_8_together"),
    ("int8_few_16", "int8_few_16_together"),
    ("int8_few_32", "int8_few_32_together"),
    ("int8_few_8_digits", "int8_few_8_digits_together"),
    ("int8_few_16_digits", "int8_few_16_digits_together"),
    ("int8_few_32_digits", "int8_few_32_digits_together"),
];

struct Int8Kernel {
    kernel: &'static str,
    shape: Shape,
    /// Groups whose sums a kernel for few rows has at once.
    slots: u32,
}

fn int8_kernel(weights: &Int8Weights, rows: u32) -> Int8Kernel {
    let Int8Weights { columns, depth, group, sixteen, .. } = *weights;
    let is_whole = group == depth;
    let is_aligned = depth.is_multiple_of(16) && depth < MOST_DEPTH;
    // Groups shorter than a step would each need a place for their sums, more than a block has.
    if !is_aligned || group < MMA_STEP || !(is_whole || group.is_multiple_of(MMA_STEP)) {
        let blocks = (u64::from(rows) * u64::from(columns)).div_ceil(u64::from(INT8_THREADS));
        return Int8Kernel {
            kernel: "int8_plain",
            shape: Shape::line(blocks as u32, INT8_THREADS),
            slots: 0,
        };
    }
    let digits = if sixteen { 2 } else { 1 };
    if rows * digits <= FEW_DIGITS {
        return few_int8(weights, rows * digits);
    }
    let (kernel, stage_depth) = match (is_whole, group.is_multiple_of(INT8_TILE), sixteen) {
        (true, _, false) => ("int8_tile_whole", 128),
        (true, _, true) => ("int8_tile_whole_digits", 128),
        (false, true, false) => ("int8_tile_grouped", 128),
        (false, true, true) => ("int8_tile_grouped_digits", 128),
        (false, false, false) => ("int8_tile_short", 64),
        (false, false, true) => ("int8_tile_short_digits", 64),
    };
    // Three stages, in whose place the results come, behind three sets of scales.
    let (stages, results) = (3 * 2 * INT8_TILE * stage_depth, INT8_TILE / digits * (INT8_TILE + 4) * 4);
    let blocks = (rows * digits).div_ceil(INT8_TILE) * columns.div_ceil(INT8_TILE);
    let shape = Shape::line(blocks, INT8_THREADS).with_shared(3 * INT8_THREADS * 4 + stages.max(results));
    Int8Kernel { kernel, shape, slots: 0 }
}

/// The kernel for few rows of digits.
fn few_int8(weights: &Int8Weights, digits: u32) -> Int8Kernel {
    let Int8Weights { columns, group, sixteen, .. } = *weights;
    let (kernel, row_tiles) = match (digits, sixteen) {
        (0..=8, false) => ("int8_few_8", 1),
        (0..=8, true) => ("int8_few_8_digits", 1),
        (9..=16, false) => ("int8_few_16", 2),
        (9..=16, true) => ("int8_few_16_digits", 2),
        (_, false) => ("int8_few_32", 4),
        (_, true) => ("int8_few_32_digits", 4),
    };
    // As `FewInt8` in the kernels: columns of a block, positions of a chunk.
    let (block_columns, chunk) = if row_tiles == 4 { (32, 1024) } else { (16, 2048) };
    // The groups that a chunk can have a part of.
    let slots = chunk / group + 2;
    let block_digits = 8 * row_tiles;
    let blocks = columns.div_ceil(block_columns) * digits.div_ceil(block_digits);
    // Their sums, and twice their scales.
    let lines = block_columns + if sixteen { block_digits / 2 } else { block_digits };
    let words = slots * (block_columns * block_digits + 2 * lines);
    let shape = Shape::line(blocks, INT8_THREADS).with_shared(words * 4);
    Int8Kernel { kernel, shape, slots }
}
