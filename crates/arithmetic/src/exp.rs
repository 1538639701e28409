//! The exponential function.

/// e^x
#[must_use]
pub fn exp(x: f32) -> f32 {
    todo!("{x}")
}
