//! What workers and challengers have in common: a place at the table of an engine-backed party.
//!
//! - [`identity`]: key files and registration;
//! - [`models`]: manifests and weights by hash, loaded into the engine once;
//! - [`dossier`]: a claim with its job and model, everything checked that can be without running it;
//! - [`trace`]: the party's own run of a job, re-computed on demand, as the strategies of `gainsay-protocol` read it;
//! - [`player`]: plays the moves that those strategies offer, until it is the other side's turn;
//! - [`machine`]: the device that models run on, tried; how much memory there is, and what of it is for what;
//! - [`settings`], [`program`]: what every party can be told, and the command line around it;
//! - [`news`]: wakes a party when something that concerns it happens;
//! - [`patience`]: waits for a coordinator that is away.
//!
//! What is special to one role (leases and claims; sampling and opening) lives in that role's crate. This crate decides
//! nothing about disputes, and keeps no state that a restart could lose.

pub mod dossier;
mod error;
pub mod identity;
pub mod machine;
pub mod models;
pub mod news;
pub mod patience;
pub mod player;
pub mod program;
pub mod settings;
pub mod trace;

pub use error::ParticipantError;
