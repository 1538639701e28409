//! A whole dispute in one file, for anyone to judge again.

use gainsay_commitment::{Canonical, CoordinatorId, DecodeError, Decoder, Encoder, SignatureError, Signed};
use gainsay_program::{JobError, Manifest, ManifestError};

use crate::{
    case::{Case, CaseMismatch},
    claim::{Claim, ClaimFault, ClaimReceipt},
    dispute::{Dispute, DisputeTerms, Entry, Event, Outcome, Record, Refusal},
    equivocation::MAX_CLAIM_BYTES,
    job::Job,
    moves::{Authentic, MAX_MOVE_BYTES, SignedMove},
    reveals::Reveals,
};

/// The longest encoding of a manifest in a bundle.
const MAX_MANIFEST_BYTES: usize = 64 << 20;
/// The longest encoding of a job in a bundle: its tokens and as many offsets.
const MAX_JOB_BYTES: usize = 16 << 20;
/// The longest encoding of a signed record or receipt.
const MAX_RECORD_BYTES: usize = 1 << 10;
/// Records that a log may hold. A dispute without pauses has fewer than a hundred.
const MAX_RECORDS: usize = 4096;

/// One countersigned record, with the move that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceEntry {
    /// The record, signed by the coordinator.
    pub record: Signed<Record>,
    /// The move, where the record is of one.
    pub signed_move: Option<SignedMove>,
}

/// Everything needed to judge a dispute again, offline, clocks included.
///
/// The coordinator's signatures are what the times rest on; everything else follows from the parties' own
/// signatures, the manifest and the job.
#[derive(Debug, Clone, PartialEq)]
pub struct EvidenceBundle {
    /// The model, as registered.
    pub manifest: Manifest,
    /// The job.
    pub job: Job,
    /// The claim, signed by the worker.
    pub claim: Signed<Claim>,
    /// The coordinator's receipt for the claim.
    pub receipt: Signed<ClaimReceipt>,
    /// The dispute, from its opening to its end.
    pub log: Vec<EvidenceEntry>,
    /// The end that the coordinator reported.
    pub outcome: Outcome,
}

/// What judging again confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejudgement {
    /// Whose signatures the times rest on.
    pub coordinator: CoordinatorId,
    /// The dispute as it ended.
    pub dispute: Dispute,
    /// How it ended: the same as the bundle says.
    pub outcome: Outcome,
}

