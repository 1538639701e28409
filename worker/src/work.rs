//! Leasing, running, claiming.

use crate::claimant::Task;
use crate::heartbeat::Heartbeats;
use crate::records::Record;
use crate::{Worker, WorkerError};
use gainsay_api::client::ClientError;
use gainsay_api::error::ErrorCode;
use gainsay_api::leases::LeaseRequest;
use gainsay_api::limits::{MAX_HELD_LEASES, MAX_LEASE_MODELS};
use gainsay_commitment::ModelId;
use gainsay_participant::ParticipantError;
use gainsay_protocol::LeaseId;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Pause after a refusal that may pass: no money, a busy coordinator.
const PAUSE: Duration = Duration::from_secs(1);
/// Declined leases that are remembered: more than a worker may hold.
const MAX_DECLINED: usize = 1_024;
/// How often the coordinator is asked which models it has.
const MODELS_EVERY: Duration = Duration::from_secs(10);

/// Works until stopped or suspended; a suspended worker waits to be stopped.
pub(crate) async fn work(worker: Arc<Worker>, stop: CancellationToken) -> Result<(), WorkerError> {
    let mut shop = Shop {
        worker,
        ready: BTreeSet::new(),
        refused: HashSet::new(),
        declined: VecDeque::new(),
        turn: 0,
        asked: None,
    };
    shop.resume(&stop).await?;
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => break,
            ready = shop.refresh_models() => ready?,
        }
        if shop.ready.is_empty() {
            pause(&stop).await;
            continue;
        }
        let leased = tokio::select! {
            () = stop.cancelled() => break,
            leased = shop.lease(shop.wanted(), shop.worker.config.lease_wait) => leased,
        };
        shop.turn = shop.turn.wrapping_add(MAX_LEASE_MODELS);
        match leased {
            Ok(records) => shop.serve(records, &stop).await?,
            Err(error) => shop.bear(error, &stop).await?,
        }
    }
    shop.leave(&stop).await
}

async fn pause(stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(PAUSE) => {}
    }
}

/// The state of the working loop.
struct Shop {
    worker: Arc<Worker>,
    /// Models loaded and served.
    ready: BTreeSet<ModelId>,
    /// Models that this machine cannot run.
    refused: HashSet<ModelId>,
    /// Leases of jobs that could not be run. They lapse; until then they must not be given again.
    declined: VecDeque<LeaseId>,
    /// Where in `ready` the next request for leases begins.
    turn: usize,
    /// When the coordinator was last asked for its models.
    asked: Option<Instant>,
}

impl Shop {
    /// Takes up what a former run of this worker left: sends signed claims again, and runs the jobs it still has.
    async fn resume(&mut self, stop: &CancellationToken) -> Result<(), WorkerError> {
        let (signed, unsigned): (Vec<_>, Vec<_>) =
            self.worker.records.all().into_iter().partition(|record| record.claim.is_some());
        if !signed.is_empty() || !unsigned.is_empty() {
            tracing::info!(
                claims = signed.len(),
                leases = unsigned.len(),
                "taking up where a former run stopped"
            );
        }
        for record in &signed {
            self.worker.post(record, stop).await;
        }
        self.serve(unsigned, stop).await
    }

