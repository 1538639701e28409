//! Owners, workers, challengers, and the nonces of their requests.

use gainsay_commitment::PartyId;
use gainsay_protocol::{OwnerId, ServiceTime};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Connection, StoreResult, bytes, failed, uuid};

/// An owner on record.
#[derive(Debug, Clone)]
pub struct Owner {
    /// Id.
    pub id: OwnerId,
    /// Name.
    pub name: String,
    /// The signing key, of a provider.
    pub key: Option<PartyId>,
}

#[derive(FromRow)]
struct OwnerRow {
    owner_id: Uuid,
    name: String,
    signing_key: Option<Vec<u8>>,
}

impl OwnerRow {
    fn read(self) -> StoreResult<Owner> {
        let key = self.signing_key.map(|key| bytes("an owner's key", &key)).transpose()?;
        Ok(Owner { id: OwnerId(self.owner_id.into_bytes()), name: self.name, key })
    }
}

/// A worker or challenger on record.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Key.
    pub key: PartyId,
    /// Whose.
    pub owner: OwnerId,
    /// Name.
    pub name: String,
    /// What a worker says that it runs on; empty for challengers.
    pub device: String,
    /// Since when a worker is suspended.
    pub suspended: Option<ServiceTime>,
}

#[derive(FromRow)]
struct AgentRow {
    agent_id: Vec<u8>,
    owner_id: Uuid,
    name: String,
    device: String,
    suspended_ms: Option<i64>,
}

impl AgentRow {
    fn read(self) -> StoreResult<Agent> {
        Ok(Agent {
            key: bytes("a party's key", &self.agent_id)?,
            owner: OwnerId(self.owner_id.into_bytes()),
            name: self.name,
            device: self.device,
            suspended: self.suspended_ms.map(ServiceTime),
        })
    }
}

/// Adds a submitter.
///
/// # Errors
/// The database.
pub async fn insert_submitter(
    conn: &mut Connection,
    id: OwnerId,
    name: &str,
    api_key_hash: &[u8; 32],
    at: ServiceTime,
) -> StoreResult<()> {
    sqlx::query(
        "insert into owners (owner_id, role, name, api_key_hash, registered_ms) values ($1, 'submitter', $2, $3, $4)",
    )
    .bind(uuid(id.0))
    .bind(name)
    .bind(api_key_hash.as_slice())
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("register a submitter"))?;
    Ok(())
}

/// The submitter whose API key has this hash.
///
/// # Errors
/// The database.
pub async fn submitter_by_key_hash(conn: &mut Connection, hash: &[u8; 32]) -> StoreResult<Option<Owner>> {
    let row: Option<OwnerRow> =
        sqlx::query_as("select owner_id, name, signing_key from owners where api_key_hash = $1")
            .bind(hash.as_slice())
            .fetch_optional(conn)
            .await
            .map_err(failed("look up an API key"))?;
    row.map(OwnerRow::read).transpose()
}

/// Adds a provider unless its key is registered already.
///
/// # Errors
/// The database.
pub async fn insert_provider(
    conn: &mut Connection,
    id: OwnerId,
    key: PartyId,
    name: &str,
    at: ServiceTime,
) -> StoreResult<()> {
    sqlx::query(
        "insert into owners (owner_id, role, name, signing_key, registered_ms) values ($1, 'provider', $2, $3, $4)
            on conflict (signing_key) do nothing",
    )
    .bind(uuid(id.0))
    .bind(name)
    .bind(key.as_bytes().as_slice())
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("register an owner"))?;
    Ok(())
}

/// The provider with this key.
///
/// # Errors
/// The database.
pub async fn provider(conn: &mut Connection, key: PartyId) -> StoreResult<Option<Owner>> {
    let row: Option<OwnerRow> =
        sqlx::query_as("select owner_id, name, signing_key from owners where signing_key = $1")
            .bind(key.as_bytes().as_slice())
            .fetch_optional(conn)
            .await
            .map_err(failed("look up an owner"))?;
    row.map(OwnerRow::read).transpose()
}

/// Whether there is such an owner, submitter or provider.
///
/// # Errors
/// The database.
pub async fn owner_exists(conn: &mut Connection, id: OwnerId) -> StoreResult<bool> {
    sqlx::query_scalar("select exists (select 1 from owners where owner_id = $1)")
        .bind(uuid(id.0))
        .fetch_one(conn)
        .await
        .map_err(failed("look up an owner"))
}

/// Locks an owner.
///
/// # Errors
/// The database.
pub async fn lock_owner(conn: &mut Connection, id: OwnerId) -> StoreResult<()> {
    sqlx::query("select 1 from owners where owner_id = $1 for no key update")
        .bind(uuid(id.0))
        .execute(conn)
        .await
        .map_err(failed("lock an owner"))?;
    Ok(())
}

/// Adds a worker unless its key is registered already.
///
/// # Errors
/// The database.
pub async fn insert_worker(conn: &mut Connection, worker: &Agent, at: ServiceTime) -> StoreResult<()> {
    sqlx::query(
        "insert into workers (worker_id, owner_id, name, device, registered_ms) values ($1, $2, $3, $4, $5)
            on conflict (worker_id) do nothing",
    )
    .bind(worker.key.as_bytes().as_slice())
    .bind(uuid(worker.owner.0))
    .bind(&worker.name)
    .bind(&worker.device)
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("register a worker"))?;
    Ok(())
}

