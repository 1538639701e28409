//! Jobs that somebody waits for. Wake-ups of the bus may be lost, so all of them are looked at each second: by one query,
//! however many wait.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gainsay_protocol::JobId;
use tokio::sync::watch;

use super::jobs::LOOK_AGAIN;
use super::{App, AppResult};
use crate::bus::{Subscription, Topic};
use crate::store::streams::{self, Mark};

/// Jobs looked at by one query.
const BATCH: usize = 1_000;

/// The jobs that are waited for, each with what was seen of it last.
#[derive(Debug, Default)]
pub(super) struct Followed(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    jobs: HashMap<JobId, watch::Sender<Option<Mark>>>,
    /// Whether a task looks at them.
    is_looking: bool,
}

impl Followed {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The jobs that are followed; none where the task that asks is to end, for want of any.
    fn jobs(&self) -> Option<Vec<JobId>> {
        let mut state = self.lock();
        state.jobs.retain(|_, seen| seen.receiver_count() > 0);
        state.is_looking = !state.jobs.is_empty();
        state.is_looking.then(|| state.jobs.keys().copied().collect())
    }

    /// Nobody knows how far these are: whoever follows one looks by itself, and learns what is wrong.
    fn unseen(&self, jobs: &[JobId]) {
        let state = self.lock();
        for sender in jobs.iter().filter_map(|job| state.jobs.get(job)) {
            sender.send_replace(None);
        }
    }

    fn seen(&self, marks: Vec<(JobId, Mark)>) {
        let state = self.lock();
        for (job, mark) in marks {
            let Some(sender) = state.jobs.get(&job) else { continue };
            // What is seen first counts as new: it may have come after whoever follows has looked.
            let mark = Some(mark);
            sender.send_if_modified(|seen| {
                let is_new = *seen != mark;
                *seen = mark;
                is_new
            });
        }
    }
}

/// Somebody who waits for news of a job.
#[derive(Debug)]
pub struct Follow {
    news: Subscription,
    seen: watch::Receiver<Option<Mark>>,
}

impl Follow {
    /// Waits until there may be something new, at most `limit`.
    pub async fn wait(&mut self, limit: Duration) {
        tokio::select! {
            _ = self.news.wait(limit) => {}
            changed = self.seen.changed() => {
                if changed.is_err() {
                    tokio::time::sleep(LOOK_AGAIN.min(limit)).await;
                }
            }
        }
    }
}

impl App {
    /// Starts to wait for news of a job. Whoever looks at the job after this misses none.
    pub async fn follow(&self, job: JobId) -> Follow {
        let news = self.bus().subscribe(Topic::Job(job)).await;
        let mut state = self.inner.followed.lock();
        let seen = match state.jobs.entry(job) {
            Entry::Occupied(entry) => entry.get().subscribe(),
            Entry::Vacant(entry) => entry.insert(watch::Sender::new(None)).subscribe(),
        };
        if !std::mem::replace(&mut state.is_looking, true) {
            drop(tokio::spawn(self.clone().look()));
        }
        Follow { news, seen }
    }

    /// Looks at all jobs that are followed, until none is.
    async fn look(self) {
        while let Some(jobs) = self.inner.followed.jobs() {
            for jobs in jobs.chunks(BATCH) {
                if let Err(error) = self.look_at(jobs).await {
                    tracing::warn!(%error, "could not look at the jobs that are waited for");
                    self.inner.followed.unseen(jobs);
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn look_at(&self, jobs: &[JobId]) -> AppResult<()> {
        let mut conn = self.connection().await?;
        let marks = streams::marks(&mut conn, jobs).await?;
        drop(conn);
        self.inner.followed.seen(marks);
        Ok(())
    }
}
