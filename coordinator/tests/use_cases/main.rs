//! Use cases against a real PostgreSQL, one fresh database a test, service time moved by hand.

#![expect(clippy::unwrap_used, reason = "helpers outside of tests fail the test that calls them")]

mod audit;
mod claims;
mod clock;
mod disputes;
mod events;
mod fruitless;
mod jobs;
mod ledger;
mod models;
mod money;
mod parties;
mod schema;
mod support;
mod voids;
