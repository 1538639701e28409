//! Operators that go element by element, and those that move rows: `each.cu`.

use crate::{At, Format, Launch, Shape, Then, launch};

const THREADS: u32 = 256;
/// More blocks than any GPU runs at once: beyond, a thread takes several elements.
const MOST_BLOCKS: u64 = 4096;

fn shape(elements: u64) -> Shape {
    Shape::line(elements.div_ceil(u64::from(THREADS)).clamp(1, MOST_BLOCKS) as u32, THREADS)
}

/// `out[i] = stored(then(x[i]))`, with `other[i]` where `then` takes two operands. `out` may be one of them.
pub fn each(then: Then, x: At<f32>, other: At<f32>, out: At<f32>, count: u64) -> Launch {
    launch!("each", shape(count), x, other, out, count, then.code())
}

/// `x`, `[rows, width]`, rotated in heads of `head` columns by the angles of each row's position; `cos` and `sin` are
/// `[positions, head / 2]`.
pub fn rope(
    x: At<f32>,
    (cos, sin): (At<f32>, At<f32>),
    positions: At<u32>,
    out: At<f32>,
    (rows, width, head): (u32, u32, u32),
) -> Launch {
    let pairs = u64::from(rows) * u64::from(width / 2);
    launch!("rope", shape(pairs), x, cos, sin, positions, out, rows, width, head)
}

/// Rows of a table, widened: `out` is `[count, width]`. Whoever launches has checked that the table has the rows.
pub fn gather(
    (table, format): (At<u8>, Format),
    rows: At<u32>,
    out: At<f32>,
    (count, width): (u32, u32),
) -> Launch {
    let shape = shape(u64::from(count) * u64::from(width));
    let (floats, shorts) = (At::<f32>::new(table.address()), At::<u16>::new(table.address()));
    match format {
        Format::F32 => launch!("gather_f32", shape, floats, rows, out, count, width),
        Format::Bf16 => launch!("gather_bf16", shape, shorts, rows, out, count, width),
        Format::F16 => launch!("gather_f16", shape, shorts, rows, out, count, width),
    }
}
