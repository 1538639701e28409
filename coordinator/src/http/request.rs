//! Typed parts of a request's line: path and query.

use std::fmt::Display;
use std::str::FromStr;

use actix_web::HttpRequest;
use actix_web::error::QueryPayloadError;
use actix_web::web::Query;
use gainsay_api::ErrorCode;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The path's only parameter, as a typed id.
pub(super) fn id<T: FromStr<Err: Display>>(request: &HttpRequest, name: &str) -> Result<T, ApiError> {
    let text = request.match_info().iter().next().map_or("", |(_, value)| value);
    text.parse().map_err(|error: T::Err| {
        ApiError::new(ErrorCode::InvalidRequest, format!("The path names no {name}: {error}")).param("path")
    })
}

/// The query, as a typed value.
pub(super) fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, ApiError> {
    Query::from_query(request.query_string()).map(Query::into_inner).map_err(|error| {
        // The parser's words may quote what was sent, at any length.
        let reason: String = match &error {
            QueryPayloadError::Deserialize(reason) => reason.to_string().chars().take(200).collect(),
            _ => "it is not written as queries are".to_owned(),
        };
        ApiError::new(ErrorCode::InvalidRequest, format!("The query does not fit this route: {reason}"))
            .param("query")
    })
}
