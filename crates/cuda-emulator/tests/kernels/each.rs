//! Operators that go element by element.

use crate::support::{SEEDS, assert_same, at, at_mut, bytes_at, numbers, run, with_specials};
use gainsay_arithmetic as arithmetic;
use gainsay_arithmetic::store;
use gainsay_cuda_launch::each::{each, gather, rope};
use gainsay_cuda_launch::{Format, Then};

#[test]
fn formulas_are_those_of_the_arithmetic() {
    let (x, other) = (with_specials(1, 3000), with_specials(2, 3000));
    type Formula = fn(f32, f32) -> f32;
    let formulas: [(Then, Formula); 5] = [
        (Then::Gelu, |x, _| arithmetic::gelu(x)),
        (Then::Silu, |x, _| arithmetic::silu(x)),
        (Then::RoundBf16, |x, _| arithmetic::widen_bf16(arithmetic::round_bf16(x))),
        (Then::Add, |x, y| x + y),
        (Then::Mul, |x, y| x * y),
    ];
    for (then, formula) in formulas {
        let mut out = vec![0.0; x.len()];
        run([each(then, at(&x), at(&other), at_mut(&mut out), x.len() as u64)], 0);
        let expected: Vec<f32> = x.iter().zip(&other).map(|(&x, &y)| store(formula(x, y))).collect();
        assert_same(&out, &expected, &format!("{then:?}"));
    }
}

#[test]
fn heads_are_rotated_by_their_rows_positions() {
    let (rows, width, head, positions) = (7, 24, 8, [3u32, 0, 9, 1, 1, 4, 5]);
    let (x, cos, sin) = (numbers(3, rows * width), numbers(4, 10 * head / 2), numbers(5, 10 * head / 2));
    let mut out = vec![0.0; x.len()];
    let sizes = (rows as u32, width as u32, head as u32);
    run([rope(at(&x), (at(&cos), at(&sin)), at(&positions), at_mut(&mut out), sizes)], 0);
    let mut expected = vec![0.0; x.len()];
    for (row, position) in positions.into_iter().enumerate() {
        for start in (0..width).step_by(head) {
            for c in 0..head / 2 {
                let (first, second) = (row * width + start + c, row * width + start + c + head / 2);
                let angle = position as usize * head / 2 + c;
                expected[first] = store(x[first] * cos[angle] - x[second] * sin[angle]);
                expected[second] = store(x[second] * cos[angle] + x[first] * sin[angle]);
            }
        }
    }
    assert_same(&out, &expected, "rope");
}

#[test]
fn rows_come_from_tables_of_every_format() {
    let (width, rows) = (5, [2u32, 0, 3, 3]);
    let floats = numbers(6, 4 * width);
    let shorts: Vec<u16> = floats.iter().map(|&x| arithmetic::round_bf16(x)).collect();
    for (seed, format) in SEEDS.flat_map(|seed| [Format::F32, Format::Bf16, Format::F16].map(|it| (seed, it)))
    {
        let mut out = vec![0.0; rows.len() * width];
        let table = if format == Format::F32 { bytes_at(&floats) } else { bytes_at(&shorts) };
        let sizes = (rows.len() as u32, width as u32);
        run([gather((table, format), at(&rows), at_mut(&mut out), sizes)], seed);
        let elements =
            rows.iter().flat_map(|&row| (0..width).map(move |column| row as usize * width + column));
        let expected: Vec<f32> = elements
            .map(|index| match format {
                Format::F32 => floats[index],
                Format::Bf16 => arithmetic::widen_bf16(shorts[index]),
                Format::F16 => arithmetic::widen_f16(shorts[index]),
            })
            .collect();
        assert_same(&out, &expected, &format!("{format:?}"));
    }
}
