//! Bundles judge to what happened; a bundle in which anything was changed does not judge at all.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use gainsay_commitment::{Canonical, SecretKey, Signed};
use gainsay_program::{OpPlace, TensorRef};
use gainsay_protocol::{
    BundleFault, Cause, Claim, ClaimReceipt, Closing, Entry, Equivocation, EquivocationFault, Event,
    EvidenceBundle, EvidenceEntry, Outcome, Reveals, Role, ServiceTime, SignedMove, Verdict,
    strategy::first_difference,
    toy::{
        Credentials, Fault, Fixture, GameOptions, HonestChallenger, HonestWorker, Player, Random,
        TwistedWorker, WorkerTwist, play, zoo,
    },
};

struct Keys {
    coordinator: SecretKey,
    worker: SecretKey,
    challenger: SecretKey,
}

fn keys() -> Keys {
    let [coordinator, worker, challenger] = [1, 2, 3].map(|byte| SecretKey::from_bytes(&[byte; 32]));
    Keys { coordinator, worker, challenger }
}

fn fixture(keys: &Keys, seed: u64) -> Fixture {
    let builder = zoo::small().parties(keys.worker.id(), keys.coordinator.id());
    builder.build(Fault::Flip { place: OpPlace::in_layer(1, 1), element: 40, bit: 29 }, seed)
}

fn bundle_of(keys: &Keys, fixture: &Fixture, entries: &[Entry], outcome: Outcome) -> EvidenceBundle {
    let case = fixture.case();
    let receipt =
        ClaimReceipt { claim: case.claim_id(), time: ServiceTime(900), terms: GameOptions::default().terms };
    EvidenceBundle {
        manifest: fixture.model().model().manifest().clone(),
        job: fixture.job().clone(),
        claim: Signed::sign(fixture.claim().clone(), &keys.worker),
        receipt: Signed::sign(receipt, &keys.coordinator),
        log: entries
            .iter()
            .map(|entry| EvidenceEntry {
                record: Signed::sign(entry.record, &keys.coordinator),
                signed_move: entry.signed_move.clone(),
            })
            .collect(),
        outcome,
    }
}

/// A signed game of an honest challenger against a false claim.
fn convicted(keys: &Keys, silent: bool) -> (Fixture, Vec<Entry>, Outcome) {
    let fixture = fixture(keys, 1);
    let layer = first_difference(fixture.claim(), &fixture.honest().layers()).unwrap().unwrap();
    let own = fixture.honest().layers()[layer as usize];
    let challenger = Credentials::Key(keys.challenger.clone());
    let honest =
        HonestWorker { credentials: Credentials::Key(keys.worker.clone()), trace: fixture.claimed().clone() };
    let twist = if silent { WorkerTwist::SilentAt(2) } else { WorkerTwist::SilentAt(u32::MAX) };
    let mut worker = TwistedWorker { honest, twist, asked: 0 };
    let mut other = HonestChallenger { credentials: challenger.clone(), trace: fixture.honest().clone() };
    let players = (&mut worker as &mut dyn Player, &mut other as &mut dyn Player);
    let options = GameOptions { verify: true, ..GameOptions::default() };
    let (mut reveals, mut random) = (Reveals::new(), Random::new(1));
    let game = play(&fixture, layer, own, &challenger, players, &mut reveals, &options, &mut random).unwrap();
    assert_eq!(game.outcome.verdict, Verdict::ChallengerWins);
    (fixture, game.entries, game.outcome)
}

#[test]
fn a_proven_dispute_and_a_timeout_judge_again_to_what_they_were() {
    let keys = keys();
    for silent in [false, true] {
        let (fixture, entries, outcome) = convicted(&keys, silent);
        let bundle = bundle_of(&keys, &fixture, &entries, outcome);
        let again = EvidenceBundle::from_bytes(&bundle.to_bytes()).unwrap();
        assert_eq!(again, bundle);
        let judged = again.rejudge().unwrap();
        assert_eq!((judged.outcome, judged.coordinator), (outcome, keys.coordinator.id()));
        assert_eq!(silent, matches!(outcome.cause, Cause::Timeout(Role::Worker)));
    }
}

