//! The moves of a dispute, and what each signature covers.
//!
//! A [`Reveal`] signs claim and place: given once, it serves every dispute on the claim. A [`Choice`] signs the
//! dispute, its place in the sequence and the hash of the record before it: it is worth nothing anywhere else.
//! An [`Open`] signs itself; its digest is the dispute's id.

use gainsay_commitment::{
    Canonical, ChainingValue, ClaimId, DecodeError, Decoder, DisputeId, Encoder, MoveHash, NodeAddress,
    PartyId, SignatureError, Signed, TensorCommitment, tensor::CHUNK_BYTES, tensor::REVEAL_LEVELS,
};
use gainsay_program::{MAX_OPS_PER_LAYER, MAX_WITNESS_BYTES, Scope};

use crate::{
    codec::{get_scope, put_scope},
    dispute::MoveKind,
    ids::Role,
    reveals::{RevealKey, RevealTarget},
    witness::Witness,
};

/// Nodes that one reveal shows at most.
const MAX_CHILDREN: usize = 1 << REVEAL_LEVELS;

/// The longest encoding of a signed move: a witness with the tags around its chunks.
pub(crate) const MAX_MOVE_BYTES: usize = 4 * MAX_WITNESS_BYTES as usize;

/// Move 1: a challenger disputes one layer of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Open {
    /// The claim disputed.
    pub claim: ClaimId,
    /// Who disputes it.
    pub challenger: PartyId,
    /// The layer whose commitment is said to be wrong.
    pub layer: u32,
    /// What the challenger computed in its place; confirmed or not by the claim that is finally accepted.
    pub commitment: TensorCommitment,
}

impl Open {
    /// The id of the dispute that this move opens.
    #[must_use]
    pub fn id(&self) -> DisputeId {
        DisputeId::from_bytes(self.digest())
    }
}

/// Moves 2, 4 and 6: a worker shows what is behind a commitment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reveal {
    /// The claim that the reveal belongs to.
    pub claim: ClaimId,
    /// The layer.
    pub layer: u32,
    /// The layer's own ops, or those of one element's virtual layer.
    pub scope: Scope,
    /// What is shown.
    pub content: RevealContent,
}

/// What a reveal shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RevealContent {
    /// The commitment of every op output of the scope, in order.
    Ops {
        /// One per op.
        commitments: Vec<TensorCommitment>,
    },
    /// Nodes of an op output's tree.
    Nodes {
        /// The op.
        op: u32,
        /// The node that they lie below.
        node: NodeAddress,
        /// The nodes six levels below it, or its chunks where it is lower than that.
        children: Vec<ChainingValue>,
    },
    /// One chunk of an op's output.
    Chunk {
        /// The op.
        op: u32,
        /// Which chunk.
        chunk: u64,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

impl Reveal {
    /// The place that the reveal fills: one per claim and place is enough for every dispute.
    #[must_use]
    pub fn key(&self) -> RevealKey {
        let target = match self.content {
            RevealContent::Ops { .. } => RevealTarget::Ops,
            RevealContent::Nodes { op, node, .. } => RevealTarget::Nodes { op, node },
            RevealContent::Chunk { op, chunk, .. } => RevealTarget::Chunk { op, chunk },
        };
        RevealKey { layer: self.layer, scope: self.scope, target }
    }
}

/// Moves 3, 5 and 7, and the choice of an element to expand: what a challenger decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Choice {
    /// The dispute.
    pub dispute: DisputeId,
    /// The number that the move's record will have.
    pub seq: u64,
    /// The hash of the record before it.
    pub previous: MoveHash,
    /// What is decided.
    pub action: Action,
}

