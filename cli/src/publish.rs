//! Puts a model into a coordinator's store: the manifest, then every blob that the store still lacks.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use gainsay_api::client::{Auth, Client};
use gainsay_commitment::tensor::tensor_commitment;
use gainsay_commitment::{Canonical as _, ModelId, TensorCommitment};
use gainsay_program::Manifest;
use indicatif::ProgressBar;

use crate::local::LocalModel;

/// Uploads what is missing; `progress` counts its bytes. Uploading again what is there already costs one request.
pub(crate) async fn publish(
    client: &Client,
    auth: Auth<'_>,
    model: &LocalModel,
    progress: &ProgressBar,
) -> Result<ModelId> {
    let id = model.id();
    let view =
        client.put_model(auth, id, model.manifest.to_bytes()).await.context("the manifest was refused")?;
    let blobs = blobs(&model.manifest, model);
    let count = view.missing.len();
    let length = |hash| blobs.get(hash).map_or(0, |bytes| bytes.len() as u64);
    progress.set_length(view.missing.iter().map(length).sum());
    for (index, hash) in view.missing.iter().enumerate() {
        let Some(bytes) = blobs.get(hash) else {
            bail!("the coordinator asks for {hash}, which this model does not have");
        };
        progress.set_message(format!("uploading weights: {} of {count}", index + 1));
        client.put_blob(auth, bytes.to_vec()).await.with_context(|| format!("{hash} was refused"))?;
        progress.inc(bytes.len() as u64);
    }
    let left = client.put_model(auth, id, model.manifest.to_bytes()).await?.missing;
    match left.first() {
        None => Ok(id),
        Some(hash) => bail!("the coordinator does not take {hash}: it holds a value that no weight may hold"),
    }
}

fn blobs<'a>(manifest: &Manifest, model: &'a LocalModel) -> BTreeMap<TensorCommitment, &'a [u8]> {
    let weights =
        manifest.tensors.iter().map(|tensor| tensor.commitment).zip(model.weights.iter().map(Vec::as_slice));
    let tokenizer = (tensor_commitment(&model.tokenizer), model.tokenizer.as_slice());
    let template = model.template.as_deref().map(|bytes| (tensor_commitment(bytes), bytes));
    weights.chain([tokenizer]).chain(template).collect()
}
