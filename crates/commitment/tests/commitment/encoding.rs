//! A message has one encoding, and nothing but that encoding decodes.

use crate::sample::{BODY_LIMIT, Sample, samples};
use gainsay_commitment::{
    Canonical, ClaimId, DecodeError, Decoder, Encoder, ModelId, NodeAddress, Opening, Signature,
};
use proptest::prelude::*;

/// Whatever decodes must be the encoding of what it decodes to.
fn refused_or_canonical(bytes: &[u8]) {
    if let Ok(value) = Sample::from_bytes(bytes) {
        assert_eq!(value.to_bytes(), bytes, "two encodings of one message");
    }
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself(sample in samples()) {
        let bytes = sample.to_bytes();
        let decoded = Sample::from_bytes(&bytes).expect("own encoding decodes");
        prop_assert_eq!(decoded.to_bytes(), bytes);
        prop_assert_eq!(decoded.digest(), sample.digest());
        prop_assert_eq!(decoded.weight.to_bits(), sample.weight.to_bits());
    }

    #[test]
    fn every_truncation_and_extension_is_refused(sample in samples(), extra in prop::collection::vec(any::<u8>(), 1..40)) {
        let bytes = sample.to_bytes();
        for length in 0..bytes.len() {
            prop_assert!(Sample::from_bytes(&bytes[..length]).is_err(), "decoded from its first {} bytes", length);
        }
        let extended = [&bytes[..], &extra].concat();
        prop_assert_eq!(Sample::from_bytes(&extended).err(), Some(DecodeError::Trailing { count: extra.len() as u64 }));
    }

    #[test]
    fn every_flipped_bit_makes_another_message_or_none(sample in samples()) {
        let bytes = sample.to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Sample::from_bytes(&flipped) {
                prop_assert_eq!(&other.to_bytes(), &flipped);
                prop_assert_ne!(other.digest(), sample.digest());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        refused_or_canonical(&bytes);
        refused_or_canonical(&[&[1], &bytes[..]].concat());
        let mut decoder = Decoder::new(&bytes);
        while decoder.remaining() > 0 && Opening::decode(&mut decoder).is_ok() {}
    }

    #[test]
    fn openings_and_addresses_round_trip(
        chunk in any::<u64>(),
        bytes in prop::collection::vec(any::<u8>(), 0..=1024),
        path in prop::collection::vec(any::<[u8; 32]>().prop_map(Into::into), 0..=54),
        height in any::<u8>(),
    ) {
        let opening = Opening { chunk, bytes, path };
        let address = NodeAddress { height, index: chunk };
        let mut encoder = Encoder::new();
        opening.encode(&mut encoder);
        address.encode(&mut encoder);
        let bytes = encoder.into_bytes();
        let mut decoder = Decoder::new(&bytes);
        prop_assert_eq!(Opening::decode(&mut decoder), Ok(opening));
        prop_assert_eq!(NodeAddress::decode(&mut decoder), Ok(address));
        prop_assert_eq!(decoder.finish(), Ok(()));
    }
}

#[test]
fn a_count_beyond_the_input_is_refused_before_anything_is_allocated() {
    let mut decoder = Decoder::new(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
    let refused = decoder.clone().bytes(usize::MAX);
    assert_eq!(refused, Err(DecodeError::Truncated { needed: u64::from(u32::MAX), remaining: 3 }));
    let refused = decoder.list(usize::MAX, |_| -> Result<[u64; 1000], _> { panic!("no item may be read") });
    assert_eq!(refused, Err(DecodeError::Truncated { needed: u64::from(u32::MAX), remaining: 3 }));
}

#[test]
fn a_length_beyond_the_limit_is_refused_though_the_bytes_are_there() {
    let mut encoder = Encoder::new();
    encoder.bytes(&[7; BODY_LIMIT + 1]);
    let bytes = encoder.into_bytes();
    let too_long = DecodeError::TooLong { length: BODY_LIMIT as u64 + 1, limit: BODY_LIMIT as u64 };
    assert_eq!(Decoder::new(&bytes).bytes(BODY_LIMIT), Err(too_long.clone()));
    assert_eq!(Decoder::new(&bytes).str(BODY_LIMIT), Err(too_long.clone()));
    assert_eq!(Decoder::new(&bytes).list(BODY_LIMIT, Decoder::u8), Err(too_long));
    assert_eq!(Decoder::new(&bytes).bytes(BODY_LIMIT + 1), Ok(vec![7; BODY_LIMIT + 1]));
}

#[test]
fn a_truth_value_is_zero_or_one_and_a_text_is_utf8() {
    assert_eq!(Decoder::new(&[2]).bool(), Err(DecodeError::UnknownTag { what: "truth value", tag: 2 }));
    assert!(Decoder::new(&[2, 9]).option(Decoder::u8).is_err());
    assert_eq!(Decoder::new(&[2, 0, 0, 0, 0xc3, 0x28]).str(9), Err(DecodeError::NotUtf8));
}

/// Decodes more than it encodes, as a careless `decode_fields` would.
struct Careless;

impl Canonical for Careless {
    const CONTEXT: &'static str = "gainsay v1 test careless";
    const VERSION: u8 = 7;

    fn encode_fields(&self, encoder: &mut Encoder) {
        encoder.u8(0);
    }

    fn decode_fields(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        decoder.u8().map(|_| Self)
    }
}

#[test]
fn a_tolerant_type_still_has_one_encoding() {
    assert!(Careless::from_bytes(&[7, 0]).is_ok());
    assert_eq!(Careless::from_bytes(&[7, 1]).err(), Some(DecodeError::NotCanonical));
    assert_eq!(Careless::from_bytes(&[1, 0]).err(), Some(DecodeError::Version { expected: 7, found: 1 }));
}

/// The same fields as [`Careless`] under another context.
struct Neighbour;

impl Canonical for Neighbour {
    const CONTEXT: &'static str = "gainsay v1 test neighbour";
    const VERSION: u8 = 7;

    fn encode_fields(&self, encoder: &mut Encoder) {
        encoder.u8(0);
    }

    fn decode_fields(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        decoder.u8().map(|_| Self)
    }
}

#[test]
fn equal_bytes_of_different_types_have_different_digests() {
    assert_eq!(Careless.to_bytes(), Neighbour.to_bytes());
    assert_ne!(Careless.digest(), Neighbour.digest());
}

#[test]
fn a_hash_has_one_text_form() {
    let text = "00ff".repeat(16);
    let id: ClaimId = text.parse().expect("64 lower-case digits");
    assert_eq!(id.to_string(), text);
    assert_eq!(format!("{id:.8}"), "00ff00ff");
    assert_eq!(format!("{id:?}"), format!("ClaimId({text})"));
    assert_eq!(serde_json::to_string(&id).expect("a string"), format!("\"{text}\""));
    assert_eq!(serde_json::from_str::<ClaimId>(&format!("\"{text}\"")).expect("a hash"), id);

    let refused = [
        text.to_uppercase(),
        text[1..].to_owned(),
        format!("{text}0"),
        format!("0x{}", &text[2..]),
        "é".repeat(32),
        String::new(),
    ];
    for text in refused {
        assert!(text.parse::<ModelId>().is_err(), "parsed {text:?}");
        assert!(serde_json::from_value::<ModelId>(text.clone().into()).is_err(), "deserialized {text:?}");
        assert!(text.parse::<Signature>().is_err(), "parsed {text:?} as a signature");
    }
    assert!(serde_json::from_str::<ModelId>("[0]").is_err());
}
