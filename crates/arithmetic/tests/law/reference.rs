//! A second implementation of every operator, written from `docs/ARITHMETIC.md` alone and in another manner.
//!
//! It takes the platform's fma and square root, indexes instead of iterating, rounds through integers and keeps integer
//! sums in i64. It shares no code with the crate.

const LN2_HIGH: u32 = 0x3f31_7218;
const LN2_LOW: u32 = 0xb102_e308;
const EXP: [u32; 5] = [0x3ab5_1e88, 0x3c09_1c2b, 0x3d2a_ac5f, 0x3e2a_aa4a, 0x3eff_fffe];
const ERF_SMALL: [u32; 8] =
    [0xb708_fb77, 0x38a3_7b76, 0xba13_2ee7, 0x3b64_17bd, 0xbc95_c832, 0x3da2_a1b4, 0xbe8f_e8b1, 0xbd0d_70a7];
const ERF_LARGE: [u32; 14] = [
    0xb5d2_04f2,
    0x3714_8c46,
    0xb696_396b,
    0xb898_63de,
    0x395f_559b,
    0xb916_a5c2,
    0xba2a_55e2,
    0x3b26_c4b1,
    0xbba7_7ce9,
    0x3be1_081a,
    0xbbd2_665d,
    0x3b85_4e07,
    0xbad0_1092,
    0x3998_210c,
];

pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

pub(crate) fn exp(x: f32) -> f32 {
    if x < -87.3 {
        return 0.0;
    }
    if x > 88.722_83 {
        return f32::INFINITY;
    }
    let n = (f64::from(x) * f64::from(f32::from_bits(0x3fb8_aa3b))).round_ties_even() as f32;
    let r = (-n).mul_add(f32::from_bits(LN2_HIGH), x);
    let r = (-n).mul_add(f32::from_bits(LN2_LOW), r);
    let mut p = 0.0f32;
    for c in EXP.map(f32::from_bits).into_iter().chain([1.0, 1.0]) {
        p = p.mul_add(r, c);
    }
    // The power of two is exact in binary64, and so is the product.
    (f64::from(p) * f64::from(n).exp2()) as f32
}

pub(crate) fn erf(x: f32) -> f32 {
    let sign = if x.is_sign_negative() { -1.0 } else { 1.0 };
    let a = x * sign;
    let polynomial = |coefficients: &[u32], t: f32| {
        let mut p = 0.0f32;
        for &c in coefficients {
            p = p.mul_add(t, f32::from_bits(c));
        }
        p
    };
    if a.is_nan() {
        a
    } else if a < 1.1875 {
        sign * polynomial(&ERF_SMALL, a.mul_add(a, -0.5)).mul_add(a, a)
    } else {
        sign * (1.0 - polynomial(&ERF_LARGE, a.min(4.0) - 2.5625))
    }
}

pub(crate) fn tanh(x: f32) -> f32 {
    let t = exp(-(x.abs() + x.abs()));
    (1.0 - t) / (1.0 + t) * if x.is_sign_negative() { -1.0 } else { 1.0 }
}

pub(crate) fn silu(x: f32) -> f32 {
    x / (exp(-x) + 1.0)
}

pub(crate) fn gelu(x: f32) -> f32 {
    let one_plus = erf(x * std::f32::consts::FRAC_1_SQRT_2) + 1.0;
    x * 0.5 * one_plus
}

pub(crate) fn gelu_tanh(x: f32) -> f32 {
    let inner = f32::from_bits(0x3d37_2713).mul_add(x * x, 1.0);
    x / (1.0 + exp(x * f32::from_bits(0xbfcc_422a) * inner))
}

pub(crate) fn store(x: f32) -> f32 {
    match x.classify() {
        std::num::FpCategory::Nan => f32::from_bits(0x7fc0_0000),
        std::num::FpCategory::Zero | std::num::FpCategory::Subnormal => 0.0,
        _ => x,
    }
}

pub(crate) fn widen_bf16(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 7 & 0xff), f64::from(bits & 0x7f));
    widen(bits >> 15 == 1, exponent, fraction / 128.0, 0xff, 127)
}

