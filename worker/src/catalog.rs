//! The models that a worker serves: those that the coordinator has, that it is told to serve, and that fit its memory.
//! They are fetched beside the work, which a slow download must not hold up.

use crate::Worker;
use gainsay_commitment::ModelId;
use gainsay_participant::ParticipantError;
use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the coordinator is asked which models it has.
const EVERY: Duration = Duration::from_secs(10);
/// How often while none is served yet.
const EVERY_AT_FIRST: Duration = Duration::from_secs(1);

/// What is served and what is not.
#[derive(Default)]
pub(crate) struct Catalog(Mutex<Lists>);

#[derive(Default)]
struct Lists {
    /// Fetched, and served.
    ready: BTreeSet<ModelId>,
    /// What this machine cannot run, or not beside the others.
    refused: HashSet<ModelId>,
}

impl Catalog {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().expect("no holder of the lists panics")
    }

    fn knows(&self, id: ModelId) -> bool {
        let lists = self.lists();
        lists.ready.contains(&id) || lists.refused.contains(&id)
    }

    /// The models to ask for: all that are served, by turns from `turn` on where more are served than `most`.
    pub(crate) fn wanted(&self, turn: usize, most: usize) -> Vec<ModelId> {
        let lists = self.lists();
        let served = lists.ready.len().max(1);
        let all = lists.ready.iter().copied();
        all.clone().chain(all).skip(turn % served).take(served.min(most)).collect()
    }

    /// Takes no more jobs of a model on which one could not be run: every further one would cost a fee.
    pub(crate) fn give_up(&self, model: ModelId) {
        let mut lists = self.lists();
        if lists.ready.remove(&model) {
            tracing::error!(%model, "this model is not served any more: a job on it could not be run");
            lists.refused.insert(model);
        }
    }
}

/// Fetches models as the coordinator gets them, until stopped.
pub(crate) async fn keep_up(worker: Arc<Worker>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = worker.fetch_models() => {}
        }
        let pause = if worker.catalog.lists().ready.is_empty() { EVERY_AT_FIRST } else { EVERY };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Worker {
    async fn fetch_models(&self) {
        let listed = match self.client.models().await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::debug!(%error, "the models cannot be listed");
                return;
            }
        };
        let named = &self.config.models;
        let complete = listed.data.into_iter().filter(|model| model.complete).map(|model| model.id);
        for id in complete.filter(|id| named.is_empty() || named.contains(id)) {
            if !self.catalog.knows(id) {
                self.fetch_model(id).await;
            }
        }
    }

    async fn fetch_model(&self, id: ModelId) {
        // What is served already does not make room for more.
        match self.models.get_if_it_fits(id).await {
            Ok(_) => {
                self.catalog.lists().ready.insert(id);
            }
            Err(error @ ParticipantError::NoRoom { .. }) => {
                tracing::warn!(model = %id, %error, "this model is not served: name those to serve, or allow more memory");
                self.catalog.lists().refused.insert(id);
            }
            Err(error) if error.is_transient() => {
                tracing::debug!(model = %id, %error, "the model is not here yet");
            }
            Err(error) => {
                tracing::error!(model = %id, %error, "this model is not served");
                self.catalog.lists().refused.insert(id);
            }
        }
    }
}
