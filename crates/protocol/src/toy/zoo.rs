//! Models and jobs that between them reach every phase of a dispute.

use gainsay_program::{ArithmeticProfile, toy::ToyOptions};

use super::fixture::FixtureBuilder;

/// Two blocks, sixteen columns; one sequence short, one long enough to be expanded. Tensors of one to three chunks.
#[must_use]
pub fn small() -> FixtureBuilder {
    FixtureBuilder::new(&ToyOptions::default(), 7, &[3, 20])
}

/// One block whose widest op output has more than 64 chunks, so that nodes are revealed twice on the way down.
#[must_use]
pub fn wide() -> FixtureBuilder {
    let options = ToyOptions {
        heads: 4,
        head_dim: 16,
        intermediate: 512,
        blocks: 1,
        max_sequence: 64,
        seed: 3,
        ..ToyOptions::default()
    };
    FixtureBuilder::new(&options, 11, &[40, 5])
}

/// Quantized linears, both blocks in one layer.
#[must_use]
pub fn int8() -> FixtureBuilder {
    let options = ToyOptions {
        arithmetic: ArithmeticProfile::ExactInt8V1,
        blocks_per_layer: 2,
        seed: 5,
        ..ToyOptions::default()
    };
    FixtureBuilder::new(&options, 13, &[9, 1, 12])
}

/// A single token: one row, one chunk everywhere, nothing expanded.
#[must_use]
pub fn tiny() -> FixtureBuilder {
    FixtureBuilder::new(&ToyOptions { blocks: 1, ..ToyOptions::default() }, 17, &[1])
}

/// All of them.
#[must_use]
pub fn all() -> Vec<FixtureBuilder> {
    vec![small(), wide(), int8(), tiny()]
}
