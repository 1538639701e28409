//! Every int8 kernel against `arithmetic::int8::linear`, bit for bit; AMX on emulated tiles everywhere, on the core's
//! where it has them.

use gainsay_arithmetic::int8::{ActivationBits, linear};
use gainsay_arithmetic::store;

use super::*;
use crate::Simd;
use crate::kernels::portable::finish;
use crate::kernels::tests::{Random, assert_bits};
use crate::kernels::{Binary, Kernels, Unary};

/// A linear map, its rows and what they make.
struct Case {
    matrix: Int8Matrix,
    bias: Vec<f32>,
    x: Vec<f32>,
    other: Vec<f32>,
    sums: Vec<f32>,
}

impl Case {
    fn new(random: &mut Random, (rows, columns): (usize, usize), quantization: Quantization) -> Self {
        let Quantization { depth, group, bits } = quantization;
        let groups = quantization.groups();
        let mut x = random.ordinary(rows * depth);
        // A few groups are of another kind: tiny, zero, huge, not finite.
        for (i, group) in x.chunks_mut(group).enumerate().filter(|(i, _)| i % 5 == 3) {
            let factor = [1e-36, 0.0, 3e38, f32::NAN, 1.0][i / 5 % 5];
            group.iter_mut().for_each(|x| *x *= factor);
            group[i % group.len()] = [1e-31, 0.0, -3.4e38, 1.0, f32::INFINITY][i / 5 % 5];
        }
        let weights: Vec<i8> = (0..columns * depth).map(|_| random.bits() as i8).collect();
        let mut scales: Vec<f32> = (0..columns * groups).map(|_| store(random.unit())).collect();
        scales[columns * groups / 2] = f32::NAN;
        let bias: Vec<f32> = random.ordinary(columns);
        let matrix = Int8Matrix { weights, scales, quantization };
        let other = random.ordinary(rows * columns);
        let element = |row: usize, column: usize| {
            let x = &x[row * depth..][..depth];
            let w = &matrix.weights[column * depth..][..depth];
            store(linear(x, w, &matrix.scales[column * groups..][..groups], group, bits, Some(bias[column])))
        };
        let sums = (0..rows * columns).map(|i| element(i / columns, i % columns)).collect();
        Self { matrix, bias, x, other, sums }
    }

    /// What `run` makes of it, alone and with each sequel.
    fn check(&self, what: &str, run: impl Fn(&Self, Then<'_>, &mut [f32]) + Sync) {
        let sequels = [Then::Nothing, Then::Unary(Unary::Gelu), Then::Binary(Binary::Add, &self.other)];
        for then in sequels {
            let expected = self.sums.iter().enumerate().map(|(i, &sum)| finish(sum, then, i));
            let expected: Vec<f32> = expected.collect();
            let mut found = vec![f32::NAN; expected.len()];
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| run(self, then, &mut found));
                let name = match then {
                    Then::Nothing => "nothing",
                    Then::Unary(_) => "gelu",
                    Then::Binary(..) => "add",
                };
                assert_bits(&found, &expected, &format!("{what}, then {name}, {threads} threads"));
            }
        }
    }

    fn check_everywhere(&self) {
        let what = format!("{} columns, {:?}", self.matrix.columns(), self.matrix.quantization);
        for simd in Simd::available() {
            let kernels = Kernels::detect(simd).unwrap();
            self.check(&format!("{simd}, {what}"), |case, then, out| {
                let weights = kernels.pack_int8(case.matrix.clone(), case.bias.clone());
                let levels = kernels.quantize(&case.x, case.matrix.quantization);
                kernels.linear_int8(&levels, &weights, then, out);
            });
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(lanes) = crate::kernels::avx512::Avx512::detect() {
            let amx = amx::Amx::<emulated::EmulatedTiles>::emulated(lanes);
            self.check(&format!("emulated amx, {what}"), |case, then, out| {
                let weights = &Int8Weights::pack(amx, &case.matrix, case.bias.clone());
                let levels = &Levels::pack(amx, &case.x, case.matrix.quantization);
                Int8Rows { levels, weights, then }.run(amx, out);
            });
        }
    }
}

#[test]
fn products_of_every_shape_are_arithmetics() {
    println!("paths of this machine: {:?}", Simd::available());
    let mut random = Random(11);
    let shapes = [
        ((1, 1), 1, 1),
        ((2, 33), 6, 3),
        ((3, 31), 128, 128),
        ((5, 15), 130, 13),
        ((13, 32), 64, 16),
        ((14, 17), 100, 100),
        ((15, 65), 192, 64),
        ((17, 40), 256, 128),
        ((31, 20), 66, 33),
        ((33, 64), 96, 32),
        ((47, 3), 40, 5),
    ];
    for bits in [ActivationBits::Eight, ActivationBits::Sixteen] {
        for (shape, depth, group) in shapes {
            Case::new(&mut random, shape, Quantization { depth, group, bits }).check_everywhere();
        }
    }
}

#[test]
fn a_product_larger_than_a_task() {
    let mut random = Random(12);
    let quantization = Quantization { depth: 3000, group: 1000, bits: ActivationBits::Sixteen };
    Case::new(&mut random, (100, 7), quantization).check_everywhere();
}

/// The greatest sums there are: both digits of an activation, weights of −128, and the longest group.
#[test]
fn the_greatest_sums_fit() {
    let depth = gainsay_arithmetic::int8::MAX_GROUP;
    for bits in [ActivationBits::Eight, ActivationBits::Sixteen] {
        for (activation, weight) in [(1.0, -128), (-1.0, -128), (-1.0, 127), (0.996, -128)] {
            let mut x = vec![activation; depth];
            x[depth / 2] = 1.0;
            let weights = vec![weight; depth];
            let quantization = Quantization { depth, group: depth, bits };
            let expected = store(linear(&x, &weights, &[1.0], depth, bits, None));
            for simd in Simd::available() {
                let kernels = Kernels::detect(simd).unwrap();
                let matrix = Int8Matrix { weights: weights.clone(), scales: vec![1.0], quantization };
                let map = kernels.pack_int8(matrix, Vec::new());
                let mut found = [f32::NAN];
                kernels.linear_int8(&kernels.quantize(&x, quantization), &map, Then::Nothing, &mut found);
                assert_bits(&found, &[expected], &format!("{simd}, {bits:?}, {activation} · {weight}"));
            }
        }
    }
}

/// A map without a bias starts at +0.
#[test]
fn no_bias_is_plus_zero() {
    let quantization = Quantization { depth: 4, group: 2, bits: ActivationBits::Eight };
    for simd in Simd::available() {
        let kernels = Kernels::detect(simd).unwrap();
        let matrix = Int8Matrix { weights: vec![1; 4], scales: vec![-0.5, 0.25], quantization };
        let map = kernels.pack_int8(matrix.clone(), Vec::new());
        let mut found = [f32::NAN];
        let x = [0.5, 0.25, -1.0, 3.0];
        kernels.linear_int8(&kernels.quantize(&x, quantization), &map, Then::Nothing, &mut found);
        let expected = store(linear(&x, &matrix.weights, &matrix.scales, 2, ActivationBits::Eight, None));
        assert_bits(&found, &[expected], &format!("{simd}"));
    }
}
