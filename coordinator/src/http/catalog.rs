//! Which model a request means, remembered: what a model is never changes, and whether it still takes jobs is looked at
//! again with every submission.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use gainsay_api::ErrorCode;
use gainsay_commitment::ModelId;

use super::error::ApiError;
use super::state::HttpState;
use crate::app::{ModelState, ModelView};

/// Models that take jobs, by the words that requests used for them.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    // At most one entry a registered model and spelling; only words that name a serving model get in.
    known: Mutex<HashMap<String, Arc<ModelView>>>,
}

impl Catalog {
    fn get(&self, word: &str) -> Option<Arc<ModelView>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(word).cloned()
    }

    fn keep(&self, word: &str, model: &Arc<ModelView>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(word.to_owned(), Arc::clone(model));
    }

    fn forget(&self, word: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(word);
    }
}

/// The model of this id or name, if it takes jobs.
///
/// Names are not unique: the oldest model of a name keeps it, so that nobody can take over a name by registering
/// another model under it.
pub(super) async fn resolve(state: &HttpState, word: &str) -> Result<Arc<ModelView>, ApiError> {
    if let Some(model) = state.catalog.get(word) {
        let id = model.id;
        let current = state.call(move |app| async move { app.model(id).await }).await?;
        if current.state == ModelState::Serving {
            return Ok(model);
        }
        state.catalog.forget(word);
    }
    let model = Arc::new(look_up(state, word).await?);
    if model.state == ModelState::Incomplete {
        let missing = model.missing.len();
        let sentence =
            format!("The model takes no jobs yet: {missing} of its files are still to be uploaded");
        return Err(ApiError::new(ErrorCode::ModelIncomplete, sentence).param("model"));
    }
    // A withdrawn model is refused where the job would be made, in the same words for all routes.
    if model.state == ModelState::Serving {
        state.catalog.keep(word, &model);
    }
    Ok(model)
}

/// The model that something on record names. It exists, whether it takes jobs or not.
pub(super) async fn by_id(state: &HttpState, id: ModelId) -> Result<Arc<ModelView>, ApiError> {
    let word = id.to_string();
    if let Some(model) = state.catalog.get(&word) {
        return Ok(model);
    }
    let model = Arc::new(state.call(move |app| async move { app.model(id).await }).await?);
    if model.state == ModelState::Serving {
        state.catalog.keep(&word, &model);
    }
    Ok(model)
}

async fn look_up(state: &HttpState, word: &str) -> Result<ModelView, ApiError> {
    if let Ok(id) = word.parse::<ModelId>() {
        let found = state.call(move |app| async move { app.model(id).await }).await;
        return found.map_err(|error| error.param("model"));
    }
    let models = state.call(|app| async move { app.models().await }).await?;
    let mut namesakes = models.into_iter().filter(|model| model.model.manifest().name == word).peekable();
    let oldest = namesakes.peek().cloned();
    namesakes.find(|model| model.state == ModelState::Serving).or(oldest).ok_or_else(|| {
        let sentence = "No model has this name or id; GET /v1/models lists them";
        ApiError::new(ErrorCode::UnknownModel, sentence).param("model")
    })
}
