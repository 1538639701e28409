//! The models that a worker serves: those that the coordinator has, that it is told to serve, and that fit its memory.
//! They are fetched beside the work, which a slow download must not hold up.

use crate::Worker;
use gainsay_commitment::ModelId;
use gainsay_participant::ParticipantError;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often the coordinator is asked which models it has.
const EVERY: Duration = Duration::from_secs(10);
/// How often while none is served yet.
const EVERY_AT_FIRST: Duration = Duration::from_secs(1);

/// How long no jobs are taken on a model after one has failed; twice as long after each further one in a row.
const REST: Duration = Duration::from_secs(5);
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(3_600);

/// What is served and what is not.
#[derive(Default)]
pub(crate) struct Catalog(Mutex<Lists>);

#[derive(Default)]
struct Lists {
    /// Fetched, and served.
    ready: BTreeMap<ModelId, Served>,
    /// What this machine cannot run, or not beside the others.
    refused: HashSet<ModelId>,
    /// Models on which jobs have failed since one last went well.
    resting: HashMap<ModelId, Rest>,
}

/// A model that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) id: ModelId,
    /// Whether its jobs are generations, which take room for as long as they run.
    pub(crate) generates: bool,
}

#[derive(Clone, Copy)]
struct Rest {
    until: Instant,
    length: Duration,
}

impl Catalog {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().expect("no holder of the lists panics")
    }

    fn knows(&self, id: ModelId) -> bool {
        let lists = self.lists();
        lists.ready.contains_key(&id) || lists.refused.contains(&id)
    }

    /// The models to ask for: all that are served and do not rest, by turns from `turn` on where there are more than
    /// `most`.
    pub(crate) fn wanted(&self, turn: usize, most: usize) -> Vec<Served> {
        let (lists, now) = (self.lists(), Instant::now());
        let rests = |id| lists.resting.get(id).is_some_and(|rest| rest.until > now);
        let all: Vec<Served> = lists.ready.values().filter(|served| !rests(&served.id)).copied().collect();
        let count = all.len().max(1);
        all.iter().cycle().skip(turn % count).take(all.len().min(most)).copied().collect()
    }

    /// Serves a model from now on.
    fn serve(&self, served: Served) {
        self.lists().ready.insert(served.id, served);
    }

    /// Takes no more jobs of a model that cannot be loaded.
    pub(crate) fn give_up(&self, model: ModelId) {
        let mut lists = self.lists();
        if lists.ready.remove(&model).is_some() {
            tracing::error!(%model, "this model is not served any more: it could not be loaded");
            lists.refused.insert(model);
        }
    }

    /// Takes no jobs of a model for a while, since one has failed: the next might fail the same way, and each costs its
    /// submitter time.
    pub(crate) fn rest(&self, model: ModelId) {
        let mut lists = self.lists();
        let length = lists.resting.get(&model).map_or(REST, |rest| LONGEST_REST.min(rest.length * 2));
        tracing::warn!(%model, seconds = length.as_secs(), "no jobs are taken on this model for a while");
        lists.resting.insert(model, Rest { until: Instant::now() + length, length });
    }

    /// A job on the model went well.
    pub(crate) fn went_well(&self, model: ModelId) {
        self.lists().resting.remove(&model);
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
            Ok(model) => {
                let generates = model.model().manifest().generation.is_some();
                self.catalog.serve(Served { id, generates });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn served(byte: u8) -> Served {
        Served { id: ModelId::from_bytes([byte; 32]), generates: byte.is_multiple_of(2) }
    }

    #[test]
    fn a_failed_run_rests_its_model_longer_each_time_and_gives_up_none() {
        let catalog = Catalog::default();
        (1..4).for_each(|byte| catalog.serve(served(byte)));
        let two = served(2).id;
        for expected in [5, 10, 20] {
            catalog.rest(two);
            assert_eq!(catalog.wanted(0, 10), [served(1), served(3)]);
            assert_eq!(catalog.lists().resting[&two].length, Duration::from_secs(expected));
        }
        (0..20).for_each(|_| catalog.rest(two));
        assert_eq!(catalog.lists().resting[&two].length, LONGEST_REST);
        catalog.went_well(two);
        assert_eq!(catalog.wanted(1, 2), [served(2), served(3)]);
        assert_eq!(catalog.wanted(2, 10), [served(3), served(1), served(2)]);
        catalog.give_up(two);
        assert_eq!(catalog.wanted(0, 10), [served(1), served(3)]);
        assert!(catalog.knows(two), "it is not fetched again");
    }
}
