//! How much each worker would have to run again to defend all that it has claimed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use gainsay_commitment::PartyId;
use gainsay_protocol::ServiceTime;
use gainsay_protocol::lifecycle::may_lease;

use super::work::Work;
use super::{App, AppError, AppResult};
use crate::store::leases;

/// How long each worker's pending claims would take to run again, as measured last. A measurement serves for the moment
/// of service time at which it was made, which is a second: a busy worker asks more often than that.
#[derive(Debug, Default)]
pub(super) struct Defences(Mutex<HashMap<PartyId, (ServiceTime, u64)>>);

/// Workers whose measurement is kept.
const MEASURED_MAX: usize = 10_000;

impl Defences {
    fn measured(&self, worker: PartyId, now: ServiceTime) -> Option<u64> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&worker).filter(|(at, _)| *at == now).map(|(_, ms)| *ms)
    }

    fn keep(&self, worker: PartyId, now: ServiceTime, ms: u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MEASURED_MAX {
            known.clear();
        }
        known.insert(worker, (now, ms));
    }
}

impl App {
    /// Refuses a lease to a worker that many disputes at once could time out: it must be able to run all of its pending
    /// claims again in half of its allowance.
    pub(super) async fn require_defence(&self, work: &mut Work<'_>, worker: PartyId) -> AppResult<()> {
        let parameters = &self.config().parameters;
        let now = work.now().await?;
        let rerun_ms = match self.inner.defences.measured(worker, now) {
            Some(known) => known,
            None => {
                let measured = leases::rerun_of_pending(&mut work.tx, worker).await?;
                self.inner.defences.keep(worker, now, measured);
                measured
            }
        };
        if may_lease(rerun_ms, parameters) {
            return Ok(());
        }
        Err(AppError::TooMuchToDefend { worker, rerun_ms, allowed_ms: parameters.worker_allowance_ms / 2 })
    }
}