pub(crate) fn widen_f16(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    widen(bits >> 15 == 1, exponent, fraction / 1024.0, 0x1f, 15)
}

fn widen(negative: bool, exponent: i32, fraction: f64, special: i32, bias: i32) -> f32 {
    let magnitude = if exponent == special {
        if fraction == 0.0 { f64::INFINITY } else { f64::NAN }
    } else if exponent == 0 {
        fraction * f64::from(1 - bias).exp2()
    } else {
        (1.0 + fraction) * f64::from(exponent - bias).exp2()
    };
    (if negative { -magnitude } else { magnitude }) as f32
}

/// By choosing between the two neighbours, the even one on a tie.
pub(crate) fn round_bf16(x: f32) -> u16 {
    if x.is_nan() {
        return 0x7fc0;
    }
    let below = (x.to_bits() >> 16) as u16;
    if x.is_infinite() {
        return below;
    }
    // The neighbour away from zero; of the greatest finite one it is 2^128, which binary64 holds.
    let value = |bits: u16| {
        let magnitude =
            if bits & 0x7fff == 0x7f80 { 128f64.exp2() } else { widen_bf16(bits & 0x7fff).into() };
        magnitude - f64::from(x.abs())
    };
    let (short, long) = (-value(below), value(below + 1));
    if short < long || (short == long && below.is_multiple_of(2)) { below } else { below + 1 }
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut total = 0.0f32;
    let mut partial = 0.0f32;
    for k in 0..a.len() {
        partial = a[k].mul_add(b[k], partial);
        if k % 128 == 127 || k == a.len() - 1 {
            total += partial;
            partial = 0.0;
        }
    }
    total
}

fn fold(lanes: &[f32]) -> f32 {
    match lanes {
        [one] => *one,
        _ => {
            let (low, high) = lanes.split_at(lanes.len() / 2);
            fold(&low.iter().zip(high).map(|(low, high)| low + high).collect::<Vec<_>>())
        }
    }
}

pub(crate) fn sum64(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 64];
    for (i, x) in x.iter().enumerate() {
        lanes[i % 64] += x;
    }
    fold(&lanes)
}

pub(crate) fn sum64_squares(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 64];
    for (i, x) in x.iter().enumerate() {
        lanes[i % 64] = x.mul_add(*x, lanes[i % 64]);
    }
    fold(&lanes)
}

/// Equal to the law's but for the sign of a zero, which is nowhere observed.
pub(crate) fn max(x: &[f32]) -> f32 {
    x.iter().copied().filter(|x| !x.is_nan()).fold(f32::NEG_INFINITY, f32::max)
}

pub(crate) fn mean_pool(column: &[f32]) -> f32 {
    dot(column, &vec![1.0; column.len()]) / column.len() as f32
}

pub(crate) fn linear(x: &[f32], w: &[f32], bias: &[f32]) -> f32 {
    bias.iter().fold(dot(x, w), |y, bias| y + bias)
}

/// The levels and the scale of a group.
pub(crate) fn quantize(x: &[f32], limit: f32) -> (Vec<i32>, f32) {
    let amax = x.iter().fold(0.0f32, |amax, x| amax.max(x.abs()));
    if x.iter().any(|x| x.is_nan() || x.is_infinite()) {
        (vec![0; x.len()], f32::NAN)
    } else if f64::from(amax) < (-100f64).exp2() {
        (vec![0; x.len()], 0.0)
    } else {
        let factor = limit / amax;
        let limit_level = limit as i32;
        let level = |x: &f32| ((x * factor).round_ties_even() as i32).min(limit_level).max(-limit_level);
        (x.iter().map(level).collect(), amax / limit)
    }
}

/// The digits of a level: the one pair with 256·hi + lo = level and lo within a signed byte.
pub(crate) fn digits(level: i32) -> (i32, i32) {
    (-127..=127)
        .map(|hi| (hi, level - 256 * hi))
        .find(|(_, lo)| (-128..=127).contains(lo))
        .expect("every level has digits")
}

