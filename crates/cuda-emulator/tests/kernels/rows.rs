//! Operators that go row by row.

use crate::support::{SEEDS, assert_same, at, at_mut, numbers, run, with_specials};
use gainsay_arithmetic::int8::{quantize_group, quantize_group16};
use gainsay_arithmetic::norm::{LayerNormRow, RmsNormRow};
use gainsay_arithmetic::{pool, store};
use gainsay_cuda_launch::At;
use gainsay_cuda_launch::linear::Levels;
use gainsay_cuda_launch::rows::{layer_norm, mean_pool, norm_and_quantize, normalize, rms_norm, select};

/// Widths that half a warp, a block with room and a block without room takes, multiples of four, of 64 and of nothing.
const WIDTHS: [usize; 12] = [1, 4, 63, 64, 65, 100, 384, 1021, 1024, 1028, 2051, 12_000];

/// Rows of each width: ordinary ones, one of specials, one of zeros.
fn rows(seed: u32, width: usize) -> (usize, Vec<f32>) {
    let count = if width > 1024 { 2 } else { 17 };
    let mut x = numbers(seed, count * width);
    x.extend(with_specials(seed + 1, width));
    x.extend(vec![0.0; width]);
    (count + 2, x)
}

#[test]
fn norms_are_those_of_the_arithmetic() {
    const EPS: f32 = 1e-5;
    for (seed, width) in
        SEEDS.zip(WIDTHS.chunks(3)).flat_map(|(seed, some)| some.iter().map(move |&w| (seed, w)))
    {
        let (count, x) = rows(width as u32, width);
        let (weight, bias) = (numbers(3, width), numbers(4, width));
        let size = (count as u32, width as u32);
        let norms = |x: &[f32]| -> [Vec<f32>; 3] {
            let layer = LayerNormRow::of(x, EPS);
            let rms = RmsNormRow::of(x, EPS);
            let divisor = pool::normalize_divisor(x);
            let all = |element: &dyn Fn(usize) -> f32| (0..width).map(|i| store(element(i))).collect();
            [
                all(&|i| layer.element(x[i], weight[i], bias[i])),
                all(&|i| rms.element(x[i], weight[i])),
                all(&|i| pool::normalize(x[i], divisor)),
            ]
        };
        let mut expected = [vec![], vec![], vec![]];
        for row in x.chunks_exact(width) {
            expected.iter_mut().zip(norms(row)).for_each(|(all, row)| all.extend(row));
        }
        let mut out = vec![f32::NAN; x.len()];
        let mut check = |launch: &dyn Fn(gainsay_cuda_launch::At<f32>) -> gainsay_cuda_launch::Launch,
                         i: usize| {
            run([launch(at_mut(&mut out))], seed);
            assert_same(&out, &expected[i], &format!("norm {i} of width {width}"));
        };
        check(&|out| layer_norm(at(&x), (at(&weight), at(&bias)), EPS, out, size), 0);
        check(&|out| rms_norm(at(&x), at(&weight), EPS, out, size), 1);
        check(&|out| normalize(at(&x), out, size), 2);
    }
}

/// Levels of groups that a warp takes and of whole rows, of eight and of sixteen bits, in rows that are held and that are not.
#[test]
fn norms_are_quantized_as_they_come() {
    const EPS: f32 = 1e-5;
    let sizes = [(64, 64), (384, 96), (1100, 275), (2048, 128), (2051, 2051), (4400, 2200), (12_000, 12_000)];
    for (seed, (width, group)) in (0..).zip(sizes) {
        let (count, x) = rows(width as u32, width);
        let (weight, bias) = (numbers(3, width), numbers(4, width));
        for (has_bias, sixteen) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut expected = Vec::new();
            for x in x.chunks_exact(width) {
                let (layer, rms) = (LayerNormRow::of(x, EPS), RmsNormRow::of(x, EPS));
                expected.extend((0..width).map(|i| {
                    store(if has_bias {
                        layer.element(x[i], weight[i], bias[i])
                    } else {
                        rms.element(x[i], weight[i])
                    })
                }));
            }
            let (mut low, mut high) = (vec![0_i8; x.len()], vec![0_i8; x.len()]);
            let digits = low.chunks_exact_mut(group).zip(high.chunks_exact_mut(group));
            let scales = expected.chunks_exact(group).zip(digits).map(|(x, (low, high))| {
                store(if sixteen { quantize_group16(x, high, low) } else { quantize_group(x, low) })
            });
            let scales: Vec<f32> = scales.collect();
            let mut out = vec![f32::NAN; x.len()];
            let (mut found_low, mut found_high) =
                (vec![0x55_u32; x.len() / 4 + 1], vec![0_u32; x.len() / 4 + 1]);
            let mut found_scales = vec![0.0; scales.len()];
            let levels = Levels {
                low: At::new(at_mut(&mut found_low).address()),
                high: if sixteen { At::new(at_mut(&mut found_high).address()) } else { At::none() },
                scales: at_mut(&mut found_scales),
            };
            let bias = has_bias.then(|| at(&bias));
            let size = ((count as u32, width as u32), group as u32, &levels);
            run([norm_and_quantize(at(&x), (at(&weight), bias), EPS, at_mut(&mut out), size)], seed);
            let what = format!("width {width} in {group}, bias: {has_bias}, sixteen: {sixteen}");
            assert_same(&out, &expected, &what);
            assert_same(&found_scales, &scales, &what);
            let bytes = |words: &[u32]| -> Vec<i8> {
                let bytes = words.iter().flat_map(|word| word.to_ne_bytes()).take(x.len());
                bytes.map(u8::cast_signed).collect()
            };
            assert!(bytes(&found_low) == low, "{what}: levels");
            assert!(!sixteen || bytes(&found_high) == high, "{what}: upper digits");
        }
    }
}

#[test]
fn means_are_taken_over_each_sequence() {
    let starts = [0u32, 1, 1, 128, 300, 1500];
    for (seed, width) in SEEDS.zip([1usize, 32, 37, 70]) {
        let rows = starts[starts.len() - 1] as usize;
        let x = if seed == 0 { with_specials(5, rows * width) } else { numbers(5, rows * width) };
        let mut out = vec![0.0; (starts.len() - 1) * width];
        run(
            [mean_pool(at(&x), at(&starts), at_mut(&mut out), (starts.len() as u32 - 1, width as u32))],
            seed,
        );
        let mut expected = Vec::new();
        for sequence in starts.windows(2) {
            for column in 0..width {
                let column: Vec<f32> =
                    (sequence[0]..sequence[1]).map(|row| x[row as usize * width + column]).collect();
                expected.push(store(pool::mean_pool(&column)));
            }
        }
        assert_same(&out, &expected, &format!("width {width}"));
    }
}

#[test]
fn rows_are_selected() {
    let (x, rows, width) = (with_specials(6, 70), [9u32, 0, 0, 4], 7);
    let mut out = vec![0.0; rows.len() * width];
    run([select(at(&x), at(&rows), at_mut(&mut out), (rows.len() as u32, width as u32))], 0);
    let expected: Vec<f32> =
        rows.iter().flat_map(|&row| x[row as usize * width..][..width].to_vec()).collect();
    assert_same(&out, &expected, "select");
}
