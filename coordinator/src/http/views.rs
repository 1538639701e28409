//! From what use cases answer to what travels: parameters, models, jobs, leases, claims, accounts.

use gainsay_api::accounts::{Account, AccountKind, AccountRole};
use gainsay_api::claims::{
    ClaimAccepted, ClaimState, ClaimSummary as WireClaimSummary, ClaimView as WireClaim,
};
use gainsay_api::info::{Info as WireInfo, PricesView};
use gainsay_api::jobs::{
    Answer, Finality as WireFinality, JobState as WireJobState, JobView as WireJob, Receipt as WireReceipt,
};
use gainsay_api::leases::Lease;
use gainsay_api::models::ModelView as WireModel;
use gainsay_api::parties::PartyView;
use gainsay_api::wire::Base64;
use gainsay_commitment::Signed;
use gainsay_program::ValidatedModel;
use gainsay_protocol::ClaimReceipt;

use crate::app::{
    self, AccountView, ClaimView, Finality, Info, JobState, JobView, LeaseGrant, ListedClaim, ModelView,
    Receipt,
};

/// Missing blobs that a listing shows at most.
const MISSING_SHOWN: usize = 1_000;

pub(super) fn info(info: &Info) -> WireInfo {
    WireInfo {
        coordinator: info.coordinator,
        service_time_ms: info.now.0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        prices: PricesView {
            per_job: info.prices.per_job.0,
            per_token: info.prices.per_token.0,
            per_answer_token: info.prices.per_answer_token.0,
        },
        parameters: (&info.parameters).into(),
    }
}

pub(super) fn model(model: &ModelView, created: i64) -> WireModel {
    let manifest = model.model.manifest();
    WireModel {
        id: model.id,
        object: "model".to_owned(),
        created,
        owned_by: "gainsay".to_owned(),
        name: manifest.name.clone(),
        arithmetic: manifest.arithmetic.name().to_owned(),
        layers: model.model.layer_count(),
        max_sequence: manifest.max_sequence,
        weight_bytes: manifest
            .tensors
            .iter()
            .fold(0, |sum: u64, tensor| sum.saturating_add(tensor.shape().bytes())),
        complete: model.is_serving(),
        missing: model.missing.iter().take(MISSING_SHOWN).copied().collect(),
    }
}

pub(super) fn finality(finality: Finality) -> WireFinality {
    match finality {
        Finality::Pending => WireFinality::Pending,
        Finality::Final => WireFinality::Final,
        Finality::Revoked => WireFinality::Revoked,
    }
}

fn job_state(state: JobState) -> WireJobState {
    match state {
        JobState::Submitted => WireJobState::Submitted,
        JobState::Assigned => WireJobState::Assigned,
        JobState::Claimed => WireJobState::Claimed,
        JobState::Finalized => WireJobState::Finalized,
        JobState::Cancelled => WireJobState::Cancelled,
        JobState::Refunded => WireJobState::Refunded,
        JobState::Voided => WireJobState::Voided,
    }
}

pub(super) fn job(job: &JobView, model: &ValidatedModel) -> WireJob {
    let answer = job.claim.as_ref().map(|claim| Answer {
        claim: claim.id,
        finality: finality(claim.finality),
        output: Base64(claim.output.clone()),
        rows: job.input.sequence_count(),
        width: model.answer_width().into(),
        window_closes_at_ms: claim.window_ends.0,
        generated: None,
    });
    WireJob {
        id: job.id,
        model: job.model,
        model_name: model.manifest().name.clone(),
        state: job_state(job.state),
        sequences: job.input.sequence_count() as u32,
        tokens: job.input.token_count(),
        rejected_attempts: job.attempts,
        price: job.price.0,
        submitted_at_ms: job.submitted_at.0,
        answer,
    }
}

pub(super) fn lease(grant: &LeaseGrant) -> Lease {
    Lease {
        id: grant.lease,
        job_id: grant.job,
        model: grant.model,
        job: Base64(grant.job_bytes.clone()),
        stream: grant.stream,
        price: grant.price.0,
        stake: grant.stake.0,
        heartbeat_by_ms: grant.expires.0,
        expires_at_ms: grant.deadline.0,
    }
}

