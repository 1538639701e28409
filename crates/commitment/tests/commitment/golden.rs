//! The bytes that an independent implementation wrote (`../vectors/golden.py`): they are the wire format.

use crate::sample::Sample;
use gainsay_commitment::tensor::tensor_commitment;
use gainsay_commitment::{
    Canonical, ChainingValue, NodeAddress, NodeHash, PartyId, SecretKey, Signature, Signed, TensorCommitment,
    TensorTree,
};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("../vectors/golden.json")).expect("the vectors are JSON")
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().expect("the field is a string")
}

#[test]
fn encodings_digests_and_signatures() {
    let golden = golden();
    let messages = golden["messages"].as_array().expect("a list");
    assert_eq!(messages.len(), 3);
    for message in messages {
        let bytes = hex::decode(text(message, "encoding")).expect("hex");
        let sample = Sample::from_bytes(&bytes).expect("the encoding is canonical");
        assert_eq!(sample.to_bytes(), bytes);
        assert_eq!(hex::encode(sample.digest()), text(message, "digest"));

        let key: SecretKey = text(message, "seed").parse().expect("a seed");
        let signer: PartyId = text(message, "signer").parse().expect("a key");
        let signature: Signature = text(message, "signature").parse().expect("a signature");
        let signed = Signed::sign(sample, &key);
        assert_eq!((signed.signer, signed.signature), (signer, signature));
        assert_eq!(signed.verify(), Ok(()));
        assert_eq!(signed.to_bytes(), [&bytes, &signer.as_bytes()[..], signature.as_bytes()].concat());
    }
}

#[test]
fn the_middle_message_is_what_its_fields_say() {
    let golden = golden();
    let bytes = hex::decode(text(&golden["messages"][1], "encoding")).expect("hex");
    let sample = Sample::from_bytes(&bytes).expect("canonical");
    assert_eq!((sample.tag, sample.flag, sample.small, sample.count), (1, true, 0x1234, 0x89ab_cdef));
    assert_eq!(
        (sample.balance, sample.total, sample.weight.to_bits()),
        (-1, 0x89ab_cdef * 0x89ab_cdef, 0x8000_0000)
    );
    assert_eq!(
        (sample.note.as_str(), &sample.body[..], &sample.ids[..]),
        ("naïve ∑", &[0, 255][..], &[1, u32::MAX][..])
    );
    assert_eq!(sample.parent.map(|parent| parent.to_bytes()), Some([7; 32]));
}

#[test]
fn trees() {
    let golden = golden();
    let trees = golden["trees"].as_array().expect("a list");
    assert_eq!(trees.len(), 15);
    for case in trees {
        let length = case["bytes"].as_u64().expect("a length");
        let tensor: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let commitment: TensorCommitment = text(case, "commitment").parse().expect("a hash");
        let tree = TensorTree::new(&tensor);
        assert_eq!(
            (tensor_commitment(&tensor), tree.commitment()),
            (commitment, commitment),
            "{length} bytes"
        );
        for (height, level) in case["levels"].as_array().into_iter().flatten().enumerate() {
            check_level(&tree, height as u8, &hex::decode(level.as_str().expect("a string")).expect("hex"));
        }
    }
}

fn check_level(tree: &TensorTree, height: u8, level: &[u8]) {
    for (index, expected) in (0..).zip(level.chunks(32)) {
        let expected = ChainingValue::try_from(expected).expect("32 bytes");
        let node = tree.shape().canonical(NodeAddress { height, index }).expect("the tree has the node");
        assert_eq!(
            tree.node(node),
            Some(NodeHash::Inner(expected)),
            "{node:?} of {} bytes",
            tree.shape().bytes()
        );
    }
    assert_eq!(tree.shape().canonical(NodeAddress { height, index: level.len() as u64 / 32 }), None);
}
