//! A message with a field of every kind.

use gainsay_commitment::{Canonical, ClaimId, DecodeError, Decoder, Encoder, PartyId};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) tag: u8,
    pub(crate) flag: bool,
    pub(crate) small: u16,
    pub(crate) count: u32,
    pub(crate) balance: i64,
    pub(crate) total: u64,
    pub(crate) weight: f32,
    pub(crate) owner: PartyId,
    pub(crate) note: String,
    pub(crate) body: Vec<u8>,
    pub(crate) ids: Vec<u32>,
    pub(crate) parent: Option<ClaimId>,
}

pub(crate) const NOTE_LIMIT: usize = 64;
pub(crate) const BODY_LIMIT: usize = 512;
pub(crate) const IDS_LIMIT: usize = 64;

impl Canonical for Sample {
    const CONTEXT: &'static str = "gainsay v1 test sample";

    fn encode_fields(&self, encoder: &mut Encoder) {
        encoder
            .u8(self.tag)
            .bool(self.flag)
            .u16(self.small)
            .u32(self.count)
            .i64(self.balance)
            .u64(self.total)
            .f32_bits(self.weight)
            .hash(&self.owner)
            .str(&self.note)
            .bytes(&self.body)
            .list(&self.ids, |encoder, id| {
                encoder.u32(*id);
            })
            .option(self.parent.as_ref(), |encoder, parent| {
                encoder.hash(parent);
            });
    }

    fn decode_fields(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            tag: match decoder.u8()? {
                tag @ 0..=2 => tag,
                tag => return Err(DecodeError::UnknownTag { what: "sample kind", tag }),
            },
            flag: decoder.bool()?,
            small: decoder.u16()?,
            count: decoder.u32()?,
            balance: decoder.i64()?,
            total: decoder.u64()?,
            weight: decoder.f32_bits()?,
            owner: decoder.hash()?,
            note: decoder.str(NOTE_LIMIT)?,
            body: decoder.bytes(BODY_LIMIT)?,
            ids: decoder.list(IDS_LIMIT, Decoder::u32)?,
            parent: decoder.option(Decoder::hash)?,
        })
    }
}

/// Any sample, any float bits included.
pub(crate) fn samples() -> impl Strategy<Value = Sample> {
    let numbers =
        (0u8..3, any::<bool>(), any::<u16>(), any::<u32>(), any::<i64>(), any::<u64>(), any::<u32>());
    let rest = (
        any::<[u8; 32]>(),
        "\\PC{0,16}",
        prop::collection::vec(any::<u8>(), 0..80),
        prop::collection::vec(any::<u32>(), 0..20),
        prop::option::of(any::<[u8; 32]>()),
    );
    (numbers, rest).prop_map(
        |((tag, flag, small, count, balance, total, bits), (owner, note, body, ids, parent))| Sample {
            tag,
            flag,
            small,
            count,
            balance,
            total,
            weight: f32::from_bits(bits),
            owner: owner.into(),
            note,
            body,
            ids,
            parent: parent.map(ClaimId::from),
        },
    )
}