/// What a challenger decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Go on in this op's output.
    ChooseOp {
        /// Index into the revealed ops.
        op: u32,
    },
    /// Go on below this node.
    ChooseNode {
        /// Index into the revealed nodes.
        child: u32,
    },
    /// Go on in the virtual layer of this element of an expanded op.
    ChooseElement {
        /// Row-major index in the op's output; inside the revealed chunk.
        element: u64,
    },
    /// Have the referee recompute this element.
    Prove {
        /// Row-major index in the op's output; inside the revealed chunk.
        element: u64,
        /// Everything that the referee reads.
        witness: Witness,
    },
}

/// A move as it travels: with its author's signature.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SignedMove {
    /// Opens a dispute.
    Open(Signed<Open>),
    /// A worker's reveal.
    Reveal(Signed<Reveal>),
    /// A challenger's choice.
    Choice(Signed<Choice>),
}

impl SignedMove {
    /// Which of the eight moves it is.
    #[must_use]
    pub fn kind(&self) -> MoveKind {
        match self {
            Self::Open(_) => MoveKind::Open,
            Self::Reveal(reveal) => match reveal.body.content {
                RevealContent::Ops { .. } => MoveKind::RevealOps,
                RevealContent::Nodes { .. } => MoveKind::RevealNodes,
                RevealContent::Chunk { .. } => MoveKind::RevealChunk,
            },
            Self::Choice(choice) => match choice.body.action {
                Action::ChooseOp { .. } => MoveKind::ChooseOp,
                Action::ChooseNode { .. } => MoveKind::ChooseNode,
                Action::ChooseElement { .. } => MoveKind::ChooseElement,
                Action::Prove { .. } => MoveKind::Prove,
            },
        }
    }

    /// The side that makes such moves.
    #[must_use]
    pub fn role(&self) -> Role {
        self.kind().role()
    }

    /// Who is said to have signed it.
    #[must_use]
    pub fn signer(&self) -> PartyId {
        match self {
            Self::Open(signed) => signed.signer,
            Self::Reveal(signed) => signed.signer,
            Self::Choice(signed) => signed.signer,
        }
    }

    /// What the author signed: the digest of the unsigned move.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        match self {
            Self::Open(signed) => signed.body.digest(),
            Self::Reveal(signed) => signed.body.digest(),
            Self::Choice(signed) => signed.body.digest(),
        }
    }

    /// Checks the signature; only what passes can be applied to a dispute.
    ///
    /// # Errors
    /// The signature does not verify.
    pub fn authenticate(self) -> Result<Authentic, SignatureError> {
        let (Self::Open(Signed { signature, signer, .. })
        | Self::Reveal(Signed { signature, signer, .. })
        | Self::Choice(Signed { signature, signer, .. })) = &self;
        let digest = self.digest();
        signature.verify(signer, &digest)?;
        Ok(Authentic { signed: self, digest })
    }
}

/// A move whose signature was verified. It may still be foreign, late, out of turn or wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentic {
    signed: SignedMove,
    digest: [u8; 32],
}

impl Authentic {
    /// The move.
    #[must_use]
    pub fn signed(&self) -> &SignedMove {
        &self.signed
    }

    /// The move, without the knowledge that its signature is good.
    #[must_use]
    pub fn into_signed(self) -> SignedMove {
        self.signed
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Takes a signature on trust, so that simulations spend their time on rules instead of curves.
    #[cfg(feature = "toy")]
    #[must_use]
    pub fn trusted(signed: SignedMove) -> Self {
        let digest = signed.digest();
        Self { signed, digest }
    }
}

impl Canonical for Open {
    const CONTEXT: &'static str = "gainsay v1 open";

    fn encode_fields(&self, e: &mut Encoder) {
        e.hash(&self.claim).hash(&self.challenger).u32(self.layer).hash(&self.commitment);
    }

    fn decode_fields(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { claim: d.hash()?, challenger: d.hash()?, layer: d.u32()?, commitment: d.hash()? })
    }
}

impl Canonical for Reveal {
    const CONTEXT: &'static str = "gainsay v1 reveal";

