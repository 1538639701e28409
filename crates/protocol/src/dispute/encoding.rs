//! The state of a dispute as bytes, for the store.

use gainsay_commitment::{
    Canonical, ChainingValue, DecodeError, Decoder, DisputeId, Encoder, NodeAddress, NodeHash,
    TensorCommitment,
    tensor::{CHUNK_BYTES, REVEAL_LEVELS},
};
use gainsay_program::MAX_OPS_PER_LAYER;

use super::{Clock, Dispute, DisputeTerms, Inner, Outcome, Stage, WITHHELD};
use crate::{
    codec::{get_time, put_time},
    moves::Open,
};

impl Canonical for Dispute {
    const CONTEXT: &'static str = "gainsay v1 dispute state";

    fn encode_fields(&self, e: &mut Encoder) {
        e.hash(&self.id);
        self.open.encode_fields(e);
        e.hash(&self.worker);
        self.terms.encode(e);
        e.u64(self.next_seq).hash(&self.head);
        e.u64(self.clock.worker_left_ms).u64(self.clock.challenger_left_ms);
        put_time(e, self.clock.since);
        e.bool(self.clock.paused).u8(self.refusals);
        put_ops(e, &self.layer_ops);
        e.option(self.inner.as_ref(), |e, inner| {
            e.u32(inner.op).u64(inner.element).array(&inner.claimed);
            put_ops(e, &inner.ops);
        });
        put_stage(e, &self.stage);
    }

    fn decode_fields(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let id: DisputeId = d.hash()?;
        let open = Open::decode_fields(d)?;
        if open.commitment != WITHHELD && id != DisputeId::from_bytes(open.digest()) {
            return Err(DecodeError::Invalid("a dispute's id is the digest of its opening"));
        }
        let dispute = Self {
            id,
            open,
            worker: d.hash()?,
            terms: DisputeTerms::decode(d)?,
            next_seq: d.u64()?,
            head: d.hash()?,
            clock: Clock {
                worker_left_ms: d.u64()?,
                challenger_left_ms: d.u64()?,
                since: get_time(d)?,
                paused: d.bool()?,
            },
            refusals: d.u8()?,
            layer_ops: get_ops(d)?,
            inner: d.option(|d| {
                Ok(Inner { op: d.u32()?, element: d.u64()?, claimed: d.array()?, ops: get_ops(d)? })
            })?,
            stage: get_stage(d)?,
        };
        if dispute.refusals > super::MAX_REFUSALS_PER_TURN {
            return Err(DecodeError::Invalid("more refusals than a turn can have"));
        }
        Ok(dispute)
    }
}

fn put_ops(e: &mut Encoder, ops: &[TensorCommitment]) {
    e.list(ops, |e, commitment| {
        e.hash(commitment);
    });
}

fn get_ops(d: &mut Decoder<'_>) -> Result<Vec<TensorCommitment>, DecodeError> {
    d.list(MAX_OPS_PER_LAYER, Decoder::hash)
}

fn put_node_hash(e: &mut Encoder, hash: &NodeHash) {
    match hash {
        NodeHash::Root(root) => e.u8(1).hash(root),
        NodeHash::Inner(inner) => e.u8(2).hash(inner),
    };
}

fn get_node_hash(d: &mut Decoder<'_>) -> Result<NodeHash, DecodeError> {
    match d.u8()? {
        1 => d.hash().map(NodeHash::Root),
        2 => d.hash().map(NodeHash::Inner),
        tag => Err(DecodeError::UnknownTag { what: "node hash", tag }),
    }
}

fn put_stage(e: &mut Encoder, stage: &Stage) {
    match stage {
        Stage::Ops => {
            e.u8(1);
        }
        Stage::OpChoice => {
            e.u8(2);
        }
        Stage::Nodes { op, node, expected } => {
            e.u8(3).u32(*op);
            node.encode(e);
            put_node_hash(e, expected);
        }
        Stage::NodeChoice { op, node, children } => {
            e.u8(4).u32(*op);
            node.encode(e);
            e.list(children, |e, child| {
                e.hash(child);
            });
        }
        Stage::Chunk { op, chunk, expected } => {
            e.u8(5).u32(*op).u64(*chunk);
            put_node_hash(e, expected);
        }
        Stage::Element { op, chunk, bytes } => {
            e.u8(6).u32(*op).u64(*chunk).bytes(bytes);
        }
        Stage::Ended(outcome) => {
            e.u8(7);
            outcome.encode(e);
        }
    }
}

fn get_stage(d: &mut Decoder<'_>) -> Result<Stage, DecodeError> {
    match d.u8()? {
        1 => Ok(Stage::Ops),
        2 => Ok(Stage::OpChoice),
        3 => Ok(Stage::Nodes { op: d.u32()?, node: NodeAddress::decode(d)?, expected: get_node_hash(d)? }),
        4 => Ok(Stage::NodeChoice {
            op: d.u32()?,
            node: NodeAddress::decode(d)?,
            children: d.list(1 << REVEAL_LEVELS, Decoder::hash::<ChainingValue>)?,
        }),
        5 => Ok(Stage::Chunk { op: d.u32()?, chunk: d.u64()?, expected: get_node_hash(d)? }),
        6 => Ok(Stage::Element { op: d.u32()?, chunk: d.u64()?, bytes: d.bytes(CHUNK_BYTES)? }),
        7 => Outcome::decode(d).map(Stage::Ended),
        tag => Err(DecodeError::UnknownTag { what: "stage", tag }),
    }
}
