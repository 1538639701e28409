//! Money.

use gainsay_api::ErrorCode;
use gainsay_api::accounts::Withdraw;
use gainsay_api::claims::ClaimState;
use gainsay_api::client::Auth;
use gainsay_api::disputes::Verdict;
use gainsay_api::leases::LeaseRequest;
use gainsay_testkit::TestOwner;
use gainsay_testkit::zoo::{Answer, FUNDS, Stage};
use std::time::Duration;

use crate::support::{code, stands, verdict};

/// What is locked cannot leave, not even when many ask for it at once.
#[tokio::test(flavor = "multi_thread")]
async fn stake_withdrawn_under_an_open_claim() {
    let stage = Stage::new().await;
    let (cheat, prover) = (stage.owner("cheat").await, stage.owner("prover").await);
    let mut claimed = stage.claimed(&cheat, |model, lease| Answer::skipping(model, lease, 1)).await;
    let (free, locked) = stage.balances(cheat.id).await;
    assert_eq!((free + locked, locked), (FUNDS, stage.parameters().stake_per_job.0));
    let all = Withdraw { amount: free + 1 };
    assert_eq!(code(stage.client.withdraw(Auth::Key(&cheat.key), &all).await), ErrorCode::InsufficientFunds);
    let everything = Withdraw { amount: free };
    let asked = (0..4).map(|_| stage.client.withdraw(Auth::Key(&cheat.key), &everything));
    let mut taken = 0;
    for asked in asked.map(Box::pin).collect::<Vec<_>>() {
        taken += u32::from(asked.await.is_ok());
    }
    assert_eq!(taken, 1);
    let opened = stage.object(&claimed, &prover.challenger).await;
    let ended = stage.play(&mut claimed, opened, &prover.challenger).await;
    assert_eq!(verdict(&ended).0, Verdict::ChallengerWins);
    assert_eq!(stage.balances(cheat.id).await, (0, 0), "nothing was left to save");
    stage.done_honestly_after_all(claimed.lease.job_id).await;
    assert!(stage.gained(prover.id).await > 0);
    stage.end().await;
}

/// Each claim has a stake of its own: whoever has one stake has one claim.
#[tokio::test(flavor = "multi_thread")]
async fn one_stake_for_many_claims() {
    let stage = Stage::new().await;
    let stake = stage.parameters().stake_per_job.0;
    let poor = TestOwner::register(&stage.client, "poor", 2 * stake - 1).await;
    for _ in 0..3 {
        stage.submit_one().await;
    }
    let request = LeaseRequest { models: vec![stage.model.id()], max: 3, held: Vec::new() };
    let leases = stage.client.lease(&poor.worker, &request, Duration::ZERO).await.unwrap();
    let leases = leases.leases.len();
    assert_eq!(leases, 1);
    assert_eq!(stage.balances(poor.id).await, (stake - 1, stake));
    stage.end().await;
}

/// Worker, challenger and submitter are one: what it convicts itself of still costs it the treasury's part, and what is
/// not its own, the submitter's.
#[tokio::test(flavor = "multi_thread")]
async fn worker_disputes_itself() {
    let stage = Stage::new().await;
    let hand = stage.owner("one hand").await;
    let mut claimed = stage.claimed(&hand, |model, lease| Answer::skipping(model, lease, 1)).await;
    let opened = stage.object(&claimed, &hand.challenger).await;
    let ended = stage.play(&mut claimed, opened, &hand.challenger).await;
    assert_eq!(verdict(&ended).0, Verdict::ChallengerWins);
    stage.done_honestly_after_all(claimed.lease.job_id).await;
    let p = stage.parameters().clone();
    let fixed =
        p.stake_per_job.share(p.slash_to_treasury_ppm).0 + p.stake_per_job.share(p.slash_to_submitter_ppm).0;
    assert_eq!(stage.gained(hand.id).await, -fixed, "the fixed fraction, whoever proves it");
    let gained = stage.gained(stage.submitter.id).await;
    let price = stage.price(3).0;
    assert_eq!(gained, p.stake_per_job.share(p.slash_to_submitter_ppm).0 - price);
    stage.end().await;
}

