//! Delivers notices to submitters: signed, bounded in time, and never into networks that the service alone can reach.
//!
//! A submitter names the address, so it may name one that only this machine reaches. Names are resolved here, every address
//! is looked at, and the connection goes to the addresses that were looked at; redirects are not followed.
//!
//! Receivers may be slow on purpose. Deliveries go on beside each other, few of one submitter and few to one address, so that
//! one who takes its time holds up nobody else.

mod addresses;
mod busy;
mod send;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::app::{App, AppResult, NoticeEnd, Outgoing};
use busy::{Busy, Place, Turn};
use send::DeliveryError;

/// Time for one delivery, with finding the address.
const DELIVERY_TIME: Duration = Duration::from_secs(10);
/// Deliveries under way at a time.
const AT_ONCE: usize = 64;

/// The deliveries of one coordinator.
#[derive(Debug)]
pub(crate) struct Deliveries {
    app: App,
    room: Arc<Semaphore>,
    busy: Arc<Busy>,
    under_way: TaskTracker,
}

impl Deliveries {
    pub(crate) fn new(app: App) -> Self {
        let under_way = TaskTracker::new();
        Self { app, room: Arc::new(Semaphore::new(AT_ONCE)), busy: Arc::default(), under_way }
    }

    /// Starts what is due, as far as there is room. How many were due.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn start_due(&self) -> AppResult<usize> {
        let mut found = 0;
        loop {
            let room = self.room.available_permits();
            let due = if room > 0 { self.app.due_notices(room).await? } else { Vec::new() };
            let is_all = due.len() < room || room == 0;
            found += due.len();
            for notice in due {
                self.start(notice).await?;
            }
            if is_all {
                return Ok(found);
            }
        }
    }

    /// Waits until none is under way.
    pub(crate) async fn finish(&self) {
        self.under_way.close();
        self.under_way.wait().await;
        self.under_way.reopen();
    }

    async fn start(&self, notice: Outgoing) -> AppResult<()> {
        let Some(turn) = self.busy.begin(Place::Submitter(notice.submitter)) else {
            return self.app.notice_ended(notice.job, notice.attempt, NoticeEnd::NotTried).await;
        };
        let room = Arc::clone(&self.room).acquire_owned().await.expect("nobody closes the semaphore");
        let (app, busy) = (self.app.clone(), Arc::clone(&self.busy));
        self.under_way.spawn(async move {
            let _room = room;
            deliver(&app, &notice, &busy, turn).await;
        });
        Ok(())
    }
}

/// Delivers one notice and notes what became of it. One that panics is due again after its pause.
async fn deliver(app: &App, notice: &Outgoing, busy: &Arc<Busy>, turn: Turn) {
    let private = app.config().limits.private_webhooks;
    let sending = send::deliver(notice, app.coordinator(), busy, private);
    let sent = tokio::time::timeout(DELIVERY_TIME, sending).await.unwrap_or(Err(DeliveryError::Time));
    drop(turn);
    let (job, attempt) = (notice.job, notice.attempt);
    if let Err(error) = &sent {
        tracing::info!(%job, attempt, error = error as &dyn std::error::Error, "a notice was not delivered");
    }
    let end = match sent {
        Ok(()) => NoticeEnd::Taken,
        Err(DeliveryError::Busy(_)) => NoticeEnd::NotTried,
        Err(_) => NoticeEnd::Refused,
    };
    if let Err(error) = app.notice_ended(job, attempt, end).await {
        tracing::warn!(%job, error = &error as &dyn std::error::Error, "what became of a notice is not on record");
    }
}
