//! The golden cases: which inputs, and how a case is written as a line of text.
//!
//! A line is `name; inputs => outputs`. Inputs and outputs are lists, separated by `;`, of words in hex: binary32 as
//! its bits, an i8 or u16 as its two's complement, zero-extended. An absent bias is an empty list. A NaN among the outputs is the canonical one.

use gainsay_arithmetic::int8::{self, ActivationBits};
use gainsay_arithmetic::{self as law, LayerNormRow, RmsNormRow, attention};

use super::numbers::{Random, edges};

/// Lengths around every lane and block boundary that an implementation may get wrong.
const LENGTHS: [usize; 17] = [0, 1, 2, 3, 31, 32, 63, 64, 65, 127, 128, 129, 192, 255, 256, 257, 513];
/// Enough lengths for operators whose sums other files cover.
const FEW_LENGTHS: [usize; 7] = [0, 1, 63, 65, 128, 129, 257];

pub(crate) type Words = Vec<u32>;

/// One case: named, with the lists that go in and the lists that come out.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) inputs: Vec<Words>,
    pub(crate) outputs: Vec<Words>,
}

impl Case {
    fn new<const I: usize, const O: usize>(
        name: impl Into<String>,
        inputs: [Words; I],
        outputs: [Words; O],
    ) -> Self {
        Self { name: name.into(), inputs: inputs.into(), outputs: outputs.into() }
    }

    fn line(&self) -> String {
        format!("{}; {} => {}", self.name, lists(&self.inputs), lists(&self.outputs))
    }
}

fn lists(lists: &[Words]) -> String {
    let words = |list: &Words| list.iter().map(|word| format!("{word:08x}")).collect::<Vec<_>>().join(" ");
    lists.iter().map(words).collect::<Vec<_>>().join("; ")
}

fn bits(x: &[f32]) -> Words {
    x.iter().map(|x| x.to_bits()).collect()
}

fn bytes(q: &[i8]) -> Words {
    q.iter().map(|&q| u32::from(q as u8)).collect()
}

fn result(x: f32) -> Words {
    vec![law::canonical(x).to_bits()]
}

fn results(x: impl IntoIterator<Item = f32>) -> Words {
    x.into_iter().map(|x| law::canonical(x).to_bits()).collect()
}

/// The files: name and text of each.
pub(crate) fn files() -> Vec<(&'static str, String)> {
    all()
        .into_iter()
        .map(|(operator, cases)| {
            let lines: Vec<_> = cases.iter().map(|case| case.line() + "\n").collect();
            (operator, lines.concat())
        })
        .collect()
}

fn all() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        ("fma", fma()),
        ("sqrt", elementwise(law::sqrt)),
        ("store", elementwise(law::store)),
        ("canonical", elementwise(law::canonical)),
        ("exp", elementwise(law::exp)),
        ("erf", elementwise(law::erf)),
        ("tanh", elementwise(law::tanh)),
        ("silu", elementwise(law::silu)),
        ("gelu", elementwise(law::gelu)),
        ("gelu_tanh", elementwise(law::gelu_tanh)),
        ("widen_bf16", widening(law::widen_bf16)),
        ("widen_f16", widening(law::widen_f16)),
        ("round_bf16", round_bf16()),
        ("rope_pair", rope_pair()),
        ("dot", pairs(law::dot)),
        ("sum64", rows(law::sum64)),
        ("sum64_squares", rows(law::sum64_squares)),
        ("max", rows(law::max)),
        ("mean_pool", rows(law::mean_pool)),
        ("linear_f32", linear_f32()),
        ("quantize_group", quantize_group()),
        ("quantize_group16", quantize_group16()),
        ("linear_int8", linear_int8()),
        ("layer_norm", layer_norm()),
        ("rms_norm", rms_norm()),
        ("attention", attention_rows()),
        ("normalize", normalize()),
    ]
}

fn fma() -> Vec<Case> {
    let mut random = Random::new(1);
    let few: Vec<_> = edges().into_iter().step_by(7).collect();
    let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
    for (&x, &y) in few.iter().flat_map(|x| few.iter().map(move |y| (x, y))) {
        a.push(x);
        b.push(y);
        c.push(few[random.word() as usize % few.len()]);
    }
    let edges = Case::new("edges", [bits(&a), bits(&b), bits(&c)], [results(triples(&a, &b, &c))]);
    let (a, b, c) = (random.row(256, 40), random.row(256, 40), random.row(256, 80));
    let random = Case::new("random", [bits(&a), bits(&b), bits(&c)], [results(triples(&a, &b, &c))]);
    vec![edges, random]
}

fn triples<'a>(a: &'a [f32], b: &'a [f32], c: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    a.iter().zip(b).zip(c).map(|((&a, &b), &c)| law::fma(a, b, c))
}

