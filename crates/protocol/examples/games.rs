//! Placeholder main until the simulation is written.
fn main() {}
