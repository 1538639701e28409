//! Many claims, disputes and parties at once: nobody honest loses, nothing false is paid, no money is made.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::sync::Arc;

use gainsay_commitment::{PartyId, TensorCommitment};
use gainsay_protocol::{
    Amount, Authentic, Cause, Closing, Dispute, Parameters, Role, Verdict,
    lifecycle::{self, ClaimState, JobEvent, JobState},
    strategy::first_difference,
    toy::{
        Court, CourtError, Credentials, Fault, Fixture, FixtureBuilder, HonestChallenger, HonestWorker, Play,
        Player, Random, zoo,
    },
};

const SUBMITTER: PartyId = PartyId::from_bytes([40; 32]);
const COORDINATOR: PartyId = PartyId::from_bytes([41; 32]);
const HONEST_WORKER: PartyId = PartyId::from_bytes([42; 32]);
const CHEAT: PartyId = PartyId::from_bytes([43; 32]);
const HONEST_CHALLENGER: PartyId = PartyId::from_bytes([44; 32]);
const GRIEFER: PartyId = PartyId::from_bytes([45; 32]);
const CONFEDERATE: PartyId = PartyId::from_bytes([46; 32]);
const FUNDS: Amount = Amount(1_000_000_000);

fn court() -> Court {
    let mut court = Court::new(Parameters::default());
    for party in [SUBMITTER, HONEST_WORKER, CHEAT, HONEST_CHALLENGER, GRIEFER, CONFEDERATE] {
        court.fund(party, FUNDS);
    }
    court
}

fn builder(worker: PartyId) -> FixtureBuilder {
    zoo::small().parties(worker, COORDINATOR)
}

fn claim(court: &mut Court, fixture: Fixture) -> usize {
    court.claim(SUBMITTER, Amount(10_000), Arc::new(fixture)).unwrap()
}

fn truth(fixture: &Fixture) -> Option<(u32, TensorCommitment)> {
    let own = fixture.honest().layers();
    first_difference(fixture.claim(), &own).unwrap().map(|layer| (layer, own[layer as usize]))
}

fn open(
    court: &mut Court,
    claim: usize,
    by: PartyId,
    layer: u32,
    own: TensorCommitment,
) -> Result<usize, CourtError> {
    let opening = court.claims()[claim].opening(by, layer, own);
    court.open(claim, &Authentic::from(opening))
}

/// The honest move in a dispute: the worker defends what it claimed, the challenger follows its own run.
fn honest_move(court: &Court, dispute: usize, random: &mut Random) -> Option<Authentic> {
    let (subject, dispute) = (court.subject(dispute), &court.disputes()[dispute]);
    let case = subject.fixture.case();
    // A worker defends by running the job again: a fault that no layer commitment shows does not come back.
    let again = if subject.fixture.is_true() { subject.fixture.honest() } else { subject.fixture.claimed() };
    let play = match dispute.turn()? {
        Role::Worker => {
            HonestWorker { credentials: Credentials::Name(dispute.worker()), trace: again.clone() }
                .play(dispute, &case, random)
        }
        Role::Challenger => HonestChallenger {
            credentials: Credentials::Name(dispute.challenger()),
            trace: subject.fixture.honest().clone(),
        }
        .play(dispute, &case, random),
    };
    match play {
        Play::Move(made, _) => Some(Authentic::trusted(*made)),
        Play::Silence => None,
    }
}

/// Plays a dispute honestly on both sides until it ends or somebody has nothing to say.
fn play_out(court: &mut Court, dispute: usize, random: &mut Random) {
    while let Some(made) = honest_move(court, dispute, random) {
        court.apply(dispute, &made).unwrap();
        court.check();
    }
}

fn total(court: &Court, party: PartyId) -> i64 {
    let balance = court.balance(party);
    balance.free.0 + balance.locked.0
}

fn pass_everything(court: &mut Court) {
    for _ in 0..40 {
        court.pass(100_000);
        court.check();
    }
}

