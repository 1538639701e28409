//! Processes killed in the middle of what they do: real ones, on a PostgreSQL that forces its commits to disk.
//!
//! Whoever is killed, and whenever: afterwards the books balance, right claims are final and paid once, false ones are
//! rejected and have cost their stake, no honest stake or bond is lost, and nothing waits for ever.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ambush;
mod books;
mod chaos;
mod draw;
mod process;
mod wire;
mod world;