pub(crate) fn linear_int8(x: &[f32], w: &[i8], scales: &[f32], group: usize, bits: u32, bias: &[f32]) -> f32 {
    let mut t = bias.first().copied().unwrap_or(0.0);
    for g in 0..scales.len() {
        let (x, w) = (&x[g * group..(g + 1) * group], &w[g * group..(g + 1) * group]);
        let (levels, scale) = quantize(x, if bits == 8 { 127.0 } else { 32_512.0 });
        let dot = |digit: &dyn Fn(i32) -> i32| -> i64 {
            levels.iter().zip(w).map(|(&level, &w)| i64::from(digit(level)) * i64::from(w)).sum()
        };
        let sum = if bits == 8 {
            dot(&|level| level) as f32
        } else {
            (dot(&|level| digits(level).0) as f32).mul_add(256.0, dot(&|level| digits(level).1) as f32)
        };
        t = sum.mul_add(scale * scales[g], t);
    }
    t
}

/// Mean, r and the elements.
pub(crate) fn layer_norm(x: &[f32], w: &[f32], b: &[f32], eps: f32) -> (f32, f32, Vec<f32>) {
    let d = x.len() as f32;
    let mean = sum64(x) / d;
    let centred: Vec<_> = x.iter().map(|x| x - mean).collect();
    let r = 1.0 / (sum64_squares(&centred) / d + eps).sqrt();
    (mean, r, (0..x.len()).map(|i| (centred[i] * r).mul_add(w[i], b[i])).collect())
}

/// r and the elements.
pub(crate) fn rms_norm(x: &[f32], w: &[f32], eps: f32) -> (f32, Vec<f32>) {
    let r = 1.0 / (sum64_squares(x) / x.len() as f32 + eps).sqrt();
    (r, (0..x.len()).map(|i| x[i] * r * w[i]).collect())
}

/// Scores, their greatest, weights and the output.
pub(crate) fn attention(
    q: &[f32],
    keys: &[f32],
    column: &[f32],
    scale: f32,
) -> (Vec<f32>, f32, Vec<f32>, f32) {
    let scores: Vec<_> = keys.chunks(q.len()).map(|key| dot(q, key) * scale).collect();
    let greatest = max(&scores);
    let weights: Vec<_> = scores.iter().map(|score| exp(score - greatest)).collect();
    let output = dot(&weights, column) / sum64(&weights);
    (scores, greatest, weights, output)
}

/// The divisor and the elements.
pub(crate) fn normalize(x: &[f32]) -> (f32, Vec<f32>) {
    let norm = sum64_squares(x).sqrt();
    let divisor = if norm >= 1e-12 || norm.is_nan() { norm } else { 1e-12 };
    (divisor, x.iter().map(|x| x / divisor).collect())
}

/// The draw from a fully sorted row; `u` is the random number.
pub(crate) fn sample(logits: &[f32], sampling: &gainsay_arithmetic::sampling::Sampling, u: f32) -> u32 {
    let z = |id: usize| {
        Some(logits[id] / sampling.temperature).filter(|z| !z.is_nan()).unwrap_or(f32::NEG_INFINITY)
    };
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    // A stable sort leaves equal values in the order of their ids.
    ids.sort_by(|&a, &b| z(b).partial_cmp(&z(a)).expect("no z is a NaN"));
    ids.truncate(sampling.top_k as usize);
    let greatest = z(ids[0]);
    if greatest.is_infinite() {
        return ids[0] as u32;
    }
    let weights: Vec<f32> =
        ids.iter().map(|&id| exp(z(id) - greatest)).filter(|&e| e >= sampling.min_p).collect();
    let mut sums = Vec::new();
    for weight in weights {
        sums.push(sums.last().copied().unwrap_or(0.0f32) + weight);
    }
    let last = *sums.last().expect("a candidate is kept");
    let n = (0..sums.len()).find(|&n| sums[n] >= sampling.top_p * last).expect("the last sum is enough");
    let i = (0..sums.len()).find(|&i| sums[i] > u * sums[n]).expect("u is below 1");
    ids[i] as u32
}
