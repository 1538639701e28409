//! The law, tested from outside: golden vectors against a second implementation, and the properties that a wrong
//! order, a wrong rounding or a wrong edge would break.

mod cases;
mod functions;
mod int8;
mod numbers;
mod reference;
mod rows;
mod sampling;
mod scalar;
mod vectors;
