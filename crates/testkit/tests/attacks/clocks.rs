//! Clocks and liveness.

use gainsay_api::ErrorCode;
use gainsay_api::claims::ClaimState;
use gainsay_api::disputes::{Verdict, VerdictReason};
use gainsay_testkit::Fingerprint;
use gainsay_testkit::zoo::{Answer, Side, Stage};

use crate::support::{code, settled, stands, verdict};

/// However late every answer comes, the dispute ends when both allowances are spent.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_at_the_last_moment() {
    let stage = Stage::new().await;
    let (cheat, prover) = (stage.owner("cheat").await, stage.owner("prover").await);
    let mut claimed = stage.claimed(&cheat, |model, lease| Answer::skipping(model, lease, 1)).await;
    let mut view = stage.object(&claimed, &prover.challenger).await;
    let began = stage.test.now().await;
    let mut spent = false;
    while let Some((side, made)) = stage.next_move(&mut claimed, &view, &prover.challenger) {
        let key = if side == Side::Worker { &cheat.worker } else { &prover.challenger };
        // The first answer takes all but a millisecond of what the worker has; what is left is all that it ever has.
        if side == Side::Worker && !spent {
            stage.test.advance(stage.parameters().worker_allowance_ms - 1).await;
            spent = true;
        }
        view = stage.play_move(key, view.summary.id, &made).await.unwrap();
    }
    assert_eq!(verdict(&view), (Verdict::ChallengerWins, VerdictReason::Referee));
    let took = stage.test.now().await.since(began);
    let p = stage.parameters();
    assert!(took < p.worker_allowance_ms + p.challenger_allowance_ms, "{took} ms");
    settled(stage, &claimed, cheat.id, prover.id, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_late_out_of_turn_twice_or_after_the_verdict() {
    let stage = Stage::new().await;
    let (cheat, prover) = (stage.owner("cheat").await, stage.owner("prover").await);
    let mut claimed = stage.claimed(&cheat, |model, lease| Answer::skipping(model, lease, 1)).await;
    let opened = stage.object(&claimed, &prover.challenger).await;
    let id = opened.summary.id;
    let (_, reveal) = stage.next_move(&mut claimed, &opened, &prover.challenger).unwrap();
    let revealed = stage.play_move(&cheat.worker, id, &reveal).await.unwrap();
    // Twice: the same answer, and nothing more on record.
    let twice = stage.play_move(&cheat.worker, id, &reveal).await.unwrap();
    assert_eq!(twice.moves.len(), revealed.moves.len());
    let (_, choice) = stage.next_move(&mut claimed, &revealed, &prover.challenger).unwrap();
    // Late, by a millisecond, though nobody has noticed the clock yet.
    stage.test.app().advance_time(stage.parameters().challenger_allowance_ms).await.unwrap();
    let before = Fingerprint::of(stage.test.database()).await;
    let late = code(stage.play_move(&prover.challenger, id, &choice).await);
    assert_eq!(late, ErrorCode::ClockExpired);
    assert_eq!(before.changed(&Fingerprint::of(stage.test.database()).await), [""; 0]);
    stage.test.settle().await;
    assert_eq!(verdict(&stage.dispute(id).await), (Verdict::WorkerWins, VerdictReason::ClockExpired));
    // After the verdict.
    let after = code(stage.play_move(&prover.challenger, id, &choice).await);
    assert_eq!(after, ErrorCode::DisputeOver);
    stage.end().await;
}

/// Half open: the last millisecond of the window belongs to it, the next one does not.
#[tokio::test(flavor = "multi_thread")]
async fn opened_exactly_at_the_windows_end() {
    let stage = Stage::new().await;
    let (cheat, early, late) =
        (stage.owner("cheat").await, stage.owner("early").await, stage.owner("late").await);
    let mut claimed = stage.claimed(&cheat, |model, lease| Answer::skipping(model, lease, 1)).await;
    stage.test.app().advance_time(stage.parameters().window_ms - 1).await.unwrap();
    let opened = stage.object(&claimed, &early.challenger).await;
    stage.test.app().advance_time(1).await.unwrap();
    let opening = claimed.honest_opening(&stage.model, &late.challenger).unwrap();
    assert_eq!(code(stage.open(&late.challenger, &opening).await), ErrorCode::WindowClosed);
    stage.test.settle().await;
    assert_eq!(stage.state(claimed.id).await, ClaimState::Open, "nothing is final while a dispute is open");
    let ended = stage.play(&mut claimed, opened, &early.challenger).await;
    assert_eq!(verdict(&ended).0, Verdict::ChallengerWins);
    settled(stage, &claimed, cheat.id, early.id, 0).await;
}

/// Shams that stall, however many, keep nobody from a dispute of its own, and its verdict ends them.
#[tokio::test(flavor = "multi_thread")]
async fn decoys_by_the_dozen() {
    let stage = Stage::new().await;
    let (cheat, honest) = (stage.owner("cheat").await, stage.owner("honest").await);
    let mut claimed = stage.claimed(&cheat, |model, lease| Answer::skipping(model, lease, 1)).await;
    let mut shams = Vec::new();
    for number in 0..24_u8 {
        let sham = stage.owner(&format!("sham {number}")).await;
        let opening = claimed.opening(&sham.challenger, u32::from(number % 3), [number + 1; 32].into());
        shams.push((sham.id, stage.open(&sham.challenger, &opening).await.unwrap().summary.id));
    }
    let opened = stage.object(&claimed, &honest.challenger).await;
    let ended = stage.play(&mut claimed, opened, &honest.challenger).await;
    assert_eq!(verdict(&ended).0, Verdict::ChallengerWins);
    for (owner, sham) in shams {
        assert_eq!(verdict(&stage.dispute(sham).await).0, Verdict::Moot);
        assert_eq!(stage.gained(owner).await, 0);
    }
    settled(stage, &claimed, cheat.id, honest.id, 0).await;
}

/// The confederate opens first, plays badly and fast, and loses; the claim is not a bit safer for it.
#[tokio::test(flavor = "multi_thread")]
async fn confederate_loses_on_purpose_first() {
    let stage = Stage::new().await;
    let (cheat, confederate, honest) =
        (stage.owner("cheat").await, stage.owner("confederate").await, stage.owner("honest").await);
    let mut claimed = stage.claimed(&cheat, |model, lease| Answer::skipping(model, lease, 1)).await;
    let sham = claimed.opening(&confederate.challenger, 1, [3; 32].into());
    let sham = stage.open(&confederate.challenger, &sham).await.unwrap();
    let opened = stage.object(&claimed, &honest.challenger).await;
    let (_, made) = stage.next_move(&mut claimed, &sham, &confederate.challenger).unwrap();
    stage.play_move(&cheat.worker, sham.summary.id, &made).await.unwrap();
    stage.test.app().advance_time(stage.parameters().challenger_allowance_ms - 1).await.unwrap();
    let view = stage.dispute(opened.summary.id).await;
    let (_, made) = stage.next_move(&mut claimed, &view, &honest.challenger).unwrap();
    let view = stage.play_move(&honest.challenger, opened.summary.id, &made).await.unwrap();
    stage.test.advance(1).await;
    assert_eq!(verdict(&stage.dispute(sham.summary.id).await).0, Verdict::WorkerWins, "the sham is lost");
    let ended = stage.play(&mut claimed, view, &honest.challenger).await;
    assert_eq!(verdict(&ended).0, Verdict::ChallengerWins);
    settled(stage, &claimed, cheat.id, honest.id, 1).await;
}

/// Neither ever moves again: the one whose turn it is loses, and everything goes on.
#[tokio::test(flavor = "multi_thread")]
async fn both_silent() {
    let stage = Stage::new().await;
    let (worker, challenger) = (stage.owner("worker").await, stage.owner("challenger").await);
    let claimed = stage.claimed(&worker, Answer::right).await;
    let opening = claimed.opening(&challenger.challenger, 1, [7; 32].into());
    let opened = stage.open(&challenger.challenger, &opening).await.unwrap();
    stage.test.advance(stage.parameters().worker_allowance_ms - 1).await;
    assert!(stage.dispute(opened.summary.id).await.summary.decision.is_none());
    stage.test.advance(1).await;
    let ended = stage.dispute(opened.summary.id).await;
    assert_eq!(verdict(&ended), (Verdict::ChallengerWins, VerdictReason::ClockExpired));
    // The claim was true, as the next worker's shows: who disputed it has won by mere waiting, and earns nothing.
    stage.done_honestly_after_all(claimed.lease.job_id).await;
    assert_eq!(stage.gained(worker.id).await, -stage.parameters().stake_per_job.0);
    assert_eq!(stage.gained(challenger.id).await, 0);
    stage.end().await;
}

/// A worker that answers one challenger answers all of them; the one that it ignores wins.
#[tokio::test(flavor = "multi_thread")]
async fn answers_some_challengers_only() {
    let stage = Stage::new().await;
    let (cheat, favoured, ignored) =
        (stage.owner("cheat").await, stage.owner("favoured").await, stage.owner("ignored").await);
    let mut claimed = stage.claimed(&cheat, |model, lease| Answer::skipping(model, lease, 1)).await;
    let sham = claimed.opening(&favoured.challenger, 2, [3; 32].into());
    let sham = stage.open(&favoured.challenger, &sham).await.unwrap();
    let opened = stage.object(&claimed, &ignored.challenger).await;
    let (_, made) = stage.next_move(&mut claimed, &sham, &favoured.challenger).unwrap();
    stage.play_move(&cheat.worker, sham.summary.id, &made).await.unwrap();
    stage.test.advance(stage.parameters().worker_allowance_ms).await;
    let ended = stage.dispute(opened.summary.id).await;
    assert_eq!(verdict(&ended), (Verdict::ChallengerWins, VerdictReason::ClockExpired));
    settled(stage, &claimed, cheat.id, ignored.id, 1).await;
}

/// An honest worker, disputed in every layer by many at once, shows everything once.
#[tokio::test(flavor = "multi_thread")]
async fn many_disputes_in_parallel_and_one_after_another() {
    let stage = Stage::new().await;
    let honest = stage.owner("honest").await;
    let mut claimed = stage.claimed(&honest, Answer::right).await;
    let mut open = Vec::new();
    for number in 0..12_u8 {
        let griefer = stage.owner(&format!("griefer {number}")).await;
        let opening = claimed.opening(&griefer.challenger, u32::from(number % 4), [number + 1; 32].into());
        open.push((griefer.id, stage.open(&griefer.challenger, &opening).await.unwrap().summary.id));
    }
    let mut shown = 0;
    for (_, id) in &open {
        let view = stage.dispute(*id).await;
        if let Some((Side::Worker, made)) = stage.next_move(&mut claimed, &view, &honest.challenger) {
            stage.play_move(&honest.worker, *id, &made).await.unwrap();
            shown += 1;
        }
    }
    assert_eq!(shown, 4, "one reveal a layer serves all disputes about it");
    stage.test.advance(stage.parameters().challenger_allowance_ms).await;
    for (owner, id) in &open {
        assert_eq!(verdict(&stage.dispute(*id).await).0, Verdict::WorkerWins);
        assert_eq!(stage.gained(*owner).await, -stage.parameters().bond.0);
    }
    stands(&stage, &claimed, 3, honest.id).await;
    stage.end().await;
}
