//! The people of `demo` and `dev`: a submitter with an API key, owners with keys and money.

use std::path::PathBuf;

use anyhow::{Context, Result};
use gainsay_api::accounts::Deposit;
use gainsay_api::client::{Client, keys};
use gainsay_api::parties::SubmitterRegistered;

use crate::stage::Stage;

/// Micro-credits that a submitter starts with: thousands of jobs at the default prices.
pub(crate) const SUBMITTER_CREDITS: i64 = 100_000_000;
/// Micro-credits that an owner starts with: stakes for its workers' leases, bonds for its challengers. A stake is locked until
/// its claim's window has closed, so that a worker with less would stop in the middle of a busy few minutes.
pub(crate) const OWNER_CREDITS: i64 = 5_000_000_000;

/// Registers a submitter and gives it money.
pub(crate) async fn submitter(
    client: &Client,
    operator_token: &str,
    name: &str,
) -> Result<SubmitterRegistered> {
    let submitter = client.register_submitter(name).await.context("the submitter was not registered")?;
    let deposit = Deposit { to: submitter.id, amount: SUBMITTER_CREDITS };
    client.deposit(operator_token, &deposit).await.context("the submitter's deposit failed")?;
    Ok(submitter)
}

/// An owner of workers and challengers.
pub(crate) struct Owner {
    pub(crate) name: String,
    pub(crate) key_file: PathBuf,
}

/// Registers an owner under a key file of its own in the stage's folder, and gives it money. One whose key file is
/// there already has been through this, and keeps what it has.
pub(crate) async fn owner(stage: &Stage, client: &Client, operator_token: &str, name: &str) -> Result<Owner> {
    let path = stage.dir().join("owners").join(format!("{name}.key"));
    let is_new = !path.exists();
    std::fs::create_dir_all(path.parent().expect("the path has a folder"))
        .context("cannot write owners' keys")?;
    let key = keys::load_or_create(&path)?;
    let owner =
        client.register_owner(&key, name).await.with_context(|| format!("{name} was not registered"))?;
    if is_new {
        let deposit = Deposit { to: owner.owner, amount: OWNER_CREDITS };
        client
            .deposit(operator_token, &deposit)
            .await
            .with_context(|| format!("the deposit of {name} failed"))?;
    }
    Ok(Owner { name: name.to_owned(), key_file: path })
}

/// A bearer token that nobody can guess.
pub(crate) fn random_token() -> Result<String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).context("the system has no random bytes")?;
    Ok(hex::encode(bytes))
}
