//! Adversaries of a real coordinator: honest code with one divergence each.
//!
//! A [`Stage`] is a coordinator with a model and a submitter, over HTTP and PostgreSQL. An [`Answer`] is what a worker
//! claims and the run that it defends the claim with; `answers` makes false ones. `players` plays disputes, both sides
//! by the strategies that the binaries play, from whatever run they are given.

mod answers;
mod players;
mod stage;

pub use answers::Answer;
pub use players::{Claimed, Side};
pub use stage::{FUNDS, Stage};
