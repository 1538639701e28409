//! Which files a sentence encoder consists of.

use serde::Deserialize;

/// The bytes of the files that lowering reads.
#[derive(Clone, Debug)]
pub struct SourceFiles {
    /// `config.json`: the transformer.
    pub config: Vec<u8>,
    /// `model.safetensors`: the tensors.
    pub weights: Vec<u8>,
    /// `tokenizer.json`; only its hash enters the manifest.
    pub tokenizer: Vec<u8>,
    /// `modules.json`: what follows the transformer.
    pub modules: Vec<u8>,
    /// `config.json` of the pooling module, `1_Pooling/config.json` as a rule.
    pub pooling: Vec<u8>,
}

/// Why the files of a model could not be gathered.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E: std::error::Error + 'static> {
    /// The caller could not provide a file.
    #[error("cannot read {name}")]
    Read {
        /// Name relative to the model's folder.
        name: String,
        /// The caller's reason.
        #[source]
        source: E,
    },
    /// `modules.json` does not say where the pooling module is.
    #[error("modules.json names no pooling module inside the model's folder")]
    NoPooling,
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
pub(super) struct Module {
    pub(super) path: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
}

impl Module {
    /// The class's own name: the last part of a dotted path.
    pub(super) fn class(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or(&self.kind)
    }
}

impl SourceFiles {
    /// Gathers the files, asking `read` for each by its name relative to the model's folder, with `/` between parts.
    pub fn load<E: std::error::Error + 'static>(
        mut read: impl FnMut(&str) -> Result<Vec<u8>, E>,
    ) -> Result<Self, LoadError<E>> {
        let mut get =
            |name: &str| read(name).map_err(|source| LoadError::Read { name: name.to_owned(), source });
        let modules = get("modules.json")?;
        let pooling = pooling_path(&modules).ok_or(LoadError::NoPooling)?;
        Ok(Self {
            config: get("config.json")?,
            tokenizer: get("tokenizer.json")?,
            pooling: get(&format!("{pooling}/config.json"))?,
            weights: get("model.safetensors")?,
            modules,
        })
    }
}

/// The folder of the pooling module. The name comes from a stranger's file: only one plain folder name will do.
fn pooling_path(modules: &[u8]) -> Option<String> {
    let modules: Vec<Module> = serde_json::from_slice(modules).ok()?;
    let pooling = modules.into_iter().find(|module| module.class() == "Pooling")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (!pooling.path.is_empty() && pooling.path.chars().all(plain)).then_some(pooling.path)
}
