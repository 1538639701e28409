//! A model on this machine: its files lowered, its weights packed, its tokenizer loaded.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use gainsay_commitment::ModelId;
use gainsay_engine::{Model, Options};
use gainsay_program::lowering::{
    LanguageFiles, LowerOptions, Lowered, SourceFiles, is_language_model, lower_bert_observed,
    lower_language_observed,
};
use gainsay_program::{JobInput, Manifest};
use tokenizers::Tokenizer;

/// The files of a model as a coordinator takes them.
pub(crate) struct LocalModel {
    pub(crate) manifest: Manifest,
    /// Bytes of each tensor, in the manifest's order.
    pub(crate) weights: Vec<Vec<u8>>,
    pub(crate) tokenizer: Vec<u8>,
    /// What renders conversations, where the model is one for them.
    pub(crate) template: Option<Vec<u8>>,
    /// Tokens of the longest sequence that the files allow, where the limit on memory has cut it.
    pub(crate) cut_from: Option<u32>,
}

impl LocalModel {
    /// Reads a folder of Hugging Face files and lowers them; `observe` is told the bytes of each tensor that is next.
    pub(crate) fn read(
        dir: &Path,
        options: &LowerOptions,
        observe: &mut dyn FnMut(u64),
    ) -> Result<LocalModel> {
        let cannot_use = || format!("the model in {} cannot be used", dir.display());
        let config = std::fs::read(dir.join("config.json"))
            .with_context(|| format!("cannot read the model in {}", dir.display()))?;
        let (lowered, tokenizer) = if is_language_model(&config) {
            let files = language_files(dir)?;
            let lowered = lower_language_observed(&files, options, observe).with_context(cannot_use)?;
            (lowered, files.tokenizer)
        } else {
            let files = SourceFiles::load(|file| std::fs::read(dir.join(file)))
                .with_context(|| format!("cannot read the model in {}", dir.display()))?;
            (lower_bert_observed(&files, options, observe).with_context(cannot_use)?, files.tokenizer)
        };
        let Lowered { manifest, weights, template, cut_from, .. } = lowered;
        Ok(LocalModel { manifest, weights, tokenizer, template, cut_from })
    }

    pub(crate) fn id(&self) -> ModelId {
        self.manifest.id()
    }

    /// Makes it ready to run here, on its own: what an answer is compared with.
    pub(crate) fn into_runner(self, options: Options) -> Result<Runner> {
        let mut tokenizer =
            Tokenizer::from_bytes(&self.tokenizer).map_err(|error| anyhow!("tokenizer.json: {error}"))?;
        // The file asks for cuts and padding at 128 tokens, which is not what the model was asked to embed.
        tokenizer.with_truncation(None).map_err(|error| anyhow!("tokenizer.json: {error}"))?;
        tokenizer.with_padding(None);
        Ok(Runner { model: self.into_model(options)?, tokenizer })
    }

    /// Makes it ready to run here, without its tokenizer.
    pub(crate) fn into_model(self, options: Options) -> Result<Model> {
        let weights = self.weights.into_iter().map(Arc::from).collect();
        let validated = self.manifest.validate().context("the manifest is refused")?;
        Model::new(Arc::new(validated), weights, options).context("the model does not load")
    }
}

fn language_files(dir: &Path) -> Result<LanguageFiles> {
    LanguageFiles::load(|file| match std::fs::read(dir.join(file)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    })
    .with_context(|| format!("cannot read the model in {}", dir.display()))
}

/// A model that answers here what a coordinator's workers answer there.
pub(crate) struct Runner {
    model: Model,
    tokenizer: Tokenizer,
}

impl Runner {
    /// Embeds `texts` as one job.
    pub(crate) fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let sequences = texts.iter().map(|text| self.encode(text)).collect::<Result<Vec<_>>>()?;
        let job = JobInput::new(&sequences).context("the texts do not make a job")?;
        let traces = self.model.run(std::slice::from_ref(&job), None).context("the model does not run")?;
        let output = &traces.first().expect("one job gives one trace").output;
        let (values, _) = output.as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(values.chunks(values.len() / texts.len()).map(<[f32]>::to_vec).collect())
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding =
            self.tokenizer.encode_fast(text, true).map_err(|error| anyhow!("cannot tokenize: {error}"))?;
        Ok(encoding.get_ids().to_vec())
    }
}
