//! Linear maps.

use crate::support::{SEEDS, assert_same, at, at_mut, bytes_at, numbers, run, with_specials};
use gainsay_arithmetic as arithmetic;
use gainsay_arithmetic::int8::{self, ActivationBits, quantize_group, quantize_group16};
use gainsay_arithmetic::store;
use gainsay_cuda_launch::linear::{
    FloatWeights, Int8Part, Int8Weights, Levels, Output, linear, linear_int8, linear_int8_together, quantize,
};
use gainsay_cuda_launch::{At, Format, Then};
use std::sync::atomic::{AtomicUsize, Ordering};

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

    fn get_mut(&mut self) -> &mut [T] {
        &mut self.all[self.skip..]
    }
}

#[test]
fn few_rows_are_multiplied_as_the_arithmetic_says() {
    for rows in [1, 3, 6, 17] {
        FloatCase::new((rows, 19, 2304), Format::F32).followed_by(Then::Add).check(2);
        FloatCase::new((rows, 17, 4360), Format::Bf16).followed_by(Then::Silu).check(1);
        FloatCase::new((rows, 18, 136), Format::Bf16).check(2);
        FloatCase::new((rows, 37, 1188), Format::F32).check(1);
        FloatCase::new((rows, 18, 2048), Format::Bf16).check(2);
        FloatCase::new((rows, 21, 516), Format::F32).followed_by(Then::Nothing).check(3);
    }
}

