//! Two different signed claims for one lease: guilt that needs no dispute, whoever brings it.

use gainsay_commitment::{Canonical, ClaimId, PartyId, Signed};
use gainsay_protocol::lifecycle::ClaimState;
use gainsay_protocol::{Claim, ClaimFault, Equivocation, LeaseId, OwnerId};
use serde_json::json;

use super::verdicts::Rejection;
use super::work::{About, Work, retrying};
use super::{App, AppError, AppResult};
use crate::store::claims::{self, RejectedBecause, StoredClaim};
use crate::store::jobs::{self, StoredJob};
use crate::store::leases::{self, LeaseState};
use crate::store::parties;

/// Evidence that was checked.
pub(super) struct Guilt<'a> {
    pub(super) lease: LeaseId,
    pub(super) worker: PartyId,
    /// The claim that is not the one on record, or either of the two where none is.
    pub(super) second: &'a Signed<Claim>,
    /// Its bytes.
    pub(super) bytes: &'a [u8],
    /// Who brought it; none where the worker sent it itself.
    pub(super) reporter: Option<OwnerId>,
}

/// What a report of an equivocation led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conviction {
    /// The worker convicted.
    pub worker: PartyId,
    /// The lease.
    pub lease: LeaseId,
    /// The claim that was rejected for it; none where it was decided before, or the lease has none.
    pub rejected: Option<ClaimId>,
}

impl App {
    /// Takes two signed claims of one lease (`Equivocation` bytes) from anyone who is registered. The first who brings
    /// them gets the prover's share of the stake, unless somebody was disputing the claim already and was right.
    ///
    /// # Errors
    /// Bytes and signatures; no such lease; the lease has no claim yet; the worker was convicted of it before.
    pub async fn report_equivocation(&self, reporter: PartyId, bytes: &[u8]) -> AppResult<Conviction> {
        let pair =
            Equivocation::from_bytes(bytes).map_err(|error| AppError::MalformedClaim(error.to_string()))?;
        if pair.claims().iter().any(|claim| claim.body.coordinator != self.coordinator()) {
            return Err(ClaimFault::Coordinator.into());
        }
        let worker = pair.check()?;
        let owner = match self.worker(reporter).await {
            Err(AppError::UnknownParty { .. }) => self.challenger(reporter).await?.owner,
            found => found?.owner,
        };
        retrying(|| self.receive_report(&pair, worker, owner)).await
    }

    async fn receive_report(
        &self,
        pair: &Equivocation,
        worker: PartyId,
        reporter: OwnerId,
    ) -> AppResult<Conviction> {
        let [first, second] = pair.claims();
        let id = first.body.lease;
        let mut work = Work::begin(self).await?;
        // The claims may name any job: the lease says which one it was of.
        let found = leases::get(&mut work.tx, id).await?.filter(|lease| lease.worker == worker);
        let found = found.ok_or(AppError::UnknownLease(id))?;
        parties::lock_worker(&mut work.tx, worker).await?;
        let job = jobs::lock(&mut work.tx, found.job).await?.ok_or(AppError::UnknownLease(id))?;
        let lease = leases::lock(&mut work.tx, id).await?.ok_or(AppError::UnknownLease(id))?;
        if lease.state == LeaseState::Held {
            return Err(AppError::LeaseHeld(id));
        }
        let stored = claims::of_lease(&mut work.tx, job.id, id).await?;
        let recorded = stored.as_ref().map(|claim| claim.id);
        let other = if recorded == Some(second.body.id()) { first } else { second };
        let bytes = other.to_bytes();
        // Who reports a worker of its own has shown nothing that it could not have shown before.
        let reporter = Some(reporter).filter(|reporter| *reporter != lease.owner);
        let guilt = Guilt { lease: id, worker, second: other, bytes: &bytes, reporter };
        if !self.convict(&mut work, &job, stored.as_ref(), &guilt).await? {
            return Err(AppError::Equivocation(id));
        }
        work.finish().await?;
        let rejected = stored.filter(|claim| claim.state == ClaimState::Pending).map(|claim| claim.id);
        Ok(Conviction { worker, lease: id, rejected })
    }

    /// Records an equivocation, rejects the claim on record where it is pending, and suspends the worker. False where it
    /// was recorded before. Worker, job, lease and claim are locked.
    pub(super) async fn convict(
        &self,
        work: &mut Work<'_>,
        job: &StoredJob,
        stored: Option<&StoredClaim>,
        guilt: &Guilt<'_>,
    ) -> AppResult<bool> {
        let now = work.now().await?;
        let (lease, reporter) = (guilt.lease, guilt.reporter);
        if !claims::record_equivocation(&mut work.tx, job.id, lease, guilt.bytes, reporter, now).await? {
            return Ok(false);
        }
        let about = About { claim: stored.map(|claim| claim.id), ..About::job(job.id) };
        let details = json!({
            "lease": lease.to_string(), "second": guilt.second.body.id(),
            "reporter": reporter.map(|owner| owner.to_string()),
        });
        work.event("equivocation", about.party(guilt.worker), details);
        if let Some(claim) = stored.filter(|claim| claim.state == ClaimState::Pending) {
            let rejection =
                Rejection { because: RejectedBecause::Equivocation, dispute: None, beneficiary: reporter };
            self.reject_claim(work, job, claim, &rejection).await?;
        }
        self.suspend(work, guilt.worker, about).await?;
        Ok(true)
    }
}
