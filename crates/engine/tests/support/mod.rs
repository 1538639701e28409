//! Models for tests and examples.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use gainsay_program::lowering::{LowerOptions, SourceFiles, lower_bert};
use gainsay_program::{ArithmeticProfile, JobInput, ValidatedModel};

/// A model and its tensors.
pub(crate) struct Loaded {
    /// The checked manifest.
    pub(crate) model: Arc<ValidatedModel>,
    /// Tensors in the manifest's order.
    pub(crate) weights: Vec<Arc<[u8]>>,
}

/// all-MiniLM-L6-v2 in f32.
pub(crate) fn minilm() -> Result<Loaded> {
    lower_minilm(&LowerOptions::new("all-MiniLM-L6-v2", ArithmeticProfile::ExactF32V1))
}

/// all-MiniLM-L6-v2, from `GAINSAY_MODEL_DIR` or the cache folder of the workspace.
pub(crate) fn lower_minilm(options: &LowerOptions) -> Result<Loaded> {
    let folder = model_folder();
    let read = |name: &str| std::fs::read(folder.join(name));
    let files = SourceFiles::load(read).with_context(|| {
        format!(
            "no model in {}: fetch it with `cargo xtask fetch-model`, or set GAINSAY_MODEL_DIR",
            folder.display()
        )
    })?;
    let lowered = lower_bert(&files, options)?;
    Ok(Loaded {
        model: Arc::new(lowered.manifest.validate()?),
        weights: lowered.weights.into_iter().map(Arc::from).collect(),
    })
}

/// Where the files of all-MiniLM-L6-v2 are looked for.
pub(crate) fn model_folder() -> PathBuf {
    let cached = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/models/all-MiniLM-L6-v2");
    std::env::var_os("GAINSAY_MODEL_DIR").map_or_else(cached, PathBuf::from)
}

/// A job of sequences of these lengths, of token ids that differ from seed to seed.
pub(crate) fn job(model: &ValidatedModel, seed: u64, lengths: &[usize]) -> JobInput {
    let mut random = Random(seed);
    let vocabulary = u64::from(model.manifest().vocabulary);
    let sequences = lengths
        .iter()
        .map(|&len| -> Vec<u32> { (0..len).map(|_| (random.next_u64() % vocabulary) as u32).collect() });
    JobInput::new(sequences).expect("tests ask for sequences that are not empty")
}

/// SplitMix64: small, seeded, the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number.
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
