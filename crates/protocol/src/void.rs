//! Withdrawal of a profile version: what an operator publishes when the arithmetic itself turned out to be faulty.

use gainsay_commitment::{Canonical, CoordinatorId, DecodeError, Decoder, Encoder};
use gainsay_program::ArithmeticProfile;

use crate::{
    codec::{get_arithmetic, get_time, put_arithmetic, put_time},
    time::ServiceTime,
};

/// The longest reason of a void, in bytes.
pub const MAX_REASON_BYTES: usize = 1_000;

/// The operator's public statement, signed by the coordinator: nothing that rests on this arithmetic is decided any
/// more, and every stake, bond and price that is not paid out yet goes back where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VoidStatement {
    /// Whose statement it is.
    pub coordinator: CoordinatorId,
    /// The profile version withdrawn.
    pub arithmetic: ArithmeticProfile,
    /// Why, for people. At most [`MAX_REASON_BYTES`].
    pub reason: String,
    /// When.
    pub time: ServiceTime,
}

impl Canonical for VoidStatement {
    const CONTEXT: &'static str = "gainsay v1 void";

    fn encode_fields(&self, e: &mut Encoder) {
        e.hash(&self.coordinator);
        put_arithmetic(e, self.arithmetic);
        e.str(&self.reason);
        put_time(e, self.time);
    }

    fn decode_fields(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            coordinator: d.hash()?,
            arithmetic: get_arithmetic(d)?,
            reason: d.str(MAX_REASON_BYTES)?,
            time: get_time(d)?,
        })
    }
}
