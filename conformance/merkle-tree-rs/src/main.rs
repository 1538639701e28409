//! Holds `gainsay-commitment`'s trace roots and proofs against `merkle-tree-rs`, a Rust implementation of
//! OpenZeppelin's `StandardMerkleTree` that shares no code with it.
//!
//! `check` builds the trees of every committed vector again with `merkle-tree-rs`, and compares it with
//! `gainsay-commitment` on random lists of layers. `write` rewrites the vectors that come from `merkle-tree-rs`.

mod random;
mod rows;
mod vectors;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use gainsay_commitment::{TensorCommitment, TraceTree};

use random::Random;
use rows::Oracle;
use vectors::Case;

const USAGE: &str = "usage: cargo run -- check [SEED] | write";
/// Lists of layers that one check compares, besides the committed vectors.
const RANDOM_LISTS: u64 = 200;
/// Layers of a random list at most: more than a model of any size commits to.
const MOST_LAYERS: u64 = 200;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["check"] => check(random::fresh_seed()),
        ["check", seed] => seed.parse().context(USAGE).and_then(check),
        ["write"] => write(),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(seed: u64) -> Result<()> {
    println!("seed {seed}");
    let openzeppelin: Vec<Case> = read(&folder().join("openzeppelin.json"))?;
    let mut checked = 0;
    for (number, case) in openzeppelin.iter().enumerate() {
        checked += usize::from(agrees(case).with_context(|| format!("openzeppelin.json, case {number}"))?);
    }
    println!("openzeppelin.json: {checked} of {} trees built again, all equal", openzeppelin.len());
    ensure!(checked == openzeppelin.iter().filter(|case| !case.is_refused()).count(), "a tree was left out");

    let committed: Vec<Case> = read(&traces())?;
    ensure!(committed == vectors::traces(), "{} is not what merkle-tree-rs gives", traces().display());
    println!("traces.json: {} trees built again, all equal", committed.len());

    let mut random = Random::new(seed);
    for list in 0..RANDOM_LISTS {
        let count = 1 + random.below(MOST_LAYERS);
        compare(&random.layers(count)).with_context(|| format!("list {list}"))?;
    }
    println!("gainsay-commitment: {RANDOM_LISTS} random lists of layers, all roots and proofs equal");
    Ok(())
}

/// Whether the case makes a tree; an error if that is another tree for `merkle-tree-rs`.
fn agrees(case: &Case) -> Result<bool> {
    let Some((root, proofs)) = case.expected()? else { return Ok(false) };
    let oracle = Oracle::new(&case.types, &case.values)?;
    ensure!(oracle.root() == root, "another root");
    for (leaf, proof) in proofs.iter().enumerate() {
        ensure!(oracle.proof(leaf) == *proof, "another proof of leaf {leaf}");
    }
    Ok(true)
}

/// The crate under test against the oracle, over the same layers.
fn compare(layers: &[TensorCommitment]) -> Result<()> {
    let (tree, oracle) = (TraceTree::new(layers)?, Oracle::of_layers(layers)?);
    ensure!(tree.root().to_string() == oracle.root(), "another root of {} layers", layers.len());
    for layer in 0..layers.len() {
        let proof = tree.proof(layer).context("a layer without a proof")?;
        let proof: Vec<String> = proof.iter().map(ToString::to_string).collect();
        ensure!(proof == oracle.proof(layer), "another proof of layer {layer} of {}", layers.len());
    }
    Ok(())
}

fn write() -> Result<()> {
    let lines: Vec<String> =
        vectors::traces().iter().map(serde_json::to_string).collect::<Result<_, _>>().context("JSON")?;
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    std::fs::write(traces(), text).with_context(|| format!("cannot write {}", traces().display()))
}

fn read(path: &Path) -> Result<Vec<Case>> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let cases: Vec<Case> = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    if cases.is_empty() {
        bail!("{} holds no vector", path.display());
    }
    Ok(cases)
}

fn traces() -> PathBuf {
    folder().join("traces.json")
}

/// Where `gainsay-commitment` keeps its vectors.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/commitment/tests/vectors")
}
