//! The register tile of every matrix product: rows of one operand against a panel of the other.
//!
//! Operands come packed. A *strip* holds [`Lanes::STRIP`] rows, element `k` of all of them side by side; a
//! *panel* holds [`Lanes::PANEL`] columns in the same way. The tile adds the dot products of one block of at
//! most 128 elements to running totals, which is exactly the order that `arithmetic::dot` prescribes:
//! inside a block a chain of fused multiply-adds from +0, then one addition per block. Lanes are outputs,
//! so no sum ever crosses them.

use super::lanes::Lanes;

/// Elements of a block of a dot product.
pub(crate) const BLOCK: usize = gainsay_arithmetic::BLOCK;

/// The ranges `start .. start + len` of the blocks of a dot product over `depth` elements.
pub(crate) fn blocks(depth: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..depth).step_by(BLOCK).map(move |start| (start, BLOCK.min(depth - start)))
}

/// What a block is added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Totals {
    /// +0: the first block of a dot product. What the memory holds is overwritten.
    Fresh,
    /// What the blocks before have left.
    Running,
}

impl Totals {
    /// The state before the block that starts at element `start`.
    #[inline(always)]
    pub(crate) fn before(start: usize) -> Self {
        if start == 0 { Self::Fresh } else { Self::Running }
    }
}

/// One block of a strip and of a panel.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// Elements of the block.
    pub(crate) depth: usize,
    /// The strip's first element of the block, for its first row.
    pub(crate) strip: *const f32,
    /// Floats from one element of the strip to the next.
    pub(crate) strip_step: usize,
    /// The panel's first element of the block, for its first column.
    pub(crate) panel: *const f32,
}

/// Adds one block to the totals of `rows` rows: `totals[i][c] += Σ_k strip[k][i] · panel[k][c]`.
///
/// `totals` is row-major with [`Lanes::PANEL`] columns. Rows from `rows` on, up to the next tile height, may be
/// computed too, from whatever the strip holds there.
///
/// # Safety
/// - `rows` is in `1..=STRIP`;
/// - `strip + k·strip_step` is valid for reading `STRIP` floats, `panel + k·PANEL` for `PANEL`, for `k < depth`;
/// - `totals` is valid for reading and writing `STRIP · PANEL` floats and overlaps neither.
#[inline(always)]
pub(crate) unsafe fn add_block<V: Lanes>(v: V, rows: usize, block: Block, state: Totals, totals: *mut f32) {
    macro_rules! tile {
        ($height:literal) => {
            // SAFETY: the height is at most STRIP, so the caller's promises cover it.
            unsafe { add_block_of::<V, $height>(v, block, state, totals) }
        };
    }
    match rows {
        1 => tile!(1),
        2 => tile!(2),
        3..=4 => tile!(4),
        5..=6 => tile!(6),
        _ if V::STRIP == 6 => unreachable!("at most STRIP rows"),
        7..=10 => tile!(10),
        _ => tile!(14),
    }
}

/// [`add_block`] for a height that the compiler knows.
///
/// # Safety
/// As [`add_block`], with `HEIGHT` for `STRIP`.
#[inline(always)]
unsafe fn add_block_of<V: Lanes, const HEIGHT: usize>(v: V, block: Block, state: Totals, totals: *mut f32) {
    let mut sums = [[v.splat(0.0); 2]; HEIGHT];
    let Block { depth, mut strip, strip_step, mut panel } = block;
    for _ in 0..depth {
        // SAFETY: k < depth; the caller vouches for one panel row and HEIGHT strip elements there. The
        // pointers step to k = depth at most, one past what was promised, and are not read there.
        unsafe {
            let columns = [v.load_from(panel), v.load_from(panel.add(V::LANES))];
            for (i, sum) in sums.iter_mut().enumerate() {
                let x = v.splat(*strip.add(i));
                sum[0] = v.fma(x, columns[0], sum[0]);
                sum[1] = v.fma(x, columns[1], sum[1]);
            }
            strip = strip.wrapping_add(strip_step);
            panel = panel.wrapping_add(V::PANEL);
        }
    }
    for (i, sum) in sums.iter().enumerate() {
        for (half, &added) in sum.iter().enumerate() {
            // SAFETY: row i < HEIGHT of the totals is the caller's promise.
            unsafe {
                let place = totals.add(i * V::PANEL + half * V::LANES);
                let total = if state == Totals::Fresh { v.splat(0.0) } else { v.load_from(place) };
                v.store_to(v.add(total, added), place);
            }
        }
    }
}
