//! Balances. All amounts are micro-credits. Submitters and owners hold balances; workers and challengers draw on their
//! owner's.

use crate::wire::{integer, text};
use gainsay_protocol::OwnerId;
use serde::{Deserialize, Serialize};

/// What an account's holder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AccountRole {
    /// Pays for jobs.
    Submitter,
    /// Answers for workers and challengers.
    Owner,
    /// Nobody in particular: escrow, held stake, treasury, outside.
    System,
}

/// Which of a holder's accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AccountKind {
    /// What the holder may spend or withdraw.
    Free,
    /// Stake and bonds.
    Locked,
    /// Prices of jobs that are not decided.
    Escrow,
    /// Slashed stake until its delay has passed.
    Held,
    /// The service's account.
    Treasury,
    /// The world outside: where deposits come from. The one account that may be negative.
    Outside,
}

/// One account and its balance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Account {
    /// Whose, where it is a submitter's or an owner's.
    #[serde(default, with = "text::option")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::OwnerId>))]
    pub owner: Option<OwnerId>,
    /// The holder's name, for people.
    pub name: String,
    /// What the holder is.
    pub role: AccountRole,
    /// Which of its accounts.
    pub kind: AccountKind,
    /// In micro-credits.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub balance: i64,
}

/// `GET /v1/accounts`: the asker's accounts, or all of them for the operator. Also the answer to deposits and
/// withdrawals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Accounts {
    /// The accounts, in a stable order.
    pub accounts: Vec<Account>,
    /// The sum of their balances: zero when all are listed.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub sum: i64,
}

impl Accounts {
    /// Adds the balances up.
    ///
    /// # Panics
    /// If they do not sum within 64 bits, which the ledger's own bounds exclude.
    #[must_use]
    pub fn new(accounts: Vec<Account>) -> Self {
        let sum: i128 = accounts.iter().map(|account| i128::from(account.balance)).sum();
        Self {
            accounts,
            sum: i64::try_from(sum).expect("balances are bounded so that they sum within 64 bits"),
        }
    }

    /// The balance of one account of an owner; zero if it is not listed.
    #[must_use]
    pub fn balance(&self, owner: OwnerId, kind: AccountKind) -> i64 {
        self.accounts
            .iter()
            .filter(|account| account.owner == Some(owner) && account.kind == kind)
            .map(|account| account.balance)
            .sum()
    }
}

/// Query of `GET /v1/accounts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct AccountsQuery {
    /// Every account of the ledger: for the operator.
    #[serde(default)]
    pub all: bool,
}

/// `POST /v1/deposits`, by the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Deposit {
    /// Whose free balance grows.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::OwnerId))]
    pub to: OwnerId,
    /// In micro-credits, positive.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub amount: i64,
}

/// `POST /v1/withdrawals`, by the account's holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Withdraw {
    /// In micro-credits, positive, at most the free balance.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub amount: i64,
}
