//! The coordinator: takes jobs from submitters, leases them to workers, records their claims, arbitrates
//! disputes, and pays when the window has closed.
//!
//! The main flow, by module:
//! - `telemetry` counts what this process does.
//! - `http` turns requests into calls; nothing else knows HTTP.
//! - [`app`] holds the use cases: load, decide (by `gainsay-protocol`), persist in one transaction, wake up.
//! - [`store`] is the only place that knows SQL.
//! - [`reconcile`] brings about what no request asks for: lost leases, spent clocks, finality.
//! - [`bus`] carries wake-ups, presence and rate limits between coordinators.
//! - [`blob`] keeps model files by hash.
//! - `templates` has chat templates rendered by processes of their own.
//!
//! It must not know: tensors, candle, the engine, or how a worker computes. It judges with
//! `gainsay-program` alone.

pub mod app;
mod arguments;
pub mod blob;
pub mod bus;
pub mod config;
mod dashboard;
mod http;
pub mod reconcile;
mod service;
pub mod store;
mod telemetry;
mod templates;
mod tokenizer;
mod webhooks;

pub use arguments::{AllSettings, Arguments};
pub use http::{HttpConfig, Network, ParseNetworkError};
pub use service::{Coordinator, Running, StartError, Timers};
pub use templates::{TemplateHost, serve_if_asked};
