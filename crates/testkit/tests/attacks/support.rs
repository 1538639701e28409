//! What most attacks end in.

use std::sync::Arc;

use gainsay_api::ErrorCode;
use gainsay_api::claims::ClaimState;
use gainsay_api::client::ClientError;
use gainsay_api::disputes::{DisputeView, Verdict, VerdictReason};
use gainsay_api::leases::Lease;
use gainsay_testkit::ToyModel;
use gainsay_testkit::zoo::{Answer, Claimed, Stage};

/// The code of a refusal.
#[track_caller]
pub(crate) fn code<T: std::fmt::Debug>(refused: Result<T, ClientError>) -> ErrorCode {
    refused.expect_err("it is refused").code().expect("with a code")
}

pub(crate) fn verdict(view: &DisputeView) -> (Verdict, VerdictReason) {
    let decision = view.summary.decision.as_ref().expect("a verdict");
    (decision.verdict, decision.reason)
}

/// A false answer is convicted by the referee; its stake pays who proved it, an honest worker does the job after all, and
/// the books are balanced. Returns the dispute.
pub(crate) async fn convicted(
    stage: Stage,
    answer: impl FnOnce(&Arc<ToyModel>, &Lease) -> Answer,
) -> DisputeView {
    let (cheat, prover) = (stage.owner("cheat").await, stage.owner("prover").await);
    let mut claimed = stage.claimed(&cheat, answer).await;
    let opened = stage.object(&claimed, &prover.challenger).await;
    let ended = stage.play(&mut claimed, opened, &prover.challenger).await;
    assert_eq!(verdict(&ended), (Verdict::ChallengerWins, VerdictReason::Referee));
    settled(stage, &claimed, cheat.id, prover.id, 0).await;
    ended
}

/// The claim is rejected, its stake pays who proved it, and an honest worker does the job after all. `bonds_lost` against
/// the cheat, by shams, have paid it their part.
pub(crate) async fn settled(
    stage: Stage,
    claimed: &Claimed,
    cheat: gainsay_protocol::OwnerId,
    prover: gainsay_protocol::OwnerId,
    bonds_lost: i64,
) {
    assert_eq!(stage.state(claimed.id).await, ClaimState::Rejected);
    stage.done_honestly_after_all(claimed.lease.job_id).await;
    let p = stage.parameters().clone();
    let shams = bonds_lost * p.bond.share(p.forfeit_to_worker_ppm).0;
    assert_eq!(stage.gained(cheat).await, shams - p.stake_per_job.0, "the cheat loses its stake");
    let fixed =
        p.stake_per_job.share(p.slash_to_treasury_ppm).0 + p.stake_per_job.share(p.slash_to_submitter_ppm).0;
    assert_eq!(
        stage.gained(prover).await,
        p.stake_per_job.0 - fixed,
        "the prover has the rest, and its bond"
    );
    assert_eq!(stage.balances(prover).await.1, 0);
    stage.end().await;
}

/// A true claim becomes final: its worker is paid, and loses nothing.
pub(crate) async fn stands(stage: &Stage, claimed: &Claimed, tokens: u64, worker: gainsay_protocol::OwnerId) {
    stage.pass_everything().await;
    assert_eq!(stage.state(claimed.id).await, ClaimState::Finalized);
    let (_, earned) = stage.price(tokens);
    assert!(stage.gained(worker).await >= earned, "honest work is paid");
    assert_eq!(stage.balances(worker).await.1, 0, "its stake is its own again");
}