#[test]
fn a_false_claim_costs_its_stake_and_pays_its_prover() {
    let (mut court, mut random) = (court(), Random::new(1));
    let fixture = builder(CHEAT).build(Fault::SkipLayer(1), 1);
    let (layer, own) = truth(&fixture).unwrap();
    let id = claim(&mut court, fixture);
    let dispute = open(&mut court, id, HONEST_CHALLENGER, layer, own).unwrap();
    play_out(&mut court, dispute, &mut random);
    assert_eq!(court.claims()[id].state, ClaimState::Rejected);
    pass_everything(&mut court);

    let p = Parameters::default();
    assert_eq!(total(&court, CHEAT), FUNDS.0 - p.stake_per_job.0);
    assert_eq!(total(&court, HONEST_CHALLENGER), FUNDS.0 + p.stake_per_job.0 / 2);
    assert_eq!(total(&court, SUBMITTER), FUNDS.0 + p.stake_per_job.0 / 4, "refunded, and paid its part");
}

#[test]
fn a_wrong_dispute_costs_its_bond_and_the_honest_worker_is_paid() {
    let (mut court, mut random) = (court(), Random::new(2));
    let id = claim(&mut court, builder(HONEST_WORKER).build(Fault::None, 1));
    let dispute = open(&mut court, id, GRIEFER, 1, random.bytes().into()).unwrap();
    play_out(&mut court, dispute, &mut random);
    pass_everything(&mut court);
    assert_eq!(court.disputes()[dispute].outcome().unwrap().verdict, Verdict::WorkerWins);
    assert_eq!(court.claims()[id].state, ClaimState::Finalized);
    let p = Parameters::default();
    assert_eq!(total(&court, GRIEFER), FUNDS.0 - p.bond.0);
    assert_eq!(total(&court, HONEST_WORKER), FUNDS.0 + 10_000 - 500 + p.bond.0 / 2);
}

#[test]
fn a_confederate_that_loses_on_purpose_does_not_shield_a_false_claim() {
    let (mut court, mut random) = (court(), Random::new(3));
    let fixture = builder(CHEAT).build(Fault::SkipLayer(1), 1);
    let (layer, own) = truth(&fixture).unwrap();
    let id = claim(&mut court, fixture);
    let sham = open(&mut court, id, CONFEDERATE, layer, random.bytes().into()).unwrap();
    let honest = open(&mut court, id, HONEST_CHALLENGER, layer, own).unwrap();
    let made = honest_move(&court, sham, &mut random).unwrap();
    court.apply(sham, &made).unwrap();
    assert!(
        court.disputes()[honest].next_seq() > 1,
        "the honest dispute took what the sham brought to light"
    );
    court.pass(Parameters::default().challenger_allowance_ms / 2);
    play_out(&mut court, honest, &mut random);
    assert_eq!(court.claims()[id].state, ClaimState::Rejected);
    assert_eq!(court.disputes()[sham].outcome().unwrap().verdict, Verdict::Moot);
    pass_everything(&mut court);
    assert!(total(&court, HONEST_CHALLENGER) > FUNDS.0);
}

#[test]
fn a_confederate_that_proves_first_leaves_the_honest_opener_its_refund() {
    let (mut court, mut random) = (court(), Random::new(4));
    let fixture = builder(CHEAT).build(Fault::SkipLayer(1), 1);
    let (layer, own) = truth(&fixture).unwrap();
    let id = claim(&mut court, fixture);
    let honest = open(&mut court, id, HONEST_CHALLENGER, layer, own).unwrap();
    let race = open(&mut court, id, CONFEDERATE, layer, own).unwrap();
    play_out(&mut court, race, &mut random);
    assert_eq!(court.disputes()[race].outcome().unwrap().verdict, Verdict::ChallengerWins);
    assert_eq!(court.disputes()[honest].outcome().unwrap().verdict, Verdict::Moot);
    pass_everything(&mut court);
    let p = Parameters::default();
    assert_eq!(total(&court, HONEST_CHALLENGER), FUNDS.0 + p.opener_refund.0);
    let together = total(&court, CHEAT) + total(&court, CONFEDERATE) - 2 * FUNDS.0;
    assert!(together < -p.stake_per_job.0 / 2, "the cheat and its prover keep {together} of the stake");
}

