//! Trying a device's operators before anything is served by them.
//!
//! Tests hold all kernels against `gainsay-arithmetic`, but not on every machine: a compiler may contract what it should
//! not, an instruction may be emulated badly, a device may be broken. Small inputs that take every operator through its
//! parts, in batches as runs have them, are computed where a model is to run; what comes out has the digests that
//! `arithmetic`'s functions gave when this was written.

use candle_core::{Result, Tensor};
use gainsay_arithmetic::int8::{ActivationBits, quantize_group};
use gainsay_commitment::{TensorCommitment, TensorHasher};
use gainsay_program::{Dtype, Sampling};

use crate::batch::{Batch, Generation, Known, Piece};
use crate::kernels::{Binary, Heads, Int8Matrix, KvCache, KvLayout, KvType, PagePool, Quantization, Unary};
use crate::machine::Machine;
use crate::ops::{Context, Follow, Operator, RowsWidth, Table, Value, from_floats, read_words};

/// An operator, tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub op: &'static str,
    /// The commitment to all that it gave.
    pub digest: TensorCommitment,
    /// Whether these are the bits that it should give everywhere.
    pub agrees: bool,
}

/// The names of the operators that gave other bits than they should.
pub(crate) fn differing(checks: &[Check]) -> Vec<&'static str> {
    checks.iter().filter(|check| !check.agrees).map(|check| check.op).collect()
}

/// What every operator gives on every machine.
const GOLDEN: &[(&str, &str)] = &[
    ("linear", "2dc7d55101d0cfb7807f4d8d95ab771fe3651d6396e065b491e4f2057f47e80f"),
    ("linear_int8", "87574b546c9f1b965a461417c100a6573da99834bfe5544c572671be346d5244"),
    ("gather", "6b4797cab76143a8a3fb0e04c7b6305d85d195d66af57a45a780e6df1662ce5d"),
    ("gelu", "7f0bcd460be04365baa077ee5655988c46ac5379eb0903975cda06caefbb01fc"),
    ("silu", "53faf63b801e5933ccebe0e8a1a53b1c5e564e0e590bd51b9f49470e0684249c"),
    ("cast_bf16", "d8962494c304694f384b2e69a88d85b9533917ad9dc96d0de2d3c12e37c1d5d2"),
    ("add", "64e52e7d2919c6d2f2830ae19356fb5d8f50a260da1791d58e4410404ff51eea"),
    ("mul", "36a370e547fbc101d61e5759b10d5e8e19e08c4bced109e8a97ea321eb8a3e0b"),
    ("layer_norm", "1100336b84ca498bf38c2d12938cd6f594a46bda3675f955b427d19bfc8ce9dc"),
    ("rms_norm", "99e4802ac493e573d9e881dab272b5d3dd6ba02bfa3df0b5c5ae48aa35d1edc9"),
    ("normalize", "02e3bc3edf3779c6d477c393f22607b659ba596d23bbf7a037eb2507faeaf012"),
    ("mean_pool", "fa6b54af2f8a3a297d3df956c955ccad95a5953efa48c0a85006a83e689184ed"),
    ("rope", "240a670d465091b07536ea54d8a4f7aa1c3205e0b32152bee6cd37f94127b024"),
    ("attention", "0746c1c826a44ed1c1b7c85dfe2cdf21795f637ad35a725ddfc48d2708440902"),
    ("causal_attention", "72f0666fc090012f228ab0fdb1b6544d8cf994a56610eb1a36443a8d9ccd858b"),
    ("select_rows", "2a63493b272cd102b001502bf9d6fe9263cbcdfdb8670ceda89a39bcea7c9dd8"),
    ("penalize", "f1b1e5142a4323703a33dc28c2677d1e853e2143f167ea18976d193ad5be978b"),
    ("sample", "437be3928c284187c53e7e9d059263213ddf4ff277629245032bee62e5214779"),
];

