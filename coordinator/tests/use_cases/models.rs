use gainsay_commitment::tensor::tensor_commitment;
use gainsay_commitment::{Canonical, ModelId, TensorCommitment};
use gainsay_coordinator::app::AppError;
use gainsay_program::toy::{Toy, ToyOptions};
use gainsay_program::{Dtype, JobInput};

use crate::support::World;

fn other_toy() -> Toy {
    Toy::new(&ToyOptions { seed: 99, blocks: 1, ..ToyOptions::default() }).unwrap()
}

#[tokio::test]
async fn a_model_takes_jobs_only_once_every_file_is_here() {
    let world = World::new().await;
    let toy = other_toy();
    let id = toy.model.id();
    let manifest = toy.model.manifest().to_bytes();
    let view = world.app.register_model(id, &manifest).await.unwrap();
    // The tokenizer is the one that the first model brought.
    assert_eq!(view.missing.len(), toy.weights.len());
    assert!(!view.is_serving());
    let input = toy.job(1, &[4]);
    let refused = world.app.submit_job(world.submitter, id, input.clone()).await;
    assert!(matches!(refused, Err(AppError::ModelIncomplete { .. })), "{refused:?}");

    for (index, file) in toy.weights.iter().enumerate() {
        assert!(!world.app.model(id).await.unwrap().is_serving(), "{index} of {} files", toy.weights.len());
        world.upload(file).await.unwrap();
    }
    assert!(world.app.model(id).await.unwrap().is_serving());
    world.app.submit_job(world.submitter, id, input).await.unwrap();
    world.check().await;
    assert_eq!(world.app.manifest_bytes(id).await.unwrap(), manifest);
    assert_eq!(world.app.models().await.unwrap().len(), 2);
    assert!(
        world.app.register_model(id, &manifest).await.unwrap().is_serving(),
        "registering again is harmless"
    );
}

#[tokio::test]
async fn a_file_is_what_its_hash_says_or_is_not_taken() {
    let world = World::new().await;
    let toy = other_toy();
    world.app.register_model(toy.model.id(), &toy.model.manifest().to_bytes()).await.unwrap();
    let hash = toy.model.manifest().tensors[0].commitment;
    let right = &toy.weights[0];

    let mut wrong = right.clone();
    wrong[0] ^= 1;
    let mut upload = world.app.begin_blob(hash).await.unwrap();
    assert!(upload.write(&wrong).await.unwrap());
    let refused = world.app.finish_blob(upload).await;
    assert!(matches!(refused, Err(AppError::BlobMismatch { .. })), "{refused:?}");

    let mut upload = world.app.begin_blob(hash).await.unwrap();
    assert!(upload.write(&right[..8]).await.unwrap());
    let refused = world.app.finish_blob(upload).await;
    assert!(matches!(refused, Err(AppError::BlobMismatch { .. })), "{refused:?}");

    let mut upload = world.app.begin_blob(hash).await.unwrap();
    assert!(upload.write(right).await.unwrap());
    assert!(!upload.write(&[0]).await.unwrap(), "longer than the manifest says");
    drop(upload);
    assert!(matches!(world.app.blob(hash).await, Err(AppError::UnknownBlob(_))));

    world.upload(right).await.unwrap();
    world.upload(right).await.unwrap();
    let mut blob = world.app.blob(hash).await.unwrap();
    assert_eq!(blob.len(), right.len() as u64);
    let mut read = Vec::new();
    while let Some(part) = blob.next().await.unwrap() {
        read.extend(part);
    }
    assert_eq!(&read, right);
}

