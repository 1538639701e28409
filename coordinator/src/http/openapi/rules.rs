//! Who may ask for each operation, and every refusal that it may answer.

use std::collections::BTreeMap;

use actix_web::http::{Method, StatusCode};
use gainsay_api::signing::{NONCE_HEADER, PARTY_HEADER, SIGNATURE_HEADER, TIME_HEADER};
use gainsay_api::{ErrorBody, ErrorCode, ErrorDetail};
use serde_json::Value;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, OpenApi, Ref, Response, ResponseBuilder};
use utoipa::{Modify, ToSchema};

use super::super::error::status;
use ErrorCode as C;

/// Who asks, and by that how.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asker {
    Submitter,
    Operator,
    /// A key that signs, registered as what the route says.
    Party,
    /// A key that signs and need not be registered.
    AnyKey,
}

/// What holds for one operation.
struct Rule {
    operation: &'static str,
    /// Any of these; none where anybody may ask.
    askers: &'static [Asker],
    /// What it refuses of its own. What follows from the kind of request is added: see [`refusals`].
    refuses: &'static [ErrorCode],
}

const fn rule(operation: &'static str, askers: &'static [Asker], refuses: &'static [ErrorCode]) -> Rule {
    Rule { operation, askers, refuses }
}

use Asker::{AnyKey, Operator, Party, Submitter};

/// What both routes of OpenAI's for text refuse.
#[rustfmt::skip]
const GENERATION: &[ErrorCode] = &[
    C::RateLimited, C::Overloaded, C::UnknownModel, C::ModelIncomplete, C::ProfileVoided, C::EmptyInput, C::InputTooLong,
    C::InvalidInput, C::UnsupportedParameter, C::PriceTooLow, C::InsufficientFunds, C::IdempotencyKeyReused,
    C::JobFailed, C::JobTimeout,
];

#[rustfmt::skip]
const RULES: &[Rule] = &[
    rule("embed", &[Submitter], &[
        C::RateLimited, C::UnknownModel, C::ModelIncomplete, C::ProfileVoided, C::EmptyInput, C::TooManyInputs, C::InputTooLong,
        C::InvalidInput, C::UnsupportedParameter, C::PriceTooLow, C::InsufficientFunds, C::IdempotencyKeyReused,
        C::JobFailed, C::JobTimeout,
    ]),
    rule("chat", &[Submitter], GENERATION),
    rule("complete", &[Submitter], GENERATION),
    rule("submit_job", &[Submitter], &[
        C::RateLimited, C::UnknownModel, C::ModelIncomplete, C::ProfileVoided, C::EmptyInput, C::TooManyInputs, C::InputTooLong,
        C::InvalidInput, C::UnsupportedParameter, C::PriceTooLow, C::InsufficientFunds, C::IdempotencyKeyReused,
    ]),
    rule("list_jobs", &[Submitter], &[]),
    rule("read_job", &[Submitter], &[C::UnknownJob]),
    rule("cancel_job", &[Submitter], &[C::UnknownJob, C::NotCancellable]),
    rule("read_receipt", &[Submitter], &[C::UnknownJob, C::JobPending]),
    rule("register_submitter", &[], &[C::RateLimited, C::InvalidName]),
    rule("register_owner", &[AnyKey], &[C::RateLimited, C::InvalidName, C::InvalidEncoding, C::AlreadyRegistered]),
    rule("register_worker", &[Party], &[C::InvalidName, C::InvalidEncoding, C::Forbidden, C::AlreadyRegistered]),
    rule("register_challenger", &[Party], &[C::InvalidName, C::InvalidEncoding, C::Forbidden, C::AlreadyRegistered]),
    rule("deposit", &[Operator], &[C::InvalidAmount, C::UnknownAccount, C::IdempotencyKeyReused]),
    rule("withdraw", &[Submitter, Party], &[C::InvalidAmount, C::InsufficientFunds, C::IdempotencyKeyReused]),
    rule("list_accounts", &[Submitter, Party, Operator], &[]),
    rule("list_models", &[], &[]),
    rule("read_model", &[], &[C::UnknownModel]),
    rule("register_model", &[Operator, Party], &[C::InvalidManifest, C::ModelIdMismatch, C::ProfileVoided]),
    rule("download_blob", &[], &[C::UnknownBlob]),
    rule("upload_blob", &[Operator, Party], &[C::BlobNotWanted, C::BlobHashMismatch]),
    rule("lease", &[Party], &[C::RateLimited, C::TooMuchToDefend, C::Suspended, C::InsufficientFunds]),
    rule("stream_tokens", &[Party], &[C::InvalidEncoding, C::UnknownLease, C::StaleLease, C::StreamRefused]),
    rule("return_lease", &[Party], &[C::UnknownLease, C::StaleLease]),
    rule("heartbeat", &[Party], &[C::UnknownLease, C::StaleLease]),
    rule("post_claim", &[Party], &[
        C::InvalidEncoding, C::Forbidden, C::UnknownLease, C::StaleLease, C::ClaimRefused, C::Equivocation,
    ]),
    rule("report_equivocation", &[Party], &[
        C::InvalidEncoding, C::ClaimRefused, C::NoEquivocation, C::UnknownLease, C::LeaseHeld, C::Equivocation,
    ]),
    rule("list_claims", &[], &[]),
    rule("read_claim", &[], &[C::UnknownClaim]),
    rule("open_dispute", &[Party], &[
        C::RateLimited, C::InvalidEncoding, C::Forbidden, C::UnknownClaim, C::WindowClosed, C::DuplicateDispute,
        C::InsufficientFunds, C::IllegalMove, C::MoveRefused,
    ]),
    rule("post_move", &[Party], &[
        C::InvalidEncoding, C::Forbidden, C::UnknownDispute, C::DisputeOver, C::WrongTurn, C::StaleMove, C::ClockExpired,
        C::WindowClosed, C::IllegalMove, C::MoveRefused, C::RefereeFailed,
    ]),
    rule("list_disputes", &[], &[]),
    rule("read_dispute", &[], &[C::UnknownDispute]),
    rule("read_evidence", &[], &[C::UnknownDispute, C::DisputeUndecided]),
    rule("resume_dispute", &[Operator], &[C::UnknownDispute, C::DisputeOver, C::DisputeNotPaused]),
    rule("void_profile", &[Operator], &[]),
    rule("list_voids", &[], &[]),
    rule("read_books", &[Operator], &[]),
    rule("list_transactions", &[Operator], &[]),
    rule("events", &[], &[C::Overloaded]),
    rule("overview", &[], &[]),
    rule("info", &[], &[]),
    rule("ready", &[], &[]),
    rule("docs_file", &[], &[C::RouteNotFound]),
];

