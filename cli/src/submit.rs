//! Commands that speak to a running coordinator: embed, receipts, models, disputes.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use gainsay_api::client::{Auth, Client};
use gainsay_api::disputes::DisputeFilter;
use gainsay_api::embeddings::{EmbeddingInput, EmbeddingRequest, EncodingFormat};
use gainsay_commitment::DisputeId;
use gainsay_program::ArithmeticProfile;
use gainsay_protocol::JobId;

use crate::local::LocalModel;
use crate::terminal;

/// Which coordinator.
#[derive(Debug, Args)]
pub(crate) struct Coordinator {
    /// Address of the coordinator.
    #[arg(
        long = "coordinator",
        value_name = "URL",
        env = "GAINSAY_URL",
        default_value = "http://127.0.0.1:8650"
    )]
    url: String,
}

impl Coordinator {
    async fn connect(&self) -> Result<Client> {
        Client::connect(&self.url).await.with_context(|| format!("no coordinator at {}", self.url))
    }
}

#[derive(Debug, Args)]
pub(crate) struct EmbedArguments {
    #[command(flatten)]
    coordinator: Coordinator,
    /// Key of the submitter who pays.
    #[arg(long, env = "GAINSAY_API_KEY", hide_env_values = true)]
    api_key: String,
    /// Name or id of the model.
    #[arg(long, default_value = gainsay_model_source::DEFAULT_MODEL)]
    model: String,
    /// What to embed.
    #[arg(required = true)]
    texts: Vec<String>,
}

impl EmbedArguments {
    /// Prints the whole answer as JSON.
    pub(crate) async fn run(self) -> Result<()> {
        let request = EmbeddingRequest {
            model: self.model,
            input: EmbeddingInput::Texts(self.texts),
            encoding_format: EncodingFormat::Float,
            dimensions: None,
            user: None,
            max_price: None,
        };
        let response = self.coordinator.connect().await?.embeddings(&self.api_key, &request).await?;
        print_json(&response)
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReceiptArguments {
    #[command(flatten)]
    coordinator: Coordinator,
    /// Key of the submitter whose job it is.
    #[arg(long, env = "GAINSAY_API_KEY", hide_env_values = true)]
    api_key: String,
    /// Id of the job.
    job: JobId,
}

impl ReceiptArguments {
    pub(crate) async fn run(self) -> Result<()> {
        print_json(&self.coordinator.connect().await?.receipt(&self.api_key, self.job).await?)
    }
}

/// The arithmetic that a model is registered with.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Arithmetic {
    /// Weights as they are.
    F32,
    /// Linears quantized to 8 bits.
    Int8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// List the models of a coordinator
    List {
        #[command(flatten)]
        coordinator: Coordinator,
    },
    /// Register the model in a folder of Hugging Face files
    Add {
        #[command(flatten)]
        coordinator: Coordinator,
        /// The operator's token.
        #[arg(long, env = "GAINSAY_OPERATOR_TOKEN", hide_env_values = true)]
        operator_token: String,
        /// The folder.
        dir: PathBuf,
        /// Name to register it under; the folder's name if not given.
        #[arg(long)]
        name: Option<String>,
        /// How its linear layers are computed.
        #[arg(long, value_enum, default_value = "f32")]
        arithmetic: Arithmetic,
    },
}

impl ModelsCommand {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::List { coordinator } => print_json(&coordinator.connect().await?.models().await?.data),
            Self::Add { coordinator, operator_token, dir, name, arithmetic } => {
                let folder_name = || dir.file_name().map(|name| name.to_string_lossy().into_owned());
                let Some(name) = name.or_else(folder_name) else {
                    bail!("{} has no name of its own: give one by --name", dir.display());
                };
                let profile = match arithmetic {
                    Arithmetic::F32 => ArithmeticProfile::ExactF32V1,
                    Arithmetic::Int8 => ArithmeticProfile::ExactInt8V1,
                };
                let client = coordinator.connect().await?;
                let spinner = terminal::spinner("reading the model and hashing its weights");
                let model = tokio::task::spawn_blocking(move || LocalModel::read(&dir, &name, profile))
                    .await
                    .context("reading the model ended early")??;
                let id =
                    crate::publish::publish(&client, Auth::Bearer(&operator_token), &model, &spinner).await?;
                spinner.finish_and_clear();
                println!("{id}");
                Ok(())
            }
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum DisputesCommand {
    /// List disputes, newest first
    List {
        #[command(flatten)]
        coordinator: Coordinator,
    },
    /// Show one dispute with its moves
    Show {
        #[command(flatten)]
        coordinator: Coordinator,
        /// Id of the dispute.
        dispute: DisputeId,
    },
    /// Save the evidence of an ended dispute, for `gainsay verify`
    Evidence {
        #[command(flatten)]
        coordinator: Coordinator,
        /// Id of the dispute.
        dispute: DisputeId,
        /// File to write.
        file: PathBuf,
    },
}

impl DisputesCommand {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::List { coordinator } => {
                print_json(&coordinator.connect().await?.disputes(&DisputeFilter::default()).await?.disputes)
            }
            Self::Show { coordinator, dispute } => {
                print_json(&coordinator.connect().await?.dispute(dispute).await?)
            }
            Self::Evidence { coordinator, dispute, file } => {
                let bundle = coordinator.connect().await?.evidence(dispute).await?;
                std::fs::write(&file, &bundle).with_context(|| format!("cannot write {}", file.display()))?;
                println!("{} bytes in {}: gainsay verify {}", bundle.len(), file.display(), file.display());
                Ok(())
            }
        }
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value).context("the answer does not encode")?);
    Ok(())
}
