//! A flipped bit anywhere in all-MiniLM-L6-v2 is convicted wherever it changed a layer, by a witness that is not large.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/sweep.rs"]
mod sweep;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use gainsay_participant::models::LoadedModel;
use gainsay_program::{ActivationBits, ArithmeticProfile};
use sweep::{MAX_WITNESS_BYTES, Report, Sweep};

fn model() -> LoadedModel {
    static MODEL: OnceLock<LoadedModel> = OnceLock::new();
    MODEL.get_or_init(|| load(ArithmeticProfile::ExactF32V1, ActivationBits::Eight)).clone()
}

fn load(arithmetic: ArithmeticProfile, activations: ActivationBits) -> LoadedModel {
    sweep::minilm(arithmetic, activations).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Nothing was broken, and every kind of op had flips that counted.
fn check(report: &Report) {
    print!("{report}");
    assert!(report.broken.is_empty(), "{report}");
    for (kind, tally) in &report.kinds {
        assert_eq!(tally.absorbed + tally.convicted, tally.games, "{kind}");
        assert!(tally.convicted > 0, "no flip in {kind} changed anything:\n{report}");
        assert!(tally.max_witness_bytes <= MAX_WITNESS_BYTES, "{kind}:\n{report}");
    }
}

/// No element that a dispute can end at, virtual ones among them, needs a large witness.
fn check_witnesses(sweep: &mut Sweep) {
    let rehearsal = sweep.rehearse().unwrap();
    println!("{rehearsal:?}");
    assert!(rehearsal.max_witness_bytes <= MAX_WITNESS_BYTES, "{rehearsal:?}");
}

fn kinds(report: &Report) -> BTreeSet<&str> {
    report.kinds.keys().map(|kind| kind.split(',').next().unwrap()).collect()
}

#[test]
fn every_op_of_every_layer_at_128_tokens() {
    let mut sweep = Sweep::new(model(), 128).unwrap();
    let flips = sweep.everywhere();
    let report = sweep.play_all(&flips);
    check(&report);
    check_witnesses(&mut sweep);
    let every_kind = ["add", "attention", "gather", "gelu", "layer_norm", "linear", "mean_pool", "normalize"];
    assert_eq!(kinds(&report), BTreeSet::from(every_kind));
}

#[test]
fn expanded_ops_and_one_of_each_kind_at_512_tokens() {
    let mut sweep = Sweep::new(model(), 512).unwrap();
    let flips = sweep.expanded_and_one_of_each_kind();
    let report = sweep.play_all(&flips);
    check(&report);
    check_witnesses(&mut sweep);
    let expanded = ["attention, expanded", "mean_pool, expanded"];
    assert!(expanded.iter().all(|kind| report.kinds.contains_key(*kind)), "{report}");
}

/// In int8 all that the referee reads has other sizes: levels, scales by groups, and two digits where activations have
/// 16 bits.
#[test]
fn one_of_each_kind_in_int8_at_100_tokens() {
    for activations in [ActivationBits::Eight, ActivationBits::Sixteen] {
        let model = load(ArithmeticProfile::ExactInt8V1, activations);
        let mut sweep = Sweep::new(model, 100).unwrap();
        let flips = sweep.expanded_and_one_of_each_kind();
        let report = sweep.play_all(&flips);
        check(&report);
        check_witnesses(&mut sweep);
        assert!(report.kinds.contains_key("linear_int8"), "{report}");
    }
}
