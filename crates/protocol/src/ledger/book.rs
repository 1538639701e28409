//! Balances, derived from transactions: the reference for what a store has to refuse.

use std::collections::BTreeMap;

use super::{Account, Transaction};
use crate::money::Amount;

/// A transaction that would take more from an account than is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the account {account:?} holds {balance} and cannot give {wanted}")]
pub struct Overdrawn {
    /// The account.
    pub account: Account,
    /// What it holds.
    pub balance: Amount,
    /// What it would have to give.
    pub wanted: Amount,
}

/// Balances of all accounts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Book {
    balances: BTreeMap<Account, i128>,
}

impl Book {
    /// All balances zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Posts a transaction, whole or not at all.
    ///
    /// # Errors
    /// An account other than [`Account::Outside`] would fall below zero.
    pub fn post(&mut self, transaction: &Transaction) -> Result<(), Overdrawn> {
        for posting in transaction.postings() {
            let balance = self.exact(posting.account);
            let after = balance + i128::from(posting.amount.0);
            if after < 0 && !posting.account.may_be_negative() {
                let wanted = Amount(posting.amount.0.saturating_neg());
                return Err(Overdrawn { account: posting.account, balance: narrow(balance), wanted });
            }
        }
        for posting in transaction.postings() {
            *self.balances.entry(posting.account).or_default() += i128::from(posting.amount.0);
        }
        Ok(())
    }

    /// What an account holds.
    #[must_use]
    pub fn balance(&self, account: Account) -> Amount {
        narrow(self.exact(account))
    }

    /// The sum of all balances: zero, always.
    #[must_use]
    pub fn total(&self) -> i128 {
        self.balances.values().sum()
    }

    /// Accounts that were ever posted to, with what they hold.
    pub fn iter(&self) -> impl Iterator<Item = (Account, Amount)> {
        self.balances.iter().map(|(account, balance)| (*account, narrow(*balance)))
    }

    fn exact(&self, account: Account) -> i128 {
        self.balances.get(&account).copied().unwrap_or(0)
    }
}

fn narrow(balance: i128) -> Amount {
    Amount(i64::try_from(balance).unwrap_or(if balance < 0 { i64::MIN } else { i64::MAX }))
}
