//! Deriving every balance again from the log, and holding it against what else is on record.
//!
//! An [`Audit`] is fed the whole log, transaction by transaction in any order, and then the [`Facts`] of the same
//! moment. It trusts neither: what a transaction of each kind may move, that each sums to zero, and that a claim is
//! paid at most once and never with its rejection follow from the log alone; balances, escrow, stakes, bonds and holds
//! from the two together.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use gainsay_commitment::{ClaimId, DisputeId};

use super::{Account, Hold, Posting, TransactionKind};
use crate::{
    ids::{JobId, OwnerId},
    lifecycle::ClaimState,
    money::Amount,
};

/// A transaction as it was logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its id.
    pub id: [u8; 16],
    /// What it was for.
    pub kind: TransactionKind,
    /// The job it was about.
    pub job: Option<JobId>,
    /// The claim it was about.
    pub claim: Option<ClaimId>,
    /// The dispute it was about.
    pub dispute: Option<DisputeId>,
    /// What became of the claim, of a transaction that settles one.
    pub claim_state: Option<ClaimState>,
    /// Whether the record of settlements names this very transaction for the claim.
    pub is_settlement: bool,
    /// What it moved.
    pub postings: Vec<Posting>,
}

/// Money that an owner has locked, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// Whose.
    pub owner: OwnerId,
    /// How much.
    pub amount: Amount,
}

/// What the other records say, as of the moment up to which the log was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Balances; an account that is not listed holds nothing.
    pub balances: Vec<(Account, Amount)>,
    /// Jobs that are not decided, with their prices.
    pub escrowed: Vec<(JobId, Amount)>,
    /// Stakes of leases that are held and of claims that are pending, and bonds that are locked.
    pub locked: Vec<Lock>,
    /// Stakes and bonds that were lost and not yet paid out.
    pub held: Vec<(Hold, Amount)>,
    /// Claims that are final.
    pub finalized_claims: u64,
    /// Claims that were rejected.
    pub rejected_claims: u64,
}

/// Something that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// A transaction makes or loses money.
    Unbalanced {
        /// Its id.
        transaction: [u8; 16],
        /// What its postings sum to.
        sum: i128,
    },
    /// A transaction moves nothing from or to an account, or names it twice.
    IdlePosting {
        /// Its id.
        transaction: [u8; 16],
        /// The account.
        account: Account,
    },
    /// A transaction touches an account that one of its kind never does.
    Misposted {
        /// Its id.
        transaction: [u8; 16],
        /// Its kind.
        kind: TransactionKind,
        /// The account.
        account: Account,
    },
    /// A balance is not what the log makes it.
    Balance {
        /// The account.
        account: Account,
        /// What follows from the log.
        derived: i128,
        /// What is on record.
        recorded: i128,
    },
    /// An account that is never overdrawn is.
    Overdrawn {
        /// The account.
        account: Account,
        /// What follows from the log.
        derived: i128,
    },
    /// A balance is not what jobs, stakes, bonds and holds account for.
    Unexplained {
        /// The account.
        account: Account,
        /// What follows from the log.
        derived: i128,
        /// What is accounted for.
        explained: i128,
    },
    /// A claim was paid or slashed a second time, or both.
    SettledTwice {
        /// The claim.
        claim: ClaimId,
        /// The later transaction.
        transaction: [u8; 16],
    },
    /// A payment or a conviction does not agree with the state of its claim or the record of its settlement.
    Unsettled {
        /// The transaction.
        transaction: [u8; 16],
        /// Its kind.
        kind: TransactionKind,
    },
    /// As many claims are final or rejected as were never paid or slashed.
    Unpaid {
        /// `finalized` or `rejected`.
        state: ClaimState,
        /// Claims in it.
        claims: u64,
        /// Transactions that settle one.
        settled: u64,
    },
    /// The balances do not sum to zero.
    Total {
        /// What they sum to.
        sum: i128,
    },
}

