//! The OpenAPI document, made from the handlers and the wire types. `docs/openapi.json` is its snapshot.
//!
//! A handler's attribute says what it takes and answers; [`rules`] says who may ask and which refusals follow from
//! that, with the statuses that [`super::error`] gives them.

mod rules;

use std::sync::OnceLock;

use rules::Rules;
use utoipa::OpenApi;

use super::{
    accounts, audit, blobs, claims, disputes, docs, embeddings, events, generation, info, jobs, leases,
    metrics, models, overview, parties, voids,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Gainsay", description = include_str!("description.md"), license(name = "Apache-2.0", identifier = "Apache-2.0")),
    paths(
        embeddings::embed, generation::chat, generation::complete,
        jobs::submit, jobs::list, jobs::read, jobs::cancel, jobs::receipt,
        parties::register_submitter, accounts::deposit, accounts::withdraw, accounts::list,
        parties::register_owner, parties::register_worker, parties::register_challenger,
        models::list, models::read, models::register, blobs::download, blobs::upload,
        leases::lease, leases::heartbeat, leases::give_back, leases::tokens,
        claims::post, claims::report, claims::list, claims::read,
        disputes::open, disputes::play, disputes::list, disputes::read, disputes::evidence,
        disputes::resume, voids::void, voids::list, audit::books, audit::transactions,
        events::stream, overview::overview,
        info::info, info::live, info::ready, metrics::metrics, docs::document, overview::page, docs::page, docs::file,
    ),
    components(schemas(
        gainsay_api::events::Event, gainsay_api::jobs::WaitFor, gainsay_api::generation::ChatChunk,
        gainsay_api::webhooks::Notice,
    )),
    tags(
        (name = "embeddings", description = "The OpenAI route: the stock client works with `base_url` set to `/v1` here"),
        (name = "generation", description = "OpenAI's routes for text: whole answers, or answers as they come"),
        (name = "jobs", description = "The same work without waiting, and what became of it"),
        (name = "parties", description = "Who takes part"),
        (name = "money", description = "Balances, in micro-credits"),
        (name = "models", description = "Manifests by id, files by hash"),
        (name = "work", description = "Leases and claims: what workers do"),
        (name = "disputes", description = "Moves, verdicts, evidence"),
        (name = "events", description = "What happens, as it happens"),
        (name = "service", description = "The coordinator itself"),
        (name = "pages", description = "For people"),
    ),
    modifiers(&Rules),
)]
struct Document;

/// The document as JSON, indented: the same bytes at `GET /v1/openapi.json` and in the snapshot.
pub(super) fn json() -> &'static str {
    static JSON: OnceLock<String> = OnceLock::new();
    JSON.get_or_init(|| {
        let json = Document::openapi().to_pretty_json();
        let json = json.expect("a document of strings, numbers and lists is JSON") + "\n";
        // utoipa puts a hyphen into the unsigned formats, which are registered without.
        json.replace("\"format\": \"u-int", "\"format\": \"uint")
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn documented() -> BTreeSet<(String, String)> {
        let mut document = Document::openapi();
        let operations = document.paths.paths.iter_mut().flat_map(|(path, item)| {
            rules::operations(item).map(|(method, _)| (method.to_string(), path.clone())).collect::<Vec<_>>()
        });
        operations.collect()
    }

    /// A route that nobody describes, or a description of one that is gone.
    #[test]
    fn what_is_served_is_what_is_documented() {
        let routes = super::super::routes();
        let served: BTreeSet<(String, String)> =
            routes.served().iter().map(|(method, path)| (method.to_string(), (*path).to_owned())).collect();
        assert_eq!(routes.served().len(), served.len(), "a route is served twice");
        assert_eq!(served, documented());
    }

    /// Clients are made from this file: it changes only when somebody means it.
    #[test]
    fn the_document_is_its_snapshot() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        if std::env::var_os("GAINSAY_UPDATE_SNAPSHOT").is_some() {
            std::fs::write(&path, json()).unwrap();
        }
        let snapshot = std::fs::read_to_string(&path).unwrap();
        let differs = snapshot.lines().zip(json().lines()).position(|(was, is)| was != is);
        assert!(
            snapshot == json(),
            "docs/openapi.json is not what the code says, from line {differs:?} on; if the change is meant: cargo xtask openapi"
        );
    }

    /// A reference without its target breaks every generator of clients.
    #[test]
    fn every_reference_has_its_target() {
        let document: serde_json::Value = serde_json::from_str(json()).unwrap();
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            if let Some(reference) = value.get("$ref").and_then(|value| value.as_str()) {
                let target = reference.strip_prefix('#').expect("references stay in the document");
                assert!(document.pointer(target).is_some(), "{reference} leads nowhere");
            }
            match value {
                serde_json::Value::Object(members) => open.extend(members.values()),
                serde_json::Value::Array(items) => open.extend(items),
                _ => {}
            }
        }
    }
}
