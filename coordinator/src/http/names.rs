//! Names of parties for people, remembered: a registration never changes its name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use gainsay_api::parties::PartyView;
use gainsay_commitment::PartyId;
use gainsay_protocol::Role;

use super::error::ApiError;
use super::state::HttpState;

/// Names kept before all are forgotten and read anew.
const KEPT: usize = 65_536;

/// Names by key.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: Mutex<HashMap<PartyId, String>>,
}

impl Names {
    fn get(&self, key: PartyId) -> Option<String> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    fn keep(&self, key: PartyId, name: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(key, name.to_owned());
    }
}

/// A worker or challenger with its name.
pub(super) async fn party(state: &HttpState, key: PartyId, role: Role) -> Result<PartyView, ApiError> {
    if let Some(name) = state.names.get(key) {
        return Ok(PartyView { id: key, name });
    }
    let agent = state
        .call(move |app| async move {
            match role {
                Role::Worker => app.worker(key).await,
                Role::Challenger => app.challenger(key).await,
            }
        })
        .await?;
    state.names.keep(key, &agent.name);
    Ok(PartyView { id: key, name: agent.name })
}

/// A worker or a challenger, whichever has the key.
pub(super) async fn any_party(state: &HttpState, key: PartyId) -> Result<PartyView, ApiError> {
    match party(state, key, Role::Worker).await {
        Ok(party) => Ok(party),
        Err(_) => party(state, key, Role::Challenger).await,
    }
}