/// An audit under way. See the [module](self).
#[derive(Debug, Default)]
pub struct Audit {
    derived: BTreeMap<Account, i128>,
    settled: HashMap<ClaimId, TransactionKind>,
    transactions: u64,
    findings: Vec<Finding>,
}

/// Findings that an audit keeps; what is broken beyond repair need not be listed in full.
const MAX_FINDINGS: usize = 1_000;

impl Audit {
    /// An audit that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Transactions seen so far.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    /// Takes one transaction of the log.
    pub fn transaction(&mut self, logged: &Logged) {
        self.transactions += 1;
        let sum: i128 = logged.postings.iter().map(|posting| i128::from(posting.amount.0)).sum();
        if sum != 0 {
            self.find(Finding::Unbalanced { transaction: logged.id, sum });
        }
        for (index, posting) in logged.postings.iter().enumerate() {
            let account = posting.account;
            let again = logged.postings[..index].iter().any(|earlier| earlier.account == account);
            if again || posting.amount == Amount::ZERO {
                self.find(Finding::IdlePosting { transaction: logged.id, account });
            }
            if !fits(logged, posting) {
                self.find(Finding::Misposted { transaction: logged.id, kind: logged.kind, account });
            }
            *self.derived.entry(account).or_default() += i128::from(posting.amount.0);
        }
        self.settle(logged);
    }

    fn settle(&mut self, logged: &Logged) {
        let expected = match logged.kind {
            TransactionKind::Finalize => ClaimState::Finalized,
            TransactionKind::Convict => ClaimState::Rejected,
            _ => return,
        };
        if logged.claim_state != Some(expected) || !logged.is_settlement {
            self.find(Finding::Unsettled { transaction: logged.id, kind: logged.kind });
        }
        let Some(claim) = logged.claim else { return };
        if self.settled.insert(claim, logged.kind).is_some() {
            self.find(Finding::SettledTwice { claim, transaction: logged.id });
        }
    }

    /// Holds what follows from the log against what else is on record. Nothing found: the books are in order.
    #[must_use]
    pub fn finish(mut self, facts: &Facts) -> Vec<Finding> {
        self.check_balances(facts);
        self.check_explained(facts);
        for (state, kind, claims) in [
            (ClaimState::Finalized, TransactionKind::Finalize, facts.finalized_claims),
            (ClaimState::Rejected, TransactionKind::Convict, facts.rejected_claims),
        ] {
            let settled = self.settled.values().filter(|settled| **settled == kind).count() as u64;
            if settled != claims {
                self.find(Finding::Unpaid { state, claims, settled });
            }
        }
        self.findings
    }

    fn check_balances(&mut self, facts: &Facts) {
        let mut recorded: BTreeMap<Account, i128> = BTreeMap::new();
        for (account, balance) in &facts.balances {
            *recorded.entry(*account).or_default() += i128::from(balance.0);
        }
        let sum: i128 = recorded.values().sum();
        if sum != 0 {
            self.find(Finding::Total { sum });
        }
        for (account, derived, recorded) in joined(&self.derived, &recorded) {
            if derived != recorded {
                self.find(Finding::Balance { account, derived, recorded });
            }
            if derived < 0 && !account.may_be_negative() {
                self.find(Finding::Overdrawn { account, derived });
            }
        }
    }

    /// Escrow, locked and held money is there for something; what is free, the treasury and outside are for nothing.
    fn check_explained(&mut self, facts: &Facts) {
        let mut explained: BTreeMap<Account, i128> = BTreeMap::new();
        let mut explain = |account, amount: Amount| {
            *explained.entry(account).or_default() += i128::from(amount.0);
        };
        facts.escrowed.iter().for_each(|(job, price)| explain(Account::Escrow(*job), *price));
        facts.locked.iter().for_each(|lock| explain(Account::Locked(lock.owner), lock.amount));
        facts.held.iter().for_each(|(hold, amount)| explain(Account::Held(*hold), *amount));
        let tied =
            |account: &Account| matches!(account, Account::Escrow(_) | Account::Locked(_) | Account::Held(_));
        let derived = self.derived.iter().filter(|(account, _)| tied(account));
        let derived: BTreeMap<_, _> = derived.map(|(account, balance)| (*account, *balance)).collect();
        for (account, derived, explained) in joined(&derived, &explained) {
            if derived != explained {
                self.find(Finding::Unexplained { account, derived, explained });
            }
        }
    }