/// Tries every operator.
///
/// # Errors
/// The device refuses an operation.
pub(crate) fn golden(machine: &Machine) -> Result<Vec<Check>> {
    let mut digests: Vec<(&'static str, TensorHasher)> = Vec::new();
    for (op, words) in Trial::run(machine)? {
        let index = digests.iter().position(|(known, _)| *known == op).unwrap_or_else(|| {
            digests.push((op, TensorHasher::new()));
            digests.len() - 1
        });
        for word in words {
            digests[index].1.update(&word.to_le_bytes());
        }
    }
    let checked = digests.into_iter().map(|(op, hasher)| {
        let digest = hasher.commitment();
        let agrees = GOLDEN.iter().any(|golden| *golden == (op, &*digest.to_string()));
        Check { op, digest, agrees }
    });
    Ok(checked.collect())
}

const ROWS: usize = 37;
/// Rows of the linear maps tried: few are multiplied in other ways than many.
const MAPPED: [usize; 5] = [1, 2, 3, 4, ROWS];
/// Rows of the first of two sequences.
const FIRST: usize = 5;
const DEPTH: usize = 144;
const GROUP: usize = 72;
const COLUMNS: usize = 45;
const HEADS: Heads = Heads { count: 4, kv_count: 2, width: 36, scale: 0.7 };
/// Portions of a sequence whose keys take more than a page.
const PORTIONS: [usize; 3] = [120, 29, 1];
const VOCABULARY: usize = 1500;

/// What operators have given so far.
struct Trial<'a> {
    machine: &'a Machine,
    outputs: Vec<(&'static str, Vec<u32>)>,
}

impl<'a> Trial<'a> {
    fn run(machine: &'a Machine) -> Result<Vec<(&'static str, Vec<u32>)>> {
        let mut trial = Self { machine, outputs: Vec::new() };
        trial.linear_maps()?;
        trial.rows()?;
        for kind in [KvType::F32, KvType::Bf16] {
            trial.causal(kind)?;
        }
        trial.answers()?;
        Ok(trial.outputs)
    }

    /// Runs an operator in a batch that is staged, and takes note of what it gives.
    fn apply(
        &mut self,
        (op, operator): (&'static str, &Operator),
        batch: &Batch<'_>,
        inputs: &[&Value],
    ) -> Result<Value> {
        self.apply_cached((op, operator), (batch, &mut []), inputs)
    }

    fn apply_cached(
        &mut self,
        (op, operator): (&'static str, &Operator),
        (batch, caches): (&Batch<'_>, &mut [KvCache]),
        inputs: &[&Value],
    ) -> Result<Value> {
        let context = Context { kernels: self.machine.kernels(), batch, caches };
        let output = operator.run(context, inputs)?;
        self.outputs.push((op, read_words(output.tensor(), <[u32]>::to_vec)?));
        Ok(output)
    }

    fn matrix(&self, values: &[f32], shape: RowsWidth) -> Result<Value> {
        from_floats(values.to_vec(), shape, self.machine.tensors()).map(Value::new)
    }

    fn stage(&self, batch: &Batch<'_>, caches: &[KvCache]) -> Result<()> {
        self.machine.stage(batch, caches)
    }

    fn linear_maps(&mut self) -> Result<()> {
        let (x, w) = (numbers(1, ROWS * DEPTH), numbers(2, COLUMNS * DEPTH));
        let (bias, other) = (numbers(3, COLUMNS), numbers(4, ROWS * COLUMNS));
        let batch = Batch::default();
        let mut maps = Vec::new();
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            maps.push(("linear", weights_as(dtype, &w), dtype));
        }
        let follows = [
            Follow::Nothing,
            Follow::Unary(Unary::Gelu),
            Follow::Unary(Unary::Silu),
            Follow::Binary(Binary::Add),
            Follow::Binary(Binary::Mul),
        ];
        for (op, bytes, dtype) in &maps {
            for (rows, follow) in MAPPED.into_iter().zip(follows) {
                let weights = self.machine.linear(bytes, (*dtype, DEPTH), bias.clone())?;
                let operator = Operator::Linear(weights.into(), follow);
                self.apply_linear((op, &operator), follow, rows, [&x, &other], &batch)?;
            }
        }
        for bits in [ActivationBits::Eight, ActivationBits::Sixteen] {
            let quantization = Quantization { depth: DEPTH, group: GROUP, bits };
            let mut weights = vec![0; w.len()];
            let groups = w.chunks_exact(GROUP).zip(weights.chunks_exact_mut(GROUP));
            let scales = groups.map(|(w, q)| quantize_group(w, q)).collect();
            let matrix = Int8Matrix { weights, scales, quantization };
            for (rows, follow) in MAPPED.into_iter().zip(follows) {
                let weights = self.machine.linear_int8(matrix.clone(), bias.clone())?;
                let operator = Operator::LinearInt8(weights.into(), follow);
                self.apply_linear(("linear_int8", &operator), follow, rows, [&x, &other], &batch)?;
            }
        }
        Ok(())
    }

    fn apply_linear(
        &mut self,
        op: (&'static str, &Operator),
        follow: Follow,
        rows: usize,
        [x, other]: [&[f32]; 2],
        batch: &Batch<'_>,
    ) -> Result<()> {
        let x = self.matrix(&x[..rows * DEPTH], (rows, DEPTH))?;
        let other = self.matrix(&other[..rows * COLUMNS], (rows, COLUMNS))?;
        let inputs: &[&Value] = if matches!(follow, Follow::Binary(_)) { &[&x, &other] } else { &[&x] };
        self.apply(op, batch, inputs).map(|_| ())
    }

    fn rows(&mut self) -> Result<()> {
        let ids: Vec<u32> = (0..ROWS as u32).map(|row| row * 7 % 11).collect();
        let mut batch = Batch::default();
        for (sequence, tokens) in [0..FIRST, FIRST..ROWS].into_iter().enumerate() {
            let known = Known { ids: &ids[tokens.clone()], generation: None };
            batch.push(piece(known, sequence, 0..tokens.len()));
        }
        self.stage(&batch, &[])?;
        let (x, y) = (numbers(5, ROWS * DEPTH), numbers(6, ROWS * DEPTH));
        let far: Vec<f32> = x.iter().map(|x| x * 90.0).collect();
        let [x, y, far] = [&x, &y, &far].map(|values| self.matrix(values, (ROWS, DEPTH)));
        let (x, y, far) = (x?, y?, far?);
        let store = |seed| self.machine.store(numbers(seed, DEPTH).into());
        let (weight, bias) = (store(7)?, store(8)?);
        let table = self.machine.store(weights_as(Dtype::Bf16, &numbers(9, 11 * DEPTH)).into())?;
        let table = Table { bytes: table, dtype: Dtype::Bf16, width: DEPTH };
        let indices = Value::new(Tensor::new(&ids[..], self.machine.tensors())?);
        self.apply(("gather", &Operator::Gather(table)), &batch, &[&indices])?;
        for (op, formula) in [("gelu", Unary::Gelu), ("silu", Unary::Silu), ("cast_bf16", Unary::RoundBf16)] {
            self.apply((op, &Operator::Unary(formula)), &batch, &[&far])?;
        }
        for (op, formula) in [("add", Binary::Add), ("mul", Binary::Mul)] {
            self.apply((op, &Operator::Binary(formula)), &batch, &[&x, &y])?;
        }
        let layer_norm = Operator::LayerNorm { weight: weight.clone(), bias, eps: 1e-12 };
        self.apply(("layer_norm", &layer_norm), &batch, &[&x])?;
        self.apply(("rms_norm", &Operator::RmsNorm { weight, eps: 1e-6 }), &batch, &[&x])?;
        self.apply(("normalize", &Operator::Normalize), &batch, &[&x])?;
        self.apply(("mean_pool", &Operator::MeanPool), &batch, &[&x])?;
        let angles = |seed| self.machine.store(numbers(seed, ROWS * HEADS.width / 2).into());
        let rope = Operator::Rope { cos: angles(10)?, sin: angles(11)?, width: HEADS.width };
        self.apply(("rope", &rope), &batch, &[&x])?;
        let [k, v] = [12, 13]
            .map(|seed| self.matrix(&numbers(seed, ROWS * HEADS.kv_stride()), (ROWS, HEADS.kv_stride())));
        self.apply(("attention", &Operator::Attention(HEADS)), &batch, &[&x, &k?, &v?]).map(|_| ())
    }

    fn causal(&mut self, kind: KvType) -> Result<()> {
        let mut layout = KvLayout::new(self.machine.kernels().kv_panel());
        let place = layout.add(HEADS.kv_count, HEADS.width);
        let pool = PagePool::on(self.machine, &layout, kind);
        let mut caches = [KvCache::new(&pool)];
        let ids = vec![0; PORTIONS.iter().sum()];
        let (mut first, operator) = (0, Operator::Causal(HEADS, place));
        for (seed, rows) in (20..).step_by(3).zip(PORTIONS) {
            let mut batch = Batch::default();
            batch.push(piece(Known { ids: &ids, generation: None }, 0, first..first + rows));
            caches[0].grow(first + rows)?;
            self.stage(&batch, &caches)?;
            let q = self.matrix(&numbers(seed, rows * HEADS.stride()), (rows, HEADS.stride()))?;
            let [k, v] = [seed + 1, seed + 2].map(|seed| {
                let mut values = numbers(seed, rows * HEADS.kv_stride());
                values.iter_mut().for_each(|x| *x = Unary::RoundBf16.of(*x));
                self.matrix(&values, (rows, HEADS.kv_stride()))
            });
            let (k, v) = (k?, v?);
            self.apply_cached(("causal_attention", &operator), (&batch, &mut caches), &[&q, &k, &v])?;
            first += rows;
        }
        Ok(())
    }

    fn answers(&mut self) -> Result<()> {
        let ids: Vec<u32> = (0..12).map(|index| index * index % 17).collect();
        let greedy = Sampling::default();
        let drawn = Sampling { temperature: 0.8, top_k: 40, seed: 7, ..Sampling::default() };
        let penalized = Sampling {
            temperature: 1.3,
            top_p: 0.9,
            min_p: 0.01,
            repetition_penalty: 1.2,
            presence_penalty: 0.3,
            frequency_penalty: 0.2,
            logit_bias: vec![(3, 4.0), (700, -5.0)],
            seed: 8,
            choice: 1,
            ..Sampling::default()
        };
        let mut batch = Batch::default();
        for (sequence, sampling) in [&greedy, &drawn, &penalized].into_iter().enumerate() {
            let generation = Some(Generation { prompt: 8, sampling, counted: None });
            batch.push(piece(Known { ids: &ids, generation }, sequence, 0..ids.len()));
        }
        self.stage(&batch, &[])?;
        let rows = batch.ids().len();
        let logits = numbers(30, rows * VOCABULARY).iter().map(|x| x * 12.0).collect::<Vec<_>>();
        let logits = self.matrix(&logits, (rows, VOCABULARY))?;
        let selected = self.apply(("select_rows", &Operator::SelectRows), &batch, &[&logits])?;
        let penalized = self.apply(("penalize", &Operator::Penalize), &batch, &[&selected])?;
        self.apply(("sample", &Operator::Sample), &batch, &[&penalized]).map(|_| ())
    }
}

/// Tokens of a sequence that is a job of its own.
fn piece(known: Known<'_>, sequence: usize, tokens: std::ops::Range<usize>) -> Piece<'_> {
    Piece { job: sequence, fault: None, known, sequence: 0, start: 0, in_job: None, tokens, cache: sequence }
}

/// The bytes of a weight of this type. Of the same bits a binary16 is another number than a bfloat16, but some number.
fn weights_as(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    let words = values.iter().map(|x| x.to_bits());
    match dtype {
        Dtype::Bf16 => words.flat_map(|bits| ((bits >> 16) as u16).to_le_bytes()).collect(),
        Dtype::F16 => words.flat_map(|bits| ((bits >> 12) as u16 & 0xbbff).to_le_bytes()).collect(),
        _ => words.flat_map(u32::to_le_bytes).collect(),
    }
}

/// Numbers in [−1, 1) that are the same everywhere.
fn numbers(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Kernels;
    use crate::{DeviceChoice, DeviceInfo, Simd, self_test};

    #[test]
    fn the_cpu_passes_with_every_instruction_set() {
        for simd in Simd::available() {
            let checks = golden(&Machine::Cpu(Kernels::detect(simd).unwrap())).unwrap();
            // What the table has to say where an operator's meaning was changed on purpose.
            for Check { op, digest, .. } in &checks {
                println!("    (\"{op}\", \"{digest}\"),");
            }
            assert!(differing(&checks).is_empty(), "{simd}: {:?}", differing(&checks));
            assert_eq!(checks.len(), GOLDEN.len());
            let found = self_test(DeviceChoice::Cpu, simd).unwrap();
            assert_eq!((found.device, found.checks), (DeviceInfo::Cpu { simd }, checks));
        }
    }

    #[test]
    fn an_operator_that_differs_is_named() {
        let check = |op, agrees| Check { op, digest: TensorCommitment::from_bytes([0; 32]), agrees };
        assert_eq!(differing(&[check("add", true), check("mul", false)]), ["mul"]);
    }

    #[test]
    fn choices_are_read_as_they_are_written() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Cpu, DeviceChoice::Cuda(3)] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for text in ["", "cuda", "cuda:", "cuda:-1", "gpu", "CPU"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