/// Operations that answer always: they need nothing of the request, and go without the database where it is away.
const FIXED: [&str; 6] = ["live", "metrics", "openapi", "dashboard", "docs", "docs_file"];

/// Completes the document.
pub(super) struct Rules;

impl Modify for Rules {
    fn modify(&self, document: &mut OpenApi) {
        let mut applied = 0;
        let mut shared = BTreeMap::new();
        for (path, item) in &mut document.paths.paths {
            for (method, operation) in operations(item) {
                let id = operation.operation_id.clone().unwrap_or_default();
                let rule = RULES.iter().find(|rule| rule.operation == id);
                applied += usize::from(rule.is_some());
                assert!(rule.is_some() || FIXED.contains(&id.as_str()), "no rule for {method} {path} ({id})");
                complete(&method, operation, rule, &id, &mut shared);
            }
        }
        assert_eq!(applied, RULES.len(), "a rule names no operation");
        let components = document.components.get_or_insert_default();
        components
            .schemas
            .insert(ErrorBody::name().into_owned(), <ErrorBody as utoipa::PartialSchema>::schema());
        let mut more = Vec::new();
        <ErrorBody as ToSchema>::schemas(&mut more);
        components.schemas.extend(more);
        components.responses.extend(shared.into_iter().map(|(name, response)| (name, response.into())));
        components.security_schemes.extend(schemes().map(|(name, scheme)| (name, scheme.into())));
    }
}

/// The operations of a path, with their methods.
pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all = [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
}

/// Adds what the rule says. Refusals go to `shared` by name: most operations have most of theirs in common.
fn complete(
    method: &Method,
    operation: &mut Operation,
    rule: Option<&Rule>,
    id: &str,
    shared: &mut BTreeMap<String, Response>,
) {
    let askers = rule.map_or(&[][..], |rule| rule.askers);
    operation.security = Some(if askers.is_empty() {
        // Written out: nothing is needed, rather than nothing is said.
        vec![SecurityRequirement::default()]
    } else {
        askers.iter().map(|asker| requirement(*asker)).collect()
    });
    for (status, codes) in refusals(method, operation, rule, id) {
        let words: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
        let name = format!("{}_{}", status.as_str(), words.join("_or_"));
        let reference = Ref::from_response_name(&name);
        operation.responses.responses.insert(status.as_str().to_owned(), reference.into());
        shared.entry(name).or_insert_with(|| refusal(status, &codes));
    }
}

