//! Models and the files that they need.

use gainsay_commitment::{ModelId, TensorCommitment};
use gainsay_protocol::ServiceTime;
use sqlx::FromRow;

use super::{Connection, StoreError, StoreResult, bytes, count, failed};
use crate::blob::ReceivedFile;

/// A model on record.
#[derive(Debug, Clone)]
pub struct StoredModel {
    /// Id.
    pub id: ModelId,
    /// Whether it takes jobs.
    pub state: ModelState,
}

/// Whether a model takes jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelState {
    /// Some of its files are still to be uploaded.
    Incomplete,
    /// It does.
    Serving,
    /// Its arithmetic profile was withdrawn.
    Voided,
}

impl ModelState {
    fn parse(text: &str) -> StoreResult<Self> {
        match text {
            "incomplete" => Ok(Self::Incomplete),
            "serving" => Ok(Self::Serving),
            "voided" => Ok(Self::Voided),
            _ => Err(StoreError::Corrupt { what: "a model's state" }),
        }
    }
}

#[derive(FromRow)]
struct ModelRow {
    model_id: Vec<u8>,
    state: String,
}

impl ModelRow {
    fn read(self) -> StoreResult<StoredModel> {
        Ok(StoredModel { id: bytes("a model id", &self.model_id)?, state: ModelState::parse(&self.state)? })
    }
}

/// A file that a model needs, with its length where the manifest gives one.
#[derive(Debug, Clone, Copy)]
pub struct NeededFile {
    /// Hash of its bytes.
    pub hash: TensorCommitment,
    /// Length, bytes.
    pub bytes: Option<u64>,
    /// Bit of the type as which it is a weight; none for a file that is no weight.
    pub type_bit: Option<u8>,
}

/// Adds a model unless it is there; whether it was added.
///
/// # Errors
/// The database.
pub async fn insert(
    conn: &mut Connection,
    id: ModelId,
    name: &str,
    manifest: &[u8],
    at: ServiceTime,
) -> StoreResult<bool> {
    let done = sqlx::query(
        "insert into models (model_id, name, manifest, state, registered_ms) values ($1, $2, $3, 'incomplete', $4)
            on conflict do nothing",
    )
    .bind(id.as_bytes().as_slice())
    .bind(name)
    .bind(manifest)
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(failed("register a model"))?;
    Ok(done.rows_affected() > 0)
}

/// Records which files a model needs, in order.
///
/// # Errors
/// The database.
pub async fn insert_files(conn: &mut Connection, id: ModelId, files: &[NeededFile]) -> StoreResult<()> {
    let hashes: Vec<Vec<u8>> = files.iter().map(|file| file.hash.as_bytes().to_vec()).collect();
    let lengths: Vec<Option<i64>> =
        files.iter().map(|file| file.bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX))).collect();
    let type_bits: Vec<Option<i16>> = files.iter().map(|file| file.type_bit.map(i16::from)).collect();
    sqlx::query(
        "insert into model_files (model_id, file_index, file_hash, file_bytes, type_bit)
            select $1, n - 1, h, b, t
                from unnest($2::bytea[], $3::bigint[], $4::smallint[]) with ordinality as f (h, b, t, n)",
    )
    .bind(id.as_bytes().as_slice())
    .bind(hashes)
    .bind(lengths)
    .bind(type_bits)
    .execute(conn)
    .await
    .map_err(failed("record a model's files"))?;
    Ok(())
}

/// A model.
///
/// # Errors
/// The database.
pub async fn get(conn: &mut Connection, id: ModelId) -> StoreResult<Option<StoredModel>> {
    let row: Option<ModelRow> = sqlx::query_as("select model_id, state from models where model_id = $1")
        .bind(id.as_bytes().as_slice())
        .fetch_optional(conn)
        .await
        .map_err(failed("look up a model"))?;
    row.map(ModelRow::read).transpose()
}

/// All models, oldest first.
///
/// # Errors
/// The database.
pub async fn list(conn: &mut Connection) -> StoreResult<Vec<StoredModel>> {
    let rows: Vec<ModelRow> =
        sqlx::query_as("select model_id, state from models order by created_at, model_id")
            .fetch_all(conn)
            .await
            .map_err(failed("list models"))?;
    rows.into_iter().map(ModelRow::read).collect()
}

/// A model's manifest, canonical bytes.
///
/// # Errors
/// The database.
pub async fn manifest(conn: &mut Connection, id: ModelId) -> StoreResult<Option<Vec<u8>>> {
    sqlx::query_scalar("select manifest from models where model_id = $1")
        .bind(id.as_bytes().as_slice())
        .fetch_optional(conn)
        .await
        .map_err(failed("read a manifest"))
}

