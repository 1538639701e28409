//! One lease, from the job to the claim that the coordinator has.

use crate::bench::{Bench, Step};
use crate::claimant::Task;
use crate::heartbeat::Heartbeat;
use crate::records::Record;
use crate::stream::TokenStream;
use crate::{Worker, WorkerError};
use gainsay_api::leases::ReturnReason;
use gainsay_commitment::ModelId;
use gainsay_engine::{Trace, Work};
use gainsay_program::{GenerationRequest, StopWatch};
use gainsay_protocol::LeaseId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How an errand ended, if nothing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The claim was posted, or waits on disk to be posted after the next start.
    Claimed,
    /// The lease was over before there was a claim.
    Lost,
}

/// How long a claim waits for the end of its stream to get through.
const STREAM_END: Duration = Duration::from_secs(3);
/// Pause between two tries to get a model.
const MODEL_PAUSE: Duration = Duration::from_secs(1);

impl Worker {
    /// Runs the job of a lease, signs and keeps what came out, and posts it. Goes on when the worker is told to stop; while
    /// the coordinator is away it then leaves a claim that is signed to the next start. A lease whose job cannot be run here
    /// is handed back.
    ///
    /// # Errors
    /// The job cannot be run here, or the claim cannot be kept.
    pub(crate) async fn serve(
        self: Arc<Self>,
        record: Record,
        stop: CancellationToken,
    ) -> Result<Ended, WorkerError> {
        let lease = record.lease;
        let ended = self.clone().attempt(record, &stop).await;
        match ended.as_ref().err().map(WorkerError::reason_to_return) {
            Some(Some(_)) if stop.is_cancelled() => self.hand_back(lease, ReturnReason::ShuttingDown).await,
            Some(Some(reason)) => self.hand_back(lease, reason).await,
            Some(None) | None => {}
        }
        ended
    }

    /// Gives a lease up; where that cannot be said, it lapses.
    async fn hand_back(&self, lease: LeaseId, reason: ReturnReason) {
        match self.client.return_lease(&self.identity.key, lease, reason).await {
            Ok(returned) => {
                tracing::info!(%lease, ?reason, fee = returned.fee, "handed back");
                self.tally.returned.add(1);
            }
            Err(error) => {
                tracing::warn!(%lease, ?reason, %error, "the lease was not handed back, and lapses");
                self.tally.lost.add(1);
            }
        }
        self.tally.tell();
    }

    async fn attempt(
        self: Arc<Self>,
        record: Record,
        stop: &CancellationToken,
    ) -> Result<Ended, WorkerError> {
        let heartbeat = Heartbeat::keep(self.clone(), record.lease);
        if record.claim.is_some() {
            self.post(&record, stop).await;
            return Ok(Ended::Claimed);
        }
        let number = self.jobs_run.add(1);
        let task = Task::new(record)?;
        let bench = tokio::select! {
            bench = self.bench_in_time(task.record.model, stop) => bench?,
            () = heartbeat.lost() => return Ok(Ended::Lost),
        };
        let stream = task.record.stream.then(|| TokenStream::start(self.clone(), task.record.lease));
        let run = self.run_and_sign(&bench, task, number, stream.as_ref());
        let signed = tokio::select! {
            signed = run => signed?,
            // A claim that is being signed at this very moment is not kept, and never sent.
            () = heartbeat.lost() => return Ok(Ended::Lost),
        };
        drop(bench);
        let post = async {
            // Whoever listens hears the whole answer before it hears of the claim.
            if let Some(stream) = stream {
                stream.finish().await;
            }
        };
        tokio::select! {
            () = post => {}
            () = stop.cancelled() => {}
            () = heartbeat.lost() => {}
            // Nobody's stream is worth the lease: the claim holds the whole answer.
            () = tokio::time::sleep(STREAM_END) => {}
        }
        self.post(&signed, stop).await;
        Ok(Ended::Claimed)
    }

