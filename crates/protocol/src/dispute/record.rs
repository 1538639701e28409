//! The append-only log of a dispute: what the coordinator countersigns.

use gainsay_commitment::{Canonical, DecodeError, Decoder, DisputeId, Encoder, MoveHash};

use super::Closing;
use crate::{
    codec::{get_time, put_time},
    moves::SignedMove,
    time::ServiceTime,
};

/// The terms under which a dispute is opened. Recorded with it, and fixed from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DisputeTerms {
    /// The first moment at which the claim can no longer be disputed.
    pub window_closes: ServiceTime,
    /// The worker's time for all its turns.
    pub worker_allowance_ms: u64,
    /// The challenger's time for all its turns.
    pub challenger_allowance_ms: u64,
}

/// Something that happened to a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// It was opened.
    Opened {
        /// Digest of the opening move.
        digest: [u8; 32],
        /// The terms.
        terms: DisputeTerms,
    },
    /// A party moved.
    Moved {
        /// Digest of the move.
        digest: [u8; 32],
    },
    /// The clocks were stopped.
    Paused,
    /// The clocks run again.
    Resumed,
    /// The party on turn had spent its allowance.
    Expired,
    /// Something outside the dispute ended it.
    Closed(Closing),
}

/// One entry of a dispute's log. The coordinator signs it; the next record and the next choice name its hash, so
/// a challenger that moves on acknowledges every time recorded before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    /// The dispute.
    pub dispute: DisputeId,
    /// Number of the record, from 0.
    pub seq: u64,
    /// Hash of the record before; of the first record, the dispute's id.
    pub previous: MoveHash,
    /// When it happened.
    pub time: ServiceTime,
    /// What happened.
    pub event: Event,
}

/// A record together with the move that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What the coordinator signs.
    pub record: Record,
    /// The move, where the event is one. A reveal that was given before is recorded anew in each dispute that
    /// uses it.
    pub signed_move: Option<SignedMove>,
}

impl Record {
    /// The hash by which later records and choices name this one.
    #[must_use]
    pub fn hash(&self) -> MoveHash {
        MoveHash::from_bytes(self.digest())
    }
}

impl Canonical for Record {
    const CONTEXT: &'static str = "gainsay v1 record";

    fn encode_fields(&self, e: &mut Encoder) {
        e.hash(&self.dispute).u64(self.seq).hash(&self.previous);
        put_time(e, self.time);
        match &self.event {
            Event::Opened { digest, terms } => {
                e.u8(1).array(digest);
                terms.encode(e);
            }
            Event::Moved { digest } => {
                e.u8(2).array(digest);
            }
            Event::Paused => {
                e.u8(3);
            }
            Event::Resumed => {
                e.u8(4);
            }
            Event::Expired => {
                e.u8(5);
            }
            Event::Closed(closing) => {
                e.u8(6);
                closing.encode(e);
            }
        }
    }

    fn decode_fields(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (dispute, seq, previous, time) = (d.hash()?, d.u64()?, d.hash()?, get_time(d)?);
        let event = match d.u8()? {
            1 => Event::Opened { digest: d.array()?, terms: DisputeTerms::decode(d)? },
            2 => Event::Moved { digest: d.array()? },
            3 => Event::Paused,
            4 => Event::Resumed,
            5 => Event::Expired,
            6 => Event::Closed(Closing::decode(d)?),
            tag => return Err(DecodeError::UnknownTag { what: "event", tag }),
        };
        Ok(Self { dispute, seq, previous, time, event })
    }
}

impl DisputeTerms {
    pub(crate) fn encode(&self, e: &mut Encoder) {
        put_time(e, self.window_closes);
        e.u64(self.worker_allowance_ms).u64(self.challenger_allowance_ms);
    }

    pub(crate) fn decode(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            window_closes: get_time(d)?,
            worker_allowance_ms: d.u64()?,
            challenger_allowance_ms: d.u64()?,
        })
    }
}
