//! From a lease to a signed claim on disk, and from there to the coordinator.

use crate::records::{Divergence, Record, SignedClaim};
use crate::{Worker, WorkerError};
use gainsay_api::client::ClientError;
use gainsay_api::leases::Lease;
use gainsay_api::wire::Base64;
use gainsay_commitment::{Canonical, Signed, trace_root};
use gainsay_engine::Trace;
use gainsay_participant::models::LoadedModel;
use gainsay_protocol::{Claim, Job};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Pause between tries to post a claim while the coordinator is away.
const POST_PAUSE: Duration = Duration::from_secs(2);

/// A job in hand, ready to be run.
pub(crate) struct Task {
    pub(crate) record: Record,
    pub(crate) job: Job,
}

impl Task {
    /// The task of a record that has no claim yet.
    ///
    /// # Errors
    /// [`WorkerError::Job`] where the job does not decode or is of another model.
    pub(crate) fn new(record: Record) -> Result<Self, WorkerError> {
        let refused = |reason: String| WorkerError::Job { lease: record.lease, reason };
        let job = Job::from_bytes(&record.job.0).map_err(|error| refused(error.to_string()))?;
        if job.model != record.model {
            return Err(refused(format!("it is for model {}, the lease for {}", job.model, record.model)));
        }
        Ok(Self { record, job })
    }

    /// The record of a lease that was just given.
    pub(crate) fn record_of(lease: &Lease) -> Record {
        Record {
            lease: lease.id,
            job_id: lease.job_id,
            model: lease.model,
            job: lease.job.clone(),
            stream: lease.stream,
            claim: None,
        }
    }
}

impl Worker {
    /// Signs what came out and keeps it: on return the claim is on disk, and may be sent.
    pub(crate) fn sign(
        &self,
        model: &LoadedModel,
        task: Task,
        trace: Trace,
        divergence: Option<Divergence>,
    ) -> Result<Record, WorkerError> {
        let Task { record, job } = task;
        let trace_commitment = trace_root(&trace.layers).expect("a program has at least one layer");
        let claim = Claim {
            coordinator: self.client.coordinator(),
            job: record.job_id,
            lease: record.lease,
            model: record.model,
            arithmetic: model.model().manifest().arithmetic,
            input: job.commitment(),
            output: trace.output,
            layers: trace.layers,
            trace: trace_commitment,
            worker: self.identity.id(),
        };
        let id = claim.id();
        let signed = Base64(Signed::sign(claim, &self.identity.key).to_bytes());
        let silent = divergence.is_some() && self.config.misbehaviour.is_some_and(|cheat| cheat.is_silent());
        let record = Record { claim: Some(SignedClaim { id, signed, divergence, silent }), ..record };
        self.records.keep(&record)?;
        Ok(record)
    }

    /// Posts a kept claim, for as long as the coordinator does not answer.
    pub(crate) async fn post(self: &Arc<Self>, record: &Record, stop: &CancellationToken) {
        let Some(claim) = &record.claim else { return };
        loop {
            match self.client.post_claim(&self.identity.key, claim.signed.0.clone()).await {
                Ok(accepted) => {
                    self.tally.claims.add(1);
                    self.tally.lies.add(u64::from(claim.divergence.is_some()));
                    self.tally.tell();
                    tracing::info!(
                        claim = %accepted.id, job = %record.job_id, lease = %record.lease,
                        window_closes_at_ms = accepted.window_closes_at_ms, "claimed"
                    );
                    return;
                }
                Err(error) if error.is_transient() => {
                    tracing::debug!(claim = %claim.id, lease = %record.lease, %error, "the claim was not posted yet");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(POST_PAUSE) => {}
                    }
                }
                Err(error) => return self.give_up(record, &error),
            }
        }
    }

    /// Forgets a lease whose claim the coordinator will not take.
    fn give_up(&self, record: &Record, error: &ClientError) {
        self.tally.lost.add(1);
        self.tally.tell();
        tracing::warn!(lease = %record.lease, job = %record.job_id, %error, "the claim was refused");
        self.records.forget(record.lease);
    }
}