    fn find(&mut self, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }
}

/// Every account of either side, with its balance on both.
fn joined(one: &BTreeMap<Account, i128>, other: &BTreeMap<Account, i128>) -> Vec<(Account, i128, i128)> {
    let only_other = other.keys().filter(|account| !one.contains_key(account));
    let of = |side: &BTreeMap<Account, i128>, account| side.get(account).copied().unwrap_or(0);
    one.keys().chain(only_other).map(|account| (*account, of(one, account), of(other, account))).collect()
}

/// Whether a transaction of this kind may give to, or take from, this account: the kinds of account as in the table of
/// docs/PROTOCOL.md, and the job, claim or dispute that it is about.
fn fits(logged: &Logged, posting: &Posting) -> bool {
    use TransactionKind as K;
    let (gives, takes): (&[&str], &[&str]) = match logged.kind {
        K::Deposit => (&["outside"], &["free"]),
        K::Withdraw => (&["free"], &["outside"]),
        K::Submit => (&["free"], &["escrow"]),
        K::LockStake | K::LockBond => (&["free"], &["locked"]),
        K::UnlockStake | K::ReturnBond => (&["locked"], &["free"]),
        K::LoseLease => (&["locked"], &["free", "treasury"]),
        K::Finalize => (&["escrow", "locked"], &["free", "treasury"]),
        K::Refund => (&["escrow"], &["free", "treasury"]),
        K::Convict | K::ForfeitBond => (&["locked"], &["held"]),
        K::PayConviction | K::PayForfeit => (&["held"], &["free", "treasury"]),
        K::VoidConviction | K::VoidForfeit => (&["held"], &["free"]),
    };
    let side = if posting.amount < Amount::ZERO { gives } else { takes };
    let about = match posting.account {
        Account::Escrow(job) => logged.job == Some(job),
        Account::Held(Hold::Stake(claim)) => logged.claim == Some(claim),
        Account::Held(Hold::Bond(dispute)) => logged.dispute == Some(dispute),
        Account::Free(_) | Account::Locked(_) | Account::Treasury | Account::Outside => true,
    };
    about && side.contains(&posting.account.kind())
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = |transaction: &[u8; 16]| JobId(*transaction);
        match self {
            Self::Unbalanced { transaction, sum } => {
                write!(f, "transaction {} sums to {sum}, not zero", id(transaction))
            }
            Self::IdlePosting { transaction, account } => {
                write!(f, "transaction {} names {account} without effect or twice", id(transaction))
            }
            Self::Misposted { transaction, kind, account } => {
                write!(f, "transaction {} is a {} and touches {account}", id(transaction), kind.name())
            }
            Self::Balance { account, derived, recorded } => {
                write!(f, "{account} holds {recorded} on record, {derived} by the log")
            }
            Self::Overdrawn { account, derived } => write!(f, "{account} is overdrawn: {derived}"),
            Self::Unexplained { account, derived, explained } => {
                write!(f, "{account} holds {derived} by the log, but {explained} is accounted for")
            }
            Self::SettledTwice { claim, transaction } => {
                write!(f, "claim {claim} is settled again by transaction {}", id(transaction))
            }
            Self::Unsettled { transaction, kind } => {
                let (transaction, kind) = (id(transaction), kind.name());
                write!(f, "transaction {transaction} ({kind}) does not agree with its claim and settlement")
            }
            Self::Unpaid { state, claims, settled } => {
                write!(f, "{claims} claims are {}, and {settled} were settled so", state.name())
            }
            Self::Total { sum } => write!(f, "all balances sum to {sum}, not zero"),
        }
    }
}
