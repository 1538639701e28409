//! Every CUDA kernel, run thread by thread on the host, against the scalar arithmetic.

mod each;
mod linear;
mod rows;
mod support;
