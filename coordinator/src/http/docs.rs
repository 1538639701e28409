//! The API's description: `GET /v1/openapi.json` for programs, `GET /docs` for people.
//!
//! The page is Swagger UI, which is part of this program: it loads nothing from elsewhere and has nothing checked
//! elsewhere.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::body::SizedStream;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use futures_util::{Stream, stream};
use gainsay_api::ErrorCode;

use super::error::ApiError;
use super::openapi;

/// Addresses are relative, so that the page also works behind a proxy that serves it below a prefix.
const PAGE: &str = include_str!("docs.html");
/// Draws the document into the page. Kept apart from it: the page's policy admits no inline script.
const START: &str = include_str!("docs.js");
/// What the page may do. Swagger UI sets styles on its elements and carries its icons as data.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// What a connection is given at a time.
const SLICE_BYTES: usize = 32 << 10;
/// The files change with the program alone.
const FILE_CACHE: &str = "public, max-age=3600";

/// `GET /v1/openapi.json`.
#[utoipa::path(
    get, path = "/v1/openapi.json", operation_id = "openapi", tag = "service",
    summary = "This document",
    responses((status = 200, description = "An OpenAPI 3.1 document", body = serde_json::Value)),
)]
pub(super) async fn document() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(in_slices(openapi::json().as_bytes()))
}

/// `GET /docs`.
#[utoipa::path(
    get, path = "/docs", operation_id = "docs", tag = "pages",
    summary = "This document as a page",
    responses((status = 200, description = "A page", content_type = "text/html", body = String)),
)]
pub(super) async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((CONTENT_SECURITY_POLICY, PAGE_POLICY))
        .body(PAGE)
}

/// `GET /docs/{file}`: what the page loads.
#[utoipa::path(
    get, path = "/docs/{file}", operation_id = "docs_file", tag = "pages",
    summary = "A script or style sheet of that page",
    params(("file" = String, Path, description = "Named by the page")),
    responses((status = 200, description = "The file", content(
        (String = "text/javascript"), (String = "text/css"),
    ))),
)]
pub(super) async fn file(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let answer = |kind: &str, body: &'static [u8]| {
        HttpResponse::Ok().content_type(kind).insert_header((CACHE_CONTROL, FILE_CACHE)).body(in_slices(body))
    };
    match request.match_info().query("file") {
        "start.js" => Ok(answer("text/javascript; charset=utf-8", START.as_bytes())),
        // Of all that Swagger UI brings, what the page names and nothing else.
        name @ "swagger-ui-bundle.js" => Ok(answer("text/javascript; charset=utf-8", vendored(name)?)),
        name @ "swagger-ui.css" => Ok(answer("text/css; charset=utf-8", vendored(name)?)),
        _ => Err(ApiError::new(ErrorCode::RouteNotFound, "The page has no file of this name")),
    }
}

/// A body that is copied for a connection piece by piece, as the connection takes it: one in a single piece is copied
/// whole, and readers that do not read would hold it as often as they connect.
fn in_slices(body: &'static [u8]) -> SizedStream<impl Stream<Item = Result<Bytes, Infallible>>> {
    let slices = body.chunks(SLICE_BYTES).map(|slice| Ok(Bytes::from_static(slice)));
    SizedStream::new(body.len() as u64, stream::iter(slices))
}

/// A file that comes with Swagger UI, unpacked once.
fn vendored(name: &str) -> Result<&'static [u8], ApiError> {
    static FILES: Mutex<BTreeMap<String, &'static [u8]>> = Mutex::new(BTreeMap::new());
    // Nothing panics while the lock is held, and a map is whole at any time.
    let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = files.get(name) {
        return Ok(file);
    }
    let config = Arc::new(utoipa_swagger_ui::Config::from("/v1/openapi.json"));
    let found = utoipa_swagger_ui::serve(name, config);
    let found = found.map_err(|error| ApiError::internal(error.to_string()))?;
    let file = found.ok_or_else(|| ApiError::internal("Swagger UI lacks a file"))?;
    let bytes: &'static [u8] = Box::leak(file.bytes.into_owned().into_boxed_slice());
    files.insert(name.to_owned(), bytes);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new version of Swagger UI that renames a file would leave an empty page.
    #[test]
    fn swagger_ui_holds_the_files_that_the_page_names() {
        for name in ["swagger-ui-bundle.js", "swagger-ui.css"] {
            assert!(PAGE.contains(&format!("\"docs/{name}\"")), "the page does not load {name}");
            assert!(vendored(name).unwrap().len() > 10_000, "{name}");
        }
        assert!(PAGE.contains("\"docs/start.js\""));
    }

    /// A page that loads a script or a font from elsewhere would tell others who looks at it.
    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for text in [PAGE, START] {
            assert!(!text.contains("//cdn") && !text.contains("http:") && !text.contains("https:"), "{text}");
        }
        assert!(START.contains("validatorUrl: null"), "Swagger UI would have the document checked elsewhere");
    }
}
