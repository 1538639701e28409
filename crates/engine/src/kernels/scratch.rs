//! Working memory of kernels, kept by each thread from one call to the next.

use std::cell::RefCell;

use super::buffer::AlignedBuffer;

/// Buffers that a thread keeps; kernels nest at most this deep.
const KEPT: usize = 4;

thread_local! {
    static FREE: RefCell<Vec<AlignedBuffer>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `len` floats of unspecified, but initialised, content.
pub(crate) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = take(len);
    let result = work(&mut buffer.as_mut_slice()[..len]);
    give_back(buffer);
    result
}

fn take(len: usize) -> AlignedBuffer {
    let kept = FREE.with_borrow_mut(|free| {
        let fitting = free.iter().position(|buffer| buffer.as_slice().len() >= len);
        fitting.map(|index| free.swap_remove(index))
    });
    kept.unwrap_or_else(|| AlignedBuffer::zeroed(len))
}

fn give_back(buffer: AlignedBuffer) {
    FREE.with_borrow_mut(|free| {
        if free.len() == KEPT {
            let smallest = (0..KEPT).min_by_key(|&index| free[index].as_slice().len());
            free.swap_remove(smallest.expect("KEPT is not zero"));
        }
        free.push(buffer);
    });
}

/// Cuts `len` floats, rounded up to whole cache lines, off the front of `rest`.
#[inline(always)]
pub(crate) fn cut<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (front, back) = std::mem::take(rest).split_at_mut(lines(len));
    *rest = back;
    front
}

/// `len` rounded up to whole cache lines.
#[inline(always)]
pub(crate) const fn lines(len: usize) -> usize {
    len.next_multiple_of(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_calls_get_different_memory_of_the_wanted_length() {
        with_scratch(100, |outer| {
            outer.fill(1.0);
            with_scratch(50, |inner| {
                assert_eq!(inner.len(), 50);
                inner.fill(2.0);
            });
            assert!(outer.len() == 100 && outer.iter().all(|&x| x == 1.0));
        });
    }

    #[test]
    fn cutting_keeps_alignment_and_order() {
        let mut all = [0.0; 64];
        let mut rest = &mut all[..];
        let first = cut(&mut rest, 5);
        let second = cut(&mut rest, 17);
        assert_eq!((first.len(), second.len(), rest.len()), (16, 32, 16));
    }
}
