//! Binding: what was signed counts where it was signed for, and nowhere else.

use gainsay_api::ErrorCode;
use gainsay_api::claims::ClaimState;
use gainsay_api::disputes::Verdict;
use gainsay_commitment::Signed;
use gainsay_program::ArithmeticProfile;
use gainsay_program::JobInput;
use gainsay_program::toy::ToyOptions;
use gainsay_protocol::{Claim, SignedMove};
use gainsay_testkit::zoo::{Answer, Side, Stage};
use gainsay_testkit::{Fingerprint, TestCoordinator, ToyModel};

use crate::support::{code, convicted, stands, verdict};

/// The same question asked twice has the same answer; the claim to it has not.
#[tokio::test(flavor = "multi_thread")]
async fn claim_replayed_for_another_job_and_lease() {
    let stage = Stage::new().await;
    let owner = stage.owner("worker").await;
    let first = stage.claimed(&owner, Answer::right).await;
    stage.submit_one().await;
    let lease = stage.lease_beside(&owner.worker, &[&first.lease]).await.unwrap();
    let before = Fingerprint::of(stage.test.database()).await;
    // The old bytes get the old receipt, and claim nothing new.
    let again = stage.client.post_claim(&owner.worker, first.signed.to_bytes()).await.unwrap();
    assert_eq!(again.id, first.id);
    // The old words under a new lease, or a new job, do not fit.
    let edits = [
        Claim { lease: lease.id, ..first.signed.body.clone() },
        Claim { job: lease.job_id, ..first.signed.body.clone() },
    ];
    for body in edits {
        let signed = Signed::sign(body, &owner.worker);
        assert_eq!(
            code(stage.client.post_claim(&owner.worker, signed.to_bytes()).await),
            ErrorCode::UnknownLease
        );
    }
    assert_eq!(before.changed(&Fingerprint::of(stage.test.database()).await), [""; 0]);
    let answer = Answer::right(&stage.model, &lease);
    let second = stage.claim(&owner, lease, answer).await;
    stands(&stage, &second, 3, owner.id).await;
    assert_eq!(stage.gained(owner.id).await, 2 * stage.price(3).1);
    stage.end().await;
}

