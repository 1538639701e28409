//! Commands that speak to a running coordinator: embed, receipts, disputes.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use gainsay_api::client::Client;
use gainsay_api::disputes::DisputeFilter;
use gainsay_api::embeddings::{EmbeddingInput, EmbeddingRequest, EncodingFormat};
use gainsay_commitment::DisputeId;
use gainsay_protocol::JobId;

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
    pub(crate) async fn connect(&self) -> Result<Client> {
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
    /// Prints the whole answer as JSON, and on stderr where it came from.
    pub(crate) async fn run(self) -> Result<()> {
        let request = EmbeddingRequest {
            model: self.model,
            input: EmbeddingInput::Texts(self.texts),
            encoding_format: EncodingFormat::Float,
            dimensions: None,
            user: None,
            max_price: None,
        };
        let client = self.coordinator.connect().await?;
        let response = client.embeddings(&self.api_key, &request).await?;
        print_json(&response)?;
        for part in &response.gainsay.parts {
            show_receipt(&client, &self.api_key, part.job).await?;
        }
        Ok(())
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

/// Says on stderr who answered a job, with which model, by which claim, and how final that is.
pub(crate) async fn show_receipt(client: &Client, api_key: &str, job: JobId) -> Result<()> {
    let receipt = client.receipt(api_key, job).await.context("the answer's receipt cannot be had")?;
    let finality = serde_json::to_value(receipt.finality).context("the receipt does not encode")?;
    eprintln!(
        "worker {}, model {} ({}), claim {}, {}: gainsay receipt {job}",
        receipt.worker.name,
        receipt.model_name,
        receipt.model,
        receipt.claim,
        finality.as_str().unwrap_or("of unknown finality"),
    );
    Ok(())
}

/// Prints an answer of the coordinator.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value).context("the answer does not encode")?);
    Ok(())
}
