//! `gainsay dev`: a coordinator, a worker and a challenger on this machine, until interrupted.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use gainsay_api::client::files::{Privacy, write_atomically};
use gainsay_api::client::{Auth, Client};
use gainsay_program::ArithmeticProfile;
use gainsay_program::lowering::LowerOptions;

use crate::cast;
use crate::local::LocalModel;
use crate::stage::{Database, Stage};
use crate::terminal;

/// How often the processes are looked after.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Stays up until interrupted; what it stores is there the next time.
#[derive(Debug, Args)]
pub(crate) struct DevArguments {
    /// Where the coordinator listens.
    #[arg(long, default_value = "127.0.0.1:8650")]
    listen: SocketAddr,
    /// Folder for the database, keys and weights; where the system keeps such things, if not given.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Use this PostgreSQL database instead of a private one in the data folder.
    #[arg(long, value_name = "URL", env = "GAINSAY_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Serve the model in this folder: all-MiniLM-L6-v2, or another encoder of the BERT family.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

impl DevArguments {
    pub(crate) async fn run(self) -> Result<()> {
        let pulled = crate::pull::pull(self.model.as_deref()).await?;
        let dir = self.data_dir.or_else(default_data_dir).context("give a folder by --data-dir DIR")?;
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot write to {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("cannot enter {}", dir.display()))?;
        let spinner = terminal::spinner("starting PostgreSQL");
        let database = match self.database_url {
            Some(url) => Database::Existing(url),
            None => Database::Kept,
        };
        let bar = spinner.clone();
        let mut stage =
            Stage::new(dir.clone(), database, move |line| bar.set_message(line.to_owned())).await?;

        spinner.set_message("starting the coordinator");
        let token = secret(&dir.join("operator.token"), cast::random_token)?;
        let settings = [("GAINSAY_OPERATOR_TOKEN", token.clone())];
        let url = stage.coordinator(&self.listen.to_string(), &settings).await?;
        let client = Client::connect(&url).await.context("the coordinator does not answer")?;
        let api_key = api_key(&dir.join("submitter.key"), &client, &token).await?;

        spinner.set_message("reading the model and hashing its weights");
        let model_dir = pulled.dir.clone();
        let model = tokio::task::spawn_blocking(move || {
            LocalModel::read(
                &model_dir,
                &LowerOptions::new(gainsay_model_source::DEFAULT_MODEL, ArithmeticProfile::ExactF32V1),
                &mut |_| {},
            )
        })
        .await
        .context("reading the model ended early")??;
        crate::publish::publish(&client, Auth::Bearer(&token), &model, &spinner).await?;
        drop(model);
        for (role, name, owner) in
            [("worker", "worker-1", "worker-owner"), ("challenger", "challenger-1", "challenger-owner")]
        {
            let owner = cast::owner(&stage, &client, &token, owner).await?;
            stage.party(role, name, &owner, &url, &[])?;
        }
        spinner.finish_and_clear();
        println!("{}", welcome(&url, &api_key, &dir));
        let outcome = watch(&mut stage).await;
        stage.stop().await?;
        outcome
    }
}

/// A folder that the database's user may enter, which root's home is not.
fn default_data_dir() -> Option<PathBuf> {
    gainsay_private_postgres::persistent_data_dir()?.parent().map(Into::into)
}

/// Returns when interrupted, or with an error when a process ends by itself.
async fn watch(stage: &mut Stage) -> Result<()> {
    loop {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => return interrupted.context("cannot listen for SIGINT"),
            () = tokio::time::sleep(CHECK_EVERY) => stage.check()?,
        }
    }
}

fn secret(path: &std::path::Path, make: impl FnOnce() -> Result<String>) -> Result<String> {
    if let Ok(text) = std::fs::read_to_string(path) {
        return Ok(text.trim().to_owned());
    }
    let text = make()?;
    write_atomically(path, text.as_bytes(), Privacy::Secret)?;
    Ok(text)
}

/// The key of this folder's submitter. The database may be another one than last time: then the key is made anew.
async fn api_key(path: &std::path::Path, client: &Client, token: &str) -> Result<String> {
    if let Ok(text) = std::fs::read_to_string(path) {
        let key = text.trim().to_owned();
        if client.accounts(Auth::Bearer(&key), Default::default()).await.is_ok() {
            return Ok(key);
        }
    }
    let submitter = cast::submitter(client, token, "developer").await?;
    write_atomically(path, submitter.api_key.as_bytes(), Privacy::Secret)?;
    Ok(submitter.api_key)
}

fn welcome(url: &str, api_key: &str, dir: &std::path::Path) -> String {
    let model = gainsay_model_source::DEFAULT_MODEL;
    format!(
        "Gainsay is up at {url} (open it in a browser to watch; /docs describes the API). Ctrl-C stops it; everything is kept in {}.

  export GAINSAY_URL={url} GAINSAY_API_KEY={api_key}
  gainsay embed 'Intelligence becomes infrastructure.'

  curl {url}/v1/embeddings -H 'Authorization: Bearer {api_key}' -H 'Content-Type: application/json' \\
    -d '{{\"model\": \"{model}\", \"input\": \"Intelligence becomes infrastructure.\"}}'

With the stock OpenAI client: base_url={url}/v1 and the same key.",
        dir.display()
    )
}
