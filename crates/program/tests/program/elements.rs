//! `element` against the reference executor, and the direct form of expanded ops against their virtual layers.

use std::ops::Range;

use crate::common::{Checked, all_elements, assert_agrees};
use gainsay_program::toy::{Toy, ToyOptions};
use gainsay_program::{
    ActivationBits, ArithmeticProfile, Dtype, ElementError, JobInput, Missing, OpKind, OpPlace, Oracle,
    Scope, TensorRef, ValidatedModel, element, reference,
};
use proptest::prelude::*;

fn toy_options() -> impl Strategy<Value = ToyOptions> {
    let arithmetic = prop_oneof![Just(ArithmeticProfile::ExactF32V1), Just(ArithmeticProfile::ExactInt8V1)];
    let activation_bits = prop_oneof![Just(ActivationBits::Eight), Just(ActivationBits::Sixteen)];
    let dtype = prop_oneof![Just(Dtype::F32), Just(Dtype::Bf16), Just(Dtype::F16)];
    let sizes = (1..=5_u32, 1..=3_u32, 1..=12_u32, 0..=3_u32, 1..=3_u32, 1..=40_u32, 1..=9_u32, 0..=10_u32);
    (any::<u64>(), arithmetic, activation_bits, dtype, sizes).prop_map(
        |(seed, arithmetic, activation_bits, dtype, sizes)| {
            let (head_dim, heads, intermediate, blocks, blocks_per_layer, vocabulary, max_sequence, expand) =
                sizes;
            ToyOptions {
                seed,
                arithmetic,
                activation_bits,
                dtype,
                head_dim,
                heads,
                intermediate,
                blocks,
                blocks_per_layer,
                vocabulary,
                max_sequence,
                expand_from_rows: expand,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_element_is_what_the_reference_computes(
        options in toy_options(),
        seed: u64,
        lengths in prop::collection::vec(1..=9_u32, 1..=4),
    ) {
        let toy = Toy::new(&options).expect("all sizes are at least 1");
        assert_agrees(&toy.model, &toy.weights, &toy.job(seed, &lengths));
    }

    #[test]
    fn direct_and_expanded_forms_agree_on_any_values(seed: u64, lengths in prop::collection::vec(1..=12_u32, 1..=3)) {
        let options = ToyOptions { expand_from_rows: 0, blocks: 1, heads: 2, head_dim: 3, ..ToyOptions::default() };
        let toy = Toy::new(&options).expect("all sizes are at least 1");
        let job = toy.job(seed, &lengths);
        assert_direct_is_expanded(&toy.model, &job, seed);
    }

    #[test]
    fn elements_of_any_operands_are_stored_values(options in toy_options(), seed: u64, len in 1..=9_u32) {
        let toy = Toy::new(&options).expect("all sizes are at least 1");
        let job = toy.job(seed, &[len, 2]);
        for layer in 0..toy.model.layer_count() {
            for op in 0..toy.model.ops(layer).len() as u32 {
                let mut oracle = checked(&toy.model, &job, Adversarial { model: &toy.model, job: &job, seed });
                let bytes = all_elements(&toy.model, &job, OpPlace::in_layer(layer, op), &mut oracle);
                for value in bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)) {
                    prop_assert_eq!(gainsay_arithmetic::store(value).to_bits(), value.to_bits());
                }
            }
        }
    }
}

/// Blocks of 128 rows and 64 lanes begin to matter only in sequences that are longer.
#[test]
fn elements_agree_across_block_and_lane_boundaries() {
    let options = ToyOptions {
        heads: 1,
        head_dim: 3,
        intermediate: 130,
        blocks: 1,
        max_sequence: 131,
        expand_from_rows: 128,
        ..ToyOptions::default()
    };
    let toy = Toy::new(&options).expect("a small model");
    for (seed, lengths) in [(1, vec![63, 65]), (2, vec![128, 129]), (3, vec![131, 1])] {
        assert_agrees(&toy.model, &toy.weights, &toy.job(seed, &lengths));
    }
}

#[test]
fn expansion_depends_on_the_length_of_the_element_s_own_sequence() {
    let toy = Toy::new(&ToyOptions { expand_from_rows: 4, ..ToyOptions::default() }).expect("a small model");
    let job = toy.job(1, &[4, 5]);
    let width = 16;
    let attention = toy.model.ops(1).iter().position(|op| matches!(op.kind, OpKind::Attention { .. }));
    let attention = attention.expect("block 0 has an attention") as u32;
    assert!(!toy.model.is_expanded(&job, 1, attention, 0));
    assert!(!toy.model.is_expanded(&job, 1, attention, 4 * width - 1), "last element of the short sequence");
    assert!(toy.model.is_expanded(&job, 1, attention, 4 * width), "first element of the long sequence");
    assert!(!toy.model.is_expanded(&job, 1, attention, 9 * width), "beyond the output");
    assert!(!toy.model.is_expanded(&job, 1, 0, 4 * width), "a linear is never expanded");
    let pooling = toy.model.layer_count() - 1;
    assert!(!toy.model.is_expanded(&job, pooling, 0, width - 1));
    assert!(toy.model.is_expanded(&job, pooling, 0, width));
}

#[test]
fn a_value_does_not_depend_on_its_neighbours_in_the_job() {
    let toy = Toy::new(&ToyOptions::default()).expect("a small model");
    let together = toy.job(7, &[3, 11, 8]);
    let run = |job: &JobInput| reference::run(&toy.model, &toy.weights, job).expect("the job fits");
    let width = toy.model.answer_width() as usize * 4;
    let answers = run(&together);
    for sequence in together.sequences() {
        let ids = &together.token_ids()[sequence.start as usize..][..sequence.len as usize];
        let alone = run(&JobInput::new([ids]).expect("the sequence is not empty"));
        assert_eq!(alone.answer(), &answers.answer()[sequence.index * width..][..width]);
    }
}

#[test]
fn a_tampered_output_is_carried_on_and_found_again() {
    let toy = Toy::new(&ToyOptions::default()).expect("a small model");
    let job = toy.job(3, &[6]);
    let fault = OpPlace::in_layer(1, 2);
    let honest = reference::run(&toy.model, &toy.weights, &job).expect("the job fits");
    let trace = reference::run_with(&toy.model, &toy.weights, &job, |place, bytes| {
        if place == fault {
            bytes[2] ^= 0x40;
        }
    });
    let trace = trace.expect("the job fits");
    assert_eq!(honest.layer_output(0), trace.layer_output(0));
    assert_ne!(honest.layer_output(1), trace.layer_output(1));
    let mut wrong = Vec::new();
    for layer in 0..toy.model.layer_count() {
        for op in 0..toy.model.ops(layer).len() as u32 {
            let place = OpPlace::in_layer(layer, op);
            let oracle = reference::TraceOracle { trace: &trace, weights: &toy.weights, virtual_layer: None };
            let found = all_elements(&toy.model, &job, place, &mut checked(&toy.model, &job, oracle));
            let claimed = trace.op(layer, op).expect("the trace holds every op");
            let differing = found.chunks(4).zip(claimed.chunks(4)).enumerate().filter(|(_, (a, b))| a != b);
            wrong.extend(differing.map(|(index, _)| (place, index)));
        }
    }
    assert_eq!(wrong, [(fault, 0)], "the one falsified element, and nothing that follows from it");
}

#[test]
fn places_and_elements_that_do_not_exist_are_errors() {
    let toy = Toy::new(&ToyOptions::default()).expect("a small model");
    let job = toy.job(3, &[2]);
    let mut nothing = Nothing;
    let mut ask = |place, index| element(&toy.model, &job, place, index, &mut nothing);
    let first = OpPlace::in_layer(0, 0);
    assert!(matches!(ask(first, 0), Err(ElementError::Missing(_))));
    assert!(matches!(ask(first, 32), Err(ElementError::NoSuchElement { elements: 32, .. })));
    assert!(matches!(ask(first, u64::MAX), Err(ElementError::NoSuchElement { .. })));
    for place in [
        OpPlace::in_layer(0, u32::MAX),
        OpPlace::in_layer(u32::MAX, 0),
        OpPlace { layer: 1, scope: Scope::Virtual { op: 3, element: 0 }, op: 0 },
        OpPlace { layer: 1, scope: Scope::Virtual { op: 0, element: 0 }, op: 0 },
        OpPlace { layer: 1, scope: Scope::Virtual { op: 3, element: u64::MAX }, op: 0 },
        OpPlace { layer: 1, scope: Scope::Virtual { op: u32::MAX, element: u64::MAX }, op: u32::MAX },
    ] {
        assert!(matches!(ask(place, 0), Err(ElementError::NoSuchOp(found)) if found == place), "{place}");
    }
}

/// A referee meets such a job only where a check was forgotten; it must not fall over even then.
#[test]
fn a_job_that_does_not_fit_the_model_is_an_error() {
    let toy = Toy::new(&ToyOptions { max_sequence: 4, vocabulary: 10, ..ToyOptions::default() })
        .expect("a small model");
    let foreign_id = JobInput::new([[3, 10]]).expect("one sequence of two tokens");
    let too_long = JobInput::new([[1, 2, 3, 4, 5]]).expect("one sequence of five tokens");
    assert!(toy.model.check_job(&foreign_id).is_err() && toy.model.check_job(&too_long).is_err());
    for (job, op) in [(foreign_id, 0), (too_long, 1)] {
        let last = job.token_count() * 16 - 1;
        let mut oracle = checked(&toy.model, &job, Adversarial { model: &toy.model, job: &job, seed: 1 });
        let refused = element(&toy.model, &job, OpPlace::in_layer(0, op), last, &mut oracle);
        assert!(matches!(refused, Err(ElementError::OutOfTensor { .. })), "{refused:?}");
        assert!(reference::run(&toy.model, &toy.weights, &job).is_err());
    }
}

fn checked<'a, O>(model: &'a ValidatedModel, job: &'a JobInput, inner: O) -> Checked<'a, O> {
    Checked { model, job, inner }
}

/// An oracle that holds nothing.
struct Nothing;

impl Oracle for Nothing {
    fn read(&mut self, tensor: TensorRef, bytes: Range<u64>, _: &mut [u8]) -> Result<(), Missing> {
        Err(Missing::new(tensor, &bytes))
    }
}

/// Values that two implementations are most likely to treat differently.
const NASTY: [u32; 16] = [
    0x0000_0000, // +0
    0x8000_0000, // −0
    0x0000_0001, // the least subnormal
    0x807f_ffff, // the greatest negative subnormal
    0x0080_0000, // the least normal
    0x7f7f_ffff, // the greatest
    0xff7f_ffff, // the least
    0x7f80_0000, // +∞
    0xff80_0000, // −∞
    0x7fc0_0000, // the stored NaN
    0xffc1_2345, // a NaN with sign and payload
    0x7f80_0001, // a signalling NaN
    0x3f80_0000, // 1
    0xbf80_0001, // just below −1
    0x42b1_7218, // near the threshold of exp
    0x1a00_0000, // 2⁻⁷⁵: its square is subnormal
];

/// Tensors full of anything: each element a function of the tensor, its index and the seed. Virtual outputs are
/// computed by `element` itself.
struct Adversarial<'a> {
    model: &'a ValidatedModel,
    job: &'a JobInput,
    seed: u64,
}

