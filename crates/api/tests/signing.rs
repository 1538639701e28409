//! A signature is worth something for the request that it was made for, and for nothing else.

use gainsay_api::parties::{Enlist, EnlistError, EnlistedRole, Enlistment};
use gainsay_api::signing::{
    NONCE_HEADER, Nonce, PARTY_HEADER, RequestToSign, SIGNATURE_HEADER, SignedHeaders, SigningError,
    TIME_HEADER, WINDOW_MS, body_hash,
};
use gainsay_commitment::signature::SecretKey;
use gainsay_commitment::{Canonical, PartyId};
use std::collections::HashMap;

const NOW: i64 = 1_000_000;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32])
}

fn coordinator() -> PartyId {
    key(1).id()
}

fn request() -> RequestToSign {
    RequestToSign {
        coordinator: coordinator(),
        method: "POST".into(),
        path: "/v1/leases?wait_ms=10".into(),
        body: body_hash(b"{}"),
        time_ms: NOW,
        nonce: Nonce([7; 16]),
    }
}

fn headers() -> HashMap<&'static str, String> {
    SignedHeaders::sign(request(), &key(2)).to_pairs().into()
}

fn parse(headers: &HashMap<&'static str, String>) -> Result<SignedHeaders, SigningError> {
    SignedHeaders::parse(|name| headers.get(name).map(String::as_str))
}

fn verify(headers: &SignedHeaders) -> Result<(), SigningError> {
    headers.verify(coordinator(), "POST", "/v1/leases?wait_ms=10", body_hash(b"{}"), NOW)
}

#[test]
fn a_signed_request_verifies_and_names_its_signer() {
    let parsed = parse(&headers()).unwrap();
    assert_eq!(parsed.party, key(2).id());
    assert_eq!(verify(&parsed), Ok(()));
}

#[test]
fn the_bytes_under_a_request_signature_stay_what_they_are() {
    let expected = [
        &[1_u8][..],
        coordinator().as_bytes(),
        &[4, 0, 0, 0],
        b"POST",
        &[21, 0, 0, 0],
        b"/v1/leases?wait_ms=10",
        &body_hash(b"{}"),
        &NOW.to_le_bytes(),
        &[7; 16],
    ]
    .concat();
    assert_eq!(request().to_bytes(), expected);
    assert_eq!(RequestToSign::from_bytes(&expected), Ok(request()));
}

#[test]
fn a_request_that_was_changed_in_any_part_is_refused() {
    let signed = parse(&headers()).unwrap();
    let (method, path, body) = ("POST", "/v1/leases?wait_ms=10", body_hash(b"{}"));
    let refused = Err(SigningError::Signature);
    assert_eq!(signed.verify(key(3).id(), method, path, body, NOW), refused, "another coordinator");
    assert_eq!(signed.verify(coordinator(), "PUT", path, body, NOW), refused);
    assert_eq!(signed.verify(coordinator(), method, "/v1/leases?wait_ms=11", body, NOW), refused);
    assert_eq!(signed.verify(coordinator(), method, "/v1/leases", body, NOW), refused);
    assert_eq!(signed.verify(coordinator(), method, path, body_hash(b"{ }"), NOW), refused);
    let later = SignedHeaders { time_ms: NOW + 1, ..signed.clone() };
    assert_eq!(verify(&later), refused);
    let again = SignedHeaders { nonce: Nonce([8; 16]), ..signed.clone() };
    assert_eq!(verify(&again), refused);
    let stolen = SignedHeaders { party: key(3).id(), ..signed };
    assert_eq!(verify(&stolen), refused);
}

#[test]
fn a_request_is_good_within_the_window_and_not_beyond() {
    let signed = parse(&headers()).unwrap();
    let at = |now| signed.verify(coordinator(), "POST", "/v1/leases?wait_ms=10", body_hash(b"{}"), now);
    assert_eq!(at(NOW + WINDOW_MS), Ok(()));
    assert_eq!(at(NOW - WINDOW_MS), Ok(()));
    assert!(matches!(at(NOW + WINDOW_MS + 1), Err(SigningError::Stale { .. })));
    assert!(matches!(at(NOW - WINDOW_MS - 1), Err(SigningError::Stale { .. })));
    assert!(matches!(at(i64::MIN), Err(SigningError::Stale { .. })));
}

#[test]
fn each_header_must_be_there_in_its_form() {
    assert_eq!(parse(&HashMap::new()), Err(SigningError::Missing));
    for name in [PARTY_HEADER, TIME_HEADER, NONCE_HEADER, SIGNATURE_HEADER] {
        let mut without = headers();
        without.remove(name);
        let mut broken = headers();
        broken.insert(name, "zz".into());
        for headers in [without, broken] {
            assert!(
                matches!(parse(&headers), Err(SigningError::Malformed { header, .. }) if header == name),
                "{name}"
            );
        }
    }
}

#[test]
fn a_key_is_enlisted_only_by_itself_for_what_it_says() {
    let statement = Enlistment { coordinator: coordinator(), owner: key(2).id(), role: EnlistedRole::Worker };
    let request = Enlist::new("w", None, statement.clone(), &key(4));
    assert_eq!(request.verify(&statement), Ok(key(4).id()));
    let others = [
        Enlistment { coordinator: key(9).id(), ..statement.clone() },
        Enlistment { owner: key(9).id(), ..statement.clone() },
        Enlistment { role: EnlistedRole::Challenger, ..statement.clone() },
    ];
    for other in others {
        assert_eq!(request.verify(&other), Err(EnlistError::Mismatch));
    }
    let mut forged = request.clone();
    // The signer's key lies before the 64 bytes of the signature.
    let at = forged.enlistment.0.len() - 96;
    forged.enlistment.0[at..at + 32].copy_from_slice(key(5).id().as_bytes());
    assert_eq!(forged.verify(&statement), Err(EnlistError::Signature));
    let mut cut = request;
    cut.enlistment.0.pop();
    assert_eq!(cut.verify(&statement), Err(EnlistError::Malformed));
}