fn elementwise(function: fn(f32) -> f32) -> Vec<Case> {
    let mut random = Random::new(2);
    let of = |name, x: Vec<f32>| Case::new(name, [bits(&x)], [results(x.iter().map(|&x| function(x)))]);
    let any = (0..256).map(|_| random.any()).collect();
    vec![of("edges", edges()), of("around one", random.row(256, 7)), of("any", any)]
}

fn widening(function: fn(u16) -> f32) -> Vec<Case> {
    const EDGES: [u16; 14] = [
        0x0000, 0x0001, 0x007f, 0x0080, 0x03ff, 0x0400, 0x3c00, 0x3f80, 0x7bff, 0x7c00, 0x7c01, 0x7e00,
        0x7f80, 0x7fff,
    ];
    let mut random = Random::new(3);
    let mut x: Vec<u16> = EDGES.iter().flat_map(|&bits| [bits, bits | 0x8000]).collect();
    x.extend((0..256).map(|_| random.word() as u16));
    vec![Case::new(
        "edges and any",
        [x.iter().map(|&x| u32::from(x)).collect()],
        [results(x.iter().map(|&x| function(x)))],
    )]
}

fn round_bf16() -> Vec<Case> {
    let mut random = Random::new(4);
    let mut x = edges();
    for high in [0x0000_0000, 0x3f80_0000, 0x3f81_0000, 0x7f7f_0000, 0xbf80_0000, 0x007f_0000] {
        x.extend([0x7fff, 0x8000, 0x8001].map(|low| f32::from_bits(high | low)));
    }
    x.extend((0..256).map(|_| random.any()));
    let rounded = x.iter().map(|&x| u32::from(law::round_bf16(x))).collect();
    vec![Case::new("edges, ties and any", [bits(&x)], [rounded])]
}

fn rope_pair() -> Vec<Case> {
    let mut random = Random::new(5);
    let of = |name, rows: [Vec<f32>; 4]| {
        let [x1, x2, c, s] = &rows;
        let pairs: Vec<_> = (0..x1.len()).map(|i| law::rope_pair(x1[i], x2[i], c[i], s[i])).collect();
        let (y1, y2) = (pairs.iter().map(|p| p.0), pairs.iter().map(|p| p.1));
        Case::new(name, [x1, x2, c, s].map(|row| bits(row)), [results(y1), results(y2)])
    };
    let angles: Vec<f32> = (0..128).map(|i| i as f32 * 0.05).collect();
    let cosines = angles.iter().map(|&a| law::canonical(libm::cosf(a))).collect();
    let sines = angles.iter().map(|&a| libm::sinf(a)).collect();
    let edges = edges();
    let len = edges.len();
    let mut shuffled = || (0..len).map(|_| edges[random.word() as usize % len]).collect::<Vec<_>>();
    let at_edges = of("edges", [edges.clone(), shuffled(), shuffled(), shuffled()]);
    vec![of("rotations", [random.row(128, 4), random.row(128, 4), cosines, sines]), at_edges]
}

/// Rows that show the order of a sum, what it does with special values, and each length.
fn special_rows(seed: u64) -> Vec<(String, Vec<f32>)> {
    let mut random = Random::new(seed);
    let mut rows: Vec<_> = LENGTHS.iter().map(|&len| (format!("length {len}"), random.row(len, 3))).collect();
    rows.push(("wide exponents".into(), random.row(257, 40)));
    rows.push(("minus zeros".into(), vec![-0.0; 129]));
    rows.push(("one minus zero".into(), vec![-0.0]));
    rows.push(("subnormals".into(), (0..65).map(|i| f32::from_bits(1 + 997 * i)).collect()));
    rows.push(("ties".into(), (0..130).map(|i| if i % 2 == 0 { 1.0 } else { 5.960_464_5e-8 }).collect()));
    for (name, word) in [("NaN", 0x7fc0_0000), ("NaN with a payload", 0xff80_1234), ("infinity", 0x7f80_0000)]
    {
        for at in [0, 64, 128] {
            let mut row = random.row(129, 3);
            row[at] = f32::from_bits(word);
            rows.push((format!("{name} at {at}"), row));
        }
    }
    let mut row = random.row(129, 3);
    (row[3], row[70]) = (f32::INFINITY, f32::NEG_INFINITY);
    rows.push(("both infinities".into(), row));
    rows.push(("all NaN".into(), vec![f32::NAN; 3]));
    rows.push(("all minus infinity".into(), vec![f32::NEG_INFINITY; 3]));
    rows.push(("overflow".into(), vec![f32::MAX; 3]));
    rows
}

