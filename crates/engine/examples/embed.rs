//! Embeds token ids: reads one JSON array of arrays of ids from standard input, writes one JSON array of vectors.
//!
//! `scripts/reference_cosine.py` compares the vectors with those of another implementation.

#[path = "../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with tests, which need more of it")]
mod support;

use std::io::{Read, Write};

use anyhow::{Context, Result};
use gainsay_engine::{Model, Options};
use gainsay_program::JobInput;

fn main() -> Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let sequences: Vec<Vec<u32>> =
        serde_json::from_str(&text).context("expected an array of arrays of ids")?;
    let loaded = support::minilm()?;
    let model = Model::new(loaded.model, loaded.weights, Options::default())?;
    let job = JobInput::new(&sequences)?;
    let trace = model.run(&[job], None)?.remove(0);
    let values: Vec<f32> =
        trace.output.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let vectors: Vec<&[f32]> = values.chunks(model.model().answer_width() as usize).collect();
    serde_json::to_writer(std::io::stdout(), &vectors)?;
    Ok(std::io::stdout().flush()?)
}
