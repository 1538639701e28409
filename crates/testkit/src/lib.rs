//! What tests of the whole service stand on: throw-away databases, a Redis that can be
//! killed, a coordinator of one's own whose clock the test
//! moves, small models published to it, parties with money, and the conformance suite of the bus.
//!
//! Nothing here waits for time to pass: tests move the clock by hand and wait on conditions. For tests alone; no
//! program depends on it.

mod books;
pub mod bus_conformance;
mod coordinator;
mod database;
mod fingerprint;
mod generator;
mod party;
mod redis;
mod run;
pub mod simulator;
mod until;
pub mod zoo;

pub use books::{assert_books, audit_books};
pub use coordinator::{OPERATOR_TOKEN, TestCoordinator, TestCoordinatorBuilder};
pub use database::{Database, SERVER_VARIABLE};
pub use fingerprint::Fingerprint;
pub use generator::TestGenerator;
pub use party::{TestOwner, TestSubmitter, ToyModel};
pub use redis::PrivateRedis;
pub use run::{ToyRun, input_of, job_of};
pub use until::until;
