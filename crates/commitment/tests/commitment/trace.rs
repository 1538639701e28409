//! Trace roots and proofs are OpenZeppelin's, and those of another implementation of its format.

use gainsay_commitment::trace::{encode_layer, verify_proof};
use gainsay_commitment::{TensorCommitment, TraceError, TraceNode, TraceRoot, TraceTree, trace_root};
use proptest::prelude::*;
use serde_json::Value;

/// ABI encoding of a 256-bit number, as OpenZeppelin's library reads it from text. `None` where it refuses.
fn abi_uint(text: &str, bits: usize) -> Option<[u8; 32]> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    let mut number = [0u8; 32];
    for digit in digits.chars() {
        let mut carry = digit.to_digit(radix)?;
        for byte in number.iter_mut().rev() {
            carry += u32::from(*byte) * radix;
            *byte = carry as u8;
            carry >>= 8;
        }
        if carry != 0 {
            return None;
        }
    }
    number[..32 - bits / 8].iter().all(|&byte| byte == 0).then_some(number)
}

/// ABI encoding of a leaf: heads in order, then the tails of dynamic types.
fn abi_encode(types: &[String], values: &[String]) -> Option<Vec<u8>> {
    if types.len() != values.len() {
        return None;
    }
    let (mut heads, mut tails) = (Vec::new(), Vec::new());
    for (kind, value) in types.iter().zip(values) {
        let head = match kind.as_str() {
            "uint256" => abi_uint(value, 256)?,
            "uint8" => abi_uint(value, 8)?,
            "address" => abi_uint(value, 160)?,
            "bytes32" => abi_uint(value, 256).filter(|_| value.len() == 66)?,
            "bool" => abi_uint(if value == "true" { "1" } else { "0" }, 8)?,
            "string" => {
                let offset = abi_uint(&(32 * types.len() + tails.len()).to_string(), 256)?;
                tails.extend(abi_uint(&value.len().to_string(), 256)?);
                tails.extend(value.as_bytes());
                tails.resize(tails.len().next_multiple_of(32), 0);
                offset
            }
            other => panic!("a type without an encoding here: {other}"),
        };
        heads.extend(head);
    }
    Some([heads, tails].concat())
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|text| text.as_str().expect("a string").to_owned()).collect()
}

fn tree_of(case: &Value) -> Option<TraceTree> {
    let types = strings(&case["types"]);
    let rows = case["values"].as_array().expect("a list");
    let leaves: Option<Vec<_>> = rows.iter().map(|row| abi_encode(&types, &strings(row))).collect();
    TraceTree::from_encoded(leaves?).ok()
}

fn expected_proofs(case: &Value) -> Vec<Vec<TraceNode>> {
    let joined = hex::decode(case["nodes"].as_str().expect("hex")).expect("hex");
    let nodes: Vec<_> = joined.chunks(32).map(|node| TraceNode::try_from(node).expect("32 bytes")).collect();
    let proofs: Vec<Vec<usize>> = serde_json::from_value(case["proofs"].clone()).expect("positions");
    proofs.iter().map(|proof| proof.iter().map(|&node| nodes[node]).collect()).collect()
}

#[test]
fn all_roots_and_proofs_are_openzeppelins() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../vectors/openzeppelin.json")).expect("JSON");
    assert_eq!(cases.len(), 55);
    let mut refused = 0;
    for (number, case) in cases.iter().enumerate() {
        let tree = tree_of(case);
        if case.get("refused").is_some() {
            assert!(tree.is_none(), "case {number} makes no tree");
            refused += 1;
            continue;
        }
        let tree = tree.expect("the case makes a tree");
        assert_eq!(tree.root().to_string(), case["root"], "root of case {number}");
        let expected = expected_proofs(case);
        for (leaf, expected) in expected.iter().enumerate() {
            assert_eq!(tree.proof(leaf).as_ref(), Some(expected), "case {number}, leaf {leaf}");
        }
        assert_eq!(tree.proof(expected.len()), None);
    }
    assert_eq!(refused, 6);
}