#[test]
fn the_first_loss_against_a_worker_ends_all_other_disputes_of_the_pair() {
    let (mut court, mut random) = (court(), Random::new(5));
    let builder = builder(HONEST_WORKER);
    let ids: Vec<_> = (0..3).map(|seed| claim(&mut court, builder.build(Fault::None, seed))).collect();
    let mut disputes = Vec::new();
    for id in ids {
        let dispute = open(&mut court, id, GRIEFER, 0, random.bytes().into()).unwrap();
        play_out(&mut court, dispute, &mut random);
        disputes.push(dispute);
        court.pass(1_000);
    }
    let p = Parameters::default();
    assert_eq!(court.balance(GRIEFER).locked, p.bond, "one bond backs all disputes against one worker");
    court.pass(p.challenger_allowance_ms - 3_000);
    court.check();
    let by = court.disputes()[disputes[0]].id();
    let causes = disputes.iter().map(|dispute| court.disputes()[*dispute].outcome().unwrap().cause);
    let lost = Cause::Closed(Closing::BondLost { by });
    assert_eq!(causes.collect::<Vec<_>>(), [Cause::Timeout(Role::Challenger), lost, lost]);
    for dispute in disputes {
        assert_eq!(court.disputes()[dispute].outcome().unwrap().verdict, Verdict::WorkerWins);
    }
    pass_everything(&mut court);
    assert_eq!(total(&court, GRIEFER), FUNDS.0 - p.bond.0, "one bond, not three");
}

#[test]
fn a_conviction_starts_the_windows_of_the_workers_other_claims_anew_once() {
    let (mut court, mut random) = (court(), Random::new(6));
    let builder = builder(CHEAT);
    let bad = builder.build(Fault::SkipLayer(1), 1);
    let (layer, own) = truth(&bad).unwrap();
    let other = claim(&mut court, builder.build(Fault::None, 2));
    let bad = claim(&mut court, bad);
    let dispute = open(&mut court, bad, HONEST_CHALLENGER, layer, own).unwrap();
    court.pass(200_000);
    play_out(&mut court, dispute, &mut random);
    let restarted = court.now().plus(Parameters::default().window_ms);
    assert_eq!(court.claims()[other].window_closes, restarted);
}

#[test]
fn nothing_is_final_while_a_dispute_is_open_and_none_opens_afterwards() {
    let (mut court, mut random) = (court(), Random::new(7));
    let id = claim(&mut court, builder(HONEST_WORKER).build(Fault::None, 1));
    let p = Parameters::default();
    court.pass(p.window_ms - 1);
    let dispute = open(&mut court, id, GRIEFER, 0, random.bytes().into()).unwrap();
    court.pass(1);
    assert!(open(&mut court, id, CONFEDERATE, 0, random.bytes().into()).is_err(), "the window has closed");
    assert_eq!(court.claims()[id].state, ClaimState::Pending);
    play_out(&mut court, dispute, &mut random);
    court.pass(p.challenger_allowance_ms);
    assert_eq!(court.claims()[id].state, ClaimState::Finalized);
    let refused = open(&mut court, id, CONFEDERATE, 1, random.bytes().into());
    assert_eq!(refused, Err(CourtError::Decided));
}