fn rows(function: fn(&[f32]) -> f32) -> Vec<Case> {
    special_rows(6).into_iter().map(|(name, x)| Case::new(name, [bits(&x)], [result(function(&x))])).collect()
}

fn pairs(function: fn(&[f32], &[f32]) -> f32) -> Vec<Case> {
    let mut random = Random::new(7);
    special_rows(8)
        .into_iter()
        .map(|(name, a)| {
            let b = random.row(a.len(), 3);
            let value = result(function(&a, &b));
            Case::new(name, [bits(&a), bits(&b)], [value])
        })
        .collect()
}

fn linear_f32() -> Vec<Case> {
    let mut random = Random::new(9);
    let mut cases = Vec::new();
    for len in FEW_LENGTHS {
        let (x, w, bias) = (random.row(len, 3), random.row(len, 3), random.near_one(3));
        for bias in [None, Some(bias), Some(-0.0)] {
            let value = result(law::linear(&x, &w, bias));
            let bias = bias.map_or(vec![], |bias| bits(&[bias]));
            cases.push(Case::new(format!("length {len}"), [bits(&x), bits(&w), bias], [value]));
        }
    }
    cases
}

/// Groups that meet every rule of quantization: ties, the clamp, the least amax, NaN and infinities.
fn groups(limit: f32) -> Vec<(String, Vec<f32>)> {
    let mut random = Random::new(10);
    let mut groups: Vec<_> =
        FEW_LENGTHS.iter().map(|&len| (format!("length {len}"), random.row(len, 3))).collect();
    let halves = (0..128).flat_map(|i| [i as f32 + 0.5, -(i as f32) - 0.5]).filter(|x| x.abs() < 127.0);
    groups.push(("ties".into(), halves.chain([limit]).collect()));
    for (name, amax) in [("just below", 0x0d7f_ffff), ("at", 0x0d80_0000), ("just above", 0x0d80_0001)] {
        let amax = f32::from_bits(amax);
        groups.push((format!("amax {name} 2^-100"), vec![amax / 3.0, -amax, amax * 0.5, 0.0]));
    }
    groups.push(("greatest".into(), vec![f32::MAX, -f32::MAX, 1.0, -0.0, f32::MAX / 2.0]));
    groups.push((
        "subnormals beside a normal".into(),
        vec![f32::from_bits(5), 1e-30, -f32::from_bits(0x7f_ffff)],
    ));
    groups.push(("zeros".into(), vec![0.0, -0.0, 0.0]));
    groups.push(("NaN".into(), vec![1.0, f32::from_bits(0xffc0_4321), 2.0]));
    groups.push(("infinity".into(), vec![1.0, f32::INFINITY, 2.0]));
    groups.push(("minus infinity".into(), vec![f32::NEG_INFINITY, 0.0]));
    groups
}

fn quantize_group() -> Vec<Case> {
    let quantized = |(name, x): (String, Vec<f32>)| {
        let mut q = vec![0; x.len()];
        let scale = int8::quantize_group(&x, &mut q);
        Case::new(name, [bits(&x)], [bytes(&q), vec![scale.to_bits()]])
    };
    groups(ActivationBits::Eight.limit()).into_iter().map(quantized).collect()
}

fn quantize_group16() -> Vec<Case> {
    let quantized = |(name, x): (String, Vec<f32>)| {
        let (mut hi, mut lo) = (vec![0; x.len()], vec![0; x.len()]);
        let scale = int8::quantize_group16(&x, &mut hi, &mut lo);
        Case::new(name, [bits(&x)], [bytes(&hi), bytes(&lo), vec![scale.to_bits()]])
    };
    groups(ActivationBits::Sixteen.limit()).into_iter().map(quantized).collect()
}

fn linear_int8() -> Vec<Case> {
    let mut random = Random::new(11);
    let mut cases = Vec::new();
    let mut push = |name: String, x: &[f32], w: &[i8], scales: &[f32], group: usize, bias: Option<f32>| {
        for (width, activations) in [(8, ActivationBits::Eight), (16, ActivationBits::Sixteen)] {
            let value = result(int8::linear(x, w, scales, group, activations, bias));
            let bias = bias.map_or(vec![], |bias| bits(&[bias]));
            let inputs = [bits(x), bytes(w), bits(scales), vec![group as u32], vec![width], bias];
            cases.push(Case::new(format!("{name}, {width} bits"), inputs, [value]));
        }
    };
    for (k, group) in
        [(0, 1), (1, 1), (3, 1), (64, 32), (128, 128), (129, 129), (130, 65), (256, 128), (384, 64)]
    {
        let (x, w, scales) = (random.row(k, 3), random.levels(k), random.row(k / group, 3));
        push(format!("K {k} by {group}"), &x, &w, &scales, group, None);
        push(format!("K {k} by {group}, bias"), &x, &w, &scales, group, Some(random.near_one(3)));
    }
    let (mut x, w, mut scales) = (random.row(128, 3), random.levels(128), random.row(4, 3));
    x[32..64].fill(0.0);
    push("a group of zeros".into(), &x, &w, &scales, 32, Some(-0.0));
    x[70] = f32::NAN;
    push("a group with a NaN".into(), &x, &w, &scales, 32, Some(1.0));
    x[70] = f32::NEG_INFINITY;
    push("a group with an infinity".into(), &x, &w, &scales, 32, None);
    x[70] = 1.0;
    scales[3] = f32::NAN;
    push("a NaN scale".into(), &x, &w, &scales, 32, None);
    push("all weights zero".into(), &x, &[0; 128], &[0.0; 4], 32, Some(0.5));
    cases
}

