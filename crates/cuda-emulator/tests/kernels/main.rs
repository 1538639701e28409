//! Every CUDA kernel, run thread by thread on the host, against the scalar arithmetic.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attention;
mod blake3;
mod each;
mod linear;
mod rows;
mod sampling;
mod support;
