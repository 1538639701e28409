//! Verifiers.

use gainsay_api::disputes::Verdict;
use gainsay_commitment::{Canonical, SecretKey};
use gainsay_protocol::strategy::{StrategyError, first_difference, rehearse};
use gainsay_protocol::toy::{Fault, zoo};
use gainsay_protocol::{Dispute, Refusal};
use gainsay_testkit::zoo::{Answer, Stage};

use crate::support::{code, verdict};

/// A challenger that sees another's opening would say the same, and share in the conviction without having run the job.
/// What the other says the layer should be is not shown to it: it gets a dispute of its own, no reward, and its bond back.
#[tokio::test(flavor = "multi_thread")]
async fn copies_another_challengers_work() {
    let stage = Stage::new().await;
    let (cheat, honest, copycat) =
        (stage.owner("cheat").await, stage.owner("honest").await, stage.owner("copycat").await);
    let mut claimed = stage.claimed(&cheat, |model, lease| Answer::skipping(model, lease, 1)).await;
    let opened = stage.object(&claimed, &honest.challenger).await;
    let seen = stage.dispute(opened.summary.id).await;
    let fold = Dispute::from_bytes(&seen.encoded.0).unwrap();
    assert_eq!((seen.summary.challenger_commitment, fold.challenger_commitment()), (None, None));
    let copied = claimed.opening(&copycat.challenger, seen.summary.place.layer, fold.opening().commitment);
    let copy = stage.open(&copycat.challenger, &copied).await.unwrap();
    let ended = stage.play(&mut claimed, opened, &honest.challenger).await;
    assert_eq!(verdict(&ended).0, Verdict::ChallengerWins);
    assert_eq!(verdict(&stage.dispute(copy.summary.id).await).0, Verdict::Moot);
    stage.done_honestly_after_all(claimed.lease.job_id).await;
    assert_eq!(stage.gained(copycat.id).await, 0);
    assert!(stage.gained(honest.id).await > 0);
    stage.end().await;
}

/// An opening in another's name, to spend its bond.
#[tokio::test(flavor = "multi_thread")]
async fn opens_in_anothers_name() {
    let stage = Stage::new().await;
    let (honest, victim) = (stage.owner("honest").await, stage.owner("victim").await);
    let claimed = stage.claimed(&honest, Answer::right).await;
    let forger = SecretKey::generate();
    let gainsay_protocol::SignedMove::Open(mut forged) =
        claimed.opening(&victim.challenger, 1, [7; 32].into())
    else {
        panic!("an opening")
    };
    forged.signature = gainsay_commitment::Signed::sign(forged.body, &forger).signature;
    let forged = gainsay_protocol::SignedMove::Open(forged);
    let refused = code(stage.open(&victim.challenger, &forged).await);
    assert!(refused != gainsay_api::ErrorCode::Internal, "{refused}");
    assert_eq!(stage.balances(victim.id).await.1, 0);
    stage.end().await;
}

/// A verifier that fails must not pass what it could not check.
#[test]
fn checkers_error_counted_as_a_pass() {
    let builder = zoo::small();
    let fixture = builder.build(Fault::None, 1);
    let short = &fixture.honest().layers()[1..];
    assert!(matches!(first_difference(fixture.claim(), short), Err(StrategyError::LayerCount { .. })));
    let (place, _) = builder.places()[1];
    let broken = builder.build(Fault::Flip { place, element: 0, bit: 30 }, 1);
    assert!(rehearse(&broken.case(), place.layer, &mut broken.claimed().clone()).is_err());
    assert!(!Refusal::Ended.counts(), "what is refused for coming late is not held against anybody");
}
