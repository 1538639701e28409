//! Which coordinator a database belongs to.

use gainsay_commitment::CoordinatorId;

use super::{Connection, StoreError, StoreResult, bytes, failed};

/// Claims a fresh database for this coordinator, or checks that it is its own, and keeps the event log's places
/// ascending where the database was restored elsewhere.
///
/// # Errors
/// The database, or another coordinator's id in it.
pub async fn adopt(conn: &mut Connection, own: CoordinatorId) -> StoreResult<()> {
    sqlx::query("insert into deployment (coordinator_id) values ($1) on conflict do nothing")
        .bind(own.as_bytes().as_slice())
        .execute(&mut *conn)
        .await
        .map_err(failed("record the coordinator's id"))?;
    let recorded: Vec<u8> = sqlx::query_scalar("select coordinator_id from deployment")
        .fetch_one(&mut *conn)
        .await
        .map_err(failed("read the coordinator's id"))?;
    let recorded: CoordinatorId = bytes("a coordinator's id", &recorded)?;
    if recorded != own {
        return Err(StoreError::ForeignKey { recorded, own });
    }
    sqlx::query("select event_base_adopt()").execute(conn).await.map_err(failed("place new events"))?;
    Ok(())
}
