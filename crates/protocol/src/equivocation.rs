//! Two different signed claims for one lease: guilt that needs no dispute.

use gainsay_commitment::{Canonical, DecodeError, Decoder, Encoder, PartyId, SignatureError, Signed};

use crate::claim::{Claim, MAX_OUTPUT_BYTES};

/// The longest encoding of a signed claim inside other messages: output, layer commitments and fixed fields.
pub(crate) const MAX_CLAIM_BYTES: usize = MAX_OUTPUT_BYTES + (1 << 18);

/// Evidence that a worker signed two different claims for the same job under the same lease.
///
/// A job has one right answer and one right trace, bit for bit, and a worker stores its claim before sending it and only
/// ever resends those bytes, so the pair convicts by itself. Claims about different jobs do not: else whoever gives leases
/// could give one twice, with another job, and convict a worker that has done no wrong. In the canonical form the claim with
/// the smaller id stands first: one pair, one encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equivocation {
    first: Signed<Claim>,
    second: Signed<Claim>,
}

/// Why two claims are not evidence of equivocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EquivocationFault {
    /// Both are the same claim.
    #[error("both claims are the same")]
    SameClaim,
    /// The claims were made under different leases, or to different coordinators.
    #[error("the claims are not for one lease of one coordinator")]
    DifferentLeases,
    /// The claims are about different jobs.
    #[error("the claims are not for one job")]
    DifferentJobs,
    /// The claims name different workers.
    #[error("the claims name different workers")]
    DifferentWorkers,
    /// A claim is signed by another key than its worker's.
    #[error("a claim is not signed by the worker it names")]
    Signer,
    /// A signature does not verify.
    #[error("a claim's signature does not verify")]
    Signature(#[from] SignatureError),
}

impl Equivocation {
    /// Puts two claims into canonical order. Proves nothing yet: see [`check`](Self::check).
    #[must_use]
    pub fn new(one: Signed<Claim>, other: Signed<Claim>) -> Self {
        if one.body.id() <= other.body.id() {
            Self { first: one, second: other }
        } else {
            Self { first: other, second: one }
        }
    }

    /// The two claims, smaller id first.
    #[must_use]
    pub fn claims(&self) -> [&Signed<Claim>; 2] {
        [&self.first, &self.second]
    }

    /// Checks that the pair convicts, and names whom.
    ///
    /// # Errors
    /// The first reason why it does not, cheap checks first.
    pub fn check(&self) -> Result<PartyId, EquivocationFault> {
        let [first, second] = [&self.first.body, &self.second.body];
        if first.worker != second.worker {
            return Err(EquivocationFault::DifferentWorkers);
        }
        if (first.coordinator, first.lease) != (second.coordinator, second.lease) {
            return Err(EquivocationFault::DifferentLeases);
        }
        let job = |claim: &Claim| (claim.job, claim.model, claim.arithmetic, claim.input);
        if job(first) != job(second) {
            return Err(EquivocationFault::DifferentJobs);
        }
        if first == second {
            return Err(EquivocationFault::SameClaim);
        }
        if self.claims().iter().any(|claim| claim.signer != claim.body.worker) {
            return Err(EquivocationFault::Signer);
        }
        self.first.verify()?;
        self.second.verify()?;
        Ok(first.worker)
    }
}

impl Canonical for Equivocation {
    const CONTEXT: &'static str = "gainsay v1 equivocation";

    fn encode_fields(&self, e: &mut Encoder) {
        e.bytes(&self.first.to_bytes()).bytes(&self.second.to_bytes());
    }

    fn decode_fields(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let first = Signed::from_bytes(d.bytes_ref(MAX_CLAIM_BYTES)?)?;
        let second = Signed::from_bytes(d.bytes_ref(MAX_CLAIM_BYTES)?)?;
        Ok(Self::new(first, second))
    }
}
