//! What an auditor reads.

use gainsay_protocol::ServiceTime;
use gainsay_protocol::ledger::audit::{Facts, Logged};

use super::{App, AppResult};
use crate::store::audit::{self, Snapshot};
use crate::store::clock;

/// The facts behind the balances, as of one moment.
#[derive(Debug, Clone)]
pub struct Books {
    /// When.
    pub at: ServiceTime,
    /// What to read the log as of.
    pub snapshot: Snapshot,
    /// The facts.
    pub facts: Facts,
}

impl App {
    /// The facts behind the balances, as of now.
    ///
    /// # Errors
    /// The database.
    pub async fn books(&self) -> AppResult<Books> {
        let mut tx = self.store().begin_snapshot().await?;
        let (snapshot, facts) = audit::facts(&mut tx).await?;
        Ok(Books { at: clock::now(&mut tx).await?, snapshot, facts })
    }

    /// A page of the ledger's log as of a snapshot: what follows a transaction, by id.
    ///
    /// # Errors
    /// The database.
    pub async fn ledger_log(
        &self,
        snapshot: &Snapshot,
        after: Option<[u8; 16]>,
        limit: u32,
    ) -> AppResult<Vec<Logged>> {
        let mut conn = self.connection().await?;
        Ok(audit::log(&mut conn, snapshot, after, limit).await?)
    }
}
