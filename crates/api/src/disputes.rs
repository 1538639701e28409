//! Disputes. Moves are posted as the bytes of the signed move (`gainsay_protocol`); reading shows them as JSON.

use crate::parties::PartyView;
use crate::wire::{Base64, integer, text};
use gainsay_commitment::{ClaimId, DisputeId, PartyId, TensorCommitment};
use gainsay_protocol::JobId;
use serde::{Deserialize, Serialize};

/// A side of a dispute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Who doubts.
    Challenger,
    /// Who claimed.
    Worker,
}

/// The kinds of moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MoveKind {
    /// The challenger names the layer that it disagrees with.
    Open,
    /// The worker commits to every op output of the layer.
    RevealOps,
    /// The challenger picks an op.
    ChooseOp,
    /// The worker opens tree nodes.
    RevealNodes,
    /// The challenger picks one of them.
    ChooseNode,
    /// The worker shows a chunk's bytes.
    RevealChunk,
    /// The challenger goes on inside one element of an expanded op.
    ChooseElement,
    /// The challenger sends a witness; the referee decides.
    Prove,
}

/// Where a dispute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DisputeState {
    /// Moves are being made.
    Open,
    /// The referee failed; clocks stand still until the operator acts.
    Halted,
    /// Over.
    Decided,
}

/// How a dispute ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The claim is rejected.
    ChallengerWins,
    /// The claim stands against this challenger.
    WorkerWins,
    /// Another dispute rejected the claim first.
    Moot,
}

/// Why it ended so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum VerdictReason {
    /// The referee recomputed the element.
    Referee,
    /// The loser's allowance was spent.
    ClockExpired,
    /// The loser was refused too often in one turn.
    TooManyRefusals,
    /// The challenger lost its bond against this worker in another dispute.
    BondForfeited,
    /// Another dispute was decided first.
    AnotherDispute,
    /// The operator voided the profile version.
    Void,
}

/// A node of a tensor's hash tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeView {
    /// 0 is a chunk.
    pub height: u8,
    /// Position among the nodes of its height.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub index: u64,
}

/// The element of an expanded op inside which a dispute goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VirtualView {
    /// The expanded op.
    pub op: u32,
    /// The element of its output.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub element: u64,
}

/// How far a dispute has narrowed. Fields are absent until a move has set them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlaceView {
    /// The layer.
    pub layer: u32,
    /// The expanded op's element, inside a virtual layer.
    #[serde(default, rename = "virtual", skip_serializing_if = "Option::is_none")]
    pub inside: Option<VirtualView>,
    /// The op, counted in its layer or virtual layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<u32>,
    /// What the op is, for people: `linear`, `attention`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op_kind: Option<String>,
    /// The disputed node of the op output's tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeView>,
    /// The element that was proven or is being proven.
    #[serde(default, with = "integer::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::Integer>))]
    pub element: Option<u64>,
}

/// One accepted move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MoveView {
    /// 0 is `open`.
    pub sequence: u32,
    /// What kind of move.
    pub kind: MoveKind,
    /// Which side moved.
    pub side: Side,
    /// Who moved.
    pub by: PartyView,
    /// The place after the move.
    pub place: PlaceView,
    /// Bytes of the signed move.
    pub bytes: u64,
    /// Bytes of the witness, for `prove`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness_bytes: Option<u64>,
    /// Time that the referee took, in µs, for `prove`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referee_us: Option<u64>,
    /// Service time of acceptance, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub at_ms: i64,
}

/// The verdict of a decided dispute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DecisionView {
    /// Who won.
    pub verdict: Verdict,
    /// Why.
    pub reason: VerdictReason,
    /// The element's bytes as the worker revealed them (hex), where the referee decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<String>,
    /// The element's bytes as the referee computed them (hex), where it decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub computed: Option<String>,
    /// Service time of the decision, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub at_ms: i64,
}

/// `GET /v1/disputes/{id}`, and the answer to every move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DisputeView {
    /// What listings also show.
    #[serde(flatten)]
    pub summary: DisputeSummary,
    /// The accepted moves, in order.
    pub moves: Vec<MoveView>,
    /// The canonical encoding of `gainsay_protocol::Dispute`: what the strategies decide on.
    pub encoded: Base64,
}

/// One dispute in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DisputeSummary {
    /// The dispute.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::DisputeId))]
    pub id: DisputeId,
    /// The claim that it disputes.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::ClaimId))]
    pub claim: ClaimId,
    /// The claim's job.
    #[serde(with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::JobId))]
    pub job_id: JobId,
    /// Who doubts.
    pub challenger: PartyView,
    /// Who claimed.
    pub worker: PartyView,
    /// Where it is.
    pub state: DisputeState,
    /// Whose turn it is, while it is open.
    #[serde(default)]
    pub turn: Option<Side>,
    /// How far it has narrowed.
    pub place: PlaceView,
    /// The challenger's own commitment of the layer; null until the dispute is decided, so that nobody can copy it.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::schema::TensorCommitment>))]
    pub challenger_commitment: Option<TensorCommitment>,
    /// Accepted moves: the number that the next one must sign.
    pub move_count: u32,
    /// What is left of the challenger's allowance, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub challenger_clock_ms: i64,
    /// What is left of the worker's allowance, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub worker_clock_ms: i64,
    /// Service time of the opening, in ms.
    #[serde(with = "integer")]
    #[cfg_attr(feature = "openapi", schema(value_type = crate::schema::Integer))]
    pub opened_at_ms: i64,
    /// The verdict, once there is one.
    #[serde(default)]
    pub decision: Option<DecisionView>,
}

/// Query of `GET /v1/disputes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct DisputeFilter {
    /// Only disputes in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<DisputeState>,
    /// Only disputes on this claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", param(value_type = Option<crate::schema::ClaimId>))]
    pub claim: Option<ClaimId>,
    /// Only disputes in which this key is worker or challenger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", param(value_type = Option<crate::schema::PartyId>))]
    pub party: Option<PartyId>,
    /// Only disputes that follow this one in the listing's order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", param(value_type = Option<crate::schema::DisputeId>))]
    pub after: Option<DisputeId>,
    /// At most so many; 100 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `GET /v1/disputes`: oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DisputeList {
    /// The page.
    pub disputes: Vec<DisputeSummary>,
    /// Whether more follow: ask again with `after` = the last id.
    pub more: bool,
}
