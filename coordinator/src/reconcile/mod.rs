//! What no request asks for: service time, lost leases, spent clocks, finality, payouts.
//!
//! Each task takes no input, looks at the database, and brings about what is due; run twice, or by several
//! coordinators at once, it does so once. A crash between two tasks costs nothing but time: the next round finds
//! the rest. So there is one code path for what is overdue, whatever made it so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::app::{App, AppResult};
use crate::telemetry;
use crate::webhooks::Deliveries;

/// How often service time is advanced and everything due is looked for.
const PERIOD: Duration = Duration::from_secs(1);

/// What a round brought about. Counts what was found; where several coordinators found the same, one of them did it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// Expired leases.
    pub leases: usize,
    /// Disputes out of time.
    pub disputes: usize,
    /// Claims past their window.
    pub claims: usize,
    /// Holds paid out.
    pub holds: usize,
    /// Jobs and holds of withdrawn profiles, given back.
    pub voided: usize,
}

/// Brings about everything that is due now, in batches, until nothing is left. Does not move service time.
///
/// The order matters for latency alone: disputes that end may make claims final, which may let holds be paid.
///
/// # Errors
/// The database. What was done before stays done.
pub async fn run_due(app: &App) -> AppResult<Round> {
    let mut total = Round::default();
    let batch = usize::try_from(app.config().limits.reconcile_batch).unwrap_or(usize::MAX);
    let forgotten = app.forget_old().await;
    loop {
        // Each is tried whatever became of the others: one that fails must not keep the rest from what is due.
        let (leases, disputes) = (app.reclaim_leases().await, app.expire_disputes().await);
        let (claims, holds) = (app.finalize_claims().await, app.pay_out_holds().await);
        let voided = app.give_back_voided().await;
        let round =
            Round { leases: leases?, disputes: disputes?, claims: claims?, holds: holds?, voided: voided? };
        total.leases += round.leases;
        total.disputes += round.disputes;
        total.claims += round.claims;
        total.holds += round.holds;
        total.voided += round.voided;
        let Round { leases, disputes, claims, holds, voided } = round;
        if [leases, disputes, claims, holds, voided].iter().all(|found| *found < batch) {
            return forgotten.map(|_| total);
        }
    }
}

/// Posts the notices that are due to their webhooks, and waits for what becomes of them. How many were due.
///
/// # Errors
/// The database.
pub async fn deliver_notices(app: &App) -> AppResult<usize> {
    let deliveries = Deliveries::new(app.clone());
    let found = deliveries.start_due().await;
    deliveries.finish().await;
    found
}

/// The timers of a running coordinator.
#[derive(Debug)]
pub struct Running {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    /// Ends the timers after the rounds that they are in.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a timer ended by a panic");
            }
        }
    }
}

/// Starts the timers: one advances service time, one does what is due, one delivers notices. Separate, so that a long round
/// or a slow receiver does not hold back time for the parties whose clocks run.
#[must_use]
pub fn spawn(app: App) -> Running {
    let (stop, stopped) = watch::channel(false);
    let time = tokio::spawn(every_period(app.clone(), stopped.clone(), "advance service time", tick));
    let due = tokio::spawn(every_period(app.clone(), stopped.clone(), "do what is due", do_due));
    let notices = tokio::spawn(deliver(app, stopped));
    Running { stop, tasks: vec![time, due, notices] }
}

async fn tick(app: App) -> AppResult<()> {
    app.tick().await.map(|_| ())
}

async fn do_due(app: App) -> AppResult<()> {
    let round = run_due(&app).await?;
    if round != Round::default() {
        tracing::debug!(?round, "done what was due");
    }
    Ok(())
}

async fn deliver(app: App, stopped: watch::Receiver<bool>) {
    let deliveries = Arc::new(Deliveries::new(app.clone()));
    let start_due = |_| {
        let deliveries = Arc::clone(&deliveries);
        async move { deliveries.start_due().await.map(|_| ()) }
    };
    every_period(app, stopped, "deliver notices", start_due).await;
    deliveries.finish().await;
}

async fn every_period<F: Future<Output = AppResult<()>> + Send + 'static>(
    app: App,
    mut stopped: watch::Receiver<bool>,
    what: &'static str,
    run: impl Fn(App) -> F,
) {
    let mut timer = interval(PERIOD);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            _ = timer.tick() => {}
        }
        let started = Instant::now();
        // A task of its own: a round that panics must not end the timer.
        let done = tokio::spawn(run(app.clone())).await;
        telemetry::round(what, started.elapsed(), matches!(done, Ok(Ok(()))));
        telemetry::upkeep();
        let error: Box<dyn std::error::Error> = match done {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.into(),
            Err(broken) => broken.into(),
        };
        tracing::error!(error = error.as_ref(), "could not {what}; the next round tries again");
    }
}