/// The files that a model still waits for, in its order. A file of another length than the manifest gives is not the
/// one that it means: no opening of its tensor would verify. Nor is one that holds a value which no weight of that type
/// may hold: honest parties refuse to run it, and nobody would check a claim.
///
/// # Errors
/// The database.
pub async fn missing_files(conn: &mut Connection, id: ModelId) -> StoreResult<Vec<TensorCommitment>> {
    let rows: Vec<Vec<u8>> = sqlx::query_scalar(
        "select m.file_hash from model_files m
                left join files f on f.file_hash = m.file_hash and f.file_bytes = coalesce(m.file_bytes, f.file_bytes)
                    and (m.type_bit is null or f.type_bits & m.type_bit <> 0)
            where m.model_id = $1 and f.file_hash is null
            group by m.file_hash order by min(m.file_index)",
    )
    .bind(id.as_bytes().as_slice())
    .fetch_all(conn)
    .await
    .map_err(failed("list a model's missing files"))?;
    rows.iter().map(|hash| bytes("a file's hash", hash)).collect()
}

/// The most bytes that some model expects of a file of this hash, `unstated` where its manifest gives no length; none
/// if no model needs it. The most: a manifest that lies about the length must not keep the file from others.
///
/// # Errors
/// The database.
pub async fn needed(
    conn: &mut Connection,
    hash: TensorCommitment,
    unstated: u64,
) -> StoreResult<Option<u64>> {
    let most: Option<i64> =
        sqlx::query_scalar("select max(coalesce(file_bytes, $2)) from model_files where file_hash = $1")
            .bind(hash.as_bytes().as_slice())
            .bind(i64::try_from(unstated).unwrap_or(i64::MAX))
            .fetch_one(conn)
            .await
            .map_err(failed("look up a file"))?;
    most.map(|bytes| count("a file's length", bytes)).transpose()
}

/// Models that need a file of this hash, as whatever.
///
/// # Errors
/// The database.
pub async fn needing(conn: &mut Connection, hash: TensorCommitment, limit: i64) -> StoreResult<Vec<ModelId>> {
    let rows: Vec<Vec<u8>> = sqlx::query_scalar(
        "select distinct model_id from model_files where file_hash = $1 order by model_id limit $2",
    )
    .bind(hash.as_bytes().as_slice())
    .bind(limit)
    .fetch_all(conn)
    .await
    .map_err(failed("look up the models of a file"))?;
    rows.iter().map(|id| bytes("a model id", id)).collect()
}

/// Whether a file is stored.
///
/// # Errors
/// The database.
pub async fn is_stored(conn: &mut Connection, hash: TensorCommitment) -> StoreResult<bool> {
    sqlx::query_scalar("select exists (select 1 from files where file_hash = $1)")
        .bind(hash.as_bytes().as_slice())
        .fetch_one(conn)
        .await
        .map_err(failed("look up a file"))
}

/// Records a file as stored, and opens every model for which it was the last.
///
/// # Errors
/// The database.
pub async fn record_file(
    conn: &mut Connection,
    file: &ReceivedFile,
    at: ServiceTime,
) -> StoreResult<Vec<ModelId>> {
    // Two uploads that end at once would each miss the other's file: whoever comes second waits here.
    sqlx::query(
        "select 1 from models where model_id in (select model_id from model_files where file_hash = $1)
            order by model_id for no key update",
    )
    .bind(file.hash.as_bytes().as_slice())
    .execute(&mut *conn)
    .await
    .map_err(failed("lock the models of a file"))?;
    sqlx::query(
        "insert into files (file_hash, file_bytes, type_bits, stored_ms) values ($1, $2, $3, $4)
            on conflict do nothing",
    )
    .bind(file.hash.as_bytes().as_slice())
    .bind(i64::try_from(file.bytes).unwrap_or(i64::MAX))
    .bind(i16::from(file.types))
    .bind(at.0)
    .execute(&mut *conn)
    .await
    .map_err(failed("record a file"))?;
    open_complete(conn, file.hash).await
}

/// Opens the models that need this file and miss none.
///
/// # Errors
/// The database.
pub async fn open_complete(conn: &mut Connection, hash: TensorCommitment) -> StoreResult<Vec<ModelId>> {
    let rows: Vec<Vec<u8>> = sqlx::query_scalar(
        "update models set state = 'serving'
            where state = 'incomplete'
                and model_id in (select model_id from model_files where file_hash = $1)
                and not exists (
                    select 1 from model_files m
                            left join files f
                                on f.file_hash = m.file_hash and f.file_bytes = coalesce(m.file_bytes, f.file_bytes)
                                    and (m.type_bit is null or f.type_bits & m.type_bit <> 0)
                        where m.model_id = models.model_id and f.file_hash is null
                )
            returning model_id",
    )
    .bind(hash.as_bytes().as_slice())
    .fetch_all(conn)
    .await
    .map_err(failed("open complete models"))?;
    rows.iter().map(|id| bytes("a model id", id)).collect()
}

/// Takes models out of service for good.
///
/// # Errors
/// The database.
pub async fn withdraw(conn: &mut Connection, ids: &[ModelId]) -> StoreResult<()> {
    let ids: Vec<Vec<u8>> = ids.iter().map(|id| id.as_bytes().to_vec()).collect();
    sqlx::query("update models set state = 'voided' where model_id = any($1)")
        .bind(ids)
        .execute(conn)
        .await
        .map_err(failed("withdraw models"))?;
    Ok(())
}