/// The other implementation knows nothing of this crate: an error in reading the format would have to be made twice.
#[test]
fn traces_are_what_merkle_tree_rs_builds() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../vectors/traces.json")).expect("JSON");
    assert!(!cases.is_empty());
    for (number, case) in cases.iter().enumerate() {
        let rows = case["values"].as_array().expect("a list");
        let layers: Vec<TensorCommitment> =
            rows.iter().map(|row| strings(row)[1][2..].parse().expect("a commitment in hex")).collect();
        let tree = TraceTree::new(&layers).expect("there are layers");
        assert_eq!(tree.root().to_string(), case["root"], "root of trace {number}");
        for (layer, expected) in expected_proofs(case).iter().enumerate() {
            assert_eq!(tree.proof(layer).as_ref(), Some(expected), "trace {number}, layer {layer}");
            assert_eq!(verify_proof(tree.root(), layer as u64, layers[layer], expected), Ok(()));
        }
    }
}

#[test]
fn a_layer_encodes_as_the_abi_does() {
    let commitment = TensorCommitment::from_bytes([0xab; 32]);
    let types = ["uint256".to_owned(), "bytes32".to_owned()];
    for layer in [0, 1, 255, 256, u64::MAX] {
        let values = [layer.to_string(), format!("0x{commitment}")];
        assert_eq!(abi_encode(&types, &values).as_deref(), Some(&encode_layer(layer, commitment)[..]));
    }
}

#[test]
fn a_trace_without_layers_has_no_root() {
    assert_eq!(trace_root(&[]), Err(TraceError::Empty));
}

proptest! {
    #[test]
    fn a_proof_binds_layer_commitment_and_root(
        layers in prop::collection::vec(any::<[u8; 32]>().prop_map(TensorCommitment::from), 1..40),
        pick in any::<prop::sample::Index>(),
        bit in 0usize..256,
    ) {
        let tree = TraceTree::new(&layers).expect("there are layers");
        let root = tree.root();
        prop_assert_eq!(trace_root(&layers), Ok(root));
        let layer = pick.index(layers.len());
        let proof = tree.proof(layer).expect("the layer is in range");
        let check = |root, layer: usize, commitment, proof: &[TraceNode]| verify_proof(root, layer as u64, commitment, proof);
        prop_assert_eq!(check(root, layer, layers[layer], &proof), Ok(()));

        let flip = |mut bytes: [u8; 32]| { bytes[bit / 8] ^= 1 << (bit % 8); bytes };
        let mismatch = Err(TraceError::ProofMismatch);
        prop_assert_eq!(check(root, layer + 1, layers[layer], &proof), mismatch);
        prop_assert_eq!(check(root, layer, flip(layers[layer].to_bytes()).into(), &proof), mismatch);
        prop_assert_eq!(check(TraceRoot::from(flip(root.to_bytes())), layer, layers[layer], &proof), mismatch);
        for node in 0..proof.len() {
            let mut wrong = proof.clone();
            wrong[node] = flip(wrong[node].to_bytes()).into();
            prop_assert_eq!(check(root, layer, layers[layer], &wrong), mismatch);
            wrong.remove(node);
            prop_assert_eq!(check(root, layer, layers[layer], &wrong), mismatch);
        }
        let longer = [&proof[..], &[TraceNode::from([0; 32])]].concat();
        prop_assert_eq!(check(root, layer, layers[layer], &longer), mismatch);
        prop_assert_eq!(check(root, layer, layers[layer], &[TraceNode::from([0; 32]); 100]), mismatch);
    }

    #[test]
    fn another_order_of_layers_is_another_root(layers in prop::collection::vec(any::<[u8; 32]>().prop_map(TensorCommitment::from), 2..12)) {
        prop_assume!(layers[0] != layers[1]);
        let mut swapped = layers.clone();
        swapped.swap(0, 1);
        prop_assert_ne!(trace_root(&layers), trace_root(&swapped));
        prop_assert_ne!(trace_root(&layers), trace_root(&layers[1..]));
    }
}
