//! Sizes that both ends enforce. A server refuses what is larger with `body_too_large`; a client stops reading there.

/// Largest report of an equivocation: two signed claims.
pub const MAX_EQUIVOCATION_BYTES: usize = 2 * MAX_CLAIM_BYTES;
/// Longest idempotency key, in characters.
pub const MAX_IDEMPOTENCY_KEY: usize = 255;
/// Bytes of the facts of an audit: every account that holds something, every undecided job.
pub const MAX_BOOKS_BYTES: usize = 1 << 30;
/// Largest JSON request body.
pub const MAX_JSON_BYTES: usize = 1 << 20;
/// Largest JSON answer: a claim's view holds its output and its job, in base64.
pub const MAX_ANSWER_BYTES: usize = 128 << 20;
/// Largest signed claim: the output dominates.
pub const MAX_CLAIM_BYTES: usize = gainsay_protocol::MAX_OUTPUT_BYTES + (1 << 20);
/// Largest signed move: a `prove` with its witness, whose paths add to the bytes that the referee reads.
pub const MAX_MOVE_BYTES: usize = 16 << 20;
/// Largest manifest.
pub const MAX_MANIFEST_BYTES: usize = 16 << 20;
/// Largest blob: one tensor of a model as executed.
pub const MAX_BLOB_BYTES: u64 = 16 << 30;
/// Largest evidence bundle.
pub const MAX_EVIDENCE_BYTES: usize = 64 << 20;
/// Largest server-sent event, all its lines together.
pub const MAX_EVENT_BYTES: usize = 1 << 20;
/// Models that one request for leases may name.
pub const MAX_LEASE_MODELS: usize = 256;
/// Leases that one request may say are held.
pub const MAX_HELD_LEASES: usize = 4_096;
/// Longest that a long poll may be asked to wait.
pub const MAX_WAIT_MS: u64 = 30_000;
/// Longest name of a party, in characters.
pub const MAX_NAME_CHARS: usize = 100;
/// Longest statement of a worker about its device, in characters.
pub const MAX_DEVICE_CHARS: usize = 200;
/// Most texts or token lists in one embedding request.
pub const MAX_INPUTS: usize = 2_048;
/// Most answers to one prompt.
pub const MAX_CHOICES: u32 = 16;
/// Most jobs that one request for generations may make.
pub const MAX_GENERATIONS: usize = 64;
/// Most messages of a conversation.
pub const MAX_MESSAGES: usize = 1_024;
/// Largest piece of a streamed answer: its place and its tokens.
pub const MAX_TOKENS_BYTES: usize = 64 << 10;
/// Most items that one page of a listing holds.
pub const MAX_PAGE: u32 = 1_000;
