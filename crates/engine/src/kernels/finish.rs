//! What happens to the rows of a matrix product before they are written.

use super::each::{Binary, Unary};
use super::elementwise::{gelu, round_bf16, silu, store_rule};
use super::lanes::Lanes;

/// What happens to a linear map's output before it is written. The output itself obeys the storing rule first,
/// so that fused and separate ops give the same bytes.
#[derive(Clone, Copy)]
pub(crate) enum Then<'a> {
    /// It is the result.
    Nothing,
    /// This of it is.
    Unary(Unary),
    /// This of it and of these rows is.
    Binary(Binary, &'a [f32]),
}

impl Then<'_> {
    /// Checks that there is an operand for each of `outputs` elements, where operands are wanted.
    pub(crate) fn check(&self, outputs: usize) {
        if let Self::Binary(_, other) = self {
            assert_eq!(other.len(), outputs, "one operand per output");
        }
    }

    /// Stores what a panel gives for one row: `y` are its columns, of which `out` wants the first. `place` is the index
    /// of `out` in the whole output.
    #[inline(always)]
    pub(crate) fn finish<V: Lanes>(&self, v: V, y: [V::F; 2], place: usize, out: &mut [f32]) {
        let mut y = [store_rule(v, y[0]), store_rule(v, y[1])];
        if let Self::Unary(formula) = self {
            // Written out: a closure would be compiled for any machine.
            y = match formula {
                Unary::Gelu => [gelu(v, y[0]), gelu(v, y[1])],
                Unary::Silu => [silu(v, y[0]), silu(v, y[1])],
                Unary::RoundBf16 => [round_bf16(v, y[0]), round_bf16(v, y[1])],
            };
            y = [store_rule(v, y[0]), store_rule(v, y[1])];
        }
        if out.len() == V::PANEL {
            if let Self::Binary(formula, other) = self {
                let other = [v.load(&other[place..]), v.load(&other[place + V::LANES..])];
                y = match formula {
                    Binary::Add => [v.add(y[0], other[0]), v.add(y[1], other[1])],
                    Binary::Mul => [v.mul(y[0], other[0]), v.mul(y[1], other[1])],
                };
                y = [store_rule(v, y[0]), store_rule(v, y[1])];
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
        if let Self::Binary(formula, other) = self {
            for (y, other) in all.iter_mut().zip(&other[place..place + out.len()]) {
                *y = gainsay_arithmetic::store(formula.of(*y, *other));
            }
        }
        out.copy_from_slice(&all[..out.len()]);
    }
}
