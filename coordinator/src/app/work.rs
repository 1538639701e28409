//! One transaction of a use case, with everything that has to happen with it and after it.

use gainsay_commitment::{ClaimId, DisputeId, PartyId};
use gainsay_protocol::ledger::{LedgerError, Transaction};
use gainsay_protocol::{JobId, ServiceTime};
use serde_json::Value;
use tracing::field::display;

use super::{App, AppError, AppResult};
use crate::bus::Topic;
use crate::store::events::{self, NewEvent};
use crate::store::ledger::{self, NewTransaction};
use crate::store::{self, StoreResult, Tx, clock};
use crate::telemetry;

/// A transaction under way. Money is posted and events are written at the end, in [`finish`](Self::finish): both
/// touch rows that everybody shares, so they are held for as short as can be. Dropped before, nothing happened.
pub(crate) struct Work<'a> {
    app: &'a App,
    /// Where rows are read, locked and written.
    pub(crate) tx: Tx,
    now: Option<ServiceTime>,
    transactions: Vec<NewTransaction>,
    events: Vec<NewEvent>,
    topics: Vec<Topic>,
}

/// What an event or a ledger transaction is about.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct About {
    pub(crate) job: Option<JobId>,
    pub(crate) claim: Option<ClaimId>,
    pub(crate) dispute: Option<DisputeId>,
    pub(crate) party: Option<PartyId>,
}

impl About {
    pub(crate) fn job(job: JobId) -> Self {
        Self { job: Some(job), ..Self::default() }
    }

    pub(crate) fn claim(job: JobId, claim: ClaimId) -> Self {
        Self { job: Some(job), claim: Some(claim), ..Self::default() }
    }

    pub(crate) fn dispute(self, dispute: DisputeId) -> Self {
        Self { dispute: Some(dispute), ..self }
    }

    pub(crate) fn party(self, party: PartyId) -> Self {
        Self { party: Some(party), ..self }
    }
}

impl<'a> Work<'a> {
    pub(crate) async fn begin(app: &'a App) -> StoreResult<Self> {
        let tx = app.store().begin().await?;
        Ok(Self { app, tx, now: None, transactions: Vec::new(), events: Vec::new(), topics: Vec::new() })
    }

    pub(crate) fn app(&self) -> &'a App {
        self.app
    }

    /// Service time of this transaction: read at the first call, which therefore comes after the locks of the rows
    /// whose deadlines it is held against.
    pub(crate) async fn now(&mut self) -> StoreResult<ServiceTime> {
        match self.now {
            Some(now) => Ok(now),
            None => {
                let now = clock::now(&mut self.tx).await?;
                self.now = Some(now);
                Ok(now)
            }
        }
    }

    /// Has a ledger transaction posted at the end; its id.
    pub(crate) fn post(&mut self, about: About, transaction: Result<Transaction, LedgerError>) -> [u8; 16] {
        let transaction = transaction.expect("recorded amounts and validated parameters make valid postings");
        let id = store::new_id();
        let About { job, claim, dispute, .. } = about;
        self.transactions.push(NewTransaction { id, transaction, job, claim, dispute });
        id
    }

    /// Has an event written at the end.
    pub(crate) fn event(&mut self, kind: &'static str, about: About, details: Value) {
        let About { job, claim, dispute, party } = about;
        self.events.push(NewEvent { kind, job, claim, dispute, party, details });
    }

    /// Wakes those who wait for a topic, after the end.
    pub(crate) fn wake(&mut self, topic: Topic) {
        if !self.topics.contains(&topic) {
            self.topics.push(topic);
        }
    }

    /// Posts, writes events, commits, wakes. Where that fails everything is undone before this returns.
    pub(crate) async fn finish(mut self) -> AppResult<()> {
        if let Err(error) = self.write().await {
            self.abandon().await;
            return Err(error);
        }
        store::commit(self.tx).await?;
        telemetry::committed(&self.events);
        log(&self.events);
        if !self.events.is_empty() {
            self.topics.push(Topic::Events);
        }
        for topic in self.topics {
            self.app.bus().publish(topic).await;
        }
        Ok(())
    }

    /// Undoes everything, and returns when its locks are gone. A transaction that is dropped is undone too, but only
    /// once its connection is used again: whoever goes on with the same rows at once would find them locked.
    pub(crate) async fn abandon(self) {
        if let Err(error) = self.tx.rollback().await {
            tracing::debug!(%error, "a transaction ended with its connection");
        }
    }

    async fn write(&mut self) -> AppResult<()> {
        if !self.transactions.is_empty() || !self.events.is_empty() {
            let now = self.now().await?;
            ledger::post(&mut self.tx, &self.transactions, now).await?;
            events::append(&mut self.tx, &self.events, now).await?;
        }
        Ok(())
    }
}

/// What happened, with the ids that it happened to. What follows from a dispute is rare, and what an operator looks for.
fn log(events: &[NewEvent]) {
    for NewEvent { kind, job, claim, dispute, party, .. } in events {
        let (job, claim) = (job.map(display), claim.map(display));
        let (dispute, party) = (dispute.map(display), party.map(display));
        if dispute.is_some() {
            tracing::info!(event = kind, job, claim, dispute, party, "on record");
        } else {
            tracing::debug!(event = kind, job, claim, dispute, party, "on record");
        }
    }
}

/// What came of a batch whose rows each have a transaction of their own: one that fails does not keep the others from
/// what is due to them.
#[derive(Debug, Default)]
pub(crate) struct Each {
    done: usize,
    failed: Option<AppError>,
}

impl Each {
    /// Takes in how many a transaction has dealt with; none where another coordinator came first.
    pub(crate) fn note(&mut self, outcome: AppResult<usize>) {
        match outcome {
            Ok(done) => self.done += done,
            Err(error) => self.failed = self.failed.take().or(Some(error)),
        }
    }

    /// How many were dealt with. A batch that dealt with all that it may hold means that there may be more.
    ///
    /// # Errors
    /// The first.
    pub(crate) fn count(self) -> AppResult<usize> {
        self.failed.map_or(Ok(self.done), Err)
    }
}

/// How often a transaction that ended in a deadlock is tried in all.
const TRIES: u32 = 4;

/// Runs a use case, and again where the database chose it to break a deadlock.
pub(crate) async fn retrying<T, F: Future<Output = AppResult<T>>>(attempt: impl Fn() -> F) -> AppResult<T> {
    for _ in 1..TRIES {
        match attempt().await {
            Err(AppError::Store(error)) if error.is_transient() => {
                tracing::warn!(%error, "a transaction is tried again");
            }
            done => return done,
        }
    }
    attempt().await
}
