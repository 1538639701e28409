//! Leasing while jobs run: whenever there is room for another job, one is asked for.

use crate::catalog::Served;
use crate::claimant::Task;
use crate::errand::Ended;
use crate::records::{Record, RecordsError};
use crate::{Worker, WorkerError};
use gainsay_api::client::ClientError;
use gainsay_api::error::ErrorCode;
use gainsay_api::leases::LeaseRequest;
use gainsay_api::limits::{MAX_HELD_LEASES, MAX_LEASE_MODELS};
use gainsay_commitment::ModelId;
use gainsay_participant::ParticipantError;
use gainsay_protocol::LeaseId;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Pause after a refusal that may pass: no money, a busy coordinator.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the first request waits that leaves a model out for lack of room; each further one waits twice as long, up to
/// [`PAUSE`]. Room may come at any moment, and a request that waits does not hear of it.
const FIRST_LOOK: Duration = Duration::from_millis(20);
/// Declined leases that are remembered: more than a worker may hold.
const MAX_DECLINED: usize = 1_024;

/// Works until stopped or suspended, then finishes what is in hand; a suspended worker waits to be stopped.
pub(crate) async fn work(worker: Arc<Worker>, stop: CancellationToken) -> Result<(), WorkerError> {
    let mut shop = Shop {
        worker,
        errands: JoinSet::new(),
        in_hand: HashMap::new(),
        declined: VecDeque::new(),
        turn: 0,
        look: FIRST_LOOK,
        stop: stop.clone(),
    };
    shop.resume();
    let worked = shop.open().await;
    let left = match worked {
        Ok(()) => shop.leave().await,
        Err(error) => Err(error),
    };
    // Even a worker that cannot go on has signed claims under way.
    let finished = shop.finish().await;
    left.and(finished)
}

/// The state of the working loop.
struct Shop {
    worker: Arc<Worker>,
    /// The jobs in hand.
    errands: JoinSet<Result<Ended, WorkerError>>,
    /// What each of them is for.
    in_hand: HashMap<Id, Errand>,
    /// Leases of jobs that could not be run. Those that could not be handed back lapse; until then they must not be given
    /// again.
    declined: VecDeque<LeaseId>,
    /// Where among the models the next request for leases begins.
    turn: usize,
    /// How long a request waits while a model is left out.
    look: Duration,
    stop: CancellationToken,
}

/// What to ask for.
struct Wanted {
    models: Vec<ModelId>,
    /// Jobs at most.
    max: u32,
    /// Whether there is a model for which there is no room now.
    left_out: bool,
}

/// What an errand is for.
#[derive(Clone, Copy)]
struct Errand {
    lease: LeaseId,
    model: ModelId,
}

/// How an errand's task came to its end.
type Joined = Result<(Id, Result<Ended, WorkerError>), JoinError>;

impl Shop {
    /// Takes up what a former run of this worker left: sends signed claims again, and runs the jobs it still has, from the
    /// start: what comes out is the same.
    fn resume(&mut self) {
        let records = self.worker.records.all();
        if !records.is_empty() {
            let claims = records.iter().filter(|record| record.claim.is_some()).count();
            let leases = records.len() - claims;
            tracing::info!(claims, leases, "taking up where a former run stopped");
        }
        records.into_iter().for_each(|record| self.begin(record));
    }

    fn begin(&mut self, record: Record) {
        let (worker, stop) = (self.worker.clone(), self.stop.clone());
        let errand = Errand { lease: record.lease, model: record.model };
        let task = self.errands.spawn(worker.serve(record, stop));
        self.in_hand.insert(task.id(), errand);
        self.look = FIRST_LOOK;
    }

    /// The models to ask for, and how many jobs: no more than there is room for.
    fn wanted(&self) -> Wanted {
        let mut most = (self.worker.config.batch as usize).saturating_sub(self.errands.len());
        let (mut models, mut left_out) = (Vec::new(), false);
        for Served { id, generates } in self.worker.catalog.wanted(self.turn, MAX_LEASE_MODELS) {
            let ours = self.in_hand.values().filter(|errand| errand.model == id).count();
            let room = if generates { self.worker.benches.room(id, ours).min(most) } else { most };
            if room > 0 {
                most = room;
                models.push(id);
            } else {
                left_out = true;
            }
        }
        Wanted { models, max: most as u32, left_out }
    }

