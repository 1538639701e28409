//! The register tile of every matrix product: rows of one operand against a panel of the other.
//!
//! A *strip* holds up to [`Lanes::STRIP`] rows, packed (element `k` of all of them side by side) or as they stand; a
//! *panel* holds [`Lanes::PANEL`] columns, element `k` of all of them side by side, as f32 or in 16 bits that are
//! widened on their way into a register. The tile adds the dot products of one block of at most 128 elements to running
//! totals, which is exactly the order that `arithmetic::dot` prescribes: inside a block a chain of fused
//! multiply-adds from +0, then one addition per block. Lanes are outputs, so no sum ever crosses them.

use super::lanes::{Element, Lanes};

/// Elements of a block of a dot product.
pub(crate) const BLOCK: usize = gainsay_arithmetic::BLOCK;

/// The ranges `start .. start + len` of the blocks of a dot product over `depth` elements.
pub(crate) fn blocks(depth: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..depth).step_by(BLOCK).map(move |start| (start, BLOCK.min(depth - start)))
}

/// What a block is added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// +0: the first block of a dot product. What the memory holds is overwritten.
    Fresh,
    /// What the blocks before have left.
    Running,
}

impl State {
    /// The state before the block that starts at element `start`.
    #[inline(always)]
    pub(crate) fn before(start: usize) -> Self {
        if start == 0 { Self::Fresh } else { Self::Running }
    }
}

/// Some elements of a strip and of a panel.
#[derive(Clone, Copy)]
pub(crate) struct Block<E> {
    /// Elements of the block.
    pub(crate) depth: usize,
    /// The strip's first element of the block, for its first row.
    pub(crate) strip: *const f32,
    /// Floats from one element of the strip to the next.
    pub(crate) strip_step: usize,
    /// Floats from one row of the strip to the next.
    pub(crate) row_step: usize,
    /// The panel's first element of the block, for its first column.
    pub(crate) panel: *const E,
    /// Elements from one element of a column to the next.
    pub(crate) panel_step: usize,
}

/// Running totals, row-major.
#[derive(Clone, Copy)]
pub(crate) struct Totals {
    /// The first column of the first row.
    pub(crate) at: *mut f32,
    /// Floats from one row to the next.
    pub(crate) step: usize,
    /// What they are before.
    pub(crate) state: State,
}

