//! What a worker has shown of a claim, by place.

use std::collections::BTreeMap;

use gainsay_commitment::{Canonical, DecodeError, Decoder, Encoder, NodeAddress, Signed};
use gainsay_program::Scope;

use crate::{
    codec::{get_scope, put_scope},
    moves::Reveal,
};

/// A place of a claim that a reveal fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevealKey {
    /// The layer.
    pub layer: u32,
    /// The layer's own ops, or those of one element's virtual layer.
    pub scope: Scope,
    /// What of it.
    pub target: RevealTarget,
}

/// What a reveal shows of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RevealTarget {
    /// The commitments of all ops.
    Ops,
    /// The nodes below a node of an op output's tree.
    Nodes {
        /// The op.
        op: u32,
        /// The node.
        node: NodeAddress,
    },
    /// A chunk of an op output.
    Chunk {
        /// The op.
        op: u32,
        /// The chunk.
        chunk: u64,
    },
}

impl Canonical for RevealKey {
    const CONTEXT: &'static str = "gainsay v1 reveal key";

    fn encode_fields(&self, e: &mut Encoder) {
        e.u32(self.layer);
        put_scope(e, self.scope);
        match self.target {
            RevealTarget::Ops => {
                e.u8(1);
            }
            RevealTarget::Nodes { op, node } => {
                e.u8(2).u32(op);
                node.encode(e);
            }
            RevealTarget::Chunk { op, chunk } => {
                e.u8(3).u32(op).u64(chunk);
            }
        }
    }

    fn decode_fields(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (layer, scope) = (d.u32()?, get_scope(d)?);
        let target = match d.u8()? {
            1 => RevealTarget::Ops,
            2 => RevealTarget::Nodes { op: d.u32()?, node: NodeAddress::decode(d)? },
            3 => RevealTarget::Chunk { op: d.u32()?, chunk: d.u64()? },
            tag => return Err(DecodeError::UnknownTag { what: "reveal target", tag }),
        };
        Ok(Self { layer, scope, target })
    }
}

/// The reveals that disputes on one claim have accepted.
///
/// Holds at most one reveal per place: the first one accepted stands. What enters here was verified by the
/// dispute that accepted it; a store that reloads it vouches for the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reveals {
    by_key: BTreeMap<RevealKey, Signed<Reveal>>,
}

impl Reveals {
    /// Nothing shown yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The reveal of a place, if it was given.
    #[must_use]
    pub fn get(&self, key: &RevealKey) -> Option<&Signed<Reveal>> {
        self.by_key.get(key)
    }

    /// How many places were shown.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether nothing was shown.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// All reveals, by place.
    pub fn iter(&self) -> impl Iterator<Item = (&RevealKey, &Signed<Reveal>)> {
        self.by_key.iter()
    }

    pub(crate) fn insert(&mut self, reveal: &Signed<Reveal>) {
        self.by_key.entry(reveal.body.key()).or_insert_with(|| reveal.clone());
    }
}

impl FromIterator<Signed<Reveal>> for Reveals {
    /// Reloads reveals that disputes on one claim accepted. Of two for one place the first stands.
    fn from_iter<I: IntoIterator<Item = Signed<Reveal>>>(reveals: I) -> Self {
        let mut all = Self::new();
        for reveal in reveals {
            all.insert(&reveal);
        }
        all
    }
}