/// Notes what a worker says now that it runs on.
///
/// # Errors
/// The database.
pub async fn set_worker_device(conn: &mut Connection, key: PartyId, device: &str) -> StoreResult<()> {
    sqlx::query("update workers set device = $2 where worker_id = $1")
        .bind(key.as_bytes().as_slice())
        .bind(device)
        .execute(conn)
        .await
        .map_err(failed("note a worker's device"))?;
    Ok(())
}

/// A worker.
///
/// # Errors
/// The database.
pub async fn worker(conn: &mut Connection, key: PartyId) -> StoreResult<Option<Agent>> {
    let row: Option<AgentRow> = sqlx::query_as(
        "select worker_id as agent_id, owner_id, name, device, suspended_ms from workers where worker_id = $1",
    )
    .bind(key.as_bytes().as_slice())
    .fetch_optional(conn)
    .await
    .map_err(failed("look up a worker"))?;
    row.map(AgentRow::read).transpose()
}

/// Locks a worker: whatever changes its leases, claims or disputes comes after whoever holds this.
///
/// # Errors
/// The database.
pub async fn lock_worker(conn: &mut Connection, key: PartyId) -> StoreResult<Option<Agent>> {
    let row: Option<AgentRow> = sqlx::query_as(
        "select worker_id as agent_id, owner_id, name, device, suspended_ms from workers
            where worker_id = $1 for no key update",
    )
    .bind(key.as_bytes().as_slice())
    .fetch_optional(conn)
    .await
    .map_err(failed("lock a worker"))?;
    row.map(AgentRow::read).transpose()
}

/// The same without waiting: none where another transaction holds the lock, or there is no such worker.
///
/// # Errors
/// The database.
pub async fn try_lock_worker(conn: &mut Connection, key: PartyId) -> StoreResult<Option<Agent>> {
    let row: Option<AgentRow> = sqlx::query_as(
        "select worker_id as agent_id, owner_id, name, device, suspended_ms from workers
            where worker_id = $1 for no key update skip locked",
    )
    .bind(key.as_bytes().as_slice())
    .fetch_optional(conn)
    .await
    .map_err(failed("try to lock a worker"))?;
    row.map(AgentRow::read).transpose()
}

/// Suspends a worker that is not suspended yet; whether it did.
///
/// # Errors
/// The database.
pub async fn suspend_worker(conn: &mut Connection, key: PartyId, at: ServiceTime) -> StoreResult<bool> {
    let done =
        sqlx::query("update workers set suspended_ms = $2 where worker_id = $1 and suspended_ms is null")
            .bind(key.as_bytes().as_slice())
            .bind(at.0)
            .execute(conn)
            .await
            .map_err(failed("suspend a worker"))?;
    Ok(done.rows_affected() > 0)
}

/// Lets a suspended worker work again where nothing is left that it was convicted of: every claim of its that was
/// rejected has its stake back, and it signed no two claims for one lease. Whether it did.
///
/// # Errors
/// The database.
pub async fn reinstate_worker(conn: &mut Connection, key: PartyId) -> StoreResult<bool> {
    let done = sqlx::query(
        "update workers set suspended_ms = null where worker_id = $1 and suspended_ms is not null
            and not exists (
                select 1 from claims c join holds h on h.holder = c.claim_id
                    where c.worker_id = $1 and c.state = 'rejected' and h.state <> 'voided'
            )
            and not exists (
                select 1 from equivocations e join leases l using (job_id, lease_id) where l.worker_id = $1
            )",
    )
    .bind(key.as_bytes().as_slice())
    .execute(conn)
    .await
    .map_err(failed("reinstate a worker"))?;
    Ok(done.rows_affected() > 0)
}

/// Adds a challenger unless its key is registered already.
///
/// # Errors
/// The database.
pub async fn insert_challenger(
    conn: &mut Connection,
    challenger: &Agent,
    at: ServiceTime,
) -> StoreResult<()> {
    sqlx::query(
        "insert into challengers (challenger_id, owner_id, name, registered_ms) values ($1, $2, $3, $4)
            on conflict (challenger_id) do nothing",
    )
    .bind(challenger.key.as_bytes().as_slice())
    .bind(uuid(challenger.owner.0))
    .bind(&challenger.name)
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("register a challenger"))?;
    Ok(())
}

/// A challenger.
///
/// # Errors
/// The database.
pub async fn challenger(conn: &mut Connection, key: PartyId) -> StoreResult<Option<Agent>> {
    let row: Option<AgentRow> = sqlx::query_as(
        "select challenger_id as agent_id, owner_id, name, '' as device, null::bigint as suspended_ms
            from challengers where challenger_id = $1",
    )
    .bind(key.as_bytes().as_slice())
    .fetch_optional(conn)
    .await
    .map_err(failed("look up a challenger"))?;
    row.map(AgentRow::read).transpose()
}

/// Uses up a nonce; false if it was used before.
///
/// # Errors
/// The database.
pub async fn use_nonce(
    conn: &mut Connection,
    party: PartyId,
    nonce: &[u8; 16],
    at: ServiceTime,
) -> StoreResult<bool> {
    let done = sqlx::query(
        "insert into request_nonces (party_id, nonce, received_ms) values ($1, $2, $3) on conflict do nothing",
    )
    .bind(party.as_bytes().as_slice())
    .bind(nonce.as_slice())
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("record a nonce"))?;
    Ok(done.rows_affected() > 0)
}
