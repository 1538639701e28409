//! Every balance once more, from what happened: a second opinion on the ledger, which shares no line with it.

use std::collections::BTreeMap;

use gainsay_protocol::ledger::Account;
use gainsay_protocol::lifecycle::{ClaimState, JobState};
use gainsay_protocol::{Cause, OwnerId, Verdict};

use super::service::{LeaseState, Rejection, Service};

/// What owners and the treasury should have.
#[derive(Default)]
struct Expected {
    owners: BTreeMap<OwnerId, i64>,
    treasury: i64,
}

impl Expected {
    fn give(&mut self, owner: OwnerId, amount: i64) {
        *self.owners.entry(owner).or_default() += amount;
    }
}

fn part(whole: i64, ppm: u32) -> i64 {
    (i128::from(whole) * i128::from(ppm) / 1_000_000) as i64
}

/// Holds balances at the end of a game against what everybody put in, earned and lost.
pub(super) fn audit(service: &Service<'_>, funds: &BTreeMap<OwnerId, i64>) -> Result<(), String> {
    let mut expected = Expected { owners: funds.clone(), treasury: 0 };
    jobs(service, &mut expected);
    for lease in service.leases.iter().filter(|lease| lease.state == LeaseState::Lost) {
        // The fixed fee, and the part of the price for the part of the time beyond the first heartbeat's.
        let held = lease.expires.0 - lease.since.0 - service.parameters.heartbeat_ms as i64;
        let whole = i128::from(lease.deadline.0 - lease.since.0);
        let holding = i128::from(service.jobs[lease.job].price.0) * i128::from(held.max(0)) / whole;
        let fee = (service.parameters.lost_lease_fee.0 + holding as i64).min(lease.stake.0);
        expected.give(lease.owner, -fee);
        expected.treasury += fee;
    }
    for claim in 0..service.claims.len() {
        conviction(service, claim, &mut expected);
    }
    forfeits(service, &mut expected);
    for (owner, due) in &expected.owners {
        let (free, locked) =
            (service.book.balance(Account::Free(*owner)).0, service.book.balance(Account::Locked(*owner)).0);
        if (free, locked) != (*due, 0) {
            return Err(format!("{owner:?} has {free} and {locked} locked at the end, where {due} is due"));
        }
    }
    let treasury = service.book.balance(Account::Treasury).0;
    if treasury != expected.treasury {
        return Err(format!("the treasury has {treasury} where {} is due", expected.treasury));
    }
    let outside = service.book.balance(Account::Outside).0;
    let left: i64 = expected.owners.values().sum::<i64>() + expected.treasury;
    if -outside != left {
        return Err(format!("{left} is distributed of {} that came in", -outside));
    }
    Ok(())
}

fn jobs(service: &Service<'_>, expected: &mut Expected) {
    for job in service.jobs.iter().filter(|job| job.state == JobState::Finalized) {
        let claim = &service.claims[job.claim.expect("a finalized job has a claim")];
        let fee = part(job.price.0, service.parameters.fee_ppm);
        expected.give(job.submitter, -job.price.0);
        expected.give(claim.owner, job.price.0 - fee);
        expected.treasury += fee;
    }
}

/// A rejected claim costs its stake; treasury and submitter get their fixed parts whoever proved it. The rest is the
/// prover's, less refunds; without a proof, it is shared by those who disputed the claim and were right. Where a worker
/// was silent and nobody was, all is the treasury's.
fn conviction(service: &Service<'_>, claim: usize, expected: &mut Expected) {
    let record = &service.claims[claim];
    let Some(why) = record.rejection else { return };
    let parameters = &service.parameters;
    let (stake, job) = (record.stake.0, &service.jobs[record.job]);
    let to_treasury = part(stake, parameters.slash_to_treasury_ppm);
    let to_submitter = part(stake, parameters.slash_to_submitter_ppm);
    expected.give(record.owner, -stake);
    expected.treasury += to_treasury;
    let mut left = stake - to_treasury - to_submitter;
    let prover = prover(service, why);
    let openers = confirmed(service, claim, prover.is_some());
    if prover.is_none() && openers.is_empty() && matches!(why, Rejection::Dispute(_)) {
        expected.treasury += to_submitter + left;
        return;
    }
    expected.give(job.submitter, to_submitter);
    if let Some(prover) = prover {
        let mut cap = left.min(part(stake, parameters.opener_refund_cap_ppm));
        for opener in openers.into_iter().filter(|opener| *opener != prover) {
            let refund = parameters.opener_refund.0.min(cap);
            expected.give(opener, refund);
            (cap, left) = (cap - refund, left - refund);
        }
        expected.give(prover, left);
    } else if openers.is_empty() {
        expected.treasury += left;
    } else {
        let each = left / openers.len() as i64;
        expected.give(openers[0], left % openers.len() as i64);
        openers.into_iter().for_each(|opener| expected.give(opener, each));
    }
}

/// Who proved the claim wrong, where somebody did.
fn prover(service: &Service<'_>, why: Rejection) -> Option<OwnerId> {
    let Rejection::Dispute(index) = why else { return None };
    let record = &service.disputes[index];
    let proven = matches!(record.dispute.outcome()?.cause, Cause::Proof { .. });
    proven.then_some(record.challenger)
}

/// Who disputed a rejected claim, did not lose, and was right by the answer that was accepted in the end; where
/// none was, all of them if the claim was proven wrong, else nobody.
fn confirmed(service: &Service<'_>, claim: usize, is_proven: bool) -> Vec<OwnerId> {
    let job = &service.jobs[service.claims[claim].job];
    let accepted = job.claim.map(|accepted| &service.claims[accepted]);
    let accepted = accepted.filter(|accepted| accepted.state == ClaimState::Finalized);
    let mut owners = Vec::new();
    for record in service.disputes.iter().filter(|record| record.claim == claim) {
        let open = record.dispute.opening();
        let lost = record.dispute.outcome().is_some_and(|end| end.verdict == Verdict::WorkerWins);
        let right = accepted.map_or(is_proven, |accepted| {
            accepted.signed.body.layers[open.layer as usize] == open.commitment
        });
        if right && !lost && !owners.contains(&record.challenger) {
            owners.push(record.challenger);
        }
    }
    owners
}

/// A dispute lost by proof or silence costs the bond that backs all disputes of the pair. It cannot be lost twice: the
/// loss ends the others.
fn forfeits(service: &Service<'_>, expected: &mut Expected) {
    for record in &service.disputes {
        let Some(outcome) = record.dispute.outcome() else { continue };
        if outcome.verdict != Verdict::WorkerWins || matches!(outcome.cause, Cause::Closed(_)) {
            continue;
        }
        let bond = service.parameters.bond.0;
        let to_worker = part(bond, service.parameters.forfeit_to_worker_ppm);
        expected.give(record.challenger, -bond);
        expected.give(service.claims[record.claim].owner, to_worker);
        expected.treasury += bond - to_worker;
    }
}
