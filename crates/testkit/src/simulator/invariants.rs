//! What must be true after every step.

use gainsay_commitment::PartyId;
use gainsay_protocol::ledger::{Account, Hold};
use gainsay_protocol::lifecycle::{ClaimState, JobState};
use gainsay_protocol::{OwnerId, Verdict};

use super::service::{ClaimRecord, HoldCause, LeaseState, Service};

/// What is promised in a game, and to whom.
#[derive(Debug, Default)]
pub(super) struct Promises {
    /// Everybody with an account.
    pub(super) owners: Vec<OwnerId>,
    /// Honest workers that can always move in time: no claim of theirs is rejected.
    pub(super) workers: Vec<PartyId>,
    /// Honest challengers that can always move in time: they lose no dispute, and where there is one, no false claim
    /// becomes final.
    pub(super) challengers: Vec<PartyId>,
}

/// How much later than its moment something may be done: time is counted in seconds and lost in outages, and of what is
/// due a dispute and then its claim may each be looked at five seconds late.
const SLACK_MS: u64 = 13_000;

pub(super) fn check(service: &Service<'_>, promises: &Promises) -> Result<(), String> {
    if let Some(violation) = &service.violation {
        return Err(violation.clone());
    }
    money(service, promises)?;
    leases(service)?;
    claims(service, promises)?;
    disputes(service, promises)?;
    jobs(service)
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Money is conserved, and what is locked, in escrow or held is what it is locked, in escrow or held for.
fn money(service: &Service<'_>, promises: &Promises) -> Result<(), String> {
    let book = &service.book;
    ensure(book.total() == 0, || format!("money was made or lost: {}", book.total()))?;
    let negative = book.iter().find(|(account, held)| held.0 < 0 && !account.may_be_negative());
    ensure(negative.is_none(), || format!("negative: {negative:?}"))?;
    for owner in &promises.owners {
        let leases = service.leases.iter().filter(|lease| lease.state == LeaseState::Held);
        let leases = leases.filter(|lease| lease.owner == *owner).map(|lease| lease.stake.0);
        let claims = service.claims.iter().filter(|claim| claim.state == ClaimState::Pending);
        let claims = claims.filter(|claim| claim.owner == *owner).map(|claim| claim.stake.0);
        let bonds = service.bonds.values().filter(|bond| bond.owner == *owner).map(|bond| bond.amount.0);
        let (due, locked) =
            (leases.chain(claims).chain(bonds).sum::<i64>(), book.balance(Account::Locked(*owner)).0);
        ensure(due == locked, || format!("{owner:?} has {locked} locked for {due} at stake"))?;
    }
    for job in &service.jobs {
        let decided = !matches!(job.state, JobState::Submitted | JobState::Assigned | JobState::Claimed);
        let (due, held) = (if decided { 0 } else { job.price.0 }, book.balance(Account::Escrow(job.id)).0);
        ensure(due == held, || format!("{:?}: {held} in escrow where {due} is due", job.id))?;
    }
    for hold in &service.holds {
        let account = match hold.cause {
            HoldCause::Stake { claim } => Account::Held(Hold::Stake(service.claims[claim].id)),
            HoldCause::Bond { dispute } => Account::Held(Hold::Bond(service.disputes[dispute].dispute.id())),
        };
        let (due, held) = (if hold.paid { 0 } else { hold.amount.0 }, book.balance(account).0);
        ensure(due == held, || format!("{account:?}: {held} held where {due} is due"))?;
    }
    Ok(())
}

fn leases(service: &Service<'_>) -> Result<(), String> {
    for (index, lease) in service.leases.iter().enumerate() {
        let ended = lease.ended.unwrap_or(service.now);
        let lasted = ended.since(lease.since);
        let bound = service.parameters.lease_ms + SLACK_MS;
        ensure(lasted <= bound, || format!("lease {index} lasts for {lasted} ms"))?;
        if let LeaseState::Claimed(claim) = lease.state {
            let in_time = service.claims[claim].posted < lease.expires;
            ensure(in_time, || format!("claim {claim} was taken after its lease had expired"))?;
        }
        let failed_before = service.claims.iter().any(|claim| {
            claim.job == lease.job
                && claim.owner == lease.owner
                && claim.state == ClaimState::Rejected
                && claim.decided <= Some(lease.since)
        });
        ensure(!failed_before, || format!("lease {index} goes to the owner who failed the job before"))?;
    }
    Ok(())
}

/// Whether the worker gave the right answer.
pub(super) fn is_right(service: &Service<'_>, claim: &ClaimRecord) -> bool {
    claim.signed.body.layers == service.pool.puzzle(claim.puzzle).layers()
}

/// The longest that a claim can be pending. A conviction of its worker starts its window anew, once, and at the
/// latest when it would have been decided.
fn longest_pending_ms(service: &Service<'_>, claim: &ClaimRecord) -> u64 {
    let parameters = &service.parameters;
    let disputes = parameters.worker_allowance_ms + parameters.challenger_allowance_ms;
    claim.closes.since(claim.posted) + disputes + SLACK_MS
}

fn claims(service: &Service<'_>, promises: &Promises) -> Result<(), String> {
    let window = service.parameters.window_ms;
    for (index, claim) in service.claims.iter().enumerate() {
        let worker = claim.signed.body.worker;
        let pending = claim.decided.unwrap_or(service.now).since(claim.posted);
        let bound = longest_pending_ms(service, claim);
        ensure(pending <= bound, || format!("claim {index} is pending for {pending} ms"))?;
        let paid = u32::from(claim.state == ClaimState::Finalized);
        ensure(claim.payments == paid, || {
            format!("claim {index} is {:?} and was paid {} times", claim.state, claim.payments)
        })?;
        if claim.state == ClaimState::Pending {
            continue;
        }
        ensure(service.open_disputes(index) == 0, || format!("claim {index} was decided under dispute"))?;
        if claim.state == ClaimState::Finalized {
            let early = claim.decided < Some(claim.closes) || claim.decided < Some(claim.posted.plus(window));
            ensure(!early, || format!("claim {index} was paid before its window had ended"))?;
            let watched = !promises.challengers.is_empty();
            ensure(!watched || is_right(service, claim), || {
                format!("claim {index} is false and final, though an honest challenger watched")
            })?;
        } else {
            ensure(!promises.workers.contains(&worker), || format!("claim {index} was honest and rejected"))?;
        }
    }
    Ok(())
}

fn disputes(service: &Service<'_>, promises: &Promises) -> Result<(), String> {
    for (index, record) in service.disputes.iter().enumerate() {
        let claim = &service.claims[record.claim];
        ensure(record.opened < claim.closes, || format!("dispute {index} was opened after the window"))?;
        let Some(outcome) = record.dispute.outcome() else { continue };
        let lost = outcome.verdict == Verdict::WorkerWins;
        let honest = promises.challengers.contains(&record.dispute.challenger());
        ensure(!(lost && honest), || format!("dispute {index} was honest and lost: {outcome:?}"))?;
        ensure(record.settled, || format!("dispute {index} ended and nothing followed"))?;
    }
    Ok(())
}

fn jobs(service: &Service<'_>) -> Result<(), String> {
    for (index, job) in service.jobs.iter().enumerate() {
        let of_job = service.claims.iter().filter(|claim| claim.job == index);
        let rejected = of_job.filter(|claim| claim.state == ClaimState::Rejected).count() as u64;
        let attempts = u64::from(service.parameters.attempts);
        let of_job = service.leases.iter().filter(|lease| lease.job == index);
        let lost = of_job.filter(|lease| lease.state == LeaseState::Lost).count() as u64;
        let leases = u64::from(service.parameters.lease_attempts);
        let used_up = rejected >= attempts || lost >= leases;
        ensure(
            used_up == (job.state == JobState::Refunded) && rejected <= attempts && lost <= leases,
            || {
                format!(
                    "job {index} is {:?} after {rejected} of {attempts} attempts and {lost} of {leases} lost leases",
                    job.state
                )
            },
        )?;
    }
    Ok(())
}
