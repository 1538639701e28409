//! The committed vectors: that they are those which the generator writes, and that the second implementation agrees.

use std::fs;
use std::path::PathBuf;

use crate::cases::{Words, files};
use crate::reference;

fn committed(operator: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(operator).with_extension("txt");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A line of a file: the case's name, what goes in, what comes out.
struct Line {
    name: String,
    inputs: Vec<Words>,
    outputs: Vec<Words>,
}

fn lines(operator: &str) -> Vec<Line> {
    let words = |list: &str| -> Words {
        list.split_whitespace().map(|word| u32::from_str_radix(word, 16).expect("a word is hex")).collect()
    };
    let line = |line: &str| {
        let (left, right) = line.split_once("=>").expect("a case has outputs");
        let (name, inputs) = left.split_once(';').expect("a case has inputs");
        Line {
            name: name.to_owned(),
            inputs: inputs.split(';').map(words).collect(),
            outputs: right.split(';').map(words).collect(),
        }
    };
    committed(operator).lines().map(line).collect()
}

fn floats(words: &Words) -> Vec<f32> {
    words.iter().map(|&word| f32::from_bits(word)).collect()
}

fn levels(words: &Words) -> Vec<i8> {
    words.iter().map(|&word| word as u8 as i8).collect()
}

/// The bits of results, every NaN being the canonical one.
fn bits(x: &[f32]) -> Words {
    x.iter()
        .map(|x| x.to_bits())
        .map(|bits| if bits << 1 > 0xff00_0000 { 0x7fc0_0000 } else { bits })
        .collect()
}

/// Checks that `compute` turns the inputs of every case of a file into its outputs.
fn check(operator: &str, compute: impl Fn(&[Words]) -> Vec<Words>) {
    let lines = lines(operator);
    assert!(!lines.is_empty(), "{operator} has no cases");
    for Line { name, inputs, outputs } in lines {
        assert_eq!(compute(&inputs), outputs, "{operator}, case {name}");
    }
}

fn check_elementwise(operator: &str, function: fn(f32) -> f32) {
    check(operator, |inputs| vec![bits(&floats(&inputs[0]).into_iter().map(function).collect::<Vec<_>>())]);
}

fn check_rows(operator: &str, function: fn(&[f32]) -> f32) {
    check(operator, |inputs| vec![bits(&[function(&floats(&inputs[0]))])]);
}

#[test]
fn the_files_are_what_the_generator_writes() {
    for (operator, text) in files() {
        assert!(
            committed(operator) == text,
            "vectors/{operator}.txt differs. A change of bits is a new version of the profile; before one is \
             registered, write anew with `cargo run -p gainsay-arithmetic --example vectors crates/arithmetic/vectors`"
        );
    }
}

#[test]
fn every_operator_has_a_check_here() {
    const CHECKED: [&str; 27] = [
        "attention",
        "canonical",
        "dot",
        "erf",
        "exp",
        "fma",
        "gelu",
        "gelu_tanh",
        "layer_norm",
        "linear_f32",
        "linear_int8",
        "max",
        "mean_pool",
        "normalize",
        "quantize_group",
        "quantize_group16",
        "rms_norm",
        "rope_pair",
        "round_bf16",
        "silu",
        "sqrt",
        "store",
        "sum64",
        "sum64_squares",
        "tanh",
        "widen_bf16",
        "widen_f16",
    ];
    let mut written: Vec<_> = files().into_iter().map(|(operator, _)| operator).collect();
    written.sort_unstable();
    assert_eq!(written, CHECKED);
}

#[test]
fn elementwise_functions_agree() {
    check_elementwise("sqrt", f32::sqrt);
    check_elementwise("store", reference::store);
    check_elementwise("canonical", |x| x);
    check_elementwise("exp", reference::exp);
    check_elementwise("erf", reference::erf);
    check_elementwise("tanh", reference::tanh);
    check_elementwise("silu", reference::silu);
    check_elementwise("gelu", reference::gelu);
    check_elementwise("gelu_tanh", reference::gelu_tanh);
    check("fma", |inputs| {
        let [a, b, c] = [0, 1, 2].map(|i| floats(&inputs[i]));
        vec![bits(&(0..a.len()).map(|i| reference::fma(a[i], b[i], c[i])).collect::<Vec<_>>())]
    });
    check("rope_pair", |inputs| {
        let [x1, x2, c, s] = [0, 1, 2, 3].map(|i| floats(&inputs[i]));
        // A product of two binary32 is exact in binary64: rounding it is what the law asks.
        let product = |a: f32, b: f32| (f64::from(a) * f64::from(b)) as f32;
        let y1 = (0..c.len()).map(|i| product(x1[i], c[i]) - product(x2[i], s[i]));
        let y2 = (0..c.len()).map(|i| product(x2[i], c[i]) + product(x1[i], s[i]));
        vec![bits(&y1.collect::<Vec<_>>()), bits(&y2.collect::<Vec<_>>())]
    });
}

#[test]
fn formats_agree() {
    let widen = |function: fn(u16) -> f32| {
        move |inputs: &[Words]| {
            vec![bits(&inputs[0].iter().map(|&word| function(word as u16)).collect::<Vec<_>>())]
        }
    };
    check("widen_bf16", widen(reference::widen_bf16));
    check("widen_f16", widen(reference::widen_f16));
    check("round_bf16", |inputs| {
        vec![floats(&inputs[0]).into_iter().map(|x| u32::from(reference::round_bf16(x))).collect()]
    });
}

#[test]
fn sums_agree() {
    check("dot", |inputs| vec![bits(&[reference::dot(&floats(&inputs[0]), &floats(&inputs[1]))])]);
    check_rows("sum64", reference::sum64);
    check_rows("sum64_squares", reference::sum64_squares);
    check_rows("mean_pool", reference::mean_pool);
    for Line { name, inputs, outputs } in lines("max") {
        let (expected, got) = (reference::max(&floats(&inputs[0])), f32::from_bits(outputs[0][0]));
        assert_eq!(expected, got, "max, case {name}");
    }
}

#[test]
fn linears_agree() {
    check("linear_f32", |inputs| {
        let [x, w, bias] = [0, 1, 2].map(|i| floats(&inputs[i]));
        vec![bits(&[reference::linear(&x, &w, &bias)])]
    });
    check("quantize_group", |inputs| {
        let (q, scale) = reference::quantize(&floats(&inputs[0]), 127.0);
        vec![q.iter().map(|&q| u32::from(q as u8)).collect(), bits(&[scale])]
    });
    check("quantize_group16", |inputs| {
        let (q, scale) = reference::quantize(&floats(&inputs[0]), 32_512.0);
        let digit = |pick: fn((i32, i32)) -> i32| {
            q.iter().map(|&q| u32::from(pick(reference::digits(q)) as u8)).collect::<Words>()
        };
        vec![digit(|(hi, _)| hi), digit(|(_, lo)| lo), bits(&[scale])]
    });
    check("linear_int8", |inputs| {
        let [x, scales, bias] = [0, 2, 5].map(|i| floats(&inputs[i]));
        let (group, width) = (inputs[3][0] as usize, inputs[4][0]);
        vec![bits(&[reference::linear_int8(&x, &levels(&inputs[1]), &scales, group, width, &bias)])]
    });
}

#[test]
fn rows_agree() {
    check("layer_norm", |inputs| {
        let [x, w, b, eps] = [0, 1, 2, 3].map(|i| floats(&inputs[i]));
        let (mean, r, y) = reference::layer_norm(&x, &w, &b, eps[0]);
        vec![bits(&[mean]), bits(&[r]), bits(&y)]
    });
    check("rms_norm", |inputs| {
        let [x, w, eps] = [0, 1, 2].map(|i| floats(&inputs[i]));
        let (r, y) = reference::rms_norm(&x, &w, eps[0]);
        vec![bits(&[r]), bits(&y)]
    });
    check("attention", |inputs| {
        let [q, keys, column, scale] = [0, 1, 2, 3].map(|i| floats(&inputs[i]));
        let (scores, max, weights, output) = reference::attention(&q, &keys, &column, scale[0]);
        vec![bits(&scores), bits(&[max]), bits(&weights), bits(&[output])]
    });
    check("normalize", |inputs| {
        let (divisor, y) = reference::normalize(&floats(&inputs[0]));
        vec![bits(&[divisor]), bits(&y)]
    });
}