    /// Leases and serves until told to stop.
    async fn open(&mut self) -> Result<(), WorkerError> {
        let stop = self.stop.clone();
        while !stop.is_cancelled() {
            let Wanted { models, max, left_out } = self.wanted();
            self.turn = self.turn.wrapping_add(MAX_LEASE_MODELS);
            if models.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    Some(joined) = self.errands.join_next_with_id() => self.note(joined)?,
                    () = tokio::time::sleep(PAUSE) => {}
                }
                continue;
            }
            let request = LeaseRequest { models, max, held: self.held() };
            let mut wait = self.worker.config.lease_wait;
            if left_out {
                wait = wait.min(self.look);
                self.look = (2 * self.look).min(PAUSE);
            }
            let asking = lease(self.worker.clone(), request, wait);
            tokio::pin!(asking);
            loop {
                tokio::select! {
                    () = stop.cancelled() => break,
                    leased = &mut asking => {
                        match leased {
                            Ok(records) => records.into_iter().for_each(|record| self.begin(record)),
                            Err(error) => self.bear(error).await?,
                        }
                        break;
                    }
                    Some(joined) = self.errands.join_next_with_id() => self.note(joined)?,
                }
            }
        }
        Ok(())
    }

    /// Serves what a request that was cut short by stopping may have been given.
    async fn leave(&mut self) -> Result<(), WorkerError> {
        let request = LeaseRequest { models: Vec::new(), max: self.worker.config.batch, held: self.held() };
        match lease(self.worker.clone(), request, Duration::ZERO).await {
            Ok(records) => records.into_iter().for_each(|record| self.begin(record)),
            Err(error @ WorkerError::Records(_)) => return Err(error),
            // There is none, or the coordinator is away: then nothing can be done about it either.
            Err(error) => tracing::debug!(%error, "no last look at the leases"),
        }
        Ok(())
    }

    /// Waits for all jobs in hand.
    async fn finish(&mut self) -> Result<(), WorkerError> {
        let mut finished = Ok(());
        while let Some(joined) = self.errands.join_next_with_id().await {
            finished = finished.and(self.note(joined));
        }
        finished
    }

    /// Takes note of how an errand ended. What cannot be kept must not be sent: a worker without its state stops.
    fn note(&mut self, joined: Joined) -> Result<(), WorkerError> {
        let (id, ended) = joined.map_or_else(|error| (error.id(), None), |(id, ended)| (id, Some(ended)));
        let Some(Errand { lease, model }) = self.in_hand.remove(&id) else { return Ok(()) };
        let panicked = || {
            self.worker.tally.lost.add(1);
            self.worker.tally.tell();
            Err(WorkerError::Run { lease, reason: "the worker has panicked".to_owned() })
        };
        match ended.unwrap_or_else(panicked) {
            Ok(Ended::Claimed) => self.worker.catalog.went_well(model),
            Ok(Ended::Lost) | Err(WorkerError::Records(RecordsError::Over(_))) => {
                tracing::warn!(%lease, "the lease was over before there was a claim");
                self.worker.tally.lost.add(1);
                self.worker.tally.tell();
                // A claim that was signed in the same moment goes with it: it was not sent, and never will be.
                self.worker.records.forget(lease);
            }
            Err(WorkerError::Records(error)) => return Err(error.into()),
            // What is signed may have been sent, and is defended.
            Err(error)
                if self.worker.records.of_lease(lease).is_some_and(|record| record.claim.is_some()) =>
            {
                tracing::error!(%lease, %error, "the claim is posted again after the next start");
            }
            Err(error) => {
                tracing::error!(%lease, %model, %error, "the job was not run");
                self.decline(lease);
                match error {
                    // Another job may fit.
                    WorkerError::Job { .. } => {}
                    error if error.is_transient() => self.worker.catalog.rest(model),
                    _ => self.worker.catalog.give_up(model),
                }
            }
        }
        Ok(())
    }

    /// Lets go of a job that cannot be run here. Its lease was handed back, or lapses.
    fn decline(&mut self, lease: LeaseId) {
        self.worker.records.forget(lease);
        self.declined.push_back(lease);
        if self.declined.len() > MAX_DECLINED {
            self.declined.pop_front();
        }
    }

    /// What must not be given again: leases in hand and leases declined first, then those with a signed claim.
    fn held(&self) -> Vec<LeaseId> {
        let (signed, unsigned): (Vec<_>, Vec<_>) =
            self.worker.records.all().into_iter().partition(|record| record.claim.is_some());
        let in_hand = unsigned.iter().map(|record| record.lease);
        let claimed = signed.iter().rev().map(|record| record.lease);
        in_hand.chain(self.declined.iter().copied()).chain(claimed).take(MAX_HELD_LEASES).collect()
    }

    /// Goes on after a refusal that may pass; gives up after any other.
    async fn bear(&mut self, error: WorkerError) -> Result<(), WorkerError> {
        let code = match &error {
            WorkerError::Client(error) | WorkerError::Participant(ParticipantError::Client(error)) => {
                ClientError::code(error)
            }
            _ => None,
        };
        let mut is_suspended = false;
        match code {
            _ if error.is_transient() => tracing::debug!(%error, "no lease"),
            Some(ErrorCode::Suspended) => {
                tracing::error!(%error, "suspended: no more work; claims that are open are still defended");
                self.worker.tally.suspended.store(true, Ordering::Relaxed);
                self.worker.tally.tell();
                is_suspended = true;
            }
            Some(ErrorCode::TooMuchToDefend) => tracing::info!(%error, "no lease for now"),
            Some(ErrorCode::InsufficientFunds | ErrorCode::InsufficientStake) => {
                tracing::warn!(%error, "no stake for another lease");
            }
            _ => return Err(error),
        }
        let pause = if is_suspended { Duration::MAX } else { PAUSE };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
        Ok(())
    }
}

/// Takes leases, waiting for the first, and keeps them.
async fn lease(
    worker: Arc<Worker>,
    request: LeaseRequest,
    wait: Duration,
) -> Result<Vec<Record>, WorkerError> {
    let Worker { client, identity, records, tally, .. } = &*worker;
    let given = client.lease(&identity.key, &request, wait).await?;
    let mut taken = Vec::with_capacity(given.leases.len());
    for lease in &given.leases {
        let record = Task::record_of(lease);
        if records.of_lease(record.lease).is_none() {
            tracing::info!(lease = %record.lease, job = %record.job_id, model = %record.model, "leased");
            records.keep(&record)?;
            tally.leases.add(1);
            tally.tell();
            taken.push(record);
        }
    }
    Ok(taken)
}
