//! The referee decides on exactly the bytes that an element depends on, opened against commitments on record.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use gainsay_commitment::TensorCommitment;
use gainsay_program::{OpPlace, Scope, TensorRef};
use gainsay_protocol::{
    TraceSource, Verdict, Witness, WitnessFault, WitnessRun, judge,
    referee::Commitments,
    strategy::build_witness,
    toy::{Fault, Fixture, ToyRun, zoo},
};

fn fixture() -> Fixture {
    zoo::wide().build(Fault::None, 1)
}

fn ops(fixture: &Fixture, run: &mut ToyRun, layer: u32, scope: Scope) -> Vec<TensorCommitment> {
    let case = fixture.case();
    let count = case.model().op_count(case.input(), layer, scope).unwrap();
    let output = |op| run.tensor(TensorRef::Op(OpPlace { layer, scope, op })).unwrap().commitment();
    (0..count).map(output).collect()
}

/// Every element tried here, of every op kind: first and last, inside and outside virtual layers.
fn for_every_op(mut check: impl FnMut(&Commitments<'_>, OpPlace, u64, [u8; 4], Witness, &mut ToyRun)) {
    let fixture = fixture();
    let (case, mut run) = (fixture.case(), fixture.honest().clone());
    for layer in 0..case.model().layer_count() {
        let layer_ops = ops(&fixture, &mut run, layer, Scope::Layer);
        let commitments = Commitments::of_layer(case.clone(), layer, &layer_ops);
        for op in 0..layer_ops.len() as u32 {
            let place = OpPlace::in_layer(layer, op);
            let elements = case.model().op_shape(case.input(), place).unwrap().elements();
            for element in [0, elements - 1] {
                if !case.model().is_expanded(case.input(), layer, op, element) {
                    let (value, witness) = build_witness(&case, &mut run, place, element).unwrap();
                    check(&commitments, place, element, value, witness, &mut run);
                    continue;
                }
                let scope = Scope::Virtual { op, element };
                let inner = ops(&fixture, &mut run, layer, scope);
                let commitments = commitments.clone().with_virtual(scope, &inner);
                for op in 0..inner.len() as u32 {
                    let place = OpPlace { layer, scope, op };
                    let (value, witness) = build_witness(&case, &mut run, place, 0).unwrap();
                    check(&commitments, place, 0, value, witness, &mut run);
                }
            }
        }
    }
}

#[test]
fn the_right_bytes_confirm_the_claim_and_any_other_bytes_convict_it() {
    for_every_op(|commitments, place, element, value, witness, _| {
        let judged = judge(commitments, place, element, value, &witness).unwrap();
        assert_eq!((judged.recomputed, judged.verdict), (value, Verdict::WorkerWins), "{place}");
        for bit in [0, 31] {
            let claimed = (u32::from_le_bytes(value) ^ 1 << bit).to_le_bytes();
            let judged = judge(commitments, place, element, claimed, &witness).unwrap();
            assert_eq!((judged.recomputed, judged.verdict), (value, Verdict::ChallengerWins), "{place}");
        }
    });
}

#[test]
fn a_witness_that_lacks_any_one_chunk_decides_nothing() {
    for_every_op(|commitments, place, element, value, witness, _| {
        for index in 0..witness.runs().len() {
            let mut chunks = witness.runs().to_vec();
            chunks.remove(index);
            let fault =
                judge(commitments, place, element, value, &Witness::new(chunks).unwrap()).unwrap_err();
            assert!(matches!(fault, WitnessFault::Missing(_)), "{place}: {fault}");
        }
    });
}

#[test]
fn a_witness_with_a_chunk_too_many_decides_nothing() {
    for_every_op(|commitments, place, element, value, witness, run| {
        // A weight that opens well, but that this element does not read.
        let spare = (0..).find_map(|index| {
            let tensor = TensorRef::Weight(index);
            let used = witness.runs().iter().any(|chunk| chunk.tensor == tensor);
            let data = run.tensor(tensor).ok()?;
            let opening = data.tree.open(&data.bytes, 0)?;
            (!used).then_some(WitnessRun { tensor, opening })
        });
        let mut chunks = witness.runs().to_vec();
        chunks.push(spare.unwrap());
        chunks.sort_by_key(|chunk| (chunk.tensor, chunk.opening.chunk));
        let fault = judge(commitments, place, element, value, &Witness::new(chunks).unwrap()).unwrap_err();
        assert!(matches!(fault, WitnessFault::Unneeded { .. }), "{place}: {fault}");
    });
}

#[test]
fn forged_bytes_paths_chunks_and_tensors_do_not_open() {
    for_every_op(|commitments, place, element, value, witness, _| {
        let forge = |change: &dyn Fn(&mut WitnessRun)| {
            let mut chunks = witness.runs().to_vec();
            change(&mut chunks[0]);
            chunks.sort_by_key(|chunk| (chunk.tensor, chunk.opening.chunk));
            let Ok(witness) = Witness::new(chunks) else { return };
            let fault = judge(commitments, place, element, value, &witness).unwrap_err();
            let opening = matches!(fault, WitnessFault::Opening { .. } | WitnessFault::UnknownTensor(_));
            assert!(opening, "{place}: {fault}");
        };
        forge(&|chunk| chunk.opening.bytes[0] ^= 1);
        forge(&|chunk| chunk.opening.bytes.truncate(3));
        forge(&|chunk| chunk.opening.bytes.clear());
        forge(&|chunk| chunk.opening.path.push([0; 32].into()));
        forge(&|chunk| chunk.opening.chunk = u64::MAX);
        forge(&|chunk| chunk.opening.chunk += 1 << 20);
        forge(&|chunk| chunk.tensor = TensorRef::Weight(u32::MAX));
        forge(&|chunk| chunk.tensor = TensorRef::LayerOutput(place.layer));
        forge(&|chunk| chunk.tensor = TensorRef::LayerOutput(u32::MAX));
        forge(&|chunk| chunk.tensor = TensorRef::Op(OpPlace { layer: place.layer + 1, ..place }));
        let elsewhere = Scope::Virtual { op: 3, element: 1 };
        forge(&|chunk| chunk.tensor = TensorRef::Op(OpPlace { scope: elsewhere, ..place }));
    });
}

#[test]
fn an_element_or_op_that_does_not_exist_decides_nothing() {
    let fixture = fixture();
    let mut run = fixture.honest().clone();
    let layer_ops = ops(&fixture, &mut run, 1, Scope::Layer);
    let commitments = Commitments::of_layer(fixture.case(), 1, &layer_ops);
    let nothing = Witness::default();
    for (place, element) in [
        (OpPlace::in_layer(1, 0), u64::MAX),
        (OpPlace::in_layer(1, u32::MAX), 0),
        (OpPlace::in_layer(u32::MAX, 0), 0),
        (OpPlace { layer: 1, scope: Scope::Virtual { op: 0, element: 0 }, op: 0 }, 0),
    ] {
        let fault = judge(&commitments, place, element, [0; 4], &nothing).unwrap_err();
        assert_eq!(fault, WitnessFault::NoSuchElement { place, element });
    }
}

#[test]
fn commitments_of_another_virtual_layer_or_of_later_layers_are_not_on_record() {
    let fixture = fixture();
    let mut run = fixture.honest().clone();
    let layer_ops = ops(&fixture, &mut run, 1, Scope::Layer);
    let commitments = Commitments::of_layer(fixture.case(), 1, &layer_ops);
    let scope = Scope::Virtual { op: 3, element: 0 };
    let virtual_op = TensorRef::Op(OpPlace { layer: 1, scope, op: 0 });
    assert!(commitments.find(virtual_op).is_none());
    let inner = ops(&fixture, &mut run, 1, scope);
    assert!(commitments.clone().with_virtual(scope, &inner).find(virtual_op).is_some());
    assert!(commitments.find(TensorRef::LayerOutput(0)).is_some());
    assert!(commitments.find(TensorRef::LayerOutput(1)).is_none(), "a layer may not read itself");
    assert!(commitments.find(TensorRef::Op(OpPlace::in_layer(0, 0))).is_none());
}
