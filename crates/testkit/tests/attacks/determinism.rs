//! Determinism: a job that makes honest parties disagree would convict one of them.

use gainsay_commitment::Canonical;
use gainsay_commitment::tensor::tensor_commitment;
use gainsay_program::OpPlace;
use gainsay_program::toy::Toy;
use gainsay_testkit::zoo::{Answer, Stage};
use gainsay_testkit::{TestCoordinator, ToyModel};

use crate::parties::{Parties, run_engine};
use crate::support::{convicted, stands};

/// Weights so large, each of them finite, that what is computed with them is infinite and then not a number.
fn overflowing() -> ToyModel {
    let ToyModel { toy: Toy { model, mut weights }, tokenizer } = ToyModel::default();
    let mut manifest = model.manifest().clone();
    for (tensor, bytes) in manifest.tensors.iter_mut().zip(&mut weights) {
        if tensor.rows > 1 {
            for number in bytes.as_chunks_mut::<4>().0 {
                *number = (f32::from_le_bytes(*number).signum() * 3e38).to_le_bytes();
            }
        }
        tensor.commitment = tensor_commitment(bytes);
    }
    manifest.name = "overflowing".to_owned();
    let model = manifest.validate().expect("values do not make a program invalid");
    ToyModel { toy: Toy { model, weights }, tokenizer }
}

fn is_not_finite(output: &[u8]) -> bool {
    output.as_chunks::<4>().0.iter().any(|number| !f32::from_le_bytes(*number).is_finite())
}

/// A claim that holds NaN is a claim like any other: right or wrong, and disputed down to its bits.
#[tokio::test(flavor = "multi_thread")]
async fn nan_producing_weights() {
    let stage = Stage::with(TestCoordinator::builder(), overflowing()).await;
    let owner = stage.owner("worker").await;
    let claimed = stage.claimed(&owner, Answer::right).await;
    assert!(is_not_finite(&claimed.answer.output), "the model overflows");
    let engine = run_engine(&stage.model, &[&[3, 1, 4]]);
    assert_eq!(engine.output, claimed.answer.output, "the engine gives the reference's bits");
    assert_eq!(engine.layers, claimed.answer.layers);
    stands(&stage, &claimed, 3, owner.id).await;
    stage.end().await;

    let stage = Stage::with(TestCoordinator::builder(), overflowing()).await;
    // In the layer's last op, where no later one makes NaN of it again.
    let last = stage.model.toy.model.ops(0).len() as u32 - 1;
    convicted(stage, |model, lease| Answer::flipped(model, lease, OpPlace::in_layer(0, last))).await;
}

/// Real workers and challengers agree on what is not a number.
#[tokio::test(flavor = "multi_thread")]
async fn nan_makes_no_honest_parties_disagree() {
    let stage = Stage::with(TestCoordinator::builder(), overflowing()).await;
    let parties = Parties::of(&stage);
    let worker = parties.worker("ada", None).await;
    let mut challenger = parties.challenger("cara").await;
    for _ in 0..3 {
        stage.submit(&[&[3, 1, 4], &[49, 0]]).await;
    }
    challenger.until(|done| done.checked == 3).await;
    let done = challenger.stop().await;
    assert_eq!((done.agreed, done.differed, done.opened), (3, 0, 0), "{done:?}");
    worker.stop().await;
    stage.end().await;
}

/// One token, the longest sequence, equal tokens (whose scores tie), and many sequences at once.
#[tokio::test(flavor = "multi_thread")]
async fn inputs_at_every_edge() {
    let stage = Stage::new().await;
    let parties = Parties::of(&stage);
    let worker = parties.worker("ada", None).await;
    let mut challenger = parties.challenger("cara").await;
    let longest: Vec<u32> = (0..32).map(|id| id * 7 % 50).collect();
    let equal = vec![5_u32; 32];
    let mut jobs = Vec::new();
    for sequences in
        [vec![&[0_u32][..]], vec![&longest], vec![&equal], vec![&longest, &[49], &equal, &[0, 0]]]
    {
        jobs.push((stage.submit(&sequences).await.id, sequences));
    }
    challenger.until(|done| done.checked == 4).await;
    let done = challenger.stop().await;
    assert_eq!((done.agreed, done.differed), (4, 0), "{done:?}");
    worker.stop().await;
    stage.test.advance(stage.parameters().window_ms).await;
    for (job, sequences) in jobs {
        let answer = stage.job(job).await.answer.expect("an answer");
        // Alone, sequence by sequence: the neighbours in the job changed nothing.
        let alone: Vec<u8> =
            sequences.iter().flat_map(|tokens| run_engine(&stage.model, &[tokens]).output).collect();
        assert_eq!(answer.output.0, alone);
    }
    stage.end().await;
}

/// What a model's id covers is its every byte.
#[test]
fn two_models_share_no_id() {
    let (one, other) = (ToyModel::default(), overflowing());
    assert_ne!(one.id(), other.id());
    assert_ne!(one.toy.model.manifest().to_bytes(), other.toy.model.manifest().to_bytes());
}