#[test]
fn many_rows_are_multiplied_as_the_arithmetic_says() {
    FloatCase::new((65, 130, 260), Format::F32).followed_by(Then::Gelu).check(2);
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

/// A linear map of levels and what it is applied to.
struct Int8Case {
    rows: usize,
    columns: usize,
    depth: usize,
    group: usize,
    bits: ActivationBits,
    then: Then,
    has_bias: bool,
    x: Vec<f32>,
    weights: Vec<i8>,
}

/// Levels on the host.
struct HostLevels {
    low: Aligned<i8>,
    high: Aligned<i8>,
    scales: Vec<f32>,
}

impl Int8Case {
    fn new((rows, columns, depth): (usize, usize, usize), group: usize, bits: ActivationBits) -> Self {
        let x = numbers(11, rows * depth);
        let weights = numbers(14, columns * depth).iter().map(|w| (w * 63.9) as i8).collect();
        Self { rows, columns, depth, group, bits, then: Then::Nothing, has_bias: false, x, weights }
    }

    fn followed_by(self, then: Then) -> Self {
        Self { then, has_bias: true, ..self }
    }

    /// Levels by the arithmetic.
    fn levels(&self) -> HostLevels {
        let (mut low, mut high) = (vec![0; self.x.len()], vec![0; self.x.len()]);
        let groups = self.x.chunks_exact(self.group);
        let digits = low.chunks_exact_mut(self.group).zip(high.chunks_exact_mut(self.group));
        let scales = groups.zip(digits).map(|(x, (low, high))| match self.bits {
            ActivationBits::Eight => quantize_group(x, low),
            ActivationBits::Sixteen => quantize_group16(x, high, low),
        });
        let scales = scales.map(store).collect();
        HostLevels { low: Aligned::new(&low), high: Aligned::new(&high), scales }
    }

    /// Levels by the kernel.
    fn quantized(&self, seed: u64) -> HostLevels {
        let empty = vec![0x55; self.x.len()];
        let mut levels = HostLevels {
            low: Aligned::new(&empty),
            high: Aligned::new(&empty),
            scales: vec![0.0; self.x.len() / self.group],
        };
        let sizes = (self.rows as u32, self.depth as u32, self.group as u32);
        let x = Aligned::new(&self.x);
        run(quantize(at(x.get()), sizes, &self.at(&mut levels)), seed);
        levels
    }

    fn at(&self, levels: &mut HostLevels) -> Levels {
        let high = at_mut(levels.high.get_mut());
        Levels {
            low: at_mut(levels.low.get_mut()),
            high: if self.bits == ActivationBits::Sixteen { high } else { At::none() },
            scales: at_mut(&mut levels.scales),
        }
    }

    /// Quantizes, checks, multiplies and checks.
    #[track_caller]
    fn check(&self, seed: u64) {
        let Self { rows, columns, depth, group, bits, .. } = *self;
        let (found, mut levels) = (self.quantized(seed), self.levels());
        let what = format!("{rows} rows, {columns} columns, depth {depth} in {group}, {bits:?}");
        assert!(found.low.get() == levels.low.get(), "{what}: levels");
        assert!(
            bits == ActivationBits::Eight || found.high.get() == levels.high.get(),
            "{what}: upper digits"
        );
        assert_same(&found.scales, &levels.scales, &format!("{what}: scales"));

        let (bias, other) = (numbers(12, columns), numbers(13, rows * columns));
        let weights = Aligned::new(&self.weights);
        let scales = numbers(15, columns * depth / group);
        let mut out = vec![f32::NAN; rows * columns];
        let map = Int8Weights {
            at: at(weights.get()),
            scales: at(&scales),
            bias: if self.has_bias { at(&bias) } else { At::none() },
            columns: columns as u32,
            depth: depth as u32,
            group: group as u32,
            sixteen: bits == ActivationBits::Sixteen,
        };
        let output = Output { then: self.then, other: at(&other), out: at_mut(&mut out) };
        let launches = linear_int8(&map, &self.at(&mut levels), rows as u32, output);
        let what = format!("{what}, {:?}", launches[0].kernel);
        run(launches, seed);
        let expected = self.expected(&levels, &scales, &bias, &other);
        assert_same(&out, &expected, &what);
        self.check_together(&map, &mut levels, &expected, seed);
    }

    /// The same map among two others: one of some of its columns, and the same again.
    fn check_together(&self, map: &Int8Weights, levels: &mut HostLevels, expected: &[f32], seed: u64) {
        let Self { rows, columns, .. } = *self;
        if matches!(self.then, Then::Add | Then::Mul) {
            return;
        }
        let some = columns.div_ceil(2);
        let mut outs =
            [vec![f32::NAN; rows * some], vec![f32::NAN; rows * columns], vec![f32::NAN; rows * columns]];
        let parts = outs.iter_mut().zip([some, columns, columns]).map(|(out, columns)| Int8Part {
            weights: Int8Weights { columns: columns as u32, ..*map },
            then: self.then,
            out: at_mut(out),
        });
        let parts: Vec<Int8Part> = parts.collect();
        let launch = linear_int8_together(
            &parts[usize::from(!seed.is_multiple_of(2))..],
            &self.at(levels),
            rows as u32,
        );
        let Some(launch) = launch else { return };
        let what = format!("{rows} rows, {columns} columns, {:?}", launch.kernel);
        run([launch], seed);
        for out in &outs[1..] {
            assert_same(out, expected, &what);
        }
        let of_some: Vec<f32> = expected.chunks_exact(columns).flat_map(|row| row[..some].to_vec()).collect();
        if seed.is_multiple_of(2) {
            assert_same(&outs[0], &of_some, &what);
        }
        TOGETHER.fetch_add(1, Ordering::Relaxed);
    }

    /// The results from levels, which costs less than `int8::linear` for each; the first is checked against that.
    fn expected(&self, levels: &HostLevels, scales: &[f32], bias: &[f32], other: &[f32]) -> Vec<f32> {
        let Self { rows, columns, depth, group, bits, .. } = *self;
        let (bias, groups) = (|column: usize| self.has_bias.then_some(bias[column]), depth / group);
        let result = |row: usize, column: usize| {
            let digits = |digits: &Aligned<i8>, at: usize| {
                let levels = &digits.get()[row * depth + at * group..][..group];
                let weights = &self.weights[column * depth + at * group..][..group];
                levels.iter().zip(weights).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>() as f32
            };
            (0..groups).fold(bias(column).unwrap_or(0.0), |total, at| {
                let low = digits(&levels.low, at);
                let sum = match bits {
                    ActivationBits::Eight => low,
                    ActivationBits::Sixteen => arithmetic::fma(digits(&levels.high, at), 256.0, low),
                };
                let scale = levels.scales[row * groups + at] * scales[column * groups + at];
                arithmetic::fma(sum, scale, total)
            })
        };
        let first =
            int8::linear(&self.x[..depth], &self.weights[..depth], &scales[..groups], group, bits, bias(0));
        assert_same(&[store(result(0, 0))], &[store(first)], "the formula is the arithmetic's");
        let all = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let stored = all.map(|(row, column)| store(result(row, column)));
        stored.zip(other).map(|(y, &other)| followed(self.then, y, other)).collect()
    }
}

const BITS: [ActivationBits; 2] = [ActivationBits::Eight, ActivationBits::Sixteen];

/// Launches of several maps together that were tried.
static TOGETHER: AtomicUsize = AtomicUsize::new(0);

#[test]
fn few_rows_of_levels_are_multiplied() {
    let before = TOGETHER.load(Ordering::Relaxed);
    for (seed, bits) in (0..).zip(BITS) {
        for rows in [1, 7, 13, 33] {
            Int8Case::new((rows, 19, 400), 400, bits).followed_by(Then::Add).check(seed);
            Int8Case::new((rows, 33, 2816), 128, bits).check(seed + 1);
            Int8Case::new((rows, 5, 1344), 192, bits).followed_by(Then::Mul).check(seed + 2);
        }
    }
    // A group that goes on over three chunks.
    Int8Case::new((3, 17, 4400), 4400, ActivationBits::Eight).check(1);
    Int8Case::new((2, 17, 7680), 3840, ActivationBits::Eight).check(2);
    assert!(TOGETHER.load(Ordering::Relaxed) >= before + 8, "maps were tried together");
}

#[test]
fn many_rows_of_levels_are_multiplied() {
    for (seed, bits) in (0..).zip(BITS) {
        Int8Case::new((67, 131, 400), 400, bits).followed_by(Then::Gelu).check(seed + 1);
        Int8Case::new((130, 70, 768), 128, bits).followed_by(Then::Add).check(seed + 1);
        Int8Case::new((66, 129, 512), 256, bits).check(seed + 2);
        Int8Case::new((65, 9, 576), 192, bits).check(seed + 1);
        Int8Case::new((65, 9, 64), 64, bits).followed_by(Then::Silu).check(seed + 2);
    }
}

#[test]
fn levels_of_odd_groups_are_multiplied() {
    for (seed, bits) in (0..).zip(BITS) {
        for (depth, group) in [(1, 1), (35, 7), (96, 32), (1100, 1100), (1101, 1101), (2064, 1032)] {
            Int8Case::new((5, 6, depth), group, bits).followed_by(Then::RoundBf16).check(seed);
        }
        // Sums of many short groups at once would not fit into a block's memory.
        for depth in [16, 32, 48, 64, 80] {
            Int8Case::new((20, 6, depth), depth, bits).check(seed);
        }
    }
}

#[test]
fn groups_that_are_not_finite_or_tiny_become_zeros() {
    for (seed, bits) in (0..).zip(BITS) {
        for (rows, group) in [(4, 64), (70, 128), (3, 1056), (4, 1055)] {
            let mut case = Int8Case::new((rows, 6, group * 4), group, bits);
            for (i, x) in case.x.chunks_exact_mut(group).enumerate() {
                match i % 5 {
                    0 => x[i % group] = f32::NAN,
                    1 => x[group - 1] = f32::NEG_INFINITY,
                    2 => x.iter_mut().for_each(|x| *x *= 1e-32),
                    3 => x.fill(0.0),
                    _ => x[0] = f32::MAX,
                }
            }
            case.check(seed);
        }
    }
}

#[test]
fn greatest_levels_do_not_overflow() {
    // The greatest sum that a group may have, and its negative.
    let mut case = Int8Case::new((2, 3, 131_056), 131_056, ActivationBits::Sixteen);
    case.x.fill(1.0);
    case.x[131_056..].fill(-1.0);
    case.weights.fill(127);
    case.check(0);
}
