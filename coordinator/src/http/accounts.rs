//! Money: `/v1/deposits`, `/v1/withdrawals`, `/v1/accounts`.

use actix_web::HttpRequest;
use actix_web::web::{Data, Json};
use gainsay_api::accounts::{Accounts, AccountsQuery, Deposit, Withdraw};
use gainsay_api::signing::body_hash;
use gainsay_protocol::{Amount, OwnerId};

use super::auth::{self, Body, Operator, Submitter};
use super::error::ApiError;
use super::state::HttpState;
use super::{body, repeats, request, views};
use crate::app::{App, Provider};

/// Requests about money are small.
const MAX_BODY: usize = 4 << 10;

/// `POST /v1/deposits`, by the operator.
#[utoipa::path(
    post, path = "/v1/deposits", operation_id = "deposit", tag = "money",
    summary = "Money in, by the operator",
    params(("Idempotency-Key" = Option<String>, Header, description = "Names the request: sent again under the same key, it counts once")),
    request_body = Deposit,
    responses((status = 200, description = "The holder's accounts", body = Accounts)),
)]
pub(super) async fn deposit(
    request: HttpRequest,
    _: Operator,
    body: Body<MAX_BODY>,
    state: Data<HttpState>,
) -> Result<Json<Accounts>, ApiError> {
    let Deposit { to, amount } = body::json(&body.0)?;
    let key = repeats::key(&request, repeats::OPERATOR, &body.0)?;
    let case = move |app: App| async move { app.deposit_once(to, Amount(amount), key.as_ref()).await };
    state.call(case).await?;
    accounts_of(&state, to).await.map_err(ApiError::having_acted)
}

/// `POST /v1/withdrawals`, by whoever holds the balance: a submitter, or an owner who signs. The keys of workers and
/// challengers move no money.
#[utoipa::path(
    post, path = "/v1/withdrawals", operation_id = "withdraw", tag = "money",
    summary = "Money out, by its holder",
    params(("Idempotency-Key" = Option<String>, Header, description = "Names the request: sent again under the same key, it counts once")),
    request_body = Withdraw,
    responses((status = 200, description = "The holder's accounts", body = Accounts)),
)]
pub(super) async fn withdraw(
    request: HttpRequest,
    body: Body<MAX_BODY>,
    state: Data<HttpState>,
) -> Result<Json<Accounts>, ApiError> {
    let holder = holder(&request, &state, &body.0).await?;
    let Withdraw { amount } = body::json(&body.0)?;
    let key = repeats::key(&request, holder, &body.0)?;
    let case = move |app: App| async move { app.withdraw_once(holder, Amount(amount), key.as_ref()).await };
    state.call(case).await?;
    accounts_of(&state, holder).await.map_err(ApiError::having_acted)
}

/// `GET /v1/accounts`: the asker's own, or all for the operator with `?all=true`.
#[utoipa::path(
    get, path = "/v1/accounts", operation_id = "list_accounts", tag = "money",
    summary = "The asker's balances",
    params(AccountsQuery),
    responses((status = 200, description = "All accounts for the operator, by `all`", body = Accounts)),
)]
pub(super) async fn list(request: HttpRequest, state: Data<HttpState>) -> Result<Json<Accounts>, ApiError> {
    let AccountsQuery { all } = request::query(&request)?;
    if all {
        Operator::of(&request, &state)?;
        let accounts = state.call(|app| async move { app.accounts().await }).await?;
        return Ok(Json(Accounts::new(accounts.iter().map(views::account).collect())));
    }
    let holder = holder(&request, &state, &[]).await?;
    accounts_of(&state, holder).await
}

/// Who asks, by signature or API key.
async fn holder(request: &HttpRequest, state: &HttpState, body: &[u8]) -> Result<OwnerId, ApiError> {
    if !auth::is_signed(request) {
        return Submitter::of(request, state).await.map(|submitter| submitter.0.id);
    }
    let signed = auth::signed_headers(request)?;
    auth::verify(request, state, &signed, body_hash(body))?;
    auth::admit::<Provider>(state, &signed).await.map(|owner| owner.id)
}

async fn accounts_of(state: &HttpState, owner: OwnerId) -> Result<Json<Accounts>, ApiError> {
    let accounts = state.call(move |app| async move { app.accounts_of(owner).await }).await?;
    Ok(Json(Accounts::new(accounts.iter().map(views::account).collect())))
}
