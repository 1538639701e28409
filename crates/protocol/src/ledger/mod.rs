//! Money: every event as a double entry.
//!
//! Each function turns one event of the protocol into a [`Transaction`] whose postings sum to zero: money moves,
//! none is made. Fractions are rounded down and whatever rounding leaves goes to a party that the rule names.
//! Nothing here knows balances; the store refuses a transaction that would overdraw an account, and [`Book`] is
//! the reference for that rule.

pub mod audit;
mod book;
mod dispute;
mod job;

use std::collections::BTreeMap;
use std::fmt;

use gainsay_commitment::{ClaimId, DisputeId};

use crate::{
    ids::{JobId, OwnerId},
    money::Amount,
};

pub use book::{Book, Overdrawn};
pub use dispute::{
    ConvictionPayout, Forfeit, Grounds, Opening, confirmed_openers, convict, forfeit_bond, lock_bond,
    pay_conviction, pay_forfeit, return_bond, void_conviction, void_forfeit,
};
pub use job::{
    Refund, Settlement, deposit, finalize, lock_stake, lose_lease, refund, submit, unlock_stake, withdraw,
};

/// Where money can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// What an owner may spend, lock or withdraw.
    Free(OwnerId),
    /// Stake and bonds of an owner.
    Locked(OwnerId),
    /// The price of a job, from submission until it is decided.
    Escrow(JobId),
    /// Stake or bond that was lost, until it is paid out.
    Held(Hold),
    /// The coordinator's own.
    Treasury,
    /// Where deposits come from and withdrawals go: the only account that may be negative.
    Outside,
}

/// Why money is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hold {
    /// The stake behind a rejected claim.
    Stake(ClaimId),
    /// The bond lost with a dispute.
    Bond(DisputeId),
}

/// One account's part of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Posting {
    /// The account.
    pub account: Account,
    /// What it gains; negative where it gives. Never zero.
    pub amount: Amount,
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransactionKind {
    /// Money comes in.
    Deposit,
    /// Money goes out.
    Withdraw,
    /// A job's maximum price goes into escrow.
    Submit,
    /// A worker locks stake with a lease.
    LockStake,
    /// A lease ends without loss and without payment.
    UnlockStake,
    /// A lease was lost.
    LoseLease,
    /// A job is paid.
    Finalize,
    /// A job's escrow goes back.
    Refund,
    /// A challenger locks a bond.
    LockBond,
    /// A bond goes back.
    ReturnBond,
    /// A claim was proven wrong: its stake is held.
    Convict,
    /// Held stake is paid out.
    PayConviction,
    /// A dispute was lost: the bond is held.
    ForfeitBond,
    /// A held bond is paid out.
    PayForfeit,
    /// Held stake goes back: the profile version was withdrawn.
    VoidConviction,
    /// A held bond goes back: the profile version was withdrawn.
    VoidForfeit,
}

/// Postings that sum to zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    kind: TransactionKind,
    postings: Vec<Posting>,
}

/// Amounts from which no transaction can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// An amount is negative or too large.
    #[error("the {name} of {amount} is negative or too large")]
    Amount {
        /// What it is.
        name: &'static str,
        /// The amount.
        amount: Amount,
    },
    /// A part exceeds the whole.
    #[error("the {part} exceeds the {whole}")]
    Exceeds {
        /// The part.
        part: &'static str,
        /// The whole.
        whole: &'static str,
    },
}