    fn encode_fields(&self, e: &mut Encoder) {
        e.hash(&self.claim).u32(self.layer);
        put_scope(e, self.scope);
        match &self.content {
            RevealContent::Ops { commitments } => {
                e.u8(1).list(commitments, |e, commitment| {
                    e.hash(commitment);
                });
            }
            RevealContent::Nodes { op, node, children } => {
                e.u8(2).u32(*op);
                node.encode(e);
                e.list(children, |e, child| {
                    e.hash(child);
                });
            }
            RevealContent::Chunk { op, chunk, bytes } => {
                e.u8(3).u32(*op).u64(*chunk).bytes(bytes);
            }
        }
    }

    fn decode_fields(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (claim, layer, scope) = (d.hash()?, d.u32()?, get_scope(d)?);
        let content = match d.u8()? {
            1 => RevealContent::Ops { commitments: d.list(MAX_OPS_PER_LAYER, Decoder::hash)? },
            2 => RevealContent::Nodes {
                op: d.u32()?,
                node: NodeAddress::decode(d)?,
                children: d.list(MAX_CHILDREN, Decoder::hash)?,
            },
            3 => RevealContent::Chunk { op: d.u32()?, chunk: d.u64()?, bytes: d.bytes(CHUNK_BYTES)? },
            tag => return Err(DecodeError::UnknownTag { what: "reveal", tag }),
        };
        Ok(Self { claim, layer, scope, content })
    }
}

impl Canonical for Choice {
    const CONTEXT: &'static str = "gainsay v1 choice";

    fn encode_fields(&self, e: &mut Encoder) {
        e.hash(&self.dispute).u64(self.seq).hash(&self.previous);
        match &self.action {
            Action::ChooseOp { op } => {
                e.u8(1).u32(*op);
            }
            Action::ChooseNode { child } => {
                e.u8(2).u32(*child);
            }
            Action::ChooseElement { element } => {
                e.u8(3).u64(*element);
            }
            Action::Prove { element, witness } => {
                e.u8(4).u64(*element);
                witness.encode(e);
            }
        }
    }

    fn decode_fields(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (dispute, seq, previous) = (d.hash()?, d.u64()?, d.hash()?);
        let action = match d.u8()? {
            1 => Action::ChooseOp { op: d.u32()? },
            2 => Action::ChooseNode { child: d.u32()? },
            3 => Action::ChooseElement { element: d.u64()? },
            4 => Action::Prove { element: d.u64()?, witness: Witness::decode(d)? },
            tag => return Err(DecodeError::UnknownTag { what: "choice", tag }),
        };
        Ok(Self { dispute, seq, previous, action })
    }
}

impl SignedMove {
    /// A tag for the kind of move, then the signed move.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (tag, signed) = match self {
            Self::Open(signed) => (1, signed.to_bytes()),
            Self::Reveal(signed) => (2, signed.to_bytes()),
            Self::Choice(signed) => (3, signed.to_bytes()),
        };
        [&[tag], signed.as_slice()].concat()
    }

    /// Decodes what [`to_bytes`](Self::to_bytes) wrote. Verifies nothing.
    ///
    /// # Errors
    /// Whatever is no tag followed by exactly one signed move.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut d = Decoder::new(bytes);
        let tag = d.u8()?;
        let rest = &bytes[1..];
        match tag {
            1 => Signed::from_bytes(rest).map(Self::Open),
            2 => Signed::from_bytes(rest).map(Self::Reveal),
            3 => Signed::from_bytes(rest).map(Self::Choice),
            tag => Err(DecodeError::UnknownTag { what: "move", tag }),
        }
    }
}

impl From<Signed<Open>> for SignedMove {
    fn from(signed: Signed<Open>) -> Self {
        Self::Open(signed)
    }
}

impl From<Signed<Reveal>> for SignedMove {
    fn from(signed: Signed<Reveal>) -> Self {
        Self::Reveal(signed)
    }
}

impl From<Signed<Choice>> for SignedMove {
    fn from(signed: Signed<Choice>) -> Self {
        Self::Choice(signed)
    }
}
