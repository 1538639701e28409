//! Float buffers whose first element starts a cache line.

/// Floats in a cache line.
const LINE: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// A buffer of zeros at first, aligned to cache lines, so that no vector load at a multiple of the
/// vector's length straddles two of them.
pub(crate) struct AlignedBuffer {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedBuffer {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        Self { lines: vec![Line([0.0; LINE]); len.div_ceil(LINE)], len }
    }

    /// All elements.
    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: the lines are contiguous arrays of f32 without padding (64 bytes of size and alignment),
        // all initialised, and hold at least `len` floats.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    /// All elements, to write.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as in `as_slice`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// A row-major output that several tasks write at once, each its own rectangle.
pub(crate) struct SharedRows<'a> {
    first: *mut f32,
    rows: usize,
    width: usize,
    borrowed: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: the only access is through `row_part`, whose contract forbids overlapping borrows.
unsafe impl Send for SharedRows<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedRows<'_> {}

impl<'a> SharedRows<'a> {
    /// Shares `all`, rows of `width` floats.
    pub(crate) fn new(all: &'a mut [f32], width: usize) -> Self {
        assert!(width > 0 && all.len().is_multiple_of(width), "whole rows");
        Self { first: all.as_mut_ptr(), rows: all.len() / width, width, borrowed: std::marker::PhantomData }
    }

    /// Columns `column .. column + len` of row `row`; panics if they are not in the tensor.
    ///
    /// # Safety
    /// As long as the result lives, no other call may be given an element of it.
    #[expect(clippy::mut_from_ref, reason = "exclusive by the contract of this method")]
    #[inline(always)]
    pub(crate) unsafe fn row_part(&self, row: usize, column: usize, len: usize) -> &mut [f32] {
        assert!(row < self.rows && column <= self.width && len <= self.width - column, "inside the tensor");
        // SAFETY: the part lies inside the slice borrowed in `new`, by the assertion; the caller vouches
        // that nobody else holds it.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(row * self.width + column), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_starts_a_cache_line_and_holds_its_length() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let mut buffer = AlignedBuffer::zeroed(len);
            assert_eq!(buffer.as_slice().as_ptr() as usize % 64, 0);
            assert_eq!(buffer.as_slice(), vec![0.0; len]);
            buffer.as_mut_slice().fill(1.0);
            assert_eq!(buffer.as_slice(), vec![1.0; len]);
        }
    }

    #[test]
    #[should_panic(expected = "inside the tensor")]
    fn a_part_outside_the_tensor_is_refused() {
        let mut all = [0.0; 6];
        let shared = SharedRows::new(&mut all, 3);
        // SAFETY: this is the only borrow.
        unsafe { shared.row_part(1, 2, 2) };
    }
}