/// Another worker's right answer, signed anew by one who did no work, is no claim without a lease.
#[tokio::test(flavor = "multi_thread")]
async fn claim_of_another_worker_signed_anew() {
    let stage = Stage::new().await;
    let (owner, thief) = (stage.owner("worker").await, stage.owner("thief").await);
    let claimed = stage.claimed(&owner, Answer::right).await;
    let body = Claim { worker: thief.worker.id(), ..claimed.signed.body.clone() };
    let stolen = Signed::sign(body, &thief.worker);
    assert_eq!(
        code(stage.client.post_claim(&thief.worker, stolen.to_bytes()).await),
        ErrorCode::UnknownLease
    );
    stands(&stage, &claimed, 3, owner.id).await;
    assert_eq!(stage.gained(thief.id).await, 0);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claim_and_request_replayed_to_another_coordinator() {
    let (here, there) = (Stage::new().await, Stage::new().await);
    let owner = here.owner("worker").await;
    let claimed = here.claimed(&owner, Answer::right).await;
    let refused = code(there.client.post_claim(&owner.worker, claimed.signed.to_bytes()).await);
    assert_eq!(refused, ErrorCode::UnknownParty, "it is a stranger there");
    // A worker of both, who holds leases on equal jobs: what it told one coordinator is nothing to the other.
    let both = there.owner("worker of both").await;
    there.submit_one().await;
    let lease = there.lease(&both.worker).await.unwrap();
    let foreign =
        Answer::right(&there.model, &lease).claim(&there.model, here.test.id(), &lease, &both.worker);
    assert_eq!(
        code(there.client.post_claim(&both.worker, foreign.to_bytes()).await),
        ErrorCode::ClaimRefused
    );
    stands(&here, &claimed, 3, owner.id).await;
    here.end().await;
    there.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn move_replayed_in_another_dispute() {
    let stage = Stage::new().await;
    let (cheat, prover) = (stage.owner("cheat").await, stage.owner("prover").await);
    let mut claims = Vec::new();
    for _ in 0..2 {
        claims.push(stage.claimed(&cheat, |model, lease| Answer::skipping(model, lease, 1)).await);
    }
    let [mut one, mut other] = <[_; 2]>::try_from(claims).unwrap();
    let mut views = Vec::new();
    for claimed in [&mut one, &mut other] {
        let opened = stage.object(claimed, &prover.challenger).await;
        let (side, made) = stage.next_move(claimed, &opened, &prover.challenger).unwrap();
        assert_eq!(side, Side::Worker);
        views.push(stage.play_move(&cheat.worker, opened.summary.id, &made).await.unwrap());
    }
    let (_, choice) = stage.next_move(&mut one, &views[0], &prover.challenger).unwrap();
    let before = Fingerprint::of(stage.test.database()).await;
    let refused = code(stage.play_move(&prover.challenger, views[1].summary.id, &choice).await);
    assert!(
        matches!(refused, ErrorCode::Forbidden | ErrorCode::IllegalMove | ErrorCode::MoveRefused),
        "{refused}"
    );
    assert_eq!(before.changed(&Fingerprint::of(stage.test.database()).await), [""; 0]);
    for (claimed, view) in [(&mut one, &views[0]), (&mut other, &views[1])] {
        let ended = stage.play(claimed, view.clone(), &prover.challenger).await;
        assert_eq!(verdict(&ended).0, Verdict::ChallengerWins);
    }
    assert_eq!(stage.gained(cheat.id).await, -2 * stage.parameters().stake_per_job.0);
    stage.end().await;
}

/// A signed request is good once: neither the same bytes again nor the signature over another body.
#[tokio::test(flavor = "multi_thread")]
async fn opening_replayed_after_its_dispute_was_decided() {
    let stage = Stage::new().await;
    let (honest, griefer) = (stage.owner("honest").await, stage.owner("griefer").await);
    let claimed = stage.claimed(&honest, Answer::right).await;
    let opening = claimed.opening(&griefer.challenger, 1, [7; 32].into());
    let opened = stage.open(&griefer.challenger, &opening).await.unwrap();
    let mut claimed = claimed;
    let (_, made) = stage.next_move(&mut claimed, &opened, &griefer.challenger).unwrap();
    stage.play_move(&honest.worker, opened.summary.id, &made).await.unwrap();
    stage.test.advance(stage.parameters().challenger_allowance_ms).await;
    let again = stage.open(&griefer.challenger, &opening).await.unwrap();
    assert_eq!(again.summary.id, opened.summary.id, "it is the dispute that it was, lost as it was");
    assert_eq!(verdict(&again).0, Verdict::WorkerWins);
    stands(&stage, &claimed, 3, honest.id).await;
    assert_eq!(stage.gained(griefer.id).await, -stage.parameters().bond.0, "one dispute, one bond");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prompt_swapped() {
    let stage = Stage::new().await;
    let ended = convicted(stage, |model, _| {
        Answer::of_other_input(model, &JobInput::new([vec![3_u32, 1, 5]]).unwrap())
    })
    .await;
    assert_eq!(ended.summary.place.layer, 0, "the ids that the referee reads are those of the recorded job");
}

/// A prompt with a prefix in front, or cut off, gives tensors of another length: there is nothing to reveal.
#[tokio::test(flavor = "multi_thread")]
async fn prompt_prefixed_or_truncated() {
    for tokens in [vec![9_u32, 3, 1, 4], vec![3, 1]] {
        let stage = Stage::new().await;
        let (cheat, prover) = (stage.owner("cheat").await, stage.owner("prover").await);
        let mut claimed = stage
            .claimed(&cheat, |model, _| {
                Answer::of_other_input(model, &JobInput::new([tokens.clone()]).unwrap())
            })
            .await;
        let opened = stage.object(&claimed, &prover.challenger).await;
        let view = stage.play(&mut claimed, opened, &prover.challenger).await;
        assert!(view.summary.decision.is_none(), "it has nothing that opens");
        stage.test.advance(stage.parameters().worker_allowance_ms).await;
        assert_eq!(verdict(&stage.dispute(view.summary.id).await).0, Verdict::ChallengerWins);
        crate::support::settled(stage, &claimed, cheat.id, prover.id, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tensor_changed() {
    let stage = Stage::new().await;
    convicted(stage, |model, lease| {
        let index = model.toy.weights.len() / 2;
        Answer::with_weights(model, lease, |at, bytes| {
            if at == index {
                bytes.as_chunks_mut::<4>().0.iter_mut().for_each(|number| number[2] ^= 0x40);
            }
        })
    })
    .await;
}

/// A low-rank addition to one matrix: every element a little off.
#[tokio::test(flavor = "multi_thread")]
async fn adapter_added_to_a_matrix() {
    let stage = Stage::new().await;
    convicted(stage, |model, lease| {
        let manifest = model.toy.model.manifest();
        let matrix =
            manifest.tensors.iter().position(|tensor| tensor.rows == 16 && tensor.width == 16).unwrap();
        Answer::with_weights(model, lease, |at, bytes| {
            if at == matrix {
                for (place, number) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    let adapted =
                        f32::from_le_bytes(*number) + 1e-3 * ((place / 16) as f32 - (place % 16) as f32);
                    *number = adapted.to_le_bytes();
                }
            }
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_bits() {
    convicted(Stage::new().await, Answer::with_fewer_bits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_of_the_same_shape() {
    let older = ToyModel::new(&ToyOptions { seed: 77, ..ToyOptions::default() });
    let stage = Stage::new().await;
    convicted(stage, move |model, lease| {
        Answer::with_weights(model, lease, |at, bytes| bytes.copy_from_slice(&older.toy.weights[at]))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_quantization_scale() {
    let options = ToyOptions { arithmetic: ArithmeticProfile::ExactInt8V1, ..ToyOptions::default() };
    let stage = Stage::with(TestCoordinator::builder(), ToyModel::new(&options)).await;
    convicted(stage, |model, lease| {
        let manifest = model.toy.model.manifest();
        let scales = manifest.tensors.iter().position(|tensor| tensor.name.ends_with("scale"));
        let scales =
            scales.or_else(|| manifest.tensors.iter().position(|tensor| tensor.name.contains("scale")));
        let scales = scales.expect("a quantized model has scales");
        Answer::with_weights(model, lease, |at, bytes| {
            if at == scales {
                bytes.as_chunks_mut::<4>().0.iter_mut().for_each(|number| number[2] ^= 0x20);
            }
        })
    })
    .await;
}

/// The answer says how far it can be relied upon, and stops saying so when it is proven wrong.
#[tokio::test(flavor = "multi_thread")]
async fn answer_taken_for_final_before_it_is() {
    use gainsay_api::jobs::Finality;
    let stage = Stage::new().await;
    let (cheat, prover) = (stage.owner("cheat").await, stage.owner("prover").await);
    let mut claimed = stage.claimed(&cheat, |model, lease| Answer::skipping(model, lease, 1)).await;
    let job = claimed.lease.job_id;
    assert_eq!(stage.job(job).await.answer.unwrap().finality, Finality::Pending);
    stage.test.advance(stage.parameters().window_ms - 1).await;
    let opened = stage.object(&claimed, &prover.challenger).await;
    stage.test.advance(1).await;
    assert_eq!(stage.state(claimed.id).await, ClaimState::Open, "under dispute nothing is final");
    assert_eq!(stage.job(job).await.answer.unwrap().finality, Finality::Pending);
    stage.play(&mut claimed, opened, &prover.challenger).await;
    assert_eq!(stage.job(job).await.answer.unwrap().finality, Finality::Revoked);
    let receipt = stage.client.receipt(&stage.submitter.api_key, job).await;
    assert!(receipt.is_err() || receipt.is_ok_and(|receipt| receipt.finality == Finality::Revoked));
    stage.end().await;
}

/// A reveal signs its place: it does not serve in another one.
#[tokio::test(flavor = "multi_thread")]
async fn reveal_for_another_place_or_claim() {
    let stage = Stage::new().await;
    let (honest, griefer) = (stage.owner("honest").await, stage.owner("griefer").await);
    let mut claimed = stage.claimed(&honest, Answer::right).await;
    let opened =
        stage.open(&griefer.challenger, &claimed.opening(&griefer.challenger, 1, [7; 32].into())).await;
    let opened = opened.unwrap();
    let (_, right) = stage.next_move(&mut claimed, &opened, &griefer.challenger).unwrap();
    let SignedMove::Reveal(right) = &right else { panic!("a worker reveals") };
    let mut elsewhere = right.body.clone();
    elsewhere.layer = 2;
    let mut foreign = right.body.clone();
    foreign.claim = [5; 32].into();
    for body in [elsewhere, foreign] {
        let made = SignedMove::Reveal(Signed::sign(body, &honest.worker));
        let refused = code(stage.play_move(&honest.worker, opened.summary.id, &made).await);
        assert!(!matches!(refused, ErrorCode::Internal), "{refused}");
    }
    let view = stage.play_move(&honest.worker, opened.summary.id, &SignedMove::Reveal(right.clone())).await;
    assert!(view.is_ok(), "the right one is taken all the same");
    stands(&stage, &claimed, 3, honest.id).await;
    stage.end().await;
}
