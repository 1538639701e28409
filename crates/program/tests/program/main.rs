//! What the crate promises, from outside.

mod checkpoint;
mod common;
mod elements;
mod encoding;
mod generation;
mod language;
mod lowering;
mod parity;
mod real_model;
mod validation;
mod weights;
mod witness_table;