#[test]
fn pauses_and_endings_from_outside_are_part_of_the_evidence() {
    let keys = keys();
    let (fixture, entries, _) = convicted(&keys, false);
    let case = fixture.case();
    let opening = entries[0].signed_move.clone().unwrap().authenticate().unwrap();
    let Event::Opened { terms, .. } = entries[0].record.event else { panic!() };
    let (mut dispute, mut log) =
        gainsay_protocol::Dispute::open(&case, &mut Reveals::new(), &opening, terms, entries[0].record.time)
            .unwrap();
    log.push(dispute.pause(ServiceTime(1_500)).unwrap());
    log.push(dispute.resume(ServiceTime(900_000)).unwrap());
    log.extend(dispute.close(Closing::ClaimRejected { by: None }, ServiceTime(900_100)));
    let outcome = dispute.outcome().unwrap();
    assert_eq!(outcome.verdict, Verdict::Moot);
    assert_eq!(bundle_of(&keys, &fixture, &log, outcome).rejudge().unwrap().outcome, outcome);
}

#[test]
fn every_single_change_is_found() {
    let keys = keys();
    let (fixture, entries, outcome) = convicted(&keys, false);
    let bundle = bundle_of(&keys, &fixture, &entries, outcome);
    let last = bundle.log.len() - 1;
    let broken = |change: &dyn Fn(&mut EvidenceBundle)| {
        let mut bundle = bundle.clone();
        change(&mut bundle);
        bundle.rejudge().expect_err("a changed bundle was judged")
    };
    let resign = |bundle: &mut EvidenceBundle, seq: usize| {
        bundle.log[seq].record = Signed::sign(bundle.log[seq].record.body, &keys.coordinator);
    };

    assert!(matches!(broken(&|b| b.claim.body.output[0] ^= 1), BundleFault::Claim(_)));
    assert!(matches!(broken(&|b| b.claim.signature = [9; 64].into()), BundleFault::Claim(_)));
    assert!(matches!(broken(&|b| b.manifest.name.push('x')), BundleFault::Case(_)));
    assert!(matches!(
        broken(&|b| b.receipt = Signed::sign(b.receipt.body, &keys.worker)),
        BundleFault::Receipt
    ));
    assert!(matches!(broken(&|b| b.receipt.body.time = ServiceTime(1)), BundleFault::ReceiptSignature(_)));
    assert!(matches!(
        broken(&|b| {
            b.receipt.body.time = ServiceTime(5_000);
            b.receipt = Signed::sign(b.receipt.body, &keys.coordinator);
        }),
        BundleFault::Times
    ));
    // A receipt that promised the worker more time than the dispute gave it: the timeout would be the coordinator's own.
    let promises: [fn(&mut EvidenceBundle); 2] = [
        |b| b.receipt.body.terms.worker_allowance_ms += 1,
        |b| b.receipt.body.terms.challenger_allowance_ms -= 1,
    ];
    for promise in promises {
        let fault = broken(&|b| {
            promise(b);
            b.receipt = Signed::sign(b.receipt.body, &keys.coordinator);
        });
        assert!(matches!(fault, BundleFault::Allowances), "{fault}");
    }
    assert!(matches!(broken(&|b| b.log.clear()), BundleFault::NoOpening));
    assert!(matches!(broken(&|b| drop(b.log.remove(0))), BundleFault::NoOpening));
    assert!(matches!(broken(&|b| drop(b.log.pop())), BundleFault::Outcome));
    assert!(matches!(broken(&|b| b.log.push(b.log[last].clone())), BundleFault::Outcome));
    assert!(matches!(broken(&|b| b.outcome.time = ServiceTime(1)), BundleFault::Outcome));
    for seq in 0..=last {
        assert!(matches!(
            broken(&|b| b.log[seq].record.body.time = ServiceTime(4)),
            BundleFault::Signature { .. }
        ));
        assert!(matches!(
            broken(&|b| b.log[seq].record = Signed::sign(b.log[seq].record.body, &keys.challenger)),
            BundleFault::RecordSigner { .. }
        ));
        assert!(matches!(broken(&|b| b.log[seq].signed_move = None), BundleFault::Record { .. }));
        assert!(matches!(
            broken(&|b| {
                b.log[seq].record.body.seq += 1;
                resign(b, seq);
            }),
            BundleFault::Record { .. }
        ));
    }
    // A coordinator that shifts a recorded time breaks the chain, even with its own signature.
    for seq in 1..last {
        assert!(matches!(
            broken(&|b| {
                b.log[seq].record.body.time = b.log[seq].record.body.time.plus(1);
                resign(b, seq);
            }),
            BundleFault::Record { .. } | BundleFault::Refused { .. }
        ));
    }
    let forge = |b: &mut EvidenceBundle| {
        let Some(SignedMove::Choice(signed)) = &mut b.log[last].signed_move else { panic!() };
        signed.signature = [1; 64].into();
    };
    assert!(matches!(broken(&forge), BundleFault::Signature { .. }));
}