impl Account {
    /// Stable snake-case name of the kind of account.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Free(_) => "free",
            Self::Locked(_) => "locked",
            Self::Escrow(_) => "escrow",
            Self::Held(_) => "held",
            Self::Treasury => "treasury",
            Self::Outside => "outside",
        }
    }

    /// The holder as bytes: an owner's or job's id, the claim or dispute of what is held, nothing for the rest.
    #[must_use]
    pub fn holder(&self) -> Vec<u8> {
        match self {
            Self::Free(owner) | Self::Locked(owner) => owner.0.to_vec(),
            Self::Escrow(job) => job.0.to_vec(),
            Self::Held(Hold::Stake(claim)) => claim.to_bytes().to_vec(),
            Self::Held(Hold::Bond(dispute)) => dispute.to_bytes().to_vec(),
            Self::Treasury | Self::Outside => Vec::new(),
        }
    }

    /// The account of this [`kind`](Self::kind) and [`holder`](Self::holder); `of_bond` tells the two sorts of holds
    /// apart. None where they do not go together.
    #[must_use]
    pub fn parse(kind: &str, holder: &[u8], of_bond: bool) -> Option<Self> {
        let owner = || <[u8; 16]>::try_from(holder).map(OwnerId).ok();
        match kind {
            "free" => owner().map(Self::Free),
            "locked" => owner().map(Self::Locked),
            "escrow" => <[u8; 16]>::try_from(holder).ok().map(|id| Self::Escrow(JobId(id))),
            "held" if of_bond => DisputeId::try_from(holder).ok().map(|id| Self::Held(Hold::Bond(id))),
            "held" => ClaimId::try_from(holder).ok().map(|id| Self::Held(Hold::Stake(id))),
            "treasury" if holder.is_empty() => Some(Self::Treasury),
            "outside" if holder.is_empty() => Some(Self::Outside),
            _ => None,
        }
    }

    /// Whether the balance may fall below zero.
    #[must_use]
    pub fn may_be_negative(&self) -> bool {
        matches!(self, Self::Outside)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Free(owner) | Self::Locked(owner) => write!(f, "{kind} of owner {owner}"),
            Self::Escrow(job) => write!(f, "{kind} of job {job}"),
            Self::Held(Hold::Stake(claim)) => write!(f, "{kind} stake of claim {claim}"),
            Self::Held(Hold::Bond(dispute)) => write!(f, "{kind} bond of dispute {dispute}"),
            Self::Treasury | Self::Outside => f.write_str(kind),
        }
    }
}

impl TransactionKind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Deposit,
        Self::Withdraw,
        Self::Submit,
        Self::LockStake,
        Self::UnlockStake,
        Self::LoseLease,
        Self::Finalize,
        Self::Refund,
        Self::LockBond,
        Self::ReturnBond,
        Self::Convict,
        Self::PayConviction,
        Self::ForfeitBond,
        Self::PayForfeit,
        Self::VoidConviction,
        Self::VoidForfeit,
    ];

    /// Whether what it moves into or out of `held` is a bond, not a stake.
    #[must_use]
    pub fn is_of_bond(self) -> bool {
        matches!(self, Self::ForfeitBond | Self::PayForfeit | Self::VoidForfeit)
    }

    /// The kind of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Stable snake-case name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deposit => "deposit",
            Self::Withdraw => "withdraw",
            Self::Submit => "submit",
            Self::LockStake => "lock_stake",
            Self::UnlockStake => "unlock_stake",
            Self::LoseLease => "lose_lease",
            Self::Finalize => "finalize",
            Self::Refund => "refund",
            Self::LockBond => "lock_bond",
            Self::ReturnBond => "return_bond",
            Self::Convict => "convict",
            Self::PayConviction => "pay_conviction",
            Self::ForfeitBond => "forfeit_bond",
            Self::PayForfeit => "pay_forfeit",
            Self::VoidConviction => "void_conviction",
            Self::VoidForfeit => "void_forfeit",
        }
    }
}

impl Transaction {
    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> TransactionKind {
        self.kind
    }

    /// The postings: accounts ascending, each once, none zero. Empty where nothing moves.
    #[must_use]
    pub fn postings(&self) -> &[Posting] {
        &self.postings
    }

    /// A transaction of these moves of money from one account to another.
    fn of(kind: TransactionKind, moves: &[(Account, Account, Amount)]) -> Self {
        let mut changes: BTreeMap<Account, Amount> = BTreeMap::new();
        let mut change = |account, amount: Option<Amount>| {
            let sum = changes.entry(account).or_default();
            *sum = amount
                .and_then(|amount| sum.checked_add(amount))
                .expect("a transaction moves few amounts of at most a billion credits");
        };
        for &(from, to, amount) in moves {
            change(from, Amount::ZERO.checked_sub(amount));
            change(to, Some(amount));
        }
        let changed = changes.into_iter().filter(|(_, amount)| *amount != Amount::ZERO);
        let postings: Vec<_> = changed.map(|(account, amount)| Posting { account, amount }).collect();
        let sum: i128 = postings.iter().map(|posting| i128::from(posting.amount.0)).sum();
        assert_eq!(sum, 0, "a {} transaction makes or loses money", kind.name());
        Self { kind, postings }
    }
}

fn valid(name: &'static str, amount: Amount) -> Result<Amount, LedgerError> {
    if amount.is_valid() { Ok(amount) } else { Err(LedgerError::Amount { name, amount }) }
}

/// What is left of `whole` without `part`.
fn rest(whole: (&'static str, Amount), part: (&'static str, Amount)) -> Result<Amount, LedgerError> {
    let exceeds = LedgerError::Exceeds { part: part.0, whole: whole.0 };
    whole.1.checked_sub(part.1).filter(|rest| *rest >= Amount::ZERO).ok_or(exceeds)
}
