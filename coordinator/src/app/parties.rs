//! Who takes part: submitters by API key; owners, workers and challengers by signing key.

use gainsay_commitment::PartyId;
use gainsay_protocol::{OwnerId, ServiceTime};
use serde_json::json;

use super::work::{About, Work};
use super::{Agent, ApiKey, App, AppError, AppResult, Provider, Submitter};
use crate::store::{self, clock, parties};

const API_KEY_CONTEXT: &str = "gainsay v1 api key";
const NAME_CHARS_MAX: usize = 100;
const DEVICE_CHARS_MAX: usize = 200;

fn checked_name(name: &str) -> AppResult<&str> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.chars().count());
    if fits && !name.chars().any(char::is_control) { Ok(name) } else { Err(AppError::InvalidName) }
}

fn checked_device(device: &str) -> AppResult<&str> {
    let fits = device.chars().count() <= DEVICE_CHARS_MAX;
    if fits && !device.chars().any(char::is_control) { Ok(device) } else { Err(AppError::InvalidName) }
}

fn checked_key(key: PartyId) -> AppResult<PartyId> {
    key.validate().map(|()| key).map_err(|_| AppError::InvalidKey(key))
}

fn provider(found: parties::Owner) -> AppResult<Provider> {
    let key = found.key.ok_or(store::StoreError::Corrupt { what: "a provider's key" })?;
    Ok(Provider { id: found.id, key, name: found.name })
}

fn agent(found: parties::Agent) -> Agent {
    Agent { key: found.key, owner: found.owner, name: found.name }
}

