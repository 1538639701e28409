//! Bonds: what challengers lock behind their disputes, one for each pair of challenger and worker.

use gainsay_commitment::{DisputeId, PartyId};
use gainsay_protocol::{Amount, JobId, OwnerId, ServiceTime};
use uuid::Uuid;

use super::{Connection, StoreResult, failed, uuid};

/// How a bond ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BondEnd {
    /// Back to its challenger.
    Returned,
    /// Lost with a dispute.
    Forfeited,
}

/// A bond on record.
#[derive(Debug, Clone, Copy)]
pub struct StoredBond {
    /// Id.
    pub id: [u8; 16],
    /// Whose balances it is locked in.
    pub owner: OwnerId,
    /// How much.
    pub amount: Amount,
}

/// Locks the bond that backs the disputes of this challenger against this worker, if there is one.
///
/// # Errors
/// The database.
pub async fn lock(
    conn: &mut Connection,
    challenger: PartyId,
    worker: PartyId,
) -> StoreResult<Option<StoredBond>> {
    let row: Option<(Uuid, Uuid, i64)> = sqlx::query_as(
        "select bond_id, owner_id, amount from bonds
            where challenger_id = $1 and worker_id = $2 and state = 'locked' for no key update",
    )
    .bind(challenger.as_bytes().as_slice())
    .bind(worker.as_bytes().as_slice())
    .fetch_optional(conn)
    .await
    .map_err(failed("lock a bond"))?;
    Ok(row.map(|(id, owner, amount)| StoredBond {
        id: id.into_bytes(),
        owner: OwnerId(owner.into_bytes()),
        amount: Amount(amount),
    }))
}

/// Records a new bond.
///
/// # Errors
/// The database.
pub async fn insert(
    conn: &mut Connection,
    bond: &StoredBond,
    challenger: PartyId,
    worker: PartyId,
    at: ServiceTime,
) -> StoreResult<()> {
    sqlx::query(
        "insert into bonds (bond_id, challenger_id, worker_id, owner_id, amount, state, locked_ms)
            values ($1, $2, $3, $4, $5, 'locked', $6)",
    )
    .bind(uuid(bond.id))
    .bind(challenger.as_bytes().as_slice())
    .bind(worker.as_bytes().as_slice())
    .bind(uuid(bond.owner.0))
    .bind(bond.amount.0)
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("record a bond"))?;
    Ok(())
}

/// Ends a bond.
///
/// # Errors
/// The database.
pub async fn end(conn: &mut Connection, bond: [u8; 16], end: BondEnd, at: ServiceTime) -> StoreResult<()> {
    let state = match end {
        BondEnd::Returned => "returned",
        BondEnd::Forfeited => "forfeited",
    };
    sqlx::query("update bonds set state = $2, ended_ms = $3 where bond_id = $1 and state = 'locked'")
        .bind(uuid(bond))
        .bind(state)
        .bind(at.0)
        .execute(conn)
        .await
        .map_err(failed("end a bond"))?;
    Ok(())
}

/// Whether a bond backs a dispute that is not decided.
///
/// # Errors
/// The database.
pub async fn is_busy(conn: &mut Connection, bond: [u8; 16]) -> StoreResult<bool> {
    sqlx::query_scalar("select exists (select 1 from disputes where bond_id = $1 and ended_ms is null)")
        .bind(uuid(bond))
        .fetch_one(conn)
        .await
        .map_err(failed("look for disputes of a bond"))
}

/// Whose bond backs, or backed, a dispute.
///
/// # Errors
/// The database.
pub async fn owner_of(conn: &mut Connection, job: JobId, dispute: DisputeId) -> StoreResult<Option<OwnerId>> {
    let owner: Option<Uuid> = sqlx::query_scalar(
        "select b.owner_id from disputes d join bonds b using (bond_id)
            where d.job_id = $1 and d.dispute_id = $2",
    )
    .bind(uuid(job.0))
    .bind(dispute.as_bytes().as_slice())
    .fetch_optional(conn)
    .await
    .map_err(failed("look up a dispute's bond"))?;
    Ok(owner.map(|id| OwnerId(id.into_bytes())))
}
