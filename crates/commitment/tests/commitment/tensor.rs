//! Trees of every shape: honest reveals and openings verify, anything else does not.

use gainsay_commitment::tensor::{
    CHUNK_BYTES, REVEAL_LEVELS, tensor_commitment, verify_children, verify_chunk, verify_opening,
};
use gainsay_commitment::{
    ChainingValue, NodeAddress, NodeHash, Opening, TensorCommitment, TensorHasher, TensorTree, TreeError,
    TreeShape,
};
use proptest::prelude::*;

const KIB: usize = 1024;
/// Around every boundary: empty, one chunk, powers of two, the width of one reveal and of two.
const SIZES: [usize; 24] = [
    0,
    1,
    63,
    64,
    65,
    KIB - 1,
    KIB,
    KIB + 1,
    2 * KIB - 1,
    2 * KIB,
    2 * KIB + 1,
    3 * KIB,
    5 * KIB + 7,
    63 * KIB,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    65 * KIB,
    127 * KIB,
    128 * KIB + 1,
    129 * KIB,
    4095 * KIB + 5,
    4096 * KIB,
    4097 * KIB + 1,
];

fn tensor(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ bytes as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// Walks a dispute from the root to `chunk`, checking every reveal; returns how many there were.
fn descend(tree: &TensorTree, tensor: &[u8], chunk: u64) -> usize {
    let shape = tree.shape();
    let (mut node, mut reveals) = (shape.root(), 0);
    while let Some(addresses) = shape.revealed_children(node) {
        let children = tree.children(node).expect("the prover has what the verifier asks");
        assert!((2..=64).contains(&addresses.len()), "{node:?} shows {} nodes", addresses.len());
        let hash = tree.node(node).expect("the node is in the tree");
        assert_eq!(verify_children(shape, node, hash, &children), Ok(()), "{node:?}");
        node = *addresses
            .iter()
            .find(|child| shape.chunks_below(**child).expect("a node").contains(&chunk))
            .expect("the children cover the node");
        reveals += 1;
    }
    assert_eq!(node, NodeAddress::chunk(chunk));
    let range = shape.chunk_range(chunk).expect("the chunk is in range");
    let bytes = &tensor[range.start as usize..range.end as usize];
    assert_eq!(verify_chunk(shape, chunk, tree.node(node).expect("a node"), bytes), Ok(()));
    reveals
}

#[test]
fn every_chunk_opens_at_every_boundary_size() {
    for size in SIZES {
        let tensor = tensor(size);
        let tree = TensorTree::new(&tensor);
        let shape = TreeShape::new(size as u64);
        assert_eq!(tree.commitment(), tensor_commitment(&tensor), "{size} bytes");
        assert_eq!(tree.commitment().to_bytes(), *blake3::hash(&tensor).as_bytes(), "{size} bytes");
        let mut covered = 0;
        for chunk in 0..shape.chunks() {
            let opening = tree.open(&tensor, chunk).expect("the chunk is in range");
            assert_eq!(
                verify_opening(tree.commitment(), shape, &opening),
                Ok(()),
                "chunk {chunk} of {size} bytes"
            );
            covered += opening.bytes.len();
        }
        assert_eq!(covered, size, "the chunks are the tensor");
        assert_eq!(tree.open(&tensor, shape.chunks()), None);
        assert_eq!(tree.open(&[&tensor[..], &[0]].concat(), 0), None, "opened bytes of another length");
    }
}

#[test]
fn every_dispute_reaches_its_chunk_in_the_fewest_reveals() {
    for size in SIZES {
        let tensor = tensor(size);
        let tree = TensorTree::new(&tensor);
        let chunks = tree.shape().chunks();
        let most = usize::from(tree.shape().height().div_ceil(REVEAL_LEVELS));
        for chunk in (0..chunks).step_by(1 + size / 100_000).chain([chunks - 1]) {
            assert!(descend(&tree, &tensor, chunk) <= most, "chunk {chunk} of {size} bytes");
        }
    }
}

#[test]
fn pieces_of_any_length_hash_to_the_whole() {
    let tensor = tensor(10_000);
    for piece in [1, 63, 1024, 1500, 9_999] {
        let mut hasher = TensorHasher::new();
        tensor.chunks(piece).for_each(|piece| {
            hasher.update(piece);
        });
        assert_eq!((hasher.commitment(), hasher.bytes()), (tensor_commitment(&tensor), 10_000));
    }
}

#[test]
fn nodes_have_one_name() {
    let shape = TreeShape::new(65 * KIB as u64);
    assert_eq!(shape.root(), NodeAddress { height: 7, index: 0 });
    let last = NodeAddress::chunk(64);
    for height in 0..7 {
        let long_name = NodeAddress { height, index: 64 >> height };
        assert_eq!(shape.canonical(long_name), Some(last));
        assert_eq!(shape.contains(long_name), height == 0);
        assert!(shape.revealed_children(long_name).is_none(), "a chunk has no children under any name");
    }
    let children = shape.revealed_children(shape.root()).expect("the root has children");
    assert_eq!(children.len(), 33);
    assert_eq!(children[32], last);
}

#[test]
fn ranges_of_bytes_map_to_the_chunks_that_hold_them() {
    let shape = TreeShape::new(2_500);
    assert_eq!(shape.chunks_of(0..2_500), Some(0..3));
    assert_eq!(shape.chunks_of(1_023..1_024), Some(0..1));
    assert_eq!(shape.chunks_of(1_023..1_025), Some(0..2));
    assert_eq!(shape.chunks_of(2_048..2_500), Some(2..3));
    assert_eq!(shape.chunks_of(1_500..1_500), Some(1..1));
    assert_eq!(shape.chunks_of(0..2_501), None);
    let backwards = std::ops::Range { start: 9, end: 8 };
    assert_eq!(shape.chunks_of(backwards), None);
    assert_eq!((shape.chunk_len(1), shape.chunk_len(2), shape.chunk_len(3)), (Some(1024), Some(452), None));
}

#[test]
fn a_node_is_no_chunk_and_a_root_is_no_node() {
    let tensor = tensor(4 * KIB);
    let tree = TensorTree::new(&tensor);
    let shape = tree.shape();
    let inner = NodeAddress { height: 1, index: 0 };
    let pair = tree.children(inner).expect("an inner node");
    let joined = [pair[0].to_bytes(), pair[1].to_bytes()].concat();

    // The 64 bytes that an inner node hashes, offered as a chunk of a tensor of that length.
    let hash = tree.node(inner).expect("a node");
    assert!(verify_chunk(TreeShape::new(64), 0, hash, &joined).is_err());
    let NodeHash::Inner(chaining_value) = hash else { panic!("the node is below the root") };
    let as_root = NodeHash::Root(TensorCommitment::from_bytes(chaining_value.to_bytes()));
    assert_eq!(verify_chunk(TreeShape::new(64), 0, as_root, &joined), Err(TreeError::HashMismatch));
    let opening = Opening { chunk: 0, bytes: joined, path: Vec::new() };
    let commitment = TensorCommitment::from_bytes(chaining_value.to_bytes());
    assert_eq!(verify_opening(commitment, TreeShape::new(64), &opening), Err(TreeError::HashMismatch));

    // A commitment is compared at the root alone, a chaining value below it alone.
    let root = NodeHash::Root(tree.commitment());
    let below = NodeHash::Inner(ChainingValue::from_bytes(tree.commitment().to_bytes()));
    let children = tree.children(shape.root()).expect("the root has children");
    assert_eq!(verify_children(shape, shape.root(), root, &children), Ok(()));
    assert_eq!(verify_children(shape, shape.root(), below, &children), Err(TreeError::RootMismatch));
    assert_eq!(verify_children(shape, inner, root, &pair), Err(TreeError::RootMismatch));
    assert_eq!(verify_chunk(shape, 0, root, &tensor[..KIB]), Err(TreeError::RootMismatch));
    let single = NodeHash::Inner(ChainingValue::from_bytes(tensor_commitment(&tensor[..9]).to_bytes()));
    assert_eq!(verify_chunk(TreeShape::new(9), 0, single, &tensor[..9]), Err(TreeError::RootMismatch));

    // A subtree with the root's chaining value but without its flag, as a taller tree would hold it.
    let taller = TreeShape::new(5 * KIB as u64);
    assert!(verify_children(taller, NodeAddress { height: 2, index: 0 }, below, &children).is_err());
}

#[test]
fn a_wrong_number_of_children_is_refused() {
    for size in [2 * KIB, 65 * KIB, 200 * KIB] {
        let tensor = tensor(size);
        let tree = TensorTree::new(&tensor);
        let (shape, root) = (tree.shape(), tree.shape().root());
        let hash = NodeHash::Root(tree.commitment());
        let children = tree.children(root).expect("the root has children");
        let expected = children.len();
        let longer = [&children[..], &children[..1]].concat();
        for wrong in [&[][..], &children[..1], &children[..expected - 1], &longer] {
            let refused = Err(TreeError::NodeCount { expected, found: wrong.len() });
            assert_eq!(verify_children(shape, root, hash, wrong), refused);
        }
    }
}

#[test]
fn places_outside_the_tree_are_refused() {
    for size in [0, 1, KIB, 65 * KIB, 4 << 20] {
        let shape = TreeShape::new(size as u64);
        let hash = NodeHash::Inner(ChainingValue::from_bytes([0; 32]));
        let heights = [0, 1, 6, 7, 13, 53, 54, 63, 64, 255];
        let indices = [0, 1, 63, 64, shape.chunks(), 1 << 32, 1 << 53, u64::MAX / 2, u64::MAX];
        for node in heights.into_iter().flat_map(|height| indices.map(|index| NodeAddress { height, index }))
        {
            let inside = shape.contains(node);
            assert_eq!(shape.chunks_below(node).is_some(), inside);
            assert_eq!(shape.revealed_children(node).is_some(), inside && node.height > 0);
            assert!(verify_children(shape, node, hash, &[]).is_err());
            let in_range = node.index < shape.chunks();
            assert_eq!(shape.chunk_len(node.index).is_some(), in_range);
            assert!(verify_chunk(shape, node.index, hash, &[0; CHUNK_BYTES + 1]).is_err());
        }
    }
}

#[test]
fn the_largest_shapes_do_not_overflow() {
    for bytes in [u64::MAX, u64::MAX - 1023, 1 << 63, (1 << 63) + 1, u64::from(u32::MAX) + 1] {
        let shape = TreeShape::new(bytes);
        let last = shape.chunks() - 1;
        assert!(shape.height() <= 54);
        assert_eq!(shape.chunk_range(last).map(|range| range.end), Some(bytes));
        assert_eq!(shape.chunks_of(bytes - 1..bytes), Some(last..last + 1));
        assert_eq!(shape.chunks_below(shape.root()), Some(0..shape.chunks()));
        let opening = Opening {
            chunk: last,
            bytes: vec![0; shape.chunk_len(last).expect("in range")],
            path: vec![ChainingValue::from_bytes([0; 32]); 54],
        };
        let commitment = TensorCommitment::from_bytes([0; 32]);
        assert!(verify_opening(commitment, shape, &opening).is_err());
        let mut node = shape.root();
        while let Some(children) = shape.revealed_children(node) {
            node = *children.last().expect("there are children");
        }
        assert_eq!(node, NodeAddress::chunk(last));
    }
}

/// A length, mostly of a few chunks, often at a boundary.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        0usize..5_000,
        0usize..140_000,
        (0usize..140, 0usize..3).prop_map(|(chunks, off)| (chunks * KIB + off).saturating_sub(1))
    ]
}

