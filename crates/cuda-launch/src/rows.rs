//! Operators that go row by row: `rows.cu`.

use crate::each::gather;
use crate::linear::{Levels, SHORT_GROUP};
use crate::{Argument, At, Format, Launch, Shape, launch};

/// The widest row that half a warp holds in its registers.
const NARROW: u32 = 1024;
/// Threads of a block of narrow rows, sixteen for each.
const NARROW_THREADS: u32 = 128;
const NARROW_TEAM: u32 = 16;
/// Threads of a block for a wide row.
const WIDE_THREADS: u32 = 256;
/// Floats that a wide row has at most to be held in shared memory; with the sums' 512 bytes that is less than 48 KiB.
const MOST_HELD: u32 = 11 << 10;

/// A norm's launch: the kernel for narrow rows or the one for wide rows, whose arguments end with those given.
fn norm(
    [narrow, wide]: [&'static str; 2],
    mut arguments: Vec<Argument>,
    out: At<f32>,
    (rows, width): (u32, u32),
) -> Launch {
    arguments.extend([Argument::from(out), rows.into(), width.into()]);
    if width <= NARROW {
        let shape = Shape::line(rows.div_ceil(NARROW_THREADS / NARROW_TEAM), NARROW_THREADS);
        return Launch { kernel: narrow, shape, arguments };
    }
    let held = width <= MOST_HELD;
    arguments.push(Argument::U32(held.into()));
    let bytes = if held { width * size_of::<f32>() as u32 } else { 0 };
    Launch { kernel: wide, shape: Shape::line(rows, WIDE_THREADS).with_shared(bytes), arguments }
}

/// `out = stored(LayerNorm(x))`, `[rows, width]`, with `weight` and `bias` of a row. At least one row.
pub fn layer_norm(
    x: At<f32>,
    (weight, bias): (At<f32>, At<f32>),
    eps: f32,
    out: At<f32>,
    size: (u32, u32),
) -> Launch {
    let arguments = vec![x.into(), weight.into(), bias.into(), eps.into()];
    norm(["layer_norm_narrow", "layer_norm_wide"], arguments, out, size)
}

/// `out = stored(RMSNorm(x))`, `[groups, width]`, with `weight` of a group. A row may have several groups: those of its
/// heads. At least one group.
pub fn rms_norm(x: At<f32>, weight: At<f32>, eps: f32, out: At<f32>, size: (u32, u32)) -> Launch {
    norm(["rms_norm_narrow", "rms_norm_wide"], vec![x.into(), weight.into(), eps.into()], out, size)
}

/// [`layer_norm`] or, without a bias, [`rms_norm`] of whole rows, whose results are quantized in groups of `group` columns
/// besides; `group` divides the width.
pub fn norm_and_quantize(
    x: At<f32>,
    (weight, bias): (At<f32>, Option<At<f32>>),
    eps: f32,
    out: At<f32>,
    ((rows, width), group, levels): ((u32, u32), u32, &Levels),
) -> Launch {
    let held = width <= MOST_HELD;
    let shape =
        Shape::line(rows, WIDE_THREADS).with_shared(if held { width * size_of::<f32>() as u32 } else { 0 });
    let mut arguments: Vec<Argument> = vec![x.into(), weight.into()];
    arguments.extend(bias.map(Argument::from));
    arguments.extend([Argument::from(eps), out.into(), rows.into(), width.into(), u32::from(held).into()]);
    let Levels { low, high, scales } = *levels;
    let by_block = u32::from(group > SHORT_GROUP);
    arguments.extend([Argument::from(low), high.into(), scales.into(), group.into(), by_block.into()]);
    let kernel = if bias.is_some() { "layer_norm_quantize" } else { "rms_norm_quantize" };
    Launch { kernel, shape, arguments }
}

/// `out = stored(x / divisor)`, `[rows, width]`: rows of length one. At least one row.
pub fn normalize(x: At<f32>, out: At<f32>, size: (u32, u32)) -> Launch {
    norm(["normalize_narrow", "normalize_wide"], vec![x.into()], out, size)
}

/// The means of the columns of `x` over each sequence, `out` being `[sequences, width]`: sequence `s` has the rows from
/// `starts[s]` to before `starts[s + 1]`. At least one sequence, and width at most 2²⁰.
pub fn mean_pool(x: At<f32>, starts: At<u32>, out: At<f32>, (sequences, width): (u32, u32)) -> Launch {
    const COLUMNS: u32 = 32;
    const THREADS: u32 = 8 * COLUMNS;
    launch!("mean_pool", Shape::grid([sequences, width.div_ceil(COLUMNS), 1], THREADS), x, starts, out, width)
}

/// Rows of `x`, which has rows of `width` floats: `out` is `[count, width]`.
pub fn select(x: At<f32>, rows: At<u32>, out: At<f32>, size: (u32, u32)) -> Launch {
    gather((At::new(x.address()), Format::F32), rows, out, size)
}
