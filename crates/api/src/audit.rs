//! What an auditor reads to derive every balance again. `gainsay_protocol::ledger::audit` does it.

use crate::wire::{integer, text};
use gainsay_protocol::ledger::audit::{Facts, Lock, Logged};
use gainsay_protocol::ledger::{Account, Hold, Posting, TransactionKind};
use gainsay_protocol::lifecycle::ClaimState;
use gainsay_protocol::{Amount, JobId, OwnerId};
use serde::{Deserialize, Serialize};

/// `GET /v1/audit/books`, by the operator: the facts behind the balances, all as of one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Books {
    /// Service time of that moment, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub at_ms: i64,
    /// Names the moment for [`LedgerQuery::snapshot`].
    pub snapshot: String,
    /// Every account that holds something.
    pub balances: Vec<Entry>,
    /// Prices of the jobs that are not decided.
    pub escrowed: Vec<Entry>,
    /// What each owner has locked in stakes and bonds.
    pub locked: Vec<Entry>,
    /// Lost stakes and bonds that are not paid out yet.
    pub held: Vec<Entry>,
    /// Claims that are final.
    pub finalized_claims: u64,
    /// Claims that were rejected.
    pub rejected_claims: u64,
}

/// An account with an amount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Entry {
    /// `free`, `locked`, `escrow`, `held_stake`, `held_bond`, `treasury` or `outside`.
    pub account: String,
    /// The owner, job, claim or dispute, as hex digits; nothing for `treasury` and `outside`.
    pub holder: String,
    /// In micro-credits.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub amount: i64,
}

/// Query of `GET /v1/audit/transactions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub struct LedgerQuery {
    /// The moment as of which the log is read.
    pub snapshot: String,
    /// Only transactions that follow this one.
    #[serde(default, with = "text::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", param(value_type = Option<crate::schema::JobId>))]
    pub after: Option<JobId>,
    /// At most so many; 500 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `GET /v1/audit/transactions`, by the operator: a page of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LedgerPage {
    /// The page, by id.
    pub transactions: Vec<LedgerTransaction>,
    /// Whether more follow: ask again with `after` = the last id.
    pub more: bool,
}

/// One transaction of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LedgerTransaction {
    /// Its id, a UUID.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
    pub id: JobId,
    /// What it was for: `deposit`, `submit`, `finalize`, …
    pub event: String,
    /// The job that it was about.
    #[serde(default, with = "text::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::JobId>))]
    pub job: Option<JobId>,
    /// The claim that it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::ClaimId>))]
    pub claim: Option<gainsay_commitment::ClaimId>,
    /// The dispute that it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::DisputeId>))]
    pub dispute: Option<gainsay_commitment::DisputeId>,
    /// What became of the claim: `pending`, `finalized`, `rejected`, `voided`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_state: Option<String>,
    /// Whether the record of settlements names this transaction for the claim.
    pub is_settlement: bool,
    /// What it moved: a gain is positive.
    pub entries: Vec<Entry>,
}

/// The answer holds something that this version of the crate does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator's {what} {value:?} is none that this version knows")]
pub struct UnknownWord {
    /// What it should name.
    pub what: &'static str,
    /// What it says.
    pub value: String,
}

impl Entry {
    /// An account with an amount, as it travels.
    #[must_use]
    pub fn new(account: Account, amount: Amount) -> Self {
        let kind = match account {
            Account::Held(Hold::Stake(_)) => "held_stake",
            Account::Held(Hold::Bond(_)) => "held_bond",
            _ => account.kind(),
        };
        Self { account: kind.to_owned(), holder: hex::encode(account.holder()), amount: amount.0 }
    }

    /// The account.
    ///
    /// # Errors
    /// It is none that this version knows.
    pub fn account(&self) -> Result<Account, UnknownWord> {
        let unknown = || UnknownWord { what: "account", value: format!("{} {}", self.account, self.holder) };
        let holder = hex::decode(&self.holder).map_err(|_| unknown())?;
        let (kind, of_bond) = match self.account.as_str() {
            "held_stake" => ("held", false),
            "held_bond" => ("held", true),
            kind => (kind, false),
        };
        Account::parse(kind, &holder, of_bond).ok_or_else(unknown)
    }
}

impl Books {
    /// The facts, as they travel.
    #[must_use]
    pub fn new(at_ms: i64, snapshot: String, facts: &Facts) -> Self {
        let entry = |(account, amount): (Account, Amount)| Entry::new(account, amount);
        let escrowed = facts.escrowed.iter().map(|(job, price)| (Account::Escrow(*job), *price));
        let locked = facts.locked.iter().map(|lock| (Account::Locked(lock.owner), lock.amount));
        let held = facts.held.iter().map(|(hold, amount)| (Account::Held(*hold), *amount));
        Self {
            at_ms,
            snapshot,
            balances: facts.balances.iter().copied().map(entry).collect(),
            escrowed: escrowed.map(entry).collect(),
            locked: locked.map(entry).collect(),
            held: held.map(entry).collect(),
            finalized_claims: facts.finalized_claims,
            rejected_claims: facts.rejected_claims,
        }
    }

    /// The facts.
    ///
    /// # Errors
    /// An account is none that this version knows.
    pub fn facts(&self) -> Result<Facts, UnknownWord> {
        let mut facts = Facts {
            finalized_claims: self.finalized_claims,
            rejected_claims: self.rejected_claims,
            ..Facts::default()
        };
        for entry in &self.balances {
            facts.balances.push((entry.account()?, Amount(entry.amount)));
        }
        for entry in self.escrowed.iter().chain(&self.locked).chain(&self.held) {
            let amount = Amount(entry.amount);
            match entry.account()? {
                Account::Escrow(job) => facts.escrowed.push((job, amount)),
                Account::Locked(owner) => facts.locked.push(Lock { owner, amount }),
                Account::Held(hold) => facts.held.push((hold, amount)),
                Account::Free(OwnerId(_)) | Account::Treasury | Account::Outside => {
                    let value = entry.account.clone();
                    return Err(UnknownWord { what: "account of a fact", value });
                }
            }
        }
        Ok(facts)
    }
}

impl LedgerTransaction {
    /// A logged transaction, as it travels.
    #[must_use]
    pub fn new(logged: &Logged) -> Self {
        Self {
            id: JobId(logged.id),
            event: logged.kind.name().to_owned(),
            job: logged.job,
            claim: logged.claim,
            dispute: logged.dispute,
            claim_state: logged.claim_state.map(|state| state.name().to_owned()),
            is_settlement: logged.is_settlement,
            entries: logged.postings.iter().map(|p| Entry::new(p.account, p.amount)).collect(),
        }
    }

    /// The logged transaction.
    ///
    /// # Errors
    /// It holds something that this version does not know.
    pub fn logged(&self) -> Result<Logged, UnknownWord> {
        let unknown = |what, value: &String| UnknownWord { what, value: value.clone() };
        let kind = TransactionKind::parse(&self.event).ok_or_else(|| unknown("event", &self.event))?;
        let state = |name: &String| ClaimState::parse(name).ok_or_else(|| unknown("claim state", name));
        let posting = |entry: &Entry| Ok(Posting { account: entry.account()?, amount: Amount(entry.amount) });
        Ok(Logged {
            id: self.id.0,
            kind,
            job: self.job,
            claim: self.claim,
            dispute: self.dispute,
            claim_state: self.claim_state.as_ref().map(state).transpose()?,
            is_settlement: self.is_settlement,
            postings: self.entries.iter().map(posting).collect::<Result<_, UnknownWord>>()?,
        })
    }
}
