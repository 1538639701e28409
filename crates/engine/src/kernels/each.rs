//! Kernels that go element by element, each of some formula of its own.

use gainsay_arithmetic as arithmetic;
use rayon::prelude::*;

use super::elementwise::{gelu, load_front, round_bf16, silu, store_front, store_rule};
use super::lanes::{Kernel, Lanes};
use super::rows::TASK_FLOATS;

/// A formula of one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unary {
    /// gelu, the erf form.
    Gelu,
    /// silu.
    Silu,
    /// The nearest bfloat16.
    RoundBf16,
}

/// A formula of two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binary {
    /// `a + b`.
    Add,
    /// `a · b`.
    Mul,
}

impl Unary {
    /// The formula by `arithmetic`'s functions.
    pub(crate) fn of(self, x: f32) -> f32 {
        match self {
            Self::Gelu => arithmetic::gelu(x),
            Self::Silu => arithmetic::silu(x),
            Self::RoundBf16 => arithmetic::widen_bf16(arithmetic::round_bf16(x)),
        }
    }
}

impl Binary {
    /// The formula.
    pub(crate) fn of(self, a: f32, b: f32) -> f32 {
        match self {
            Self::Add => a + b,
            Self::Mul => a * b,
        }
    }
}

/// `out = stored(formula(x))`.
pub(crate) fn unary<V: Lanes>(v: V, formula: Unary, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "one output per input");
    let tasks = x.par_chunks(TASK_FLOATS).zip(out.par_chunks_mut(TASK_FLOATS));
    tasks.for_each(|(x, out)| match formula {
        Unary::Gelu => v.enter(UnaryEach::<GELU> { x, out }),
        Unary::Silu => v.enter(UnaryEach::<SILU> { x, out }),
        Unary::RoundBf16 => v.enter(UnaryEach::<ROUND_BF16> { x, out }),
    });
}

const GELU: u8 = 0;
const SILU: u8 = 1;
const ROUND_BF16: u8 = 2;

struct UnaryEach<'a, const FORMULA: u8> {
    x: &'a [f32],
    out: &'a mut [f32],
}

impl<const FORMULA: u8> Kernel for UnaryEach<'_, FORMULA> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, v: V) {
        for (x, out) in self.x.chunks(V::LANES).zip(self.out.chunks_mut(V::LANES)) {
            let x = load_front(v, x);
            let y = match FORMULA {
                GELU => gelu(v, x),
                SILU => silu(v, x),
                _ => round_bf16(v, x),
            };
            store_front(v, store_rule(v, y), out);
        }
    }
}

/// `out = stored(formula(a, b))`.
pub(crate) fn binary<V: Lanes>(v: V, formula: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
    assert!(a.len() == out.len() && b.len() == out.len(), "one output per pair");
    let pairs = a.par_chunks(TASK_FLOATS).zip(b.par_chunks(TASK_FLOATS));
    let tasks = pairs.zip(out.par_chunks_mut(TASK_FLOATS));
    tasks.for_each(|((a, b), out)| match formula {
        Binary::Add => v.enter(BinaryEach::<false> { a, b, out }),
        Binary::Mul => v.enter(BinaryEach::<true> { a, b, out }),
    });
}

struct BinaryEach<'a, const PRODUCT: bool> {
    a: &'a [f32],
    b: &'a [f32],
    out: &'a mut [f32],
}

impl<const PRODUCT: bool> Kernel for BinaryEach<'_, PRODUCT> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, v: V) {
        let pairs = self.a.chunks(V::LANES).zip(self.b.chunks(V::LANES));
        for ((a, b), out) in pairs.zip(self.out.chunks_mut(V::LANES)) {
            let (a, b) = (load_front(v, a), load_front(v, b));
            let y = if PRODUCT { v.mul(a, b) } else { v.add(a, b) };
            store_front(v, store_rule(v, y), out);
        }
    }
}

/// The rotation of every head by the angles of its row's position.
#[derive(Clone, Copy)]
pub(crate) struct Rotation<'a> {
    /// Columns of a head, an even number.
    pub(crate) width: usize,
    /// `[positions, width / 2]`.
    pub(crate) cos: &'a [f32],
    /// As `cos`.
    pub(crate) sin: &'a [f32],
    /// Position of each row.
    pub(crate) positions: &'a [u32],
}

impl Rotation<'_> {
    /// Checks that `x` has rows of whole heads, one for every position, and that there are angles for all of them.
    pub(crate) fn check(&self, x: &[f32], out: &[f32]) {
        let half = self.width / 2;
        assert!(half > 0 && self.width == 2 * half && x.len() == out.len(), "pairs of columns");
        let row = x.len() / self.positions.len().max(1);
        assert!(
            x.len() == row * self.positions.len() && row.is_multiple_of(self.width),
            "rows of whole heads"
        );
        let most = self.positions.iter().max().map_or(0, |&position| position as usize + 1);
        assert!(self.cos.len() >= most * half && self.sin.len() >= most * half, "angles for every position");
    }

    /// Cosines and sines of a row.
    pub(crate) fn angles(&self, row: usize) -> (&[f32], &[f32]) {
        let half = self.width / 2;
        let at = self.positions[row] as usize * half;
        (&self.cos[at..at + half], &self.sin[at..at + half])
    }
}

/// `out = stored(x rotated)`, pairs being the columns c and c + width/2 of a head.
pub(crate) fn rope<V: Lanes>(v: V, of: Rotation<'_>, x: &[f32], out: &mut [f32]) {
    of.check(x, out);
    let width = x.len() / of.positions.len().max(1);
    let rows = (TASK_FLOATS / width.max(1)).max(1);
    let tasks = x.par_chunks(rows * width).zip(out.par_chunks_mut(rows * width)).enumerate();
    tasks.for_each(|(task, (x, out))| v.enter(RopeRows { of, first: task * rows, row: width, x, out }));
}

struct RopeRows<'a> {
    of: Rotation<'a>,
    first: usize,
    row: usize,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for RopeRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, v: V) {
        let half = self.of.width / 2;
        let rows = self.x.chunks_exact(self.row).zip(self.out.chunks_exact_mut(self.row));
        for (row, (x, out)) in (self.first..).zip(rows) {
            let (cos, sin) = self.of.angles(row);
            for (x, out) in x.chunks_exact(self.of.width).zip(out.chunks_exact_mut(self.of.width)) {
                let ((x1, x2), (out1, out2)) = (x.split_at(half), out.split_at_mut(half));
                for column in (0..half).step_by(V::LANES) {
                    let columns = column..(column + V::LANES).min(half);
                    let (x1, x2) = (load_front(v, &x1[columns.clone()]), load_front(v, &x2[columns.clone()]));
                    let (c, s) = (load_front(v, &cos[columns.clone()]), load_front(v, &sin[columns.clone()]));
                    let y1 = v.sub(v.mul(x1, c), v.mul(x2, s));
                    let y2 = v.add(v.mul(x2, c), v.mul(x1, s));
                    store_front(v, store_rule(v, y1), &mut out1[columns.clone()]);
                    store_front(v, store_rule(v, y2), &mut out2[columns]);
                }
            }
        }
    }
}
