//! Postings of disputes: bonds, convictions, forfeits.
//!
//! What is lost is held first and paid out after a delay, so that withdrawing a faulty profile version can still
//! give everything back.

use gainsay_commitment::{ClaimId, DisputeId};

use super::{Account, Hold, LedgerError, Transaction, TransactionKind, rest, valid};
use crate::{claim::Claim, ids::OwnerId, money::Amount, moves::Open, parameters::Parameters};

/// A challenger's first open dispute against a worker: one bond backs all of them.
///
/// # Errors
/// The bond is negative or too large.
pub fn lock_bond(challenger: OwnerId, bond: Amount) -> Result<Transaction, LedgerError> {
    let bond = valid("bond", bond)?;
    let moves = [(Account::Free(challenger), Account::Locked(challenger), bond)];
    Ok(Transaction::of(TransactionKind::LockBond, &moves))
}

/// No dispute of a challenger against a worker is open any more, and it lost none: the bond goes back.
///
/// # Errors
/// The bond is negative or too large.
pub fn return_bond(challenger: OwnerId, bond: Amount) -> Result<Transaction, LedgerError> {
    let bond = valid("bond", bond)?;
    let moves = [(Account::Locked(challenger), Account::Free(challenger), bond)];
    Ok(Transaction::of(TransactionKind::ReturnBond, &moves))
}

/// A claim is rejected, by a dispute or as an equivocation: the stake locked with it is held. The job's escrow stays
/// for the next attempt.
///
/// # Errors
/// The stake is negative or too large.
pub fn convict(claim: ClaimId, worker: OwnerId, stake: Amount) -> Result<Transaction, LedgerError> {
    let stake = valid("stake", stake)?;
    let moves = [(Account::Locked(worker), Account::Held(Hold::Stake(claim)), stake)];
    Ok(Transaction::of(TransactionKind::Convict, &moves))
}

/// What a conviction rests on, which says whose the prover's share is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grounds {
    /// The referee found the claim wrong, in a dispute of this owner's challenger.
    Proof {
        /// The challenger's owner.
        prover: OwnerId,
    },
    /// The worker let its allowance run out. Whoever happened to wait for it has shown nothing.
    Silence,
    /// Two signed claims of one lease.
    Equivocation {
        /// The owner of whoever brought them; none where the worker did so itself.
        reporter: Option<OwnerId>,
    },
}

/// A conviction whose holding time is over and whose job is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvictionPayout<'a> {
    /// The rejected claim.
    pub claim: ClaimId,
    /// What is held.
    pub stake: Amount,
    /// Whose job it was.
    pub submitter: OwnerId,
    /// What the conviction rests on.
    pub grounds: Grounds,
    /// [Confirmed openers](confirmed_openers), in the order of their openings.
    pub confirmed_openers: &'a [OwnerId],
}

/// Pays out a held stake: fixed fractions to treasury and submitter, and the rest, the prover's share, by the grounds.
/// After silence the submitter's part is the treasury's too unless there are confirmed openers: without them nothing says
/// that the claim was wrong, and a submitter must not gain by a worker's absence.
///
/// Where a proof was given, every confirmed opener gets the fixed refund, in the order of openings until the cap is used
/// up, and the prover all that is left. Where none was given, the confirmed openers, who would have given it, share in
/// equal parts, and the first of them gets what does not divide. Without any, the share is the reporter's of an
/// equivocation, or the treasury's: neither silence nor a second claim brings a worker's confederate anything that
/// confirmed openers would have had.
///
/// # Errors
/// An amount is negative or too large, or the fractions exceed the stake.
pub fn pay_conviction(
    payout: &ConvictionPayout<'_>,
    parameters: &Parameters,
) -> Result<Transaction, LedgerError> {
    let stake = valid("stake", payout.stake)?;
    let to_treasury = stake.share(parameters.slash_to_treasury_ppm);
    let is_wronged = payout.grounds != Grounds::Silence || !payout.confirmed_openers.is_empty();
    let submitter = if is_wronged { Account::Free(payout.submitter) } else { Account::Treasury };
    let to_submitter = stake.share(parameters.slash_to_submitter_ppm);
    let left = rest(("stake", stake), ("treasury's part", to_treasury))?;
    let left = rest(("stake", left), ("submitter's part", to_submitter))?;

    let held = Account::Held(Hold::Stake(payout.claim));
    let mut moves = vec![(held, Account::Treasury, to_treasury), (held, submitter, to_submitter)];
    let shares = match payout.grounds {
        Grounds::Proof { prover } => refunds_first(payout, prover, left, parameters)?,
        Grounds::Silence => equal_parts(payout.confirmed_openers, None, left)?,
        Grounds::Equivocation { reporter } => equal_parts(payout.confirmed_openers, reporter, left)?,
    };
    moves.extend(shares.into_iter().map(|(to, amount)| (held, to, amount)));
    Ok(Transaction::of(TransactionKind::PayConviction, &moves))
}

