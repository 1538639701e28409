//! `gainsay models`: what a coordinator serves, and registering more.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use gainsay_api::client::Auth;
use gainsay_program::lowering::{ActivationWidths, LowerOptions};
use gainsay_program::{ActivationBits, ArithmeticProfile, KvDtype};
use indicatif::HumanBytes;

use crate::hub::{Hub, HubId};
use crate::local::LocalModel;
use crate::publish::publish;
use crate::submit::{Coordinator, print_json};
use crate::terminal;

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// List the models of a coordinator
    List {
        #[command(flatten)]
        coordinator: Coordinator,
    },
    /// Register a model from a folder of Hugging Face files or from a hub
    Add(AddArguments),
}

impl ModelsCommand {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::List { coordinator } => print_json(&coordinator.connect().await?.models().await?.data),
            Self::Add(arguments) => arguments.run().await,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    #[command(flatten)]
    coordinator: Coordinator,
    /// The operator's token.
    #[arg(long, env = "GAINSAY_OPERATOR_TOKEN", hide_env_values = true)]
    operator_token: String,
    /// A folder of Hugging Face files, or a model of a hub: OWNER/NAME or OWNER/NAME@REVISION, from the hub that HF_ENDPOINT
    /// names, with the token in HF_TOKEN.
    #[arg(value_name = "DIR|HUB_ID")]
    model: String,
    /// Name to register it under; the folder's name, or the hub's, if not given.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    lowering: LoweringArguments,
}

/// How a model's linear layers are computed.
#[derive(Debug, Args)]
struct LoweringArguments {
    /// The arithmetic of its linear layers.
    #[arg(long, value_enum, default_value = "f32")]
    arithmetic: Arithmetic,
    /// Elements of a row that share an int8 scale, where that divides the row; 0 for whole rows. [default: 128]
    #[arg(long, value_name = "N")]
    group: Option<u32>,
    /// Bits of the quantized activations. [default: mixed]
    #[arg(long, value_enum, value_name = "BITS")]
    activation_bits: Option<Bits>,
    /// Of a language model: type of cached keys and values. [default: bf16]
    #[arg(long, value_enum)]
    kv_dtype: Option<Cached>,
    /// Of a language model: tokens of the longest sequence, where that is to be less than the model can.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    max_sequence: Option<u32>,
}

/// Type of cached keys and values.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cached {
    /// Rounded to 16 bits before attention reads them.
    Bf16,
    /// As they are.
    F32,
}

/// The arithmetic that a model is registered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Arithmetic {
    /// Weights as they are.
    F32,
    /// Weights of linear layers quantized to 8 bits.
    Int8,
}

/// Width of quantized activations.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bits {
    /// One integer product.
    #[value(name = "8")]
    Eight,
    /// Two integer products, and less lost.
    #[value(name = "16")]
    Sixteen,
    /// 16 for what comes from a norm, 8 for the rest.
    Mixed,
}

impl LoweringArguments {
    fn options(&self, name: String) -> Result<LowerOptions> {
        let kv_dtype = self.kv_dtype.map(|kv_dtype| match kv_dtype {
            Cached::Bf16 => KvDtype::Bf16,
            Cached::F32 => KvDtype::F32,
        });
        Ok(LowerOptions { kv_dtype, max_sequence: self.max_sequence, ..self.linears(name)? })
    }

    /// The options with what is said about linear layers.
    fn linears(&self, name: String) -> Result<LowerOptions> {
        if self.arithmetic == Arithmetic::F32 {
            if self.group.is_some() || self.activation_bits.is_some() {
                bail!("--group and --activation-bits are for --arithmetic int8: f32 quantizes nothing");
            }
            return Ok(LowerOptions::new(name, ArithmeticProfile::ExactF32V1));
        }
        let usual = LowerOptions::new(name, ArithmeticProfile::ExactInt8V1);
        let widths = |bits| match bits {
            Bits::Eight => ActivationWidths::all(ActivationBits::Eight),
            Bits::Sixteen => ActivationWidths::all(ActivationBits::Sixteen),
            Bits::Mixed => ActivationWidths::AFTER_NORMS,
        };
        Ok(LowerOptions {
            int8_group: self.group.unwrap_or(usual.int8_group),
            activations: self.activation_bits.map_or(usual.activations, widths),
            ..usual
        })
    }
}