#[test]
fn a_witness_names_op_outputs_of_the_layer_weights_and_the_layer_below_alone() {
    let keys = keys();
    let (_, entries, _) = convicted(&keys, false);
    let Some(SignedMove::Choice(signed)) = &entries.last().unwrap().signed_move else { panic!() };
    let gainsay_protocol::Action::Prove { witness, .. } = &signed.body.action else { panic!() };
    assert!(!witness.runs().is_empty());
    for chunk in witness.runs() {
        match chunk.tensor {
            TensorRef::Op(place) => assert_eq!(place.layer, 1),
            TensorRef::LayerOutput(layer) => assert_eq!(layer, 0),
            TensorRef::Weight(_) => {}
        }
    }
}

#[test]
fn two_signed_claims_for_one_lease_convict_and_nothing_less_does() {
    let keys = keys();
    let (one, other) = (fixture(&keys, 1).claim().clone(), fixture(&keys, 1).claim().clone());
    let sign = |claim: Claim| Signed::sign(claim, &keys.worker);
    let different = Claim { output: vec![1; other.output.len()], ..other.clone() };
    let evidence = Equivocation::new(sign(one.clone()), sign(different.clone()));
    assert_eq!(evidence.check(), Ok(keys.worker.id()));
    assert_eq!(Equivocation::from_bytes(&evidence.to_bytes()), Ok(evidence.clone()));
    assert_eq!(Equivocation::new(sign(different.clone()), sign(one.clone())), evidence);

    let fault = |other: Signed<Claim>| Equivocation::new(sign(one.clone()), other).check().unwrap_err();
    assert_eq!(fault(sign(one.clone())), EquivocationFault::SameClaim);
    let mut elsewhere = different.clone();
    elsewhere.lease.0[0] ^= 1;
    assert_eq!(fault(sign(elsewhere)), EquivocationFault::DifferentLeases);
    let mut other_job = different.clone();
    other_job.job.0[0] ^= 1;
    let other_input = Claim { input: [7; 32].into(), ..different.clone() };
    for other in [other_job, other_input] {
        assert_eq!(
            fault(sign(other)),
            EquivocationFault::DifferentJobs,
            "a lease given twice convicts nobody"
        );
    }
    let by_other = Claim { worker: keys.challenger.id(), ..different.clone() };
    assert_eq!(fault(Signed::sign(by_other, &keys.challenger)), EquivocationFault::DifferentWorkers);
    assert_eq!(fault(Signed::sign(different.clone(), &keys.challenger)), EquivocationFault::Signer);
    let forged = Signed { signature: [3; 64].into(), ..sign(different) };
    assert!(matches!(fault(forged), EquivocationFault::Signature(_)));
}
