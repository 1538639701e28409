//! Linear maps.

use crate::support::{SEEDS, assert_same, at, at_mut, bytes_at, numbers, run, with_specials};
use gainsay_arithmetic as arithmetic;
use gainsay_arithmetic::store;
use gainsay_cuda_launch::linear::{FloatWeights, Output, linear};
use gainsay_cuda_launch::{At, Format, Then};

/// What follows a stored output, by the arithmetic.
fn followed(then: Then, y: f32, other: f32) -> f32 {
    match then {
        Then::Nothing => y,
        Then::Gelu => store(arithmetic::gelu(y)),
        Then::Silu => store(arithmetic::silu(y)),
        Then::RoundBf16 => store(arithmetic::widen_bf16(arithmetic::round_bf16(y))),
        Then::Add => store(y + other),
        Then::Mul => store(y * other),
    }
}

/// A linear map of floats and what it is applied to.
struct FloatCase {
    rows: usize,
    columns: usize,
    depth: usize,
    format: Format,
    then: Then,
    has_bias: bool,
    x: Vec<f32>,
    /// The weights' values.
    weights: Vec<f32>,
    /// Their bits in a format of 16.
    shorts: Vec<u16>,
}

impl FloatCase {
    fn new((rows, columns, depth): (usize, usize, usize), format: Format) -> Self {
        let x = numbers(1, rows * depth);
        let floats = numbers(2, columns * depth);
        let shorts: Vec<u16> = match format {
            Format::F32 => Vec::new(),
            Format::Bf16 => floats.iter().map(|&w| arithmetic::round_bf16(w)).collect(),
            // Any bits will do as binary16 but those of the largest exponents, which would drown all else.
            Format::F16 => floats.iter().map(|&w| (w.to_bits() >> 12) as u16 & 0xbfff).collect(),
        };
        let weights = match format {
            Format::F32 => floats,
            Format::Bf16 => shorts.iter().map(|&bits| arithmetic::widen_bf16(bits)).collect(),
            Format::F16 => shorts.iter().map(|&bits| arithmetic::widen_f16(bits)).collect(),
        };
        Self { rows, columns, depth, format, then: Then::Nothing, has_bias: false, x, weights, shorts }
    }

    fn followed_by(self, then: Then) -> Self {
        Self { then, has_bias: true, ..self }
    }

    fn expected(&self, bias: &[f32], other: &[f32]) -> Vec<f32> {
        let dots = self.x.chunks_exact(self.depth).flat_map(|x| {
            self.weights
                .chunks_exact(self.depth)
                .zip(bias)
                .map(move |(w, &bias)| store(arithmetic::linear(x, w, self.has_bias.then_some(bias))))
        });
        dots.zip(other).map(|(y, &other)| followed(self.then, y, other)).collect()
    }

    #[track_caller]
    fn check(&self, seed: u64) {
        let Self { rows, columns, depth, format, .. } = *self;
        let (bias, other) = (numbers(3, columns), numbers(4, rows * columns));
        let (x, weights, shorts) =
            (Aligned::new(&self.x), Aligned::new(&self.weights), Aligned::new(&self.shorts));
        let mut out = vec![f32::NAN; rows * columns];
        let map = FloatWeights {
            at: if format == Format::F32 { bytes_at(weights.get()) } else { bytes_at(shorts.get()) },
            format,
            bias: if self.has_bias { at(&bias) } else { At::none() },
            columns: columns as u32,
            depth: depth as u32,
        };
        let output = Output { then: self.then, other: at(&other), out: at_mut(&mut out) };
        let launches = linear(&map, at(x.get()), rows as u32, output);
        let what =
            format!("{rows} rows, {columns} columns, depth {depth}, {format:?}, {:?}", launches[0].kernel);
        run(launches, seed);
        assert_same(&out, &self.expected(&bias, &other), &what);
    }
}

/// A copy that begins at a multiple of 16 bytes, and ends where it ends.
struct Aligned<T> {
    all: Vec<T>,
    skip: usize,
}

impl<T: Copy + Default> Aligned<T> {
    fn new(values: &[T]) -> Self {
        let mut all = vec![T::default(); values.len() + 16 / size_of::<T>()];
        let skip = all.as_ptr().align_offset(16);
        all.truncate(skip + values.len());
        all[skip..].copy_from_slice(values);
        Self { all, skip }
    }

    fn get(&self) -> &[T] {
        &self.all[self.skip..]
    }
}

#[test]
fn few_rows_are_multiplied_as_the_arithmetic_says() {
    for rows in [1, 3, 6, 17] {
        FloatCase::new((rows, 19, 2304), Format::F32).followed_by(Then::Add).check(0);
        FloatCase::new((rows, 17, 4360), Format::Bf16).followed_by(Then::Silu).check(1);
        FloatCase::new((rows, 18, 136), Format::Bf16).check(2);
        FloatCase::new((rows, 37, 1188), Format::F32).check(3);
    }
}

#[test]
fn many_rows_are_multiplied_as_the_arithmetic_says() {
    FloatCase::new((65, 130, 260), Format::F32).followed_by(Then::Gelu).check(0);
    FloatCase::new((70, 129, 264), Format::Bf16).followed_by(Then::Mul).check(1);
}

#[test]
fn rows_of_odd_lengths_are_multiplied() {
    for depth in [1, 5, 131, 259] {
        FloatCase::new((3, 7, depth), Format::F32).check(0);
        FloatCase::new((66, 5, depth), Format::Bf16).followed_by(Then::RoundBf16).check(1);
    }
}

#[test]
fn weights_of_sixteen_bits_are_widened() {
    for rows in [1, 3, 6, 33] {
        FloatCase::new((rows, 17, 136), Format::F16).check(0);
        FloatCase::new((rows, 5, 2056), Format::F16).check(1);
    }
    FloatCase::new((3, 5, 37), Format::F16).check(2);
}

#[test]
fn what_is_not_finite_goes_through() {
    for (seed, rows) in SEEDS.zip([1, 4, 8, 40]) {
        for depth in [22, 24, 2064] {
            let mut case = FloatCase::new((rows, 9, depth), Format::F32);
            case.x = with_specials(7, rows * depth);
            case.weights = with_specials(8, 9 * depth);
            case.check(seed);
            // Chains that end below the least number, and cancel.
            case.x = numbers(9, rows * depth).into_iter().map(|x| store(x * 1e-30)).collect();
            case.weights = numbers(10, 9 * depth).into_iter().map(|w| store(w * 1e-12)).collect();
            case.check(seed);
        }
    }
}
