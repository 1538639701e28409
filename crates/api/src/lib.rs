//! What travels between a Gainsay coordinator and its clients: the wire types of every route, the stable error
//! codes, and the signing of requests.
//!
//! Requests and answers are JSON, except for objects that a party signs (claims, moves), manifests and weights, which
//! travel as the very bytes that were signed or hashed (`application/octet-stream`). The modules follow the routes;
//! [`routes`] names them all. Server and clients use the same types, and the functions of [`signing`] on both ends.
//!
//! With the feature `client` the crate also holds [`client::Client`], which worker, challenger, command line and tests
//! share, and what those programs need around it: key files, a cache of blobs by hash, a resuming reader of events.
//!
//! This crate knows nothing of storage or of tensors, and decides nothing about disputes: those types are
//! `gainsay-protocol`'s, carried here as bytes.

pub mod accounts;
pub mod audit;
pub mod claims;
#[cfg(feature = "client")]
pub mod client;
pub mod disputes;
pub mod embeddings;
pub mod error;
pub mod events;
pub mod generation;
pub mod info;
pub mod jobs;
pub mod leases;
pub mod limits;
pub mod models;
pub mod parties;
pub mod routes;
#[cfg(feature = "openapi")]
pub mod schema;
pub mod signing;
pub mod voids;
pub mod webhooks;
pub mod wire;

pub use error::{ErrorBody, ErrorCode, ErrorDetail};
