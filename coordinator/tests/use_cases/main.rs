//! Use cases against a real PostgreSQL, one fresh database a test, service time moved by hand.

mod claims;
mod clock;
mod disputes;
mod events;
mod jobs;
mod ledger;
mod models;
mod parties;
mod schema;
mod support;