/// Every refusal of an operation by status: its own, and those of all requests of its kind.
fn refusals(
    method: &Method,
    operation: &Operation,
    rule: Option<&Rule>,
    id: &str,
) -> BTreeMap<StatusCode, Vec<ErrorCode>> {
    let mut found = BTreeMap::<StatusCode, Vec<ErrorCode>>::new();
    let mut add = |status: StatusCode, code: ErrorCode| {
        let codes = found.entry(status).or_default();
        if !codes.contains(&code) {
            codes.push(code);
        }
    };
    let askers = rule.map_or(&[][..], |rule| rule.askers);
    let has_body = method == Method::POST || method == Method::PUT;
    let mut codes = rule.map_or_else(Vec::new, |rule| rule.refuses.to_vec());
    if has_body {
        codes.extend([C::InvalidRequest, C::BodyTooLarge, C::UnsupportedMediaType, C::Overloaded]);
        add(StatusCode::REQUEST_TIMEOUT, C::InvalidRequest);
    }
    if id == "download_blob" {
        add(StatusCode::RANGE_NOT_SATISFIABLE, C::InvalidRequest);
    }
    for asker in askers {
        codes.push(C::MissingCredentials);
        match asker {
            Submitter => codes.push(C::InvalidApiKey),
            Operator => codes.push(C::InvalidOperatorToken),
            Party | AnyKey => codes.extend([C::InvalidSignature, C::StaleRequest, C::ReplayedRequest]),
        }
        if *asker == Party {
            codes.push(C::UnknownParty);
        }
    }
    if !FIXED.contains(&id) {
        if operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty()) {
            codes.push(C::InvalidRequest);
        }
        codes.extend([C::Internal, C::Unavailable]);
    }
    for code in codes {
        add(status(code), code);
    }
    found
}

/// A refusal with one of these codes.
fn refusal(status: StatusCode, codes: &[ErrorCode]) -> Response {
    let lines: Vec<String> = codes.iter().map(|code| format!("- `{code}`: {}", code.meaning())).collect();
    let code = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(codes.iter().map(|code| code.as_str())));
    let detail = ObjectBuilder::new().property("code", code);
    let body = AllOfBuilder::new()
        .item(Ref::from_schema_name(ErrorBody::name()))
        .item(ObjectBuilder::new().property("error", detail));
    let content =
        ContentBuilder::new().schema(Some(Schema::AllOf(body.build()))).example(codes.first().map(example));
    let mut response =
        ResponseBuilder::new().description(lines.join("\n")).content("application/json", content.build());
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
        let header = HeaderBuilder::new().schema(Some(Schema::Object(seconds.build())));
        response = response.header(
            "retry-after",
            header.description(Some("Seconds to wait, where the service can tell")).build(),
        );
    }
    response.build()
}

/// A refusal as it travels.
fn example(code: &ErrorCode) -> Value {
    let error = ErrorDetail::new(*code, code.meaning());
    let request_id = "0192f1a0-7c3e-7b4a-8d21-0123456789ab".to_owned();
    serde_json::to_value(ErrorBody { error, request_id }).expect("an error body is JSON")
}

const SUBMITTER: &str = "submitter";
const OPERATOR: &str = "operator";

fn requirement(asker: Asker) -> SecurityRequirement {
    let nothing = Vec::<String>::new;
    match asker {
        Submitter => SecurityRequirement::new(SUBMITTER, nothing()),
        Operator => SecurityRequirement::new(OPERATOR, nothing()),
        // All four headers together.
        Party | AnyKey => SecurityRequirement::new(PARTY_HEADER, nothing())
            .add(TIME_HEADER, nothing())
            .add(NONCE_HEADER, nothing())
            .add(SIGNATURE_HEADER, nothing()),
    }
}

fn schemes() -> [(String, SecurityScheme); 6] {
    let bearer = |description: &str| {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description));
        SecurityScheme::Http(scheme.build())
    };
    let header = |name: &str, holds: &str| {
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(name, holds)))
    };
    [
        (SUBMITTER.to_owned(), bearer("The API key that `POST /v1/submitters` answered")),
        (OPERATOR.to_owned(), bearer("The token that the service was started with")),
        (PARTY_HEADER.to_owned(), header(PARTY_HEADER, "The public key (Ed25519) that signs, hex")),
        (
            TIME_HEADER.to_owned(),
            header(TIME_HEADER, "Service time of signing, ms; at most 60 s from the service's"),
        ),
        (NONCE_HEADER.to_owned(), header(NONCE_HEADER, "16 random bytes, hex; each serves once")),
        (SIGNATURE_HEADER.to_owned(), header(SIGNATURE_HEADER, "The signature, 64 bytes, hex")),
    ]
}
