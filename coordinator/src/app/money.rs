//! Deposits, withdrawals, and who has what.

use gainsay_protocol::ledger::{self as rules, Account};
use gainsay_protocol::{Amount, OwnerId};
use serde_json::json;

use super::work::{About, Work, retrying};
use super::{AccountView, App, AppError, AppResult, RequestKey};
use crate::store::{StoreError, StoreResult, Tx, ledger, parties};

fn checked(amount: Amount) -> AppResult<Amount> {
    let fits = amount.is_valid() && amount > Amount::ZERO;
    if fits { Ok(amount) } else { Err(AppError::InvalidAmount { max: Amount::MAX }) }
}

/// Locks an owner's free balance and checks that it covers what is about to be taken from it.
pub(super) async fn require_free(tx: &mut Tx, owner: OwnerId, needed: Amount) -> AppResult<Amount> {
    let available = ledger::lock_balance(tx, Account::Free(owner)).await?;
    if available < needed {
        return Err(AppError::InsufficientFunds { needed, available });
    }
    Ok(available)
}

fn view(account: ledger::StoredAccount) -> StoreResult<AccountView> {
    let role = match account.role.as_deref() {
        None => "system",
        Some("submitter") => "submitter",
        Some("provider") => "provider",
        Some(_) => return Err(StoreError::Corrupt { what: "an owner's role" }),
    };
    let ledger::StoredAccount { kind, owner, name, balance, .. } = account;
    Ok(AccountView { owner, name, role, kind, balance })
}

impl App {
    /// Credits an owner's free balance from outside. Returns the new free balance.
    ///
    /// # Errors
    /// The amount, or no such owner.
    pub async fn deposit(&self, owner: OwnerId, amount: Amount) -> AppResult<Amount> {
        self.deposit_once(owner, amount, None).await
    }

    /// The same for a request that may be sent again: under one key it counts once.
    ///
    /// # Errors
    /// Likewise; or the key was used for another request.
    pub async fn deposit_once(
        &self,
        owner: OwnerId,
        amount: Amount,
        key: Option<&RequestKey>,
    ) -> AppResult<Amount> {
        let amount = checked(amount)?;
        let left = retrying(|| async move {
            let mut work = Work::begin(self).await?;
            if self.take_key(&mut work, key, &[]).await?.is_some() {
                return Ok(None);
            }
            self.require_owner(&mut work, owner).await?;
            let before = ledger::lock_balance(&mut work.tx, Account::Free(owner)).await?;
            work.post(About::default(), rules::deposit(owner, amount));
            let details = json!({ "owner": owner.to_string(), "amount": amount.0 });
            work.event("deposited", About::default(), details);
            work.finish().await?;
            Ok(before.checked_add(amount))
        });
        self.left_or_read(owner, left.await?).await
    }

    /// Takes from an owner's free balance to outside. Returns the new free balance.
    ///
    /// # Errors
    /// The amount, no such owner, or not that much free.
    pub async fn withdraw(&self, owner: OwnerId, amount: Amount) -> AppResult<Amount> {
        self.withdraw_once(owner, amount, None).await
    }

    /// The same for a request that may be sent again: under one key it counts once.
    ///
    /// # Errors
    /// Likewise; or the key was used for another request.
    pub async fn withdraw_once(
        &self,
        owner: OwnerId,
        amount: Amount,
        key: Option<&RequestKey>,
    ) -> AppResult<Amount> {
        let amount = checked(amount)?;
        let left = retrying(|| async move {
            let mut work = Work::begin(self).await?;
            if self.take_key(&mut work, key, &[]).await?.is_some() {
                return Ok(None);
            }
            self.require_owner(&mut work, owner).await?;
            let before = require_free(&mut work.tx, owner, amount).await?;
            work.post(About::default(), rules::withdraw(owner, amount));
            let details = json!({ "owner": owner.to_string(), "amount": amount.0 });
            work.event("withdrawn", About::default(), details);
            work.finish().await?;
            Ok(before.checked_sub(amount))
        });
        self.left_or_read(owner, left.await?).await
    }

    /// One owner's accounts.
    ///
    /// # Errors
    /// No such owner.
    pub async fn accounts_of(&self, owner: OwnerId) -> AppResult<Vec<AccountView>> {
        let mut conn = self.connection().await?;
        let accounts = ledger::accounts_of(&mut conn, owner).await?;
        if accounts.is_empty() {
            return Err(AppError::UnknownOwner(owner));
        }
        Ok(accounts.into_iter().map(view).collect::<StoreResult<_>>()?)
    }

    /// All owners' accounts, then the sums of escrow and of what is held, treasury and outside: they sum to zero.
    ///
    /// # Errors
    /// The database.
    pub async fn accounts(&self) -> AppResult<Vec<AccountView>> {
        let mut conn = self.connection().await?;
        let accounts = ledger::accounts(&mut conn).await?;
        Ok(accounts.into_iter().map(view).collect::<StoreResult<_>>()?)
    }

    /// The free balance that a transaction left. It is read only where the request came before under its key: a failure
    /// after a first one would make its sender repeat it.
    async fn left_or_read(&self, owner: OwnerId, left: Option<Amount>) -> AppResult<Amount> {
        match left {
            Some(left) => Ok(left),
            None => self.free_balance(owner).await,
        }
    }

    async fn free_balance(&self, owner: OwnerId) -> AppResult<Amount> {
        let mut conn = self.connection().await?;
        Ok(ledger::balance(&mut conn, Account::Free(owner)).await?)
    }

    async fn require_owner(&self, work: &mut Work<'_>, owner: OwnerId) -> AppResult<()> {
        let known = parties::owner_exists(&mut work.tx, owner).await?;
        if known { Ok(()) } else { Err(AppError::UnknownOwner(owner)) }
    }
}