/// Adds one block to the totals of `rows` rows: `totals[i][c] += Σ_k strip[k][i] · panel[k][c]`.
///
/// Rows from `rows` on, up to the next tile height, may be computed too, from whatever the strip holds there.
///
/// # Safety
/// - `rows` is in `1..=STRIP`;
/// - `strip + k·strip_step + i·row_step` is valid for reading for `i < STRIP`, `panel + k·panel_step` for `PANEL`
///   elements, for `k < depth`;
/// - `totals` is valid for reading and writing `PANEL` floats in each of `STRIP` rows and overlaps neither.
#[inline(always)]
pub(crate) unsafe fn add_block<V: Lanes, E: Element>(v: V, rows: usize, block: Block<E>, totals: Totals) {
    macro_rules! tile {
        ($height:literal) => {
            // SAFETY: the height is at most STRIP, so the caller's promises cover it.
            unsafe { add_block_of::<V, E, $height>(v, block, totals) }
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

/// Rows that [`add_few`] takes at most: so few that packing them costs more than it saves.
pub(crate) const FEW_ROWS: usize = 4;

/// [`add_block`] for at most [`FEW_ROWS`] rows, of which exactly `rows` are read and computed.
///
/// # Safety
/// As [`add_block`], with `rows` for `STRIP`.
#[inline(always)]
pub(crate) unsafe fn add_few<V: Lanes, E: Element>(v: V, rows: usize, block: Block<E>, totals: Totals) {
    macro_rules! tile {
        ($height:literal) => {
            // SAFETY: the height is that of the rows, so the caller's promises cover it.
            unsafe { add_block_of::<V, E, $height>(v, block, totals) }
        };
    }
    match rows {
        1 => tile!(1),
        2 => tile!(2),
        3 => tile!(3),
        _ => tile!(4),
    }
}

/// [`add_block`] for a height that the compiler knows.
///
/// # Safety
/// As [`add_block`], with `HEIGHT` for `STRIP`.
#[inline(always)]
unsafe fn add_block_of<V: Lanes, E: Element, const HEIGHT: usize>(v: V, block: Block<E>, totals: Totals) {
    // SAFETY: one block at its place is what the caller vouches for.
    let [sums] = unsafe { chains::<V, E, HEIGHT, 1>(v, block, 0) };
    // SAFETY: the rows of the totals are the caller's promise.
    unsafe { add_sums(v, sums, totals) };
}

/// The dot products of whole rows, [`BLOCK`] by [`BLOCK`], where a row or two would leave the chains of one block waiting
/// for each other: several blocks, which do not depend on each other, side by side, added in their order.
///
/// # Safety
/// As [`add_block`] with `rows` for `STRIP`; `block.depth` may be any.
#[inline(always)]
pub(crate) unsafe fn dot_few<V: Lanes, E: Element>(v: V, rows: usize, block: Block<E>, totals: Totals) {
    macro_rules! dot {
        ($height:literal, $blocks:literal) => {
            // SAFETY: the height is that of the rows, so the caller's promises cover it.
            unsafe { dot_few_of::<V, E, $height, $blocks>(v, block, totals) }
        };
    }
    match rows {
        1 => dot!(1, 4),
        2 => dot!(2, 2),
        3 => dot!(3, 1),
        _ => dot!(4, 1),
    }
}

/// [`dot_few`] for a height and blocks side by side that the compiler knows.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn dot_few_of<V: Lanes, E: Element, const HEIGHT: usize, const BLOCKS: usize>(
    v: V,
    whole: Block<E>,
    mut totals: Totals,
) {
    let mut start = 0;
    let from = |start: usize, depth: usize| Block {
        depth,
        strip: whole.strip.wrapping_add(start * whole.strip_step),
        panel: whole.panel.wrapping_add(start * whole.panel_step),
        ..whole
    };
    while start + BLOCKS * BLOCK <= whole.depth {
        // SAFETY: BLOCKS whole blocks from `start` on end within the depth that the caller vouches for.
        for sums in unsafe { chains::<V, E, HEIGHT, BLOCKS>(v, from(start, BLOCK), BLOCK) } {
            // SAFETY: the rows of the totals are the caller's promise.
            unsafe { add_sums(v, sums, totals) };
            totals.state = State::Running;
        }
        start += BLOCKS * BLOCK;
    }
    while start < whole.depth {
        let depth = BLOCK.min(whole.depth - start);
        // SAFETY: the block ends within the depth that the caller vouches for.
        unsafe { add_block_of::<V, E, HEIGHT>(v, from(start, depth), totals) };
        totals.state = State::Running;
        start += depth;
    }
}

/// The chains of `BLOCKS` blocks of which the first is given and each other starts `apart` elements after the one
/// before.
///
/// # Safety
/// As [`add_block`], with `HEIGHT` for `STRIP`, for each of the blocks; nothing is written.
#[inline(always)]
unsafe fn chains<V: Lanes, E: Element, const HEIGHT: usize, const BLOCKS: usize>(
    v: V,
    block: Block<E>,
    apart: usize,
) -> [[[V::F; 2]; HEIGHT]; BLOCKS] {
    let mut sums = [[[v.splat(0.0); 2]; HEIGHT]; BLOCKS];
    let Block { depth, mut strip, strip_step, row_step, mut panel, panel_step } = block;
    for _ in 0..depth {
        for (b, sums) in sums.iter_mut().enumerate() {
            let (strip, panel) =
                (strip.wrapping_add(b * apart * strip_step), panel.wrapping_add(b * apart * panel_step));
            // SAFETY: k < depth; the caller vouches for one panel row and HEIGHT strip elements there. The
            // pointers step to k = depth at most, one past what was promised, and are not read there.
            unsafe {
                let columns = [E::load(v, panel), E::load(v, panel.add(V::LANES))];
                for (i, sum) in sums.iter_mut().enumerate() {
                    let x = v.splat(*strip.add(i * row_step));
                    sum[0] = v.fma(x, columns[0], sum[0]);
                    sum[1] = v.fma(x, columns[1], sum[1]);
                }
            }
        }
        strip = strip.wrapping_add(strip_step);
        panel = panel.wrapping_add(panel_step);
    }
    sums
}

/// Adds finished chains to totals.
///
/// # Safety
/// `totals` is valid for reading and writing `PANEL` floats in each of `HEIGHT` rows.
#[inline(always)]
unsafe fn add_sums<V: Lanes, const HEIGHT: usize>(v: V, sums: [[V::F; 2]; HEIGHT], totals: Totals) {
    for (i, sum) in sums.iter().enumerate() {
        for (half, &added) in sum.iter().enumerate() {
            // SAFETY: row i < HEIGHT of the totals is the caller's promise.
            unsafe {
                let place = totals.at.add(i * totals.step + half * V::LANES);
                let total = if totals.state == State::Fresh { v.splat(0.0) } else { v.load_from(place) };
                v.store_to(v.add(total, added), place);
            }
        }
    }
}
