//! Every answer that these tests provoke must be one that the API's document announces.

use std::sync::LazyLock;

use serde_json::Value;

use crate::raw::Answer;

/// What the service serves at `/v1/openapi.json`; a test of its own holds the two equal.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../docs/openapi.json")).expect("the document is JSON")
});

/// Fails where an operation answers a status, a media type or an error code that it does not announce.
#[track_caller]
pub(crate) fn announces(method: &str, target: &str, answer: &Answer) {
    let path = target.split('?').next().unwrap_or(target);
    let Some(item) = item_of(path) else {
        assert!([400, 404].contains(&answer.status), "{method} {path}: {}", answer.text());
        return;
    };
    let Some(operation) = item.get(method.to_ascii_lowercase()) else {
        assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text());
        assert!(answer.header("allow").is_some(), "{method} {path} does not say which methods there are");
        return;
    };
    let announced = operation["responses"].get(answer.status.to_string());
    let response = announced.map(resolved).unwrap_or_else(|| {
        panic!(
            "{method} {path} answers {}, which openapi/rules.rs does not say: {}",
            answer.status,
            answer.text()
        )
    });
    let Some(content) = response["content"].as_object() else { return };
    let kind = answer.header("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    assert!(content.contains_key(kind), "{method} {path} answers {} with {kind:?}", answer.status);
    if answer.status >= 400 {
        let codes = &content[kind]["schema"]["allOf"][1]["properties"]["error"]["properties"]["code"]["enum"];
        let code = answer.json()["error"]["code"].clone();
        let codes = codes.as_array().expect("a refusal lists its codes");
        assert!(codes.contains(&code), "{method} {path} answers {code}, which openapi/rules.rs does not say");
    }
}

/// The path item whose pattern the path fits; one without parameters before one with.
fn item_of(path: &str) -> Option<&'static Value> {
    let paths = DOCUMENT["paths"].as_object().expect("the document has paths");
    let fits = |pattern: &str| {
        let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
        let same =
            |(part, given): (&&str, &&str)| part == given || (part.starts_with('{') && !given.is_empty());
        pattern.len() == path.len() && pattern.iter().zip(&path).all(same)
    };
    paths.get(path).or_else(|| paths.iter().find(|(pattern, _)| fits(pattern)).map(|(_, item)| item))
}

fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        Some(target) => DOCUMENT.pointer(target).expect("references have their targets"),
        None => value,
    }
}