    /// The bench of a model. Where it is not to be had for now it is waited for, but not for longer than a lease may be held
    /// and handed back for nothing.
    async fn bench_in_time(
        self: &Arc<Self>,
        model: ModelId,
        stop: &CancellationToken,
    ) -> Result<Arc<Bench>, WorkerError> {
        let waited = Duration::from_millis(self.heartbeat_ms / 2);
        let until = Instant::now() + waited;
        loop {
            match self.bench(model).await {
                // A worker that is told to stop finishes what is in hand, but waits for nothing.
                Err(error) if error.is_transient() && Instant::now() < until && !stop.is_cancelled() => {
                    tracing::debug!(%model, %error, "waiting for a model");
                    tokio::time::sleep(MODEL_PAUSE).await;
                }
                Err(error) if error.is_transient() => return Err(WorkerError::ModelAway { model, waited }),
                bench => return Ok(bench?),
            }
        }
    }

    async fn run_and_sign(
        self: &Arc<Self>,
        bench: &Arc<Bench>,
        task: Task,
        number: u64,
        stream: Option<&TokenStream>,
    ) -> Result<Record, WorkerError> {
        if self.cheats_on(number) {
            let (worker, model) = (self.clone(), bench.model.clone());
            let lied = tokio::task::spawn_blocking(move || worker.lie(&model, task));
            let lie = lied.await.expect("a run does not panic")?;
            lie.streamed.iter().for_each(|token| stream.into_iter().for_each(|stream| stream.push(*token)));
            return Ok(lie.record);
        }
        let trace = self.run_honestly(bench, &task, stream).await?;
        let (worker, model) = (self.clone(), bench.model.clone());
        let signed = tokio::task::spawn_blocking(move || worker.sign(&model, task, trace, None));
        signed.await.expect("signing does not panic")
    }

    async fn run_honestly(
        &self,
        bench: &Arc<Bench>,
        task: &Task,
        stream: Option<&TokenStream>,
    ) -> Result<Trace, WorkerError> {
        let lease = task.record.lease;
        let failed = |reason: String| WorkerError::Run { lease, reason };
        let work = bench.work(task)?;
        let mut steps = bench.run(lease, work);
        // However this ends, nobody runs for a lease that is not served any more.
        let _cancel = Cancel { bench, task };
        loop {
            match steps.recv().await {
                Some(Step::Token(token)) => stream.into_iter().for_each(|stream| stream.push(token)),
                Some(Step::Done(trace)) => return Ok(trace),
                Some(Step::Refused(reason)) => return Err(WorkerError::Job { lease, reason }),
                Some(Step::Failed(reason)) => return Err(failed(reason)),
                None => return Err(failed("the thread that runs its model has ended".to_owned())),
            }
        }
    }
}

/// Takes a job off its bench when it is not waited for any more.
struct Cancel<'a> {
    bench: &'a Bench,
    task: &'a Task,
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        self.bench.cancel(self.task.record.lease);
    }
}

impl Bench {
    /// What the engine is to do for a job.
    fn work(&self, task: &Task) -> Result<Work, WorkerError> {
        if let Some(input) = task.job.embedding_input() {
            return Ok(Work::Encode(input.clone()));
        }
        let refused = |reason: &str| WorkerError::Job { lease: task.record.lease, reason: reason.to_owned() };
        let request = task.job.generation_request().ok_or_else(|| refused("it is of an unknown kind"))?;
        let stop =
            self.stop(request).ok_or_else(|| refused("its tokenizer has no bytes for its stop strings"))?;
        Ok(Work::Generate { request: request.clone(), stop })
    }

    /// Where an answer to a request stops; nothing where that cannot be told.
    pub(crate) fn stop(&self, request: &GenerationRequest) -> Option<Box<dyn FnMut(u32) -> bool + Send>> {
        let table = match &self.tokens {
            Some(table) => table.clone(),
            None if request.stop.stop.is_empty() => Arc::default(),
            None => return None,
        };
        let stop_ids = self.model.model().manifest().generation.as_ref()?.stop_ids.clone();
        let mut watch = StopWatch::new(request.stop.clone(), stop_ids, table);
        Some(Box::new(move |token| watch.push(token).is_some()))
    }
}