impl Adversarial<'_> {
    fn bits(&self, tensor: TensorRef, index: u64) -> u32 {
        let tensor = match tensor {
            TensorRef::Op(place) => u64::from(place.op) + 1,
            TensorRef::LayerOutput(_) => 0,
            TensorRef::Weight(index) => u64::from(index) << 32,
        };
        let mut bits = self.seed
            ^ tensor.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ index.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        for _ in 0..2 {
            bits = (bits ^ (bits >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
        }
        let choice = bits >> 32;
        // Few nasty values in most tensors: where there are many, everything is a NaN.
        let rate = [2, 8, 64, 1024][(self.seed % 4) as usize];
        if choice.is_multiple_of(rate) {
            NASTY[(choice >> 20) as usize % NASTY.len()]
        } else {
            let unit = (bits & 0xff_ffff) as f32 / 8_388_608.0 - 1.0;
            unit.to_bits()
        }
    }
}

impl Oracle for Adversarial<'_> {
    fn read(&mut self, tensor: TensorRef, bytes: Range<u64>, into: &mut [u8]) -> Result<(), Missing> {
        if let TensorRef::Op(place @ OpPlace { scope: Scope::Virtual { .. }, .. }) = tensor {
            for (element_bytes, index) in into.as_chunks_mut().0.iter_mut().zip(bytes.start / 4..) {
                *element_bytes =
                    element(self.model, self.job, place, index, self).expect("the oracle holds everything");
            }
            return Ok(());
        }
        for (byte, offset) in into.iter_mut().zip(bytes) {
            *byte = self.bits(tensor, offset / 4).to_le_bytes()[(offset % 4) as usize];
        }
        Ok(())
    }
}

fn assert_direct_is_expanded(model: &ValidatedModel, job: &JobInput, seed: u64) {
    let mut oracle = checked(model, job, Adversarial { model, job, seed });
    for (layer, op) in [(1, 3), (model.layer_count() - 1, 0)] {
        let place = OpPlace::in_layer(layer, op);
        let elements = model.op_shape(job, place).expect("the op exists").elements();
        for index in 0..elements {
            assert!(model.is_expanded(job, layer, op, index));
            let scope = Scope::Virtual { op, element: index };
            let out = model.op_count(job, layer, scope).expect("the element is expanded") - 1;
            let direct = element(model, job, place, index, &mut oracle);
            let expanded = element(model, job, OpPlace { layer, scope, op: out }, 0, &mut oracle);
            assert_eq!(direct, expanded, "{place} element {index}");
        }
    }
}
