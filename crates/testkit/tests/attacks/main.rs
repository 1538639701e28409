//! What adversaries try against a running service: real PostgreSQL, real HTTP, a clock that the test moves. Each test is
//! one attack and names it; docs/ATTACKS.md says which attacks there are, and where the others are tested.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod binding;
mod clocks;
mod commitments;
mod determinism;
mod map;
mod money;
mod parties;
mod resources;
mod support;
mod verifiers;
