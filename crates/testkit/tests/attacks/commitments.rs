//! Commitments and encodings.

use gainsay_api::ErrorCode;
use gainsay_api::claims::ClaimState;
use gainsay_api::disputes::Verdict;
use gainsay_commitment::{Signed, TensorCommitment, trace_root};
use gainsay_protocol::{Claim, RevealContent, SignedMove};
use gainsay_testkit::Fingerprint;
use gainsay_testkit::zoo::{Answer, Side, Stage};

use crate::support::{code, convicted, settled, stands, verdict};

#[tokio::test(flavor = "multi_thread")]
async fn right_output_over_a_wrong_inner_layer() {
    let stage = Stage::new().await;
    let ended = convicted(stage, |model, lease| Answer::with_wrong_inner_layer(model, lease, 1)).await;
    assert_eq!(ended.summary.place.layer, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn skipped_layer() {
    let stage = Stage::new().await;
    let ended = convicted(stage, |model, lease| Answer::skipping(model, lease, 1)).await;
    assert_eq!(ended.summary.place.layer, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_missing_appended_or_exchanged_layer_commitment() {
    let stage = Stage::new().await;
    let owner = stage.owner("worker").await;
    stage.submit_one().await;
    let lease = stage.lease(&owner.worker).await.unwrap();
    let answer = Answer::right(&stage.model, &lease);
    let right = answer.claim(&stage.model, stage.test.id(), &lease, &owner.worker);
    let before = Fingerprint::of(stage.test.database()).await;
    let edits: [fn(&mut Vec<TensorCommitment>); 5] = [
        |layers| layers.insert(1, layers[1]),
        |layers| layers.truncate(2),
        |layers| layers.push(*layers.last().unwrap()),
        |layers| layers.swap(1, 3),
        Vec::clear,
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let mut body = right.body.clone();
        edit(&mut body.layers);
        // Under the root that belongs to the list, and under the one that does not.
        let roots = [trace_root(&body.layers).ok(), Some(right.body.trace)];
        for trace in roots.into_iter().flatten().filter(|root| number != 3 || *root == right.body.trace) {
            let claim = Signed::sign(Claim { trace, ..body.clone() }, &owner.worker);
            let refused = code(stage.client.post_claim(&owner.worker, claim.to_bytes()).await);
            assert!(
                matches!(refused, ErrorCode::ClaimRefused | ErrorCode::InvalidEncoding),
                "{number}: {refused}"
            );
        }
    }
    assert_eq!(before.changed(&Fingerprint::of(stage.test.database()).await), [""; 0]);
    let claimed = stage.claim(&owner, lease, answer).await;
    stands(&stage, &claimed, 3, owner.id).await;
    stage.end().await;
}

/// Whichever comes first, there is one claim, and its worker is convicted without a dispute.
#[tokio::test(flavor = "multi_thread")]
async fn two_claims_for_one_lease_at_once() {
    let stage = Stage::new().await;
    let cheat = stage.owner("cheat").await;
    let job = stage.submit_one().await;
    let lease = stage.lease(&cheat.worker).await.unwrap();
    let claims = [Answer::right(&stage.model, &lease), Answer::skipping(&stage.model, &lease, 1)]
        .map(|answer| answer.claim(&stage.model, stage.test.id(), &lease, &cheat.worker).to_bytes());
    let [one, other] = claims;
    let (one, other) = tokio::join!(
        stage.client.post_claim(&cheat.worker, one),
        stage.client.post_claim(&cheat.worker, other)
    );
    let taken = [&one, &other].into_iter().flatten().map(|claim| claim.id).collect::<Vec<_>>();
    assert_eq!(taken.len(), 1, "one of them is on record: {one:?}, {other:?}");
    assert_eq!(stage.state(taken[0]).await, ClaimState::Rejected);
    assert_eq!(stage.gained(cheat.id).await, -stage.parameters().stake_per_job.0);
    stage.done_honestly_after_all(job.id).await;
    stage.end().await;
}

/// One place of one claim is shown once: what was shown to one challenger is what every other one sees.
#[tokio::test(flavor = "multi_thread")]
async fn different_openings_to_different_challengers() {
    let stage = Stage::new().await;
    let (cheat, first, second) =
        (stage.owner("cheat").await, stage.owner("first").await, stage.owner("second").await);
    let mut claimed = stage.claimed(&cheat, |model, lease| Answer::skipping(model, lease, 1)).await;
    let to_first = stage.object(&claimed, &first.challenger).await;
    let to_second = stage.object(&claimed, &second.challenger).await;
    let (side, made) = stage.next_move(&mut claimed, &to_first, &first.challenger).unwrap();
    assert_eq!(side, Side::Worker);
    stage.play_move(&cheat.worker, to_first.summary.id, &made).await.unwrap();
    let SignedMove::Reveal(shown) = made else { panic!("a worker reveals") };
    let mut other = shown.body.clone();
    let RevealContent::Ops { commitments } = &mut other.content else { panic!("ops come first") };
    commitments[0] = [9; 32].into();
    let other = SignedMove::Reveal(Signed::sign(other, &cheat.worker));
    let refused = code(stage.play_move(&cheat.worker, to_second.summary.id, &other).await);
    assert_eq!(refused, ErrorCode::WrongTurn, "the second dispute has taken what the first was shown");
    let seen = stage.dispute(to_second.summary.id).await;
    let ended = stage.play(&mut claimed, seen, &second.challenger).await;
    assert_eq!(verdict(&ended).0, Verdict::ChallengerWins);
    let first = stage.dispute(to_first.summary.id).await;
    assert_eq!(verdict(&first).0, Verdict::Moot);
    let prover = second.id;
    assert_eq!(stage.state(claimed.id).await, ClaimState::Rejected);
    stage.done_honestly_after_all(claimed.lease.job_id).await;
    assert!(stage.gained(prover).await > 0);
    stage.end().await;
}

/// Zeros are a hash that nothing hashes to, and stand for nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn all_zero_hashes() {
    let stage = Stage::new().await;
    let (cheat, prover) = (stage.owner("cheat").await, stage.owner("prover").await);
    let mut claimed = stage
        .claimed(&cheat, |model, lease| {
            let mut answer = Answer::right(model, lease);
            answer.layers[1] = [0; 32].into();
            answer
        })
        .await;
    // An opening whose own commitment is zero is one like any other; where the claim's is zero too, nothing is disputed.
    let same = claimed.opening(&prover.challenger, 1, [0; 32].into());
    assert_eq!(code(stage.open(&prover.challenger, &same).await), ErrorCode::IllegalMove);
    let opened = stage.object(&claimed, &prover.challenger).await;
    let stuck = stage.play_refused(&mut claimed, &opened, &cheat.worker).await;
    assert_eq!(stuck, ErrorCode::MoveRefused, "the last op's commitment is not the layer's");
    stage.test.advance(stage.parameters().worker_allowance_ms).await;
    let ended = stage.dispute(opened.summary.id).await;
    assert_eq!(verdict(&ended).0, Verdict::ChallengerWins);
    settled(stage, &claimed, cheat.id, prover.id, 0).await;
}
