//! What happens to the rows of a matrix product before they are written.

use super::elementwise::{gelu, store_rule};
use super::lanes::Lanes;

/// What happens to a linear map's output before it is written. The output itself obeys the storing rule first,
/// so that fused and separate ops give the same bytes.
#[derive(Clone, Copy)]
pub(crate) enum Then<'a> {
    /// It is the result.
    Nothing,
    /// gelu of it is.
    Gelu,
    /// Its sum with these rows is.
    Add(&'a [f32]),
}

impl Then<'_> {
    /// Checks that there is a summand for each of `outputs` elements, where summands are wanted.
    pub(crate) fn check(&self, outputs: usize) {
        if let Self::Add(other) = self {
            assert_eq!(other.len(), outputs, "one summand per output");
        }
    }

    /// Stores what a panel gives for one row: `y` are its columns, of which `out` wants the first. `place` is the index
    /// of `out` in the whole output.
    #[inline(always)]
    pub(crate) fn finish<V: Lanes>(&self, v: V, y: [V::F; 2], place: usize, out: &mut [f32]) {
        let mut y = [store_rule(v, y[0]), store_rule(v, y[1])];
        if let Self::Gelu = self {
            y = [store_rule(v, gelu(v, y[0])), store_rule(v, gelu(v, y[1]))];
        }
        if out.len() == V::PANEL {
            if let Self::Add(other) = self {
                let other = &other[place..];
                let sums = [v.add(y[0], v.load(other)), v.add(y[1], v.load(&other[V::LANES..]))];
                y = [store_rule(v, sums[0]), store_rule(v, sums[1])];
            }
            v.store(y[0], out);
            v.store(y[1], &mut out[V::LANES..]);
        } else {
            self.finish_part(v, y, place, out);
        }
    }

    /// The last columns, less than a panel.
    #[inline(always)]
    fn finish_part<V: Lanes>(&self, v: V, y: [V::F; 2], place: usize, out: &mut [f32]) {
        const WIDEST: usize = 32;
        const { assert!(V::PANEL <= WIDEST, "the buffer holds a panel") };
        let mut all = [0.0; WIDEST];
        v.store(y[0], &mut all);
        v.store(y[1], &mut all[V::LANES..]);
        if let Self::Add(other) = self {
            for (y, other) in all.iter_mut().zip(&other[place..place + out.len()]) {
                *y = gainsay_arithmetic::store(*y + other);
            }
        }
        out.copy_from_slice(&all[..out.len()]);
    }
}
