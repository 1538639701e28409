//! Where the sum of a group goes: the floating-point part of a product.

use crate::kernels::lanes::Lanes;

/// Takes the integer sums of a group as they are finished.
pub(crate) trait Sink<V: Lanes>: Copy {
    /// Takes the sums of one row with one half of a panel's columns.
    ///
    /// # Safety
    /// `row` and `half` must be within what the sink was made for.
    unsafe fn take(self, v: V, row: usize, half: usize, sums: V::I);
}

/// Keeps the sums of upper digits as floats, `[row][column]`.
#[derive(Clone, Copy)]
pub(super) struct Keep {
    /// Room for all rows of a strip.
    pub(super) to: *mut f32,
}

impl<V: Lanes> Sink<V> for Keep {
    #[inline(always)]
    unsafe fn take(self, v: V, row: usize, half: usize, sums: V::I) {
        // SAFETY: the caller vouches for the row and the half.
        unsafe { v.store_to(v.to_float(sums), self.to.add(row * V::PANEL + half * V::LANES)) };
    }
}

/// `t = fma(f, s_a · s_w, t)`, where f is the sum, or with `HIGH` `fma(upper sum, 256, sum)`.
#[derive(Clone, Copy)]
pub(super) struct Scale<const HIGH: bool> {
    /// s_a of each row.
    pub(super) row_scales: *const f32,
    /// s_w of each column.
    pub(super) column_scales: *const f32,
    /// t before, `[row][column]`.
    pub(super) before: *const f32,
    /// From one row of `before` to the next: 0 where all rows start with the bias.
    pub(super) before_step: usize,
    /// t afterwards, `[row][column]`; may be `before`.
    pub(super) after: *mut f32,
    /// What [`Keep`] has kept of the upper digits.
    pub(super) high: *const f32,
}

impl Scale<false> {
    /// The same with the upper digits' part.
    #[inline(always)]
    pub(super) fn with_high(self) -> Scale<true> {
        let Self { row_scales, column_scales, before, before_step, after, high } = self;
        Scale { row_scales, column_scales, before, before_step, after, high }
    }
}

impl<V: Lanes, const HIGH: bool> Sink<V> for Scale<HIGH> {
    #[inline(always)]
    unsafe fn take(self, v: V, row: usize, half: usize, sums: V::I) {
        let column = half * V::LANES;
        // SAFETY: the caller vouches for the row and the half.
        unsafe {
            let mut f = v.to_float(sums);
            if HIGH {
                f = v.fma(v.load_from(self.high.add(row * V::PANEL + column)), v.splat(256.0), f);
            }
            let scale =
                v.mul(v.splat(*self.row_scales.add(row)), v.load_from(self.column_scales.add(column)));
            let t = v.load_from(self.before.add(row * self.before_step + column));
            v.store_to(v.fma(f, scale, t), self.after.add(row * V::PANEL + column));
        }
    }
}
