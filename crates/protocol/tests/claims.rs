//! What is checked of a claim without executing anything.

use gainsay_commitment::{SecretKey, Signed, trace_root};
use gainsay_program::{ArithmeticProfile, JobInput};
use gainsay_protocol::{
    Case, CaseMismatch, Claim, ClaimFault, Job, LeaseTerms,
    toy::{Fault, Fixture, zoo},
};

fn fixture() -> (SecretKey, Fixture) {
    let key = SecretKey::from_bytes(&[5; 32]);
    let builder = zoo::small().parties(key.id(), SecretKey::from_bytes(&[6; 32]).id());
    (key, builder.build(Fault::None, 1))
}

fn check(fixture: &Fixture, claim: &Claim) -> Result<(), ClaimFault> {
    claim.check(fixture.model().model(), fixture.job(), fixture.lease())
}

#[test]
fn an_honest_claim_passes_and_every_wrong_field_has_its_fault() {
    let (_, fixture) = fixture();
    let claim = fixture.claim();
    assert_eq!(check(&fixture, claim), Ok(()));
    let fault = |change: &dyn Fn(&mut Claim)| {
        let mut claim = claim.clone();
        change(&mut claim);
        check(&fixture, &claim).unwrap_err()
    };
    let flipped = |bytes: [u8; 32]| {
        let mut bytes = bytes;
        bytes[0] ^= 1;
        bytes
    };
    assert_eq!(fault(&|c| c.coordinator = flipped(c.coordinator.to_bytes()).into()), ClaimFault::Coordinator);
    assert_eq!(fault(&|c| c.job.0[3] ^= 1), ClaimFault::Job);
    assert_eq!(fault(&|c| c.lease.0[3] ^= 1), ClaimFault::Lease);
    assert_eq!(fault(&|c| c.worker = flipped(c.worker.to_bytes()).into()), ClaimFault::Worker);
    assert_eq!(fault(&|c| c.model = flipped(c.model.to_bytes()).into()), ClaimFault::Model);
    assert_eq!(fault(&|c| c.arithmetic = ArithmeticProfile::ExactInt8V1), ClaimFault::Arithmetic);
    assert_eq!(fault(&|c| c.input = flipped(c.input.to_bytes()).into()), ClaimFault::Input);
    assert_eq!(fault(&|c| c.trace = flipped(c.trace.to_bytes()).into()), ClaimFault::TraceRoot);
    assert_eq!(fault(&|c| c.output[0] ^= 1), ClaimFault::OutputHash);
    assert_eq!(fault(&|c| c.output.truncate(127)), ClaimFault::OutputLength { expected: 128, found: 127 });
    assert_eq!(fault(&|c| c.output.clear()), ClaimFault::OutputLength { expected: 128, found: 0 });
}

#[test]
fn a_skipped_repeated_or_appended_layer_commitment_is_found_even_under_a_right_root() {
    let (_, fixture) = fixture();
    let expected = fixture.claim().layers.len();
    let with = |layers: Vec<_>| {
        let trace = trace_root(&layers).unwrap_or(fixture.claim().trace);
        check(&fixture, &Claim { layers, trace, ..fixture.claim().clone() })
    };
    let layers = &fixture.claim().layers;
    let count = |found| Err(ClaimFault::LayerCount { expected, found });
    assert_eq!(with(layers[1..].to_vec()), count(expected - 1));
    assert_eq!(with([layers.as_slice(), &layers[..1]].concat()), count(expected + 1));
    assert_eq!(with(Vec::new()), count(0));
    let mut swapped = layers.clone();
    swapped.swap(0, expected - 1);
    assert_eq!(with(swapped), Err(ClaimFault::OutputHash));
    let reordered =
        Claim { layers: [&layers[..1], &layers[..1], &layers[2..]].concat(), ..fixture.claim().clone() };
    assert_eq!(check(&fixture, &reordered), Err(ClaimFault::TraceRoot));
}

#[test]
fn a_claim_counts_only_with_its_workers_signature() {
    let (key, fixture) = fixture();
    let (model, job, lease) = (fixture.model().model(), fixture.job(), fixture.lease());
    let check = |signed: &Signed<Claim>| Claim::check_signed(signed, model, job, lease);
    let signed = Signed::sign(fixture.claim().clone(), &key);
    assert_eq!(check(&signed), Ok(()));
    let other = Signed::sign(fixture.claim().clone(), &SecretKey::from_bytes(&[9; 32]));
    assert_eq!(check(&other), Err(ClaimFault::Signer));
    let forged = Signed { signature: [0; 64].into(), ..signed };
    assert!(matches!(check(&forged), Err(ClaimFault::Signature(_))));
}

#[test]
fn a_claim_cannot_be_moved_to_another_job_lease_or_model() {
    let (_, fixture) = fixture();
    let (model, job, lease) = (fixture.model().model(), fixture.job(), fixture.lease());
    let other_lease = LeaseTerms { lease: gainsay_protocol::LeaseId([0; 16]), ..*lease };
    assert_eq!(fixture.claim().check(model, job, &other_lease), Err(ClaimFault::Lease));
    // The same tokens, cut into other sequences, are another job.
    let tokens = job.embedding_input().unwrap().token_ids().to_vec();
    let input = JobInput::from_parts(tokens.clone(), vec![0, 4, tokens.len() as u32]).unwrap();
    let recut = Job::embedding(job.model, input);
    assert_ne!(recut.commitment(), job.commitment());
    assert_eq!(fixture.claim().check(model, &recut, lease), Err(ClaimFault::Input));
    assert!(Case::new(model, job, fixture.claim()).is_ok());
    assert_eq!(Case::new(model, &recut, fixture.claim()).unwrap_err(), CaseMismatch);
    let other_model = zoo::tiny().build(Fault::None, 1);
    assert_eq!(Case::new(other_model.model().model(), job, fixture.claim()).unwrap_err(), CaseMismatch);
}
