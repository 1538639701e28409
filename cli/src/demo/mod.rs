//! `gainsay demo`: the whole story on one machine, with every party a process of its own.
//!
//! A cheat takes the first job and flips one bit of one operator's output; a challenger finds it, narrows it down and
//! proves it. Another cheat answers a prompt with one token that was never drawn, and is convicted of exactly that one.
//! Honest workers of two owners do the rest. At the end the demo re-runs every answer itself and compares.

mod report;
mod script;
mod sentences;
mod tally;
mod timeline;
mod words;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::stage::{Database, Stage};
use crate::terminal;
use report::Report;

/// Shows the whole path: honest work paid, a cheat convicted, every answer checked.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Print one JSON object on stdout instead of tables.
    #[arg(long)]
    json: bool,
    /// Use this PostgreSQL database, which has to be empty, instead of a private one.
    #[arg(long, value_name = "URL", env = "GAINSAY_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Use the model in this folder: all-MiniLM-L6-v2, or another encoder of the BERT family.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Use the language model in this folder; a small generated one, whose words mean nothing, if not given.
    #[arg(long, value_name = "DIR")]
    language_model: Option<PathBuf>,
    /// Keep logs, keys and evidence in this folder.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// The folder of one demo; removed at the end unless it is to be kept.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    fn new(keep: Option<PathBuf>) -> Result<Folder> {
        let (path, keep) = match keep {
            Some(path) => (path, true),
            None => (std::env::temp_dir().join(format!("gainsay-demo-{}", std::process::id())), false),
        };
        std::fs::create_dir_all(&path).with_context(|| format!("cannot write to {}", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("cannot enter {}", path.display()))?;
        if path.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{} is not empty: a demo starts from nothing", path.display());
        }
        Ok(Folder { path, keep })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // A folder that cannot be removed is left to the system's own cleaning of temporary files.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

impl DemoArguments {
    /// Runs the demo; whether everything that had to be true was.
    pub(crate) async fn run(self) -> Result<bool> {
        let started = Instant::now();
        let pulled = crate::pull::pull(self.model.as_deref()).await?;
        let folder = Folder::new(self.keep)?;
        let spinner = terminal::spinner("starting PostgreSQL");
        let database = match self.database_url {
            Some(url) => Database::Existing(url),
            None => Database::Temporary,
        };
        let bar = spinner.clone();
        let stage =
            Stage::new(folder.path.clone(), database, move |line| bar.set_message(line.to_owned())).await?;
        let played = script::play(stage, &pulled, self.language_model, spinner, started).await;
        if folder.keep {
            eprintln!("logs, keys and evidence are in {}", folder.path.display());
        }
        let report = played?;
        present(&report, self.json)?;
        Ok(report.ok)
    }
}

fn present(report: &Report, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(report).context("the report does not encode")?);
    } else {
        println!("{}", report.render());
        let outcome =
            if report.ok { "Everything that had to be true was." } else { "Something is wrong: see above." };
        println!("{outcome} {:.1} s in all.", report.seconds);
    }
    Ok(())
}