fn refunds_first(
    payout: &ConvictionPayout<'_>,
    prover: OwnerId,
    share: Amount,
    parameters: &Parameters,
) -> Result<Vec<(Account, Amount)>, LedgerError> {
    let fixed = valid("opener refund", parameters.opener_refund)?;
    let mut cap = payout.stake.share(parameters.opener_refund_cap_ppm).min(share);
    let mut left = share;
    let mut shares = Vec::new();
    for opener in payout.confirmed_openers.iter().filter(|opener| **opener != prover) {
        let refund = fixed.min(cap);
        cap = rest(("cap of refunds", cap), ("refund", refund))?;
        left = rest(("prover's share", left), ("refund", refund))?;
        shares.push((Account::Free(*opener), refund));
    }
    shares.push((Account::Free(prover), left));
    Ok(shares)
}

fn equal_parts(
    openers: &[OwnerId],
    otherwise: Option<OwnerId>,
    share: Amount,
) -> Result<Vec<(Account, Amount)>, LedgerError> {
    let Some((first, others)) = openers.split_first() else {
        return Ok(vec![(otherwise.map_or(Account::Treasury, Account::Free), share)]);
    };
    let part = Amount(share.0 / openers.len() as i64);
    let to_others = Amount(part.0 * others.len() as i64);
    let mut shares = vec![(Account::Free(*first), rest(("prover's share", share), ("parts", to_others))?)];
    shares.extend(others.iter().map(|opener| (Account::Free(*opener), part)));
    Ok(shares)
}

/// A dispute on a claim that was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// How it was opened.
    pub open: Open,
    /// Whose challenger opened it.
    pub owner: OwnerId,
    /// Whether it was lost: found wrong, or not pursued.
    pub is_lost: bool,
}

/// The owners who share in a conviction as openers: those of the disputes on the claim, in the order of their openings,
/// that were not lost and whose own commitment of the layer is the one in the claim that was accepted in the end. Each
/// owner once, with however many keys it came. Where no claim was ever accepted nothing tells who was right: with a proof
/// that the claim was wrong all that were not lost count; without one none does, or whoever disputes the true claim of a
/// worker that is away could take its stake by withdrawing the job.
///
/// What an opening says the layer should be stays with the coordinator until its dispute is over, so that no later
/// opener can have copied it.
#[must_use]
pub fn confirmed_openers(openings: &[Opening], accepted: Option<&Claim>, grounds: Grounds) -> Vec<OwnerId> {
    let mut confirmed = Vec::new();
    for Opening { open, owner, is_lost } in openings {
        let right = match accepted {
            Some(accepted) => accepted.layers.get(open.layer as usize) == Some(&open.commitment),
            None => matches!(grounds, Grounds::Proof { .. }),
        };
        if right && !is_lost && !confirmed.contains(owner) {
            confirmed.push(*owner);
        }
    }
    confirmed
}

/// A challenger lost a dispute: the bond that backed all its disputes against the worker is held.
///
/// # Errors
/// The bond is negative or too large.
pub fn forfeit_bond(
    dispute: DisputeId,
    challenger: OwnerId,
    bond: Amount,
) -> Result<Transaction, LedgerError> {
    let bond = valid("bond", bond)?;
    let moves = [(Account::Locked(challenger), Account::Held(Hold::Bond(dispute)), bond)];
    Ok(Transaction::of(TransactionKind::ForfeitBond, &moves))
}

/// A held bond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forfeit {
    /// The dispute that was lost.
    pub dispute: DisputeId,
    /// What is held.
    pub bond: Amount,
    /// The owner of the worker who was disputed wrongly.
    pub worker: OwnerId,
}

/// Pays out a held bond: the worker's part, rounded down, and the rest to the treasury.
///
/// # Errors
/// The bond is negative or too large.
pub fn pay_forfeit(forfeit: &Forfeit, parameters: &Parameters) -> Result<Transaction, LedgerError> {
    let bond = valid("bond", forfeit.bond)?;
    let to_worker = bond.share(parameters.forfeit_to_worker_ppm);
    let to_treasury = rest(("bond", bond), ("worker's part", to_worker))?;
    let held = Account::Held(Hold::Bond(forfeit.dispute));
    let moves = [(held, Account::Free(forfeit.worker), to_worker), (held, Account::Treasury, to_treasury)];
    Ok(Transaction::of(TransactionKind::PayForfeit, &moves))
}

/// A held stake goes back to the worker's owner: the profile version was withdrawn.
///
/// # Errors
/// The stake is negative or too large.
pub fn void_conviction(claim: ClaimId, worker: OwnerId, stake: Amount) -> Result<Transaction, LedgerError> {
    let stake = valid("stake", stake)?;
    let moves = [(Account::Held(Hold::Stake(claim)), Account::Free(worker), stake)];
    Ok(Transaction::of(TransactionKind::VoidConviction, &moves))
}

/// A held bond goes back to the challenger's owner: the profile version was withdrawn.
///
/// # Errors
/// The bond is negative or too large.
pub fn void_forfeit(
    dispute: DisputeId,
    challenger: OwnerId,
    bond: Amount,
) -> Result<Transaction, LedgerError> {
    let bond = valid("bond", bond)?;
    let moves = [(Account::Held(Hold::Bond(dispute)), Account::Free(challenger), bond)];
    Ok(Transaction::of(TransactionKind::VoidForfeit, &moves))
}