impl App {
    /// Registers a submitter and makes its API key, which is shown this once.
    ///
    /// # Errors
    /// The name.
    pub async fn register_submitter(&self, name: &str) -> AppResult<(Submitter, ApiKey)> {
        let name = checked_name(name)?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).expect("the operating system provides random bytes");
        let key = ApiKey(format!("gsk-{}", hex::encode(secret)));
        let id = OwnerId(store::new_id());
        let mut work = Work::begin(self).await?;
        let now = work.now().await?;
        let hash = blake3::derive_key(API_KEY_CONTEXT, key.expose().as_bytes());
        parties::insert_submitter(&mut work.tx, id, name, &hash, now).await?;
        work.event(
            "submitter_registered",
            About::default(),
            json!({ "owner": id.to_string(), "name": name }),
        );
        work.finish().await?;
        Ok((Submitter { id, name: name.to_owned() }, key))
    }

    /// Whose API key this is.
    ///
    /// # Errors
    /// Nobody's.
    pub async fn authenticate(&self, api_key: &str) -> AppResult<Submitter> {
        let hash = blake3::derive_key(API_KEY_CONTEXT, api_key.as_bytes());
        let mut conn = self.connection().await?;
        let found = parties::submitter_by_key_hash(&mut conn, &hash).await?;
        let found = found.ok_or(AppError::UnknownApiKey)?;
        Ok(Submitter { id: found.id, name: found.name })
    }

    /// Registers the owner of workers and challengers, who signed the request with `key`. Same key and name again:
    /// same answer.
    ///
    /// # Errors
    /// The name, the key, or the key registered under another name.
    pub async fn register_owner(&self, key: PartyId, name: &str) -> AppResult<Provider> {
        let (key, name) = (checked_key(key)?, checked_name(name)?);
        let mut work = Work::begin(self).await?;
        let now = work.now().await?;
        let id = OwnerId(store::new_id());
        parties::insert_provider(&mut work.tx, id, key, name, now).await?;
        let found = parties::provider(&mut work.tx, key).await?.ok_or(AppError::AlreadyRegistered(key))?;
        if found.id == id {
            let details = json!({ "owner": id.to_string(), "name": name });
            work.event("owner_registered", About::default().party(key), details);
        }
        work.finish().await?;
        if found.name == name { provider(found) } else { Err(AppError::AlreadyRegistered(key)) }
    }

    /// Registers a worker for the owner who signed the request. `device` is the worker's own statement, which it may change
    /// by registering again: what it claims from then on says so.
    ///
    /// # Errors
    /// An unknown owner, the names, the key, or the key registered otherwise.
    pub async fn register_worker(
        &self,
        owner_key: PartyId,
        worker: PartyId,
        name: &str,
        device: &str,
    ) -> AppResult<Agent> {
        let (name, device) = (checked_name(name)?.to_owned(), checked_device(device)?.to_owned());
        let key = checked_key(worker)?;
        let owner = self.owner(owner_key).await?;
        let mut work = Work::begin(self).await?;
        let now = work.now().await?;
        let before = parties::worker(&mut work.tx, key).await?;
        let wanted = parties::Agent { key, owner: owner.id, name, device, suspended: None };
        parties::insert_worker(&mut work.tx, &wanted, now).await?;
        let found = parties::lock_worker(&mut work.tx, key).await?.ok_or(AppError::AlreadyRegistered(key))?;
        if (found.owner, &found.name) != (wanted.owner, &wanted.name) {
            return Err(AppError::AlreadyRegistered(key));
        }
        let details = json!({ "owner": owner.id.to_string(), "name": wanted.name, "device": wanted.device });
        if before.is_none() {
            work.event("worker_registered", About::default().party(key), details);
        } else if found.device != wanted.device {
            parties::set_worker_device(&mut work.tx, key, &wanted.device).await?;
            work.event("worker_moved", About::default().party(key), details);
        }
        work.finish().await?;
        Ok(agent(parties::Agent { device: wanted.device, ..found }))
    }

    /// Registers a challenger for the owner who signed the request.
    ///
    /// # Errors
    /// An unknown owner, the name, the key, or the key registered otherwise.
    pub async fn register_challenger(
        &self,
        owner_key: PartyId,
        challenger: PartyId,
        name: &str,
    ) -> AppResult<Agent> {
        let (name, key) = (checked_name(name)?.to_owned(), checked_key(challenger)?);
        let owner = self.owner(owner_key).await?;
        let mut work = Work::begin(self).await?;
        let now = work.now().await?;
        let before = parties::challenger(&mut work.tx, key).await?;
        let wanted = parties::Agent { key, owner: owner.id, name, device: String::new(), suspended: None };
        parties::insert_challenger(&mut work.tx, &wanted, now).await?;
        let found = parties::challenger(&mut work.tx, key).await?.ok_or(AppError::AlreadyRegistered(key))?;
        if before.is_none() {
            let details = json!({ "owner": owner.id.to_string(), "name": wanted.name });
            work.event("challenger_registered", About::default().party(key), details);
        }
        work.finish().await?;
        let same = (found.owner, &found.name) == (wanted.owner, &wanted.name);
        if same { Ok(agent(found)) } else { Err(AppError::AlreadyRegistered(key)) }
    }

    /// The owner behind an owner key.
    ///
    /// # Errors
    /// There is none.
    pub async fn owner(&self, key: PartyId) -> AppResult<Provider> {
        let mut conn = self.connection().await?;
        let found = parties::provider(&mut conn, key).await?;
        provider(found.ok_or(AppError::UnknownParty { party: key, role: "owner" })?)
    }

    /// The worker behind a worker key.
    ///
    /// # Errors
    /// There is none.
    pub async fn worker(&self, key: PartyId) -> AppResult<Agent> {
        let mut conn = self.connection().await?;
        let found = parties::worker(&mut conn, key).await?;
        found.map(agent).ok_or(AppError::UnknownParty { party: key, role: "worker" })
    }

    /// The challenger behind a challenger key.
    ///
    /// # Errors
    /// There is none.
    pub async fn challenger(&self, key: PartyId) -> AppResult<Agent> {
        let mut conn = self.connection().await?;
        let found = parties::challenger(&mut conn, key).await?;
        found.map(agent).ok_or(AppError::UnknownParty { party: key, role: "challenger" })
    }

    /// Holds the stated time of a signed request against service time and uses up its nonce.
    ///
    /// # Errors
    /// The time is too far off, or the nonce was used.
    pub async fn record_nonce(&self, party: PartyId, nonce: [u8; 16], stated: ServiceTime) -> AppResult<()> {
        let mut conn = self.connection().await?;
        let now = clock::now(&mut conn).await?;
        if stated.since(now).max(now.since(stated)) > self.config().limits.request_skew_ms {
            return Err(AppError::StaleRequest { stated_ms: stated.0, now_ms: now.0 });
        }
        let fresh = parties::use_nonce(&mut conn, party, &nonce, now).await?;
        if fresh { Ok(()) } else { Err(AppError::NonceUsed) }
    }
}