impl AddArguments {
    /// Lowers, uploads what the coordinator lacks, and prints the model's id; what else there is to say goes to stderr.
    async fn run(self) -> Result<()> {
        let folder = PathBuf::from(&self.model);
        let hub_id = if folder.is_dir() { None } else { Some(self.model.parse::<HubId>()?) };
        let name = match (self.name, &hub_id) {
            (Some(name), _) => name,
            (None, Some(id)) => id.name.clone(),
            (None, None) => folder_name(&folder)?,
        };
        let options = self.lowering.options(name)?;
        let client = self.coordinator.connect().await?;
        let folder = match &hub_id {
            Some(id) => Hub::from_env()?.pull(id).await?,
            None => folder,
        };
        let model = lower(folder, options).await?;
        let size: usize = model.weights.iter().map(Vec::len).sum();
        let bar = terminal::byte_bar("uploading", 0);
        let id = publish(&client, Auth::Bearer(&self.operator_token), &model, &bar).await?;
        bar.finish_and_clear();
        println!("{id}");
        let manifest = &model.manifest;
        let (tensors, arithmetic) = (manifest.tensors.len(), manifest.arithmetic.name());
        eprintln!("{}: {arithmetic}, {tensors} tensors, {}", manifest.name, HumanBytes(size as u64));
        if let Some(wanted) = model.cut_from {
            let longest = manifest.max_sequence;
            eprintln!(
                "sequences of up to {longest} tokens, not {wanted}: a layer of longer ones takes too much memory"
            );
        }
        Ok(())
    }
}

/// The name of the folder itself, `.` and links resolved.
fn folder_name(dir: &Path) -> Result<String> {
    let dir = dir.canonicalize().with_context(|| format!("cannot open {}", dir.display()))?;
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned());
    name.with_context(|| format!("{} has no name of its own: give one by --name", dir.display()))
}

async fn lower(dir: PathBuf, options: LowerOptions) -> Result<LocalModel> {
    let files = std::fs::read_dir(&dir).into_iter().flatten().flatten();
    let weights =
        files.filter(|file| file.path().extension().is_some_and(|extension| extension == "safetensors"));
    let length = weights.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum();
    let bar = terminal::byte_bar("quantizing and hashing", length);
    let progress = bar.clone();
    let read = move || LocalModel::read(&dir, &options, &mut |bytes| progress.inc(bytes));
    let model = tokio::task::spawn_blocking(read).await.context("reading the model ended early")??;
    bar.finish_and_clear();
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(
        arithmetic: Arithmetic,
        group: Option<u32>,
        activation_bits: Option<Bits>,
    ) -> Result<LowerOptions> {
        let (kv_dtype, max_sequence) = (Some(Cached::F32), Some(100));
        let arguments = LoweringArguments { arithmetic, group, activation_bits, kv_dtype, max_sequence };
        let options = arguments.options("m".to_owned())?;
        assert_eq!((options.kv_dtype, options.max_sequence), (Some(KvDtype::F32), Some(100)));
        Ok(LowerOptions { kv_dtype: None, max_sequence: None, ..options })
    }

    #[test]
    fn int8_has_groups_and_widths() {
        let usual = options(Arithmetic::Int8, None, None).unwrap();
        assert_eq!(usual, LowerOptions::new("m", ArithmeticProfile::ExactInt8V1));
        let other = options(Arithmetic::Int8, Some(0), Some(Bits::Sixteen)).unwrap();
        assert_eq!(other.int8_group, 0);
        assert_eq!(other.activations, ActivationWidths::all(ActivationBits::Sixteen));
    }

    #[test]
    fn f32_has_neither() {
        assert!(options(Arithmetic::F32, None, None).is_ok());
        assert!(options(Arithmetic::F32, Some(128), None).is_err());
        assert!(options(Arithmetic::F32, None, Some(Bits::Eight)).is_err());
    }

    #[test]
    fn a_folder_has_the_name_that_it_has_where_it_is() {
        assert_eq!(folder_name(Path::new("src/..")).unwrap(), folder_name(Path::new(".")).unwrap());
        assert!(folder_name(Path::new("/")).is_err());
        assert!(folder_name(Path::new("no such folder")).is_err());
    }
}
