//! `/v1/audit`: what the operator, or whoever has the operator's token, needs to derive every balance again.

use actix_web::HttpRequest;
use actix_web::web::{Data, Json};
use gainsay_api::ErrorCode;
use gainsay_api::audit::{Books, LedgerPage, LedgerQuery, LedgerTransaction};

use super::auth::Operator;
use super::error::ApiError;
use super::request;
use super::state::HttpState;
use crate::store::audit::Snapshot;

/// Transactions of a page where the asker does not say, and at most.
const PAGE: u32 = 500;

/// `GET /v1/audit/books`: the facts behind the balances, as of now.
#[utoipa::path(
    get, path = "/v1/audit/books", operation_id = "read_books", tag = "money",
    summary = "The facts behind the balances, as of one moment",
    responses((status = 200, description = "The facts, and the name of the moment", body = Books)),
)]
pub(super) async fn books(_: Operator, state: Data<HttpState>) -> Result<Json<Books>, ApiError> {
    let books = state.call(|app| async move { app.books().await }).await?;
    Ok(Json(Books::new(books.at.0, books.snapshot.to_string(), &books.facts)))
}

/// `GET /v1/audit/transactions`: a page of the log, as of the moment of the books.
#[utoipa::path(
    get, path = "/v1/audit/transactions", operation_id = "list_transactions", tag = "money",
    summary = "A page of the ledger's log, as of that moment",
    params(LedgerQuery),
    responses((status = 200, description = "The page, by id", body = LedgerPage)),
)]
pub(super) async fn transactions(
    request: HttpRequest,
    _: Operator,
    state: Data<HttpState>,
) -> Result<Json<LedgerPage>, ApiError> {
    let LedgerQuery { snapshot, after, limit } = request::query(&request)?;
    let snapshot: Snapshot = snapshot.parse().map_err(|error: crate::store::audit::InvalidSnapshot| {
        ApiError::new(ErrorCode::InvalidRequest, super::error::sentence(&error.to_string())).param("snapshot")
    })?;
    let limit = limit.unwrap_or(PAGE).clamp(1, PAGE);
    let after = after.map(|id| id.0);
    // One more than the page shows whether more follow.
    let case = move |app: crate::app::App| async move { app.ledger_log(&snapshot, after, limit + 1).await };
    let mut found = state.call(case).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    Ok(Json(LedgerPage { transactions: found.iter().map(LedgerTransaction::new).collect(), more }))
}