pub(super) fn accepted(receipt: &Signed<ClaimReceipt>) -> ClaimAccepted {
    ClaimAccepted {
        id: receipt.body.claim,
        accepted_at_ms: receipt.body.time.0,
        window_closes_at_ms: receipt.body.terms.window_closes.0,
        worker_allowance_ms: receipt.body.terms.worker_allowance_ms,
        challenger_allowance_ms: receipt.body.terms.challenger_allowance_ms,
        countersignature: receipt.signature,
    }
}

pub(super) fn claim(claim: &ClaimView, worker: PartyView, open_disputes: u32) -> WireClaim {
    WireClaim {
        summary: WireClaimSummary {
            id: claim.id,
            job_id: claim.job,
            lease_id: claim.lease,
            model: claim.model,
            worker,
            state: claim_state(claim.state),
            finality: finality(claim.state.finality()),
            accepted_at_ms: claim.receipt.body.time.0,
            window_closes_at_ms: claim.window_ends.0,
            open_disputes,
        },
        input: claim.input,
        layers: claim.layers.clone(),
        trace_root: claim.trace_root,
        job: Base64(claim.job_bytes.clone()),
        signed: Base64(claim.signed.clone()),
        countersignature: Some(claim.receipt.signature),
        device: Some(claim.device.clone()).filter(|device| !device.is_empty()),
        disputes: claim.disputes.clone(),
    }
}

fn claim_state(state: app::ClaimState) -> ClaimState {
    match state {
        app::ClaimState::Pending => ClaimState::Open,
        app::ClaimState::Finalized => ClaimState::Finalized,
        app::ClaimState::Rejected => ClaimState::Rejected,
        app::ClaimState::Voided => ClaimState::Voided,
    }
}

pub(super) fn claim_summary(claim: &ListedClaim, worker: PartyView) -> WireClaimSummary {
    WireClaimSummary {
        id: claim.id,
        job_id: claim.job,
        lease_id: claim.lease,
        model: claim.model,
        worker,
        state: claim_state(claim.state),
        finality: finality(claim.state.finality()),
        accepted_at_ms: claim.posted.0,
        window_closes_at_ms: claim.window_ends.0,
        open_disputes: claim.open_disputes,
    }
}

pub(super) fn receipt(receipt: &Receipt, model: &ValidatedModel, worker: PartyView) -> WireReceipt {
    let claim = &receipt.claim;
    WireReceipt {
        job: receipt.job,
        lease: claim.lease,
        claim: claim.id,
        finality: finality(claim.finality),
        worker,
        owner: claim.owner,
        device: Some(claim.device.clone()).filter(|device| !device.is_empty()),
        model: claim.model,
        model_name: model.manifest().name.clone(),
        arithmetic: model.manifest().arithmetic.name().to_owned(),
        input: claim.input,
        layers: claim.layers.clone(),
        trace_root: claim.trace_root,
        paid_worker: receipt.paid_worker.0,
        paid_fee: receipt.paid_fee.0,
        returned: receipt.returned.0,
        claimed_at_ms: claim.receipt.body.time.0,
        window_closes_at_ms: claim.window_ends.0,
        signed_claim: Base64(claim.signed.clone()),
        countersignature: claim.receipt.signature,
    }
}

pub(super) fn account(account: &AccountView) -> Account {
    Account {
        owner: account.owner,
        name: account.name.clone().unwrap_or_default(),
        role: match account.role {
            "submitter" => AccountRole::Submitter,
            "provider" => AccountRole::Owner,
            _ => AccountRole::System,
        },
        kind: match account.kind {
            "free" => AccountKind::Free,
            "locked" => AccountKind::Locked,
            "escrow" => AccountKind::Escrow,
            "held" => AccountKind::Held,
            "treasury" => AccountKind::Treasury,
            _ => AccountKind::Outside,
        },
        balance: account.balance.0,
    }
}