    /// Loads the models that the coordinator has and this worker serves.
    async fn refresh_models(&mut self) -> Result<(), WorkerError> {
        let due = self.ready.is_empty() || self.asked.is_none_or(|asked| asked.elapsed() >= MODELS_EVERY);
        if !due {
            return Ok(());
        }
        let listed = match self.worker.client.models().await {
            Ok(listed) => listed,
            Err(error) if error.is_transient() => {
                tracing::debug!(%error, "the models cannot be listed");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.asked = Some(Instant::now());
        let wanted = &self.worker.config.models;
        let complete = listed.data.into_iter().filter(|model| model.complete).map(|model| model.id);
        let offered: Vec<ModelId> = complete.filter(|id| wanted.is_empty() || wanted.contains(id)).collect();
        for id in offered {
            if !self.ready.contains(&id) && !self.refused.contains(&id) {
                self.load(id).await;
            }
        }
        Ok(())
    }

    async fn load(&mut self, id: ModelId) {
        // What is served already does not make room for more.
        match self.worker.models.get_if_it_fits(id).await {
            Ok(_) => {
                self.ready.insert(id);
            }
            Err(error @ ParticipantError::NoRoom { .. }) => {
                tracing::warn!(model = %id, %error, "this model is not served: name those to serve, or allow more memory");
                self.refused.insert(id);
            }
            Err(error) if error.is_transient() => {
                tracing::debug!(model = %id, %error, "the model is not here yet")
            }
            Err(error) => {
                tracing::error!(model = %id, %error, "this model is not served");
                self.refused.insert(id);
            }
        }
    }

    /// Serves what a request that was cut short by stopping may have been given.
    async fn leave(&mut self, stop: &CancellationToken) -> Result<(), WorkerError> {
        match self.lease(Vec::new(), Duration::ZERO).await {
            Ok(records) => self.serve(records, stop).await,
            // There is none, or the coordinator is away: then nothing can be done about it either.
            Err(error) => {
                tracing::debug!(%error, "no last look at the leases");
                Ok(())
            }
        }
    }

    /// The models to ask for: all that are served, by turns where a request cannot name them all.
    fn wanted(&self) -> Vec<ModelId> {
        let served = self.ready.len().max(1);
        let all = self.ready.iter().copied();
        all.clone().chain(all).skip(self.turn % served).take(served.min(MAX_LEASE_MODELS)).collect()
    }

    /// What must not be given again: leases in hand and leases declined first, then those with a signed claim.
    fn held(&self) -> Vec<LeaseId> {
        let (signed, unsigned): (Vec<_>, Vec<_>) =
            self.worker.records.all().into_iter().partition(|record| record.claim.is_some());
        let in_hand = unsigned.iter().map(|record| record.lease);
        let claimed = signed.iter().rev().map(|record| record.lease);
        in_hand.chain(self.declined.iter().copied()).chain(claimed).take(MAX_HELD_LEASES).collect()
    }

    /// Lets a job lapse that cannot be run here.
    fn decline(&mut self, lease: LeaseId) {
        self.worker.tally.lost.add(1);
        self.worker.records.forget(lease);
        self.declined.push_back(lease);
        if self.declined.len() > MAX_DECLINED {
            self.declined.pop_front();
        }
    }

    /// Takes no more jobs of a model on which one could not be run: every further one would cost a fee.
    fn give_up(&mut self, model: ModelId) {
        if self.ready.remove(&model) {
            tracing::error!(%model, "this model is not served any more: a job on it could not be run");
            self.refused.insert(model);
        }
    }

    /// Takes leases of jobs on these models, waiting for the first, and keeps them.
    async fn lease(&self, models: Vec<ModelId>, wait: Duration) -> Result<Vec<Record>, WorkerError> {
        let Worker { client, identity, records, config, tally, .. } = &*self.worker;
        let request = LeaseRequest { models, max: config.batch, held: self.held() };
        let given = client.lease(&identity.key, &request, wait).await?;
        let mut taken = Vec::with_capacity(given.leases.len());
        for lease in &given.leases {
            let record = Task::record_of(lease);
            if records.of_lease(record.lease).is_none() {
                tracing::info!(lease = %record.lease, job = %record.job_id, model = %record.model, "leased");
                records.keep(&record)?;
                tally.leases.add(1);
                taken.push(record);
            }
        }
        Ok(taken)
    }

    /// Runs and claims what is in hand, keeping the leases meanwhile. Finishes even when stopped.
    async fn serve(&mut self, records: Vec<Record>, stop: &CancellationToken) -> Result<(), WorkerError> {
        if records.is_empty() {
            return Ok(());
        }
        let leases = records.iter().map(|record| record.lease).collect();
        let _heartbeats = Heartbeats::keep(self.worker.clone(), leases);
        let mut by_model = BTreeMap::<ModelId, Vec<Record>>::new();
        for record in records {
            by_model.entry(record.model).or_default().push(record);
        }
        for (model, records) in by_model {
            for record in self.claim(model, records).await? {
                self.worker.post(&record, stop).await;
            }
        }
        Ok(())
    }

    /// Runs jobs of one model; answers the records with their claims. Jobs that cannot be run are left to lapse.
    async fn claim(&mut self, model: ModelId, records: Vec<Record>) -> Result<Vec<Record>, WorkerError> {
        let leases: Vec<_> = records.iter().map(|record| record.lease).collect();
        let claimed = self.try_claim(model, records).await;
        match claimed {
            // What cannot be kept must not be sent; a worker without its state stops.
            Err(WorkerError::Records(error)) => Err(error.into()),
            Err(error) => {
                let mut signed = Vec::new();
                let kept = leases.into_iter().filter_map(|lease| self.worker.records.of_lease(lease));
                for record in kept.collect::<Vec<_>>() {
                    // A claim that was signed before the failure is as good as any.
                    if record.claim.is_some() {
                        signed.push(record);
                        continue;
                    }
                    tracing::error!(lease = %record.lease, %model, %error, "the job was not run; the lease will lapse");
                    self.decline(record.lease);
                }
                if !error.is_transient() {
                    self.give_up(model);
                }
                Ok(signed)
            }
            claimed => claimed,
        }
    }

    async fn try_claim(&mut self, model: ModelId, records: Vec<Record>) -> Result<Vec<Record>, WorkerError> {
        let loaded = self.worker.models.get(model).await?;
        let (mut tasks, mut failures) = (Vec::new(), Vec::new());
        for record in records {
            match Task::new(record).and_then(|task| task.check(&loaded)) {
                Ok(task) => tasks.push(task),
                Err(error) => failures.push(error),
            }
        }
        for error in failures {
            tracing::error!(%error, "the lease will lapse");
            if let WorkerError::Job { lease, .. } = error {
                self.decline(lease);
                self.give_up(model);
            }
        }
        let first = self.worker.jobs_run.add(tasks.len() as u64);
        let worker = self.worker.clone();
        let claimed = tokio::task::spawn_blocking(move || worker.claim_all(&loaded, tasks, first)).await;
        claimed.expect("a run does not panic")
    }

    /// Goes on after a refusal that may pass; gives up after any other.
    async fn bear(&self, error: WorkerError, stop: &CancellationToken) -> Result<(), WorkerError> {
        if error.is_transient() {
            tracing::debug!(%error, "no lease");
            pause(stop).await;
            return Ok(());
        }
        let code = match &error {
            WorkerError::Client(error) | WorkerError::Participant(ParticipantError::Client(error)) => {
                ClientError::code(error)
            }
            _ => None,
        };
        match code {
            Some(ErrorCode::Suspended) => {
                tracing::error!(%error, "suspended: no more work; claims that are open are still defended");
                self.worker.tally.suspended.store(true, Ordering::Relaxed);
                self.worker.tally.tell();
                stop.cancelled().await;
                Ok(())
            }
            Some(ErrorCode::TooMuchToDefend) => {
                tracing::info!(%error, "no lease for now");
                pause(stop).await;
                Ok(())
            }
            Some(ErrorCode::InsufficientFunds | ErrorCode::InsufficientStake) => {
                tracing::warn!(%error, "no stake for another lease");
                pause(stop).await;
                Ok(())
            }
            _ => Err(error),
        }
    }
}
