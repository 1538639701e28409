//! An audit over HTTP: the facts of one moment, the whole log up to it, and what does not agree.

use super::transport::{Auth, Call};
use super::{Client, ClientError};
use crate::audit::{Books, LedgerPage, LedgerQuery, UnknownWord};
use crate::limits::MAX_BOOKS_BYTES;
use crate::routes;
use gainsay_protocol::ledger::audit::{Audit, Finding};

/// Transactions read at a time.
const PAGE: u32 = 500;

/// What an audit came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// Service time of the moment audited, in ms.
    pub at_ms: i64,
    /// Transactions in the log up to then.
    pub transactions: u64,
    /// Accounts that held something.
    pub accounts: usize,
    /// What does not hold. Empty: the books are in order.
    pub findings: Vec<Finding>,
}

impl Client {
    /// Derives every balance again from the ledger's log and holds it against what the coordinator has on record, all
    /// as of one moment. By the operator.
    ///
    /// # Errors
    /// The coordinator does not answer as it should. What the books themselves lack is in the report.
    pub async fn audit(&self, operator_token: &str) -> Result<AuditReport, ClientError> {
        let unknown = |error: UnknownWord| ClientError::Unexpected {
            base: self.base().to_owned(),
            path: routes::LEDGER.to_owned(),
            status: 200,
            reason: error.to_string(),
        };
        let auth = Auth::Bearer(operator_token);
        let books: Books = self.json_within(Call::get(routes::BOOKS).auth(auth), MAX_BOOKS_BYTES).await?;
        let facts = books.facts().map_err(unknown)?;
        let mut audit = Audit::new();
        let mut query = LedgerQuery { snapshot: books.snapshot, after: None, limit: Some(PAGE) };
        loop {
            let page: LedgerPage = self.json(Call::get(routes::LEDGER).auth(auth).query(&query)?).await?;
            for transaction in &page.transactions {
                audit.transaction(&transaction.logged().map_err(unknown)?);
            }
            query.after = page.transactions.last().map(|last| last.id);
            if !page.more || query.after.is_none() {
                break;
            }
        }
        let (transactions, accounts) = (audit.transactions(), facts.balances.len());
        Ok(AuditReport { at_ms: books.at_ms, transactions, accounts, findings: audit.finish(&facts) })
    }
}
