//! A signature binds one author to one message of one type.

use crate::sample::{Sample, samples};
use gainsay_commitment::{PartyId, SecretKey, Signature, SignatureError, Signed};
use proptest::prelude::*;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_signed_message_survives_its_encoding(sample in samples(), seed in any::<[u8; 32]>()) {
        let signed = Signed::sign(sample, &SecretKey::from_bytes(&seed));
        let bytes = signed.to_bytes();
        let decoded = Signed::<Sample>::from_bytes(&bytes).expect("own encoding decodes");
        prop_assert_eq!(decoded.verify(), Ok(()));
        prop_assert_eq!(decoded.to_bytes(), bytes);
    }

    #[test]
    fn any_flipped_bit_breaks_encoding_or_signature(sample in samples(), flips in prop::collection::vec(any::<prop::sample::Index>(), 24)) {
        let bytes = Signed::sign(sample, &key(3)).to_bytes();
        for flip in flips {
            let bit = flip.index(bytes.len() * 8);
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let accepted = Signed::<Sample>::from_bytes(&flipped).is_ok_and(|signed| signed.verify().is_ok());
            prop_assert!(!accepted, "accepted with bit {} flipped", bit);
        }
    }

    #[test]
    fn truncated_and_extended_messages_are_refused(sample in samples()) {
        let bytes = Signed::sign(sample, &key(3)).to_bytes();
        for length in 0..bytes.len() {
            prop_assert!(Signed::<Sample>::from_bytes(&bytes[..length]).is_err());
        }
        prop_assert!(Signed::<Sample>::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn arbitrary_keys_and_signatures_never_panic(signer in any::<[u8; 32]>(), signature in any::<[[u8; 32]; 2]>()) {
        let signature = Signature::try_from(signature.as_flattened()).expect("64 bytes");
        prop_assert!(signature.verify(&PartyId::from_bytes(signer), &[0; 32]).is_err());
    }
}

#[test]
fn another_author_or_message_is_a_mismatch() {
    let signature = key(1).sign_digest(&[9; 32]);
    assert_eq!(signature.verify(&key(1).id(), &[9; 32]), Ok(()));
    assert_eq!(signature.verify(&key(2).id(), &[9; 32]), Err(SignatureError::Mismatch(key(2).id())));
    assert_eq!(signature.verify(&key(1).id(), &[8; 32]), Err(SignatureError::Mismatch(key(1).id())));
}

#[test]
fn a_scalar_past_the_group_order_is_not_a_second_signature() {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut bytes = key(1).sign_digest(&[9; 32]).to_bytes();
    let mut carry = 0u16;
    for (byte, order) in bytes[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = carry as u8;
        carry >>= 8;
    }
    assert!(Signature::from_bytes(bytes).verify(&key(1).id(), &[9; 32]).is_err());
}

#[test]
fn keys_of_small_order_and_second_forms_of_a_point_are_refused() {
    let mut identity = [0; 32];
    identity[0] = 1;
    // The field's modulus plus one encodes the identity's coordinate a second time, plus three another point.
    let mut modulus = [0xff; 32];
    modulus[31] = 0x7f;
    let past_modulus = |excess: u8| {
        let mut bytes = modulus;
        bytes[0] = 0xed + excess;
        bytes
    };
    for bytes in [[0; 32], identity, past_modulus(1), past_modulus(3), [0xff; 32]] {
        let id = PartyId::from_bytes(bytes);
        assert_eq!(id.validate(), Err(SignatureError::Key(id)));
        // With the identity as key and as nonce, a zero scalar satisfies the plain verification equation.
        let mut forged = [0; 64];
        forged[0] = 1;
        assert!(Signature::from_bytes(forged).verify(&id, &[0; 32]).is_err());
    }
    assert_eq!(key(1).id().validate(), Ok(()));
}

#[test]
fn secret_keys_are_fresh_and_do_not_print() {
    let (a, b) = (SecretKey::generate(), SecretKey::generate());
    assert_ne!(a.id(), b.id());
    let seed: String = a.expose().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!format!("{a:?}").contains(&seed));
    assert_eq!(seed.parse::<SecretKey>().expect("64 digits").id(), a.id());
}