proptest! {
    #[test]
    fn one_wrong_bit_anywhere_in_an_opening_fails(
        size in lengths(), pick in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(), bit in 0u32..8,
    ) {
        let tensor = tensor(size);
        let tree = TensorTree::new(&tensor);
        let chunk = pick.index(tree.shape().chunks() as usize) as u64;
        let honest = tree.open(&tensor, chunk).expect("in range");
        let check = |opening: &Opening| verify_opening(tree.commitment(), tree.shape(), opening);
        prop_assert_eq!(check(&honest), Ok(()));

        let mut wrong = honest.clone();
        if !wrong.bytes.is_empty() {
            wrong.bytes[place.index(honest.bytes.len())] ^= 1 << bit;
            prop_assert_eq!(check(&wrong), Err(TreeError::HashMismatch));
        }
        if !honest.path.is_empty() {
            let mut wrong = honest.clone();
            let level = place.index(honest.path.len());
            let mut node = wrong.path[level].to_bytes();
            node[7] ^= 1 << bit;
            wrong.path[level] = node.into();
            prop_assert_eq!(check(&wrong), Err(TreeError::HashMismatch));
            wrong.path.remove(level);
            prop_assert!(matches!(check(&wrong), Err(TreeError::PathLength { .. })), "a level left out");
        }
        let mut longer = honest.clone();
        longer.path.push(ChainingValue::from_bytes([0; 32]));
        prop_assert!(matches!(check(&longer), Err(TreeError::PathLength { .. })), "a level too many");
        let mut commitment = tree.commitment().to_bytes();
        commitment[31] ^= 1 << bit;
        prop_assert!(verify_opening(commitment.into(), tree.shape(), &honest).is_err());
    }

    #[test]
    fn an_opening_fits_no_other_place_or_shape(
        size in lengths(), other in lengths(), pick in any::<prop::sample::Index>(), elsewhere in any::<u64>(),
    ) {
        let tensor = tensor(size);
        let tree = TensorTree::new(&tensor);
        let shape = tree.shape();
        let chunk = pick.index(shape.chunks() as usize) as u64;
        let honest = tree.open(&tensor, chunk).expect("in range");
        for wrong in [chunk ^ 1, chunk + 1, chunk.wrapping_sub(1), elsewhere % shape.chunks(), elsewhere] {
            if wrong != chunk {
                let moved = Opening { chunk: wrong, ..honest.clone() };
                prop_assert!(verify_opening(tree.commitment(), shape, &moved).is_err(), "chunk {} opened as {}", chunk, wrong);
            }
        }
        // The last chunk's length and the number of levels are the shape's, so an opening of the last chunk
        // belongs to one length; any other chunk is a chunk of every tensor of as many levels.
        if chunk + 1 == shape.chunks() {
            for length in [size + 1, size.wrapping_sub(1), other] {
                if length != size {
                    prop_assert!(verify_opening(tree.commitment(), TreeShape::new(length as u64), &honest).is_err());
                }
            }
        }
    }

    #[test]
    fn one_wrong_node_in_a_reveal_fails(size in 1_025usize..300_000, pick in any::<prop::sample::Index>(), bit in 0usize..256) {
        let tensor = tensor(size);
        let tree = TensorTree::new(&tensor);
        let (shape, root) = (tree.shape(), tree.shape().root());
        let hash = NodeHash::Root(tree.commitment());
        let honest = tree.children(root).expect("more than a chunk");
        let child = pick.index(honest.len());
        let mut wrong = honest.clone();
        let mut node = wrong[child].to_bytes();
        node[bit / 8] ^= 1 << (bit % 8);
        wrong[child] = node.into();
        prop_assert_eq!(verify_children(shape, root, hash, &wrong), Err(TreeError::HashMismatch));
        let mut swapped = honest.clone();
        swapped.rotate_left(1);
        prop_assert_eq!(verify_children(shape, root, hash, &swapped), Err(TreeError::HashMismatch));
    }

    #[test]
    fn a_chunk_of_another_length_or_content_fails(size in lengths(), pick in any::<prop::sample::Index>(), place in any::<prop::sample::Index>()) {
        let tensor = tensor(size);
        let tree = TensorTree::new(&tensor);
        let chunk = pick.index(tree.shape().chunks() as usize) as u64;
        let hash = tree.shape().canonical(NodeAddress::chunk(chunk)).and_then(|node| tree.node(node)).expect("in range");
        let bytes = tree.open(&tensor, chunk).expect("in range").bytes;
        let check = |bytes: &[u8]| verify_chunk(tree.shape(), chunk, hash, bytes);
        prop_assert_eq!(check(&bytes), Ok(()));
        let longer = [&bytes[..], &[0]].concat();
        prop_assert_eq!(check(&longer), Err(TreeError::ChunkLength { expected: bytes.len(), found: bytes.len() + 1 }));
        if !bytes.is_empty() {
            prop_assert!(matches!(check(&bytes[1..]), Err(TreeError::ChunkLength { .. })), "a byte left out");
            let mut wrong = bytes.clone();
            wrong[place.index(bytes.len())] ^= 0x80;
            prop_assert_eq!(check(&wrong), Err(TreeError::HashMismatch));
        }
    }
}

