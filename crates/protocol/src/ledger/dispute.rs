//! Postings of disputes: bonds, convictions, forfeits.
//!
//! What is lost is held first and paid out after a delay, so that withdrawing a faulty profile version can still
//! give everything back.

use gainsay_commitment::{ClaimId, DisputeId, PartyId};

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

/// A conviction whose holding time is over and whose job is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvictionPayout<'a> {
    /// The rejected claim.
    pub claim: ClaimId,
    /// What is held.
    pub stake: Amount,
    /// Whose job it was.
    pub submitter: OwnerId,
    /// The owner of the challenger who proved the claim wrong, or of the reporter of an equivocation.
    pub prover: OwnerId,
    /// The owners of [confirmed openers](confirmed_openers).
    pub confirmed_openers: &'a [OwnerId],
}

/// Pays out a held stake: fixed fractions to treasury and submitter, the fixed refund to every confirmed earlier
/// opener (less where their sum would pass the cap), and all the rest to the prover.
///
/// # Errors
/// An amount is negative or too large, or the fractions exceed the stake.
pub fn pay_conviction(
    payout: &ConvictionPayout<'_>,
    parameters: &Parameters,
) -> Result<Transaction, LedgerError> {
    let stake = valid("stake", payout.stake)?;
    let to_treasury = stake.share(parameters.slash_to_treasury_ppm);
    let to_submitter = stake.share(parameters.slash_to_submitter_ppm);
    let left = rest(("stake", stake), ("treasury's part", to_treasury))?;
    let left = rest(("stake", left), ("submitter's part", to_submitter))?;

    let cap = stake.share(parameters.opener_refund_cap_ppm).min(left);
    let openers = payout.confirmed_openers.len() as i64;
    let fixed = valid("opener refund", parameters.opener_refund)?;
    let each = if openers == 0 { Amount::ZERO } else { fixed.min(Amount(cap.0 / openers)) };
    let to_prover = rest(("stake", left), ("refunds", Amount(each.0 * openers)))?;

    let held = Account::Held(Hold::Stake(payout.claim));
    let mut moves = vec![
        (held, Account::Treasury, to_treasury),
        (held, Account::Free(payout.submitter), to_submitter),
        (held, Account::Free(payout.prover), to_prover),
    ];
    moves.extend(payout.confirmed_openers.iter().map(|opener| (held, Account::Free(*opener), each)));
    Ok(Transaction::of(TransactionKind::PayConviction, &moves))
}

/// A dispute on a claim that another dispute proved wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriorOpening {
    /// Its opening.
    pub open: Open,
    /// Whether it was opened before the one that proved the claim wrong.
    pub is_earlier: bool,
}

/// The challengers who get a refund out of a conviction: those who disputed the claim before its prover, and whose
/// own commitment of the layer is the one in the claim that was finally accepted. Each once; never the prover.
///
/// A sham dispute that races an honest one to the reward can therefore not leave the honest one with nothing.
#[must_use]
pub fn confirmed_openers(openings: &[PriorOpening], prover: PartyId, accepted: &Claim) -> Vec<PartyId> {
    let mut confirmed = Vec::new();
    for PriorOpening { open, is_earlier } in openings {
        let right = accepted.layers.get(open.layer as usize) == Some(&open.commitment);
        if *is_earlier && right && open.challenger != prover && !confirmed.contains(&open.challenger) {
            confirmed.push(open.challenger);
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
