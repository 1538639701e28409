//! `/v1/blobs`: weights and tokenizers by hash, streamed both ways.

use actix_web::body::SizedStream;
use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, RANGE};
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::{Stream, StreamExt, stream};
use gainsay_api::ErrorCode;
use gainsay_api::schema;
use gainsay_commitment::TensorCommitment;

use super::error::ApiError;
use super::state::HttpState;
use super::{body, headers, models, request};
use crate::app::AppError;
use crate::blob::{Blob, BlobUpload, FileError};

/// `PUT /v1/blobs/{hash}`, by the operator or an owner. The signature covers the hash in the path, which the bytes
/// must have: so it is checked before the first byte is read.
#[utoipa::path(
    put, path = "/v1/blobs/{hash}", operation_id = "upload_blob", tag = "models",
    summary = "Upload a file that a registered model names",
    params(("hash" = schema::TensorCommitment, Path, description = "The hash of the file, which its bytes must have")),
    request_body(content = schema::Octets, content_type = "application/octet-stream", description = "The file"),
    responses((status = 204, description = "It is kept")),
)]
pub(super) async fn upload(
    request: HttpRequest,
    payload: web::Payload,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let hash: TensorCommitment = request::id(&request, "blob")?;
    models::publisher(&request, &state, hash.to_bytes()).await?;
    let begun = state.call(move |app| async move { Ok(app.begin_blob(hash).await) }).await?;
    let upload = match begun {
        Err(AppError::UnknownBlob(_)) => {
            let sentence = "No registered model names a file with this hash: register the model first";
            return Err(ApiError::new(ErrorCode::BlobNotWanted, sentence));
        }
        begun => begun?,
    };
    body::check_headers(&request, upload.limit())?;
    let upload = receive(&state, payload.into_inner(), upload).await?;
    state.call(move |app| async move { app.finish_blob(upload).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Writes what comes to disk. Dropped half way, the upload leaves nothing.
async fn receive(
    state: &HttpState,
    mut payload: Payload,
    mut upload: BlobUpload,
) -> Result<BlobUpload, ApiError> {
    loop {
        let next = tokio::time::timeout(state.config.body_time, payload.next()).await;
        let Some(part) = next.map_err(|_| body::too_slow())? else { return Ok(upload) };
        let part = part.map_err(|_| body::broken())?;
        if !upload.write(&part).await.map_err(ApiError::internal)? {
            return Err(body::too_large(upload.limit()));
        }
    }
}

/// `GET /v1/blobs/{hash}`; `Range: bytes=N-` goes on where a download broke off.
#[utoipa::path(
    get, path = "/v1/blobs/{hash}", operation_id = "download_blob", tag = "models",
    summary = "A file of a model",
    params(
        ("hash" = schema::TensorCommitment, Path, description = "The hash of the file"),
        ("range" = Option<String>, Header, description = "`bytes=N-`; other forms are ignored"),
    ),
    responses((status = 200, description = "The file", content_type = "application/octet-stream", body = schema::Octets),
        (status = 206, description = "The rest of the file, for `Range: bytes=N-`",
            content_type = "application/octet-stream", body = schema::Octets)),
)]
pub(super) async fn download(request: HttpRequest, state: Data<HttpState>) -> Result<HttpResponse, ApiError> {
    let hash: TensorCommitment = request::id(&request, "blob")?;
    let mut blob = state.call(move |app| async move { app.blob(hash).await }).await?;
    let whole = blob.len();
    let start = first_byte(&request, whole)?;
    let mut answer = HttpResponse::Ok();
    if let Some(start) = start {
        blob.seek(start).await.map_err(ApiError::internal)?;
        answer.status(StatusCode::PARTIAL_CONTENT);
        answer.insert_header((CONTENT_RANGE, format!("bytes {start}-{}/{whole}", whole.saturating_sub(1))));
    }
    let left = whole - start.unwrap_or(0);
    Ok(answer
        .content_type("application/octet-stream")
        .insert_header((CACHE_CONTROL, headers::IMMUTABLE))
        .insert_header((ACCEPT_RANGES, "bytes"))
        .body(SizedStream::new(left, parts(blob))))
}

/// Where the answer starts, if only the end of the blob is asked for. Ranges of any other form are not offered, and
/// ignored as HTTP allows.
fn first_byte(request: &HttpRequest, whole: u64) -> Result<Option<u64>, ApiError> {
    let value = request.headers().get(RANGE).and_then(|value| value.to_str().ok());
    let start = value.and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<u64>().ok());
    match start {
        Some(start) if start >= whole => {
            let sentence = format!("The blob has {whole} bytes, so none from {start} on");
            Err(ApiError::new(ErrorCode::InvalidRequest, sentence)
                .with_status(StatusCode::RANGE_NOT_SATISFIABLE))
        }
        start => Ok(start),
    }
}

fn parts(blob: Blob) -> impl Stream<Item = Result<Bytes, FileError>> {
    let next = |mut blob: Blob| async move {
        let part = blob.next().await.transpose()?;
        Some((part.map(Bytes::from), blob))
    };
    Box::pin(stream::unfold(blob, next))
}
