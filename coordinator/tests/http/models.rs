//! Publishing a model: manifest first, then every file by its hash.

use std::sync::Arc;

use gainsay_api::ErrorCode;
use gainsay_api::client::Auth;
use gainsay_commitment::tensor::tensor_commitment;
use gainsay_testkit::{OPERATOR_TOKEN, TestCoordinator, TestOwner, TestSubmitter, ToyModel};

use crate::raw::{bearer, send, send_signed};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_model_takes_jobs_once_every_file_is_there() {
    let test = TestCoordinator::start().await;
    let client = test.client().await;
    let owner = TestOwner::register(&client, "owner", 0).await;
    let submitter = TestSubmitter::register(&client, "submitter", 1_000_000).await;
    let model = ToyModel::default();
    let by = Auth::Key(&owner.key);
    let registered = client.put_model(by, model.id(), model.manifest()).await.expect("a valid manifest");
    assert!(!registered.complete);
    assert_eq!(registered.missing.len(), model.files().count());
    assert_eq!(registered.layers, model.toy.model.layer_count());

    let job = gainsay_api::jobs::SubmitJob {
        model: model.name().to_owned(),
        input: gainsay_api::embeddings::EmbeddingInput::Text("one".to_owned()),
        max_price: None,
    };
    for file in model.files() {
        let refusal = client.submit_job(&submitter.api_key, &job).await.unwrap_err();
        assert_eq!(refusal.code(), Some(ErrorCode::ModelIncomplete));
        client.put_blob(by, file.to_vec()).await.expect("a file of the manifest");
    }
    let listed = client.models().await.expect("the list").data;
    assert_eq!(listed.len(), 1);
    assert!(listed[0].complete && listed[0].missing.is_empty());
    client.submit_job(&submitter.api_key, &job).await.expect("the model takes jobs");
    assert_eq!(client.manifest(model.id()).await.expect("the manifest"), model.manifest());
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_checked_against_their_hash_and_length() {
    let test = TestCoordinator::start().await;
    let client = test.client().await;
    let model = ToyModel::default();
    let operator = bearer(OPERATOR_TOKEN);
    client
        .put_model(Auth::Bearer(OPERATOR_TOKEN), model.id(), model.manifest())
        .await
        .expect("a valid manifest");
    let file = model.files().next().expect("a model has weights").to_vec();
    let path = format!("/v1/blobs/{}", tensor_commitment(&file));
    let put = async |body: &[u8]| send(&test, "PUT", &path, &operator, body).await;

    let mut flipped = file.clone();
    flipped[0] ^= 1;
    put(&flipped).await.refused(422, ErrorCode::BlobHashMismatch);
    put(&file[1..]).await.refused(422, ErrorCode::BlobHashMismatch);
    put(&[&file[..], &[0]].concat()).await.refused(413, ErrorCode::BodyTooLarge);
    send(&test, "PUT", &path, &[], &file).await.refused(401, ErrorCode::MissingCredentials);
    let unwanted = format!("/v1/blobs/{}", tensor_commitment(b"nobody's"));
    send(&test, "PUT", &unwanted, &operator, b"nobody's").await.refused(409, ErrorCode::BlobNotWanted);
    send(&test, "GET", &path, &[], &[]).await.refused(404, ErrorCode::UnknownBlob);
    // What was refused leaves nothing on disk.
    let incoming = test.folder().join("blobs/incoming");
    assert_eq!(std::fs::read_dir(incoming).expect("the folder exists").count(), 0);

    assert_eq!(put(&file).await.status, 204);
    let whole = send(&test, "GET", &path, &[], &[]).await;
    assert_eq!((whole.status, whole.body), (200, file.clone()));
    let range = [("range".to_owned(), "bytes=100-".to_owned())];
    let rest = send(&test, "GET", &path, &range, &[]).await;
    assert_eq!((rest.status, &rest.body[..]), (206, &file[100..]));
    let total = file.len();
    assert_eq!(rest.header("content-range"), Some(format!("bytes 100-{}/{total}", total - 1).as_str()));
    let beyond = [("range".to_owned(), format!("bytes={total}-"))];
    send(&test, "GET", &path, &beyond, &[]).await.refused(416, ErrorCode::InvalidRequest);
    test.stop().await;
}

/// The signature of an upload covers the hash in its path: other bytes under a good signature are refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_uploads_by_signature() {
    let test = TestCoordinator::start().await;
    let client = test.client().await;
    let owner = TestOwner::register(&client, "owner", 0).await;
    let model = ToyModel::default();
    let by = Auth::Key(&owner.key);
    client.put_model(by, model.id(), model.manifest()).await.expect("a valid manifest");
    let file = model.files().next().expect("a model has weights").to_vec();
    let path = format!("/v1/blobs/{}", tensor_commitment(&file));
    let answer = send_signed(&test, &owner.worker, "PUT", &path, &file).await;
    answer.refused(401, ErrorCode::UnknownParty);
    assert_eq!(send_signed(&test, &owner.key, "PUT", &path, &file).await.status, 204);
    test.stop().await;
}

/// Whoever could register a second model under a known name would answer in its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_stays_with_the_model_that_had_it_first() {
    let world = World::new().await;
    let options = gainsay_program::toy::ToyOptions { seed: 2, ..Default::default() };
    let namesake = Arc::new(ToyModel::new(&options));
    assert_eq!(namesake.name(), world.model.name());
    assert_ne!(namesake.id(), world.model.id());
    namesake.publish(&world.client).await;
    let mut job = world.job("one");
    job.model = world.model.name().to_owned();
    let submitted = world.client.submit_job(&world.submitter.api_key, &job).await.expect("a job");
    assert_eq!(submitted.model, world.model.id());
    job.model = namesake.id().to_string();
    let submitted = world.client.submit_job(&world.submitter.api_key, &job).await.expect("a job");
    assert_eq!(submitted.model, namesake.id());
    world.test.stop().await;
}