/// The cheat's own challenger wins the race against an honest one, which was there first and keeps its refund.
#[tokio::test(flavor = "multi_thread")]
async fn confederate_races_the_honest_challenger_to_the_reward() {
    let stage = Stage::new().await;
    let (hand, honest) = (stage.owner("one hand").await, stage.owner("honest").await);
    let mut claimed = stage.claimed(&hand, |model, lease| Answer::skipping(model, lease, 1)).await;
    stage.object(&claimed, &honest.challenger).await;
    let race = stage.object(&claimed, &hand.challenger).await;
    let ended = stage.play(&mut claimed, race, &hand.challenger).await;
    assert_eq!(verdict(&ended).0, Verdict::ChallengerWins);
    stage.done_honestly_after_all(claimed.lease.job_id).await;
    let p = stage.parameters().clone();
    assert_eq!(stage.gained(honest.id).await, p.opener_refund.0, "it is not left with nothing");
    let fixed =
        p.stake_per_job.share(p.slash_to_treasury_ppm).0 + p.stake_per_job.share(p.slash_to_submitter_ppm).0;
    assert_eq!(stage.gained(hand.id).await, -fixed - p.opener_refund.0);
    stage.end().await;
}

/// Griefing costs the griefer its bond, and the worker no more than a delay, for which it is paid.
#[tokio::test(flavor = "multi_thread")]
async fn challenger_griefs_an_honest_worker() {
    let stage = Stage::new().await;
    let (honest, griefer) = (stage.owner("honest").await, stage.owner("griefer").await);
    let mut claimed = stage.claimed(&honest, Answer::right).await;
    let opening = claimed.opening(&griefer.challenger, 2, [7; 32].into());
    let opened = stage.open(&griefer.challenger, &opening).await.unwrap();
    let (_, made) = stage.next_move(&mut claimed, &opened, &griefer.challenger).unwrap();
    stage.play_move(&honest.worker, opened.summary.id, &made).await.unwrap();
    // A second one on the same claim, while the first is open, is refused.
    let second = claimed.opening(&griefer.challenger, 1, [8; 32].into());
    assert_eq!(code(stage.open(&griefer.challenger, &second).await), ErrorCode::DuplicateDispute);
    stands(&stage, &claimed, 3, honest.id).await;
    let p = stage.parameters();
    let part = p.bond.share(p.forfeit_to_worker_ppm).0;
    assert_eq!(stage.gained(griefer.id).await, -p.bond.0);
    assert_eq!(stage.gained(honest.id).await, stage.price(3).1 + part);
    stage.end().await;
}

/// The prize is given once: who comes after the verdict finds nothing to dispute, and who was right and came before it
/// has the fixed refund.
#[tokio::test(flavor = "multi_thread")]
async fn reward_for_what_another_has_decided() {
    let stage = Stage::new().await;
    let (cheat, prover, late) =
        (stage.owner("cheat").await, stage.owner("prover").await, stage.owner("late").await);
    let mut claimed = stage.claimed(&cheat, |model, lease| Answer::skipping(model, lease, 1)).await;
    let opened = stage.object(&claimed, &prover.challenger).await;
    let theirs = stage.object(&claimed, &late.challenger).await;
    stage.play(&mut claimed, opened, &prover.challenger).await;
    assert_eq!(verdict(&stage.dispute(theirs.summary.id).await).0, Verdict::Moot);
    let another = claimed.opening(&late.challenger, 2, [4; 32].into());
    assert_eq!(code(stage.open(&late.challenger, &another).await), ErrorCode::WindowClosed);
    assert_eq!(stage.state(claimed.id).await, ClaimState::Rejected);
    stage.done_honestly_after_all(claimed.lease.job_id).await;
    let refund = stage.parameters().opener_refund.0;
    assert_eq!(stage.gained(late.id).await, refund);
    assert!(stage.gained(prover.id).await > refund);
    stage.end().await;
}

/// Two coordinators find the same claim ripe at the same moment, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn paid_twice_by_two_coordinators() {
    let stage = Stage::new().await;
    let owner = stage.owner("worker").await;
    let claimed = stage.claimed(&owner, Answer::right).await;
    let beside = stage.test.beside().await;
    stage.test.app().advance_time(stage.parameters().window_ms).await.unwrap();
    tokio::join!(stage.test.settle(), beside.settle(), stage.test.settle(), beside.settle());
    assert_eq!(stage.state(claimed.id).await, ClaimState::Finalized);
    assert_eq!(stage.gained(owner.id).await, stage.price(3).1);
    beside.stop().await;
    stage.end().await;
}