fn layer_norm() -> Vec<Case> {
    let mut random = Random::new(12);
    let eps = 1e-12;
    special_rows(13)
        .into_iter()
        .map(|(name, x)| {
            let (w, b) = (random.row(x.len(), 2), random.row(x.len(), 2));
            let row = LayerNormRow::of(&x, eps);
            let y = (0..x.len()).map(|i| row.element(x[i], w[i], b[i]));
            let outputs = [result(row.mean), result(row.r), results(y)];
            Case::new(name, [bits(&x), bits(&w), bits(&b), bits(&[eps])], outputs)
        })
        .collect()
}

fn rms_norm() -> Vec<Case> {
    let mut random = Random::new(14);
    let eps = 1e-5;
    special_rows(15)
        .into_iter()
        .map(|(name, x)| {
            let w = random.row(x.len(), 2);
            let row = RmsNormRow::of(&x, eps);
            let y = (0..x.len()).map(|i| row.element(x[i], w[i]));
            Case::new(name, [bits(&x), bits(&w), bits(&[eps])], [result(row.r), results(y)])
        })
        .collect()
}

/// One head and one column: `keys` are rows of the query's length, one after the other.
fn attention_case(name: String, q: &[f32], keys: &[f32], column: &[f32], scale: f32) -> Case {
    let scores: Vec<_> = (0..column.len())
        .map(|j| attention::score(q, &keys[j * q.len()..(j + 1) * q.len()], scale))
        .collect();
    let max = law::max(&scores);
    let weights: Vec<_> = scores.iter().map(|&score| attention::weight(score, max)).collect();
    let output = attention::output(&weights, column);
    Case::new(
        name,
        [bits(q), bits(keys), bits(column), bits(&[scale])],
        [results(scores), result(max), results(weights), result(output)],
    )
}

fn attention_rows() -> Vec<Case> {
    const HEAD_DIM: usize = 8;
    let mut random = Random::new(16);
    let scale = 0.353_553_4;
    let mut cases = Vec::new();
    for keys in FEW_LENGTHS {
        let (q, k, v) = (random.row(HEAD_DIM, 1), random.row(HEAD_DIM * keys, 1), random.row(keys, 3));
        cases.push(attention_case(format!("{keys} keys"), &q, &k, &v, scale));
    }
    let (q, v) = (vec![1.0], random.row(5, 3));
    for (name, scores) in [
        ("a NaN score", [1.0, f32::NAN, 2.0, 0.5, -1.0]),
        ("all scores NaN", [f32::NAN; 5]),
        ("a score of infinity", [1.0, f32::INFINITY, 2.0, 0.5, -1.0]),
        ("a score of minus infinity", [1.0, f32::NEG_INFINITY, 2.0, 0.5, -1.0]),
        ("all scores minus infinity", [f32::NEG_INFINITY; 5]),
        ("far apart", [0.0, -87.0, -88.0, -103.0, -1000.0]),
        ("zeros of both signs", [-0.0, 0.0, -0.0, 0.0, -0.0]),
    ] {
        cases.push(attention_case(name.into(), &q, &scores, &v, 1.0));
    }
    let values = [1.0, f32::NAN, 2.0, 0.5, -1.0];
    cases.push(attention_case(
        "a NaN value under weight 0".into(),
        &q,
        &[0.0, -200.0, 0.0, 0.0, 0.0],
        &values,
        1.0,
    ));
    cases
}

fn normalize() -> Vec<Case> {
    let mut rows = special_rows(17);
    rows.push(("below the least divisor".into(), vec![1e-13, -2e-13]));
    rows.push(("squares underflow".into(), vec![1e-30, 1e-31]));
    rows.into_iter()
        .map(|(name, x)| {
            let divisor = law::normalize_divisor(&x);
            let y = results(x.iter().map(|&x| law::normalize(x, divisor)));
            Case::new(name, [bits(&x)], [result(divisor), y])
        })
        .collect()
}
