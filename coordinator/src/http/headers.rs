//! Names of the headers that the service adds, and cache rules that several routes share.

/// Names the request in the service's log.
pub(super) const REQUEST_ID: &str = "x-request-id";
/// Tells stock OpenAI clients whether to repeat a failed request.
pub(super) const SHOULD_RETRY: &str = "x-should-retry";
/// The jobs that a request made.
pub(super) const JOB: &str = "gainsay-job";
/// The claims that an answer rests on.
pub(super) const CLAIM: &str = "gainsay-claim";
/// How far the answer may be relied upon.
pub(super) const FINALITY: &str = "gainsay-finality";
/// For what is named by its hash.
pub(super) const IMMUTABLE: &str = "public, max-age=31536000, immutable";