/// Whoever registers first must neither keep a file from another's model, nor be served by one whose tensor cannot be
/// opened.
#[tokio::test]
async fn a_manifest_that_lies_about_a_length_harms_only_itself() {
    let world = World::new().await;
    let toy = other_toy();
    let lengths = toy.weights.iter().map(Vec::len).enumerate();
    let (longest, _) = lengths.clone().max_by_key(|(_, bytes)| *bytes).unwrap();
    let (shortest, _) = lengths.min_by_key(|(_, bytes)| *bytes).unwrap();
    let file = toy.model.manifest().tensors[longest].commitment;
    let mut manifest = toy.model.manifest().clone();
    manifest.tensors[shortest].commitment = file;
    let liar = manifest.id();
    world.app.register_model(liar, &manifest.to_bytes()).await.unwrap();
    world.app.register_model(toy.model.id(), &toy.model.manifest().to_bytes()).await.unwrap();
    for file in &toy.weights {
        world.upload(file).await.unwrap();
    }
    assert!(world.app.model(toy.model.id()).await.unwrap().is_serving());
    let view = world.app.model(liar).await.unwrap();
    assert_eq!((view.is_serving(), view.missing), (false, vec![file]));
}

/// Honest parties refuse to load such a weight, so a claim over it would be checked by nobody.
#[tokio::test]
async fn a_model_whose_weight_holds_a_refused_value_takes_no_jobs() {
    let world = World::new().await;
    let toy = other_toy();
    let mut weights = toy.weights.clone();
    let mut manifest = toy.model.manifest().clone();
    let index = manifest.tensors.iter().position(|spec| spec.dtype == Dtype::F32).unwrap();
    // The smallest subnormal: stored values are never subnormal.
    weights[index][..4].copy_from_slice(&1_u32.to_le_bytes());
    let file = tensor_commitment(&weights[index]);
    manifest.tensors[index].commitment = file;
    let id = manifest.id();
    world.app.register_model(id, &manifest.to_bytes()).await.unwrap();
    for file in &weights {
        world.upload(file).await.unwrap();
    }
    let view = world.app.model(id).await.unwrap();
    assert_eq!((view.is_serving(), view.missing), (false, vec![file]));
    let refused = world.app.submit_job(world.submitter, id, toy.job(1, &[4])).await;
    assert!(matches!(refused, Err(AppError::ModelIncomplete { .. })), "{refused:?}");
}

#[tokio::test]
async fn files_that_no_manifest_names_are_not_taken() {
    let world = World::new().await;
    let hash = TensorCommitment::from_bytes([7; 32]);
    assert!(matches!(world.app.begin_blob(hash).await, Err(AppError::UnknownBlob(_))));
    assert!(matches!(world.app.blob(hash).await, Err(AppError::UnknownBlob(_))));
}

#[tokio::test]
async fn a_manifest_is_what_its_id_says_or_is_not_taken() {
    let world = World::new().await;
    let toy = other_toy();
    let manifest = toy.model.manifest().to_bytes();
    let other = ModelId::from_bytes([3; 32]);
    let refused = world.app.register_model(other, &manifest).await;
    assert!(matches!(refused, Err(AppError::ManifestIdMismatch { .. })));
    let refused = world.app.register_model(toy.model.id(), &manifest[1..]).await;
    assert!(matches!(refused, Err(AppError::InvalidManifest(_))));
    let mut trailing = manifest;
    trailing.push(0);
    let refused = world.app.register_model(toy.model.id(), &trailing).await;
    assert!(matches!(refused, Err(AppError::InvalidManifest(_))));
    assert!(matches!(world.app.model(toy.model.id()).await, Err(AppError::UnknownModel(_))));
}

#[tokio::test]
async fn input_that_the_model_cannot_take_is_refused_and_costs_nothing() {
    let world = World::new().await;
    let model = world.toy().model.id();
    let manifest = world.toy().model.manifest();
    let too_long = JobInput::new([vec![1; manifest.max_sequence as usize + 1]]).unwrap();
    let unknown_token = JobInput::new([[manifest.vocabulary]]).unwrap();
    for input in [too_long, unknown_token] {
        let refused = world.app.submit_job(world.submitter, model, input).await;
        assert!(matches!(refused, Err(AppError::InvalidInput(_))), "{refused:?}");
    }
    let unknown = ModelId::from_bytes([3; 32]);
    let refused = world.app.submit_job(world.submitter, unknown, JobInput::new([[1]]).unwrap()).await;
    assert!(matches!(refused, Err(AppError::UnknownModel(_))));
    world.check().await;
    assert_eq!(world.count("select count(*) from jobs").await, 0);
}