proptest! {
    /// A run is opened by one path on either side, and by nothing else than its own bytes, place and path.
    #[test]
    fn runs_of_chunks_open_together(
        size in lengths(), picks in any::<[prop::sample::Index; 2]>(), place in any::<prop::sample::Index>(), bit in 0u32..8,
    ) {
        let tensor = tensor(size);
        let tree = TensorTree::new(&tensor);
        let shape = tree.shape();
        let [a, b] = picks.map(|pick| pick.index(shape.chunks() as usize) as u64);
        let run = a.min(b)..a.max(b) + 1;
        let honest = tree.open_run(&tensor, run.clone()).expect("in range");
        prop_assert_eq!(honest.chunks(), Some(run.clone()));
        prop_assert!(honest.path.len() <= 2 * usize::from(shape.height()));
        let check = |opening: &Opening| verify_opening(tree.commitment(), shape, opening);
        prop_assert_eq!(check(&honest), Ok(()));

        if !honest.bytes.is_empty() {
            let mut wrong = honest.clone();
            wrong.bytes[place.index(honest.bytes.len())] ^= 1 << bit;
            prop_assert_eq!(check(&wrong), Err(TreeError::HashMismatch));
        }
        for level in 0..honest.path.len() {
            let mut wrong = honest.clone();
            let mut node = wrong.path[level].to_bytes();
            node[7] ^= 1 << bit;
            wrong.path[level] = node.into();
            prop_assert_eq!(check(&wrong), Err(TreeError::HashMismatch));
            wrong.path.remove(level);
            prop_assert!(check(&wrong).is_err(), "a node left out");
        }
        for chunk in [run.start + 1, run.start.wrapping_sub(1), run.end, u64::MAX] {
            prop_assert!(check(&Opening { chunk, ..honest.clone() }).is_err(), "opened at {}", chunk);
        }
        let longer = Opening { bytes: [&honest.bytes[..], &[0; CHUNK_BYTES]].concat(), ..honest.clone() };
        prop_assert!(check(&longer).is_err(), "a chunk too many");
        let shorter = Opening { bytes: honest.bytes[..honest.bytes.len() / 2].to_vec(), ..honest.clone() };
        prop_assert!(honest.bytes.is_empty() || check(&shorter).is_err(), "half of the bytes");
        let mut encoder = gainsay_commitment::Encoder::new();
        honest.encode(&mut encoder);
        let bytes = encoder.into_bytes();
        prop_assert_eq!(Opening::decode(&mut gainsay_commitment::Decoder::new(&bytes)), Ok(honest));
    }
}

#[test]
fn a_run_needs_chunks_that_exist() {
    let tensor = tensor(5 * KIB);
    let tree = TensorTree::new(&tensor);
    assert_eq!(tree.open_run(&tensor, 2..2), None);
    assert_eq!(tree.open_run(&tensor, 3..6), None);
    assert_eq!(tree.open_run(&tensor[1..], 0..1), None);
    let whole = tree.open_run(&tensor, 0..5).expect("in range");
    assert!(whole.path.is_empty(), "a whole tensor needs no path");
}
