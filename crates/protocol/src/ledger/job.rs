//! Postings of a job's life: deposits, escrow, stakes, payment.

use super::{Account, LedgerError, Transaction, TransactionKind, rest, valid};
use crate::{
    ids::{JobId, OwnerId},
    money::Amount,
    parameters::Parameters,
};

/// Money comes in from outside.
///
/// # Errors
/// The amount is negative or too large.
pub fn deposit(owner: OwnerId, amount: Amount) -> Result<Transaction, LedgerError> {
    let amount = valid("deposit", amount)?;
    Ok(Transaction::of(TransactionKind::Deposit, &[(Account::Outside, Account::Free(owner), amount)]))
}

/// Free money goes out. Locked money cannot leave.
///
/// # Errors
/// The amount is negative or too large.
pub fn withdraw(owner: OwnerId, amount: Amount) -> Result<Transaction, LedgerError> {
    let amount = valid("withdrawal", amount)?;
    Ok(Transaction::of(TransactionKind::Withdraw, &[(Account::Free(owner), Account::Outside, amount)]))
}

/// A job is submitted: its maximum price waits in escrow.
///
/// # Errors
/// The price is negative or too large.
pub fn submit(job: JobId, submitter: OwnerId, max_price: Amount) -> Result<Transaction, LedgerError> {
    let price = valid("maximum price", max_price)?;
    let moves = [(Account::Free(submitter), Account::Escrow(job), price)];
    Ok(Transaction::of(TransactionKind::Submit, &moves))
}

/// A lease is given: the worker's owner locks stake until the claim is decided.
///
/// # Errors
/// The stake is negative or too large.
pub fn lock_stake(worker: OwnerId, stake: Amount) -> Result<Transaction, LedgerError> {
    let stake = valid("stake", stake)?;
    let moves = [(Account::Free(worker), Account::Locked(worker), stake)];
    Ok(Transaction::of(TransactionKind::LockStake, &moves))
}

/// A lease ends without anybody's fault, or a claim is voided: the stake goes back.
///
/// # Errors
/// The stake is negative or too large.
pub fn unlock_stake(worker: OwnerId, stake: Amount) -> Result<Transaction, LedgerError> {
    let stake = valid("stake", stake)?;
    let moves = [(Account::Locked(worker), Account::Free(worker), stake)];
    Ok(Transaction::of(TransactionKind::UnlockStake, &moves))
}

/// A lease is lost, or handed back late: the fee comes out of the stake locked with it, the rest goes back.
///
/// # Errors
/// An amount is negative or too large, or the fee exceeds the stake.
pub fn lose_lease(worker: OwnerId, stake: Amount, fee: Amount) -> Result<Transaction, LedgerError> {
    let (stake, fee) = (valid("stake", stake)?, valid("lost-lease fee", fee)?);
    let back = rest(("stake", stake), ("lost-lease fee", fee))?;
    let locked = Account::Locked(worker);
    let moves = [(locked, Account::Free(worker), back), (locked, Account::Treasury, fee)];
    Ok(Transaction::of(TransactionKind::LoseLease, &moves))
}

/// A claim whose window has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// The job.
    pub job: JobId,
    /// Who pays.
    pub submitter: OwnerId,
    /// The owner of the worker who is paid.
    pub worker: OwnerId,
    /// What is in escrow.
    pub escrowed: Amount,
    /// What the job cost in fact.
    pub price: Amount,
    /// The stake locked with the lease.
    pub stake: Amount,
}

/// A claim becomes final: the worker gets the price less the fee, the treasury the fee, the submitter the rest of
/// the escrow, and the stake is unlocked. The fee is rounded down, in the worker's favour.
///
/// # Errors
/// An amount is negative or too large, or the price exceeds the escrow.
pub fn finalize(settlement: &Settlement, parameters: &Parameters) -> Result<Transaction, LedgerError> {
    let Settlement { job, submitter, worker, .. } = *settlement;
    let (escrowed, price) = (valid("escrow", settlement.escrowed)?, valid("price", settlement.price)?);
    let stake = valid("stake", settlement.stake)?;
    let back = rest(("escrow", escrowed), ("price", price))?;
    let fee = price.share(parameters.fee_ppm);
    let earned = rest(("price", price), ("fee", fee))?;
    let moves = [
        (Account::Escrow(job), Account::Free(worker), earned),
        (Account::Escrow(job), Account::Treasury, fee),
        (Account::Escrow(job), Account::Free(submitter), back),
        (Account::Locked(worker), Account::Free(worker), stake),
    ];
    Ok(Transaction::of(TransactionKind::Finalize, &moves))
}

/// A job that ends without a final claim: cancelled, out of attempts, or voided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refund {
    /// The job.
    pub job: JobId,
    /// Who gets the escrow back.
    pub submitter: OwnerId,
    /// What is in escrow.
    pub escrowed: Amount,
    /// What was delivered before a cancellation, and to whose owner its price goes. An answer that is delivered
    /// as a whole leaves nothing to pay for.
    pub delivered: Option<(OwnerId, Amount)>,
}

/// A job's escrow goes back, less what was already delivered, at its price and with the usual fee.
///
/// # Errors
/// An amount is negative or too large, or what was delivered exceeds the escrow.
pub fn refund(refund: &Refund, parameters: &Parameters) -> Result<Transaction, LedgerError> {
    let escrowed = valid("escrow", refund.escrowed)?;
    let escrow = Account::Escrow(refund.job);
    let mut moves = Vec::new();
    let mut back = escrowed;
    if let Some((worker, price)) = refund.delivered {
        let price = valid("price of what was delivered", price)?;
        back = rest(("escrow", escrowed), ("price of what was delivered", price))?;
        let fee = price.share(parameters.fee_ppm);
        let earned = rest(("price of what was delivered", price), ("fee", fee))?;
        moves.extend([(escrow, Account::Free(worker), earned), (escrow, Account::Treasury, fee)]);
    }
    moves.push((escrow, Account::Free(refund.submitter), back));
    Ok(Transaction::of(TransactionKind::Refund, &moves))
}
