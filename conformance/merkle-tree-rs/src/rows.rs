//! `merkle-tree-rs`, given only what it takes: addresses of full length, decimal numbers and strings.
//!
//! It panics on every other type. All the types that fill one word of the ABI encode to the word itself, so a hash or a
//! flag is handed over as the number that its 32 bytes make.

use anyhow::{Context, Result, bail};
use gainsay_commitment::TensorCommitment;
use merkle_tree_rs::standard::{LeafType, StandardMerkleTree};

/// A tree of the other implementation. Hashes are lower-case hex without prefix, as in the vectors.
pub(crate) struct Oracle(StandardMerkleTree);

impl Oracle {
    /// The tree over rows of typed values.
    pub(crate) fn new(types: &[String], rows: &[Vec<String>]) -> Result<Self> {
        let taken: Vec<String> = types.iter().map(|kind| taken_type(kind).to_owned()).collect();
        let rows = rows.iter().map(|row| {
            types.iter().zip(row).map(|(kind, value)| taken_value(kind, value)).collect::<Result<Vec<_>>>()
        });
        Ok(Self(StandardMerkleTree::of(rows.collect::<Result<_>>()?, &taken)))
    }

    /// The tree over a trace: leaves `(uint256 layer, bytes32 commitment)`.
    pub(crate) fn of_layers(layers: &[TensorCommitment]) -> Result<Self> {
        Self::new(&layer_types(), &layer_rows(layers))
    }

    pub(crate) fn root(&self) -> String {
        bare(&self.0.root())
    }

    /// The siblings from leaf `index`, in the order given, up to the root.
    pub(crate) fn proof(&self, index: usize) -> Vec<String> {
        self.0.get_proof(LeafType::Number(index)).iter().map(|node| bare(node)).collect()
    }
}

/// The types of a trace's leaves.
pub(crate) fn layer_types() -> Vec<String> {
    ["uint256", "bytes32"].map(str::to_owned).to_vec()
}

/// The leaves of a trace, as text.
pub(crate) fn layer_rows(layers: &[TensorCommitment]) -> Vec<Vec<String>> {
    let row =
        |(layer, commitment): (usize, &TensorCommitment)| vec![layer.to_string(), format!("0x{commitment}")];
    layers.iter().enumerate().map(row).collect()
}

fn bare(hex: &str) -> String {
    hex.strip_prefix("0x").unwrap_or(hex).to_owned()
}

fn taken_type(kind: &str) -> &str {
    match kind {
        "address" | "string" => kind,
        _ => "uint256",
    }
}

fn taken_value(kind: &str, value: &str) -> Result<String> {
    match (kind, value) {
        ("string", text) => Ok(text.to_owned()),
        ("address", _) => Ok(format!("{:0>40}", value.strip_prefix("0x").context("an address in hex")?)),
        ("bool", "true") => Ok("1".to_owned()),
        ("bool", _) | (_, "") => Ok("0".to_owned()),
        ("bytes32" | "uint256" | "uint8", _) => match value.strip_prefix("0x") {
            Some(digits) => decimal(digits),
            None => Ok(value.to_owned()),
        },
        _ => bail!("a type without a translation: {kind}"),
    }
}

/// The decimal form of a number in hex, by long division.
fn decimal(hex: &str) -> Result<String> {
    let mut number: Vec<u32> =
        hex.chars().map(|digit| digit.to_digit(16).context("a hex digit")).collect::<Result<_>>()?;
    let mut digits = Vec::new();
    while number.iter().any(|&digit| digit != 0) {
        let mut rest = 0;
        for digit in &mut number {
            let part = rest * 16 + *digit;
            (*digit, rest) = (part / 10, part % 10);
        }
        digits.push(char::from_digit(rest, 10).context("a digit")?);
    }
    if digits.is_empty() {
        digits.push('0');
    }
    Ok(digits.iter().rev().collect())
}