#[test]
fn a_seeded_market_keeps_every_promise() {
    for seed in 0..12 {
        let (mut court, mut random) = (court(), Random::new(seed));
        let (honest, cheat) = (builder(HONEST_WORKER), builder(CHEAT));
        for step in 0..60 {
            match random.below(6) {
                0 => drop(claim(&mut court, honest.build(Fault::None, step))),
                1 => {
                    let fixture = cheat.build(cheat.random_fault(&mut random), step);
                    let false_claim = truth(&fixture);
                    let id = claim(&mut court, fixture);
                    if let Some((layer, own)) = false_claim {
                        open(&mut court, id, HONEST_CHALLENGER, layer, own).unwrap();
                    }
                }
                2 if !court.claims().is_empty() => {
                    let id = random.below(court.claims().len() as u64) as usize;
                    let by = *random.pick(&[GRIEFER, CONFEDERATE]);
                    let _ = open(&mut court, id, by, random.below(4) as u32, random.bytes().into());
                }
                _ => {
                    let open: Vec<_> = (0..court.disputes().len())
                        .filter(|id| court.disputes()[*id].outcome().is_none())
                        .collect();
                    for dispute in open {
                        let made = honest_move(&court, dispute, &mut random);
                        let ended = court.disputes()[dispute].outcome().is_some();
                        if let Some(made) = made.filter(|_| !ended) {
                            court.apply(dispute, &made).unwrap();
                        }
                    }
                }
            }
            court.check();
            court.pass(random.below(3_000));
            court.check();
        }
        for _ in 0..20 {
            for dispute in 0..court.disputes().len() {
                play_out(&mut court, dispute, &mut random);
            }
            court.pass(100_000);
            court.check();
        }
        let standings = court.claims().iter();
        for standing in standings {
            let expected =
                if standing.fixture.is_true() { ClaimState::Finalized } else { ClaimState::Rejected };
            assert_eq!(standing.state, expected, "seed {seed}");
        }
        for party in [HONEST_WORKER, HONEST_CHALLENGER, SUBMITTER] {
            assert_eq!(court.balance(party).locked, Amount::ZERO, "seed {seed}");
        }
        assert!(total(&court, HONEST_WORKER) >= FUNDS.0 && total(&court, HONEST_CHALLENGER) >= FUNDS.0);
        let lost = |dispute: &&Dispute| {
            dispute.challenger() == HONEST_CHALLENGER
                && dispute.outcome().is_none_or(|outcome| outcome.verdict == Verdict::WorkerWins)
        };
        assert_eq!(court.disputes().iter().find(lost), None, "seed {seed}");
    }
}

#[test]
fn a_rejected_job_is_tried_again_until_its_attempts_run_out() {
    let p = Parameters::default();
    assert_eq!(lifecycle::rejection(0, &p), JobEvent::Rejected);
    assert_eq!(lifecycle::rejection(1, &p), JobEvent::Rejected);
    assert_eq!(lifecycle::rejection(2, &p), JobEvent::RejectedFinally);
    let after = |event| lifecycle::job_transition(JobState::Claimed, event);
    assert_eq!(after(JobEvent::Rejected), Some(JobState::Submitted));
    assert_eq!(after(JobEvent::RejectedFinally), Some(JobState::Refunded));
    for done in [JobState::Finalized, JobState::Refunded, JobState::Cancelled, JobState::Voided] {
        let leaves = lifecycle::JOB_TRANSITIONS.iter().any(|row| row.0 == done);
        assert!(!leaves, "{done:?} is an end");
    }
    assert_eq!(lifecycle::job_transition(JobState::Finalized, JobEvent::Rejected), None, "paid and rejected");
}

#[test]
fn work_is_withheld_from_a_worker_that_could_not_defend_it() {
    let p = Parameters { worker_allowance_ms: 1_000, ..Parameters::default() };
    assert!(lifecycle::may_lease(500, &p));
    assert!(!lifecycle::may_lease(501, &p));
    assert_eq!(Closing::Void.verdict(), Verdict::Void);
    // All leases that may end without a claim, and for each attempt the lease of the longest answer and a window with both
    // allowances, which a suspension starts anew once.
    let lease =
        lifecycle::lease_ms(gainsay_program::MAX_JOB_TOKENS as u64, gainsay_program::MAX_SEQUENCE, &p);
    assert_eq!(lifecycle::lease_ms(0, 0, &p), p.lease_ms);
    assert!(
        lease > lifecycle::lease_ms(0, 1, &p)
            && lifecycle::lease_ms(0, 1, &p) > lifecycle::lease_ms(1, 0, &p)
    );
    let attempt = lease + 2 * (p.window_ms + 1_000 + p.challenger_allowance_ms);
    let fruitless = u64::from(p.lease_attempts) * lease;
    assert_eq!(lifecycle::longest_decision_ms(&p), u64::from(p.attempts) * attempt + fruitless);
    assert_eq!(lifecycle::longest_decision_ms(&Parameters { window_ms: u64::MAX, ..p }), u64::MAX);
}