/// Why a bundle does not show what it says.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BundleFault {
    /// The manifest is not one that a coordinator may register.
    #[error("the manifest is invalid: {0}")]
    Manifest(#[from] ManifestError),
    /// The job does not fit the model.
    #[error("the job does not fit the model: {0}")]
    Job(#[from] JobError),
    /// Claim, job and manifest do not belong together.
    #[error(transparent)]
    Case(#[from] CaseMismatch),
    /// The claim should never have been accepted.
    #[error("the claim is invalid: {0}")]
    Claim(#[from] ClaimFault),
    /// The receipt is not for the claim, or not by the claim's coordinator.
    #[error("the receipt is not the coordinator's for this claim")]
    Receipt,
    /// A record is not signed by the claim's coordinator.
    #[error("record {seq} is not signed by the coordinator of the claim")]
    RecordSigner {
        /// Position in the log.
        seq: usize,
    },
    /// A signature does not verify.
    #[error("a signature in record {seq} does not verify: {source}")]
    Signature {
        /// Position in the log.
        seq: usize,
        /// Why not.
        source: SignatureError,
    },
    /// The receipt's signature does not verify.
    #[error("the receipt's signature does not verify: {0}")]
    ReceiptSignature(SignatureError),
    /// The log does not start with an opening.
    #[error("the log does not start with an opening")]
    NoOpening,
    /// The dispute was opened before the claim was taken, or its window was shortened.
    #[error("the times of claim and opening contradict each other")]
    Times,
    /// The parties' allowances are not those that the receipt promised.
    #[error("the allowances of the dispute are not those of the claim's receipt")]
    Allowances,
    /// The coordinator recorded a move that the rules refuse.
    #[error("record {seq} holds a move that is refused: {refusal}")]
    Refused {
        /// Position in the log.
        seq: usize,
        /// Why.
        refusal: Refusal,
    },
    /// A record is not what the rules make of the log before it: hash chain, number, time or event.
    #[error("record {seq} does not follow from the log before it")]
    Record {
        /// Position in the log.
        seq: usize,
    },
    /// The log goes on after the end, or stops before it, or ends otherwise than the bundle says.
    #[error("the log does not end as the bundle says")]
    Outcome,
}

impl EvidenceBundle {
    /// Judges the dispute again: every signature, the hash chain, the clocks, each move, the referee.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn rejudge(&self) -> Result<Rejudgement, BundleFault> {
        let model = self.manifest.clone().validate()?;
        let claim = &self.claim.body;
        self.job.check(&model)?;
        let case = Case::new(&model, &self.job, claim)?;
        claim.check_content(&model, &self.job)?;
        if self.claim.signer != claim.worker {
            return Err(ClaimFault::Signer.into());
        }
        self.claim.verify().map_err(ClaimFault::from)?;
        self.check_receipt(&case)?;
        let dispute = self.replay(&case)?;
        if dispute.outcome() != Some(self.outcome) {
            return Err(BundleFault::Outcome);
        }
        Ok(Rejudgement { coordinator: claim.coordinator, dispute, outcome: self.outcome })
    }

    fn check_receipt(&self, case: &Case<'_>) -> Result<(), BundleFault> {
        if self.receipt.signer != case.claim().coordinator || self.receipt.body.claim != case.claim_id() {
            return Err(BundleFault::Receipt);
        }
        self.receipt.verify().map_err(BundleFault::ReceiptSignature)
    }

    fn replay(&self, case: &Case<'_>) -> Result<Dispute, BundleFault> {
        let (first, rest) = self.log.split_first().ok_or(BundleFault::NoOpening)?;
        let mut dispute = self.replay_opening(case, first)?;
        for (seq, entry) in (1..).zip(rest) {
            if dispute.outcome().is_some() {
                return Err(BundleFault::Outcome);
            }
            check_signature(case, seq, entry)?;
            let replayed = replay_entry(&mut dispute, case, seq, entry)?;
            same(seq, &replayed, entry)?;
        }
        Ok(dispute)
    }

    fn replay_opening(&self, case: &Case<'_>, entry: &EvidenceEntry) -> Result<Dispute, BundleFault> {
        check_signature(case, 0, entry)?;
        let Record { event: Event::Opened { terms, .. }, time, .. } = entry.record.body else {
            return Err(BundleFault::NoOpening);
        };
        self.check_terms(terms, time)?;
        let opening = authenticate(0, entry)?;
        let opened = Dispute::open(case, &mut Reveals::new(), &opening, terms, time);
        let (dispute, replayed) = opened.map_err(|refusal| BundleFault::Refused { seq: 0, refusal })?;
        same(0, &replayed, entry)?;
        Ok(dispute)
    }

    /// A suspension can lengthen a window; nothing can shorten it, and nothing changes the allowances.
    fn check_terms(&self, terms: DisputeTerms, opened: crate::ServiceTime) -> Result<(), BundleFault> {
        let receipt = &self.receipt.body;
        if opened < receipt.time || terms.window_closes < receipt.terms.window_closes {
            return Err(BundleFault::Times);
        }
        if (DisputeTerms { window_closes: terms.window_closes, ..receipt.terms }) != terms {
            return Err(BundleFault::Allowances);
        }
        Ok(())
    }
}

fn check_signature(case: &Case<'_>, seq: usize, entry: &EvidenceEntry) -> Result<(), BundleFault> {
    if entry.record.signer != case.claim().coordinator {
        return Err(BundleFault::RecordSigner { seq });
    }
    entry.record.verify().map_err(|source| BundleFault::Signature { seq, source })
}

fn authenticate(seq: usize, entry: &EvidenceEntry) -> Result<Authentic, BundleFault> {
    let signed_move = entry.signed_move.clone().ok_or(BundleFault::Record { seq })?;
    signed_move.authenticate().map_err(|source| BundleFault::Signature { seq, source })
}

/// Makes happen to the dispute what the record says. Reveals known from other disputes stand in the log like any
/// other move, so an empty set of known reveals replays the same records.
fn replay_entry(
    dispute: &mut Dispute,
    case: &Case<'_>,
    seq: usize,
    entry: &EvidenceEntry,
) -> Result<Vec<Entry>, BundleFault> {
    let Record { event, time, .. } = entry.record.body;
    let refused = |refusal| BundleFault::Refused { seq, refusal };
    match event {
        Event::Opened { .. } => Err(BundleFault::Record { seq }),
        Event::Moved { .. } => {
            let made = authenticate(seq, entry)?;
            dispute.apply(case, &mut Reveals::new(), &made, time).map_err(refused)
        }
        Event::Paused => dispute.pause(time).map(|entry| vec![entry]).map_err(refused),
        Event::Resumed => dispute.resume(time).map(|entry| vec![entry]).map_err(refused),
        Event::Expired => Ok(dispute.timeout(time).into_iter().collect()),
        Event::Closed(closing) => Ok(dispute.close(closing, time).into_iter().collect()),
    }
}

fn same(seq: usize, replayed: &[Entry], entry: &EvidenceEntry) -> Result<(), BundleFault> {
    match replayed {
        [replayed] if replayed.record == entry.record.body && replayed.signed_move == entry.signed_move => {
            Ok(())
        }
        _ => Err(BundleFault::Record { seq }),
    }
}

impl Canonical for EvidenceBundle {
    const CONTEXT: &'static str = "gainsay v1 evidence bundle";

    fn encode_fields(&self, e: &mut Encoder) {
        e.bytes(&self.manifest.to_bytes()).bytes(&self.job.to_bytes());
        e.bytes(&self.claim.to_bytes()).bytes(&self.receipt.to_bytes());
        e.list(&self.log, |e, entry| {
            e.bytes(&entry.record.to_bytes());
            e.option(entry.signed_move.as_ref(), |e, signed_move| {
                e.bytes(&signed_move.to_bytes());
            });
        });
        self.outcome.encode(e);
    }

    fn decode_fields(d: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            manifest: Manifest::from_bytes(d.bytes_ref(MAX_MANIFEST_BYTES)?)?,
            job: Job::from_bytes(d.bytes_ref(MAX_JOB_BYTES)?)?,
            claim: Signed::from_bytes(d.bytes_ref(MAX_CLAIM_BYTES)?)?,
            receipt: Signed::from_bytes(d.bytes_ref(MAX_RECORD_BYTES)?)?,
            log: d.list(MAX_RECORDS, |d| {
                Ok(EvidenceEntry {
                    record: Signed::from_bytes(d.bytes_ref(MAX_RECORD_BYTES)?)?,
                    signed_move: d.option(|d| SignedMove::from_bytes(d.bytes_ref(MAX_MOVE_BYTES)?))?,
                })
            })?,
            outcome: Outcome::decode(d)?,
        })
    }
}
