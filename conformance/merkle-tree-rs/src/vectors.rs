//! The form of the committed vectors, and those that `merkle-tree-rs` makes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use gainsay_commitment::TensorCommitment;
use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::rows::{self, Oracle};

/// Layers of the traces in `traces.json`: every small shape of tree, and both sides of some powers of two.
const LAYER_COUNTS: [u64; 17] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 31, 33, 64];

/// One tree, as the README of the vectors describes it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Case {
    /// Types of a leaf's values.
    pub(crate) types: Vec<String>,
    /// The leaves.
    pub(crate) values: Vec<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nodes: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proofs: Option<Vec<Vec<usize>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

impl Case {
    /// Whether the input makes no tree.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Root and proofs, or nothing where the input makes no tree.
    pub(crate) fn expected(&self) -> Result<Option<(&str, Vec<Vec<String>>)>> {
        if self.is_refused() {
            return Ok(None);
        }
        let root = self.root.as_deref().context("a case without a root")?;
        let nodes = hex::decode(self.nodes.as_deref().context("a case without nodes")?)?;
        let nodes: Vec<String> = nodes.chunks(32).map(hex::encode).collect();
        let proofs = self.proofs.as_ref().context("a case without proofs")?;
        ensure!(proofs.len() == self.values.len(), "a proof for each leaf");
        let proof = |proof: &Vec<usize>| -> Result<Vec<String>> {
            proof.iter().map(|&node| nodes.get(node).cloned().context("a node of the case")).collect()
        };
        Ok(Some((root, proofs.iter().map(proof).collect::<Result<_>>()?)))
    }

    fn of_layers(layers: &[TensorCommitment]) -> Self {
        let oracle = Oracle::of_layers(layers).expect("layers have a translation");
        let mut places = BTreeMap::new();
        let mut nodes = String::new();
        let mut proofs = Vec::new();
        for leaf in 0..layers.len() {
            let place = |node: String| {
                let next = places.len();
                *places.entry(node).or_insert_with_key(|node| {
                    nodes.push_str(node);
                    next
                })
            };
            proofs.push(oracle.proof(leaf).into_iter().map(place).collect());
        }
        Self {
            types: rows::layer_types(),
            values: rows::layer_rows(layers),
            root: Some(oracle.root()),
            nodes: Some(nodes),
            proofs: Some(proofs),
            refused: None,
        }
    }
}

/// The traces of `traces.json`, with root and proofs as `merkle-tree-rs` gives them.
pub(crate) fn traces() -> Vec<Case> {
    let mut random = Random::new(0);
    LAYER_COUNTS.iter().map(|&count| Case::of_layers(&random.layers(count))).collect()
}
